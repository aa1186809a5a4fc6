/* New, resumed or complete: decided by rank 0 from the run folder's newest sound checkpoint, told
 * to all. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/trainer.h"

/* Differences as "key: old -> new", joined; only those that a plain resume refuses when strict. */
static void list_differences(const lks_difference *differences, int count, bool strict,
                             lks_text *out) {
  for (int i = 0; i < count; ++i) {
    if (!strict || !differences[i].resumable) {
      lks_text_add(out, "%s%s: %s -> %s", out->length > 0 ? ", " : "", differences[i].key,
                   differences[i].old_value, differences[i].new_value);
    }
  }
}

#define REMEDY                                                                                     \
  "use run.folder=NEW for another run, --overwrite to begin anew, or checkpoint.resume=required "  \
  "to go on with the change"

/* What a resumed run goes on with. */
typedef struct continuity {
  bool same_length;  /* keys that say how long to train are the same */
  bool same_best;    /* checkpoint.best: its best value so far means something still */
  bool same_monitor; /* early_stopping.monitor, likewise */
  bool same_epoch;   /* rows of the epoch under way and what its sums are of */
} continuity;

static bool same_monitor(const lks_settings *old, const lks_settings *present) {
  return old->early.present && present->early.present &&
         strcmp(old->early.monitor, present->early.monitor) == 0;
}

/* Whether a change leaves an epoch under way other rows, another order, or sums of other values.
 * Windows are no smaller than a batch. */
static bool breaks_epoch(const lks_difference *difference, bool windows) {
  static const char *const keys[] = {"data.", "loss", "metrics", "train.seed", "train.shuffle"};
  bool breaks = windows && strcmp(difference->key, "train.batch_size") == 0;
  for (size_t k = 0; k < sizeof keys / sizeof *keys; ++k) {
    breaks = breaks || strncmp(difference->key, keys[k], strlen(keys[k])) == 0;
  }
  return breaks && !difference->resumable;
}

/* Whether a change leaves values of one name that say nothing of each other. */
static bool breaks_values(const lks_difference *difference) {
  return !difference->resumable && (strncmp(difference->key, "data.", strlen("data.")) == 0 ||
                                    strncmp(difference->key, "loss", strlen("loss")) == 0);
}

/* Older versions stored no names of datasets that they had found. Where these were found once more
 * they are no change: contents are compared. */
static void take_names(lks_table_options *old, const lks_table_options *present) {
  if (old->features.count == 0 && present->found_features) {
    old->features = present->features;
  }
  if (old->targets.count == 0 && present->found_targets) {
    old->targets = present->targets;
  }
}

/* Rank 0: compares the stored configuration with the present one. */
static lks_status compare_settings(lks_trainer *trainer, const char *stored, continuity *same,
                                   lks_error *err) {
  lks_status st = LKS_OK;
  lks_settings *old = NULL;
  lks_arena arena = {0};
  lks_text text = {0};
  lks_difference *differences = NULL;
  int count = 0;
  TRY(lks_settings_parse(stored, "the stored configuration", NULL, 0, &old, err));
  take_names(&old->data.train, &trainer->settings->data.train);
  take_names(&old->data.validation, &trainer->settings->data.validation);
  TRY(lks_settings_compare(old, trainer->settings, &arena, &differences, &count, err));
  const bool windows = trainer->settings->data.order == LKS_ORDER_WINDOWS;
  same->same_length = same->same_epoch = true;
  same->same_best = strcmp(old->checkpoint.best, trainer->settings->checkpoint.best) == 0;
  same->same_monitor = same_monitor(old, trainer->settings);
  for (int i = 0; i < count; ++i) {
    if (strcmp(differences[i].key, "train.epochs") == 0 ||
        strncmp(differences[i].key, "early_stopping", strlen("early_stopping")) == 0) {
      same->same_length = false;
    }
    same->same_epoch = same->same_epoch && !breaks_epoch(&differences[i], windows);
    same->same_best = same->same_best && !breaks_values(&differences[i]);
    same->same_monitor = same->same_monitor && !breaks_values(&differences[i]);
  }
  const bool required = trainer->settings->checkpoint.resume == LKS_RESUME_REQUIRED;
  list_differences(differences, count, true, &text);
  if (text.length > 0 && !required) {
    FAIL(LKS_CONFIG, REMEDY, "%s holds a run with other settings: %s",
         trainer->settings->run.folder, text.data);
  }
  if (text.length > 0) {
    (void)printf("Going on with changes: %s\n", text.data);
  }
cleanup:
  lks_text_free(&text);
  lks_arena_free(&arena);
  lks_settings_free(&old);
  return st;
}

static lks_status check_data(const lks_trainer *trainer, const lks_checkpoint *stored,
                             continuity *same, lks_error *err) {
  lks_status st = LKS_OK;
  const uint64_t validation = stored->provenance.validation_hash; /* 0: an older version's */
  const bool same_train = stored->provenance.data_hash == trainer->run.data->fingerprint;
  if (same_train && (validation == 0 || validation == trainer->run.data->validation_fingerprint)) {
    goto cleanup;
  }
  if (trainer->settings->checkpoint.resume != LKS_RESUME_REQUIRED) {
    FAIL(LKS_CONFIG, REMEDY, "%s holds a run on other data: the content of data.%s differs",
         trainer->settings->run.folder, same_train ? "validation" : "train");
  }
  (void)printf("Going on with other data.\n");
  same->same_epoch = same->same_epoch && same_train;
  same->same_best = same->same_monitor = false;
cleanup:
  return st;
}

/* Rank 0: the checkpoint to go on from, and its order. */
static lks_status find(lks_trainer *trainer, lks_kept_order *kept, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_settings *settings = trainer->settings;
  char *passed = NULL;
  char **path = &trainer->newest;
  if (trainer->request->overwrite || settings->checkpoint.resume == LKS_RESUME_OFF) {
    goto cleanup;
  }
  TRY(lks_checkpoint_newest(settings->run.folder, &trainer->arena, path, &passed, err));
  if (passed != NULL && *path != NULL) {
    (void)fprintf(stderr, "lockstep: warning: passed over damaged checkpoints: %s\n", passed);
  }
  if (*path == NULL && passed != NULL) {
    FAIL(LKS_STORAGE, "restore one from a backup, or use --overwrite to begin anew",
         "%s: every checkpoint is damaged: %s", settings->run.folder, passed);
  }
  if (*path == NULL && settings->checkpoint.resume == LKS_RESUME_REQUIRED) {
    FAIL(LKS_CONFIG, "set checkpoint.resume=auto to begin",
         "%s holds no checkpoint to continue from, but checkpoint.resume is required",
         settings->run.folder);
  }
  if (*path != NULL) {
    const lks_checkpoint *stored = &trainer->stored;
    TRY(lks_checkpoint_peek(*path, &trainer->arena, &trainer->stored, err));
    *kept = (lks_kept_order){stored->order_chunk_rows, stored->provenance.data_hash};
  }
cleanup:
  return st;
}

lks_status lks_trainer_find(lks_trainer *trainer, lks_kept_order *kept, lks_error *err) {
  lks_status st = LKS_OK;
  lks_world *world = trainer->world;
  lks_world_phase(world, "checkpoint");
  *kept = (lks_kept_order){0};
  st = world->rank == 0 ? find(trainer, kept, err) : LKS_OK;
  TRY(lks_agree(world, st, err));
  TRY(lks_world_broadcast(world, kept, sizeof *kept, 0, err));
cleanup:
  return st;
}

/* Rank 0: what to do. */
static lks_status decide(lks_trainer *trainer, continuity *same, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_settings *settings = trainer->settings;
  const lks_checkpoint *stored = &trainer->stored;
  trainer->start = LKS_START_NEW;
  if (trainer->newest == NULL) {
    goto cleanup;
  }
  if (stored->config == NULL) {
    FAIL(LKS_STORAGE, "use train.init_from to begin from it, in another run.folder",
         "%s was not written by lockstep", trainer->newest);
  }
  TRY(compare_settings(trainer, stored->config, same, err));
  TRY(check_data(trainer, stored, same, err));
  const bool ended =
      stored->progress.complete &&
      (stored->progress.stopped_early ? same->same_length
                                      : settings->train.epochs <= stored->progress.epoch);
  trainer->progress = stored->progress;
  trainer->start = ended ? LKS_START_COMPLETE : LKS_START_RESUMED;
cleanup:
  return st;
}

/* Rank 0: reads parameters, slots and history of the file to start from. */
static lks_status read_state(lks_trainer *trainer, const char *path, bool fresh, lks_error *err) {
  lks_status st = LKS_OK;
  const size_t bytes = trainer->run.plan->parameter_floats * sizeof(float);
  lks_checkpoint read = {0};
  lks_arena arena = {0};
  TRY(lks_checkpoint_read(path, trainer->run.model, &arena, &read, err));
  memcpy(trainer->state.parameters, read.parameters, bytes);
  for (int s = 0; !fresh && s < trainer->run.plan->slots; ++s) {
    if (read.slots[s] != NULL) {
      memcpy(trainer->state.slots[s], read.slots[s], bytes);
    }
  }
  if (!fresh) {
    trainer->progress = read.progress;
    if (read.best_parameters != NULL && trainer->best_parameters != NULL) {
      memcpy(trainer->best_parameters, read.best_parameters, bytes);
    } else {
      trainer->progress.stop_best = (double)NAN;
      trainer->progress.stop_epoch = trainer->progress.stop_wait = 0;
    }
    if (read.history != NULL) {
      TRY(lks_history_copy(read.history, &trainer->history, err));
    }
  }
cleanup:
  lks_arena_free(&arena);
  return st;
}

/* Rank 0: what was done of an epoch does not go together with the rest of another. */
static void check_epoch(lks_trainer *trainer, const continuity *same) {
  lks_progress *progress = &trainer->progress;
  if (same->same_epoch || progress->epoch_row == 0) {
    return;
  }
  (void)printf("Epoch %lld, of which %lld rows were used, begins anew.\n",
               (long long)progress->epoch + 1, (long long)progress->epoch_row);
  progress->epoch_row = progress->epoch_steps = 0;
  progress->epoch_seconds = 0.0;
  progress->sums = (lks_sums){0};
}

static void forget_best(lks_trainer *trainer) {
  trainer->progress.best = (double)NAN;
  trainer->progress.best_epoch = 0;
}

/* Rank 0: values of another metric say nothing, and a best value without its checkpoint would keep
 * later ones from being the best. */
static lks_status check_best(lks_trainer *trainer, const continuity *same, lks_error *err) {
  lks_status st = LKS_OK;
  lks_progress *progress = &trainer->progress;
  const char *folder = trainer->settings->run.folder;
  bool there = false;
  if (!same->same_monitor) {
    progress->stop_best = (double)NAN;
    progress->stop_epoch = progress->stop_wait = 0;
  }
  if (!same->same_best && trainer->start == LKS_START_RESUMED) {
    forget_best(trainer);
  }
  if (progress->best_epoch == 0) {
    goto cleanup;
  }
  TRY(lks_best_mend(folder, progress->best_epoch, &there, err));
  if (!there) {
    (void)fprintf(stderr,
                  "lockstep: warning: %s/checkpoints holds no checkpoint of epoch %lld, the best "
                  "until now: the best is looked for anew\n",
                  folder, (long long)progress->best_epoch);
    forget_best(trainer);
  }
cleanup:
  return st;
}

lks_status lks_trainer_resume(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  lks_world *world = trainer->world;
  const char *init = trainer->settings->train.init_from;
  continuity same = {0};
  lks_world_phase(world, "checkpoint");
  trainer->progress = (lks_progress){.best = (double)NAN, .stop_best = (double)NAN};
  if (world->rank == 0) {
    st = decide(trainer, &same, err);
    if (st == LKS_OK && trainer->start != LKS_START_NEW) {
      st = read_state(trainer, trainer->newest, false, err);
      if (st == LKS_OK) {
        check_epoch(trainer, &same);
        st = check_best(trainer, &same, err);
      }
    } else if (st == LKS_OK && init[0] != '\0') {
      st = read_state(trainer, init, true, err);
    } else if (st == LKS_OK) {
      lks_model_initialise(trainer->run.model, (uint64_t)trainer->settings->train.seed,
                           trainer->state.parameters);
    }
  }
  TRY(lks_agree(world, st, err));
  struct {
    lks_start start;
    lks_progress progress;
  } told = {trainer->start, trainer->progress};
  TRY(lks_world_broadcast(world, &told, sizeof told, 0, err));
  trainer->start = told.start;
  trainer->progress = told.progress;
  trainer->saved_step = trainer->start == LKS_START_NEW ? -1 : trainer->progress.step;
cleanup:
  return st;
}
