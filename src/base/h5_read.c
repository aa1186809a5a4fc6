/* Reading datasets and attributes of HDF5 files. Conversions between element types are HDF5's. */
#include "base/h5_internal.h"

#include <stdlib.h>
#include <string.h>

#define CACHE_SLOTS 521 /* HDF5's own defaults for a dataset's chunk cache */
#define CACHE_BYTES ((hsize_t)1 << 20)
#define MOST_CACHE_BYTES ((hsize_t)256 << 20)

/* ---- datasets */

lks_status lks_h5_wrap(hid_t id, lks_h5 *file, const char *name, lks_h5_dataset **dataset,
                       lks_error *err) {
  lks_status st = LKS_OK;
  const lks_h5_where where = {file->writing, file->shown, name};
  lks_h5_dataset *made = calloc(1, sizeof(*made));
  TRY_ALLOC(made);
  made->fd = -1;
  made->writer = file->writing ? file : NULL;
  made->shown = strdup(file->shown);
  TRY_ALLOC(made->shown);
  made->name = strdup(name);
  TRY_ALLOC(made->name);
  TRY(lks_h5_describe(id, &where, &made->info, err));
  made->id = id;
  if (!file->writing) {
    lks_h5_watch_length(made);
    lks_h5_find_plain(made);
  }
  *dataset = made;
  return LKS_OK;
cleanup:
  (void)H5Dclose(id);
  if (made != NULL) {
    free(made->shown);
    free(made->name);
    free(made);
  }
  return st;
}

/* True for the name of a dataset. */
static bool is_dataset(hid_t file, const char *name) {
  if (!lks_h5_has(file, name)) {
    return false;
  }
  const hid_t object = H5Oopen(file, name, H5P_DEFAULT);
  const bool yes = object < 0 || H5Iget_type(object) == H5I_DATASET; /* < 0: let H5Dopen say why */
  if (object >= 0) {
    (void)H5Oclose(object);
  }
  return yes;
}

/* The chunks that make up whole rows: how many side by side, and their bytes once unpacked. 0, 0
 * where there are none, or none that are packed. */
static void packed_rows(hid_t dataset, hsize_t *across, hsize_t *bytes) {
  hsize_t chunk[LKS_H5_MAX_RANK], shape[LKS_H5_MAX_RANK];
  *across = *bytes = 0;
  const hid_t made_by = H5Dget_create_plist(dataset);
  const hid_t space = H5Dget_space(dataset);
  const hid_t type = H5Dget_type(dataset);
  const int rank = made_by >= 0 && H5Pget_layout(made_by) == H5D_CHUNKED
                       ? H5Pget_chunk(made_by, LKS_H5_MAX_RANK, chunk)
                       : 0;
  if (rank > 0 && H5Pget_nfilters(made_by) > 0 &&
      H5Sget_simple_extent_dims(space, shape, NULL) == rank) {
    *across = 1;
    *bytes = chunk[0] * H5Tget_size(type);
    for (int i = 1; i < rank; ++i) {
      const hsize_t beside = (shape[i] + chunk[i] - 1) / chunk[i];
      *across *= beside;
      *bytes *= beside * chunk[i];
    }
  }
  if (type >= 0) {
    (void)H5Tclose(type);
  }
  if (space >= 0) {
    (void)H5Sclose(space);
  }
  if (made_by >= 0) {
    (void)H5Pclose(made_by);
  }
}

/* Opens with a cache for the chunks of a row: what does not fit it is unpacked anew by every read
 * of a part. HDF5's own cache does for less, and so it must for more than there may be room for. */
static hid_t open_cached(hid_t file, const char *name) {
  hsize_t across = 0, bytes = 0;
  hid_t id = H5Dopen2(file, name, H5P_DEFAULT);
  if (id >= 0) {
    packed_rows(id, &across, &bytes);
  }
  if (bytes <= CACHE_BYTES || bytes > MOST_CACHE_BYTES) {
    return id;
  }
  const hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
  if (access >= 0 &&
      H5Pset_chunk_cache(access, CACHE_SLOTS + (size_t)across, (size_t)bytes, 1.0) >= 0) {
    (void)H5Dclose(id);
    id = H5Dopen2(file, name, access);
  }
  if (access >= 0) {
    (void)H5Pclose(access);
  }
  return id;
}

static lks_status open_dataset(lks_h5 *file, const char *name, lks_h5_dataset **dataset,
                               lks_error *err) {
  lks_status st = LKS_OK;
  const lks_h5_where where = {false, file->shown, name};
  *dataset = NULL;
  if (!is_dataset(file->id, name)) {
    TRY(lks_h5_fail_missing(file, name, err));
  }
  const hid_t id = open_cached(file->id, name);
  TRY_H5(id, &where);
  TRY(lks_h5_wrap(id, file, name, dataset, err));
cleanup:
  return st;
}

static void close_dataset(lks_h5_dataset **dataset) {
  lks_h5_dataset *closed = *dataset;
  if (closed != NULL) {
    /* Closing writes what is cached of it; only the file can tell that this failed. */
    if (H5Dclose(closed->id) < 0 && closed->writer != NULL &&
        closed->writer->failure.status == LKS_OK) {
      const lks_h5_where where = {true, closed->shown, closed->name};
      closed->writer->failure.status = lks_h5_fail(&closed->writer->failure, &where);
    }
    free(closed->shown);
    free(closed->name);
    free(closed);
    *dataset = NULL;
  }
}

lks_status lks_h5_dataset_open(lks_h5 *file, const char *name, lks_h5_dataset **dataset,
                               lks_error *err) {
  lks_h5_lock();
  const lks_status st = open_dataset(file, name, dataset, err);
  lks_h5_unlock();
  return st;
}

void lks_h5_dataset_close(lks_h5_dataset **dataset) {
  lks_h5_lock();
  close_dataset(dataset);
  lks_h5_unlock();
}

const lks_h5_info *lks_h5_dataset_info(const lks_h5_dataset *dataset) {
  return &dataset->info;
}

static lks_status check_numeric(const lks_h5_dataset *dataset, lks_error *err) {
  const lks_h5_info *info = &dataset->info;
  if (info->kind == LKS_H5_INTEGER || info->kind == LKS_H5_FLOAT) {
    return LKS_OK;
  }
  return lks_fail(err, LKS_DATA, "name a dataset of integers or floats",
                  "%s: dataset '%s' holds %s%s, numbers are needed", dataset->shown, dataset->name,
                  info->kind == LKS_H5_STRING ? "strings" : info->type_name,
                  info->kind == LKS_H5_STRING ? "" : " values");
}

/* Reads `size` values from `start` on, both of the dataset's rank and at least one, by HDF5. */
static lks_status read_block(const lks_h5_dataset *dataset, const hsize_t *start,
                             const hsize_t *size, hid_t type, void *out, lks_error *err) {
  lks_status st = LKS_OK;
  hid_t space = -1, memory = -1;
  const int rank = dataset->info.rank;
  const lks_h5_where where = {false, dataset->shown, dataset->name};
  space = H5Dget_space(dataset->id);
  TRY_H5(space, &where);
  if (rank > 0) {
    const herr_t cut = H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, size, NULL);
    TRY_H5(cut, &where);
  }
  /* Of the file's own shape: HDF5 maps chunks to memory of another rank value by value. */
  memory = H5Screate_simple(rank > 0 ? rank : 1, size, NULL);
  TRY_H5(memory, &where);
  const herr_t done = H5Dread(dataset->id, type, memory, space, H5P_DEFAULT, out);
  TRY(lks_h5_check_length(dataset, err)); /* first, for it explains an error too */
  if (done < 0) {
    TRY(lks_h5_fail_read(dataset->id, &where, err));
  }
cleanup:
  if (memory >= 0) {
    (void)H5Sclose(memory);
  }
  if (space >= 0) {
    (void)H5Sclose(space);
  }
  return st;
}

/* Rows [first, first + count) as the memory type; the lock is held. */
static lks_status read_rows(lks_h5_dataset *dataset, int64_t first, int64_t count, hid_t type,
                            void *out, lks_error *err) {
  lks_status st = LKS_OK;
  hsize_t start[LKS_H5_MAX_RANK] = {0}, size[LKS_H5_MAX_RANK] = {0};
  const lks_h5_info *info = &dataset->info;
  const int64_t rows = info->rank > 0 ? info->shape[0] : 1;
  TRY(check_numeric(dataset, err));
  if (first < 0 || count < 0 || first > rows - count) {
    FAIL(LKS_DATA, "check the number of rows",
         "%s: dataset '%s' has %lld rows, %lld from row %lld were asked for", dataset->shown,
         dataset->name, (long long)rows, (long long)count, (long long)first);
  }
  hsize_t row_values = 1;
  for (int i = 1; i < info->rank; ++i) {
    size[i] = (hsize_t)info->shape[i];
    row_values *= size[i];
  }
  if (count == 0 || row_values == 0) {
    goto cleanup;
  }
  if (type == H5T_NATIVE_FLOAT) {
    const int64_t done = lks_h5_read_plain(dataset, first, count, out);
    first += done;
    count -= done;
    out = (float *)out + (hsize_t)done * row_values;
  }
  if (count == 0) {
    TRY(lks_h5_check_length(dataset, err));
    goto cleanup;
  }
  start[0] = (hsize_t)first;
  size[0] = (hsize_t)count;
  TRY(read_block(dataset, start, size, type, out, err));
cleanup:
  return st;
}

lks_status lks_h5_read_rows(lks_h5_dataset *dataset, int64_t first, int64_t count, double *out,
                            lks_error *err) {
  lks_h5_lock();
  const lks_status st = read_rows(dataset, first, count, H5T_NATIVE_DOUBLE, out, err);
  lks_h5_unlock();
  return st;
}

lks_status lks_h5_read_rows_float(lks_h5_dataset *dataset, int64_t first, int64_t count, float *out,
                                  lks_error *err) {
  lks_h5_lock();
  const lks_status st = read_rows(dataset, first, count, H5T_NATIVE_FLOAT, out, err);
  lks_h5_unlock();
  return st;
}

/* ---- one value */

static lks_status check_single(const lks_h5_dataset *dataset, lks_error *err) {
  for (int i = 0; i < dataset->info.rank; ++i) {
    if (dataset->info.shape[i] != 1) {
      return lks_fail(err, LKS_DATA, "name a dataset of one value",
                      "%s: dataset '%s' is not a single value", dataset->shown, dataset->name);
    }
  }
  return LKS_OK;
}

lks_status lks_h5_read_int64(lks_h5 *file, const char *name, int64_t *out, lks_error *err) {
  lks_status st = LKS_OK;
  lks_h5_dataset *dataset = NULL;
  lks_h5_lock();
  TRY(open_dataset(file, name, &dataset, err));
  TRY(check_single(dataset, err));
  if (dataset->info.kind != LKS_H5_INTEGER) {
    FAIL(LKS_DATA, "name a dataset of integers",
         "%s: dataset '%s' is of type %s, a whole number is needed", file->shown, name,
         dataset->info.type_name);
  }
  TRY(read_rows(dataset, 0, 1, H5T_NATIVE_INT64, out, err));
cleanup:
  close_dataset(&dataset);
  lks_h5_unlock();
  return st;
}

lks_status lks_h5_read_real(lks_h5 *file, const char *name, double *out, lks_error *err) {
  lks_status st = LKS_OK;
  lks_h5_dataset *dataset = NULL;
  lks_h5_lock();
  TRY(open_dataset(file, name, &dataset, err));
  TRY(check_single(dataset, err));
  TRY(read_rows(dataset, 0, 1, H5T_NATIVE_DOUBLE, out, err));
cleanup:
  close_dataset(&dataset);
  lks_h5_unlock();
  return st;
}

/* ---- texts */

/* Reads `count` strings of a dataset or an attribute, stored in `type`, into the arena. */
static lks_status read_strings(hid_t object, bool attribute, hid_t type, int count,
                               const lks_h5_where *where, lks_arena *arena, const char **out,
                               lks_error *err) {
  lks_status st = LKS_OK;
  char **pointers = NULL;
  char *fixed = NULL;
  const bool variable = H5Tis_variable_str(type) > 0;
  const size_t width = variable ? 0 : H5Tget_size(type) + 1;
  const hid_t memory = H5Tcopy(H5T_C_S1);
  TRY_H5(memory, where);
  const herr_t sized = H5Tset_size(memory, variable ? H5T_VARIABLE : width);
  TRY_H5(sized, where);
  const herr_t encoded = H5Tset_cset(memory, H5Tget_cset(type)); /* HDF5 does not recode */
  TRY_H5(encoded, where);
  pointers = calloc((size_t)count, sizeof(*pointers));
  TRY_ALLOC(pointers);
  if (!variable) {
    fixed = calloc((size_t)count, width);
    TRY_ALLOC(fixed);
  }
  void *into = variable ? (void *)pointers : (void *)fixed;
  const herr_t done = attribute ? H5Aread(object, memory, into)
                                : H5Dread(object, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, into);
  TRY_H5(done, where);
  for (int i = 0; i < count; ++i) {
    const char *text = variable ? pointers[i] : fixed + (size_t)i * width;
    out[i] = lks_arena_copy(arena, text != NULL ? text : "");
    TRY_ALLOC(out[i]);
  }
cleanup:
  for (int i = 0; variable && pointers != NULL && i < count; ++i) {
    (void)H5free_memory(pointers[i]);
  }
  free(pointers);
  free(fixed);
  if (memory >= 0) {
    (void)H5Tclose(memory);
  }
  return st;
}

lks_status lks_h5_read_text(lks_h5 *file, const char *name, lks_arena *arena, char **out,
                            lks_error *err) {
  lks_status st = LKS_OK;
  hid_t type = -1;
  const char *text = NULL;
  lks_h5_dataset *dataset = NULL;
  const lks_h5_where where = {false, file->shown, name};
  *out = NULL;
  lks_h5_lock();
  TRY(open_dataset(file, name, &dataset, err));
  TRY(check_single(dataset, err));
  if (dataset->info.kind != LKS_H5_STRING) {
    FAIL(LKS_DATA, "name a dataset of strings", "%s: dataset '%s' is of type %s, text is needed",
         file->shown, name, dataset->info.type_name);
  }
  type = H5Dget_type(dataset->id);
  TRY_H5(type, &where);
  TRY(read_strings(dataset->id, false, type, 1, &where, arena, &text, err));
  *out = lks_arena_copy(arena, text);
  TRY_ALLOC(*out);
cleanup:
  if (type >= 0) {
    (void)H5Tclose(type);
  }
  close_dataset(&dataset);
  lks_h5_unlock();
  return st;
}

/* ---- attributes */

/* Opens an attribute; *id is -1 where the object or the attribute is not there. */
static lks_status open_attribute(lks_h5 *file, const lks_h5_where *where, const char *key,
                                 hid_t *id, lks_error *err) {
  lks_status st = LKS_OK;
  *id = -1;
  if (!lks_h5_has(file->id, where->object)) {
    goto cleanup;
  }
  const htri_t there = H5Aexists_by_name(file->id, where->object, key, H5P_DEFAULT);
  TRY_H5(there, where);
  if (there > 0) {
    *id = H5Aopen_by_name(file->id, where->object, key, H5P_DEFAULT, H5P_DEFAULT);
    TRY_H5(*id, where);
  }
cleanup:
  return st;
}

lks_status lks_h5_attr_read_texts(lks_h5 *file, const char *name, const char *key, lks_arena *arena,
                                  lks_texts *out, lks_error *err) {
  lks_status st = LKS_OK;
  hid_t id = -1, type = -1, space = -1;
  const lks_h5_where where = {false, file->shown, name};
  *out = (lks_texts){0};
  lks_h5_lock();
  TRY(open_attribute(file, &where, key, &id, err));
  if (id < 0) {
    goto cleanup;
  }
  space = H5Aget_space(id);
  TRY_H5(space, &where);
  const hssize_t count = H5Sget_simple_extent_npoints(space);
  TRY_H5(count, &where);
  if (count == 0 || count > INT32_MAX) {
    goto cleanup; /* of whatever type: Keras writes no names as no numbers */
  }
  type = H5Aget_type(id);
  TRY_H5(type, &where);
  if (H5Tget_class(type) != H5T_STRING) {
    FAIL(LKS_DATA, "write the file again", "%s: attribute '%s' of '%s' holds no text", file->shown,
         key, name);
  }
  const char **items = lks_arena_alloc(arena, (size_t)count * sizeof(*items));
  TRY_ALLOC(items);
  TRY(read_strings(id, true, type, (int)count, &where, arena, items, err));
  out->items = items;
  out->count = (int)count;
cleanup:
  if (space >= 0) {
    (void)H5Sclose(space);
  }
  if (type >= 0) {
    (void)H5Tclose(type);
  }
  if (id >= 0) {
    (void)H5Aclose(id);
  }
  lks_h5_unlock();
  return st;
}

lks_status lks_h5_attr_read_text(lks_h5 *file, const char *name, const char *key, lks_arena *arena,
                                 char **out, lks_error *err) {
  lks_status st = LKS_OK;
  lks_texts texts;
  *out = NULL;
  TRY(lks_h5_attr_read_texts(file, name, key, arena, &texts, err));
  if (texts.count > 0) {
    *out = lks_arena_copy(arena, texts.items[0]);
    TRY_ALLOC(*out);
  }
cleanup:
  return st;
}

lks_status lks_h5_attr_read_int64(lks_h5 *file, const char *name, const char *key, int64_t *out,
                                  lks_error *err) {
  lks_status st = LKS_OK;
  hid_t id = -1, type = -1, space = -1;
  const lks_h5_where where = {false, file->shown, name};
  lks_h5_lock();
  TRY(open_attribute(file, &where, key, &id, err));
  if (id < 0) {
    FAIL(LKS_DATA, "write the file again", "%s: '%s' has no attribute '%s'", file->shown, name,
         key);
  }
  type = H5Aget_type(id);
  TRY_H5(type, &where);
  space = H5Aget_space(id);
  TRY_H5(space, &where);
  if (H5Tget_class(type) != H5T_INTEGER || H5Sget_simple_extent_npoints(space) != 1) {
    FAIL(LKS_DATA, "write the file again", "%s: attribute '%s' of '%s' is not one whole number",
         file->shown, key, name);
  }
  const herr_t done = H5Aread(id, H5T_NATIVE_INT64, out);
  TRY_H5(done, &where);
cleanup:
  if (space >= 0) {
    (void)H5Sclose(space);
  }
  if (type >= 0) {
    (void)H5Tclose(type);
  }
  if (id >= 0) {
    (void)H5Aclose(id);
  }
  lks_h5_unlock();
  return st;
}
