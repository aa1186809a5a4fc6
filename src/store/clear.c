/* Removing what an earlier run left, when a new one begins in its folder. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "store/checkpoint.h"
#include "store/steps.h"

static lks_status remove_file(const char *path, lks_error *err) {
  lks_status st = LKS_OK;
  if (unlink(path) != 0 && errno != ENOENT) {
    FAIL(LKS_STORAGE, "check the folder's permissions", "%s: cannot remove: %s", path,
         strerror(errno));
  }
cleanup:
  return st;
}

lks_status lks_checkpoints_clear(const char *run_folder, lks_error *err) {
  static const char *const names[] = {"best.weights.h5", "latest.weights.h5"};
  lks_status st = LKS_OK;
  lks_arena arena = {0};
  lks_steps steps = {0};
  TRY(lks_steps_scan(run_folder, &arena, &steps, err));
  for (int i = 0; i < steps.count; ++i) {
    const char *path = lks_steps_path(&arena, run_folder, steps.items[i].step);
    TRY_ALLOC(path);
    TRY(remove_file(path, err));
  }
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    const char *path = lks_arena_print(&arena, "%s/checkpoints/%s", run_folder, names[i]);
    TRY_ALLOC(path);
    TRY(remove_file(path, err));
  }
cleanup:
  lks_arena_free(&arena);
  return st;
}
