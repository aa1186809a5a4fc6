/* Epochs: their steps, then validation, history, the best, early stopping, a checkpoint.
 *
 * Every decision is made from values that all ranks have alike: the epoch's sums. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train/trainer.h"

double lks_sums_value(const lks_sums *sums, int index) {
  if (sums->rows == 0) {
    return (double)NAN;
  }
  return (index < 0 ? sums->loss : sums->metrics[index]) / (double)sums->rows;
}

static bool improves(double value, double best, bool higher, double min_delta) {
  if (isnan(best)) {
    return !isnan(value);
  }
  return higher ? value - min_delta > best : value + min_delta < best;
}

/* Value of a monitored name, from training or validation sums. */
static double monitored(const lks_trainer *trainer, const char *name, const lks_sums *validation,
                        bool *higher) {
  int index = 0;
  bool of_validation = false;
  (void)lks_settings_monitor(trainer->settings, name, &index, &of_validation, higher);
  return lks_sums_value(of_validation ? validation : &trainer->progress.sums, index);
}

/* Early stopping as Keras: wait counts epochs without improvement; stops when it reaches
 * patience (and always lets the first epoch pass). Keeps the best parameters on rank 0. */
static lks_status watch_improvement(lks_trainer *trainer, const lks_sums *validation,
                                    lks_error *err) {
  lks_status st = LKS_OK;
  const lks_early_options *early = &trainer->settings->early;
  lks_progress *progress = &trainer->progress;
  if (!early->present) {
    goto cleanup;
  }
  bool higher = false;
  const double value = monitored(trainer, early->monitor, validation, &higher);
  progress->stop_wait += 1;
  if (improves(value, progress->stop_best, higher, early->min_delta)) {
    progress->stop_best = value;
    progress->stop_epoch = progress->epoch + 1;
    progress->stop_wait = 0;
    TRY(trainer->run.backend.ops->snapshot(trainer->run.backend.state, trainer->best_parameters,
                                           NULL, err)); /* NULL but on rank 0 */
  }
  progress->stopped_early =
      progress->stop_wait > 0 && progress->stop_wait >= early->patience && progress->epoch > 0;
cleanup:
  return st;
}

static void print_epoch(lks_trainer *trainer, const lks_sums *validation) {
  const lks_model *model = trainer->run.model;
  const lks_progress *progress = &trainer->progress;
  lks_text text = {0};
  for (int part = 0; part < (validation->rows > 0 ? 2 : 1); ++part) {
    const lks_sums *sums = part == 0 ? &progress->sums : validation;
    char name[64];
    for (int i = 0; i < model->metric_count; ++i) {
      (void)snprintf(name, sizeof name, "%s%s", part == 0 ? "" : "val_", model->metric_names[i]);
      lks_display_value(&text, name, lks_sums_value(sums, i));
    }
    lks_display_value(&text, part == 0 ? "loss" : "val_loss", lks_sums_value(sums, -1));
  }
  lks_world_doing(trainer->world, LKS_PRINTING);
  lks_display_epoch(&trainer->display, progress->epoch + 1, progress->epoch_steps,
                    progress->epoch_seconds, text.data != NULL ? text.data : "");
  lks_world_doing(trainer->world, NULL);
  lks_text_free(&text);
}

/* The end of an epoch: validation, history, best, early stopping, checkpoint. */
static lks_status end_epoch(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_settings *settings = trainer->settings;
  lks_progress *progress = &trainer->progress;
  lks_sums validation = {0};
  if (trainer->run.data->validation != NULL) {
    lks_world_phase(trainer->world, "validation %lld", (long long)progress->epoch + 1);
    st = lks_run_evaluate(&trainer->run, trainer->run.data->validation, &validation, err);
    if (st == LKS_STOPPED) { /* saved as of the epoch's last step: a resumed run validates first */
      st = lks_trainer_stop(trainer, err);
    }
    TRY(st);
  }
  print_epoch(trainer, &validation);
  st = lks_trainer_record(trainer, &validation, progress->epoch_seconds, err);
  TRY(lks_agree(trainer->world, st, err));
  bool higher = false;
  const double value = monitored(trainer, settings->checkpoint.best, &validation, &higher);
  const bool is_best = improves(value, progress->best, higher, 0.0);
  if (is_best) {
    progress->best = value;
    progress->best_epoch = progress->epoch + 1;
  }
  st = watch_improvement(trainer, &validation, err);
  TRY(lks_agree(trainer->world, st, err));
  progress->epoch += 1;
  progress->epoch_row = progress->epoch_steps = 0;
  progress->epoch_seconds = 0.0;
  progress->sums = (lks_sums){0};
  progress->complete = progress->stopped_early || progress->epoch >= settings->train.epochs;
  const int64_t every = settings->checkpoint.every_epochs;
  const bool due = every > 0 && progress->epoch % every == 0;
  if (progress->complete || trainer->queue.due) {
    TRY(lks_trainer_save(trainer, is_best, err));
  } else {
    TRY(lks_trainer_save_epoch(trainer, is_best, due, err));
  }
cleanup:
  return st;
}

lks_status lks_trainer_loop(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  lks_progress *progress = &trainer->progress;
  progress->stopped_early = false;
  progress->complete = progress->epoch >= trainer->settings->train.epochs;
  if (progress->complete) { /* of a run that is told to end sooner, what it has is what it gets */
    TRY(lks_trainer_save(trainer, false, err));
  }
  while (!progress->complete) {
    TRY(lks_trainer_steps(trainer, err));
    TRY(lks_trainer_pace(trainer, err));
    TRY(end_epoch(trainer, err));
  }
  TRY(lks_trainer_settle(trainer, err));
cleanup:
  return st;
}
