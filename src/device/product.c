/* Products on a device that was chosen. */
#include "device/product.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/errors.h"
#include "device/module.h"

enum { M = 129, N = 65, K = 257 }; /* no multiple of any tile */

const char *lks_device_label(const lks_device_choice *choice, char out[32]) {
  if (choice->ordinal >= 0) {
    (void)snprintf(out, 32, "gpu:%d", choice->ordinal);
  } else {
    (void)snprintf(out, 32, "cpu");
  }
  return out;
}

lks_status lks_device_product(lks_device_choice *choice, int64_t m, int64_t n, int64_t k,
                              const float *a, const float *b, float *c, lks_error *err) {
  lks_status st = LKS_OK;
  if (choice->ordinal < 0) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)n, (int)k, 1.0f, a, (int)k,
                b, (int)n, 0.0f, c, (int)n);
  } else {
    lks_gpu_failure failure = {.ordinal = choice->ordinal};
    const lks_module_found *found = lks_module_find(choice->backend);
    if (found->state != LKS_MODULE_LOADED) {
      FAIL(LKS_INTERNAL, NULL, "the module of a chosen device is not loaded");
    }
    if (found->module->gpu->product(choice->ordinal, m, n, k, a, b, c, &failure) != 0) {
      choice->class_ = lks_device_error_of(failure.library, failure.code)->class_;
      st = lks_device_fail(&failure, err);
    }
  }
cleanup:
  return st;
}

lks_status lks_device_product_known(lks_device_choice *choice, float c[4], lks_error *err) {
  static const float a[4] = {1, 2, 3, 4}, b[4] = {5, 6, 7, 8}, known[4] = {19, 22, 43, 50};
  lks_status st = LKS_OK;
  char label[32];
  memset(c, 0xff, 4 * sizeof *c); /* NaN: what was not written is seen */
  TRY(lks_device_product(choice, 2, 2, 2, a, b, c, err));
  if (memcmp(c, known, sizeof known) != 0) {
    choice->class_ = LKS_CLASS_HARDWARE;
    FAIL(LKS_DEVICE, "do not compute on this device: run the vendor's own test of it",
         "%s: [[1, 2], [3, 4]] x [[5, 6], [7, 8]] gave [[%g, %g], [%g, %g]], not [[19, 22], [43, "
         "50]]",
         lks_device_label(choice, label), (double)c[0], (double)c[1], (double)c[2], (double)c[3]);
  }
cleanup:
  return st;
}

/* Values in (-1, 1), the same everywhere. */
static void fill(float *values, int count, unsigned seed) {
  for (int i = 0; i < count; ++i) {
    seed = seed * 1664525u + 1013904223u;
    values[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
  }
}

/* The worst element's error as a share of its bound; 2 for one that is not finite. */
static double worst_share(const float *a, const float *b, const float *c) {
  const double u = 0x1p-24, gamma = K * u / (1.0 - K * u);
  double worst = 0.0;
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) {
      double sum = 0.0, size = 0.0;
      for (int k = 0; k < K; ++k) {
        const double term = (double)a[i * K + k] * (double)b[k * N + j];
        sum += term;
        size += fabs(term);
      }
      const double share = fabs((double)c[i * N + j] - sum) / (gamma * size);
      worst = share <= 1.0 ? fmax(worst, share) : fmax(worst, share < 2.0 ? share : 2.0);
    }
  }
  return worst;
}

lks_status lks_device_product_compare(lks_device_choice *choice, char *words, size_t size,
                                      lks_error *err) {
  lks_status st = LKS_OK;
  char label[32];
  float *a = malloc((M * K + K * N + M * N) * sizeof *a);
  TRY_ALLOC(a);
  float *b = a + M * K, *c = b + K * N;
  fill(a, M * K, 1);
  fill(b, K * N, 2);
  memset(c, 0xff, M * N * sizeof *c);
  TRY(lks_device_product(choice, M, N, K, a, b, c, err));
  const double worst = worst_share(a, b, c);
  if (worst > 1.0) {
    choice->class_ = LKS_CLASS_HARDWARE;
    FAIL(
        LKS_DEVICE, "unset NVIDIA_TF32_OVERRIDE; if it stays, do not compute on this device",
        "%s: a product of %dx%d by %dx%d differs from the host's by more than fp32 rounding allows",
        lks_device_label(choice, label), M, K, K, N);
  }
  (void)snprintf(words, size,
                 "%dx%d by %dx%d equals the host's in double (worst element at %.1g "
                 "of its fp32 bound)",
                 M, K, K, N, worst);
cleanup:
  free(a);
  return st;
}
