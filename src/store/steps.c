/* Names of numbered checkpoints: made and parsed. */
#include "store/steps.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

static const char before[] = "step-", after[] = ".weights.h5";

char *lks_steps_path(lks_arena *arena, const char *run_folder, int64_t step) {
  return lks_arena_print(arena, "%s/checkpoints/%s%08" PRId64 "%s", run_folder, before, step,
                         after);
}

/* Digits alone between the two parts, at most 18 so that the number fits. */
static bool parse(const char *name, int64_t *step) {
  if (strncmp(name, before, sizeof(before) - 1) != 0 || !lks_ends_with(name, after)) {
    return false;
  }
  const char *digits = name + sizeof(before) - 1;
  const size_t count = strspn(digits, "0123456789");
  if (count == 0 || count > 18 || strcmp(digits + count, after) != 0) {
    return false;
  }
  *step = strtoll(digits, NULL, 10);
  return true;
}

static int highest_first(const void *a, const void *b) {
  const int64_t left = ((const lks_step_file *)a)->step, right = ((const lks_step_file *)b)->step;
  return (left < right) - (left > right);
}

/* Appends to the list, which doubles when it is full. */
static lks_status append(lks_arena *arena, lks_steps *out, int *capacity, int64_t step,
                         const char *name, lks_error *err) {
  lks_status st = LKS_OK;
  if (out->count == *capacity) {
    const int larger = *capacity > 0 ? 2 * *capacity : 16;
    lks_step_file *items = lks_arena_alloc(arena, (size_t)larger * sizeof(*items));
    TRY_ALLOC(items);
    if (out->count > 0) {
      memcpy(items, out->items, (size_t)out->count * sizeof(*items));
    }
    out->items = items;
    *capacity = larger;
  }
  lks_step_file *next = &out->items[out->count];
  next->step = step;
  next->name = lks_arena_copy(arena, name);
  TRY_ALLOC(next->name);
  out->count += 1;
cleanup:
  return st;
}

lks_status lks_steps_scan(const char *run_folder, lks_arena *arena, lks_steps *out,
                          lks_error *err) {
  lks_status st = LKS_OK;
  int capacity = 0;
  int64_t step = 0;
  DIR *listing = NULL;
  *out = (lks_steps){0};
  const char *folder = lks_arena_print(arena, "%s/checkpoints", run_folder);
  TRY_ALLOC(folder);
  listing = opendir(folder);
  if (listing == NULL && errno != ENOENT) {
    FAIL(LKS_STORAGE, "check its permissions", "%s: cannot list: %s", folder, strerror(errno));
  }
  while (listing != NULL) {
    errno = 0;
    const struct dirent *entry = readdir(listing);
    if (entry == NULL && errno != 0) {
      FAIL(LKS_STORAGE, "check its file system", "%s: cannot list: %s", folder, strerror(errno));
    }
    if (entry == NULL) {
      break;
    }
    if (parse(entry->d_name, &step)) {
      TRY(append(arena, out, &capacity, step, entry->d_name, err));
    }
  }
  if (out->count > 1) {
    qsort(out->items, (size_t)out->count, sizeof(*out->items), highest_first);
  }
cleanup:
  if (listing != NULL) {
    (void)closedir(listing);
  }
  return st;
}
