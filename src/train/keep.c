/* What a run keeps: checkpoints through the writer, history and log, the final weights. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "train/trainer.h"

/* All that a checkpoint of this moment holds, pointing into the trainer. */
static lks_checkpoint describe(const lks_trainer *trainer, const float *parameters) {
  lks_checkpoint checkpoint = {.parameters = parameters,
                               .progress = trainer->progress,
                               .seed = (uint64_t)trainer->settings->train.seed,
                               .order_chunk_rows = trainer->run.data->chunk_rows,
                               .config = trainer->config,
                               .model_config = trainer->model_config,
                               .training_config = trainer->training_config,
                               .features = trainer->run.data->features,
                               .targets = trainer->run.data->targets,
                               .history = &trainer->history,
                               .provenance = trainer->provenance};
  for (int s = 0; s < trainer->run.plan->slots; ++s) {
    checkpoint.slots[s] = trainer->state.slots[s];
  }
  if (trainer->progress.stop_epoch > 0) {
    checkpoint.best_parameters = trainer->best_parameters;
  }
  return checkpoint;
}

lks_status lks_trainer_save(lks_trainer *trainer, bool is_best, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_backend *backend = &trainer->run.backend;
  const bool root = trainer->world->rank == 0;
  lks_error earlier;
  if (root && lks_writer_wait(trainer->writer, &earlier) != LKS_OK &&
      trainer->failure.status == LKS_OK) { /* voted with the next step, or found by settle */
    trainer->failure = earlier;
  }
  /* The one copy that a checkpoint costs the training: the writer works from it. */
  TRY(backend->ops->snapshot(backend->state, root ? trainer->state.parameters : NULL,
                             root ? trainer->state.slots : NULL, err));
  trainer->saved_step = trainer->progress.step;
  trainer->saved_at = lks_now();
  if (root && trainer->failure.status == LKS_OK) {
    const lks_checkpoint checkpoint = describe(trainer, trainer->state.parameters);
    const lks_status submitted =
        lks_writer_submit(trainer->writer, &checkpoint, is_best, &trainer->failure);
    if (submitted != LKS_OK) {
      trainer->failure.status = submitted;
    }
  }
cleanup:
  return st;
}

lks_status lks_trainer_settle(lks_trainer *trainer, lks_error *err) {
  lks_status st = trainer->failure.status;
  *err = trainer->failure;
  if (st == LKS_OK && trainer->writer != NULL) {
    st = lks_writer_wait(trainer->writer, err);
  }
  return lks_agree(trainer->world, st, err);
}

lks_status lks_trainer_publish(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  const char *folder = trainer->settings->run.folder;
  const char *path = lks_arena_print(&trainer->arena, "%s/model.weights.h5", folder);
  const char *best = lks_arena_print(&trainer->arena, "%s/checkpoints/best.weights.h5", folder);
  struct stat there;
  TRY_ALLOC(path);
  TRY_ALLOC(best);
  if (trainer->settings->early.present && trainer->progress.stop_epoch > 0) {
    const lks_checkpoint checkpoint = describe(trainer, trainer->best_parameters);
    TRY(lks_checkpoint_write(path, trainer->run.model, &checkpoint, err));
  } else if (trainer->progress.best_epoch > 0 && stat(best, &there) == 0) {
    TRY(lks_file_copy(best, path, err));
  } else {
    const lks_checkpoint checkpoint = describe(trainer, trainer->state.parameters);
    TRY(lks_checkpoint_write(path, trainer->run.model, &checkpoint, err));
  }
cleanup:
  return st;
}

/* ---- history and log */

static void record_sums(lks_trainer *trainer, double *row, json_t *line, const char *prefix,
                        const lks_sums *sums) {
  const lks_model *model = trainer->run.model;
  for (int i = -1; i < model->metric_count; ++i) {
    char name[64];
    (void)snprintf(name, sizeof name, "%s%.27s", prefix, i < 0 ? "loss" : model->metric_names[i]);
    const double value = lks_sums_value(sums, i);
    const int column = lks_history_column(&trainer->history, name);
    if (column >= 0) {
      row[column] = value;
    }
    (void)json_object_set_new(line, name, lks_json_real(value));
  }
}

/* All columns must exist before the row is added: adding one moves the rows. */
static lks_status make_columns(lks_trainer *trainer, bool validation, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_model *model = trainer->run.model;
  for (int part = 0; part < (validation ? 2 : 1); ++part) {
    for (int i = -1; i < model->metric_count; ++i) {
      char name[64];
      (void)snprintf(name, sizeof name, "%s%.27s", part == 0 ? "" : "val_",
                     i < 0 ? "loss" : model->metric_names[i]);
      if (lks_history_column(&trainer->history, name) < 0) {
        FAIL(LKS_NO_MEMORY, NULL, "out of memory for the history");
      }
    }
  }
  if (lks_history_column(&trainer->history, "seconds") < 0) {
    FAIL(LKS_NO_MEMORY, NULL, "out of memory for the history");
  }
cleanup:
  return st;
}

lks_status lks_trainer_record(lks_trainer *trainer, const lks_sums *validation, double seconds,
                              lks_error *err) {
  lks_status st = LKS_OK;
  const lks_progress *progress = &trainer->progress;
  if (trainer->world->rank != 0) {
    goto cleanup;
  }
  TRY(make_columns(trainer, validation->rows > 0, err));
  double *row = lks_history_add(&trainer->history);
  json_t *line = json_pack("{s:s, s:I, s:I}", "event", "epoch", "epoch",
                           (json_int_t)(progress->epoch + 1), "step", (json_int_t)progress->step);
  if (row == NULL || line == NULL) {
    json_decref(line);
    FAIL(LKS_NO_MEMORY, NULL, "out of memory for the history");
  }
  record_sums(trainer, row, line, "", &progress->sums);
  if (validation->rows > 0) {
    record_sums(trainer, row, line, "val_", validation);
  }
  row[lks_history_column(&trainer->history, "seconds")] = seconds;
  const double steps = (double)(progress->epoch_steps > 0 ? progress->epoch_steps : 1);
  (void)json_object_set_new(line, "seconds", lks_json_real(seconds));
  (void)json_object_set_new(line, "step_us", lks_json_real(seconds / steps * 1e6));
  (void)json_object_set_new(
      line, "samples_per_s",
      lks_json_real(seconds > 0.0 ? (double)progress->sums.rows / seconds : 0.0));
  TRY(lks_journal_write(trainer->journal, line, err));
cleanup:
  return st;
}

lks_status lks_trainer_log_start(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  if (trainer->world->rank != 0) {
    goto cleanup;
  }
  TRY(lks_journal_write(
      trainer->journal,
      json_pack("{s:s, s:s, s:s, s:i, s:i, s:s, s:b, s:I, s:I}", "event", "start", "time",
                trainer->started_at, "version", lks_version(), "ranks", trainer->world->size,
                "nodes", trainer->world->nodes, "backend", trainer->run.backend.ops->name,
                "resumed", trainer->start == LKS_START_RESUMED, "step",
                (json_int_t)trainer->progress.step, "epoch", (json_int_t)trainer->progress.epoch),
      err));
cleanup:
  return st;
}

lks_status lks_trainer_log_end(lks_trainer *trainer, const char *reason, lks_error *err) {
  lks_status st = LKS_OK;
  char hash[32] = "";
  if (trainer->journal == NULL) {
    goto cleanup;
  }
  /* After an error the parameters of this step may be nowhere but in the backend. */
  lks_error ignored;
  const bool known =
      trainer->saved_step == trainer->progress.step &&
      (trainer->writer == NULL || lks_writer_wait(trainer->writer, &ignored) == LKS_OK);
  const float *parameters = trainer->state.parameters;
  if (trainer->progress.complete && trainer->progress.stop_epoch > 0 &&
      trainer->settings->early.present) {
    parameters = trainer->best_parameters;
  }
  (void)snprintf(hash, sizeof hash, "%016llx",
                 (unsigned long long)lks_model_hash(trainer->run.model, parameters));
  TRY(lks_journal_write(trainer->journal,
                        json_pack("{s:s, s:s, s:I, s:s?}", "event", "end", "reason", reason, "step",
                                  (json_int_t)trainer->progress.step, "weights_hash",
                                  known ? hash : NULL),
                        err));
cleanup:
  return st;
}
