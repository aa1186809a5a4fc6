/* lks_train: the phases of a run in order, and its end. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "train/device_report.h"
#include "train/trainer.h"
#include "world/stop.h"
#include "world/watchdog.h"

/* ---- phases */

static lks_status describe_source(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  lks_provenance *provenance = &trainer->provenance;
  const char *path = trainer->settings->data.train.file;
  struct stat file;
  char modified[32] = "", versions[256];
  lks_world_versions(versions, sizeof versions);
  *provenance = (lks_provenance){
      .command = trainer->request->command != NULL ? trainer->request->command : "",
      .hosts = "",
      .started = trainer->started_at,
      .build = lks_version(),
      .backend = trainer->run.backend.ops->name,
      .ranks = trainer->world->size,
      .data_file = path,
      .data_hash = trainer->run.data->fingerprint,
      .validation_hash = trainer->run.data->validation_fingerprint};
  if (path[0] != '\0' && stat(path, &file) == 0) {
    struct tm parts;
    provenance->data_bytes = (int64_t)file.st_size;
    if (gmtime_r(&file.st_mtime, &parts) != NULL) {
      (void)strftime(modified, sizeof modified, "%Y-%m-%dT%H:%M:%SZ", &parts);
    }
  }
  provenance->data_modified = lks_arena_copy(&trainer->arena, modified);
  provenance->versions = lks_arena_print(&trainer->arena, "lockstep %s, %s, HDF5 %s", lks_version(),
                                         versions, lks_h5_version_running());
  TRY_ALLOC(provenance->data_modified);
  TRY_ALLOC(provenance->versions);
cleanup:
  return st;
}

/* The configuration as it acts, with what `auto` became and the datasets that were found.
 * checkpoint.resume is about this start, not about the run: what is kept of it must let the run be
 * continued, and repeated elsewhere. */
static lks_status print_settings(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  lks_settings *settings = trainer->settings;
  const int resume = settings->checkpoint.resume;
  settings->data.order = trainer->run.data->order;
  TRY(lks_data_keep_names(trainer->run.data, &settings->data, &settings->arena, err));
  if (!trainer->request->dry_run) {
    settings->checkpoint.resume = LKS_RESUME_AUTO;
  }
  TRY(lks_settings_print(settings, &trainer->config, err));
cleanup:
  settings->checkpoint.resume = resume;
  return st;
}

/* Host memory of rank 0, and of every rank until the state is in the backend. */
static lks_status make_state(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  TRY(lks_state_make(&trainer->state, trainer->run.plan, err));
  if (trainer->world->rank == 0) {
    /* Not left to the first checkpoint, which would get the pages one by one. */
    for (int s = 0; s < trainer->run.plan->slots; ++s) {
      memset(trainer->state.slots[s], 0, trainer->run.plan->parameter_floats * sizeof(float));
    }
    trainer->model_config = lks_model_keras_config(trainer->run.model);
    trainer->training_config = lks_model_keras_training(trainer->run.model);
    TRY_ALLOC(trainer->model_config);
    TRY_ALLOC(trainer->training_config);
    if (trainer->settings->early.present) {
      trainer->best_parameters = calloc(trainer->run.plan->parameter_floats, sizeof(float));
      TRY_ALLOC(trainer->best_parameters);
    }
  }
cleanup:
  return st;
}

static lks_status set_up(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  lks_world *world = trainer->world;
  lks_run_needs needs = {.train = true, .validation = true};
  lks_world_phase(world, "run folder");
  if (world->rank == 0 && !trainer->request->dry_run) {
    st = lks_trainer_take_folder(trainer, err);
  }
  TRY(lks_agree(world, st, err));
  if (!trainer->request->dry_run) {
    TRY(lks_trainer_find(trainer, &needs.kept_order, err));
    lks_world_phase(world, "run folder");
    st = world->rank == 0 ? lks_trainer_check_folder(trainer, err) : LKS_OK;
    TRY(lks_agree(world, st, err));
  }
  TRY(lks_run_open(&trainer->run, world, trainer->settings, &needs, err));
  TRY(lks_run_open_backend(&trainer->run, err));
  TRY(lks_run_adopt(&trainer->run, err));
  st = print_settings(trainer, err);
  st = st == LKS_OK ? make_state(trainer, err) : st;
  st = st == LKS_OK ? describe_source(trainer, err) : st;
  TRY(lks_agree(world, st, err));
cleanup:
  return st;
}

/* Rank 0 opens what it writes to; old files of a run that begins anew go now, not before. */
static lks_status open_files(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_settings *settings = trainer->settings;
  const bool fresh = trainer->start == LKS_START_NEW;
  if (fresh) {
    TRY(lks_trainer_clear_folder(trainer, err));
  }
  const char *path = lks_arena_print(&trainer->arena, "%s/config.yaml", settings->run.folder);
  TRY_ALLOC(path);
  TRY(lks_file_write_text(path, trainer->config, strlen(trainer->config), err));
  TRY(lks_writer_open(settings->run.folder, trainer->run.model, (int)settings->checkpoint.keep,
                      &trainer->writer, err));
  lks_writer_guard(trainer->writer, trainer->lock);
  TRY(lks_journal_open(settings->run.folder, fresh ? -1 : trainer->progress.step,
                       trainer->progress.epoch, &trainer->journal, err));
cleanup:
  return st;
}

static lks_status begin(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  lks_world *world = trainer->world;
  const lks_settings *settings = trainer->settings;
  const int64_t rows = lks_table_rows(trainer->run.data->train);
  const int64_t batch = settings->train.batch_size;
  char path[4200];
  TRY(lks_trainer_summary(trainer, err));
  TRY(lks_run_restore(&trainer->run, &trainer->state, err));
  lks_world_phase(world, "run folder");
  st = world->rank == 0 ? open_files(trainer, err) : LKS_OK;
  TRY(lks_agree(world, st, err));
  (void)snprintf(path, sizeof path, "%s/devices.h5", settings->run.folder);
  TRY(lks_device_report_write(path, world, &settings->device, &trainer->run.device,
                              &trainer->run.backend, NULL, err));
  trainer->display = lks_display_make(settings->run.progress, world->rank == 0,
                                      settings->train.epochs, (rows + batch - 1) / batch);
  (void)snprintf(path, sizeof path, "%s/STOP", settings->run.folder);
  st = lks_stop_catch(err);
  st = st == LKS_OK ? lks_watchdog_start(world, settings->run.timeout, path, err) : st;
  st = st == LKS_OK ? lks_trainer_log_start(trainer, err) : st;
  TRY(lks_agree(world, st, err));
cleanup:
  return st;
}

static void print_end(const lks_trainer *trainer) {
  const lks_settings *settings = trainer->settings;
  const lks_progress *progress = &trainer->progress;
  char value[32], seconds[32];
  if (progress->stopped_early) {
    (void)printf("Stopped early after epoch %lld: no better %s since epoch %lld, whose parameters "
                 "are restored\n",
                 (long long)progress->epoch, settings->early.monitor,
                 (long long)progress->stop_epoch);
  }
  /* Of what model.weights.h5 holds: see lks_trainer_publish. */
  const bool chosen = settings->early.present && progress->stop_epoch > 0;
  const int64_t epoch = chosen ? progress->stop_epoch : progress->best_epoch;
  lks_format_duration(seconds, lks_now() - trainer->started);
  if (epoch == 0) {
    (void)printf("Done in %s: the last parameters; %s/model.weights.h5\n", seconds,
                 settings->run.folder);
    return;
  }
  lks_display_number(value, chosen ? progress->stop_best : progress->best);
  (void)printf("Done in %s: best %s %s at epoch %lld; %s/model.weights.h5\n", seconds,
               chosen ? settings->early.monitor : settings->checkpoint.best, value,
               (long long)epoch, settings->run.folder);
}

/* A STOP that came too late to stop anything must not stop what continues this run. */
static void remove_late_stop(const lks_trainer *trainer) {
  char path[4200];
  (void)snprintf(path, sizeof path, "%s/STOP", trainer->settings->run.folder);
  (void)unlink(path);
}

/* After the last epoch: the weights to use, the log's last line. */
static lks_status finish(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  if (trainer->world->rank == 0) {
    st = lks_trainer_publish(trainer, err);
    if (st == LKS_OK) {
      st = lks_trainer_log_end(trainer, trainer->progress.stopped_early ? "early_stopping" : "done",
                               err);
    }
    remove_late_stop(trainer);
    if (st == LKS_OK) {
      print_end(trainer);
    }
  }
  return lks_agree(trainer->world, st, err);
}

/* Whether a sound model.weights.h5 is what the run handed over at its end, by the checkpoint of
 * that end, and not at an earlier one: a run that is continued keeps it until it ends again. A file
 * that others wrote does not say, and stays. */
static bool is_of_end(const lks_checkpoint *file, const lks_checkpoint *end) {
  const lks_progress *progress = &file->progress;
  const int64_t best = end->progress.best_epoch;
  const bool last = progress->step == end->progress.step;
  if (file->config == NULL) {
    return true;
  }
  if (end->progress.stop_epoch > 0) {
    return last && progress->stop_epoch == end->progress.stop_epoch;
  }
  /* The last parameters are handed over also where the best ones were lost. */
  return last || (best > 0 && progress->epoch == best && progress->best_epoch == best);
}

/* Rank 0: a complete run has its weights. One that died between its last checkpoint and them, or
 * whose file was lost since, gets them now. */
static lks_status mend_complete(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_settings *settings = trainer->settings;
  const char *folder = settings->run.folder;
  lks_checkpoint seen = {0};
  lks_error ignored;
  const char *path = lks_arena_print(&trainer->arena, "%s/model.weights.h5", folder);
  const char *history = lks_arena_print(&trainer->arena, "%s/history.h5", folder);
  TRY_ALLOC(path);
  TRY_ALLOC(history);
  const bool sound = access(path, F_OK) == 0 &&
                     lks_checkpoint_peek(path, &trainer->arena, &seen, &ignored) == LKS_OK;
  if (sound && is_of_end(&seen, &trainer->stored)) {
    goto cleanup;
  }
  TRY(lks_history_write(&trainer->history, history, err));
  TRY(lks_trainer_publish(trainer, err));
  TRY(lks_journal_open(folder, trainer->progress.step, trainer->progress.epoch, &trainer->journal,
                       err));
  TRY(lks_trainer_log_end(trainer, trainer->progress.stopped_early ? "early_stopping" : "done",
                          err));
  (void)printf("Written      %s, which was %s\n", path,
               sound ? "of an earlier end of the run" : "missing or damaged");
cleanup:
  return st;
}

/* Nothing to train. */
static lks_status say_complete(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  if (trainer->world->rank == 0) {
    st = mend_complete(trainer, err);
    remove_late_stop(trainer);
  }
  TRY(lks_agree(trainer->world, st, err));
  if (trainer->world->rank == 0) {
    (void)printf("Complete     %s: %lld epochs, step %lld; nothing to do (train.epochs=N for "
                 "more, --overwrite to begin anew)\n",
                 trainer->settings->run.folder, (long long)trainer->progress.epoch,
                 (long long)trainer->progress.step);
  }
cleanup:
  return st;
}

static void close_trainer(lks_trainer *trainer, bool began) {
  lks_stop_release();
  lks_writer_close(&trainer->writer);
  lks_journal_close(&trainer->journal);
  /* Leave nothing of a run that never was; without the lock the folder is another run's. */
  const bool undo = trainer->made_folder && !began && trainer->lock != NULL;
  if (undo) {
    char path[4200];
    (void)snprintf(path, sizeof path, "%s/.lock", trainer->settings->run.folder);
    (void)unlink(path);
  }
  lks_run_lock_release(&trainer->lock);
  if (undo) {
    (void)rmdir(trainer->settings->run.folder); /* only if nothing is in it */
  }
  lks_history_free(&trainer->history);
  lks_state_free(&trainer->state);
  lks_state_free(&trainer->held.state);
  free(trainer->held.best_parameters);
  free(trainer->best_parameters);
  free(trainer->config);
  free(trainer->model_config);
  free(trainer->training_config);
  lks_run_close(&trainer->run);
  lks_arena_free(&trainer->arena);
}

/* After an error that all agreed on: what short epochs put off is saved now, but not where nothing
 * can be, or where ranks may have parted; nor the state of devices that failed. */
static void save_put_off(lks_trainer *trainer, lks_status st) {
  const bool sound = st == LKS_NOT_FINITE || st == LKS_DATA;
  if (st != LKS_STORAGE && st != LKS_COMM && (trainer->held.present || trainer->overdue)) {
    lks_trainer_save_last(trainer, sound && trainer->overdue);
  }
}

lks_status lks_train(lks_world *world, lks_settings *settings, const lks_train_request *request,
                     lks_error *err) {
  lks_status st = LKS_OK;
  bool began = false;
  lks_trainer trainer = {.world = world,
                         .settings = settings,
                         .request = request,
                         .started = lks_now(),
                         .saved_at = lks_now(),
                         .saved_step = -1};
  lks_error_clear(&trainer.failure);
  (void)lks_timestamp(trainer.started_at);
  TRY(set_up(&trainer, err));
  if (request->dry_run) {
    TRY(lks_trainer_summary(&trainer, err));
    if (world->rank == 0) {
      (void)printf("\n%s", trainer.config);
    }
    goto cleanup;
  }
  TRY(lks_trainer_resume(&trainer, err));
  if (trainer.start == LKS_START_COMPLETE) {
    TRY(say_complete(&trainer, err));
    goto cleanup;
  }
  began = true;
  TRY(begin(&trainer, err));
  st = lks_trainer_loop(&trainer, err);
  if (st != LKS_OK && world->agreed) {
    lks_error ignored; /* the run's own error is the one to tell */
    lks_error_clear(&ignored);
    save_put_off(&trainer, st);
    if (lks_trainer_log_end(&trainer, st == LKS_STOPPED ? "stopped" : "error", &ignored) !=
        LKS_OK) {
      (void)fprintf(stderr, "lockstep: warning: %s\n", ignored.what);
    }
  }
  TRY(st);
  TRY(finish(&trainer, err));
cleanup:
  if (st != LKS_OK && !world->agreed) {
    lks_watchdog_end(world, err); /* a peer may be gone: nothing collective is safe */
  }
  close_trainer(&trainer, began);
  return st;
}
