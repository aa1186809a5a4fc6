/* Tables of compounds. Members are found by name, so that a file of another version reads as far as
 * both agree. */
#include "base/h5_table.h"

#include <stdio.h>

#include "base/h5_internal.h"

/* A member's type: as it lies in memory, or little-endian. Negative on failure. */
static hid_t member_type(const lks_field *field, bool on_disk) {
  hid_t type = -1;
  switch (field->type) {
  case LKS_FIELD_INT:
    return H5Tcopy(on_disk ? H5T_STD_I32LE : H5T_NATIVE_INT);
  case LKS_FIELD_INT64:
    return H5Tcopy(on_disk ? H5T_STD_I64LE : H5T_NATIVE_INT64);
  case LKS_FIELD_REAL:
    return H5Tcopy(on_disk ? H5T_IEEE_F64LE : H5T_NATIVE_DOUBLE);
  case LKS_FIELD_TEXT:
    type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && (H5Tset_size(type, field->size) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0)) {
      (void)H5Tclose(type);
      type = -1;
    }
    return type;
  }
  return -1;
}

/* The compound of all fields, with the struct's own offsets. */
static hid_t row_type(const lks_field *fields, size_t stride, bool on_disk) {
  const hid_t type = H5Tcreate(H5T_COMPOUND, stride);
  for (const lks_field *field = fields; type >= 0 && field->name != NULL; ++field) {
    const hid_t member = member_type(field, on_disk);
    const herr_t added = member < 0 ? -1 : H5Tinsert(type, field->name, field->offset, member);
    if (member >= 0) {
      (void)H5Tclose(member);
    }
    if (added < 0) {
      (void)H5Tclose(type);
      return -1;
    }
  }
  return type;
}

static lks_status write_rows(lks_h5 *file, const char *name, const lks_field *fields,
                             const void *rows, size_t stride, int64_t count, lks_error *err) {
  lks_status st = LKS_OK;
  const hsize_t size = (hsize_t)count;
  hid_t id = -1;
  const lks_h5_where where = {true, file->shown, name};
  const hid_t memory = row_type(fields, stride, false), disk = row_type(fields, stride, true);
  const hid_t space = H5Screate_simple(1, &size, NULL);
  const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
  TRY_H5(memory, &where);
  TRY_H5(disk, &where);
  TRY_H5(space, &where);
  TRY_H5(properties, &where);
  const herr_t packed = H5Tpack(disk);
  TRY_H5(packed, &where);
  const herr_t untimed = H5Pset_obj_track_times(properties, false);
  TRY_H5(untimed, &where);
  id = H5Dcreate2(file->id, name, disk, space, H5P_DEFAULT, properties, H5P_DEFAULT);
  TRY_H5(id, &where);
  if (count > 0) {
    const herr_t done = H5Dwrite(id, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, rows);
    TRY_H5(done, &where);
  }
cleanup:
  if (id >= 0 && H5Dclose(id) < 0 && st == LKS_OK) {
    st = lks_h5_fail(err, &where);
  }
  if (properties >= 0) {
    (void)H5Pclose(properties);
  }
  if (space >= 0) {
    (void)H5Sclose(space);
  }
  if (disk >= 0) {
    (void)H5Tclose(disk);
  }
  if (memory >= 0) {
    (void)H5Tclose(memory);
  }
  return st;
}

lks_status lks_h5_write_table(lks_h5 *file, const char *name, const lks_field *fields,
                              const void *rows, size_t stride, int64_t count, lks_error *err) {
  lks_status st = LKS_OK;
  char key[80];
  lks_h5_lock();
  st = write_rows(file, name, fields, rows, stride, count, err);
  lks_h5_unlock();
  TRY(st);
  for (const lks_field *field = fields; field->name != NULL; ++field) {
    if (field->unit != NULL) {
      (void)snprintf(key, sizeof key, "%s.unit", field->name);
      TRY(lks_h5_attr_text(file, name, key, field->unit, err));
    }
  }
cleanup:
  return st;
}

lks_status lks_h5_read_table(lks_h5 *file, const char *name, const lks_field *fields, size_t stride,
                             lks_arena *arena, void **rows, int64_t *count, lks_error *err) {
  lks_status st = LKS_OK;
  lks_h5_dataset *dataset = NULL;
  hid_t memory = -1;
  const lks_h5_where where = {false, file->shown, name};
  *rows = NULL;
  *count = 0;
  TRY(lks_h5_dataset_open(file, name, &dataset, err));
  const lks_h5_info *info = lks_h5_dataset_info(dataset);
  if (info->kind != LKS_H5_COMPOUND || info->rank != 1) {
    FAIL(LKS_DATA, "write the file again", "%s: '%s' is not a table", file->shown, name);
  }
  *rows = lks_arena_alloc(arena, (size_t)(info->shape[0] + 1) * stride);
  TRY_ALLOC(*rows);
  lks_h5_lock();
  memory = row_type(fields, stride, false);
  if (memory < 0 || (info->shape[0] > 0 &&
                     H5Dread(dataset->id, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, *rows) < 0)) {
    st = lks_h5_fail(err, &where);
  }
  if (memory >= 0) {
    (void)H5Tclose(memory);
  }
  lks_h5_unlock();
  TRY(st);
  *count = info->shape[0];
cleanup:
  lks_h5_dataset_close(&dataset);
  return st;
}
