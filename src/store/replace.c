/* Whether an output may take the place of what is there. */
#include <sys/stat.h>

#include "base/h5.h"
#include "store/files.h"

static bool holds(const char *path, const char *object) {
  lks_h5 *file = NULL;
  lks_error ignored;
  const bool there = lks_h5_open(path, &file, &ignored) == LKS_OK && lks_h5_exists(file, object);
  if (file != NULL && lks_h5_close(&file, &ignored) != LKS_OK) {
    return false;
  }
  return there;
}

lks_status lks_file_replaceable(const char *path, const char *object, const char *const *inputs,
                                lks_error *err) {
  lks_status st = LKS_OK;
  struct stat out, in;
  if (stat(path, &out) != 0 || S_ISDIR(out.st_mode)) {
    goto cleanup; /* nothing there, or writing will say what is wrong */
  }
  if (!S_ISREG(out.st_mode)) {
    FAIL(LKS_USAGE, "name a file", "%s is not a regular file", path);
  }
  for (; *inputs != NULL; ++inputs) {
    if (stat(*inputs, &in) == 0 && in.st_dev == out.st_dev && in.st_ino == out.st_ino) {
      FAIL(LKS_USAGE, "name another file", "%s would be written over itself: it is read too", path);
    }
  }
  if (out.st_size > 0 && !holds(path, object)) {
    FAIL(LKS_USAGE, "name another file, or remove it first",
         "%s is there already, and no earlier output: it holds no %s", path, object);
  }
cleanup:
  return st;
}
