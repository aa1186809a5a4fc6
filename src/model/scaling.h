/* Scaling of columns: fitted on the training rows only, stored, applied and undone.
 *
 * scaled = (raw - shift) * factor; raw = scaled / factor + shift. */
#ifndef LKS_MODEL_SCALING_H
#define LKS_MODEL_SCALING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/option.h"

/* data.scaling.features and .targets: none | standardize | minmax | {divide: X}. */
typedef struct lks_scaling_choice {
  const lks_kind *kind;
  double divisor; /* of `divide` */
} lks_scaling_choice;

typedef enum lks_scaling_id {
  LKS_SCALING_NONE,
  LKS_SCALING_STANDARDIZE, /* mean 0, population standard deviation 1 */
  LKS_SCALING_MINMAX,      /* to [0, 1] */
  LKS_SCALING_DIVIDE,
} lks_scaling_id;

extern const lks_kind *const lks_scaling_kinds[];

/* kind NULL (a choice that was never bound) counts as none. */
lks_scaling_id lks_scaling_of(const lks_kind *kind);

/* One affine map a column. columns 0: not scaled. Arrays are owned by the struct's arena. */
typedef struct lks_scaling {
  int64_t columns;
  double *shift;  /* [columns] */
  double *factor; /* [columns] */
} lks_scaling;

/* Partial moments of one block of rows, one a column; merged in block order, so that a fit does
 * not depend on the number of ranks. */
typedef struct lks_moments {
  double count, mean, m2, min, max;
} lks_moments;

/* Moments of no rows: count 0, min +infinity, max -infinity. */
void lks_moments_clear(lks_moments *moments, int64_t columns);
/* Continues moments by rows [rows, columns], row-major, one row after the other (Welford 1962): how
 * a block is cut into calls does not show in the result. */
void lks_moments_add(lks_moments *moments, const double *values, int64_t rows, int64_t columns);
/* Moments of rows [rows, columns] row-major, into out[columns]: clear, then add. */
void lks_moments_of(const double *values, int64_t rows, int64_t columns, lks_moments *out);
/* into = into merged with next (Chan, Golub, LeVeque 1979). */
void lks_moments_merge(lks_moments *into, const lks_moments *next, int64_t columns);

/* The map of a choice from moments (unused, may be NULL, for none and divide). A constant column
 * gets factor 1, and so does one whose spread no double can divide by. none gives columns 0.
 * Arrays are allocated in arena; false when memory is out. */
bool lks_scaling_fit(lks_scaling *scaling, const lks_scaling_choice *choice,
                     const lks_moments *moments, int64_t columns, lks_arena *arena);

/* True when the choice needs moments of the data. */
bool lks_scaling_needs_fit(const lks_scaling_choice *choice);

/* Applies it: rows of doubles to floats. in and out are [rows, columns]. columns of the scaling 0:
 * plain conversion. */
void lks_scaling_apply(const lks_scaling *scaling, const double *in, float *out, int64_t rows,
                       int64_t columns);
/* The same of rows of floats: the same bits as from doubles of the same values. in may be out. */
void lks_scaling_apply_floats(const lks_scaling *scaling, const float *in, float *out, int64_t rows,
                              int64_t columns);
/* scaled / raw of a column's differences; 1 where nothing is scaled. */
double lks_scaling_factor(const lks_scaling *scaling, int64_t column);
/* Undoes it: in [rows, columns] to out, in doubles, as a float holds little beside a large shift.
 */
void lks_scaling_undo(const lks_scaling *scaling, const float *in, double *out, int64_t rows,
                      int64_t columns);

#endif
