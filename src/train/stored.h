/* What evaluation and prediction take from a checkpoint before its parameters: scaling, names. */
#ifndef LKS_TRAIN_STORED_H
#define LKS_TRAIN_STORED_H

#include "store/checkpoint.h"
#include "train/settings.h"
#include "world/world.h"

/* Scaling stored in a checkpoint, alike on all ranks. `known` is false for files that lockstep did
 * not write: scaling is then fitted as the configuration says. */
typedef struct lks_stored {
  const char *path; /* the checkpoint */
  bool known;
  int64_t inputs; /* feature columns it was trained on; 0: not known */
  lks_scaling features, targets;
  lks_texts feature_names; /* datasets it was trained on; none: it does not say */
} lks_stored;

/* path NULL: model.weights.h5 of the run folder. Rank 0 reads and tells the others, and warns on
 * stderr where layers or scaling of the settings are not those of the training; memory in arena.
 * Collective. */
lks_status lks_stored_read(lks_world *world, const lks_settings *settings, const char *path,
                           lks_arena *arena, lks_stored *stored, lks_error *err) LKS_MUST_USE;

#endif
