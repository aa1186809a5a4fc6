/* Writing datasets, links and attributes. Nothing carries a time stamp, so that equal content
 * gives equal bytes. */
#include "base/h5_internal.h"

#include <string.h>

static hid_t disk_type(lks_h5_type type) {
  switch (type) {
  case LKS_H5_F32:
    return H5T_IEEE_F32LE;
  case LKS_H5_F64:
    return H5T_IEEE_F64LE;
  case LKS_H5_I32:
    return H5T_STD_I32LE;
  case LKS_H5_I64:
    return H5T_STD_I64LE;
  case LKS_H5_U8:
    return H5T_STD_U8LE;
  }
  return -1;
}

static hid_t memory_type(lks_h5_type type) {
  switch (type) {
  case LKS_H5_F32:
    return H5T_NATIVE_FLOAT;
  case LKS_H5_F64:
    return H5T_NATIVE_DOUBLE;
  case LKS_H5_I32:
    return H5T_NATIVE_INT32;
  case LKS_H5_I64:
    return H5T_NATIVE_INT64;
  case LKS_H5_U8:
    return H5T_NATIVE_UINT8;
  }
  return -1;
}

hid_t lks_h5_text_type(void) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  if (type >= 0 && (H5Tset_size(type, H5T_VARIABLE) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0)) {
    (void)H5Tclose(type);
    return -1;
  }
  return type;
}

/* Link properties that make missing parent groups, and name links in UTF-8. */
static hid_t link_list(void) {
  const hid_t list = H5Pcreate(H5P_LINK_CREATE);
  if (list >= 0 && (H5Pset_create_intermediate_group(list, 1) < 0 ||
                    H5Pset_char_encoding(list, H5T_CSET_UTF8) < 0)) {
    (void)H5Pclose(list);
    return -1;
  }
  return list;
}

static hid_t make_space(int rank, const int64_t *shape, bool growing) {
  hsize_t now[LKS_H5_MAX_RANK], most[LKS_H5_MAX_RANK];
  if (rank == 0) {
    return H5Screate(H5S_SCALAR);
  }
  for (int i = 0; i < rank; ++i) {
    now[i] = most[i] = (hsize_t)shape[i];
  }
  if (growing) {
    most[0] = H5S_UNLIMITED;
  }
  return H5Screate_simple(rank, now, most);
}

/* Creates a dataset with the given creation properties. */
static lks_status create(lks_h5 *file, const char *name, hid_t type, hid_t space, hid_t properties,
                         hid_t *id, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_h5_where where = {true, file->shown, name};
  const hid_t links = link_list();
  TRY_H5(links, &where);
  const herr_t untimed = H5Pset_obj_track_times(properties, false);
  TRY_H5(untimed, &where);
  *id = H5Dcreate2(file->id, name, type, space, links, properties, H5P_DEFAULT);
  TRY_H5(*id, &where);
cleanup:
  if (links >= 0) {
    (void)H5Pclose(links);
  }
  return st;
}

/* Closing writes what HDF5 still holds of the dataset: this can fail too. */
static lks_status close_written(hid_t id, lks_status st, const lks_h5_where *where,
                                lks_error *err) {
  if (id >= 0 && H5Dclose(id) < 0 && st == LKS_OK) {
    return lks_h5_fail(err, where);
  }
  return st;
}

lks_status lks_h5_group(lks_h5 *file, const char *name, lks_error *err) {
  lks_status st = LKS_OK;
  hid_t links = -1, id = -1;
  const lks_h5_where where = {true, file->shown, name};
  lks_h5_lock();
  if (lks_h5_has(file->id, name)) {
    goto cleanup;
  }
  links = link_list();
  TRY_H5(links, &where);
  id = H5Gcreate2(file->id, name, links, H5P_DEFAULT, H5P_DEFAULT);
  TRY_H5(id, &where);
cleanup:
  if (id >= 0) {
    (void)H5Gclose(id);
  }
  if (links >= 0) {
    (void)H5Pclose(links);
  }
  lks_h5_unlock();
  return st;
}

/* A contiguous dataset; the lock is held. early: allocated now and never filled. */
static lks_status create_contiguous(lks_h5 *file, const char *name, hid_t type, int rank,
                                    const int64_t *shape, bool early, hid_t *id, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_h5_where where = {true, file->shown, name};
  const hid_t space = make_space(rank, shape, false);
  const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
  TRY_H5(space, &where);
  TRY_H5(properties, &where);
  if (early) {
    const herr_t now = H5Pset_alloc_time(properties, H5D_ALLOC_TIME_EARLY);
    TRY_H5(now, &where);
    const herr_t unfilled = H5Pset_fill_time(properties, H5D_FILL_TIME_NEVER);
    TRY_H5(unfilled, &where);
  }
  TRY(create(file, name, type, space, properties, id, err));
cleanup:
  if (properties >= 0) {
    (void)H5Pclose(properties);
  }
  if (space >= 0) {
    (void)H5Sclose(space);
  }
  return st;
}

lks_status lks_h5_write(lks_h5 *file, const char *name, lks_h5_type type, int rank,
                        const int64_t *shape, const void *data, lks_error *err) {
  lks_status st = LKS_OK;
  hid_t id = -1;
  bool empty = false;
  const lks_h5_where where = {true, file->shown, name};
  lks_h5_lock();
  TRY(create_contiguous(file, name, disk_type(type), rank, shape, false, &id, err));
  for (int i = 0; i < rank; ++i) {
    empty = empty || shape[i] == 0;
  }
  if (!empty) {
    const herr_t done = H5Dwrite(id, memory_type(type), H5S_ALL, H5S_ALL, H5P_DEFAULT, data);
    TRY_H5(done, &where);
  }
cleanup:
  st = close_written(id, st, &where, err);
  lks_h5_unlock();
  return st;
}

lks_status lks_h5_write_text(lks_h5 *file, const char *name, const char *text, lks_error *err) {
  lks_status st = LKS_OK;
  hid_t id = -1, type = -1;
  const lks_h5_where where = {true, file->shown, name};
  lks_h5_lock();
  type = lks_h5_text_type();
  TRY_H5(type, &where);
  TRY(create_contiguous(file, name, type, 0, NULL, false, &id, err));
  const herr_t done = H5Dwrite(id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, &text);
  TRY_H5(done, &where);
cleanup:
  st = close_written(id, st, &where, err);
  if (type >= 0) {
    (void)H5Tclose(type);
  }
  lks_h5_unlock();
  return st;
}

lks_status lks_h5_reserve(lks_h5 *file, const char *name, lks_h5_type type, int rank,
                          const int64_t *shape, int64_t *offset, lks_error *err) {
  lks_status st = LKS_OK;
  hid_t id = -1;
  lks_h5_lock();
  TRY(create_contiguous(file, name, disk_type(type), rank, shape, true, &id, err));
  const haddr_t at = H5Dget_offset(id);
  if (at == HADDR_UNDEF) {
    FAIL(LKS_INTERNAL, NULL, "cannot write %s: no space was laid out for '%s'", file->shown, name);
  }
  *offset = (int64_t)at;
cleanup:
  if (id >= 0) {
    (void)H5Dclose(id);
  }
  lks_h5_unlock();
  return st;
}

/* ---- datasets that grow */

lks_status lks_h5_create_rows(lks_h5 *file, const char *name, lks_h5_type type, int rank,
                              const int64_t *shape, int64_t chunk_rows, int deflate,
                              lks_h5_dataset **dataset, lks_error *err) {
  lks_status st = LKS_OK;
  hid_t id = -1, space = -1, properties = -1;
  hsize_t chunk[LKS_H5_MAX_RANK];
  const lks_h5_where where = {true, file->shown, name};
  *dataset = NULL;
  lks_h5_lock();
  space = make_space(rank, shape, true);
  TRY_H5(space, &where);
  properties = H5Pcreate(H5P_DATASET_CREATE);
  TRY_H5(properties, &where);
  chunk[0] = chunk_rows > 0 ? (hsize_t)chunk_rows : 1;
  for (int i = 1; i < rank; ++i) {
    chunk[i] = shape[i] > 0 ? (hsize_t)shape[i] : 1;
  }
  const herr_t chunked = H5Pset_chunk(properties, rank, chunk);
  TRY_H5(chunked, &where);
  if (deflate > 0) {
    const herr_t shuffled = H5Pset_shuffle(properties);
    TRY_H5(shuffled, &where);
    const herr_t deflated = H5Pset_deflate(properties, (unsigned)deflate);
    TRY_H5(deflated, &where);
  }
  TRY(create(file, name, disk_type(type), space, properties, &id, err));
  const hid_t made = id;
  id = -1;
  TRY(lks_h5_wrap(made, file, name, dataset, err));
cleanup:
  if (id >= 0) {
    (void)H5Dclose(id);
  }
  if (properties >= 0) {
    (void)H5Pclose(properties);
  }
  if (space >= 0) {
    (void)H5Sclose(space);
  }
  lks_h5_unlock();
  return st;
}

/* Makes room for rows [0, rows). */
static lks_status grow(lks_h5_dataset *dataset, int64_t rows, const lks_h5_where *where,
                       lks_error *err) {
  lks_status st = LKS_OK;
  hsize_t size[LKS_H5_MAX_RANK];
  if (rows <= dataset->info.shape[0]) {
    return LKS_OK;
  }
  for (int i = 0; i < dataset->info.rank; ++i) {
    size[i] = (hsize_t)dataset->info.shape[i];
  }
  size[0] = (hsize_t)rows;
  const herr_t done = H5Dset_extent(dataset->id, size);
  TRY_H5(done, where);
  dataset->info.shape[0] = rows;
cleanup:
  return st;
}

/* The native type of a dataset that lks_h5_create_rows made. */
static hid_t native_type(hid_t dataset) {
  const hid_t stored = H5Dget_type(dataset);
  if (stored < 0) {
    return stored;
  }
  const hid_t native = H5Tget_native_type(stored, H5T_DIR_ASCEND);
  (void)H5Tclose(stored);
  return native;
}

lks_status lks_h5_write_rows(lks_h5_dataset *dataset, int64_t first, int64_t count,
                             const void *data, lks_error *err) {
  lks_status st = LKS_OK;
  hid_t space = -1, memory = -1, type = -1;
  hsize_t start[LKS_H5_MAX_RANK] = {0}, size[LKS_H5_MAX_RANK] = {0};
  const lks_h5_where where = {true, dataset->shown, dataset->name};
  hsize_t values = (hsize_t)count;
  lks_h5_lock();
  TRY(grow(dataset, first + count, &where, err));
  start[0] = (hsize_t)first;
  size[0] = (hsize_t)count;
  for (int i = 1; i < dataset->info.rank; ++i) {
    size[i] = (hsize_t)dataset->info.shape[i];
    values *= size[i];
  }
  if (values == 0) {
    goto cleanup;
  }
  space = H5Dget_space(dataset->id);
  TRY_H5(space, &where);
  const herr_t cut = H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, size, NULL);
  TRY_H5(cut, &where);
  memory = H5Screate_simple(1, &values, NULL);
  TRY_H5(memory, &where);
  type = native_type(dataset->id);
  TRY_H5(type, &where);
  const herr_t done = H5Dwrite(dataset->id, type, memory, space, H5P_DEFAULT, data);
  TRY_H5(done, &where);
cleanup:
  if (type >= 0) {
    (void)H5Tclose(type);
  }
  if (memory >= 0) {
    (void)H5Sclose(memory);
  }
  if (space >= 0) {
    (void)H5Sclose(space);
  }
  lks_h5_unlock();
  return st;
}

/* ---- links and attributes */

lks_status lks_h5_link(lks_h5 *file, const char *target, const char *link, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_h5_where where = {true, file->shown, link};
  lks_h5_lock();
  const hid_t links = link_list();
  TRY_H5(links, &where);
  const herr_t done = H5Lcreate_hard(file->id, target, file->id, link, links, H5P_DEFAULT);
  TRY_H5(done, &where);
cleanup:
  if (links >= 0) {
    (void)H5Pclose(links);
  }
  lks_h5_unlock();
  return st;
}

/* Creates (or replaces) an attribute of count elements (-1: a scalar) and writes it. */
static lks_status put_attribute(lks_h5 *file, const char *name, const char *key, hid_t stored,
                                hid_t native, int count, const void *data, lks_error *err) {
  lks_status st = LKS_OK;
  hid_t id = -1;
  const hsize_t size = count > 0 ? (hsize_t)count : 0;
  const lks_h5_where where = {true, file->shown, name};
  const hid_t space = count < 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &size, NULL);
  TRY_H5(space, &where);
  TRY_H5(stored, &where);
  const htri_t there = H5Aexists_by_name(file->id, name, key, H5P_DEFAULT);
  TRY_H5(there, &where);
  if (there > 0) {
    const herr_t gone = H5Adelete_by_name(file->id, name, key, H5P_DEFAULT);
    TRY_H5(gone, &where);
  }
  id = H5Acreate_by_name(file->id, name, key, stored, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  TRY_H5(id, &where);
  if (count != 0) {
    const herr_t done = H5Awrite(id, native, data);
    TRY_H5(done, &where);
  }
cleanup:
  if (id >= 0) {
    (void)H5Aclose(id);
  }
  if (space >= 0) {
    (void)H5Sclose(space);
  }
  return st;
}

static lks_status put_texts(lks_h5 *file, const char *name, const char *key,
                            const char *const *texts, int count, lks_error *err) {
  lks_h5_lock();
  const hid_t type = lks_h5_text_type();
  const lks_status st = put_attribute(file, name, key, type, type, count, texts, err);
  if (type >= 0) {
    (void)H5Tclose(type);
  }
  lks_h5_unlock();
  return st;
}

lks_status lks_h5_attr_text(lks_h5 *file, const char *name, const char *key, const char *text,
                            lks_error *err) {
  return put_texts(file, name, key, &text, -1, err);
}

lks_status lks_h5_attr_texts(lks_h5 *file, const char *name, const char *key,
                             const char *const *texts, int count, lks_error *err) {
  return put_texts(file, name, key, texts, count, err);
}

lks_status lks_h5_attr_int64(lks_h5 *file, const char *name, const char *key, int64_t value,
                             lks_error *err) {
  lks_h5_lock();
  const lks_status st =
      put_attribute(file, name, key, H5T_STD_I64LE, H5T_NATIVE_INT64, -1, &value, err);
  lks_h5_unlock();
  return st;
}

lks_status lks_h5_attr_real(lks_h5 *file, const char *name, const char *key, double value,
                            lks_error *err) {
  lks_h5_lock();
  const lks_status st =
      put_attribute(file, name, key, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, -1, &value, err);
  lks_h5_unlock();
  return st;
}
