/* lks_predict: predictions to HDF5 in raw units, row i for input row i, computed in the fixed
 * blocks of evaluation by all ranks and written by rank 0. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/finite.h"
#include "base/h5.h"
#include "store/files.h"
#include "train/run.h"
#include "train/stored.h"

typedef struct output {
  const char *weights;   /* the file that they are from */
  uint64_t weights_hash; /* rank 0's */
  int layer;             /* -1: the model's output */
  int64_t width;
  lks_link link; /* applied to logits */
  lks_rounds rounds;
  float *mine, *all; /* [per_rank, LKS_EVALUATION_ROWS, width], the same of all ranks */
  double *raw;       /* [LKS_EVALUATION_ROWS, width], rank 0's, in raw units; NULL: not scaled */
  lks_h5 *file;      /* rank 0 */
  lks_h5_dataset *dataset;
  const char *aside;
} output;

static lks_status find_layer(const lks_model *model, const char *name, output *out,
                             lks_error *err) {
  lks_status st = LKS_OK;
  out->layer = -1;
  out->width = model->outputs;
  if (name == NULL) {
    goto cleanup;
  }
  lks_text names = {0};
  for (int i = 0; i < model->layer_count; ++i) {
    lks_text_add(&names, "%s%s", i > 0 ? ", " : "", model->layers[i].name);
    if (strcmp(model->layers[i].name, name) == 0) {
      out->layer = i;
      out->width = model->layers[i].outputs;
    }
  }
  if (out->layer < 0) {
    st = lks_fail(err, LKS_USAGE, NULL, "--layer: the model has no layer '%s'", name);
    lks_advise(err, "use one of %s", names.data != NULL ? names.data : "its layers");
  }
  lks_text_free(&names);
cleanup:
  return st;
}

/* logits to probabilities, in place. */
static void apply_link(lks_link link, float *values, int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; ++row) {
    float *z = values + row * width;
    double top = (double)z[0], sum = 0.0;
    for (int64_t i = 1; i < width; ++i) {
      top = (double)z[i] > top ? (double)z[i] : top;
    }
    for (int64_t i = 0; i < width; ++i) {
      sum += exp((double)z[i] - top);
    }
    for (int64_t i = 0; i < width; ++i) {
      z[i] = link == LKS_LINK_SOFTMAX ? (float)(exp((double)z[i] - top) / sum)
                                      : (float)(1.0 / (1.0 + exp(-(double)z[i])));
    }
  }
}

static lks_status open_output(output *out, const lks_predict_request *request, lks_arena *arena,
                              lks_error *err) {
  lks_status st = LKS_OK;
  char hash[32];
  const int64_t shape[2] = {out->rounds.rows, out->width};
  const int64_t chunk = (int64_t)(1 << 20) / (out->width * (int64_t)sizeof(float));
  const char *const inputs[] = {request->in, out->weights, NULL};
  TRY(lks_file_replaceable(request->out, LKS_CONTENTS_PREDICTIONS, inputs, err));
  out->aside = lks_aside_path(arena, request->out);
  TRY_ALLOC(out->aside);
  TRY(lks_h5_create_aside(out->aside, request->out, &out->file, err));
  TRY(lks_h5_create_rows(out->file, "predictions", out->raw != NULL ? LKS_H5_F64 : LKS_H5_F32, 2,
                         shape,
                         chunk < 1          ? 1
                         : chunk > shape[0] ? shape[0]
                                            : chunk,
                         0, &out->dataset, err));
  (void)snprintf(hash, sizeof hash, "%016llx", (unsigned long long)out->weights_hash);
  TRY(lks_h5_attr_text(out->file, "predictions", "weights_hash", hash, err));
  TRY(lks_h5_attr_text(out->file, "predictions", "checkpoint", out->weights, err));
  TRY(lks_h5_attr_text(out->file, "predictions", "layer",
                       request->layer != NULL ? request->layer : "", err));
cleanup:
  return st;
}

static lks_status compute_round(lks_run *run, output *out, int64_t round, lks_error *err) {
  lks_status st = LKS_OK;
  for (int64_t k = 0; k < out->rounds.per_rank; ++k) {
    const int64_t block =
        lks_rounds_block(&out->rounds, round, run->world->rank, run->world->size, k);
    if (block < 0) {
      break;
    }
    int64_t first = 0, count = 0;
    lks_feed feed;
    float *values = out->mine + k * LKS_EVALUATION_ROWS * out->width;
    lks_rounds_rows(&out->rounds, block, &first, &count);
    TRY(lks_table_rows_at(run->data->test, first, count, &feed, err));
    TRY(run->backend.ops->predict(run->backend.state, &feed, out->layer, values, err));
    if (out->link != LKS_LINK_NONE) {
      apply_link(out->link, values, count, out->width);
    }
    lks_world_beat(run->world);
  }
cleanup:
  return st;
}

/* Inputs were finite when they were read: what is not comes of the weights. */
static lks_status check_finite(const output *out, const float *values, int64_t first, int64_t count,
                               lks_error *err) {
  lks_status st = LKS_OK;
  if (lks_all_finite(values, (size_t)(count * out->width))) {
    return LKS_OK;
  }
  for (int64_t i = 0; i < count * out->width; ++i) {
    if (!isfinite(values[i])) {
      st = lks_fail(err, LKS_NOT_FINITE, NULL, "row %lld, column %lld of the predictions is %s",
                    (long long)(first + i / out->width), (long long)(i % out->width),
                    isnan(values[i]) ? "NaN" : "an infinity");
      lks_advise(err, "look at the weights (%s), and at the values of that row", out->weights);
      goto cleanup;
    }
  }
cleanup:
  return st;
}

static lks_status write_round(const lks_run *run, output *out, int64_t round, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_rounds *rounds = &out->rounds;
  for (int rank = 0; rank < run->world->size; ++rank) {
    for (int64_t k = 0; k < rounds->per_rank; ++k) {
      const int64_t block = lks_rounds_block(rounds, round, rank, run->world->size, k);
      if (block < 0) {
        break;
      }
      int64_t first = 0, count = 0;
      lks_rounds_rows(rounds, block, &first, &count);
      const float *values =
          out->all + (rank * rounds->per_rank + k) * LKS_EVALUATION_ROWS * out->width;
      TRY(check_finite(out, values, first, count, err));
      if (out->raw != NULL) {
        lks_scaling_undo(&run->data->targets, values, out->raw, count, out->width);
      }
      TRY(lks_h5_write_rows(out->dataset, first, count,
                            out->raw != NULL ? (const void *)out->raw : values, err));
    }
  }
cleanup:
  return st;
}

static lks_status write_all(lks_run *run, output *out, lks_error *err) {
  lks_status st = LKS_OK;
  lks_world *world = run->world;
  const size_t bytes =
      (size_t)(out->rounds.per_rank * LKS_EVALUATION_ROWS * out->width) * sizeof(float);
  for (int64_t round = 0; round < out->rounds.rounds; ++round) {
    st = lks_run_look_for_stop(run, err);
    st = st == LKS_OK ? compute_round(run, out, round, err) : st;
    TRY(lks_agree(world, st, err));
    TRY(lks_world_gather(world, out->mine, bytes, out->all, err));
    st = world->rank == 0 ? write_round(run, out, round, err) : LKS_OK;
    TRY(lks_agree(world, st, err));
  }
cleanup:
  return st;
}

/* The last steps of rank 0: closed, synced, renamed. */
static lks_status publish(output *out, const char *path, lks_error *err) {
  lks_status st = LKS_OK;
  lks_h5_dataset_close(&out->dataset);
  TRY(lks_h5_close(&out->file, err));
  TRY(lks_file_publish(out->aside, path, err));
  out->aside = NULL;
cleanup:
  return st;
}

static void close_output(output *out) {
  lks_error ignored; /* an error of closing what failed already says nothing new */
  lks_h5_dataset_close(&out->dataset);
  if (lks_h5_close(&out->file, &ignored) != LKS_OK || out->aside != NULL) {
    if (out->aside != NULL) {
      (void)unlink(out->aside);
    }
  }
  free(out->mine);
  free(out->all);
  free(out->raw);
}

/* The table to predict on: one file's features, named as they were in training unless told: by the
 * configuration, else by the checkpoint, which knows what training found. */
static lks_status set_table(lks_settings *settings, const lks_predict_request *request,
                            const lks_stored *stored, lks_error *err) {
  lks_status st = LKS_OK;
  lks_table_options *table = &settings->data.test;
  *table = (lks_table_options){.present = true, .features = settings->data.train.features};
  if (table->features.count == 0) {
    table->features = stored->feature_names;
  }
  TRY(lks_path_resolve(&settings->arena, NULL, request->in, &table->file, err));
  if (request->features != NULL) {
    char *names = lks_arena_copy(&settings->arena, request->features);
    TRY_ALLOC(names);
    int count = 1;
    for (const char *c = names; *c != '\0'; ++c) {
      count += *c == ',';
    }
    table->features.items = lks_arena_alloc(&settings->arena, (size_t)count * sizeof(char *));
    TRY_ALLOC(table->features.items);
    table->features.count = 0;
    for (char *save = NULL, *name = strtok_r(names, ",", &save); name != NULL;
         name = strtok_r(NULL, ",", &save)) {
      table->features.items[table->features.count++] = name;
    }
    if (table->features.count == 0) {
      FAIL(LKS_USAGE, "name the datasets, or leave it out: then they are named as in training",
           "--features names no dataset");
    }
  }
cleanup:
  return st;
}

static lks_status prepare(lks_run *run, const lks_predict_request *request, lks_arena *arena,
                          output *out, lks_error *err) {
  lks_status st = LKS_OK;
  TRY(find_layer(run->model, request->layer, out, err));
  if (request->probabilities && (out->layer >= 0 || run->model->link == LKS_LINK_NONE)) {
    FAIL(LKS_USAGE, "leave it out",
         out->layer >= 0 ? "--probabilities is of the model's output, and --layer names a layer"
                         : "--probabilities is of a classifier, and this loss has no classes");
  }
  if (request->probabilities && run->model->logits) {
    out->link = run->model->link;
  }
  /* The output scaled as targets are, if it is. */
  const bool scaled =
      out->layer < 0 && out->link == LKS_LINK_NONE && run->data->targets.columns == out->width;
  out->rounds = lks_rounds_make(lks_table_rows(run->data->test), run->world->size,
                                (size_t)(LKS_EVALUATION_ROWS * out->width) * sizeof(float));
  const size_t values = (size_t)(out->rounds.per_rank * LKS_EVALUATION_ROWS * out->width);
  out->mine = calloc(values, sizeof(float));
  out->all = calloc(values * (size_t)run->world->size, sizeof(float));
  TRY_ALLOC(out->mine);
  TRY_ALLOC(out->all);
  if (run->world->rank == 0) {
    if (scaled) {
      out->raw = malloc((size_t)(LKS_EVALUATION_ROWS * out->width) * sizeof *out->raw);
      TRY_ALLOC(out->raw);
    }
    TRY(open_output(out, request, arena, err));
  }
cleanup:
  return st;
}

lks_status lks_predict(lks_world *world, lks_settings *settings, const lks_predict_request *request,
                       lks_error *err) {
  lks_status st = LKS_OK;
  lks_run run = {0};
  lks_arena arena = {0};
  lks_stored stored = {0};
  lks_checkpoint read = {0};
  output out = {0};
  TRY(lks_stored_read(world, settings, request->checkpoint, &arena, &stored, err));
  lks_world_phase(world, "configuration");
  st = set_table(settings, request, &stored, err);
  TRY(lks_agree(world, st, err));
  const lks_run_needs needs = {.test = true,
                               .without_targets = true,
                               .inputs = stored.inputs,
                               .features = stored.known ? &stored.features : NULL,
                               .targets = stored.known ? &stored.targets : NULL};
  TRY(lks_run_open(&run, world, settings, &needs, err));
  TRY(lks_run_open_backend(&run, err));
  TRY(lks_run_load(&run, stored.path, &arena, &read, err));
  out.weights = stored.path;
  out.weights_hash = read.weights_hash;
  lks_world_phase(world, "prediction");
  st = prepare(&run, request, &arena, &out, err);
  TRY(lks_agree(world, st, err));
  TRY(write_all(&run, &out, err));
  st = world->rank == 0 ? publish(&out, request->out, err) : LKS_OK;
  TRY(lks_agree(world, st, err));
  if (world->rank == 0) {
    char rows[32];
    (void)printf("%s: %s predictions of %lld values\n", request->out,
                 lks_format_count(rows, out.rounds.rows), (long long)out.width);
  }
cleanup:
  close_output(&out);
  lks_run_close(&run);
  lks_arena_free(&arena);
  return st;
}
