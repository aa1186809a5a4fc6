/* The top table of options, reading it, and the checks that span modules. */
#include "train/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const resume_words[] = {"auto", "required", "off", NULL};
static const char *const progress_words[] = {"auto", "bar", "lines", "none", NULL};

#define TRAIN(member) offsetof(lks_train_options, member)
static const lks_option train_rows[] = {
    {.key = "batch_size",
     .type = LKS_OPT_INT,
     .offset = TRAIN(batch_size),
     .fallback = "32",
     .min = 1,
     .max = 1 << 30,
     .unit = "rows",
     .help = "rows of the global batch, over all ranks"},
    {.key = "epochs",
     .type = LKS_OPT_INT,
     .offset = TRAIN(epochs),
     .fallback = "1",
     .min = 1,
     .max = 1e9,
     .flags = LKS_OPTION_RESUME,
     .help = "passes over the training rows"},
    {.key = "seed",
     .type = LKS_OPT_INT,
     .offset = TRAIN(seed),
     .fallback = "1",
     .min = 0,
     .max = 9e15,
     .help = "of initial values, order, masks and made rows"},
    {.key = "shuffle",
     .type = LKS_OPT_BOOL,
     .offset = TRAIN(shuffle),
     .fallback = "true",
     .help = "a new order of rows each epoch"},
    {.key = "max_time",
     .type = LKS_OPT_DURATION,
     .offset = TRAIN(max_time),
     .fallback = "0",
     .flags = LKS_OPTION_RESUME,
     .unit = "s",
     .help = "stop with a checkpoint after this long (23h30m); 0: no limit"},
    {.key = "init_from",
     .type = LKS_OPT_PATH,
     .offset = TRAIN(init_from),
     .fallback = "",
     .flags = LKS_OPTION_RESUME,
     .help = "weights file to begin a fresh run from: a checkpoint, or Keras' own"},
    {.key = "class_weight", .type = LKS_OPT_LATER, .help = "weights of the classes"},
    {.key = "reproducible", .type = LKS_OPT_LATER, .help = "the same bits at any rank count"},
    {0}};

#define EARLY(member) offsetof(lks_early_options, member)
static const lks_option early_rows[] = {{.key = "monitor",
                                         .type = LKS_OPT_TEXT,
                                         .offset = EARLY(monitor),
                                         .fallback = "val_loss",
                                         .help = "the value that must improve"},
                                        {.key = "patience",
                                         .type = LKS_OPT_INT,
                                         .offset = EARLY(patience),
                                         .fallback = "0",
                                         .min = 0,
                                         .max = 1e9,
                                         .unit = "epochs",
                                         .help = "epochs without improvement that are borne"},
                                        {.key = "min_delta",
                                         .type = LKS_OPT_REAL,
                                         .offset = EARLY(min_delta),
                                         .fallback = "0",
                                         .min = 0,
                                         .max = 1e9,
                                         .help = "least change that counts as improvement"},
                                        {0}};

#define CHECKPOINT(member) offsetof(lks_checkpoint_options, member)
static const lks_option checkpoint_rows[] = {
    {.key = "every_epochs",
     .type = LKS_OPT_INT,
     .offset = CHECKPOINT(every_epochs),
     .fallback = "1",
     .min = 0,
     .max = 1e9,
     .unit = "epochs",
     .help = "epochs between checkpoints (after 16 of them, more where epochs are short beside "
             "writing one); 0: only of the best, when stopping and at the end"},
    {.key = "every_steps",
     .type = LKS_OPT_INT,
     .offset = CHECKPOINT(every_steps),
     .fallback = "0",
     .min = 0,
     .max = 9e15,
     .unit = "steps",
     .help = "steps between checkpoints within an epoch; 0: none"},
    {.key = "every_seconds",
     .type = LKS_OPT_DURATION,
     .offset = CHECKPOINT(every_seconds),
     .fallback = "0",
     .unit = "s",
     .help = "time between checkpoints within an epoch; 0: none"},
    {.key = "keep",
     .type = LKS_OPT_INT,
     .offset = CHECKPOINT(keep),
     .fallback = "3",
     .min = 0,
     .max = 1e6,
     .help = "newest checkpoints to keep beside the best; 0: all"},
    {.key = "best",
     .type = LKS_OPT_TEXT,
     .offset = CHECKPOINT(best),
     .fallback = "val_loss",
     .help = "the value by which the best is chosen; without validation: loss"},
    {.key = "resume",
     .type = LKS_OPT_WORD,
     .offset = CHECKPOINT(resume),
     .fallback = "auto",
     .words = resume_words,
     .help = "auto: continue if there is something to; required: fail if not; off: begin"},
    {0}};

#define RUN(member) offsetof(lks_run_options, member)
static const lks_option run_rows[] = {
    {.key = "folder",
     .type = LKS_OPT_TEXT,
     .offset = RUN(folder),
     .fallback = "",
     .help = "where the run is kept, from the current folder; empty: runs/ and the file's name"},
    {.key = "timeout",
     .type = LKS_OPT_DURATION,
     .offset = RUN(timeout),
     .fallback = "300",
     .unit = "s",
     .help = "time without progress after which the run ends; 0: never"},
    {.key = "progress",
     .type = LKS_OPT_WORD,
     .offset = RUN(progress),
     .fallback = "auto",
     .words = progress_words,
     .help = "bar on a terminal, else a line an epoch"},
    {.key = "compare_every",
     .type = LKS_OPT_INT,
     .offset = RUN(compare_every),
     .fallback = "1000",
     .min = 0,
     .max = 9e15,
     .unit = "steps",
     .help = "steps after which ranks compare hashes of their parameters; 0: never"},
    {0}};

#define SETTING(member) offsetof(lks_settings, member)
const lks_option lks_setting_rows[] = {
    {.key = "data",
     .type = LKS_OPT_GROUP,
     .offset = SETTING(data),
     .options = lks_data_option_rows,
     .help = "where rows come from"},
    {.key = "model",
     .type = LKS_OPT_LAYERS,
     .offset = SETTING(model.layers),
     .min = 1,
     .max = 10000,
     .kinds = lks_layer_kinds,
     .element_bytes = sizeof(lks_layer_options),
     .help = "the layers, input first"},
    {.key = "loss",
     .type = LKS_OPT_CHOICE,
     .offset = SETTING(model.loss),
     .kinds = lks_loss_kinds,
     .help = "what training makes small"},
    {.key = "optimizer",
     .type = LKS_OPT_CHOICE,
     .offset = SETTING(model.optimizer),
     .fallback = "adam",
     .kinds = lks_optimizer_kinds,
     .help = "how parameters follow gradients"},
    {.key = "metrics",
     .type = LKS_OPT_CHOICES,
     .offset = SETTING(model.metrics),
     .fallback = "[]",
     .min = 0,
     .max = LKS_MAX_METRICS,
     .kinds = lks_metric_kinds,
     .element_bytes = sizeof(lks_metric_options),
     .help = "what is reported beside the loss"},
    {.key = "train",
     .type = LKS_OPT_GROUP,
     .offset = SETTING(train),
     .fallback = "{}",
     .options = train_rows,
     .help = "how long and in what portions"},
    {.key = "early_stopping",
     .type = LKS_OPT_GROUP,
     .offset = SETTING(early),
     .flags = LKS_OPTION_OPTIONAL | LKS_OPTION_RESUME,
     .options = early_rows,
     .help = "ends training when a value no longer improves, and restores the best parameters"},
    {.key = "device",
     .type = LKS_OPT_GROUP,
     .offset = SETTING(device),
     .fallback = "{}",
     .flags = LKS_OPTION_RESUME,
     .options = lks_device_option_rows,
     .expand = lks_device_expand,
     .help = "what to run on: auto, cpu, gpu, gpu:K"},
    {.key = "checkpoint",
     .type = LKS_OPT_GROUP,
     .offset = SETTING(checkpoint),
     .fallback = "{}",
     .flags = LKS_OPTION_RESUME,
     .options = checkpoint_rows,
     .help = "when state is saved, and whether a run continues"},
    {.key = "run",
     .type = LKS_OPT_GROUP,
     .offset = SETTING(run),
     .fallback = "{}",
     .flags = LKS_OPTION_RESUME,
     .options = run_rows,
     .help = "the run's folder and manners"},
    {0}};

bool lks_settings_monitor(const lks_settings *settings, const char *name, int *index,
                          bool *validation, bool *higher) {
  const lks_metric_options *metrics = settings->model.metrics.items;
  *validation = strncmp(name, "val_", 4) == 0;
  *index = -1;
  *higher = false;
  if (*validation && !settings->data.validation.present) {
    return false;
  }
  const char *base = name + (*validation ? 4 : 0);
  if (strcmp(base, "loss") == 0) {
    return true;
  }
  for (int i = 0; i < settings->model.metrics.count; ++i) {
    if (strcmp(base, metrics[i].kind->name) == 0) {
      *index = i;
      *higher = ((const lks_metric_row *)(const void *)metrics[i].kind)->higher_better;
      return true;
    }
  }
  return false;
}

static lks_status check_monitor(const lks_settings *settings, const lks_node *root, const char *key,
                                const char *name, lks_error *err) {
  lks_status st = LKS_OK;
  int index = 0;
  bool validation = false, higher = false;
  if (!lks_settings_monitor(settings, name, &index, &validation, &higher)) {
    st = lks_node_fail(lks_node_find(root, key), key, err,
                       validation && !settings->data.validation.present
                           ? "add data.validation, or name loss"
                           : "name loss, a metric listed under metrics, or val_ and one of them",
                       "this run has no value '%s'", name);
  }
  return st;
}

/* runs/STEM for a configuration DIR/STEM.yaml. */
static const char *default_folder(lks_settings *settings) {
  const char *base = lks_path_base(settings->path);
  const char *dot = strrchr(base, '.');
  const size_t length = dot != NULL && dot != base ? (size_t)(dot - base) : strlen(base);
  return lks_arena_print(&settings->arena, "runs/%.*s", (int)length, base);
}

static lks_status complete(lks_settings *settings, const lks_node *root, lks_error *err) {
  lks_status st = LKS_OK;
  int index = 0;
  bool validation = false, higher = false;
  if (settings->run.folder[0] == '\0') {
    settings->run.folder = default_folder(settings);
    TRY_ALLOC(settings->run.folder);
  }
  TRY(lks_path_resolve(&settings->arena, NULL, settings->run.folder, &settings->run.folder, err));
  TRY(lks_path_check_utf8(settings->run.folder, err));
  if (strcmp(settings->checkpoint.best, "val_loss") == 0 &&
      !lks_settings_monitor(settings, "val_loss", &index, &validation, &higher)) {
    settings->checkpoint.best = "loss";
  }
  TRY(check_monitor(settings, root, "checkpoint.best", settings->checkpoint.best, err));
  if (settings->early.present) {
    TRY(check_monitor(settings, root, "early_stopping.monitor", settings->early.monitor, err));
  }
cleanup:
  return st;
}

/* Twice the depth of an override's key, one less where it names a kind. */
static int override_level(const char *assignment) {
  const size_t length = strcspn(assignment, "=");
  const size_t name = strlen(".name");
  int dots = 0;
  for (size_t i = 0; i < length; ++i) {
    dots += assignment[i] == '.' ? 1 : 0;
  }
  const bool kind = length > name && strncmp(assignment + length - name, ".name", name) == 0;
  return 2 * dots - (kind ? 1 : 0);
}

/* What stands for a whole is set before its parts, so that none is lost to the order in which they
 * were written. Of two of a level the later one counts. */
static lks_status apply_overrides(lks_settings *settings, lks_node *root,
                                  const char *const *overrides, int count, lks_error *err) {
  lks_status st = LKS_OK;
  const char *here = NULL;
  int deepest = 0;
  TRY(lks_path_resolve(&settings->arena, NULL, ".", &here, err));
  for (int i = 0; i < count; ++i) {
    const int level = override_level(overrides[i]);
    deepest = level > deepest ? level : deepest;
  }
  for (int level = 0; level <= deepest; ++level) {
    for (int i = 0; i < count; ++i) {
      if (override_level(overrides[i]) == level) {
        TRY(lks_options_override(lks_setting_rows, root, overrides[i], here, &settings->arena,
                                 err));
      }
    }
  }
cleanup:
  return st;
}

static lks_status bind(lks_settings *settings, lks_node *root, const char *const *overrides,
                       int count, lks_error *err) {
  lks_status st = LKS_OK;
  TRY(apply_overrides(settings, root, overrides, count, err));
  TRY(lks_options_bind(lks_setting_rows, root, settings, &settings->arena, err));
  TRY(complete(settings, root, err));
cleanup:
  return st;
}

lks_status lks_settings_read(const char *path, const char *const *overrides, int count,
                             lks_settings **out, lks_error *err) {
  lks_status st = LKS_OK;
  lks_node *root = NULL;
  *out = NULL;
  lks_settings *settings = calloc(1, sizeof *settings);
  TRY_ALLOC(settings);
  settings->path = lks_arena_copy(&settings->arena, path);
  TRY_ALLOC(settings->path);
  TRY(lks_tree_read(path, &settings->arena, &root, err));
  TRY(bind(settings, root, overrides, count, err));
  *out = settings;
  settings = NULL;
cleanup:
  lks_settings_free(&settings);
  return st;
}

lks_status lks_settings_parse(const char *text, const char *name, const char *const *overrides,
                              int count, lks_settings **out, lks_error *err) {
  lks_status st = LKS_OK;
  lks_node *root = NULL;
  *out = NULL;
  lks_settings *settings = calloc(1, sizeof *settings);
  TRY_ALLOC(settings);
  settings->path = "";
  TRY(lks_tree_parse(text, strlen(text), name, ".", &settings->arena, &root, err));
  TRY(bind(settings, root, overrides, count, err));
  *out = settings;
  settings = NULL;
cleanup:
  lks_settings_free(&settings);
  return st;
}

void lks_settings_free(lks_settings **settings) {
  if (*settings != NULL) {
    lks_arena_free(&(*settings)->arena);
    free(*settings);
    *settings = NULL;
  }
}

lks_status lks_settings_print(const lks_settings *settings, char **text, lks_error *err) {
  lks_status st = LKS_OK;
  lks_arena arena = {0};
  lks_text out = {0};
  const lks_node *root = lks_options_emit(lks_setting_rows, settings, &arena);
  TRY_ALLOC(root);
  lks_tree_print(root, &out);
  if (out.failed) {
    FAIL(LKS_NO_MEMORY, NULL, "out of memory for the configuration");
  }
  *text = out.data;
  out.data = NULL;
cleanup:
  lks_text_free(&out);
  lks_arena_free(&arena);
  return st;
}

lks_status lks_settings_compare(const lks_settings *old, const lks_settings *present,
                                lks_arena *arena, lks_difference **out, int *count,
                                lks_error *err) {
  lks_status st = LKS_OK;
  const lks_node *old_root = lks_options_emit(lks_setting_rows, old, arena);
  const lks_node *new_root = lks_options_emit(lks_setting_rows, present, arena);
  TRY_ALLOC(old_root);
  TRY_ALLOC(new_root);
  TRY(lks_options_compare(lks_setting_rows, old_root, new_root, arena, out, count, err));
cleanup:
  return st;
}
