/* Optimizers: one row each; the update kernels are in each backend, by id. */
#ifndef LKS_MODEL_OPTIMIZER_H
#define LKS_MODEL_OPTIMIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "config/option.h"

#define LKS_MAX_SLOTS 2

typedef enum lks_optimizer_id {
  LKS_OPTIMIZER_SGD,
  LKS_OPTIMIZER_ADAM,
  LKS_OPTIMIZER_ADAMW,
  LKS_OPTIMIZER_COUNT
} lks_optimizer_id;

/* optimizer: adam | {name: adam, learning_rate: 0.001, ...}: Keras' names and defaults. */
typedef struct lks_optimizer {
  const lks_kind *kind;
  double learning_rate;
  double momentum;                /* sgd */
  bool nesterov;                  /* sgd */
  double beta_1, beta_2, epsilon; /* adam, adamw */
  double weight_decay;            /* adamw */
} lks_optimizer;

typedef struct lks_optimizer_row {
  lks_kind kind;
  lks_optimizer_id id;
  const char *keras_class; /* "Adam" */
  int max_slots;           /* floats of state a parameter needs at most */
} lks_optimizer_row;

extern const lks_kind *const lks_optimizer_kinds[];

static inline const lks_optimizer_row *lks_optimizer_row_of(const lks_optimizer *optimizer) {
  return (const lks_optimizer_row *)(const void *)optimizer->kind;
}

/* Slots a parameter: 0 for plain sgd, 1 with momentum, 2 for adam (m, then v). */
int lks_optimizer_slots(const lks_optimizer *optimizer);

/* The scalars of one update, computed once a step in double and used as float. t is the step,
 * from 1. */
typedef struct lks_update {
  lks_optimizer_id id;
  bool nesterov;
  float learning_rate; /* of this step */
  float alpha;         /* adam: lr * sqrt(1 - beta_2^t) / (1 - beta_1^t) */
  float momentum;
  float one_minus_beta_1, one_minus_beta_2, epsilon;
  float decay; /* adamw: weight_decay * learning_rate */
} lks_update;

lks_update lks_optimizer_update(const lks_optimizer *optimizer, int64_t t);

#endif
