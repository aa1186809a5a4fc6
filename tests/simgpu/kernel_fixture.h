/* For tests that run kernels on the simulated GPU: device copies of host arrays, and a state with
 * one order. Not thread-safe; device memory is given back by free_all. */
#ifndef SIMGPU_KERNEL_FIXTURE_H
#define SIMGPU_KERNEL_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <cuda_runtime_api.h>

#include "backend/cuda/kernels.h"

static void *device_blocks[64];
static int device_block_count;

static inline void *device_new(size_t bytes) {
  void *at = NULL;
  assert_true(device_block_count < 64);
  assert_int_equal(cudaMalloc(&at, bytes), cudaSuccess);
  device_blocks[device_block_count++] = at;
  return at;
}

static inline void *to_device(const void *from, size_t bytes) {
  void *at = device_new(bytes);
  assert_int_equal(cudaMemcpy(at, from, bytes, cudaMemcpyHostToDevice), cudaSuccess);
  return at;
}

/* Waits for all that was queued. */
static inline void from_device(void *to, const void *at, size_t bytes) {
  assert_int_equal(cudaMemcpy(to, at, bytes, cudaMemcpyDeviceToHost), cudaSuccess);
}

static inline void free_all(void) {
  while (device_block_count > 0) {
    assert_int_equal(cudaFree(device_blocks[--device_block_count]), cudaSuccess);
  }
}

/* A fresh state whose first orders are the ones given. */
static inline lks_device_state *state_with(const lks_step_order *orders, int count) {
  lks_device_state *host = calloc(1, sizeof *host);
  assert_non_null(host);
  memcpy(host->orders, orders, (size_t)count * sizeof *orders);
  lks_device_state *at = to_device(host, sizeof *host);
  free(host);
  return at;
}

/* Reproducible values in (-1, 1). */
static inline float value_at(uint32_t stream, int64_t i) {
  return 2.0f * lks_uniform(lks_philox((uint32_t)i, stream, 0, 0, 7, 9).v[0]) - 1.0f;
}

static inline float *values_of(uint32_t stream, int64_t count, float scale) {
  float *values = malloc((size_t)count * sizeof *values);
  assert_non_null(values);
  for (int64_t i = 0; i < count; ++i) {
    values[i] = scale * value_at(stream, i);
  }
  return values;
}

/* Fails unless |got - expected| <= tolerance * max(1, |expected|) everywhere. */
static inline void assert_close(const float *got, const float *expected, int64_t count,
                                double tolerance) {
  for (int64_t i = 0; i < count; ++i) {
    const double scale = fabs((double)expected[i]) > 1.0 ? fabs((double)expected[i]) : 1.0;
    const double error = fabs((double)got[i] - (double)expected[i]);
    if (!(error <= tolerance * scale)) {
      fail_msg("element %lld: %.9g, expected %.9g", (long long)i, (double)got[i],
               (double)expected[i]);
    }
  }
}

#endif
