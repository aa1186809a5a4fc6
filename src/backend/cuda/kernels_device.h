/* Inside the kernels: how one is declared and launched, and what several of them compute.
 *
 * The same source is compiled by nvcc and, as plain C++, for the simulated GPU, whose forced-in
 * header brings the words of CUDA and its own LKS_KERNEL and LKS_LAUNCH. So: no variables of
 * __device__ or __constant__ memory, no templates among kernels, one struct of arguments each.
 *
 * Kernels that walk rows share one shape: blockDim.x (a power of two) lanes side by side on a row,
 * blockDim.y rows, LKS_BLOCK_THREADS in all. So the lanes of a row lie in one warp where there are
 * at most 32. */
#ifndef LKS_BACKEND_CUDA_KERNELS_DEVICE_H
#define LKS_BACKEND_CUDA_KERNELS_DEVICE_H

#include "backend/cuda/kernels.h"

#ifdef __CUDACC__
#define LKS_KERNEL(name, type)                                                                     \
  extern "C" __global__ void __launch_bounds__(LKS_BLOCK_THREADS)                                  \
      name(const __grid_constant__ type a)
#define LKS_LAUNCH(kernel, grid, block, stream, args)                                              \
  (kernel<<<(grid), (block), 0, (stream)>>>(args), (int)cudaGetLastError())
#endif

#define LKS_BLOCK_THREADS 256
#define LKS_WARP_LANES 32
#define LKS_ALL_LANES 0xffffffffu

/* ---- the step at hand */

static inline __device__ const lks_step_order *lks_order_of(const lks_device_state *state) {
  return state->orders + (uint64_t)state->done % LKS_ORDER_SLOTS;
}

/* How many of the block's rows are live. */
static inline __device__ int64_t lks_live_rows(const lks_step_order *order,
                                               const lks_row_block *block) {
  return order->rows < block->rows ? order->rows : block->rows;
}

/* True in the last block of the launch to get here, for all its threads: it then sees what the
 * others wrote. The ticket is back at 0 afterwards, for the next launch. */
static inline __device__ bool lks_last_block(uint32_t *ticket) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0) {
    __threadfence();
    last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  return last;
}

/* ---- sums over the lanes of a row (at most 32): all of a warp take part, dead rows too */

static inline __device__ float lks_lanes_sum(float value) {
  for (unsigned step = blockDim.x / 2; step > 0; step /= 2) {
    value += __shfl_xor_sync(LKS_ALL_LANES, value, (int)step);
  }
  return value;
}

static inline __device__ double lks_lanes_sum(double value) {
  for (unsigned step = blockDim.x / 2; step > 0; step /= 2) {
    value += __shfl_xor_sync(LKS_ALL_LANES, value, (int)step);
  }
  return value;
}

static inline __device__ float lks_lanes_max(float value) {
  for (unsigned step = blockDim.x / 2; step > 0; step /= 2) {
    value = fmaxf(value, __shfl_xor_sync(LKS_ALL_LANES, value, (int)step));
  }
  return value;
}

/* ---- activations: the formulas of src/backend/cpu/pointwise.c; softmax is not elementwise */

static inline __device__ float lks_sigmoid(float z) {
  const float e = expf(-fabsf(z)); /* never overflows */
  return z >= 0.0f ? 1.0f / (1.0f + e) : e / (1.0f + e);
}

static inline __device__ float lks_normal_cdf(float z) {
  return 0.5f * erfcf(-z * 0.70710678118654752440f);
}

/* SELU's constants (Klambauer et al. 2017). */
#define LKS_SELU_SCALE 1.05070098735548049342f
#define LKS_SELU_ALPHA 1.67326324235437728482f

/* f(z). A NaN comes through: fmaxf would swallow it. */
static inline __device__ float lks_activation_of(lks_activation_id id, float z, float parameter) {
  switch (id) {
  case LKS_ACT_RELU:
    return z < 0.0f ? 0.0f : z;
  case LKS_ACT_SIGMOID:
    return lks_sigmoid(z);
  case LKS_ACT_TANH:
    return tanhf(z);
  case LKS_ACT_SOFTPLUS:
    return (z < 0.0f ? 0.0f : z) + log1pf(expf(-fabsf(z)));
  case LKS_ACT_ELU:
    return z > 0.0f ? z : parameter * expm1f(z);
  case LKS_ACT_SELU:
    return LKS_SELU_SCALE * (z > 0.0f ? z : LKS_SELU_ALPHA * expm1f(z));
  case LKS_ACT_GELU:
    return z * lks_normal_cdf(z);
  case LKS_ACT_SILU:
    return z * lks_sigmoid(z);
  case LKS_ACT_LEAKY_RELU:
    return z < 0.0f ? parameter * z : z;
  case LKS_ACT_EXPONENTIAL:
    return expf(z);
  case LKS_ACT_LINEAR:
  case LKS_ACT_SOFTMAX:
  case LKS_ACT_COUNT:
    break;
  }
  return z;
}

/* Whether f' needs z: the others have it from y. */
static inline LKS_HOST_DEVICE bool lks_slope_needs_z(lks_activation_id id) {
  return id == LKS_ACT_GELU || id == LKS_ACT_SILU;
}

/* f' at a point, from y = f(z) or z. */
static inline __device__ float lks_slope_of(lks_activation_id id, float y, float z,
                                            float parameter) {
  switch (id) {
  case LKS_ACT_RELU:
    return y > 0.0f ? 1.0f : 0.0f;
  case LKS_ACT_SIGMOID:
    return y * (1.0f - y);
  case LKS_ACT_TANH:
    return 1.0f - y * y;
  case LKS_ACT_SOFTPLUS:
    return -expm1f(-y);
  case LKS_ACT_ELU:
    return y > 0.0f ? 1.0f : y + parameter;
  case LKS_ACT_SELU:
    return y > 0.0f ? LKS_SELU_SCALE : y + LKS_SELU_SCALE * LKS_SELU_ALPHA;
  case LKS_ACT_GELU:
    return lks_normal_cdf(z) + z * 0.39894228040143267794f * expf(-0.5f * z * z);
  case LKS_ACT_SILU: {
    const float s = lks_sigmoid(z);
    return s * (1.0f + z * (1.0f - s));
  }
  case LKS_ACT_LEAKY_RELU:
    return y > 0.0f ? 1.0f : parameter;
  case LKS_ACT_EXPONENTIAL:
    return y;
  case LKS_ACT_LINEAR:
  case LKS_ACT_SOFTMAX:
  case LKS_ACT_COUNT:
    break;
  }
  return 1.0f;
}

/* ---- shapes of launches */

/* The smallest power of two that covers `width`, at most `most`. */
static inline unsigned lks_lanes_for(int64_t width, unsigned most) {
  unsigned lanes = 1;
  while (lanes < most && (int64_t)lanes < width) {
    lanes *= 2;
  }
  return lanes;
}

/* Rows as in the head of this file: threads of a block, and blocks along the rows (x). */
static inline dim3 lks_row_threads(unsigned lanes) {
  return dim3(lanes, LKS_BLOCK_THREADS / lanes, 1);
}

static inline unsigned lks_row_blocks(int64_t rows, unsigned lanes) {
  const int64_t at_once = LKS_BLOCK_THREADS / lanes;
  return (unsigned)((rows + at_once - 1) / at_once);
}

/* Blocks for so many items a thread each, and for more of them turns. */
static inline unsigned lks_flat_blocks(int64_t items) {
  const int64_t blocks = (items + LKS_BLOCK_THREADS - 1) / LKS_BLOCK_THREADS;
  return blocks < 1 ? 1u : blocks > 1024 ? 1024u : (unsigned)blocks;
}

#endif
