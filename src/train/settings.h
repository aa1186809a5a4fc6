/* The whole configuration: every module's options in one struct, and the top table. */
#ifndef LKS_TRAIN_SETTINGS_H
#define LKS_TRAIN_SETTINGS_H

#include "config/option.h"
#include "data/options.h"
#include "device/options.h"
#include "lockstep/lockstep.h"
#include "model/model.h"

typedef struct lks_train_options {
  int64_t batch_size, epochs, seed;
  bool shuffle;
  double max_time;       /* s; 0: none */
  const char *init_from; /* a weights file; "": none */
} lks_train_options;

typedef struct lks_early_options {
  bool present;
  const char *monitor;
  int64_t patience;
  double min_delta;
} lks_early_options;

typedef enum lks_resume_id { LKS_RESUME_AUTO, LKS_RESUME_REQUIRED, LKS_RESUME_OFF } lks_resume_id;

typedef struct lks_checkpoint_options {
  int64_t every_epochs, every_steps;
  double every_seconds;
  int64_t keep;
  const char *best;
  int resume; /* lks_resume_id */
} lks_checkpoint_options;

typedef enum lks_progress_id {
  LKS_PROGRESS_AUTO,
  LKS_PROGRESS_BAR,
  LKS_PROGRESS_LINES,
  LKS_PROGRESS_NONE
} lks_progress_id;

typedef struct lks_run_options {
  const char *folder;    /* absolute once read */
  double timeout;        /* s; 0: for ever */
  int progress;          /* lks_progress_id */
  int64_t compare_every; /* steps; 0: never */
} lks_run_options;

struct lks_settings {
  lks_data_options data;
  lks_model_options model;
  lks_train_options train;
  lks_early_options early;
  lks_device_options device;
  lks_checkpoint_options checkpoint;
  lks_run_options run;
  const char *path; /* as given; "" when read from a checkpoint */
  lks_arena arena;
};

extern const lks_option lks_setting_rows[];

/* Reads settings from stored text (a checkpoint's configuration) in place of a file, then applies
 * overrides. name: what messages call it. */
lks_status lks_settings_parse(const char *text, const char *name, const char *const *overrides,
                              int count, lks_settings **settings, lks_error *err) LKS_MUST_USE;

/* The effective configuration as YAML; malloc'ed. */
lks_status lks_settings_print(const lks_settings *settings, char **text,
                              lks_error *err) LKS_MUST_USE;

/* What differs between two effective configurations: *out has *count rows, in the arena. */
lks_status lks_settings_compare(const lks_settings *old, const lks_settings *present,
                                lks_arena *arena, lks_difference **out, int *count,
                                lks_error *err) LKS_MUST_USE;

/* A value that `monitor` and `best` may name: "loss", "val_loss", a metric, "val_" and a metric.
 * *index: -1 the loss, else the metric; *validation, *higher: whether more is better.
 * False when the run has no such value. */
bool lks_settings_monitor(const lks_settings *settings, const char *name, int *index,
                          bool *validation, bool *higher);

#endif
