/* What training, evaluation and prediction share: data, model, plan and backend of one run, set
 * up in phases. At the end of each phase ranks agree, so an error of one is an error of all. */
#ifndef LKS_TRAIN_RUN_H
#define LKS_TRAIN_RUN_H

#include "backend/backend.h"
#include "data/data.h"
#include "device/place.h"
#include "store/checkpoint.h"
#include "train/settings.h"
#include "world/world.h"

typedef struct lks_run {
  lks_world *world;
  lks_settings *settings;
  lks_device_choice device; /* of this rank */
  lks_data *data;
  lks_model *model;
  lks_plan *plan;
  lks_backend backend;
  bool profile; /* set before the backend is opened: it tells the parts of a step apart */
} lks_run;

/* Which sets are needed, and the scaling to use instead of fitting one. */
typedef struct lks_run_needs {
  bool train, validation, test;
  bool without_targets; /* prediction: the test table's features alone */
  int64_t inputs;       /* feature columns that the checkpoint was trained on; 0: any */
  const lks_scaling *features, *targets; /* of a checkpoint; NULL: fit on the training rows */
  lks_kept_order kept_order;             /* of the checkpoint that training goes on from */
} lks_run_needs;

/* Chooses this rank's device, then opens data, model and plan: a device that is not there is told
 * before any row is read. Collective. */
lks_status lks_run_open(lks_run *run, lks_world *world, lks_settings *settings,
                        const lks_run_needs *needs, lks_error *err) LKS_MUST_USE;

/* Opens the backend of the device chosen. Collective. */
lks_status lks_run_open_backend(lks_run *run, lks_error *err) LKS_MUST_USE;

/* Offers the training table to the backend, which may copy it to its device and from then on find
 * rows there by itself. No result depends on it. Collective. */
lks_status lks_run_adopt(lks_run *run, lks_error *err) LKS_MUST_USE;

void lks_run_close(lks_run *run); /* collective */

/* Parameters (and slots) in the model's flat layout, host memory, malloc'ed. */
typedef struct lks_state {
  float *parameters;
  float *slots[LKS_MAX_SLOTS];
} lks_state;

lks_status lks_state_make(lks_state *state, const lks_plan *plan, lks_error *err) LKS_MUST_USE;
void lks_state_free(lks_state *state);

/* Rank 0's state to all ranks, then into the backend. Collective. */
lks_status lks_run_restore(lks_run *run, lks_state *state, lks_error *err) LKS_MUST_USE;

/* Reads a checkpoint's parameters on rank 0 and puts them into the backend of all. *read (rank 0's
 * is filled; may be NULL) keeps what else it holds, in arena. Collective. */
lks_status lks_run_load(lks_run *run, const char *path, lks_arena *arena, lks_checkpoint *read,
                        lks_error *err) LKS_MUST_USE;

/* ---- evaluation */

/* Sums over all rows of a table, exact for any number of ranks: blocks of fixed rows, added in
 * block order. LKS_STOPPED, agreed, when a rank was asked to stop meanwhile. Collective. */
lks_status lks_run_evaluate(lks_run *run, lks_table *table, lks_sums *sums,
                            lks_error *err) LKS_MUST_USE;

/* LKS_STOPPED where this rank was asked to stop: what takes long does not wait for its end. */
lks_status lks_run_look_for_stop(const lks_run *run, lks_error *err) LKS_MUST_USE;

/* The blocks of a table, dealt to ranks in rounds. Whoever computes a block, results are used in
 * the order of blocks. */
typedef struct lks_rounds {
  int64_t rows, blocks;
  int64_t per_rank; /* blocks a rank computes in a round */
  int64_t rounds;
} lks_rounds;
/* block_bytes: of what is gathered of each block. */
lks_rounds lks_rounds_make(int64_t rows, int ranks, size_t block_bytes);
/* Block k of `rank` in a round: its number, or -1 past the end. */
int64_t lks_rounds_block(const lks_rounds *rounds, int64_t round, int rank, int ranks, int64_t k);
/* Rows of a block. */
void lks_rounds_rows(const lks_rounds *rounds, int64_t block, int64_t *first, int64_t *count);

#endif
