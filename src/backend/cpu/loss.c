/* Losses, their gradients and the metrics, one row at a time while it is in the cache.
 *
 * A row's loss is the mean over its outputs (Keras: mean over the last axis). Sums over rows are
 * kept in double; the gradient is d(sum of row losses) / dz / divisor. With a link the kernels get
 * logits: cross-entropy is then computed from them, as Keras does for softmax and sigmoid
 * outputs, and its gradient is (link(z) - target). */
#include <math.h>

#include "backend/cpu/cpu.h"

/* One row of n outputs: returns its loss, fills g (unless NULL) with d loss / dz * scale. */
typedef double (*loss_kernel)(const float *z, const float *t, int64_t n, float scale, float *g);

/* Wide rows go in groups of so many outputs, with a sum for each place in a group: one sum alone
 * would wait for every addition (784 outputs 2.4 times faster on a Xeon). What is left of a row,
 * and narrow rows, go one by one. */
enum { GROUP = 16 };

/* Sum over i < count, whole groups, of (z - t)^2, or of |z - t|. */
LKS_HOT static double sum_groups(const float *restrict z, const float *restrict t, int64_t count,
                                 bool squared) {
  double sums[GROUP] = {0}, sum = 0.0;
  for (int64_t i = 0; i < count; i += GROUP) {
    for (int k = 0; k < GROUP; ++k) {
      const double d = (double)(z[i + k] - t[i + k]);
      sums[k] += squared ? d * d : fabs(d);
    }
  }
  for (int k = 0; k < GROUP; ++k) {
    sum += sums[k];
  }
  return sum;
}

static inline float squared_slope(float d, float each) {
  return 2.0f * d * each;
}

static inline float absolute_slope(float d, float each) {
  const float sign = (float)(d > 0.0f) - (float)(d < 0.0f);
  return d == d ? sign * each : d; /* NaN must come through */
}

LKS_HOT static void slope_groups(const float *restrict z, const float *restrict t, int64_t count,
                                 float each, bool squared, float *restrict g) {
  for (int64_t i = 0; i < count; ++i) {
    const float d = z[i] - t[i];
    g[i] = squared ? squared_slope(d, each) : absolute_slope(d, each);
  }
}

static double error_of_row(const float *z, const float *t, int64_t n, float scale, bool squared,
                           float *g) {
  const int64_t grouped = n - n % GROUP;
  const float each = scale / (float)n;
  double sum = 0.0;
  if (grouped > 0) {
    sum = sum_groups(z, t, grouped, squared);
    if (g != NULL) {
      slope_groups(z, t, grouped, each, squared, g);
    }
  }
  for (int64_t i = grouped; i < n; ++i) {
    const float d = z[i] - t[i];
    sum += squared ? (double)d * (double)d : fabs((double)d);
    if (g != NULL) {
      g[i] = squared ? squared_slope(d, each) : absolute_slope(d, each);
    }
  }
  return sum / (double)n;
}

static double squared_error(const float *z, const float *t, int64_t n, float scale, float *g) {
  return error_of_row(z, t, n, scale, true, g);
}

static double absolute_error(const float *z, const float *t, int64_t n, float scale, float *g) {
  return error_of_row(z, t, n, scale, false, g);
}

/* max(z, 0) - z t + log(1 + exp(-|z|)) */
static double binary_crossentropy(const float *z, const float *t, int64_t n, float scale,
                                  float *g) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    const float e = expf(-fabsf(z[i]));
    const float positive = z[i] < 0.0f ? 0.0f : z[i];
    sum += (double)(positive - z[i] * t[i]) + (double)log1pf(e);
    if (g != NULL) {
      const float p = (z[i] >= 0.0f ? 1.0f : e) / (1.0f + e);
      g[i] = (p - t[i]) * (scale / (float)n);
    }
  }
  return sum / (double)n;
}

/* Fills g (or nothing) with exp(z - max), returns max and the sum of exponentials. */
static float exponentials(const float *z, int64_t n, float *g, float *sum) {
  float top = z[0];
  for (int64_t i = 1; i < n; ++i) {
    top = z[i] > top ? z[i] : top;
  }
  float total = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    const float e = expf(z[i] - top);
    total += e;
    if (g != NULL) {
      g[i] = e;
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

static const loss_kernel losses[LKS_LOSS_COUNT] = {
    [LKS_LOSS_MEAN_SQUARED_ERROR] = squared_error,
    [LKS_LOSS_MEAN_ABSOLUTE_ERROR] = absolute_error,
    [LKS_LOSS_BINARY_CROSSENTROPY] = binary_crossentropy,
    [LKS_LOSS_CATEGORICAL_CROSSENTROPY] = categorical_crossentropy,
    [LKS_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY] = sparse_crossentropy,
};

static int64_t argmax(const float *values, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; ++i) {
    best = values[i] > values[best] ? i : best;
  }
  return best;
}

/* Output i of z after a link. */
static double link_output(lks_link link, const float *z, int64_t n, int64_t i) {
  if (link == LKS_LINK_NONE) {
    return (double)z[i];
  }
  if (link == LKS_LINK_SIGMOID) {
    return 1.0 / (1.0 + exp(-(double)z[i]));
  }
  double sum = 0.0;
  for (int64_t k = 0; k < n; ++k) {
    sum += exp((double)z[k] - (double)z[i]);
  }
  return 1.0 / sum;
}

/* Errors compare what the model shows: link(z), or z itself where it ends in logits. */
static double error_metric(const lks_model *model, const float *z, const float *t, int64_t n,
                           bool squared) {
  const lks_link link = model->logits ? LKS_LINK_NONE : model->link;
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    const double d = link_output(link, z, n, i) - (double)t[i];
    sum += squared ? d * d : fabs(d);
  }
  return sum / (double)n;
}

/* Accuracy compares probabilities, of logits too; sigmoid(z) > 1/2 is z > 0. */
static double binary_hits(const lks_model *model, const float *z, const float *t, int64_t n) {
  int64_t hits = 0;
  for (int64_t i = 0; i < n; ++i) {
    const bool yes =
        model->link == LKS_LINK_SIGMOID ? z[i] > 0.0f : link_output(model->link, z, n, i) > 0.5;
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
  const int64_t n = model->outputs;
  const int64_t target_width = model->loss->labels ? 1 : n;
  const loss_kernel kernel = losses[model->loss->id];
  const float scale = (float)(1.0 / divisor);
  for (int64_t r = 0; r < rows; ++r) {
    const float *row = z + r * n, *t = targets + r * target_width;
    sums->loss += kernel(row, t, n, scale, gradient != NULL ? gradient + r * n : NULL);
    for (int i = 0; i < model->metric_count; ++i) {
      sums->metrics[i] += metric_value(model, model->metrics[i]->id, row, t, n);
    }
  }
}
