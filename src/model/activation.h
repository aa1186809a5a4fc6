/* Activations: one row each. Its kernels are in each backend, by id. */
#ifndef LKS_MODEL_ACTIVATION_H
#define LKS_MODEL_ACTIVATION_H

#include <stdbool.h>

#include "config/option.h"

typedef enum lks_activation_id {
  LKS_ACT_LINEAR,
  LKS_ACT_RELU,
  LKS_ACT_SIGMOID,
  LKS_ACT_TANH,
  LKS_ACT_SOFTMAX,
  LKS_ACT_SOFTPLUS,
  LKS_ACT_ELU,
  LKS_ACT_SELU,
  LKS_ACT_GELU,
  LKS_ACT_SILU,
  LKS_ACT_LEAKY_RELU,
  LKS_ACT_EXPONENTIAL,
  LKS_ACT_COUNT
} lks_activation_id;

/* activation: relu | {name: leaky_relu, negative_slope: 0.1} */
typedef struct lks_activation {
  const lks_kind *kind;
  double parameter; /* elu: alpha; leaky_relu: negative_slope; else unused */
} lks_activation;

typedef struct lks_activation_row {
  lks_kind kind;
  lks_activation_id id;
  bool needs_input;        /* its derivative needs z, not only y = f(z) */
  bool across_row;         /* acts on whole rows (softmax) */
  const char *parameter;   /* Keras' name of the parameter; NULL: none */
  const char *keras_class; /* the layer Keras has for other values of it; NULL: none */
} lks_activation_row;

extern const lks_kind *const lks_activation_kinds[];

static inline const lks_activation_row *lks_activation_row_of(const lks_activation *activation) {
  return (const lks_activation_row *)(const void *)activation->kind;
}

/* The activation, or NULL when it is linear. */
const lks_activation *lks_activation_if_any(const lks_activation *activation);

#endif
