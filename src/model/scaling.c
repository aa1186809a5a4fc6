/* Scaling of columns: the table of kinds, moments, and the affine map they give.
 *
 * All sums are in double and in a stated order, so a fit has the same bits wherever it is made. */
#include "model/scaling.h"

#include <math.h>
#include <string.h>

typedef struct scaling_row {
  lks_kind kind;
  lks_scaling_id id;
} scaling_row;

static const lks_option divide_options[] = {
    {.key = "value",
     .type = LKS_OPT_REAL,
     .offset = offsetof(lks_scaling_choice, divisor),
     .min = 0,
     .flags = LKS_OPTION_ABOVE_MIN,
     .help = "number that every value is divided by"},
    {0},
};

static const scaling_row none = {{"none", "values are used as they are", NULL}, LKS_SCALING_NONE};
static const scaling_row standardize = {
    {"standardize", "each column to mean 0 and standard deviation 1", NULL},
    LKS_SCALING_STANDARDIZE};
static const scaling_row minmax = {{"minmax", "each column to the range 0 to 1", NULL},
                                   LKS_SCALING_MINMAX};
static const scaling_row divide = {{"divide", "every value divided by one number", divide_options},
                                   LKS_SCALING_DIVIDE};

const lks_kind *const lks_scaling_kinds[] = {&none.kind, &standardize.kind, &minmax.kind,
                                             &divide.kind, NULL};

lks_scaling_id lks_scaling_of(const lks_kind *kind) {
  return kind != NULL ? ((const scaling_row *)(const void *)kind)->id : LKS_SCALING_NONE;
}

bool lks_scaling_needs_fit(const lks_scaling_choice *choice) {
  const lks_scaling_id id = lks_scaling_of(choice->kind);
  return id == LKS_SCALING_STANDARDIZE || id == LKS_SCALING_MINMAX;
}

/* ---- moments */

void lks_moments_clear(lks_moments *moments, int64_t columns) {
  for (int64_t c = 0; c < columns; ++c) {
    moments[c] = (lks_moments){.min = INFINITY, .max = -INFINITY};
  }
}

void lks_moments_add(lks_moments *moments, const double *values, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; ++r) {
    const double *row = values + r * columns;
    for (int64_t c = 0; c < columns; ++c) {
      lks_moments *m = moments + c;
      const double delta = row[c] - m->mean;
      m->count += 1;
      m->mean += delta / m->count;
      m->m2 += delta * (row[c] - m->mean);
      m->min = row[c] < m->min ? row[c] : m->min;
      m->max = row[c] > m->max ? row[c] : m->max;
    }
  }
}

void lks_moments_of(const double *values, int64_t rows, int64_t columns, lks_moments *out) {
  lks_moments_clear(out, columns);
  lks_moments_add(out, values, rows, columns);
}

void lks_moments_merge(lks_moments *into, const lks_moments *next, int64_t columns) {
  for (int64_t c = 0; c < columns; ++c) {
    lks_moments *a = into + c;
    const lks_moments *b = next + c;
    if (b->count == 0) {
      continue;
    }
    if (a->count == 0) {
      *a = *b;
      continue;
    }
    const double count = a->count + b->count;
    const double delta = b->mean - a->mean;
    a->mean += delta * (b->count / count);
    a->m2 += b->m2 + delta * delta * (a->count * b->count / count);
    a->count = count;
    a->min = b->min < a->min ? b->min : a->min;
    a->max = b->max > a->max ? b->max : a->max;
  }
}

/* ---- the map */

/* Divides a column by its spread, unless that gives no usable number. */
static double factor_of(const lks_moments *moments, double spread) {
  const double factor = 1 / spread;
  const bool constant = !(moments->max > moments->min);
  return constant || !isfinite(factor) || !(factor > 0) ? 1 : factor;
}

bool lks_scaling_fit(lks_scaling *scaling, const lks_scaling_choice *choice,
                     const lks_moments *moments, int64_t columns, lks_arena *arena) {
  const lks_scaling_id id = lks_scaling_of(choice->kind);
  *scaling = (lks_scaling){0};
  if (id == LKS_SCALING_NONE) {
    return true;
  }
  double *shift = lks_arena_alloc(arena, (size_t)columns * sizeof *shift);
  double *factor = lks_arena_alloc(arena, (size_t)columns * sizeof *factor);
  if (shift == NULL || factor == NULL) {
    return false;
  }
  for (int64_t c = 0; c < columns; ++c) {
    switch (id) {
    case LKS_SCALING_STANDARDIZE:
      shift[c] = moments[c].mean;
      factor[c] = factor_of(moments + c, sqrt(moments[c].m2 / moments[c].count));
      break;
    case LKS_SCALING_MINMAX:
      shift[c] = moments[c].min;
      factor[c] = factor_of(moments + c, moments[c].max - moments[c].min);
      break;
    case LKS_SCALING_DIVIDE:
      factor[c] = 1 / choice->divisor;
      break;
    case LKS_SCALING_NONE:
      break;
    }
  }
  *scaling = (lks_scaling){columns, shift, factor};
  return true;
}

void lks_scaling_apply(const lks_scaling *scaling, const double *in, float *out, int64_t rows,
                       int64_t columns) {
  for (int64_t r = 0; r < rows; ++r) {
    const double *from = in + r * columns;
    float *to = out + r * columns;
    if (scaling->columns == 0) {
      for (int64_t c = 0; c < columns; ++c) {
        to[c] = (float)from[c];
      }
    } else {
      for (int64_t c = 0; c < columns; ++c) {
        to[c] = (float)((from[c] - scaling->shift[c]) * scaling->factor[c]);
      }
    }
  }
}

void lks_scaling_apply_floats(const lks_scaling *scaling, const float *in, float *out, int64_t rows,
                              int64_t columns) {
  if (scaling->columns == 0 && in != out) {
    memcpy(out, in, (size_t)(rows * columns) * sizeof *out);
  }
  for (int64_t r = 0; scaling->columns != 0 && r < rows; ++r) {
    const float *from = in + r * columns;
    float *to = out + r * columns;
    for (int64_t c = 0; c < columns; ++c) {
      to[c] = (float)(((double)from[c] - scaling->shift[c]) * scaling->factor[c]);
    }
  }
}

double lks_scaling_factor(const lks_scaling *scaling, int64_t column) {
  return scaling->columns == 0 ? 1.0 : scaling->factor[column];
}

void lks_scaling_undo(const lks_scaling *scaling, const float *in, double *out, int64_t rows,
                      int64_t columns) {
  for (int64_t r = 0; r < rows; ++r) {
    const float *from = in + r * columns;
    double *to = out + r * columns;
    for (int64_t c = 0; c < columns; ++c) {
      const double shift = scaling->columns == 0 ? 0.0 : scaling->shift[c];
      to[c] = (double)from[c] / lks_scaling_factor(scaling, c) + shift;
    }
  }
}
