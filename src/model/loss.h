/* Losses and metrics: one row each; their kernels are in each backend, by id. */
#ifndef LKS_MODEL_LOSS_H
#define LKS_MODEL_LOSS_H

#include <stdbool.h>
#include <stdint.h>

#include "config/option.h"

#define LKS_MAX_METRICS 8

typedef enum lks_loss_id {
  LKS_LOSS_MEAN_SQUARED_ERROR,
  LKS_LOSS_MEAN_ABSOLUTE_ERROR,
  LKS_LOSS_BINARY_CROSSENTROPY,
  LKS_LOSS_CATEGORICAL_CROSSENTROPY,
  LKS_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY,
  LKS_LOSS_COUNT
} lks_loss_id;

/* The function between the last layer's pre-activation and what the loss compares. With a fused
 * link the plan hands the loss the pre-activation (logits). */
typedef enum lks_link { LKS_LINK_NONE, LKS_LINK_SIGMOID, LKS_LINK_SOFTMAX } lks_link;

typedef struct lks_loss_options {
  const lks_kind *kind;
} lks_loss_options;

typedef struct lks_loss_row {
  lks_kind kind;
  lks_loss_id id;
  const char *keras_name; /* what Keras' files call it, also when written "mse" */
  lks_link link;          /* its canonical link */
  bool labels;            /* targets are one column of class numbers */
  bool zero_one;          /* targets lie in [0, 1] and may not be scaled */
} lks_loss_row;

extern const lks_kind *const lks_loss_kinds[];

typedef enum lks_metric_id {
  LKS_METRIC_BY_SHAPE, /* `accuracy` as written: lks_model_make resolves it */
  LKS_METRIC_MAE,
  LKS_METRIC_MSE,
  LKS_METRIC_BINARY_ACCURACY,      /* p > 0.5; logits > 0 */
  LKS_METRIC_CATEGORICAL_ACCURACY, /* argmax equal; the first of equals wins, as in Keras */
  LKS_METRIC_SPARSE_CATEGORICAL_ACCURACY,
  LKS_METRIC_COUNT
} lks_metric_id;

typedef struct lks_metric_options {
  const lks_kind *kind;
} lks_metric_options;

typedef struct lks_metric_row {
  lks_kind kind;
  lks_metric_id id;
  bool counts;        /* the sum over rows is a whole number (for one output) */
  bool higher_better; /* for `best` and early stopping */
} lks_metric_row;

extern const lks_kind *const lks_metric_kinds[]; /* as written: accuracy, mae, mse, ... */

#endif
