/* Losses, their gradients and the metrics, while a block's outputs are in the cache.
 *
 * A row's loss is the mean over its outputs (Keras: mean over the last axis), or one value of the
 * whole row. Sums over rows are kept in double; the gradient is d(sum of row losses) / dz /
 * divisor. With a link the kernels get logits: cross-entropy is then computed from them, as Keras
 * does for softmax and sigmoid outputs, and its gradient is (link(z) - target). */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/elementary.h"

/* Outputs go in groups of so many, with a sum for each place in a group: one sum alone would wait
 * for every addition (784 outputs 2.4 times faster on a Xeon). */
enum { GROUP = 16 };

/* ---- losses that are means over outputs: all rows of a block are one long one */

/* sums[i % GROUP] += the loss of output i; count is of whole groups. */
typedef void (*sum_kernel)(const float *z, const float *t, int64_t count, double *sums);
/* g[i] = the slope of output i, times each. */
typedef void (*slope_kernel)(const float *z, const float *t, int64_t count, float each, float *g);

/* From expressions of z, t and d = z - t; all but the first in floats. */
#define ELEMENT_LOSS(name, loss_expression, slope_expression)                                      \
  LKS_HOT static void name##_sum(const float *restrict zs, const float *restrict ts,               \
                                 int64_t count, double *restrict sums) {                           \
    for (int64_t i = 0; i < count; i += GROUP) {                                                   \
      for (int k = 0; k < GROUP; ++k) {                                                            \
        const float z = zs[i + k], t = ts[i + k], d = z - t;                                       \
        (void)d;                                                                                   \
        sums[k] += (loss_expression);                                                              \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
  LKS_HOT static void name##_slope(const float *restrict zs, const float *restrict ts,             \
                                   int64_t count, float each, float *restrict gs) {                \
    for (int64_t i = 0; i < count; ++i) {                                                          \
      const float z = zs[i], t = ts[i], d = z - t;                                                 \
      (void)d;                                                                                     \
      gs[i] = (slope_expression);                                                                  \
    }                                                                                              \
  }

static inline float sign_of(float d) {
  const float sign = (float)(d > 0.0f) - (float)(d < 0.0f);
  return d == d ? sign : d; /* NaN must come through */
}

/* max(z, 0) - z t + log(1 + exp(-|z|)) */
static inline double entropy_of(float z, float t) {
  const float positive = z < 0.0f ? 0.0f : z;
  return (double)(positive - z * t) + (double)lks_log1p(lks_exp(-fabsf(z)));
}

ELEMENT_LOSS(squared, (double)d *(double)d, 2.0f * d * each)
ELEMENT_LOSS(absolute, fabs((double)d), sign_of(d) * each)
ELEMENT_LOSS(binary, entropy_of(z, t), (lks_sigmoid(z) - t) * each)

static double sum_of_elements(sum_kernel kernel, const float *z, const float *t, int64_t count) {
  double sums[GROUP] = {0}, last[GROUP] = {0}, sum = 0.0;
  const int64_t rest = count % GROUP, grouped = count - rest;
  kernel(z, t, grouped, sums);
  if (rest > 0) {
    float z_rest[GROUP] = {0}, t_rest[GROUP] = {0};
    memcpy(z_rest, z + grouped, (size_t)rest * sizeof *z);
    memcpy(t_rest, t + grouped, (size_t)rest * sizeof *t);
    kernel(z_rest, t_rest, GROUP, last);
  }
  for (int k = 0; k < GROUP; ++k) {
    sum += k < rest ? sums[k] + last[k] : sums[k];
  }
  return sum;
}

/* ---- losses of whole rows */

/* One row of n outputs: returns its loss, fills g (unless NULL) with d loss / dz * scale. */
typedef double (*row_kernel)(const float *z, const float *t, int64_t n, float scale, float *g);

LKS_HOT static void exp_group(const float *z, float top, float *out) {
  for (int i = 0; i < GROUP; ++i) {
    out[i] = lks_exp(z[i] - top);
  }
}

/* Fills g (or nothing) with exp(z - max), returns max and the sum of exponentials. What is left of
 * a row goes as a group too: ten classes take what one takes. */
static float exponentials(const float *z, int64_t n, float *g, float *sum) {
  float top = z[0];
  for (int64_t i = 1; i < n; ++i) {
    top = z[i] > top ? z[i] : top;
  }
  float total = 0.0f;
  for (int64_t i = 0; i < n; i += GROUP) {
    const int64_t count = n - i < GROUP ? n - i : GROUP;
    float part[GROUP] = {0}, e[GROUP];
    memcpy(part, z + i, (size_t)count * sizeof *part);
    exp_group(part, top, e);
    for (int64_t k = 0; k < count; ++k) {
      total += e[k];
    }
    if (g != NULL) {
      memcpy(g + i, e, (size_t)count * sizeof *e);
    }
  }
  *sum = total;
  return top;
}

static double categorical_crossentropy(const float *z, const float *t, int64_t n, float scale,
                                       float *g) {
  float sum = 0.0f;
  const float top = exponentials(z, n, g, &sum);
  const double log_sum = (double)logf(sum);
  double loss = 0.0;
  float weight = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    loss += (double)t[i] * (log_sum - (double)(z[i] - top));
    weight += t[i];
  }
  if (g != NULL) {
    for (int64_t i = 0; i < n; ++i) {
      g[i] = (weight * (g[i] / sum) - t[i]) * scale;
    }
  }
  return loss;
}

static double sparse_crossentropy(const float *z, const float *t, int64_t n, float scale,
                                  float *g) {
  const int64_t label = (int64_t)t[0];
  float sum = 0.0f;
  const float top = exponentials(z, n, g, &sum);
  if (g != NULL) {
    for (int64_t i = 0; i < n; ++i) {
      g[i] = g[i] / sum * scale;
    }
    g[label] -= scale;
  }
  return (double)logf(sum) - (double)(z[label] - top);
}

/* ---- all of them */

/* sum and slope, or row. */
static const struct {
  sum_kernel sum;
  slope_kernel slope;
  row_kernel row;
} losses[LKS_LOSS_COUNT] = {
    [LKS_LOSS_MEAN_SQUARED_ERROR] = {.sum = squared_sum, .slope = squared_slope},
    [LKS_LOSS_MEAN_ABSOLUTE_ERROR] = {.sum = absolute_sum, .slope = absolute_slope},
    [LKS_LOSS_BINARY_CROSSENTROPY] = {.sum = binary_sum, .slope = binary_slope},
    [LKS_LOSS_CATEGORICAL_CROSSENTROPY] = {.row = categorical_crossentropy},
    [LKS_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY] = {.row = sparse_crossentropy},
};

static double loss_of_rows(const lks_model *model, const float *z, const float *t, int64_t rows,
                           float scale, float *g) {
  const int64_t n = model->outputs, target_width = model->loss->labels ? 1 : n;
  const lks_loss_id id = model->loss->id;
  double sum = 0.0;
  if (losses[id].row == NULL) {
    if (g != NULL) {
      losses[id].slope(z, t, rows * n, scale / (float)n, g);
    }
    return sum_of_elements(losses[id].sum, z, t, rows * n) / (double)n;
  }
  for (int64_t r = 0; r < rows; ++r) {
    sum += losses[id].row(z + r * n, t + r * target_width, n, scale, g != NULL ? g + r * n : NULL);
  }
  return sum;
}

/* ---- metrics */

static int64_t argmax(const float *values, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; ++i) {
    best = values[i] > values[best] ? i : best;
  }
  return best;
}

/* A row's outputs after a link. */
typedef struct shown {
  lks_link link;
  double top, sum; /* of softmax: the largest, and the sum of exponentials of what is above it */
} shown;

static shown show(lks_link link, const float *z, int64_t n) {
  shown s = {.link = link};
  if (link == LKS_LINK_SOFTMAX) {
    s.top = (double)z[0];
    for (int64_t i = 1; i < n; ++i) {
      s.top = (double)z[i] > s.top ? (double)z[i] : s.top;
    }
    for (int64_t i = 0; i < n; ++i) {
      s.sum += exp((double)z[i] - s.top);
    }
  }
  return s;
}

static double shown_value(const shown *s, float z) {
  switch (s->link) {
  case LKS_LINK_SIGMOID:
    return 1.0 / (1.0 + exp(-(double)z));
  case LKS_LINK_SOFTMAX:
    return exp((double)z - s->top) / s->sum;
  case LKS_LINK_NONE:
    break;
  }
  return (double)z;
}

/* Errors compare what the model shows: link(z), or z itself where it ends in logits. */
static double error_metric(const lks_model *model, const float *z, const float *t, int64_t n,
                           bool squared) {
  const shown s = show(model->logits ? LKS_LINK_NONE : model->link, z, n);
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    const double d = shown_value(&s, z[i]) - (double)t[i];
    sum += squared ? d * d : fabs(d);
  }
  return sum / (double)n;
}

/* Accuracy compares probabilities, of logits too; sigmoid(z) > 1/2 is z > 0. */
static double binary_hits(const lks_model *model, const float *z, const float *t, int64_t n) {
  const shown s = show(model->link, z, n);
  int64_t hits = 0;
  for (int64_t i = 0; i < n; ++i) {
    const bool yes = model->link == LKS_LINK_SIGMOID ? z[i] > 0.0f : shown_value(&s, z[i]) > 0.5;
    hits += yes == (t[i] > 0.5f);
  }
  return (double)hits / (double)n;
}

static double metric_value(const lks_model *model, lks_metric_id id, const float *z, const float *t,
                           int64_t n) {
  switch (id) {
  case LKS_METRIC_MAE:
    return error_metric(model, z, t, n, false);
  case LKS_METRIC_MSE:
    return error_metric(model, z, t, n, true);
  case LKS_METRIC_BINARY_ACCURACY:
    return binary_hits(model, z, t, n);
  case LKS_METRIC_CATEGORICAL_ACCURACY:
    return argmax(z, n) == argmax(t, n) ? 1.0 : 0.0;
  case LKS_METRIC_SPARSE_CATEGORICAL_ACCURACY:
    return argmax(z, n) == (int64_t)t[0] ? 1.0 : 0.0;
  case LKS_METRIC_BY_SHAPE:
  case LKS_METRIC_COUNT:
    break;
  }
  return 0.0;
}

void lks_loss_cpu(const lks_model *model, const float *z, const float *targets, int64_t rows,
                  double divisor, float *gradient, lks_block_sums *sums) {
  const int64_t n = model->outputs, target_width = model->loss->labels ? 1 : n;
  sums->loss += loss_of_rows(model, z, targets, rows, (float)(1.0 / divisor), gradient);
  for (int i = 0; i < model->metric_count; ++i) {
    for (int64_t r = 0; r < rows; ++r) {
      sums->metrics[i] +=
          metric_value(model, model->metrics[i]->id, z + r * n, targets + r * target_width, n);
    }
  }
}
