/* Epochs and steps. Between the first and the last step of an epoch nothing is allocated and no
 * file is touched here: the loader and the writer have threads for that.
 *
 * Every decision (stop, save, fail) is made from values that all ranks have alike: the control
 * block that the exchange has summed, or the epoch's sums. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "train/trainer.h"
#include "world/stop.h"
#include "world/watchdog.h"

double lks_sums_value(const lks_sums *sums, int index) {
  if (sums->rows == 0) {
    return (double)NAN;
  }
  return (index < 0 ? sums->loss : sums->metrics[index]) / (double)sums->rows;
}

static void add_control(lks_sums *sums, const lks_control *control) {
  sums->loss += control->loss;
  sums->rows += control->rows;
  for (int i = 0; i < LKS_MAX_METRICS; ++i) {
    sums->metrics[i] += control->metrics[i];
  }
}

/* What this rank asks for with the next step. Time and STOP are rank 0's to look at. */
static lks_votes cast_votes(lks_trainer *trainer) {
  const lks_settings *settings = trainer->settings;
  lks_votes votes = {.stop = lks_stop_signal() != NULL,
                     .failed = trainer->failure.status != LKS_OK};
  if (trainer->world->rank == 0) {
    const double now = lks_now();
    const double limit = settings->train.max_time, every = settings->checkpoint.every_seconds;
    votes.stop = votes.stop || lks_watchdog_saw_stop_file(trainer->world) ||
                 (limit > 0.0 && now - trainer->started >= limit);
    votes.save = every > 0.0 && now - trainer->saved_at >= every;
    if (!votes.failed && lks_writer_poll(trainer->writer, &trainer->failure) != LKS_OK) {
      votes.failed = true;
    }
  }
  return votes;
}

static void draw_step(lks_trainer *trainer) {
  const lks_model *model = trainer->run.model;
  const lks_progress *progress = &trainer->progress;
  if (!lks_display_due(&trainer->display)) {
    return;
  }
  lks_text text = {0};
  for (int i = 0; i < model->metric_count; ++i) {
    lks_display_value(&text, model->metric_names[i], lks_sums_value(&progress->sums, i));
  }
  lks_display_value(&text, "loss", lks_sums_value(&progress->sums, -1));
  lks_display_step(&trainer->display, progress->epoch + 1, progress->epoch_steps,
                   progress->epoch_seconds, text.data != NULL ? text.data : "");
  lks_text_free(&text);
}

/* The summed block says that some rank saw a value that is not finite: say whose and where. */
static lks_status fail_not_finite(lks_trainer *trainer, const lks_control *control,
                                  lks_error *err) {
  lks_status st = LKS_OK;
  lks_world_phase(trainer->world, "step %lld", (long long)control->step);
  if (control->not_finite_here) {
    st = lks_fail(err, LKS_NOT_FINITE,
                  "lower optimizer.learning_rate or look at the scale of the data "
                  "(data.scaling); the last checkpoint is from before this step",
                  "loss or gradient is not finite at step %lld of epoch %lld",
                  (long long)control->step, (long long)trainer->progress.epoch + 1);
  }
  return lks_agree(trainer->world, st, err);
}

/* Some rank failed before this step: nothing was updated; all agree on its words. What was trained
 * is saved first, unless it is the saving that failed. */
static lks_status fail_together(lks_trainer *trainer, const lks_control *control, lks_error *err) {
  lks_world_phase(trainer->world, "step %lld", (long long)control->step);
  *err = trainer->failure;
  const lks_status st = lks_agree(trainer->world, trainer->failure.status, err);
  if (st != LKS_STORAGE && trainer->progress.step > trainer->saved_step) {
    lks_error ignored; /* the first error is the one to tell */
    lks_error_clear(&ignored);
    if (lks_trainer_save(trainer, false, &ignored) == LKS_OK && trainer->writer != NULL &&
        lks_writer_wait(trainer->writer, &ignored) != LKS_OK) {
      (void)fprintf(stderr, "lockstep: warning: no checkpoint of step %lld: %s\n",
                    (long long)trainer->progress.step, ignored.what);
    }
  }
  return st;
}

/* One update: take this rank's rows, step, account. */
static lks_status train_step(lks_trainer *trainer, lks_control *control, lks_error *err) {
  lks_status st = LKS_OK;
  lks_progress *progress = &trainer->progress;
  lks_data *data = trainer->run.data;
  const int64_t rest = lks_table_rows(data->train) - progress->epoch_row;
  const int64_t most = trainer->settings->train.batch_size;
  const int64_t batch = rest < most ? rest : most;
  int64_t first = 0, count = 0;
  lks_feed feed = {0};
  lks_plan_share(batch, trainer->world->rank, trainer->world->size, &first, &count);
  if (trainer->failure.status == LKS_OK &&
      lks_table_take(data->train, progress->epoch_row, batch, progress->epoch_row + first, count,
                     &feed, &trainer->failure) != LKS_OK) {
    feed = (lks_feed){0};
  }
  const lks_step step = {.feed = &feed,
                         .global_rows = batch,
                         .step = progress->step + 1,
                         .votes = cast_votes(trainer)};
  TRY(trainer->run.backend.ops->step(trainer->run.backend.state, &step, control, err));
  lks_world_beat(trainer->world);
  if (control->failed > 0) {
    TRY(fail_together(trainer, control, err));
  }
  if (control->not_finite > 0) {
    TRY(fail_not_finite(trainer, control, err));
  }
  progress->step += 1;
  progress->epoch_steps += 1;
  progress->epoch_row += batch;
  add_control(&progress->sums, control);
cleanup:
  return st;
}

/* Obeys a stop that all ranks have seen: saved, on disk, then LKS_STOPPED for everyone. */
static lks_status stop_here(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_settings *settings = trainer->settings;
  lks_world_phase(trainer->world, "stopping");
  if (trainer->saved_step != trainer->progress.step) {
    TRY(lks_trainer_save(trainer, false, err));
  }
  TRY(lks_trainer_settle(trainer, err));
  if (trainer->world->rank == 0) {
    const char *reason = lks_stop_signal();
    char path[4096];
    if (lks_watchdog_saw_stop_file(trainer->world)) {
      reason = "the STOP file";
      (void)snprintf(path, sizeof path, "%s/STOP", settings->run.folder);
      (void)unlink(path);
    }
    if (reason == NULL) {
      reason =
          settings->train.max_time > 0.0 && lks_now() - trainer->started >= settings->train.max_time
              ? "train.max_time"
              : "another rank's signal";
    }
    st = lks_fail(err, LKS_STOPPED, "run the same command again to continue",
                  "stopped by %s at step %lld of epoch %lld, checkpoint written", reason,
                  (long long)trainer->progress.step, (long long)trainer->progress.epoch + 1);
  }
  st = lks_agree(trainer->world, st, err);
cleanup:
  return st;
}

static bool save_due(const lks_trainer *trainer, const lks_control *control) {
  const int64_t every = trainer->settings->checkpoint.every_steps;
  return control->save > 0 || (every > 0 && trainer->progress.step % every == 0);
}

/* The steps of the epoch under way. */
static lks_status run_steps(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  lks_progress *progress = &trainer->progress;
  lks_table *table = trainer->run.data->train;
  const int64_t rows = lks_table_rows(table);
  const double seconds_before = progress->epoch_seconds;
  const double began = lks_now();
  lks_world_phase(trainer->world, "epoch %lld", (long long)progress->epoch + 1);
  st = lks_table_begin(table, progress->epoch, progress->epoch_row, err);
  TRY(lks_agree(trainer->world, st, err));
  while (progress->epoch_row < rows) {
    lks_control control = {0};
    TRY(train_step(trainer, &control, err));
    progress->epoch_seconds = seconds_before + (lks_now() - began);
    draw_step(trainer);
    if (control.stop > 0) {
      TRY(stop_here(trainer, err));
    }
    if (save_due(trainer, &control) && progress->epoch_row < rows) {
      TRY(lks_trainer_save(trainer, false, err));
    }
  }
cleanup:
  return st;
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
    if (trainer->world->rank == 0) {
      TRY(trainer->run.backend.ops->snapshot(trainer->run.backend.state, trainer->best_parameters,
                                             NULL, err));
    }
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
  lks_display_epoch(&trainer->display, progress->epoch + 1, progress->epoch_steps,
                    progress->epoch_seconds, text.data != NULL ? text.data : "");
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
    TRY(lks_run_evaluate(&trainer->run, trainer->run.data->validation, &validation, err));
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
  if (is_best || progress->complete || (every > 0 && progress->epoch % every == 0)) {
    TRY(lks_trainer_save(trainer, is_best, err));
  }
cleanup:
  return st;
}

lks_status lks_trainer_loop(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  lks_progress *progress = &trainer->progress;
  progress->complete = progress->stopped_early = false;
  while (!progress->complete) {
    TRY(run_steps(trainer, err));
    TRY(end_epoch(trainer, err));
  }
  TRY(lks_trainer_settle(trainer, err));
cleanup:
  return st;
}
