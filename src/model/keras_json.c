/* The model as Keras' legacy model_config and training_config: JSON that Keras 2 and 3 load. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "model/model.h"

/* The activation's own parameter differs from Keras' default, which its name alone cannot say. */
static bool needs_own_layer(const lks_activation *activation) {
  const lks_activation_row *row = lks_activation_row_of(activation);
  double fallback = 0.0;
  return row->parameter != NULL && lks_parse_real(row->kind.options[0].fallback, &fallback) &&
         activation->parameter != fallback;
}

/* Appends {"class_name": ..., "config": {...}}; config's reference is taken over. */
static bool append_layer(json_t *layers, const char *keras_class, const char *name,
                         json_t *config) {
  if (config == NULL) {
    return false;
  }
  const bool made = json_object_set_new(config, "name", json_string(name)) == 0 &&
                    json_object_set_new(config, "trainable", json_true()) == 0 &&
                    json_object_set_new(config, "dtype", json_string("float32")) == 0;
  if (!made) {
    json_decref(config);
    return false;
  }
  return json_array_append_new(
             layers, json_pack("{s:s, s:o}", "class_name", keras_class, "config", config)) == 0;
}

static bool is_taken(const lks_model *model, const json_t *layers, const char *name) {
  bool taken = false;
  for (int i = 0; i < model->layer_count; ++i) {
    taken = taken || strcmp(model->layers[i].name, name) == 0;
  }
  for (size_t i = 0; i < json_array_size(layers); ++i) {
    const json_t *config = json_object_get(json_array_get(layers, i), "config");
    taken = taken || strcmp(json_string_value(json_object_get(config, "name")), name) == 0;
  }
  return taken;
}

/* A name for a layer that the configuration has not: Keras wants each once, and users' layers may
 * be called anything. */
static void name_made(const lks_model *model, const json_t *layers, const char *wanted,
                      lks_text *name) {
  lks_text_add(name, "%s", wanted);
  for (int n = 1; !name->failed && is_taken(model, layers, name->data); ++n) {
    name->length = 0;
    lks_text_add(name, "%s_%d", wanted, n);
  }
}

static bool append_activation(json_t *layers, const lks_model *model, const lks_layer *layer,
                              const lks_activation *activation) {
  const lks_activation_row *row = lks_activation_row_of(activation);
  lks_text wanted = {0}, name = {0};
  lks_text_add(&wanted, "%s_%s", layer->name, activation->kind->name);
  if (!wanted.failed) {
    name_made(model, layers, wanted.data, &name);
  }
  const bool made = !wanted.failed && !name.failed &&
                    append_layer(layers, row->keras_class, name.data,
                                 json_pack("{s:f}", row->parameter, activation->parameter));
  lks_text_free(&wanted);
  lks_text_free(&name);
  return made;
}

static bool append_model_layer(json_t *layers, const lks_model *model, const lks_layer *layer) {
  const lks_layer_row *row = layer->row;
  const lks_activation *activation =
      row->activation != NULL ? row->activation(layer->options) : NULL;
  json_t *config = row->keras_config(layer->options);
  if (activation == NULL) {
    return append_layer(layers, row->keras_class, layer->name, config);
  }
  const bool apart = needs_own_layer(activation);
  if (json_object_set_new(config, "activation",
                          json_string(apart ? "linear" : activation->kind->name)) != 0) {
    json_decref(config);
    return false;
  }
  if (!append_layer(layers, row->keras_class, layer->name, config)) {
    return false;
  }
  return !apart || append_activation(layers, model, layer, activation);
}

char *lks_model_keras_config(const lks_model *model) {
  lks_text input = {0};
  name_made(model, NULL, "input_1", &input);
  json_t *layers =
      json_pack("[{s:s, s:{s:[n, I], s:s, s:b, s:b, s:s}}]", "class_name", "InputLayer", "config",
                "batch_input_shape", (json_int_t)model->inputs, "dtype", "float32", "sparse", 0,
                "ragged", 0, "name", input.failed ? "" : input.data);
  bool made = layers != NULL && !input.failed;
  lks_text_free(&input);
  for (int i = 0; made && i < model->layer_count; ++i) {
    made = append_model_layer(layers, model, &model->layers[i]);
  }
  if (!made) {
    json_decref(layers);
    return NULL;
  }
  json_t *root = json_pack("{s:s, s:{s:s, s:o}}", "class_name", "Sequential", "config", "name",
                           "sequential", "layers", layers);
  char *text = root != NULL ? json_dumps(root, JSON_COMPACT) : NULL;
  json_decref(root);
  return text;
}

static json_t *optimizer_config(const lks_optimizer *optimizer) {
  const lks_optimizer_row *row = lks_optimizer_row_of(optimizer);
  json_t *config = json_pack("{s:f}", "learning_rate", optimizer->learning_rate);
  int failed = config == NULL;
  if (row->id == LKS_OPTIMIZER_SGD) {
    failed |= json_object_set_new(config, "momentum", json_real(optimizer->momentum));
    failed |= json_object_set_new(config, "nesterov", json_boolean(optimizer->nesterov));
  } else {
    failed |= json_object_set_new(config, "beta_1", json_real(optimizer->beta_1));
    failed |= json_object_set_new(config, "beta_2", json_real(optimizer->beta_2));
    failed |= json_object_set_new(config, "epsilon", json_real(optimizer->epsilon));
  }
  if (row->id == LKS_OPTIMIZER_ADAMW) {
    failed |= json_object_set_new(config, "weight_decay", json_real(optimizer->weight_decay));
  }
  if (failed) {
    json_decref(config);
    return NULL;
  }
  return json_pack("{s:s, s:o}", "class_name", row->keras_class, "config", config);
}

/* Logits can't be said by a loss's name alone: the object form carries from_logits. */
static json_t *loss_config(const lks_model *model) {
  static const char *const classes[] = {
      [LKS_LOSS_BINARY_CROSSENTROPY] = "BinaryCrossentropy",
      [LKS_LOSS_CATEGORICAL_CROSSENTROPY] = "CategoricalCrossentropy",
      [LKS_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY] = "SparseCategoricalCrossentropy"};
  if (!model->logits) {
    return json_string(model->loss->keras_name);
  }
  return json_pack("{s:s, s:{s:b, s:s}}", "class_name", classes[model->loss->id], "config",
                   "from_logits", 1, "name", model->loss->keras_name);
}

char *lks_model_keras_training(const lks_model *model) {
  json_t *metrics = json_array();
  int failed = metrics == NULL;
  for (int i = 0; i < model->metric_count; ++i) {
    failed |= json_array_append_new(metrics, json_string(model->metric_names[i]));
  }
  json_t *loss = loss_config(model), *optimizer = optimizer_config(&model->optimizer);
  json_t *root = NULL;
  if (!failed && loss != NULL && optimizer != NULL) {
    root = json_pack("{s:O, s:O, s:n, s:n, s:O}", "loss", loss, "metrics", metrics,
                     "weighted_metrics", "loss_weights", "optimizer_config", optimizer);
  }
  json_decref(loss);
  json_decref(metrics);
  json_decref(optimizer);
  char *text = root != NULL ? json_dumps(root, JSON_COMPACT) : NULL;
  json_decref(root);
  return text;
}
