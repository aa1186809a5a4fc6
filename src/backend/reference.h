/* Plain loops in double: what every backend is held against. Slow, obvious, and written from the
 * model, not from the plan, so that it checks the plan too. */
#ifndef LKS_BACKEND_REFERENCE_H
#define LKS_BACKEND_REFERENCE_H

#include <stdint.h>

#include "model/model.h"

/* A batch in double: x [rows, inputs], t [rows, target columns]. */
typedef struct lks_reference_batch {
  const double *x, *t;
  int64_t rows;
  bool training; /* dropout acts, keyed by seed, step and row_ids */
  uint64_t seed;
  int64_t step;
  const int64_t *row_ids; /* [rows] */
} lks_reference_batch;

/* What the reference finds: sums over rows; outputs [rows, model->outputs] unless NULL. */
typedef struct lks_reference_result {
  double loss;
  double metrics[LKS_MAX_METRICS];
  double *outputs;
} lks_reference_result;

/* Forward and loss. parameters [arena_floats] in double. LKS_NO_MEMORY at most. Not collective. */
lks_status lks_reference_run(const lks_model *model, const double *parameters,
                             const lks_reference_batch *batch, lks_reference_result *result,
                             lks_error *err) LKS_MUST_USE;

/* Gradient of (sum of losses / rows) by central differences of step h, into gradient
 * [arena_floats]; padding 0. */
lks_status lks_reference_gradient(const lks_model *model, double *parameters,
                                  const lks_reference_batch *batch, double h, double *gradient,
                                  lks_error *err) LKS_MUST_USE;

/* One update in double, t from 1; slots are [arena_floats] each. */
void lks_reference_update(const lks_model *model, int64_t t, const double *gradient,
                          double *parameters, double *const *slots);

#endif
