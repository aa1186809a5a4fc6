/* Dense layers: products, then bias and activation in one pass while the product is still in the
 * cache. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/product.h"

void lks_dense_forward_cpu(const lks_op *op, int64_t rows, float *work, const float *parameters,
                           int64_t first, int64_t end) {
  const int64_t width = op->outputs, count = end - first;
  float *z = work + op->aux + first, *y = work + op->out + first;
  const lks_product product = {.rows = rows,
                               .columns = count,
                               .depth = op->inputs,
                               .a = work + op->in,
                               .a_row = op->inputs,
                               .a_depth = 1,
                               .b = parameters + op->weights + first,
                               .b_depth = width,
                               .b_column = 1,
                               .c = z,
                               .c_row = width,
                               .weights = op->inputs * width,
                               .few = op->few};
  lks_product_cpu(&product);
  const float *bias = op->has_bias ? parameters + op->bias + first : NULL;
  if (bias == NULL && op->activation == NULL) {
    return;
  }
  const int64_t together = count == width ? rows : 1; /* rows that lie one behind the other */
  for (int64_t row = 0; row < rows; row += together) {
    lks_activate_cpu(op->activation, bias, z + row * width, y + row * width, together, count);
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

void lks_dense_weights_cpu(const lks_op *op, int64_t rows, const float *work, int64_t first,
                           int64_t end, bool accumulate, float *dw) {
  const lks_product product = {.rows = end - first,
                               .columns = op->outputs,
                               .depth = rows,
                               .a = work + op->in + first,
                               .a_row = 1,
                               .a_depth = op->inputs,
                               .b = work + op->out,
                               .b_depth = op->outputs,
                               .b_column = 1,
                               .c = dw,
                               .c_row = op->outputs,
                               .add = accumulate,
                               .weights = op->inputs * op->outputs,
                               .few = op->few};
  lks_product_cpu(&product);
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

void lks_dense_input_cpu(const lks_op *op, int64_t rows, float *work, const float *parameters,
                         int64_t first, int64_t end) {
  const int64_t width = op->inputs, count = end - first;
  float *dx = work + op->out + first;
  const float *y = work + op->y + first, *z = work + op->z + first;
  const lks_product product = {.rows = rows,
                               .columns = count,
                               .depth = op->outputs,
                               .a = work + op->in,
                               .a_row = op->outputs,
                               .a_depth = 1,
                               .b = parameters + op->weights + first * op->outputs,
                               .b_depth = 1,
                               .b_column = op->outputs,
                               .c = dx,
                               .c_row = width,
                               .weights = width * op->outputs,
                               .few = op->few};
  lks_product_cpu(&product);
  if (op->activation == NULL) {
    return;
  }
  const int64_t together = count == width ? rows : 1;
  for (int64_t row = 0; row < rows; row += together) {
    const int64_t at = row * width;
    lks_derive_cpu(op->activation, y + at, z + at, dx + at, together, count);
  }
}
