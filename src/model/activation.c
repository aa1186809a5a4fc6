/* The table of activations. */
#include "model/activation.h"

static const lks_option elu_options[] = {{.key = "alpha",
                                          .type = LKS_OPT_REAL,
                                          .offset = offsetof(lks_activation, parameter),
                                          .fallback = "1",
                                          .min = 0,
                                          .max = 1e6,
                                          .help = "scale of the negative part: alpha (exp(x) - 1)"},
                                         {0}};

static const lks_option leaky_relu_options[] = {{.key = "negative_slope",
                                                 .type = LKS_OPT_REAL,
                                                 .offset = offsetof(lks_activation, parameter),
                                                 .fallback = "0.2",
                                                 .min = 0,
                                                 .max = 1e6,
                                                 .help = "slope below zero"},
                                                {0}};

static const lks_activation_row linear = {.kind = {"linear", "x", NULL}, .id = LKS_ACT_LINEAR};
static const lks_activation_row relu = {.kind = {"relu", "max(x, 0)", NULL}, .id = LKS_ACT_RELU};
static const lks_activation_row sigmoid = {.kind = {"sigmoid", "1 / (1 + exp(-x))", NULL},
                                           .id = LKS_ACT_SIGMOID};
static const lks_activation_row tanh_row = {.kind = {"tanh", "hyperbolic tangent", NULL},
                                            .id = LKS_ACT_TANH};
static const lks_activation_row softmax = {
    .kind = {"softmax", "exp(x) over its sum along the row", NULL},
    .id = LKS_ACT_SOFTMAX,
    .across_row = true};
static const lks_activation_row softplus = {.kind = {"softplus", "log(1 + exp(x))", NULL},
                                            .id = LKS_ACT_SOFTPLUS};
static const lks_activation_row elu = {
    .kind = {"elu", "x, or alpha (exp(x) - 1) below zero", elu_options},
    .id = LKS_ACT_ELU,
    .parameter = "alpha",
    .keras_class = "ELU"};
static const lks_activation_row selu = {
    .kind = {"selu", "scaled elu that keeps mean and variance", NULL}, .id = LKS_ACT_SELU};
static const lks_activation_row gelu = {
    .kind = {"gelu", "x times the normal distribution (erf)", NULL},
    .id = LKS_ACT_GELU,
    .needs_input = true};
static const lks_activation_row silu = {
    .kind = {"silu", "x sigmoid(x)", NULL}, .id = LKS_ACT_SILU, .needs_input = true};
static const lks_activation_row swish = {
    .kind = {"swish", "another name of silu", NULL}, .id = LKS_ACT_SILU, .needs_input = true};
static const lks_activation_row leaky_relu = {
    .kind = {"leaky_relu", "x, or negative_slope x below zero", leaky_relu_options},
    .id = LKS_ACT_LEAKY_RELU,
    .parameter = "negative_slope",
    .keras_class = "LeakyReLU"};
static const lks_activation_row exponential = {.kind = {"exponential", "exp(x)", NULL},
                                               .id = LKS_ACT_EXPONENTIAL};

const lks_kind *const lks_activation_kinds[] = {
    &linear.kind,      &relu.kind, &sigmoid.kind, &tanh_row.kind, &softmax.kind, &softplus.kind,
    &elu.kind,         &selu.kind, &gelu.kind,    &silu.kind,     &swish.kind,   &leaky_relu.kind,
    &exponential.kind, NULL};

const lks_activation *lks_activation_if_any(const lks_activation *activation) {
  return lks_activation_row_of(activation)->id == LKS_ACT_LINEAR ? NULL : activation;
}
