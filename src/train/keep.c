/* What a run keeps: checkpoints through the writer, history and log, the final weights. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "train/trainer.h"

/* All that a checkpoint of a moment holds, pointing into the trainer. */
static lks_checkpoint describe(const lks_trainer *trainer, const float *parameters,
                               const lks_progress *progress, const float *best_parameters) {
  lks_checkpoint checkpoint = {.parameters = parameters,
                               .progress = *progress,
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
  if (progress->stop_epoch > 0) {
    checkpoint.best_parameters = best_parameters;
  }
  return checkpoint;
}

static lks_checkpoint describe_now(const lks_trainer *trainer, const float *parameters) {
  return describe(trainer, parameters, &trainer->progress, trainer->best_parameters);
}

/* Rank 0: waits for the writer, whose failure is voted with the next step, or found by settle. */
static void wait_for_writer(lks_trainer *trainer) {
  lks_error earlier;
  if (lks_writer_wait(trainer->writer, &earlier) != LKS_OK && trainer->failure.status == LKS_OK) {
    trainer->failure = earlier;
  }
}

/* Rank 0: hands a checkpoint of trainer->state to the writer. */
static void submit(lks_trainer *trainer, const lks_checkpoint *checkpoint, bool is_best) {
  if (trainer->failure.status == LKS_OK) {
    const lks_status st =
        lks_writer_submit(trainer->writer, checkpoint, is_best, &trainer->failure);
    if (st != LKS_OK) {
      trainer->failure.status = st;
    }
  }
}

/* Hands the best that is held to the writer, waiting for what that is writing. Rank 0 acts; all
 * ranks call it alike, but it is not collective. */
static void release(lks_trainer *trainer) {
  lks_held *held = &trainer->held;
  if (!held->present) {
    return;
  }
  held->present = false;
  trainer->saved_step = held->progress.step;
  trainer->saved_at = lks_now();
  if (trainer->world->rank != 0) {
    return;
  }
  wait_for_writer(trainer);
  const lks_state written = trainer->state; /* not the writer's any more */
  trainer->state = held->state;
  held->state = written;
  lks_history until = trainer->history;
  until.epochs = held->epochs;
  lks_checkpoint checkpoint =
      describe(trainer, trainer->state.parameters, &held->progress, held->best_parameters);
  checkpoint.history = &until;
  submit(trainer, &checkpoint, true);
}

lks_status lks_trainer_save(lks_trainer *trainer, bool is_best, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_backend *backend = &trainer->run.backend;
  const bool root = trainer->world->rank == 0;
  if (is_best) {
    trainer->held.present = false; /* it is not the best any more */
  }
  release(trainer);
  if (root) {
    wait_for_writer(trainer);
  }
  /* The one copy that a checkpoint costs the training: the writer works from it. */
  TRY(backend->ops->snapshot(backend->state, root ? trainer->state.parameters : NULL,
                             root ? trainer->state.slots : NULL, err));
  trainer->saved_step = trainer->progress.step;
  trainer->saved_at = lks_now();
  trainer->overdue = false;
  if (root) {
    const lks_checkpoint checkpoint = describe_now(trainer, trainer->state.parameters);
    submit(trainer, &checkpoint, is_best);
  }
cleanup:
  return st;
}

/* ---- at the end of an epoch: the best that is held */

void lks_trainer_save_last(lks_trainer *trainer, bool state) {
  lks_error ignored; /* the first error is the one to tell */
  lks_error_clear(&ignored);
  lks_error_clear(&trainer->failure); /* told: it must not keep rank 0 from saving */
  release(trainer);
  const int64_t step = trainer->progress.step;
  lks_status saved = LKS_OK; /* rank 0's alone matters: it has the state that is written */
  if (state && step > trainer->saved_step) {
    saved = lks_trainer_save(trainer, false, &ignored);
  }
  if (saved != LKS_OK && trainer->world->rank == 0) {
    (void)fprintf(stderr, "lockstep: warning: no checkpoint of step %lld: %s\n", (long long)step,
                  ignored.what);
  }
  if (trainer->world->rank == 0 && trainer->writer != NULL) {
    wait_for_writer(trainer);
  }
  if (trainer->failure.status != LKS_OK) {
    (void)fprintf(stderr, "lockstep: warning: no checkpoint of step %lld: %s\n",
                  (long long)trainer->saved_step, trainer->failure.what);
  }
}

/* Rank 0: memory to hold a best in, made when first needed. Not for large models: a system that
 * promises more memory than it has would end the run for a further copy. */
static bool has_room(lks_trainer *trainer) {
  lks_held *held = &trainer->held;
  const lks_plan *plan = trainer->run.plan;
  const size_t most = (size_t)256 << 20;
  lks_error ignored; /* without room it waits */
  if (plan->parameter_floats * sizeof(float) > most / (size_t)(2 + plan->slots)) {
    return false;
  }
  if (held->state.parameters == NULL && lks_state_make(&held->state, plan, &ignored) != LKS_OK) {
    lks_state_free(&held->state);
    return false;
  }
  if (trainer->best_parameters != NULL && held->best_parameters == NULL) {
    held->best_parameters = calloc(plan->parameter_floats, sizeof(float));
  }
  return trainer->best_parameters == NULL || held->best_parameters != NULL;
}

static lks_status hold(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  lks_held *held = &trainer->held;
  const lks_backend *backend = &trainer->run.backend;
  const bool root = trainer->world->rank == 0;
  TRY(backend->ops->snapshot(backend->state, root ? held->state.parameters : NULL,
                             root ? held->state.slots : NULL, err));
  held->present = true;
  trainer->overdue = false; /* it will be written, or what takes its place */
  held->progress = trainer->progress;
  held->epochs = trainer->history.epochs;
  if (held->best_parameters != NULL) {
    memcpy(held->best_parameters, trainer->best_parameters,
           trainer->run.plan->parameter_floats * sizeof(float));
  }
cleanup:
  return st;
}

/* Rank 0: whether the writer is to have a checkpoint now. Where checkpoints within epochs may come
 * soon, it does not rest: the next of those would wait for what is held. */
static bool is_time(lks_trainer *trainer) {
  const lks_checkpoint_options *options = &trainer->settings->checkpoint;
  double took = 0.0;
  const bool idle = lks_writer_is_idle(trainer->writer, &took);
  const double rest = fmin(LKS_WRITER_RESTS * took, LKS_REST_S);
  const bool rests = options->every_steps == 0 &&
                     (options->every_seconds <= 0.0 || options->every_seconds > 10.0 * LKS_REST_S);
  return idle && (!rests || lks_now() - trainer->saved_at >= took + rest);
}

lks_status lks_trainer_save_epoch(lks_trainer *trainer, bool is_best, bool due, lks_error *err) {
  lks_status st = LKS_OK;
  bool waits = true;
  trainer->overdue = trainer->overdue || due;
  if (!is_best && !trainer->overdue && !trainer->held.present) {
    goto cleanup;
  }
  trainer->epoch_saves += 1;
  if (trainer->epoch_saves > LKS_SAVES_WAITED_FOR && trainer->settings->checkpoint.keep > 0) {
    if (trainer->world->rank == 0) {
      waits = is_time(trainer) || !has_room(trainer);
    }
    TRY(lks_world_broadcast(trainer->world, &waits, sizeof waits, 0, err));
  }
  if (!waits && is_best) {
    TRY(hold(trainer, err));
  } else if (waits && trainer->held.present && !is_best) {
    release(trainer);
  } else if (waits) {
    TRY(lks_trainer_save(trainer, is_best, err));
  }
cleanup:
  return st;
}

/* ---- the end */

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
    const lks_checkpoint checkpoint = describe_now(trainer, trainer->best_parameters);
    TRY(lks_checkpoint_write(path, trainer->run.model, &checkpoint, err));
  } else if (trainer->progress.best_epoch > 0 && stat(best, &there) == 0) {
    TRY(lks_file_copy(best, path, err));
  } else {
    const lks_checkpoint checkpoint = describe_now(trainer, trainer->state.parameters);
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
