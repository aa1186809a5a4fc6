/* One training run: the state that its phases hand on. Internal to train/.
 *
 *   train.c     the phases in order, and the end
 *   resume.c    new, resumed or complete; what may differ
 *   loop.c      epochs and steps
 *   keep.c      checkpoints, history and log
 *   summary.c   what is printed first */
#ifndef LKS_TRAIN_TRAINER_H
#define LKS_TRAIN_TRAINER_H

#include "store/checkpoint.h"
#include "store/files.h"
#include "train/display.h"
#include "train/journal.h"
#include "train/run.h"

typedef enum lks_start { LKS_START_NEW, LKS_START_RESUMED, LKS_START_COMPLETE } lks_start;

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
  /* rank 0 alone */
  lks_run_lock *lock;
  bool made_folder; /* the run folder did not exist before */
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

/* ---- resume.c */

/* Decides new, resumed or complete, and fills progress and state of a resumed run on all ranks.
 * Collective. */
lks_status lks_trainer_resume(lks_trainer *trainer, lks_error *err) LKS_MUST_USE;

/* ---- keep.c */

/* Takes the state out of the backend and hands a checkpoint to the writer. Collective; failures of
 * rank 0 go to trainer->failure, to be voted with the next step. */
lks_status lks_trainer_save(lks_trainer *trainer, bool is_best, lks_error *err) LKS_MUST_USE;

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

/* Trains from progress to the end. LKS_STOPPED once a stop was obeyed and saved. Collective. */
lks_status lks_trainer_loop(lks_trainer *trainer, lks_error *err) LKS_MUST_USE;

/* Mean of a sum: the loss (index -1) or a metric. NaN without rows. */
double lks_sums_value(const lks_sums *sums, int index);

/* ---- summary.c */

/* What rank 0 prints before the first step. Collective: it gathers hosts and threads. */
lks_status lks_trainer_summary(lks_trainer *trainer, lks_error *err) LKS_MUST_USE;

#endif
