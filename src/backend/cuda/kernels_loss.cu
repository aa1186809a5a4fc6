/* Losses with their gradients, and the metrics, in one launch: a row a group of lanes.
 *
 * Formulas as in src/backend/cpu/loss.c. A row's values are summed in double over its lanes, then
 * over the rows of a block; blocks leave partial sums, which seal (or evaluation) adds in order. So
 * a sum's order is decided by the shape alone. */
#include "backend/cuda/kernels_device.h"

/* One row of n outputs, as a lane sees it. n is 0 in dead rows: their lanes stay in the sums. */
typedef struct row_view {
  const float *z, *t;
  float *g; /* NULL: no gradient */
  int64_t n;
  float scale; /* 1 / global rows */
} row_view;

#define FOR_LANES(i, n) for (int64_t i = threadIdx.x; i < (n); i += blockDim.x)

/* ---- losses: each returns the row's loss in all lanes and fills the gradient */

static inline __device__ double squared_error(const row_view *row) {
  double sum = 0.0;
  FOR_LANES(i, row->n) {
    const float d = row->z[i] - row->t[i];
    sum += (double)d * (double)d;
    if (row->g != NULL) {
      row->g[i] = 2.0f * d * (row->scale / (float)row->n);
    }
  }
  return lks_lanes_sum(sum) / (double)row->n;
}

static inline __device__ double absolute_error(const row_view *row) {
  double sum = 0.0;
  FOR_LANES(i, row->n) {
    const float d = row->z[i] - row->t[i];
    sum += fabs((double)d);
    if (row->g != NULL) {
      const float sign = (d > 0.0f ? 1.0f : 0.0f) - (d < 0.0f ? 1.0f : 0.0f);
      row->g[i] = d == d ? sign * (row->scale / (float)row->n) : d; /* NaN must come through */
    }
  }
  return lks_lanes_sum(sum) / (double)row->n;
}

/* max(z, 0) - z t + log(1 + exp(-|z|)) */
static inline __device__ double binary_crossentropy(const row_view *row) {
  double sum = 0.0;
  FOR_LANES(i, row->n) {
    const float z = row->z[i], t = row->t[i];
    const float e = expf(-fabsf(z));
    sum += (double)((z < 0.0f ? 0.0f : z) - z * t) + (double)log1pf(e);
    if (row->g != NULL) {
      row->g[i] = (lks_sigmoid(z) - t) * (row->scale / (float)row->n);
    }
  }
  return lks_lanes_sum(sum) / (double)row->n;
}

/* The row's largest z, and the sum of exp(z - top), in all lanes. */
static inline __device__ float exponentials(const row_view *row, float *sum) {
  float top = -INFINITY;
  FOR_LANES(i, row->n) {
    top = fmaxf(top, row->z[i]);
  }
  top = lks_lanes_max(top);
  float total = 0.0f;
  FOR_LANES(i, row->n) {
    total += expf(row->z[i] - top);
  }
  *sum = lks_lanes_sum(total);
  return top;
}

static inline __device__ double categorical_crossentropy(const row_view *row) {
  float sum = 0.0f;
  const float top = exponentials(row, &sum);
  const double log_sum = (double)logf(sum);
  double loss = 0.0;
  float weight = 0.0f;
  FOR_LANES(i, row->n) {
    loss += (double)row->t[i] * (log_sum - (double)(row->z[i] - top));
    weight += row->t[i];
  }
  weight = lks_lanes_sum(weight);
  if (row->g != NULL) {
    FOR_LANES(i, row->n) {
      row->g[i] = (weight * (expf(row->z[i] - top) / sum) - row->t[i]) * row->scale;
    }
  }
  return lks_lanes_sum(loss);
}

static inline __device__ double sparse_crossentropy(const row_view *row) {
  float sum = 0.0f;
  const float top = exponentials(row, &sum);
  if (row->n == 0) {
    return 0.0;
  }
  const int64_t label = (int64_t)row->t[0];
  if (row->g != NULL) {
    FOR_LANES(i, row->n) {
      const float g = expf(row->z[i] - top) / sum * row->scale;
      row->g[i] = i == label ? g - row->scale : g;
    }
  }
  return (double)logf(sum) - (double)(row->z[label] - top);
}

static inline __device__ double loss_of(lks_loss_id id, const row_view *row) {
  switch (id) {
  case LKS_LOSS_MEAN_SQUARED_ERROR:
    return squared_error(row);
  case LKS_LOSS_MEAN_ABSOLUTE_ERROR:
    return absolute_error(row);
  case LKS_LOSS_BINARY_CROSSENTROPY:
    return binary_crossentropy(row);
  case LKS_LOSS_CATEGORICAL_CROSSENTROPY:
    return categorical_crossentropy(row);
  case LKS_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY:
    return sparse_crossentropy(row);
  case LKS_LOSS_COUNT:
    break;
  }
  return 0.0;
}

/* ---- metrics: each returns the row's value in all lanes */

/* The first of the row's largest values, as src/backend/cpu/loss.c finds it. */
static inline __device__ int64_t argmax(const float *values, int64_t n) {
  float best = threadIdx.x == 0 && n > 0 ? values[0] : -INFINITY;
  long long at = threadIdx.x == 0 ? 0 : (long long)n;
  FOR_LANES(i, n) {
    if (values[i] > best || (values[i] == best && i < at)) {
      best = values[i];
      at = i;
    }
  }
  for (unsigned step = blockDim.x / 2; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(LKS_ALL_LANES, best, (int)step);
    const long long other_at = __shfl_xor_sync(LKS_ALL_LANES, at, (int)step);
    if (other > best || (other == best && other_at < at)) {
      best = other;
      at = other_at;
    }
  }
  /* Lane 0's answer counts: a NaN in front beats nothing and is beaten by nothing. */
  return (int64_t)__shfl_sync(LKS_ALL_LANES, at, 0, (int)blockDim.x);
}

/* Output i of z after a link, top and sum being the row's exponentials (softmax). */
static inline __device__ float link_output(lks_link link, float z, float top, float sum) {
  return link == LKS_LINK_NONE      ? z
         : link == LKS_LINK_SIGMOID ? lks_sigmoid(z)
                                    : expf(z - top) / sum;
}

static inline __device__ double error_metric(const row_view *row, lks_link link, bool squared) {
  float total = 1.0f;
  const float top = link == LKS_LINK_SOFTMAX ? exponentials(row, &total) : 0.0f;
  double sum = 0.0;
  FOR_LANES(i, row->n) {
    const double d = (double)link_output(link, row->z[i], top, total) - (double)row->t[i];
    sum += squared ? d * d : fabs(d);
  }
  return lks_lanes_sum(sum) / (double)row->n;
}

/* Accuracy compares probabilities, of logits too; sigmoid(z) > 1/2 is z > 0. */
static inline __device__ double binary_hits(const row_view *row, lks_link link) {
  float total = 1.0f;
  const float top = link == LKS_LINK_SOFTMAX ? exponentials(row, &total) : 0.0f;
  double hits = 0.0;
  FOR_LANES(i, row->n) {
    const float z = row->z[i];
    const bool yes = link == LKS_LINK_SIGMOID ? z > 0.0f : link_output(link, z, top, total) > 0.5f;
    hits += yes == (row->t[i] > 0.5f) ? 1.0 : 0.0;
  }
  return lks_lanes_sum(hits) / (double)row->n;
}

static inline __device__ double metric_of(const lks_loss_args *a, lks_metric_id id,
                                          const row_view *row) {
  const lks_link shown = a->logits ? LKS_LINK_NONE : a->link;
  switch (id) {
  case LKS_METRIC_MAE:
    return error_metric(row, shown, false);
  case LKS_METRIC_MSE:
    return error_metric(row, shown, true);
  case LKS_METRIC_BINARY_ACCURACY:
    return binary_hits(row, a->link);
  case LKS_METRIC_CATEGORICAL_ACCURACY:
    return argmax(row->z, row->n) == argmax(row->t, row->n) ? 1.0 : 0.0;
  case LKS_METRIC_SPARSE_CATEGORICAL_ACCURACY: {
    const int64_t best = argmax(row->z, row->n);
    return row->n > 0 && best == (int64_t)row->t[0] ? 1.0 : 0.0;
  }
  case LKS_METRIC_BY_SHAPE:
  case LKS_METRIC_COUNT:
    break;
  }
  return 0.0;
}

/* ---- the kernel */

#define MOST_VALUES (1 + LKS_MAX_METRICS)

static inline __device__ void clear_row(float *g, int64_t n) {
  FOR_LANES(i, n) {
    g[i] = 0.0f;
  }
}

/* values[row of the block][value]: added up over the block's rows (at least 8), pairwise, into
 * partials. The first barrier is also that between filling and adding. */
static inline __device__ void sum_rows(double *values, int count, double *partials) {
  double *mine = values + threadIdx.y * MOST_VALUES;
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    for (unsigned v = threadIdx.x; threadIdx.y < half && v < (unsigned)count; v += blockDim.x) {
      mine[v] += mine[half * MOST_VALUES + v];
    }
  }
  for (unsigned v = threadIdx.x; threadIdx.y == 0 && v < (unsigned)count; v += blockDim.x) {
    partials[(int64_t)blockIdx.x * count + v] = mine[v];
  }
}

LKS_KERNEL(lks_loss_kernel, lks_loss_args) {
  __shared__ double values[LKS_BLOCK_THREADS * MOST_VALUES];
  const lks_step_order *order = lks_order_of(a.block.state);
  const int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  const bool live = row < lks_live_rows(order, &a.block);
  const int64_t target_width = a.id == LKS_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY ? 1 : a.outputs;
  row_view view = {a.out + row * a.outputs, a.targets + row * target_width, NULL,
                   live ? a.outputs : 0, 0.0f};
  if (a.gradient != NULL) {
    view.g = a.gradient + row * a.outputs;
    view.scale = (float)(1.0 / (double)order->global_rows);
    if (!live && row < a.block.rows) {
      clear_row(view.g, a.outputs);
    }
  }
  double *mine = values + threadIdx.y * MOST_VALUES;
  for (int v = 0; v <= a.metric_count; ++v) {
    const double value = v == 0 ? loss_of(a.id, &view) : metric_of(&a, a.metrics[v - 1], &view);
    if (threadIdx.x == 0) {
      mine[v] = live ? value : 0.0;
    }
  }
  sum_rows(values, 1 + a.metric_count, a.partials);
}

static unsigned loss_lanes(int64_t outputs) {
  return lks_lanes_for(outputs, LKS_WARP_LANES);
}

extern "C" int64_t lks_loss_blocks_cuda(int64_t rows, int64_t outputs) {
  return lks_row_blocks(rows, loss_lanes(outputs));
}

extern "C" int lks_loss_cuda(const lks_loss_args *args, struct CUstream_st *stream) {
  const unsigned lanes = loss_lanes(args->outputs);
  return LKS_LAUNCH(lks_loss_kernel, lks_row_blocks(args->block.rows, lanes),
                    lks_row_threads(lanes), stream, *args);
}
