/* The table of optimizers, and the scalars of one update. */
#include "model/optimizer.h"

#include <float.h>
#include <math.h>
#include <stddef.h>

#define LEARNING_RATE(default_)                                                                    \
  {                                                                                                \
    .key = "learning_rate", .type = LKS_OPT_REAL,                                                  \
    .offset = offsetof(lks_optimizer, learning_rate), .fallback = default_, .min = 0, .max = 1e6,  \
    .help = "step size"                                                                            \
  }

#define CLIPPING_LATER                                                                             \
  {.key = "clipnorm", .type = LKS_OPT_LATER, .help = "clips each gradient's norm"},                \
      {.key = "global_clipnorm",                                                                   \
       .type = LKS_OPT_LATER,                                                                      \
       .help = "clips the norm of all gradients"},                                                 \
  {                                                                                                \
    .key = "clipvalue", .type = LKS_OPT_LATER, .help = "clips each gradient component"             \
  }

#define ADAM_OPTIONS                                                                               \
  LEARNING_RATE("0.001"),                                                                          \
      {.key = "beta_1",                                                                            \
       .type = LKS_OPT_REAL,                                                                       \
       .offset = offsetof(lks_optimizer, beta_1),                                                  \
       .fallback = "0.9",                                                                          \
       .min = 0,                                                                                   \
       .max = 1,                                                                                   \
       .flags = LKS_OPTION_BELOW_MAX,                                                              \
       .help = "decay of the mean of gradients"},                                                  \
      {.key = "beta_2",                                                                            \
       .type = LKS_OPT_REAL,                                                                       \
       .offset = offsetof(lks_optimizer, beta_2),                                                  \
       .fallback = "0.999",                                                                        \
       .min = 0,                                                                                   \
       .max = 1,                                                                                   \
       .flags = LKS_OPTION_BELOW_MAX,                                                              \
       .help = "decay of the mean of squared gradients"},                                          \
  {                                                                                                \
    .key = "epsilon", .type = LKS_OPT_REAL, .offset = offsetof(lks_optimizer, epsilon),            \
    .fallback = "1e-7", .min = 0, .max = 1, .flags = LKS_OPTION_ABOVE_MIN,                         \
    .help = "added to the root, as in Keras"                                                       \
  }

static const lks_option sgd_options[] = {LEARNING_RATE("0.01"),
                                         {.key = "momentum",
                                          .type = LKS_OPT_REAL,
                                          .offset = offsetof(lks_optimizer, momentum),
                                          .fallback = "0",
                                          .min = 0,
                                          .max = 1,
                                          .help = "share of the last step that is kept"},
                                         {.key = "nesterov",
                                          .type = LKS_OPT_BOOL,
                                          .offset = offsetof(lks_optimizer, nesterov),
                                          .fallback = "false",
                                          .help = "Nesterov's momentum"},
                                         CLIPPING_LATER,
                                         {0}};
static const lks_option adam_options[] = {ADAM_OPTIONS, CLIPPING_LATER, {0}};
static const lks_option adamw_options[] = {ADAM_OPTIONS,
                                           {.key = "weight_decay",
                                            .type = LKS_OPT_REAL,
                                            .offset = offsetof(lks_optimizer, weight_decay),
                                            .fallback = "0.004",
                                            .min = 0,
                                            .max = 1e6,
                                            .help = "decay of every parameter, before the update"},
                                           CLIPPING_LATER,
                                           {0}};

static const lks_optimizer_row sgd = {
    .kind = {"sgd", "gradient descent, with momentum if asked", sgd_options},
    .id = LKS_OPTIMIZER_SGD,
    .keras_class = "SGD",
    .max_slots = 1};
static const lks_optimizer_row adam = {
    .kind = {"adam", "Adam (Kingma and Ba 2015), as Keras computes it", adam_options},
    .id = LKS_OPTIMIZER_ADAM,
    .keras_class = "Adam",
    .max_slots = 2};
static const lks_optimizer_row adamw = {
    .kind = {"adamw", "Adam with decoupled weight decay", adamw_options},
    .id = LKS_OPTIMIZER_ADAMW,
    .keras_class = "AdamW",
    .max_slots = 2};

const lks_kind *const lks_optimizer_kinds[] = {&adam.kind, &adamw.kind, &sgd.kind, NULL};

int lks_optimizer_slots(const lks_optimizer *optimizer) {
  const lks_optimizer_row *row = lks_optimizer_row_of(optimizer);
  return row->id == LKS_OPTIMIZER_SGD && optimizer->momentum == 0.0 ? 0 : row->max_slots;
}

lks_update lks_optimizer_update(const lks_optimizer *optimizer, int64_t t) {
  const double rate = optimizer->learning_rate;
  lks_update update = {.id = lks_optimizer_row_of(optimizer)->id,
                       .nesterov = optimizer->nesterov,
                       .learning_rate = (float)rate,
                       .momentum = (float)optimizer->momentum};
  if (update.id != LKS_OPTIMIZER_SGD) {
    const double correction_1 = 1.0 - pow(optimizer->beta_1, (double)t);
    const double correction_2 = 1.0 - pow(optimizer->beta_2, (double)t);
    update.alpha = (float)(rate * sqrt(correction_2) / correction_1);
    update.one_minus_beta_1 = (float)(1.0 - optimizer->beta_1);
    update.one_minus_beta_2 = (float)(1.0 - optimizer->beta_2);
    /* Of the least normal float at least: 0 by 0 would be what a parameter without gradient gets.
     */
    update.epsilon = fmaxf((float)optimizer->epsilon, FLT_MIN);
    update.decay = (float)(optimizer->weight_decay * rate);
  }
  return update;
}
