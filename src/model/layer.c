/* The table of layers: what each kind may be told, its shapes, its parameters, and what Keras
 * calls it. A new layer is one row here, its operations in plan/emit.c and their kernels. */
#include <stddef.h>
#include <string.h>

#include "model/model.h"

#define NAME_OPTION                                                                                \
  {                                                                                                \
    .key = "name", .type = LKS_OPT_TEXT, .offset = offsetof(lks_layer_options, name),              \
    .fallback = "", .help = "the layer's own name; empty: by kind and number"                      \
  }

static const lks_option dense_options[] = {
    {.key = "units",
     .type = LKS_OPT_INT,
     .offset = offsetof(lks_layer_options, dense.units),
     .min = 1,
     .max = 1 << 24,
     .help = "outputs of the layer"},
    {.key = "activation",
     .type = LKS_OPT_CHOICE,
     .offset = offsetof(lks_layer_options, dense.activation),
     .fallback = "linear",
     .kinds = lks_activation_kinds,
     .help = "applied to the outputs"},
    {.key = "use_bias",
     .type = LKS_OPT_BOOL,
     .offset = offsetof(lks_layer_options, dense.use_bias),
     .fallback = "true",
     .help = "adds a vector to the outputs"},
    {.key = "kernel_initializer",
     .type = LKS_OPT_CHOICE,
     .offset = offsetof(lks_layer_options, dense.kernel_initializer),
     .fallback = "glorot_uniform",
     .kinds = lks_initializer_kinds,
     .help = "initial values of the kernel"},
    {.key = "bias_initializer",
     .type = LKS_OPT_CHOICE,
     .offset = offsetof(lks_layer_options, dense.bias_initializer),
     .fallback = "zeros",
     .kinds = lks_initializer_kinds,
     .help = "initial values of the bias"},
    NAME_OPTION,
    {.key = "l1", .type = LKS_OPT_LATER, .help = "penalty on absolute values"},
    {.key = "l2", .type = LKS_OPT_LATER, .help = "penalty on squares"},
    {0}};

static const lks_option activation_options[] = {
    {.key = "activation",
     .type = LKS_OPT_CHOICE,
     .offset = offsetof(lks_layer_options, activation.activation),
     .kinds = lks_activation_kinds,
     .help = "which"},
    NAME_OPTION,
    {0}};

static const lks_option dropout_options[] = {
    {.key = "rate",
     .type = LKS_OPT_REAL,
     .offset = offsetof(lks_layer_options, dropout.rate),
     .min = 0,
     .max = 1,
     .flags = LKS_OPTION_BELOW_MAX,
     .help = "share of the inputs set to zero in training"},
    NAME_OPTION,
    {0}};

static int64_t dense_outputs(const lks_layer_options *options, int64_t inputs) {
  (void)inputs;
  return options->dense.units;
}

static int dense_parameters(const lks_layer_options *options, int64_t inputs,
                            lks_parameter out[LKS_LAYER_MAX_PARAMETERS]) {
  const int64_t units = options->dense.units;
  out[0] = (lks_parameter){.name = "kernel",
                           .rank = 2,
                           .shape = {inputs, units},
                           .fan_in = inputs,
                           .fan_out = units,
                           .initializer = options->dense.kernel_initializer};
  if (!options->dense.use_bias) {
    return 1;
  }
  out[1] = (lks_parameter){.name = "bias",
                           .rank = 1,
                           .shape = {units, 1},
                           .fan_in = units,
                           .fan_out = units,
                           .initializer = options->dense.bias_initializer};
  return 2;
}

static const lks_activation *dense_activation(const lks_layer_options *options) {
  return &options->dense.activation;
}

static json_t *dense_keras_config(const lks_layer_options *options) {
  return json_pack("{s:I, s:b}", "units", (json_int_t)options->dense.units, "use_bias",
                   options->dense.use_bias);
}

static int64_t same_outputs(const lks_layer_options *options, int64_t inputs) {
  (void)options;
  return inputs;
}

static const lks_activation *activation_activation(const lks_layer_options *options) {
  return &options->activation.activation;
}

static json_t *empty_keras_config(const lks_layer_options *options) {
  (void)options;
  return json_object();
}

static json_t *dropout_keras_config(const lks_layer_options *options) {
  return json_pack("{s:f}", "rate", options->dropout.rate);
}

static const lks_layer_row dense = {.kind = {"dense", "y = activation(x W + b)", dense_options},
                                    .id = LKS_LAYER_DENSE,
                                    .keras_class = "Dense",
                                    .outputs = dense_outputs,
                                    .parameters = dense_parameters,
                                    .keras_config = dense_keras_config,
                                    .activation = dense_activation};
static const lks_layer_row activation = {
    .kind = {"activation", "y = activation(x)", activation_options},
    .id = LKS_LAYER_ACTIVATION,
    .keras_class = "Activation",
    .outputs = same_outputs,
    .keras_config = empty_keras_config,
    .activation = activation_activation};
static const lks_layer_row dropout = {
    .kind = {"dropout", "zeroes a share of the inputs in training", dropout_options},
    .id = LKS_LAYER_DROPOUT,
    .keras_class = "Dropout",
    .outputs = same_outputs,
    .keras_config = dropout_keras_config};

const lks_kind *const lks_layer_kinds[] = {&dense.kind, &activation.kind, &dropout.kind, NULL};
