/* The checked model: layers with their shapes, and every parameter's place in one flat arena.
 *
 * Letters, as everywhere: B rows of the global batch, b rows of a block, I inputs and O outputs of
 * a layer, P parameters. Kernels are [I, O], row-major, as in Keras. */
#ifndef LKS_MODEL_MODEL_H
#define LKS_MODEL_MODEL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "model/activation.h"
#include "model/initializer.h"
#include "model/loss.h"
#include "model/optimizer.h"

/* Floats to which each parameter tensor is aligned in the flat arena: 256 bytes. */
#define LKS_TENSOR_ALIGN 64

#define LKS_LAYER_MAX_PARAMETERS 4

typedef struct lks_parameter {
  const char *name; /* "kernel", "bias" */
  int layer;        /* index in model->layers */
  int index;        /* within the layer, as Keras numbers its variables */
  int rank;         /* 1 or 2 */
  int64_t shape[2];
  int64_t count;  /* product of shape */
  int64_t offset; /* in floats, into the flat arena; multiple of LKS_TENSOR_ALIGN */
  int64_t fan_in, fan_out;
  lks_initializer initializer;
} lks_parameter;

typedef struct lks_layer_row lks_layer_row;

typedef struct lks_dense_options {
  int64_t units;
  bool use_bias;
  lks_activation activation;
  lks_initializer kernel_initializer, bias_initializer;
} lks_dense_options;

/* One element of the configuration's `model` list; the member of its kind is set. */
typedef struct lks_layer_options {
  const lks_kind *kind; /* first: a choice; points at a lks_layer_row */
  const char *name;     /* "" : named by Keras' scheme (dense, dense_1, ...) */
  lks_dense_options dense;
  struct {
    lks_activation activation;
  } activation;
  struct {
    double rate;
  } dropout;
} lks_layer_options;

typedef struct lks_layer {
  const lks_layer_row *row;
  const lks_layer_options *options;
  const char *name; /* unique in the model */
  int64_t inputs, outputs;
  int first_parameter, parameter_count; /* into model->parameters */
} lks_layer;

typedef struct lks_model {
  int64_t inputs, outputs;
  lks_layer *layers;
  int layer_count;
  lks_parameter *parameters;
  int parameter_count;
  int64_t value_count;  /* sum of counts: what Keras calls Total params */
  int64_t arena_floats; /* padded length of the flat arena */
  const lks_loss_row *loss;
  lks_link link; /* what the loss applies to what the plan hands it */
  bool logits;   /* the last layer is linear and the loss applies the link: outputs are
                    logits; else, with a link, outputs are link(z) */
  const lks_metric_row *metrics[LKS_MAX_METRICS]; /* resolved: `accuracy` by shape */
  const char *metric_names[LKS_MAX_METRICS];      /* as asked for: "accuracy" */
  int metric_count;
  lks_optimizer optimizer;
  lks_arena arena; /* owns all of the above but the options */
} lks_model;

/* One layer kind: everything the rest of the program knows of it. `emit` (operations) stands in
 * plan/emit.h, keyed by id, for the plan comes after the model. */
typedef enum lks_layer_id { LKS_LAYER_DENSE, LKS_LAYER_ACTIVATION, LKS_LAYER_DROPOUT } lks_layer_id;

struct lks_layer_row {
  lks_kind kind; /* its name is Keras' class in snake case: of default names and groups */
  lks_layer_id id;
  const char *keras_class; /* "Dense" */
  int64_t (*outputs)(const lks_layer_options *options, int64_t inputs);
  /* Appends the layer's parameters to the array, returns how many. */
  int (*parameters)(const lks_layer_options *options, int64_t inputs,
                    lks_parameter out[LKS_LAYER_MAX_PARAMETERS]); /* NULL: has none */
  /* Keras' config keys of this layer beyond name, dtype and trainable; a new reference. */
  json_t *(*keras_config)(const lks_layer_options *options);
  const lks_activation *(*activation)(const lks_layer_options *options); /* NULL: has none */
};

extern const lks_kind *const lks_layer_kinds[];

typedef struct lks_model_options {
  lks_choices layers; /* of lks_layer_options */
  lks_loss_options loss;
  lks_optimizer optimizer;
  lks_choices metrics; /* of lks_metric_options */
} lks_model_options;

/* Units of the last layer that sets them; -1 when none does. */
int64_t lks_model_last_units(const lks_model_options *options);

/* Checks the model against the data's columns (outputs: target columns; 0: unknown, when only
 * predicting) and lays parameters out. Errors: LKS_CONFIG, or LKS_DATA where the label's shape
 * does not fit the loss. Not collective. */
lks_status lks_model_make(const lks_model_options *options, int64_t inputs, int64_t targets,
                          lks_model **model, lks_error *err) LKS_MUST_USE;
/* Whether a loss on that many outputs takes that many target columns, 0: unknown. LKS_DATA. */
lks_status lks_model_check_targets(const lks_loss_row *loss, int64_t outputs, int64_t targets,
                                   lks_error *err) LKS_MUST_USE;
void lks_model_free(lks_model **model);

/* Initial values of all parameters, keyed by (seed, parameter, element): parameters is the flat
 * arena [arena_floats]; padding becomes 0. */
void lks_model_initialise(const lks_model *model, uint64_t seed, float *parameters);

/* XXH64 over the parameters in checkpoint order, little-endian fp32, without padding. */
uint64_t lks_model_hash(const lks_model *model, const float *parameters);

/* Keras' legacy model_config and training_config as JSON text, malloc'ed; NULL: out of memory. */
char *lks_model_keras_config(const lks_model *model);
char *lks_model_keras_training(const lks_model *model);

/* Group name of a layer in Keras' v3 layout: "dense", "dense_1", counted by class. */
void lks_model_keras_group(const lks_model *model, int layer, char out[64]);

#endif
