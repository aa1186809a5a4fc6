/* How the values of a dataset are stored, and whether they can be had. */
#include "base/h5_internal.h"

#include <sys/stat.h>

/* ---- the file */

/* Bytes of the file; -1: not known. */
static int64_t size_of(int fd) {
  struct stat about;
  return fd >= 0 && fstat(fd, &about) == 0 ? (int64_t)about.st_size : -1;
}

/* The descriptor of the file that holds an object, which a link may have led to; -1 where the
 * driver has none. */
static int descriptor_of(hid_t object) {
  int fd = -1;
  void *handle = NULL;
  const hid_t file = H5Iget_file_id(object);
  const hid_t access = file >= 0 ? H5Fget_access_plist(file) : -1;
  if (access >= 0 && H5Pget_driver(access) == H5FD_SEC2 &&
      H5Fget_vfd_handle(file, H5P_DEFAULT, &handle) >= 0 && handle != NULL) {
    fd = *(const int *)handle;
  }
  if (access >= 0) {
    (void)H5Pclose(access);
  }
  if (file >= 0) {
    (void)H5Fclose(file);
  }
  return fd;
}

void lks_h5_watch_length(lks_h5_dataset *dataset) {
  dataset->fd = descriptor_of(dataset->id);
  dataset->bytes = size_of(dataset->fd);
}

lks_status lks_h5_check_length(const lks_h5_dataset *dataset, lks_error *err) {
  const int64_t bytes = size_of(dataset->fd);
  if (bytes < 0 || bytes >= dataset->bytes) {
    return LKS_OK;
  }
  return lks_fail(err, LKS_DATA, "write it again, and leave it alone while a run reads it",
                  "%s: became shorter while it was in use: %lld of %lld bytes are there",
                  dataset->shown, (long long)bytes, (long long)dataset->bytes);
}

/* ---- filters */

static lks_status check_filters(hid_t dataset, const lks_h5_where *where, lks_error *err) {
  lks_status st = LKS_OK;
  char name[64] = "";
  const hid_t made_by = H5Dget_create_plist(dataset);
  TRY_H5(made_by, where);
  const int count = H5Pget_nfilters(made_by);
  for (int i = 0; i < count; ++i) {
    unsigned flags = 0;
    size_t numbers = 0;
    const H5Z_filter_t filter =
        H5Pget_filter2(made_by, (unsigned)i, &flags, &numbers, NULL, sizeof name, name, NULL);
    TRY_H5(filter, where);
    name[sizeof name - 1] = '\0';
    if (H5Zfilter_avail(filter) <= 0) { /* negative: the folder of plugins is not there */
      FAIL(LKS_DATA, "copy the file with h5repack where it has, or set HDF5_PLUGIN_PATH",
           "%s: dataset '%s' is packed with filter %s%s%d%s, which this HDF5 has not", where->file,
           where->object, name, name[0] != '\0' ? " (" : "", (int)filter,
           name[0] != '\0' ? ")" : "");
    }
  }
cleanup:
  if (made_by >= 0) {
    (void)H5Pclose(made_by);
  }
  return st;
}

lks_status lks_h5_fail_read(hid_t dataset, const lks_h5_where *where, lks_error *err) {
  lks_error packed;
  const lks_status st = lks_h5_fail(err, where);
  if (check_filters(dataset, where, &packed) == LKS_OK) {
    return st;
  }
  *err = packed;
  return packed.status;
}

/* Whether the first value can be read: a filter may be left out where it could not be had. */
static bool can_read(hid_t dataset) {
  static const hsize_t first[LKS_H5_MAX_RANK] = {0};
  double value = 0;
  const hid_t space = H5Dget_space(dataset);
  const hid_t memory = H5Screate(H5S_SCALAR);
  const bool can = space >= 0 && memory >= 0 && H5Sget_simple_extent_npoints(space) > 0 &&
                   H5Sselect_elements(space, H5S_SELECT_SET, 1, first) >= 0 &&
                   H5Dread(dataset, H5T_NATIVE_DOUBLE, memory, space, H5P_DEFAULT, &value) >= 0;
  if (memory >= 0) {
    (void)H5Sclose(memory);
  }
  if (space >= 0) {
    (void)H5Sclose(space);
  }
  return can;
}

/* ---- all of it */

lks_status lks_h5_check_stored(hid_t dataset, const lks_h5_where *where, int depth,
                               lks_error *err) {
  lks_status st = LKS_OK;
  lks_error packed;
  const hid_t made_by = H5Dget_create_plist(dataset);
  TRY_H5(made_by, where);
  if (check_filters(dataset, where, &packed) != LKS_OK && !can_read(dataset)) {
    FAIL(packed.status, packed.remedy, "%s", packed.what);
  }
  if (H5Pget_layout(made_by) == H5D_VIRTUAL) {
    TRY(lks_h5_check_virtual(dataset, made_by, where, depth, err));
  } else {
    TRY(lks_h5_check_external(dataset, made_by, where, err));
  }
cleanup:
  if (made_by >= 0) {
    (void)H5Pclose(made_by);
  }
  return st;
}

lks_status lks_h5_check_storage(const lks_h5_dataset *dataset, lks_error *err) {
  const lks_h5_where where = {false, dataset->shown, dataset->name};
  lks_h5_lock();
  const lks_status st = lks_h5_check_stored(dataset->id, &where, 1, err);
  lks_h5_unlock();
  return st;
}
