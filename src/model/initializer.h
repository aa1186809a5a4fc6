/* Initial-value schemes: one row each. */
#ifndef LKS_MODEL_INITIALIZER_H
#define LKS_MODEL_INITIALIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "config/option.h"

typedef enum lks_initializer_id {
  LKS_INIT_CONSTANT,
  LKS_INIT_UNIFORM,
  LKS_INIT_NORMAL,
  LKS_INIT_TRUNCATED_NORMAL,
} lks_initializer_id;

/* kernel_initializer: glorot_uniform | {name: random_normal, stddev: 0.05} */
typedef struct lks_initializer {
  const lks_kind *kind;
  double value, minval, maxval, mean, stddev;
} lks_initializer;

typedef struct lks_initializer_row {
  lks_kind kind;
  lks_initializer_id id;
  double value; /* of zeros and ones */
  double scale; /* variance scaling: variance = scale / n; 0: not scaled by fans */
  bool average; /* n is the mean of both fans, else fan_in */
} lks_initializer_row;

extern const lks_kind *const lks_initializer_kinds[];

/* Fills out[count]; element i depends on (key, i) and the scheme alone. */
void lks_initializer_fill(const lks_initializer *initializer, uint64_t key, int64_t fan_in,
                          int64_t fan_out, int64_t count, float *out);

#endif
