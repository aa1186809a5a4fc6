/* The steps of an epoch. A step allocates nothing and touches no file: the loader and the writer
 * have threads for that. A checkpoint within the epoch, and a line drawn on a terminal, do.
 *
 * A backend with a lag D gives, when step k is queued, the control block of step k - D. So there
 * are two positions: `queue` is how far steps were handed out, `progress` how far their blocks
 * were read; parameters belong to neither until both meet, after a drain. Whatever looks at
 * parameters or at the epoch's sums (saving, stopping, comparing, validating) drains first, and
 * all ranks do so after the same step: for they decide by the step's number, or by blocks that
 * they have alike. Without a lag the two positions are always one. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "train/trainer.h"
#include "world/stop.h"
#include "world/watchdog.h"

static void add_control(lks_sums *sums, const lks_control *control) {
  sums->loss += control->loss;
  sums->rows += control->rows;
  for (int i = 0; i < LKS_MAX_METRICS; ++i) {
    sums->metrics[i] += control->metrics[i];
  }
}

/* Rows of the batch that begins at a row of the epoch. */
static int64_t batch_at(const lks_trainer *trainer, int64_t row) {
  const int64_t rest = lks_table_rows(trainer->run.data->train) - row;
  const int64_t most = trainer->settings->train.batch_size;
  return rest < most ? rest : most;
}

/* ---- what goes out with a step */

/* What this rank asks for with the next step. Time and STOP are rank 0's to look at. */
static lks_votes cast_votes(lks_trainer *trainer) {
  const lks_settings *settings = trainer->settings;
  lks_votes votes = {.stop = lks_stop_signal() != NULL,
                     .failed = trainer->failure.status != LKS_OK};
  if (trainer->world->rank == 0) {
    const double now = trainer->queue.now;
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

/* This rank's rows of the next batch. A rank that failed takes none, but goes on saying that it is
 * done with windows: its peers may need the next one before they hear of the failure. */
static void take_rows(lks_trainer *trainer, int64_t batch, lks_feed *feed) {
  lks_steps *queue = &trainer->queue;
  lks_error ignored;
  int64_t first = 0, count = 0;
  const bool failed = trainer->failure.status != LKS_OK;
  const double began = trainer->world->size > 1 ? lks_now_coarse() : 0.0;
  lks_plan_share(trainer->run.plan, batch, trainer->world->rank, trainer->world->size, &first,
                 &count);
  if (lks_table_take(trainer->run.data->train, queue->row, batch, queue->row + first,
                     failed ? 0 : count, feed, failed ? &ignored : &trainer->failure) != LKS_OK) {
    *feed = (lks_feed){0};
  }
  queue->input += trainer->world->size > 1 ? lks_now_coarse() - began : 0.0;
}

/* ---- what comes back */

static lks_status not_finite(const lks_trainer *trainer, const lks_control *control,
                             lks_error *err) {
  const lks_status st = lks_fail(err, LKS_NOT_FINITE, NULL,
                                 "loss or gradient is not finite at step %lld of epoch %lld",
                                 (long long)control->step, (long long)trainer->progress.epoch + 1);
  lks_advise(err, "lower optimizer.learning_rate or look at the scale of the data (data.scaling)%s",
             trainer->saved_step < 0
                 ? ""
                 : "; the last checkpoint is from before this step: where a run that goes on from "
                   "it fails too, remove it, or use --overwrite to begin anew");
  return st;
}

/* The summed block says that some rank saw a value that is not finite: say whose and where. Where
 * none did, the sum of the ranks' losses is not. */
static lks_status fail_not_finite(lks_trainer *trainer, const lks_control *control,
                                  lks_error *err) {
  lks_world_phase(trainer->world, "step %lld", (long long)control->step);
  lks_status st = control->not_finite_here ? not_finite(trainer, control, err) : LKS_OK;
  st = lks_agree(trainer->world, st, err);
  return st == LKS_OK ? lks_agree(trainer->world, not_finite(trainer, control, err), err) : st;
}

/* Some rank failed before this step: nothing was updated; all agree on its words. What was trained
 * is saved first, unless it is the saving that failed. */
static lks_status fail_together(lks_trainer *trainer, const lks_control *control, lks_error *err) {
  lks_world_phase(trainer->world, "step %lld", (long long)control->step);
  *err = trainer->failure;
  const lks_status st = lks_agree(trainer->world, trainer->failure.status, err);
  if (st != LKS_STORAGE) {
    lks_trainer_save_last(trainer, true);
  }
  return st;
}

/* The oldest step under way; control->step 0: there is none. */
static lks_status read_next(lks_trainer *trainer, lks_control *control, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_backend *backend = &trainer->run.backend;
  *control = (lks_control){0};
  if (backend->ops->lag > 0) {
    TRY(backend->ops->drain(backend->state, control, err));
    lks_world_beat(trainer->world);
  }
cleanup:
  return st;
}

/* A block that says failed or not finite: its step updated nothing, nor did those queued behind it,
 * so the state is that of the step before. */
static lks_status fail_at(lks_trainer *trainer, const lks_control *control, lks_error *err) {
  lks_status st = LKS_OK;
  lks_control behind = {0};
  do {
    TRY(read_next(trainer, &behind, err));
  } while (behind.step > 0);
  st = control->failed > 0 ? fail_together(trainer, control, err)
                           : fail_not_finite(trainer, control, err);
cleanup:
  return st;
}

/* A block that was read: its step counts as done. */
static lks_status account(lks_trainer *trainer, const lks_control *control, lks_error *err) {
  lks_status st = LKS_OK;
  lks_progress *progress = &trainer->progress;
  lks_steps *queue = &trainer->queue;
  if (control->step != progress->step + 1) {
    FAIL(LKS_INTERNAL, NULL, "backend %s gave the block of step %lld after that of step %lld",
         trainer->run.backend.ops->name, (long long)control->step, (long long)progress->step);
  }
  if (control->failed > 0 || control->not_finite > 0) {
    TRY(fail_at(trainer, control, err));
  }
  lks_world_met(trainer->world);
  queue->now = lks_now();
  queue->stop = queue->stop || control->stop > 0;
  queue->save = queue->save || control->save > 0;
  progress->step += 1;
  progress->epoch_steps += 1;
  progress->epoch_row += batch_at(trainer, progress->epoch_row);
  progress->epoch_seconds = queue->seconds_before + (queue->now - queue->began);
  add_control(&progress->sums, control);
cleanup:
  return st;
}

/* One update: take this rank's rows, queue the step, account for the one that comes back. */
static lks_status queue_step(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  lks_steps *queue = &trainer->queue;
  const lks_backend *backend = &trainer->run.backend;
  const int64_t batch = batch_at(trainer, queue->row);
  lks_feed feed = {0};
  lks_control control = {0};
  lks_world_step(trainer->world, queue->step + 1);
  lks_world_doing(trainer->world, "taking rows");
  take_rows(trainer, batch, &feed);
  lks_world_doing(trainer->world, "computing");
  const lks_step step = {
      .feed = &feed, .global_rows = batch, .step = queue->step + 1, .votes = cast_votes(trainer)};
  TRY(backend->ops->step(backend->state, &step, &control, err));
  lks_world_beat(trainer->world);
  queue->step += 1;
  queue->row += batch;
  if (control.step > 0) {
    TRY(account(trainer, &control, err));
  }
cleanup:
  return st;
}

/* Until every step that was queued is accounted for. */
static lks_status drain(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  while (trainer->progress.step < trainer->queue.step) {
    lks_control control;
    TRY(read_next(trainer, &control, err));
    TRY(account(trainer, &control, err));
  }
cleanup:
  return st;
}

/* ---- obeying */

lks_status lks_trainer_stop(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_settings *settings = trainer->settings;
  lks_world_phase(trainer->world, "stopping");
  if (trainer->saved_step != trainer->progress.step) {
    TRY(lks_trainer_save(trainer, false, err));
  }
  TRY(lks_trainer_settle(trainer, err));
  if (trainer->world->rank == 0) {
    const char *reason = lks_stop_signal();
    char path[4096], kept[4200] = "";
    if (lks_watchdog_saw_stop_file(trainer->world)) {
      reason = "the STOP file";
      (void)snprintf(path, sizeof path, "%s/STOP", settings->run.folder);
      if (unlink(path) != 0 && errno != ENOENT) {
        (void)snprintf(kept, sizeof kept,
                       "; it cannot be removed here (%s), and stops every run: %s", strerror(errno),
                       path);
      }
    }
    if (reason == NULL) {
      reason =
          settings->train.max_time > 0.0 && lks_now() - trainer->started >= settings->train.max_time
              ? "train.max_time"
              : "another rank's signal";
    }
    st = lks_fail(err, LKS_STOPPED, NULL,
                  "stopped by %s at step %lld of epoch %lld, checkpoint written", reason,
                  (long long)trainer->progress.step, (long long)trainer->progress.epoch + 1);
    lks_advise(err,
               kept[0] != '\0' ? "remove STOP, then run the same command again to continue%s"
                               : "run the same command again to continue%s",
               kept);
  }
  st = lks_agree(trainer->world, st, err);
cleanup:
  return st;
}

static bool divides(int64_t every, int64_t step) {
  return every > 0 && step % every == 0;
}

/* Something is to be done after the step that was queued last. */
static bool is_due(const lks_trainer *trainer) {
  const lks_settings *settings = trainer->settings;
  const lks_steps *queue = &trainer->queue;
  return queue->stop || queue->save || divides(settings->checkpoint.every_steps, queue->step) ||
         divides(settings->run.compare_every, queue->step) ||
         queue->row == lks_table_rows(trainer->run.data->train);
}

/* All steps are done: does what they, or the step's number, ask for. Replicas come first: what
 * differs between ranks must not be saved. */
static lks_status obey(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_settings *settings = trainer->settings;
  const lks_progress *progress = &trainer->progress;
  lks_steps *queue = &trainer->queue;
  if (divides(settings->run.compare_every, progress->step)) {
    TRY(lks_replicas_compare(&trainer->run.backend, trainer->world, progress->step, err));
  }
  if (queue->stop) {
    TRY(lks_trainer_stop(trainer, err));
  }
  const bool wanted = queue->save || divides(settings->checkpoint.every_steps, progress->step);
  queue->due = wanted && progress->epoch_row == lks_table_rows(trainer->run.data->train);
  if (wanted && !queue->due) {
    TRY(lks_trainer_save(trainer, false, err));
  }
  queue->save = false;
cleanup:
  return st;
}

static void draw_step(lks_trainer *trainer) {
  const lks_model *model = trainer->run.model;
  const lks_progress *progress = &trainer->progress;
  if (progress->epoch_steps == 0 || !lks_display_due(&trainer->display)) {
    return;
  }
  lks_text text = {0};
  for (int i = 0; i < model->metric_count; ++i) {
    lks_display_value(&text, model->metric_names[i], lks_sums_value(&progress->sums, i));
  }
  lks_display_value(&text, "loss", lks_sums_value(&progress->sums, -1));
  lks_world_doing(trainer->world, LKS_PRINTING);
  lks_display_step(&trainer->display, progress->epoch + 1, progress->epoch_steps,
                   progress->epoch_seconds, text.data != NULL ? text.data : "");
  lks_world_doing(trainer->world, NULL);
  lks_text_free(&text);
}

lks_status lks_trainer_steps(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_progress *progress = &trainer->progress;
  lks_steps *queue = &trainer->queue;
  lks_table *table = trainer->run.data->train;
  const int64_t rows = lks_table_rows(table);
  const double now = lks_now();
  *queue = (lks_steps){.step = progress->step,
                       .row = progress->epoch_row,
                       .began = now,
                       .now = now,
                       .seconds_before = progress->epoch_seconds};
  lks_world_phase(trainer->world, "epoch %lld", (long long)progress->epoch + 1);
  st = lks_table_begin(table, progress->epoch, progress->epoch_row, err);
  TRY(lks_agree(trainer->world, st, err));
  while (queue->row < rows) {
    TRY(queue_step(trainer, err));
    if (is_due(trainer)) {
      TRY(drain(trainer, err));
      TRY(obey(trainer, err));
    }
    draw_step(trainer);
  }
cleanup:
  return st;
}
