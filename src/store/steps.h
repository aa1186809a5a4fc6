/* The numbered checkpoints of a run folder. */
#ifndef LKS_STORE_STEPS_H
#define LKS_STORE_STEPS_H

#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

typedef struct lks_step_file {
  int64_t step;
  const char *name; /* "step-00000012.weights.h5" */
} lks_step_file;

typedef struct lks_steps {
  lks_step_file *items; /* from the highest step down */
  int count;
} lks_steps;

/* What lies in run_folder/checkpoints by name; nothing is opened. No folder: an empty list. */
lks_status lks_steps_scan(const char *run_folder, lks_arena *arena, lks_steps *out,
                          lks_error *err) LKS_MUST_USE;

/* "RUN_FOLDER/checkpoints/step-00000012.weights.h5", in the arena; NULL when memory is out. */
char *lks_steps_path(lks_arena *arena, const char *run_folder, int64_t step);

#endif
