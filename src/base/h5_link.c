/* Names that lead nowhere, or to other files. */
#include "base/h5_internal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_NAMES 12 /* datasets that a message lists */

/* ---- other files */

enum { PLACES = 5 };

/* Where HDF5 looks, in its order: as named, and by the folders of the file that names it, as opened
 * and as it really is. Of an absolute name only the last part is looked for elsewhere. */
static lks_status list_places(hid_t near, const char *name, lks_arena *arena,
                              const char *places[PLACES], lks_error *err) {
  lks_status st = LKS_OK;
  char beside[PATH_MAX + 1];
  const lks_h5_where where = {false, name, NULL};
  const ssize_t length = H5Fget_name(near, beside, sizeof beside);
  TRY_H5(length, &where);
  char *real = realpath(beside, NULL);
  const char *slash = strrchr(beside, '/');
  const char *real_slash = real != NULL ? strrchr(real, '/') : NULL;
  const char *last = name[0] == '/' ? strrchr(name, '/') + 1 : name;
  places[0] = name[0] == '/' ? lks_arena_copy(arena, name) : NULL;
  places[1] =
      lks_arena_print(arena, "%.*s%s", slash != NULL ? (int)(slash - beside) + 1 : 0, beside, last);
  places[2] = lks_arena_copy(arena, last);
  places[3] = real_slash != NULL
                  ? lks_arena_print(arena, "%.*s%s", (int)(real_slash - real) + 1, real, last)
                  : NULL;
  places[4] = NULL;
  free(real);
cleanup:
  return st;
}

lks_status lks_h5_open_named(hid_t near, const char *name, hid_t *id, lks_error *err) {
  lks_status st = LKS_OK;
  lks_error later;
  lks_arena arena = {0};
  const char *places[PLACES];
  *id = -1;
  TRY(list_places(near, name, &arena, places, err));
  for (int i = 0; i < PLACES && *id < 0; ++i) {
    if (places[i] == NULL || access(places[i], F_OK) != 0) {
      continue;
    }
    /* HDF5 goes on to the next place from a file that it cannot open; the first one is told of. */
    const lks_status opened = lks_h5_open_id(places[i], id, st == LKS_OK ? err : &later);
    st = opened == LKS_OK ? LKS_OK : st == LKS_OK ? opened : st;
  }
cleanup:
  lks_arena_free(&arena);
  return st;
}

/* ---- links that lead nowhere */

/* The shortest beginning of a path that is a link to nothing, in the arena; NULL: there is none. */
static char *dangling_part(hid_t file, const char *name, lks_arena *arena) {
  const char *at = name + strspn(name, "/");
  while (*at != '\0') {
    const char *end = at + strcspn(at, "/");
    char *part = lks_arena_copy_n(arena, name, (size_t)(end - name));
    const bool dot = strncmp(at, ".", (size_t)(end - at)) == 0; /* passed over, as by HDF5 */
    if (part == NULL || (!dot && H5Lexists(file, part, H5P_DEFAULT) <= 0)) {
      return NULL;
    }
    if (!dot && H5Oexists_by_name(file, part, H5P_DEFAULT) <= 0) {
      return part;
    }
    at = end + strspn(end, "/");
  }
  return NULL;
}

/* link: where an external link `part` of the file leads: a file and a path in it. */
static lks_status fail_outer(const lks_h5 *file, const char *part, const char *link, size_t size,
                             lks_error *err) {
  lks_status st = LKS_OK;
  unsigned flags = 0;
  hid_t id = -1;
  lks_error inner;
  const char *other = NULL, *path = NULL;
  const lks_h5_where where = {false, file->shown, part};
  const herr_t got = H5Lunpack_elink_val(link, size, &flags, &other, &path);
  TRY_H5(got, &where);
  lks_error_clear(&inner);
  if (lks_h5_open_named(file->id, other, &id, &inner) != LKS_OK) {
    FAIL(LKS_DATA, inner.remedy, "%s: '%s' is a link to '%s' in another file: %s", file->shown,
         part, path, inner.what);
  }
  if (id < 0) {
    FAIL(LKS_DATA, "copy or link that file to where it was, or beside this one",
         "%s: '%s' is a link to '%s' in another file, which is not there: %s", file->shown, part,
         path, other);
  }
  FAIL(LKS_DATA, "mend the link, or write what it leads to",
       "%s: '%s' is a link to '%s' in %s, which is not there", file->shown, part, path, other);
cleanup:
  if (id >= 0) {
    (void)H5Fclose(id);
  }
  return st;
}

static lks_status fail_dangling(const lks_h5 *file, const char *part, lks_arena *arena,
                                lks_error *err) {
  lks_status st = LKS_OK;
  H5L_info_t info;
  const lks_h5_where where = {false, file->shown, part};
  const herr_t got = H5Lget_info(file->id, part, &info, H5P_DEFAULT);
  TRY_H5(got, &where);
  if (info.type == H5L_TYPE_SOFT || info.type == H5L_TYPE_EXTERNAL) {
    char *link = lks_arena_alloc(arena, info.u.val_size + 1);
    TRY_ALLOC(link);
    const herr_t read = H5Lget_val(file->id, part, link, info.u.val_size, H5P_DEFAULT);
    TRY_H5(read, &where);
    if (info.type == H5L_TYPE_EXTERNAL) {
      TRY(fail_outer(file, part, link, info.u.val_size, err));
    }
    link[info.u.val_size] = '\0';
    FAIL(LKS_DATA, "mend the link, or write what it leads to",
         "%s: '%s' is a link to '%s', which is not there", file->shown, part, link);
  }
  FAIL(LKS_DATA, "copy or write the file again", "%s: '%s' is a link to nothing", file->shown,
       part);
cleanup:
  return st;
}

lks_status lks_h5_fail_missing(const lks_h5 *file, const char *name, lks_error *err) {
  lks_status st = LKS_OK;
  lks_arena arena = {0};
  const char *part = dangling_part(file->id, name, &arena);
  if (part != NULL) {
    TRY(fail_dangling(file, part, &arena, err));
  }
  const char *names = lks_h5_names(file->id, "/", MAX_NAMES, &arena);
  TRY_ALLOC(names);
  if (names[0] == '\0') {
    names = "no datasets at all";
  }
  if (lks_h5_has(file->id, name)) {
    FAIL(LKS_DATA, "name a dataset", "%s: '%s' is not a dataset (has %s)", file->shown, name,
         names);
  }
  FAIL(LKS_DATA, "name one that is there", "%s: no dataset '%s' (has %s)", file->shown, name,
       names);
cleanup:
  lks_arena_free(&arena);
  return st;
}

bool lks_h5_misnamed(lks_h5 *file, const char *name) {
  lks_arena arena = {0};
  lks_h5_lock();
  bool misnamed = !lks_h5_has(file->id, name);
  if (misnamed) {
    misnamed = dangling_part(file->id, name, &arena) == NULL;
  } else {
    const hid_t object = H5Oopen(file->id, name, H5P_DEFAULT);
    misnamed = object >= 0 && H5Iget_type(object) != H5I_DATASET;
    if (object >= 0) {
      (void)H5Oclose(object);
    }
  }
  lks_h5_unlock();
  lks_arena_free(&arena);
  return misnamed;
}
