/* best.weights.h5 of a run folder: another name of the checkpoint with the best value. */
#include <errno.h>
#include <unistd.h>

#include "store/checkpoint.h"
#include "store/files.h"
#include "store/steps.h"

static char *best_path(lks_arena *arena, const char *run_folder) {
  return lks_arena_print(arena, "%s/checkpoints/best.weights.h5", run_folder);
}

lks_status lks_best_point(const char *run_folder, const char *target, lks_error *err) {
  lks_status st = LKS_OK;
  lks_arena arena = {0};
  const char *path = best_path(&arena, run_folder);
  TRY_ALLOC(path);
  const char *aside = lks_aside_path(&arena, path);
  TRY_ALLOC(aside);
  (void)unlink(aside);
  if (link(target, aside) == 0) {
    TRY(lks_file_publish(aside, path, err));
  } else if (errno == ENOENT) { /* the folder went away since the checkpoint was written */
    TRY(lks_fail_write(err, path, ENOENT));
  } else { /* no links here */
    TRY(lks_file_copy(target, path, err));
  }
cleanup:
  lks_arena_free(&arena);
  return st;
}

/* Whether a file is a sound checkpoint of the end of an epoch that was the best until then. */
static bool holds_best(const char *path, int64_t epoch) {
  lks_arena arena = {0};
  lks_checkpoint seen = {0};
  lks_error ignored;
  const bool holds = access(path, F_OK) == 0 &&
                     lks_checkpoint_peek(path, &arena, &seen, &ignored) == LKS_OK &&
                     seen.progress.epoch == epoch && seen.progress.best_epoch == epoch &&
                     seen.progress.epoch_row == 0;
  lks_arena_free(&arena);
  return holds;
}

lks_status lks_best_mend(const char *run_folder, int64_t epoch, bool *there, lks_error *err) {
  lks_status st = LKS_OK;
  lks_arena arena = {0};
  lks_steps steps = {0};
  const char *path = best_path(&arena, run_folder);
  TRY_ALLOC(path);
  *there = holds_best(path, epoch);
  if (!*there) {
    TRY(lks_steps_scan(run_folder, &arena, &steps, err));
  }
  for (int i = 0; i < steps.count && !*there; ++i) {
    const char *step =
        lks_arena_print(&arena, "%s/checkpoints/%s", run_folder, steps.items[i].name);
    TRY_ALLOC(step);
    if (holds_best(step, epoch)) {
      TRY(lks_best_point(run_folder, step, err));
      *there = true;
    }
  }
cleanup:
  lks_arena_free(&arena);
  return st;
}
