/* inspect: a checkpoint. That its seal is sound was verified before it was opened. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/inspect.h"
#include "store/checkpoint.h"
#include "store/state.h"
#include "train/journal.h"
#include "train/settings.h"

/* What the numbers of a checkpoint belong to; a checkpoint of another version may not say. */
typedef struct names {
  const char *best, *monitor, *optimizer, *loss;
} names;

static names names_of(const lks_settings *settings) {
  if (settings == NULL) {
    return (names){NULL};
  }
  return (names){.best = settings->checkpoint.best,
                 .monitor = settings->early.present ? settings->early.monitor : NULL,
                 .optimizer = settings->model.optimizer.kind->name,
                 .loss = settings->model.loss.kind->name};
}

static void report_hashes(lks_report *report, uint64_t stated, uint64_t found) {
  char text[24], again[24];
  (void)snprintf(text, sizeof text, "%016" PRIx64, stated);
  (void)snprintf(again, sizeof again, "%016" PRIx64, found);
  lks_report_string(report, report->json, "weights_hash", text);
  lks_report_string(report, report->json, "weights_hash_computed", again);
  lks_report_set(report, report->json, "weights_hash_matches", json_boolean(stated == found));
  if (stated == found) {
    lks_report_line(report, "weights_hash", "%s, as computed from the weights", text);
  } else {
    lks_report_line(report, "weights_hash", "%s, but the weights have %s: do not use them", text,
                    again);
  }
}

/* ---- where training stands */

static void report_progress(lks_report *report, const lks_progress *progress) {
  json_t *into = lks_report_object(report, report->json, "progress");
  lks_report_count(report, into, "step", "step", progress->step);
  lks_report_set(report, into, "epoch", json_integer((json_int_t)progress->epoch));
  lks_report_set(report, into, "epoch_row", json_integer((json_int_t)progress->epoch_row));
  lks_report_set(report, into, "complete", json_boolean(progress->complete));
  lks_report_set(report, into, "stopped_early", json_boolean(progress->stopped_early));
  if (progress->epoch_row > 0) {
    lks_report_line(report, "epoch", "%" PRId64 " done, and %" PRId64 " rows of the next",
                    progress->epoch, progress->epoch_row);
  } else {
    lks_report_line(report, "epoch", "%" PRId64 " done", progress->epoch);
  }
  lks_report_line(report, "training", "%s",
                  progress->stopped_early ? "complete, by early stopping"
                  : progress->complete    ? "complete"
                                          : "not complete");
}

/* A best value: key in JSON, the name of what is measured, its epoch. */
static void report_best(lks_report *report, const char *key, const char *label, const char *monitor,
                        double value, int64_t epoch) {
  if (isnan(value)) {
    return;
  }
  json_t *into = lks_report_object(report, report->json, key);
  lks_report_string(report, into, "monitor", monitor);
  lks_report_set(report, into, "value", lks_json_real(value));
  lks_report_set(report, into, "epoch", json_integer((json_int_t)epoch));
  lks_report_line(report, label, "%s%s%.6g, epoch %" PRId64, monitor != NULL ? monitor : "",
                  monitor != NULL ? " " : "", value, epoch);
}

/* ---- who made it, of what */

static void report_provenance(lks_report *report, const lks_provenance *from) {
  json_t *into = lks_report_object(report, report->json, "provenance");
  lks_report_text(report, into, "command", "command", from->command);
  lks_report_text(report, into, "started", "started", from->started);
  lks_report_text(report, into, "hosts", "hosts", from->hosts);
  lks_report_count(report, into, "ranks", "ranks", from->ranks);
  lks_report_text(report, into, "backend", "backend", from->backend);
  lks_report_text(report, into, "devices", "devices", from->devices);
  lks_report_text(report, into, "versions", "versions", from->versions);
  lks_report_text(report, into, "build", "build", from->build);
}

static void report_data(lks_report *report, const lks_provenance *from) {
  char bytes[32], hash[24], validation[24];
  json_t *into = lks_report_object(report, report->json, "data");
  (void)snprintf(hash, sizeof hash, "%016" PRIx64, from->data_hash);
  (void)snprintf(validation, sizeof validation, "%016" PRIx64, from->validation_hash);
  lks_report_text(report, into, "file", "data", from->data_file);
  lks_report_set(report, into, "bytes", json_integer((json_int_t)from->data_bytes));
  lks_report_string(report, into, "modified", from->data_modified);
  lks_report_string(report, into, "hash", hash);
  lks_report_string(report, into, "validation_hash", validation);
  lks_report_line(report, "", "hash %s, %s%s%s", hash,
                  lks_format_bytes(bytes, (double)from->data_bytes),
                  from->data_modified != NULL ? ", of " : "",
                  from->data_modified != NULL ? from->data_modified : "");
}

/* ---- the network */

static void report_layer(lks_report *report, json_t *into, const lks_contents_layer *layer) {
  char count[32];
  lks_text variables = {0};
  lks_report_string(report, into, "name", layer->name);
  lks_report_set(report, into, "parameters", json_integer((json_int_t)layer->values));
  json_t *array = lks_report_array(report, into, "variables");
  for (int i = 0; i < layer->count; ++i) {
    char shape[256];
    const lks_contents_item *item = &layer->variables[i];
    json_t *variable = lks_report_append(report, array);
    lks_report_string(report, variable, "name", item->name);
    lks_report_set(report, variable, "shape", lks_report_shape_json(&item->info));
    lks_report_shape(&item->info, shape);
    lks_text_add(&variables, "%s%s %s", i > 0 ? ", " : "", item->name, shape);
  }
  if (layer->count > 0) {
    lks_report_line(report, layer->name, "%s: %s", variables.data != NULL ? variables.data : "",
                    lks_format_count(count, layer->values));
  } else {
    lks_report_line(report, layer->name, "no parameters");
  }
  report->failed = report->failed || variables.failed;
  lks_text_free(&variables);
}

static void report_optimizer(lks_report *report, const names *known, int variables,
                             int parameters) {
  json_t *into = lks_report_object(report, report->json, "optimizer");
  /* Two variables are the iteration and the learning rate. */
  const int slots = parameters > 0 && variables > 2 ? (variables - 2) / parameters : 0;
  lks_report_string(report, into, "name", known->optimizer);
  lks_report_set(report, into, "stored", json_boolean(variables > 0));
  lks_report_set(report, into, "slots", json_integer(slots));
  lks_report_line(report, "optimizer", "%s%s%d slot%s a parameter",
                  known->optimizer != NULL ? known->optimizer : "",
                  known->optimizer != NULL ? ", " : "", slots, slots == 1 ? "" : "s");
}

static lks_status report_network(lks_h5 *file, lks_arena *arena, const lks_checkpoint *checkpoint,
                                 const names *known, lks_report *report, lks_error *err) {
  lks_status st = LKS_OK;
  lks_contents_layer *layers = NULL;
  lks_texts slots = {0};
  uint64_t hash = 0;
  int count = 0, tensors = 0;
  int64_t values = 0;
  TRY(lks_contents_layers(file, arena, &layers, &count, &hash, err));
  TRY(lks_h5_members(file, "/optimizer/vars", arena, &slots, err));
  report_hashes(report, checkpoint->weights_hash, hash);
  lks_text_add(&report->text, "  layers\n");
  json_t *array = lks_report_array(report, report->json, "layers");
  for (int i = 0; i < count; ++i) {
    report_layer(report, lks_report_append(report, array), &layers[i]);
    values += layers[i].values;
    tensors += layers[i].count;
  }
  lks_report_count(report, report->json, "parameters", "parameters", values);
  lks_report_text(report, report->json, "loss", "loss", known->loss);
  report_optimizer(report, known, slots.count, tensors);
cleanup:
  return st;
}

static void report_scaling(lks_report *report, const lks_checkpoint *checkpoint) {
  json_t *into = lks_report_object(report, report->json, "scaling");
  const int64_t features = checkpoint->features.columns, targets = checkpoint->targets.columns;
  lks_report_set(report, into, "features", json_integer((json_int_t)features));
  lks_report_set(report, into, "targets", json_integer((json_int_t)targets));
  if (features == 0 && targets == 0) {
    lks_report_line(report, "scaling", "none");
  } else {
    lks_report_line(report, "scaling", "%" PRId64 " feature and %" PRId64 " target columns",
                    features, targets);
  }
}

static lks_status report_history(lks_h5 *file, lks_report *report, lks_error *err) {
  lks_status st = LKS_OK;
  lks_history history = {0};
  lks_text row = {0};
  TRY(lks_history_load(file, "/lockstep/history", &history, err));
  json_t *into = lks_report_object(report, report->json, "history");
  lks_report_set(report, into, "epochs", json_integer((json_int_t)history.epochs));
  json_t *last = lks_report_object(report, into, "last");
  for (int c = 0; history.epochs > 0 && c < history.columns; ++c) {
    const double value = history.values[(history.epochs - 1) * history.columns + c];
    lks_report_set(report, last, history.names[c], lks_json_real(value));
    lks_text_add(&row, "%s%s %.6g", c > 0 ? ", " : "; the last: ", history.names[c], value);
  }
  lks_report_line(report, "history", "%" PRId64 " epoch%s%s", history.epochs,
                  history.epochs == 1 ? "" : "s", row.data != NULL ? row.data : "");
  report->failed = report->failed || row.failed;
cleanup:
  lks_text_free(&row);
  lks_history_free(&history);
  return st;
}

/* ---- all of it */

lks_status lks_inspect_checkpoint(lks_h5 *file, lks_arena *arena, lks_report *report,
                                  lks_error *err) {
  lks_status st = LKS_OK;
  lks_checkpoint checkpoint = {0};
  lks_settings *settings = NULL;
  lks_error unread;
  int64_t format = 0;
  TRY(lks_h5_attr_read_int64(file, "/lockstep", "format", &format, err));
  TRY(lks_state_load(file, arena, &checkpoint, err));
  if (checkpoint.config != NULL && lks_settings_parse(checkpoint.config, lks_h5_path(file), NULL, 0,
                                                      &settings, &unread) != LKS_OK) {
    settings = NULL; /* of a version with other keys: its names stay unsaid */
  }
  const names known = names_of(settings);
  lks_report_count(report, report->json, "format", "format", format);
  lks_report_text(report, report->json, "seal", "seal", "sound");
  report_progress(report, &checkpoint.progress);
  report_best(report, "best", "best", known.best, checkpoint.progress.best,
              checkpoint.progress.best_epoch);
  if (checkpoint.progress.stop_epoch > 0) {
    report_best(report, "early_stopping", "early stop", known.monitor,
                checkpoint.progress.stop_best, checkpoint.progress.stop_epoch);
  }
  TRY(report_network(file, arena, &checkpoint, &known, report, err));
  report_scaling(report, &checkpoint);
  if (lks_h5_exists(file, "/lockstep/history")) {
    TRY(report_history(file, report, err));
  }
  report_provenance(report, &checkpoint.provenance);
  report_data(report, &checkpoint.provenance);
  lks_report_set(report, report->json, "seed", json_integer((json_int_t)checkpoint.seed));
  lks_report_line(report, "seed", "%" PRIu64, checkpoint.seed);
  lks_report_string(report, report->json, "config", checkpoint.config);
cleanup:
  lks_settings_free(&settings);
  return st;
}
