/* One training run: the state that its phases hand on. Internal to train/.
 *
 *   train.c       the phases in order, and the end
 *   folder.c      the run folder, before anything is written
 *   resume.c      new, resumed or complete; what may differ
 *   loop.c        epochs
 *   steps.c       the steps of one: queued, accounted for, obeyed
 *   replicas.c    comparing ranks' parameters
 *   stragglers.c  slow ranks
 *   keep.c        checkpoints, history and log
 *   summary.c     what is printed first */
#ifndef LKS_TRAIN_TRAINER_H
#define LKS_TRAIN_TRAINER_H

#include "store/checkpoint.h"
#include "store/files.h"
#include "train/display.h"
#include "train/journal.h"
#include "train/replicas.h"
#include "train/run.h"
#include "train/stragglers.h"

typedef enum lks_start { LKS_START_NEW, LKS_START_RESUMED, LKS_START_COMPLETE } lks_start;

/* Steps handed to the backend since an epoch, or its continuation, was begun; see steps.c. */
typedef struct lks_steps {
  int64_t step;          /* queued last */
  int64_t row;           /* rows of the epoch that they use */
  bool stop, save;       /* votes read and not yet obeyed */
  bool due;              /* a checkpoint, once the epoch has ended */
  double began, now;     /* lks_now() at the beginning, and when a block was read last */
  double seconds_before; /* of the epoch, before it was continued */
  double input;          /* s in which rows were taken; 0 with one rank */
} lks_steps;

/* A best that waits until the writer has written what it has. `state` and the rest are rank 0's;
 * whether there is one, all ranks know. */
typedef struct lks_held {
  bool present;
  lks_progress progress;
  int64_t epochs; /* rows of the history */
  lks_state state;
  float *best_parameters; /* with early stopping: those of its best epoch then */
} lks_held;

typedef struct lks_trainer {
  lks_run run;
  lks_world *world;
  lks_settings *settings;
  const lks_train_request *request;
  lks_start start;
  lks_progress progress;
  double started; /* lks_now() when lks_train was entered */
  char started_at[32];
  double saved_at;    /* lks_now() of the last checkpoint */
  int64_t saved_step; /* step of the last checkpoint; -1: none yet */
  lks_error failure;  /* of this rank within an epoch; voted, then agreed on */
  lks_display display;
  int64_t epoch_saves; /* checkpoints of this start that an epoch's end asked for */
  bool overdue;        /* one that was left out while the writer was busy */
  lks_held held;
  lks_steps queue;
  double waited; /* s that the backend had waited for other ranks when an epoch ended last */
  lks_straggler straggler;
  /* rank 0 alone */
  lks_run_lock *lock;
  bool made_folder;      /* the run folder did not exist before */
  char *newest;          /* checkpoint to go on from; NULL: none */
  lks_checkpoint stored; /* what it says; not its parameters */
  lks_writer *writer;
  lks_journal *journal;
  lks_history history;
  lks_state state;        /* host copy of parameters and slots, filled when saving */
  float *best_parameters; /* with early stopping: those of its best epoch */
  char *config;           /* effective configuration; every rank has it */
  char *model_config, *training_config;
  lks_provenance provenance; /* made once; texts in arena */
  lks_arena arena;
} lks_trainer;

/* ---- folder.c (rank 0) */

/* Makes the run folder where it is not there, and takes its lock. */
lks_status lks_trainer_take_folder(lks_trainer *trainer, lks_error *err) LKS_MUST_USE;

/* Once the newest checkpoint is known: refuses (LKS_CONFIG) a new run that would replace what no
 * run wrote, or without --overwrite the weights that an earlier one left. */
lks_status lks_trainer_check_folder(const lks_trainer *trainer, lks_error *err) LKS_MUST_USE;

/* Removes what an earlier run left, once the new one is sure to begin. */
lks_status lks_trainer_clear_folder(const lks_trainer *trainer, lks_error *err) LKS_MUST_USE;

/* ---- resume.c */

/* Finds the newest sound checkpoint, unless the run is to begin anew, and what of its order the
 * data need to know before they are opened: *kept, the same on all ranks. Collective. */
lks_status lks_trainer_find(lks_trainer *trainer, lks_kept_order *kept,
                            lks_error *err) LKS_MUST_USE;

/* Decides new, resumed or complete, by the checkpoint found, and fills progress and state of a
 * resumed run on all ranks. Collective. */
lks_status lks_trainer_resume(lks_trainer *trainer, lks_error *err) LKS_MUST_USE;

/* ---- keep.c */

/* Takes the state out of the backend and hands a checkpoint to the writer, behind the best that is
 * held, if any; waits while the writer is busy. Collective; failures of rank 0 go to
 * trainer->failure, to be voted with the next step. */
lks_status lks_trainer_save(lks_trainer *trainer, bool is_best, lks_error *err) LKS_MUST_USE;

/* The same at the end of an epoch, which after the first LKS_SAVES_WAITED_FOR does not wait: while
 * the writer is busy, or has not rested (LKS_WRITER_RESTS times as long as it wrote, and LKS_REST_S
 * seconds at most), a best is held, in place of the one that is, and a checkpoint that is due is
 * put off to a later epoch's end. So epochs of milliseconds are not as slow as the disk, nor does
 * the writer take a core from them. It does not rest with checkpoint.every_steps, or an
 * every_seconds of few; and it is waited for with checkpoint.keep 0, which keeps all. Collective.
 */
#define LKS_SAVES_WAITED_FOR 16
#define LKS_WRITER_RESTS 3.0
#define LKS_REST_S 0.25
lks_status lks_trainer_save_epoch(lks_trainer *trainer, bool is_best, bool due,
                                  lks_error *err) LKS_MUST_USE;

/* Where all ranks have an error that they agreed on, and no step is queued: releases the best that
 * is held, and with `state` saves what was trained, if that is not saved yet; waits, and warns
 * where it came to nothing. Collective. */
void lks_trainer_save_last(lks_trainer *trainer, bool state);

/* The values of a finished epoch into history and log. Rank 0; other ranks return at once. */
lks_status lks_trainer_record(lks_trainer *trainer, const lks_sums *validation, double seconds,
                              lks_error *err) LKS_MUST_USE;

/* Waits for the writer; its failure is everyone's. Collective. */
lks_status lks_trainer_settle(lks_trainer *trainer, lks_error *err) LKS_MUST_USE;

/* Writes model.weights.h5: the parameters that early stopping chose, else the best checkpoint's,
 * else the last. Rank 0. */
lks_status lks_trainer_publish(lks_trainer *trainer, lks_error *err) LKS_MUST_USE;

/* Lines of log.jsonl. Rank 0; other ranks return at once. */
lks_status lks_trainer_log_start(lks_trainer *trainer, lks_error *err) LKS_MUST_USE;
lks_status lks_trainer_log_end(lks_trainer *trainer, const char *reason,
                               lks_error *err) LKS_MUST_USE;

/* ---- loop.c */

/* Mean of a sum: the loss (index -1) or a metric. NaN without rows. */
double lks_sums_value(const lks_sums *sums, int index);

/* Trains from progress to the end. LKS_STOPPED once a stop was obeyed and saved. Collective. */
lks_status lks_trainer_loop(lks_trainer *trainer, lks_error *err) LKS_MUST_USE;

/* ---- steps.c */

/* The steps from progress to the end of its epoch, all accounted for when it returns; stops, saves
 * and failures on the way. Collective. */
lks_status lks_trainer_steps(lks_trainer *trainer, lks_error *err) LKS_MUST_USE;

/* Obeys a stop that all ranks have seen: saved, on disk, then LKS_STOPPED for everyone. No step may
 * be queued. Collective. */
lks_status lks_trainer_stop(lks_trainer *trainer, lks_error *err) LKS_MUST_USE;

/* ---- stragglers.c */

/* After an epoch's steps: warns of a rank that held the others up. Collective. */
lks_status lks_trainer_pace(lks_trainer *trainer, lks_error *err) LKS_MUST_USE;

/* ---- summary.c */

/* What rank 0 prints before the first step. Collective: it gathers hosts and threads. */
lks_status lks_trainer_summary(lks_trainer *trainer, lks_error *err) LKS_MUST_USE;

#endif
