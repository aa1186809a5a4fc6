/* Where the rows of a virtual dataset lie. HDF5 gives the fill value, mostly zeros, for those whose
 * file or dataset cannot be opened, and for those that lie nowhere, without a word. */
#include "base/h5_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
  MOST_DEEP = 8,     /* virtual datasets in virtual datasets; some lie in themselves */
  MOST_UNITED = 1000 /* mappings: HDF5 unites in time that grows with their square */
};

/* Names of at most this length, with what ends them. */
typedef struct mapping {
  char file[4200], set[4200];
} mapping;

/* ---- values that lie nowhere */

/* Adds a mapping to what is mapped: false where that is not known. */
static bool unite(hid_t mapped, hid_t part) {
  hsize_t start[LKS_H5_MAX_RANK], stride[LKS_H5_MAX_RANK];
  hsize_t count[LKS_H5_MAX_RANK], block[LKS_H5_MAX_RANK];
  if (H5Sget_select_type(part) == H5S_SEL_ALL) {
    return H5Sselect_all(mapped) >= 0;
  }
  return H5Sget_select_type(part) == H5S_SEL_HYPERSLABS && H5Sis_regular_hyperslab(part) > 0 &&
         H5Sget_regular_hyperslab(part, start, stride, count, block) >= 0 &&
         H5Sselect_hyperslab(mapped, H5S_SELECT_OR, start, stride, count, block) >= 0;
}

/* Points of the dataset that are mapped, at least; negative: of unlimited mappings, which the
 * dataset grows with, or not known. */
static hssize_t count_mapped(hid_t made_by, size_t mappings, hid_t mapped) {
  hssize_t sum = 0;
  bool united = mappings <= MOST_UNITED && H5Sselect_none(mapped) >= 0;
  for (size_t i = 0; i < mappings && sum >= 0; ++i) {
    const hid_t part = H5Pget_virtual_vspace(made_by, i);
    const hssize_t points = part >= 0 ? H5Sget_select_npoints(part) : -1;
    sum = points < 0 ? -1 : sum + points;
    united = united && sum >= 0 && unite(mapped, part);
    if (part >= 0) {
      (void)H5Sclose(part);
    }
  }
  return united ? H5Sget_select_npoints(mapped) : sum;
}

static lks_status check_gaps(hid_t dataset, hid_t made_by, size_t mappings,
                             const lks_h5_where *where, lks_error *err) {
  lks_status st = LKS_OK;
  const hid_t space = H5Dget_space(dataset);
  TRY_H5(space, where);
  const hssize_t values = H5Sget_simple_extent_npoints(space);
  const hssize_t mapped = count_mapped(made_by, mappings, space);
  if (mapped >= 0 && mapped < values) {
    FAIL(LKS_DATA, "write it again with a source for every row",
         "%s: dataset '%s' is virtual, and %lld of its %lld values lie nowhere", where->file,
         where->object, (long long)(values - mapped), (long long)values);
  }
cleanup:
  if (space >= 0) {
    (void)H5Sclose(space);
  }
  return st;
}

/* ---- sources */

/* The file of a source; *id is -1 where only HDF5 knows its name. */
static lks_status open_file(hid_t dataset, const mapping *from, const lks_h5_where *where,
                            hid_t *id, lks_error *err) {
  lks_status st = LKS_OK;
  lks_error inner;
  *id = -1;
  if (strchr(from->file, '%') != NULL || strchr(from->set, '%') != NULL) { /* numbered */
    goto cleanup;
  }
  if (strcmp(from->file, ".") == 0) { /* the same file */
    *id = H5Iget_file_id(dataset);
    TRY_H5(*id, where);
    goto cleanup;
  }
  lks_error_clear(&inner);
  const lks_status opened = lks_h5_open_named(dataset, from->file, id, &inner);
  if (opened != LKS_OK) {
    FAIL(opened, inner.remedy,
         "%s: dataset '%s' is virtual, and a file with rows of it cannot be read: %s", where->file,
         where->object, inner.what);
  }
  if (*id < 0) {
    FAIL(LKS_DATA, "copy or link that file to where it was, or beside this one",
         "%s: dataset '%s' is virtual, and a file with rows of it is not there: %s", where->file,
         where->object, from->file);
  }
cleanup:
  return st;
}

/* depth: of the dataset that the rows belong to. */
static lks_status check_source(hid_t dataset, const mapping *from, const lks_h5_where *where,
                               int depth, lks_error *err) {
  lks_status st = LKS_OK;
  hid_t file = -1, source = -1;
  char path[4200];
  TRY(open_file(dataset, from, where, &file, err));
  if (file < 0) {
    goto cleanup;
  }
  const ssize_t length = H5Fget_name(file, path, sizeof path);
  TRY_H5(length, where);
  source = lks_h5_has(file, from->set) ? H5Dopen2(file, from->set, H5P_DEFAULT) : -1;
  if (source < 0) {
    FAIL(LKS_DATA, "write that dataset, or the virtual one again",
         "%s: dataset '%s' is virtual, and %s has no dataset '%s' with rows of it", where->file,
         where->object, path, from->set);
  }
  const lks_h5_where inner = {false, path, from->set};
  TRY(lks_h5_check_stored(source, &inner, depth + 1, err));
cleanup:
  if (source >= 0) {
    (void)H5Dclose(source);
  }
  if (file >= 0) {
    (void)H5Fclose(file);
  }
  return st;
}

lks_status lks_h5_check_virtual(hid_t dataset, hid_t made_by, const lks_h5_where *where, int depth,
                                lks_error *err) {
  lks_status st = LKS_OK;
  size_t count = 0;
  mapping *names = NULL;
  const char *prefix = getenv("HDF5_VDS_PREFIX");
  const herr_t got = H5Pget_virtual_count(made_by, &count);
  TRY_H5(got, where);
  if (depth > MOST_DEEP) {
    FAIL(LKS_DATA, "write it again, with rows that lie in plain datasets",
         "%s: dataset '%s' is virtual more than %d datasets deep, or lies in itself", where->file,
         where->object, MOST_DEEP);
  }
  TRY(check_gaps(dataset, made_by, count, where, err));
  if (prefix != NULL && prefix[0] != '\0') {
    goto cleanup; /* HDF5 looks in places of its own */
  }
  names = calloc(2, sizeof *names);
  TRY_ALLOC(names);
  for (size_t i = 0; i < count; ++i) {
    mapping *this = &names[i % 2];
    const mapping *last = &names[(i + 1) % 2]; /* often the same dataset, by pieces */
    const ssize_t letters = H5Pget_virtual_filename(made_by, i, this->file, sizeof this->file);
    TRY_H5(letters, where);
    const ssize_t more = H5Pget_virtual_dsetname(made_by, i, this->set, sizeof this->set);
    TRY_H5(more, where);
    if (strcmp(this->file, last->file) != 0 || strcmp(this->set, last->set) != 0) {
      TRY(check_source(dataset, this, where, depth, err));
    }
  }
cleanup:
  free(names);
  return st;
}
