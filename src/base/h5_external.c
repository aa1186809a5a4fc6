/* Values in raw files beside an HDF5 file. HDF5 gives zeros, without a word, for what is missing at
 * a raw file's end. */
#include "base/h5_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Where HDF5 looks for a raw file: a relative name in the current folder, or that of a variable, in
 * the arena. */
static const char *place_of(hid_t dataset, const char *name, lks_arena *arena) {
  static const char origin[] = "${ORIGIN}"; /* the HDF5 file's folder */
  const size_t letters = sizeof origin - 1;
  char beside[4200];
  const char *prefix = getenv("HDF5_EXTFILE_PREFIX");
  if (name[0] == '/' || prefix == NULL || prefix[0] == '\0') {
    return lks_arena_copy(arena, name);
  }
  if (strncmp(prefix, origin, letters) != 0 || H5Fget_name(dataset, beside, sizeof beside) < 0) {
    return lks_arena_print(arena, "%s/%s", prefix, name);
  }
  const char *slash = strrchr(beside, '/');
  return lks_arena_print(arena, "%.*s%s/%s", slash != NULL ? (int)(slash - beside) : 1,
                         slash != NULL ? beside : ".", prefix + letters, name);
}

/* needed: bytes that the file must have for its part of the dataset. */
static lks_status check_file(const char *path, hsize_t needed, const lks_h5_where *where,
                             lks_error *err) {
  lks_status st = LKS_OK;
  struct stat about;
  if (stat(path, &about) != 0) {
    const char *why = errno == ENOENT || errno == ENOTDIR ? "not there" : strerror(errno);
    const char *remedy = path[0] == '/'
                             ? "copy or link that file to where it was"
                             : "go to its folder, or set HDF5_EXTFILE_PREFIX to it: HDF5 looks in "
                               "the current one";
    FAIL(LKS_DATA, remedy, "%s: values of dataset '%s' lie in a file that cannot be read (%s): %s",
         where->file, where->object, why, path);
  }
  if (S_ISREG(about.st_mode) && (hsize_t)about.st_size < needed) {
    FAIL(LKS_DATA, "copy or write that file again",
         "%s: values of dataset '%s' lie in a file that has %lld of %llu bytes: %s", where->file,
         where->object, (long long)about.st_size, (unsigned long long)needed, path);
  }
cleanup:
  return st;
}

lks_status lks_h5_check_external(hid_t dataset, hid_t made_by, const lks_h5_where *where,
                                 lks_error *err) {
  lks_status st = LKS_OK;
  char name[4200];
  lks_arena arena = {0};
  const int count = H5Pget_external_count(made_by);
  const hid_t space = H5Dget_space(dataset);
  const hid_t type = H5Dget_type(dataset);
  TRY_H5(space, where);
  TRY_H5(type, where);
  const hssize_t values = H5Sget_simple_extent_npoints(space);
  TRY_H5(values, where);
  hsize_t rest = (hsize_t)values * H5Tget_size(type); /* bytes: a file's follow those of the last */
  for (int i = 0; i < count && rest > 0; ++i) {
    off_t offset = 0;
    hsize_t size = 0;
    const herr_t got = H5Pget_external(made_by, (unsigned)i, sizeof name - 1, name, &offset, &size);
    TRY_H5(got, where);
    name[sizeof name - 1] = '\0';
    const hsize_t part = size == H5S_UNLIMITED || size > rest ? rest : size;
    const char *path = place_of(dataset, name, &arena);
    TRY_ALLOC(path);
    TRY(check_file(path, (hsize_t)offset + part, where, err));
    rest -= part;
  }
cleanup:
  if (type >= 0) {
    (void)H5Tclose(type);
  }
  if (space >= 0) {
    (void)H5Sclose(space);
  }
  lks_arena_free(&arena);
  return st;
}
