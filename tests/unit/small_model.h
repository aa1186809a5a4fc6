/* A small checked model made in C, and a checkpoint of it with a distinct number everywhere. */
#ifndef LKS_TESTS_SMALL_MODEL_H
#define LKS_TESTS_SMALL_MODEL_H

#include "scratch.h"

#include <math.h>

#include "model/model.h"
#include "store/checkpoint.h"

typedef struct small_model {
  lks_layer_options layers[3];
  lks_metric_options metric;
  lks_model *model;
  /* [arena_floats] each */
  float *parameters, *slots[LKS_MAX_SLOTS], *best;
  lks_history history;
  double shift[4], factor[4];
  lks_checkpoint checkpoint;
} small_model;

static inline const lks_kind *find_kind(const lks_kind *const *kinds, const char *name) {
  for (; *kinds != NULL; ++kinds) {
    if (strcmp((*kinds)->name, name) == 0) {
      return *kinds;
    }
  }
  fail_msg("no kind %s", name);
  return NULL;
}

static inline void small_dense(lks_layer_options *layer, int64_t units, const char *activation) {
  layer->kind = find_kind(lks_layer_kinds, "dense");
  layer->name = "";
  layer->dense.units = units;
  layer->dense.use_bias = true;
  layer->dense.activation.kind = find_kind(lks_activation_kinds, activation);
  layer->dense.kernel_initializer.kind = find_kind(lks_initializer_kinds, "glorot_uniform");
  layer->dense.bias_initializer.kind = find_kind(lks_initializer_kinds, "zeros");
}

/* [4] -> dense(hidden, relu) -> dropout -> dense(3, softmax), with that optimizer. */
static inline void small_model_make(small_model *made, int64_t hidden, const char *optimizer,
                                    double momentum) {
  lks_error err;
  memset(made, 0, sizeof(*made));
  small_dense(&made->layers[0], hidden, "relu");
  made->layers[1].kind = find_kind(lks_layer_kinds, "dropout");
  made->layers[1].name = "";
  made->layers[1].dropout.rate = 0.25;
  small_dense(&made->layers[2], 3, "softmax");
  made->metric.kind = find_kind(lks_metric_kinds, "accuracy");
  lks_model_options options = {
      .layers = {made->layers, 3, sizeof(made->layers[0])},
      .loss = {find_kind(lks_loss_kinds, "sparse_categorical_crossentropy")},
      .optimizer = {.kind = find_kind(lks_optimizer_kinds, optimizer),
                    .learning_rate = 0.001,
                    .momentum = momentum,
                    .beta_1 = 0.9,
                    .beta_2 = 0.999,
                    .epsilon = 1e-7},
      .metrics = {&made->metric, 1, sizeof(made->metric)},
  };
  assert_ok(lks_model_make(&options, 4, 1, &made->model, &err));
}

/* Arrays whose every value tells what it is; padding stays 0. */
static inline float *small_array(const lks_model *model, float first) {
  float *values = calloc((size_t)model->arena_floats, sizeof(*values));
  assert_non_null(values);
  for (int p = 0; p < model->parameter_count; ++p) {
    const lks_parameter *parameter = &model->parameters[p];
    for (int64_t i = 0; i < parameter->count; ++i) {
      values[parameter->offset + i] = first + (float)(100 * p) + (float)i / 1024.0f;
    }
  }
  return values;
}

static inline void small_history(lks_history *history, int epochs) {
  assert_int_equal(lks_history_column(history, "val_loss"), 0);
  assert_int_equal(lks_history_column(history, "loss"), 1);
  for (int i = 0; i < epochs; ++i) {
    double *row = lks_history_add(history);
    assert_non_null(row);
    row[0] = 1.0 / (i + 1);
    row[1] = i == 0 ? NAN : 0.5 / (i + 1);
  }
}

static inline void small_checkpoint(small_model *made) {
  lks_checkpoint *out = &made->checkpoint;
  made->parameters = small_array(made->model, 1.0f);
  out->parameters = made->parameters;
  for (int s = 0; s < lks_optimizer_slots(&made->model->optimizer); ++s) {
    made->slots[s] = small_array(made->model, 0.25f + 0.25f * (float)s);
    out->slots[s] = made->slots[s];
  }
  made->best = small_array(made->model, -1.0f);
  out->best_parameters = made->best;
  out->progress = (lks_progress){.step = 12,
                                 .epoch = 3,
                                 .epoch_row = 40,
                                 .sums = {0.1, 40, {17, 0.3}},
                                 .epoch_seconds = 1.5,
                                 .epoch_steps = 4,
                                 .stopped_early = true,
                                 .best = 0.25,
                                 .best_epoch = 2,
                                 .stop_best = NAN,
                                 .stop_wait = 1,
                                 .stop_epoch = 2};
  out->seed = UINT64_MAX;
  out->order_chunk_rows = 100;
  out->config = "run: {folder: \"gr\xc3\xbc\xc3\x9f\"}\n";
  for (int i = 0; i < 4; ++i) {
    made->shift[i] = 0.1 * i;
    made->factor[i] = 3.0 / (i + 1);
  }
  out->features = (lks_scaling){4, made->shift, made->factor};
  small_history(&made->history, 3);
  out->history = &made->history;
  out->provenance = (lks_provenance){.command = "lockstep train x.yaml",
                                     .hosts = "n1, n2",
                                     .versions = "hdf5 1.10",
                                     .started = "2026-01-02T03:04:05Z",
                                     .backend = "cpu",
                                     .ranks = 2,
                                     .data_file = "x.h5",
                                     .data_bytes = 1234,
                                     .data_modified = "2026-01-01T00:00:00Z",
                                     .data_hash = 0xfedcba9876543210u,
                                     .validation_hash = 0x1032547698badcfeu};
}

static inline void small_free(small_model *made) {
  lks_model_free(&made->model);
  free(made->parameters);
  free(made->slots[0]);
  free(made->slots[1]);
  free(made->best);
  lks_history_free(&made->history);
}

#endif
