/* The tables of losses and metrics. Names are Keras'; short ones are rows of their own. */
#include "model/loss.h"

#include <stddef.h>

static const lks_loss_row mean_squared_error = {
    .kind = {"mean_squared_error", "mean over outputs of (y - t)^2", NULL},
    .id = LKS_LOSS_MEAN_SQUARED_ERROR,
    .keras_name = "mean_squared_error"};
static const lks_loss_row mse = {.kind = {"mse", "short for mean_squared_error", NULL},
                                 .id = LKS_LOSS_MEAN_SQUARED_ERROR,
                                 .keras_name = "mean_squared_error"};
static const lks_loss_row mean_absolute_error = {
    .kind = {"mean_absolute_error", "mean over outputs of |y - t|", NULL},
    .id = LKS_LOSS_MEAN_ABSOLUTE_ERROR,
    .keras_name = "mean_absolute_error"};
static const lks_loss_row mae = {.kind = {"mae", "short for mean_absolute_error", NULL},
                                 .id = LKS_LOSS_MEAN_ABSOLUTE_ERROR,
                                 .keras_name = "mean_absolute_error"};
static const lks_loss_row binary_crossentropy = {
    .kind = {"binary_crossentropy", "targets in [0, 1]; sigmoid or logits", NULL},
    .id = LKS_LOSS_BINARY_CROSSENTROPY,
    .keras_name = "binary_crossentropy",
    .link = LKS_LINK_SIGMOID,
    .zero_one = true};
static const lks_loss_row categorical_crossentropy = {
    .kind = {"categorical_crossentropy", "one-hot targets; softmax or logits", NULL},
    .id = LKS_LOSS_CATEGORICAL_CROSSENTROPY,
    .keras_name = "categorical_crossentropy",
    .link = LKS_LINK_SOFTMAX,
    .zero_one = true};
static const lks_loss_row sparse_categorical_crossentropy = {
    .kind = {"sparse_categorical_crossentropy", "class numbers from 0; softmax or logits", NULL},
    .id = LKS_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY,
    .keras_name = "sparse_categorical_crossentropy",
    .link = LKS_LINK_SOFTMAX,
    .labels = true};

const lks_kind *const lks_loss_kinds[] = {&mean_squared_error.kind,
                                          &mse.kind,
                                          &mean_absolute_error.kind,
                                          &mae.kind,
                                          &binary_crossentropy.kind,
                                          &categorical_crossentropy.kind,
                                          &sparse_categorical_crossentropy.kind,
                                          NULL};

static const lks_metric_row accuracy = {
    .kind = {"accuracy", "share of right answers: binary, sparse or categorical by shape", NULL},
    .id = LKS_METRIC_BY_SHAPE,
    .counts = true,
    .higher_better = true};
static const lks_metric_row metric_mae = {.kind = {"mae", "mean absolute error", NULL},
                                          .id = LKS_METRIC_MAE};
static const lks_metric_row metric_mean_absolute_error = {
    .kind = {"mean_absolute_error", "mean absolute error", NULL}, .id = LKS_METRIC_MAE};
static const lks_metric_row metric_mse = {.kind = {"mse", "mean squared error", NULL},
                                          .id = LKS_METRIC_MSE};
static const lks_metric_row metric_mean_squared_error = {
    .kind = {"mean_squared_error", "mean squared error", NULL}, .id = LKS_METRIC_MSE};
static const lks_metric_row binary_accuracy = {
    .kind = {"binary_accuracy", "share of outputs on the right side of one half", NULL},
    .id = LKS_METRIC_BINARY_ACCURACY,
    .counts = true,
    .higher_better = true};
static const lks_metric_row categorical_accuracy = {
    .kind = {"categorical_accuracy", "largest output where the target is largest", NULL},
    .id = LKS_METRIC_CATEGORICAL_ACCURACY,
    .counts = true,
    .higher_better = true};
static const lks_metric_row sparse_categorical_accuracy = {
    .kind = {"sparse_categorical_accuracy", "largest output at the labelled class", NULL},
    .id = LKS_METRIC_SPARSE_CATEGORICAL_ACCURACY,
    .counts = true,
    .higher_better = true};

const lks_kind *const lks_metric_kinds[] = {&accuracy.kind,
                                            &metric_mae.kind,
                                            &metric_mean_absolute_error.kind,
                                            &metric_mse.kind,
                                            &metric_mean_squared_error.kind,
                                            &binary_accuracy.kind,
                                            &categorical_accuracy.kind,
                                            &sparse_categorical_accuracy.kind,
                                            NULL};
