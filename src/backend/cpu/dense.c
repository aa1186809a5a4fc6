/* Dense layers: products, then bias and activation in one pass while the product is still in the
 * cache. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/product.h"

void lks_dense_forward_cpu(const lks_op *op, int64_t rows, float *work, const float *parameters) {
  float *z = work + op->aux;
  const lks_product product = {.rows = rows,
                               .columns = op->outputs,
                               .depth = op->inputs,
                               .a = work + op->in,
                               .a_row = op->inputs,
                               .a_depth = 1,
                               .b = parameters + op->weights,
                               .b_depth = op->outputs,
                               .b_column = 1,
                               .c = z};
  lks_product_cpu(&product, op->inputs * op->outputs);
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
                           int64_t first, int64_t end, bool accumulate) {
  const lks_product product = {.rows = end - first,
                               .columns = op->outputs,
                               .depth = rows,
                               .a = work + op->in + first,
                               .a_row = 1,
                               .a_depth = op->inputs,
                               .b = work + op->out,
                               .b_depth = op->outputs,
                               .b_column = 1,
                               .c = gradients + op->weights + (size_t)(first * op->outputs),
                               .add = accumulate};
  lks_product_cpu(&product, op->inputs * op->outputs);
}

void lks_dense_bias_cpu(const lks_op *op, int64_t rows, const float *work, float *gradients,
                        bool accumulate) {
  float *db = gradients + op->bias;
  if (!op->has_bias) {
    return;
  }
  if (!accumulate) {
    for (int64_t j = 0; j < op->outputs; ++j) {
      db[j] = 0.0f;
    }
  }
  add_rows(work + op->out, rows, op->outputs, db);
}

void lks_dense_input_cpu(const lks_op *op, int64_t rows, float *work, const float *parameters) {
  float *dx = work + op->out;
  const lks_product product = {.rows = rows,
                               .columns = op->inputs,
                               .depth = op->outputs,
                               .a = work + op->in,
                               .a_row = op->outputs,
                               .a_depth = 1,
                               .b = parameters + op->weights,
                               .b_depth = 1,
                               .b_column = op->outputs,
                               .c = dx};
  lks_product_cpu(&product, op->inputs * op->outputs);
  if (op->activation != NULL) {
    lks_derive_cpu(op->activation, work + op->y, work + op->z, dx, rows, op->inputs);
  }
}
