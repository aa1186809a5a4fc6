/* Dense layers: products, then bias and activation in one pass while the product is still in the
 * cache. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/product.h"

static lks_product forward_product(const lks_op *op, int64_t rows, float *work,
                                   const float *parameters, int64_t first, int64_t end) {
  return (lks_product){.rows = rows,
                       .columns = end - first,
                       .depth = op->inputs,
                       .a = work + op->in,
                       .a_row = op->inputs,
                       .a_depth = 1,
                       .b = parameters + op->weights + first,
                       .b_depth = op->outputs,
                       .b_column = 1,
                       .c = work + op->aux + first,
                       .c_row = op->outputs,
                       .weights = op->inputs * op->outputs,
                       .few = op->few};
}

static lks_product weights_product(const lks_op *op, int64_t rows, const float *work, int64_t first,
                                   int64_t end, float *dw) {
  return (lks_product){.rows = end - first,
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
                       .weights = op->inputs * op->outputs,
                       .few = op->few};
}

static lks_product input_product(const lks_op *op, int64_t rows, float *work,
                                 const float *parameters, int64_t first, int64_t end) {
  return (lks_product){.rows = rows,
                       .columns = end - first,
                       .depth = op->outputs,
                       .a = work + op->in,
                       .a_row = op->outputs,
                       .a_depth = 1,
                       .b = parameters + op->weights + first * op->outputs,
                       .b_depth = 1,
                       .b_column = op->outputs,
                       .c = work + op->out + first,
                       .c_row = op->inputs,
                       .weights = op->inputs * op->outputs,
                       .few = op->few};
}

bool lks_dense_divides_cpu(const lks_op *op, int64_t rows, float *work, const float *parameters,
                           int64_t least) {
  lks_product whole;
  switch (op->kind) {
  case LKS_OP_DENSE_FORWARD:
    whole = forward_product(op, rows, work, parameters, 0, op->outputs);
    break;
  case LKS_OP_DENSE_BACKWARD_INPUT:
    whole = input_product(op, rows, work, parameters, 0, op->inputs);
    break;
  default:
    whole = weights_product(op, rows, work, 0, op->inputs, NULL);
    break;
  }
  return lks_product_divides(&whole, op->kind == LKS_OP_DENSE_BACKWARD_WEIGHTS, least);
}

void lks_dense_forward_cpu(const lks_op *op, int64_t rows, float *work, const float *parameters,
                           int64_t first, int64_t end) {
  const int64_t width = op->outputs, count = end - first;
  float *z = work + op->aux + first, *y = work + op->out + first;
  const lks_product product = forward_product(op, rows, work, parameters, first, end);
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
  lks_product product = weights_product(op, rows, work, first, end, dw);
  product.add = accumulate;
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
  const lks_product product = input_product(op, rows, work, parameters, first, end);
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
