/* Whether an output may take the place of what is there. */
#include <string.h>
#include <sys/stat.h>

#include "base/h5.h"
#include "store/device_report.h"
#include "store/files.h"

static bool belongs(lks_contents kind, const char *name) {
  return kind == LKS_CONTENTS_DEVICES ? lks_device_report_has(name)
                                      : strcmp(name, "predictions") == 0;
}

/* A file of the kind may have got datasets of somebody else since: *foreign is one, in the arena,
 * and NULL where there is none. */
static bool is_earlier(const char *path, lks_contents kind, lks_arena *arena,
                       const char **foreign) {
  lks_h5 *file = NULL;
  lks_error ignored;
  lks_contents found = LKS_CONTENTS_OTHER;
  lks_texts members = {0};
  bool earlier = lks_contents_open(path, &file, &found, &ignored) == LKS_OK && found == kind &&
                 lks_h5_members(file, "/", arena, &members, &ignored) == LKS_OK;
  *foreign = NULL;
  for (int i = 0; earlier && i < members.count; ++i) {
    if (!belongs(kind, members.items[i])) {
      *foreign = members.items[i];
      earlier = false;
    }
  }
  if (lks_h5_close(&file, &ignored) != LKS_OK) {
    file = NULL; /* a file that was only read loses nothing */
  }
  return earlier;
}

lks_status lks_file_replaceable(const char *path, lks_contents kind, const char *const *inputs,
                                lks_error *err) {
  lks_status st = LKS_OK;
  struct stat out, in;
  lks_arena arena = {0};
  const char *foreign = NULL;
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
  const char *output = kind == LKS_CONTENTS_DEVICES ? "device report" : "predictions";
  if (out.st_size > 0 && !is_earlier(path, kind, &arena, &foreign)) {
    if (foreign != NULL) {
      FAIL(LKS_USAGE, "name another file, or remove it first",
           "%s is there already, and holds '%s' beside an earlier output (%s)", path, foreign,
           output);
    }
    FAIL(LKS_USAGE, "name another file, or remove it first",
         "%s is there already, and is no earlier output (%s)", path, output);
  }
cleanup:
  lks_arena_free(&arena);
  return st;
}
