/* Checking a model against the data's columns, and laying its parameters out. */
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY /* the state lies on the stack: nothing to allocate */
#include <xxhash.h>

#include "base/random.h"

static const lks_layer_options *layer_options(const lks_model_options *options, int i) {
  return (const lks_layer_options *)options->layers.items + i;
}

static const lks_layer_row *row_of(const lks_layer_options *options) {
  return (const lks_layer_row *)(const void *)options->kind;
}

int64_t lks_model_last_units(const lks_model_options *options) {
  int64_t units = -1;
  for (int i = 0; i < options->layers.count; ++i) {
    units = row_of(layer_options(options, i))->outputs(layer_options(options, i), units);
  }
  return units;
}

/* Layers before `layer` of the same kind: the number in Keras' names. */
static int kind_number(const lks_model *model, int layer) {
  int number = 0;
  for (int i = 0; i < layer; ++i) {
    number += model->layers[i].row == model->layers[layer].row;
  }
  return number;
}

void lks_model_keras_group(const lks_model *model, int layer, char out[64]) {
  const int number = kind_number(model, layer);
  const char *kind = model->layers[layer].row->kind.name;
  (void)snprintf(out, 64, number > 0 ? "%.40s_%d" : "%.40s", kind, number);
}

static lks_status name_layer(lks_model *model, int i, lks_error *err) {
  lks_status st = LKS_OK;
  lks_layer *layer = &model->layers[i];
  layer->name = layer->options->name;
  if (layer->name[0] == '\0') {
    char name[64];
    lks_model_keras_group(model, i, name);
    layer->name = lks_arena_copy(&model->arena, name);
    TRY_ALLOC(layer->name);
  }
  if (strchr(layer->name, '/') != NULL) {
    FAIL(LKS_CONFIG, "choose a name without slashes", "model.%d.name: '%s' holds a slash", i,
         layer->name);
  }
  if (strcmp(layer->name, ".") == 0) { /* HDF5's name of the group itself */
    FAIL(LKS_CONFIG, "choose another name", "model.%d.name: '.' is no name of a layer", i);
  }
  for (int k = 0; k < i; ++k) {
    if (strcmp(model->layers[k].name, layer->name) == 0) {
      FAIL(LKS_CONFIG, "give each layer a name of its own",
           "model.%d.name: layer %d is called '%s' already", i, k, layer->name);
    }
  }
cleanup:
  return st;
}

static lks_status make_layers(lks_model *model, const lks_model_options *options, lks_error *err) {
  lks_status st = LKS_OK;
  int64_t width = model->inputs;
  model->layers = lks_arena_alloc(&model->arena, (size_t)options->layers.count * sizeof(lks_layer));
  model->parameters =
      lks_arena_alloc(&model->arena, (size_t)options->layers.count * LKS_LAYER_MAX_PARAMETERS *
                                         sizeof(lks_parameter));
  TRY_ALLOC(model->layers);
  TRY_ALLOC(model->parameters);
  for (int i = 0; i < options->layers.count; ++i) {
    lks_layer *layer = &model->layers[i];
    layer->options = layer_options(options, i);
    layer->row = row_of(layer->options);
    layer->inputs = width;
    layer->outputs = layer->row->outputs(layer->options, width);
    layer->first_parameter = model->parameter_count;
    lks_parameter *parameters = model->parameters + model->parameter_count;
    if (layer->row->parameters != NULL) {
      layer->parameter_count = layer->row->parameters(layer->options, width, parameters);
    }
    for (int k = 0; k < layer->parameter_count; ++k) {
      lks_parameter *parameter = &parameters[k];
      parameter->layer = i;
      parameter->index = k;
      parameter->count = parameter->shape[0] * parameter->shape[1];
      parameter->offset = model->arena_floats;
      model->value_count += parameter->count;
      model->arena_floats +=
          (parameter->count + LKS_TENSOR_ALIGN - 1) / LKS_TENSOR_ALIGN * LKS_TENSOR_ALIGN;
    }
    model->parameter_count += layer->parameter_count;
    model->layer_count = i + 1;
    TRY(name_layer(model, i, err));
    width = layer->outputs;
  }
  model->outputs = width;
  if (model->value_count == 0) {
    FAIL(LKS_CONFIG, "add a dense layer", "model: no layer has parameters to train");
  }
cleanup:
  return st;
}

/* The activation that shapes the outputs: that of the last layer which has parameters or bends, for
 * dropout and a linear activation leave what comes before. NULL: linear. */
static const lks_activation *last_activation(const lks_model *model, int *layer) {
  const lks_activation *found = NULL;
  int i = model->layer_count;
  do {
    --i;
    const lks_layer *l = &model->layers[i];
    found =
        l->row->activation != NULL ? lks_activation_if_any(l->row->activation(l->options)) : NULL;
  } while (found == NULL && model->layers[i].parameter_count == 0 && i > 0);
  *layer = i;
  return found;
}

/* How the loss and the last layer are linked: fused, logits, or not at all. */
static lks_status link_loss(lks_model *model, lks_error *err) {
  lks_status st = LKS_OK;
  static const lks_activation_id wanted[] = {[LKS_LINK_NONE] = LKS_ACT_LINEAR,
                                             [LKS_LINK_SIGMOID] = LKS_ACT_SIGMOID,
                                             [LKS_LINK_SOFTMAX] = LKS_ACT_SOFTMAX};
  const lks_loss_row *loss = model->loss;
  int layer = 0;
  const lks_activation *last = last_activation(model, &layer);
  model->link = loss->link;
  model->logits = loss->link != LKS_LINK_NONE && last == NULL;
  if (loss->link != LKS_LINK_NONE && last != NULL &&
      lks_activation_row_of(last)->id != wanted[loss->link]) {
    FAIL(LKS_CONFIG,
         loss->link == LKS_LINK_SIGMOID ? "end the model in sigmoid, or in linear (logits)"
                                        : "end the model in softmax, or in linear (logits)",
         "model: %s does not follow a last layer with %s", loss->kind.name, last->kind->name);
  }
  if (loss->link != LKS_LINK_NONE && last != NULL && layer != model->layer_count - 1) {
    FAIL(LKS_CONFIG, "make it the last layer",
         "model: %s in layer %d is followed by a layer, but %s must be fused with it",
         last->kind->name, layer, loss->kind.name);
  }
  if (loss->link == LKS_LINK_SOFTMAX && model->outputs < 2) {
    FAIL(LKS_CONFIG, "give the last layer one unit a class, or use binary_crossentropy",
         "loss: %s needs two outputs or more, the model has %lld", loss->kind.name,
         (long long)model->outputs);
  }
cleanup:
  return st;
}

lks_status lks_model_check_targets(const lks_loss_row *loss, int64_t outputs, int64_t targets,
                                   lks_error *err) {
  lks_status st = LKS_OK;
  if (targets == 0) {
    goto cleanup;
  }
  if (loss->labels && targets != 1) {
    FAIL(LKS_DATA, "use categorical_crossentropy for one-hot targets, or name one column",
         "data.train.targets: %lld target columns, but %s takes one column of class numbers",
         (long long)targets, loss->kind.name);
  }
  if (!loss->labels && targets != outputs) {
    st = lks_fail(err, LKS_DATA, NULL,
                  "data.train.targets: %lld target column%s, but the model has %lld output%s",
                  (long long)targets, targets == 1 ? "" : "s", (long long)outputs,
                  outputs == 1 ? "" : "s");
    if (targets == 1 && loss->link == LKS_LINK_SOFTMAX) {
      lks_advise(err, "use loss: sparse_categorical_crossentropy for class numbers");
    } else {
      lks_advise(err, "give the last layer %lld units, or name %lld target columns",
                 (long long)targets, (long long)outputs);
    }
  }
cleanup:
  return st;
}

static const lks_metric_row *metric_of(lks_metric_id id) {
  for (const lks_kind *const *kind = lks_metric_kinds; *kind != NULL; ++kind) {
    const lks_metric_row *row = (const lks_metric_row *)(const void *)*kind;
    if (row->id == id) {
      return row;
    }
  }
  return NULL;
}

/* `accuracy` by shape, as Keras: one output is binary, labels sparse, else categorical. */
static const lks_metric_row *resolve_metric(const lks_model *model, const lks_metric_row *row) {
  if (row->id != LKS_METRIC_BY_SHAPE) {
    return row;
  }
  if (model->outputs == 1) {
    return metric_of(LKS_METRIC_BINARY_ACCURACY);
  }
  return metric_of(model->loss->labels ? LKS_METRIC_SPARSE_CATEGORICAL_ACCURACY
                                       : LKS_METRIC_CATEGORICAL_ACCURACY);
}

static lks_status make_metrics(lks_model *model, const lks_model_options *options, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_metric_options *items = options->metrics.items;
  if (options->metrics.count > LKS_MAX_METRICS) {
    FAIL(LKS_CONFIG, NULL, "metrics: %d named, %d is the most", options->metrics.count,
         LKS_MAX_METRICS);
  }
  for (int i = 0; i < options->metrics.count; ++i) {
    const lks_metric_row *row =
        resolve_metric(model, (const lks_metric_row *)(const void *)items[i].kind);
    const char *name = items[i].kind->name;
    const bool sparse = row->id == LKS_METRIC_SPARSE_CATEGORICAL_ACCURACY;
    if (sparse != model->loss->labels) {
      FAIL(LKS_CONFIG, "use accuracy, which fits the targets by itself",
           "metrics: %s does not fit %s", name, model->loss->kind.name);
    }
    for (int k = 0; k < i; ++k) {
      if (strcmp(model->metric_names[k], name) == 0) {
        FAIL(LKS_CONFIG, "name it once", "metrics: %s is named twice", name);
      }
    }
    model->metrics[i] = row;
    model->metric_names[i] = name;
    model->metric_count = i + 1;
  }
cleanup:
  return st;
}

lks_status lks_model_make(const lks_model_options *options, int64_t inputs, int64_t targets,
                          lks_model **out, lks_error *err) {
  lks_status st = LKS_OK;
  *out = NULL;
  lks_model *model = calloc(1, sizeof *model);
  TRY_ALLOC(model);
  model->inputs = inputs;
  model->loss = (const lks_loss_row *)(const void *)options->loss.kind;
  model->optimizer = options->optimizer;
  TRY(make_layers(model, options, err));
  TRY(link_loss(model, err));
  TRY(lks_model_check_targets(model->loss, model->outputs, targets, err));
  TRY(make_metrics(model, options, err));
  *out = model;
  model = NULL;
cleanup:
  lks_model_free(&model);
  return st;
}

void lks_model_free(lks_model **model) {
  if (*model != NULL) {
    lks_arena_free(&(*model)->arena);
    free(*model);
    *model = NULL;
  }
}

void lks_model_initialise(const lks_model *model, uint64_t seed, float *parameters) {
  memset(parameters, 0, (size_t)model->arena_floats * sizeof *parameters);
  for (int i = 0; i < model->parameter_count; ++i) {
    const lks_parameter *parameter = &model->parameters[i];
    const uint64_t key = lks_random_key(seed, LKS_PURPOSE_INITIAL_VALUE, (uint64_t)i);
    lks_initializer_fill(&parameter->initializer, key, parameter->fan_in, parameter->fan_out,
                         parameter->count, parameters + parameter->offset);
  }
}

uint64_t lks_model_hash(const lks_model *model, const float *parameters) {
  XXH64_state_t state;
  (void)XXH64_reset(&state, 0);
  for (int i = 0; i < model->parameter_count; ++i) {
    const lks_parameter *parameter = &model->parameters[i];
    (void)XXH64_update(&state, parameters + parameter->offset,
                       (size_t)parameter->count * sizeof *parameters);
  }
  return XXH64_digest(&state);
}
