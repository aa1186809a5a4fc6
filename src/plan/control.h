/* The control block: the tail of every gradient buffer, summed over ranks by the same exchange.
 *
 * So every rank learns at the same step what the loss was, and that one of them wants to stop,
 * wants a checkpoint, failed, or saw a number that is not finite. A value is two floats whose sum
 * it is: counts as their low 12 bits and the rest, so that sums over ranks are exact; reals as
 * the nearest float and what it leaves. nvcc reads this header too. */
#ifndef LKS_PLAN_CONTROL_H
#define LKS_PLAN_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "model/loss.h"

enum {
  LKS_CONTROL_LOSS = 0, /* pair: sum over rows of the row's loss */
  LKS_CONTROL_ROWS = 2, /* pair: live rows */
  LKS_CONTROL_STOP = 4, /* votes: how many ranks say so */
  LKS_CONTROL_SAVE = 5,
  LKS_CONTROL_FAILED = 6,
  LKS_CONTROL_NOT_FINITE = 7,
  LKS_CONTROL_METRICS = 8, /* pairs: sum over rows of each metric */
  LKS_CONTROL_FLOATS = LKS_CONTROL_METRICS + 2 * LKS_MAX_METRICS
};

/* What ranks ask for with a step. */
typedef struct lks_votes {
  bool stop, save, failed;
} lks_votes;

/* A control block, decoded: sums over all ranks. */
typedef struct lks_control {
  int64_t step; /* the update it belongs to, from 1 */
  double loss;
  int64_t rows;
  double metrics[LKS_MAX_METRICS];
  /* Ranks that voted so; not_finite is 1 where only the sum of their losses is not. */
  int stop, save, failed, not_finite;
  bool not_finite_here; /* this rank was one of them */
} lks_control;

void lks_control_put_count(float *pair, int64_t count);
/* A value beyond the range of floats is an infinity. */
void lks_control_put_real(float *pair, double value);
/* False for what is not finite or beyond the range of floats. */
bool lks_control_holds(double value);
void lks_control_decode(const float *block, lks_control *control);

#endif
