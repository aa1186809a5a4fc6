/* Where the rows of a virtual dataset lie. HDF5 gives the fill value, mostly zeros, for those whose
 * file is not there, without a word. */
#include "base/h5_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

lks_status lks_h5_check_virtual(const lks_h5_dataset *dataset, lks_error *err) {
  lks_status st = LKS_OK;
  hid_t made_by = -1;
  const lks_h5_where where = {false, dataset->shown, dataset->name};
  lks_h5_lock();
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
