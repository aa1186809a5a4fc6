/* See broken_kernels.h. */
#include "broken_kernels.h"

#define LKS_BLOCK_THREADS 64

LKS_KERNEL(broken_reverse_kernel, broken_args) {
  __shared__ float part[LKS_BLOCK_THREADS];
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned mirror = blockDim.x - 1 - threadIdx.x;
  int64_t from = i;
  if (a.wrong == FAULT_PAST_THE_END && i == a.count - 1) {
    from = a.count;
  } else if (a.wrong == FAULT_OTHER_BLOCK) {
    a.out[i] = 0.0f;
    part[threadIdx.x] = a.out[(i + blockDim.x) % a.count];
  }
  if (a.wrong != FAULT_UNWRITTEN || threadIdx.x != 7) {
    part[threadIdx.x] = a.in[from];
  }
  if (a.wrong == FAULT_HALF_BARRIER && threadIdx.x < 32) {
    return;
  }
  if (a.wrong == FAULT_TWO_BARRIERS && threadIdx.x == 3) {
    __syncthreads();
  } else if (a.wrong != FAULT_NO_BARRIER) {
    __syncthreads();
  }
  const int64_t to = a.wrong == FAULT_SAME_ELEMENT                     ? 0
                     : a.wrong == FAULT_WRITE_PAST && i == a.count - 1 ? a.count
                                                                       : i;
  a.out[to] = part[mirror];
}

static __device__ float warp_sum(const broken_args *a, float value) {
  const unsigned mask = a->wrong == FAULT_LANE_UNMASKED ? 0x7fffffffu : 0xffffffffu;
  for (int step = 16; step > 0; step /= 2) {
    value += __shfl_xor_sync(mask, value, step);
  }
  return value;
}

/* The last block to be done; by the fault, something that only looks like it. */
static __device__ bool last_block(const broken_args *a) {
  if (a->wrong == FAULT_NO_TICKET) {
    return blockIdx.x == 0;
  }
  if (a->wrong == FAULT_PLAIN_TICKET) {
    return ++*a->ticket == gridDim.x;
  }
  if (a->wrong != FAULT_NO_RELEASE) {
    __threadfence();
  }
  const bool last = atomicInc(a->ticket, gridDim.x - 1) == gridDim.x - 1;
  if (a->wrong != FAULT_NO_ACQUIRE) {
    __threadfence();
  }
  return last;
}

LKS_KERNEL(broken_total_kernel, broken_args) {
  __shared__ float part[2];
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (a.wrong == FAULT_LANE_MISSING && threadIdx.x == 40) {
    return;
  }
  const float sum = warp_sum(&a, a.in[i]);
  if (threadIdx.x % 32 == 0) {
    part[threadIdx.x / 32] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    a.out[1 + blockIdx.x] = part[0] + part[1];
    if (last_block(&a)) {
      float total = 0.0f;
      for (unsigned block = 0; block < gridDim.x; ++block) {
        total += a.out[1 + block];
      }
      a.out[0] = total;
    }
  }
}

extern "C" int broken_reverse(const broken_args *args, struct CUstream_st *stream) {
  const unsigned threads =
      args->wrong == FAULT_TOO_MANY ? 2 * LKS_BLOCK_THREADS : LKS_BLOCK_THREADS;
  return LKS_LAUNCH(broken_reverse_kernel, (unsigned)(args->count / LKS_BLOCK_THREADS), threads,
                    stream, *args);
}

extern "C" int broken_total(const broken_args *args, struct CUstream_st *stream) {
  return LKS_LAUNCH(broken_total_kernel, (unsigned)(args->count / LKS_BLOCK_THREADS),
                    LKS_BLOCK_THREADS, stream, *args);
}
