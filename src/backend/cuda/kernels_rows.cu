/* Rows in, activations, dropout, column sums: everything elementwise or along a row. */
#include "backend/cuda/kernels_device.h"

/* ---- gather */

static inline __device__ void copy_row(const float *from, float *to, int64_t width, bool live) {
  for (int64_t j = threadIdx.x; j < width; j += blockDim.x) {
    to[j] = live ? from[j] : 0.0f;
  }
}

LKS_KERNEL(lks_gather_kernel, lks_gather_args) {
  const lks_step_order *order = lks_order_of(a.block.state);
  const int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= a.block.rows) {
    return;
  }
  const bool live = row < lks_live_rows(order, &a.block);
  int64_t source = row;
  int64_t id = row;
  if (live && a.adopted) {
    source = id = order->places.first + source;
    if (order->places.shuffle) {
      source = id = (int64_t)lks_permute(&order->places.permutation, (uint64_t)id);
    }
  } else if (live && a.staged_ids != NULL) {
    id = a.staged_ids[source];
  }
  copy_row(a.table_features + source * a.inputs, a.features + row * a.inputs, a.inputs, live);
  if (a.table_targets != NULL) {
    copy_row(a.table_targets + source * a.target_columns, a.targets + row * a.target_columns,
             a.target_columns, live);
  }
  if (a.row_ids != NULL && threadIdx.x == 0) {
    a.row_ids[row] = live ? id : -1;
  }
}

extern "C" int lks_gather_cuda(const lks_gather_args *args, struct CUstream_st *stream) {
  const unsigned lanes = lks_lanes_for(args->inputs, LKS_WARP_LANES);
  return LKS_LAUNCH(lks_gather_kernel, lks_row_blocks(args->block.rows, lanes),
                    lks_row_threads(lanes), stream, *args);
}

/* ---- activations: column blocks along y, so that wide rows spread over the device */

#define FOR_COLUMNS(j, width)                                                                      \
  for (int64_t j = (int64_t)blockIdx.y * blockDim.x + threadIdx.x; j < (width);                    \
       j += (int64_t)gridDim.y * blockDim.x)

static dim3 column_grid(int64_t rows, int64_t width, unsigned lanes) {
  const int64_t turns = (width + 4 * lanes - 1) / (4 * lanes);
  return dim3(lks_row_blocks(rows, lanes), turns < 1024 ? (unsigned)turns : 1024u, 1);
}

LKS_KERNEL(lks_activate_kernel, lks_activate_args) {
  const int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= a.rows) {
    return;
  }
  FOR_COLUMNS(j, a.width) {
    const int64_t i = row * a.width + j;
    const float z = a.bias != NULL ? a.in[i] + a.bias[j] : a.in[i];
    if (a.z != NULL) {
      a.z[i] = z;
    }
    a.y[i] = lks_activation_of(a.id, z, a.parameter);
  }
}

/* A row a group of lanes. Rows past the end stay in the sums, with nothing in them. */
LKS_KERNEL(lks_softmax_kernel, lks_activate_args) {
  const int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  const int64_t width = row < a.rows ? a.width : 0;
  const int64_t base = row * a.width;
  float top = -INFINITY;
  for (int64_t j = threadIdx.x; j < width; j += blockDim.x) {
    const float z = a.bias != NULL ? a.in[base + j] + a.bias[j] : a.in[base + j];
    if (a.z != NULL) {
      a.z[base + j] = z;
    }
    a.y[base + j] = z;
    top = fmaxf(top, z);
  }
  top = lks_lanes_max(top);
  float sum = 0.0f;
  for (int64_t j = threadIdx.x; j < width; j += blockDim.x) {
    const float e = expf(a.y[base + j] - top);
    a.y[base + j] = e;
    sum += e;
  }
  sum = lks_lanes_sum(sum);
  for (int64_t j = threadIdx.x; j < width; j += blockDim.x) {
    a.y[base + j] /= sum;
  }
}

extern "C" int lks_activate_cuda(const lks_activate_args *args, struct CUstream_st *stream) {
  if (args->id == LKS_ACT_SOFTMAX) {
    const unsigned lanes = lks_lanes_for(args->width, LKS_WARP_LANES);
    return LKS_LAUNCH(lks_softmax_kernel, lks_row_blocks(args->rows, lanes), lks_row_threads(lanes),
                      stream, *args);
  }
  const unsigned lanes = lks_lanes_for(args->width, LKS_BLOCK_THREADS);
  return LKS_LAUNCH(lks_activate_kernel, column_grid(args->rows, args->width, lanes),
                    lks_row_threads(lanes), stream, *args);
}

LKS_KERNEL(lks_derive_kernel, lks_derive_args) {
  const int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= a.rows) {
    return;
  }
  const bool from_z = lks_slope_needs_z(a.id);
  FOR_COLUMNS(j, a.width) {
    const int64_t i = row * a.width + j;
    const float y = from_z ? 0.0f : a.y[i];
    const float z = from_z ? a.z[i] : 0.0f;
    a.gradient[i] *= lks_slope_of(a.id, y, z, a.parameter);
  }
}

/* g = y (g - sum(g y)): the Jacobian of softmax times g. */
LKS_KERNEL(lks_softmax_derive_kernel, lks_derive_args) {
  const int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  const int64_t width = row < a.rows ? a.width : 0;
  const int64_t base = row * a.width;
  float dot = 0.0f;
  for (int64_t j = threadIdx.x; j < width; j += blockDim.x) {
    dot += a.gradient[base + j] * a.y[base + j];
  }
  dot = lks_lanes_sum(dot);
  for (int64_t j = threadIdx.x; j < width; j += blockDim.x) {
    a.gradient[base + j] = a.y[base + j] * (a.gradient[base + j] - dot);
  }
}

extern "C" int lks_derive_cuda(const lks_derive_args *args, struct CUstream_st *stream) {
  if (args->id == LKS_ACT_SOFTMAX) {
    const unsigned lanes = lks_lanes_for(args->width, LKS_WARP_LANES);
    return LKS_LAUNCH(lks_softmax_derive_kernel, lks_row_blocks(args->rows, lanes),
                      lks_row_threads(lanes), stream, *args);
  }
  const unsigned lanes = lks_lanes_for(args->width, LKS_BLOCK_THREADS);
  return LKS_LAUNCH(lks_derive_kernel, column_grid(args->rows, args->width, lanes),
                    lks_row_threads(lanes), stream, *args);
}

/* ---- dropout */

/* Four units a thread: they share one block of random words. Counter and threshold as in row_mask
 * of src/backend/cpu/pointwise.c. */
LKS_KERNEL(lks_dropout_kernel, lks_dropout_args) {
  const lks_step_order *order = lks_order_of(a.block.state);
  const int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= a.block.rows) {
    return;
  }
  const bool live = row < lks_live_rows(order, &a.block);
  const uint64_t id = live ? (uint64_t)a.row_ids[row] : 0;
  const uint64_t step = (uint64_t)order->step;
  const uint32_t high = (uint32_t)(id >> 32) ^ (uint32_t)(step >> 32) << 16;
  const uint32_t drop_below = (uint32_t)((double)a.rate * 4294967296.0);
  const float scale = 1.0f / (1.0f - a.rate);
  FOR_COLUMNS(quad, (a.width + 3) / 4) {
    const lks_random4 words = lks_philox((uint32_t)quad, (uint32_t)id, (uint32_t)step, high,
                                         (uint32_t)a.key, (uint32_t)(a.key >> 32));
    const int64_t base = row * a.width + 4 * quad;
    const int64_t left = a.width - 4 * quad;
    for (int k = 0; k < 4; ++k) {
      if (k < left) {
        const bool kept = live && words.v[k] >= drop_below;
        a.mask[base + k] = kept ? 1 : 0;
        a.out[base + k] = live ? a.in[base + k] * (kept ? scale : 0.0f) : 0.0f;
      }
    }
  }
}

extern "C" int lks_dropout_cuda(const lks_dropout_args *args, struct CUstream_st *stream) {
  const int64_t quads = (args->width + 3) / 4;
  const unsigned lanes = lks_lanes_for(quads, LKS_BLOCK_THREADS);
  return LKS_LAUNCH(lks_dropout_kernel, column_grid(args->block.rows, quads, lanes),
                    lks_row_threads(lanes), stream, *args);
}

LKS_KERNEL(lks_undrop_kernel, lks_undrop_args) {
  const float scale = 1.0f / (1.0f - a.rate);
  const int64_t count = a.rows * a.width;
  const int64_t stride = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
    a.gradient[i] *= a.mask[i] != 0 ? scale : 0.0f;
  }
}

extern "C" int lks_undrop_cuda(const lks_undrop_args *args, struct CUstream_st *stream) {
  return LKS_LAUNCH(lks_undrop_kernel, lks_flat_blocks(args->rows * args->width), LKS_BLOCK_THREADS,
                    stream, *args);
}

/* ---- column sums: blockDim.x columns a block, its rows dealt out to blockDim.y */

LKS_KERNEL(lks_column_sums_kernel, lks_column_sums_args) {
  __shared__ float part[LKS_BLOCK_THREADS];
  const int64_t j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned mine = threadIdx.y * blockDim.x + threadIdx.x;
  float sum = 0.0f;
  if (j < a.width) {
    for (int64_t row = threadIdx.y; row < a.rows; row += blockDim.y) {
      sum += a.in[row * a.width + j];
    }
  }
  part[mine] = sum;
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) {
      part[mine] += part[mine + half * blockDim.x];
    }
  }
  if (threadIdx.y == 0 && j < a.width) {
    a.sums[j] = part[mine];
  }
}

extern "C" int lks_column_sums_cuda(const lks_column_sums_args *args, struct CUstream_st *stream) {
  const unsigned lanes = lks_lanes_for(args->width, LKS_WARP_LANES);
  return LKS_LAUNCH(lks_column_sums_kernel, (unsigned)((args->width + lanes - 1) / lanes),
                    lks_row_threads(lanes), stream, *args);
}
