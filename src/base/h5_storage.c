/* How the values of a dataset are stored, and whether they can be had.
 *
 * Where the rows of a virtual dataset lie: HDF5 gives the fill value, mostly zeros, for those whose
 * file is not there, without a word. */
#include "base/h5_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* ---- virtual datasets */

/* Whether HDF5 would find a source file: as named, or by folder of the file that names it. An
 * absolute one is also looked for by its last part. */
static bool is_found(const char *name, const char *beside) {
  char path[8400];
  const char *slash = strrchr(beside, '/');
  const int folder = slash != NULL ? (int)(slash - beside) + 1 : 0;
  const char *last = strrchr(name, '/');
  const char *tries[] = {name, name[0] == '/' ? last + 1 : name};
  bool found = access(name, F_OK) == 0;
  for (int i = 0; !found && i < 2; ++i) {
    (void)snprintf(path, sizeof path, "%.*s%s", folder, beside, tries[i]);
    found = access(path, F_OK) == 0 || access(tries[i], F_OK) == 0;
  }
  return found;
}

/* The lock is held. */
static lks_status check_sources(const lks_h5_dataset *dataset, hid_t made_by, lks_error *err) {
  lks_status st = LKS_OK;
  size_t count = 0;
  char name[4200], real[4200], beside[4200];
  const lks_h5_where where = {false, dataset->shown, dataset->name};
  const herr_t got = H5Pget_virtual_count(made_by, &count);
  TRY_H5(got, &where);
  const ssize_t length = H5Fget_name(dataset->id, beside, sizeof beside);
  TRY_H5(length, &where);
  char *resolved = realpath(beside, NULL);
  (void)snprintf(real, sizeof real, "%s", resolved != NULL ? resolved : beside);
  free(resolved);
  for (size_t i = 0; i < count; ++i) {
    const ssize_t letters = H5Pget_virtual_filename(made_by, i, name, sizeof name);
    TRY_H5(letters, &where);
    const bool here = strcmp(name, ".") == 0; /* the same file */
    const bool numbered = strchr(name, '%') != NULL;
    if (!here && !numbered && !is_found(name, beside) && !is_found(name, real)) {
      FAIL(LKS_DATA, "copy or link that file to where it was, or beside this one",
           "%s: dataset '%s' is virtual, and a file with rows of it is not there: %s",
           dataset->shown, dataset->name, name);
    }
  }
cleanup:
  return st;
}

lks_status lks_h5_check_storage(const lks_h5_dataset *dataset, lks_error *err) {
  lks_status st = LKS_OK;
  hid_t made_by = -1;
  lks_error packed;
  const lks_h5_where where = {false, dataset->shown, dataset->name};
  lks_h5_lock();
  if (check_filters(dataset->id, &where, &packed) != LKS_OK && !can_read(dataset->id)) {
    FAIL(packed.status, packed.remedy, "%s", packed.what);
  }
  made_by = H5Dget_create_plist(dataset->id);
  TRY_H5(made_by, &where);
  /* Where prefixes are set, HDF5 looks in places of its own. */
  if (H5Pget_layout(made_by) == H5D_VIRTUAL && getenv("HDF5_VDS_PREFIX") == NULL) {
    TRY(check_sources(dataset, made_by, err));
  }
cleanup:
  if (made_by >= 0) {
    (void)H5Pclose(made_by);
  }
  lks_h5_unlock();
  return st;
}
