/* Dense layers of any shape, for where cuBLASLt has no algorithm: plain tiles, and for the common
 * case among those, one output, kernels of their own that read each operand once.
 *
 * Bias, activation, its derivative and the bias gradient are fused, as in cuBLASLt's epilogues, so
 * that a step takes as many launches either way. */
#include "backend/cuda/kernels_device.h"

/* ---- tiles: a block makes TILE x TILE elements of c [m, n] = a [m, k] b [k, n], one a thread */

#define TILE 16

/* An operand by strides; `fast` is true where its rows are contiguous (stride 1 along columns). */
typedef struct operand {
  const float *at;
  int64_t row, column;
  bool fast;
} operand;

/* Loads a TILE x TILE piece that begins at (row, column), zeros outside [rows, columns];
 * neighbouring threads read neighbouring floats. */
static inline __device__ void load_tile(const operand *o, int64_t row, int64_t column, int64_t rows,
                                        int64_t columns, float tile[TILE][TILE + 1]) {
  const unsigned r = o->fast ? threadIdx.y : threadIdx.x;
  const unsigned c = o->fast ? threadIdx.x : threadIdx.y;
  const bool inside = row + r < rows && column + c < columns;
  tile[r][c] = inside ? o->at[(row + r) * o->row + (column + c) * o->column] : 0.0f;
}

/* Where the block's tile of c [m, n] begins. Blocks are counted row of tiles by row, along x alone:
 * a grid has 2^31 - 1 of them there, but only 65535 along y. */
typedef struct tile_place {
  int64_t row, column;
} tile_place;

static inline __device__ tile_place place_of_tile(int64_t n) {
  const unsigned across = (unsigned)((n + TILE - 1) / TILE);
  return {(int64_t)(blockIdx.x / across) * TILE, (int64_t)(blockIdx.x % across) * TILE};
}

/* The thread's element, (row + threadIdx.y, column + threadIdx.x). column_sum, unless NULL, takes
 * the sum over k of b's column: a bias gradient. All threads of the block take part. */
static inline __device__ float tile_product(const operand *left, const operand *right, int64_t m,
                                            int64_t n, int64_t k, float *column_sum) {
  __shared__ float a[TILE][TILE + 1]; /* one more: columns fall into different banks */
  __shared__ float b[TILE][TILE + 1];
  const tile_place tile = place_of_tile(n);
  float sum = 0.0f;
  for (int64_t at = 0; at < k; at += TILE) {
    load_tile(left, tile.row, at, m, k, a);
    load_tile(right, at, tile.column, k, n, b);
    __syncthreads();
    for (int i = 0; i < TILE; ++i) {
      sum += a[threadIdx.y][i] * b[i][threadIdx.x];
    }
    if (column_sum != NULL) {
      for (int i = 0; i < TILE; ++i) {
        *column_sum += b[i][threadIdx.x];
      }
    }
    __syncthreads();
  }
  return sum;
}

static unsigned tile_blocks(int64_t m, int64_t n) {
  return (unsigned)((m + TILE - 1) / TILE * ((n + TILE - 1) / TILE));
}

LKS_KERNEL(lks_dense_forward_kernel, lks_dense_forward_args) {
  const operand x = {a.x, a.inputs, 1, true};
  const operand w = {a.w, a.outputs, 1, true};
  float z = tile_product(&x, &w, a.rows, a.outputs, a.inputs, NULL);
  const tile_place tile = place_of_tile(a.outputs);
  const int64_t row = tile.row + threadIdx.y, column = tile.column + threadIdx.x;
  if (row >= a.rows || column >= a.outputs) {
    return;
  }
  z += a.bias != NULL ? a.bias[column] : 0.0f;
  if (a.z != NULL) {
    a.z[row * a.outputs + column] = z;
  }
  a.y[row * a.outputs + column] = lks_activation_of(a.id, z, a.parameter);
}

LKS_KERNEL(lks_dense_weights_kernel, lks_dense_weights_args) {
  const operand x = {a.x, 1, a.inputs, false}; /* x^T */
  const operand dz = {a.dz, a.outputs, 1, true};
  const tile_place tile = place_of_tile(a.outputs);
  const int64_t row = tile.row + threadIdx.y, column = tile.column + threadIdx.x;
  const bool sums = a.db != NULL && row == 0;
  float column_sum = 0.0f;
  const float sum = tile_product(&x, &dz, a.inputs, a.outputs, a.rows, sums ? &column_sum : NULL);
  if (row >= a.inputs || column >= a.outputs) {
    return;
  }
  a.dw[row * a.outputs + column] = sum;
  if (sums) {
    a.db[column] = column_sum;
  }
}

/* f' of the layer below, at element i of its outputs. */
static inline __device__ float slope_below(const lks_dense_input_args *a, int64_t i) {
  if (a->id == LKS_ACT_LINEAR) {
    return 1.0f;
  }
  const bool from_z = lks_slope_needs_z(a->id);
  return lks_slope_of(a->id, from_z ? 0.0f : a->y[i], from_z ? a->z[i] : 0.0f, a->parameter);
}

LKS_KERNEL(lks_dense_input_kernel, lks_dense_input_args) {
  const operand dz = {a.dz, a.outputs, 1, true};
  const operand w = {a.w, 1, a.outputs, false}; /* w^T */
  const float sum = tile_product(&dz, &w, a.rows, a.inputs, a.outputs, NULL);
  const tile_place tile = place_of_tile(a.inputs);
  const int64_t row = tile.row + threadIdx.y, column = tile.column + threadIdx.x;
  if (row < a.rows && column < a.inputs) {
    const int64_t i = row * a.inputs + column;
    a.dx[i] = sum * slope_below(&a, i);
  }
}

/* ---- one output */

/* A row a group of lanes. */
LKS_KERNEL(lks_single_forward_kernel, lks_dense_forward_args) {
  const int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  const int64_t inputs = row < a.rows ? a.inputs : 0;
  float z = 0.0f;
  for (int64_t i = threadIdx.x; i < inputs; i += blockDim.x) {
    z += a.x[row * a.inputs + i] * a.w[i];
  }
  z = lks_lanes_sum(z);
  if (row < a.rows && threadIdx.x == 0) {
    z += a.bias != NULL ? a.bias[0] : 0.0f;
    if (a.z != NULL) {
      a.z[row] = z;
    }
    a.y[row] = lks_activation_of(a.id, z, a.parameter);
  }
}

/* blockDim.x inputs a block, rows dealt out to blockDim.y; one more column, of ones, for the bias.
 */
LKS_KERNEL(lks_single_weights_kernel, lks_dense_weights_args) {
  __shared__ float part[LKS_BLOCK_THREADS];
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned mine = threadIdx.y * blockDim.x + threadIdx.x;
  float sum = 0.0f;
  if (i <= a.inputs) {
    for (int64_t row = threadIdx.y; row < a.rows; row += blockDim.y) {
      sum += i < a.inputs ? a.x[row * a.inputs + i] * a.dz[row] : a.dz[row];
    }
  }
  part[mine] = sum;
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) {
      part[mine] += part[mine + half * blockDim.x];
    }
  }
  float *out = i < a.inputs ? a.dw + i : i == a.inputs ? a.db : NULL;
  if (threadIdx.y == 0 && out != NULL) {
    *out = part[mine];
  }
}

LKS_KERNEL(lks_single_input_kernel, lks_dense_input_args) {
  const int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= a.rows) {
    return;
  }
  const float dz = a.dz[row];
  for (int64_t j = threadIdx.x; j < a.inputs; j += blockDim.x) {
    const int64_t i = row * a.inputs + j;
    a.dx[i] = dz * a.w[j] * slope_below(&a, i);
  }
}

/* ---- launchers */

extern "C" int lks_dense_forward_cuda(const lks_dense_forward_args *args,
                                      struct CUstream_st *stream) {
  if (args->outputs == 1) {
    const unsigned lanes = lks_lanes_for(args->inputs, LKS_WARP_LANES);
    return LKS_LAUNCH(lks_single_forward_kernel, lks_row_blocks(args->rows, lanes),
                      lks_row_threads(lanes), stream, *args);
  }
  return LKS_LAUNCH(lks_dense_forward_kernel, tile_blocks(args->rows, args->outputs),
                    dim3(TILE, TILE, 1), stream, *args);
}

extern "C" int lks_dense_weights_cuda(const lks_dense_weights_args *args,
                                      struct CUstream_st *stream) {
  if (args->outputs == 1) {
    const int64_t columns = args->inputs + 1;
    const unsigned lanes = lks_lanes_for(columns, LKS_WARP_LANES);
    return LKS_LAUNCH(lks_single_weights_kernel, (unsigned)((columns + lanes - 1) / lanes),
                      lks_row_threads(lanes), stream, *args);
  }
  return LKS_LAUNCH(lks_dense_weights_kernel, tile_blocks(args->inputs, args->outputs),
                    dim3(TILE, TILE, 1), stream, *args);
}

extern "C" int lks_dense_input_cuda(const lks_dense_input_args *args, struct CUstream_st *stream) {
  if (args->outputs == 1) {
    const unsigned lanes = lks_lanes_for(args->inputs, LKS_WARP_LANES);
    return LKS_LAUNCH(lks_single_input_kernel, lks_row_blocks(args->rows, lanes),
                      lks_row_threads(lanes), stream, *args);
  }
  return LKS_LAUNCH(lks_dense_input_kernel, tile_blocks(args->rows, args->inputs),
                    dim3(TILE, TILE, 1), stream, *args);
}
