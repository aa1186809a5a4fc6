/* Dense layers: CBLAS products, then bias and activation in one pass while the product is still in
 * the cache. */
#include <cblas.h>

#include "backend/cpu/cpu.h"

void lks_dense_forward_cpu(const lks_op *op, int64_t rows, float *work, const float *parameters) {
  const int n = (int)rows, in = (int)op->inputs, out = (int)op->outputs;
  float *z = work + op->aux;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, out, in, 1.0f, work + op->in, in,
              parameters + op->weights, out, 0.0f, z, out);
  const float *bias = op->has_bias ? parameters + op->bias : NULL;
  if (bias != NULL || op->activation != NULL) {
    lks_activate_cpu(op->activation, bias, z, work + op->out, rows, op->outputs);
  }
}

LKS_HOT static void add_rows(const float *restrict dz, int64_t rows, int64_t width,
                             float *restrict db) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < width; ++j) {
      db[j] += dz[r * width + j];
    }
  }
}

void lks_dense_weights_cpu(const lks_op *op, int64_t rows, const float *work, float *gradients,
                           bool accumulate) {
  const int n = (int)rows, in = (int)op->inputs, out = (int)op->outputs;
  const float *dz = work + op->out;
  cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, in, out, n, 1.0f, work + op->in, in, dz, out,
              accumulate ? 1.0f : 0.0f, gradients + op->weights, out);
  if (op->has_bias) {
    float *db = gradients + op->bias;
    if (!accumulate) {
      for (int64_t j = 0; j < op->outputs; ++j) {
        db[j] = 0.0f;
      }
    }
    add_rows(dz, rows, op->outputs, db);
  }
}

void lks_dense_input_cpu(const lks_op *op, int64_t rows, float *work, const float *parameters) {
  const int n = (int)rows, in = (int)op->inputs, out = (int)op->outputs;
  float *dx = work + op->out;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, in, out, 1.0f, work + op->in, out,
              parameters + op->weights, out, 0.0f, dx, in);
  if (op->activation != NULL) {
    lks_derive_cpu(op->activation, work + op->y, work + op->z, dx, rows, op->inputs);
  }
}
