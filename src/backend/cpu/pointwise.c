/* Everything elementwise: activations and their derivatives, dropout, gather.
 *
 * Each activation is one row of `kernels`: forward f(z) and derivative times gradient, loops that
 * vectorise. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/elementary.h"
#include "base/random.h"

/* SELU's constants (Klambauer et al. 2017). */
#define SELU_SCALE 1.05070098735548049342f
#define SELU_ALPHA 1.67326324235437728482f

/* One row: y = f(z), and g *= f'. width and the activation's parameter where they matter. */
typedef void (*forward_kernel)(const float *z, float *y, int64_t n, float parameter);
typedef void (*derive_kernel)(const float *y, const float *z, float *g, int64_t n, float parameter);

/* Elementwise kernels from expressions: z, a (the parameter) going forward; y, z, a going back. */
#define ACTIVATION(name, forward_expression, derivative_expression)                                \
  LKS_HOT static void name##_forward(const float *zs, float *ys, int64_t n, float a) {             \
    (void)a;                                                                                       \
    for (int64_t i = 0; i < n; ++i) {                                                              \
      const float z = zs[i];                                                                       \
      ys[i] = (forward_expression);                                                                \
    }                                                                                              \
  }                                                                                                \
  LKS_HOT static void name##_derive(const float *restrict ys, const float *restrict zs,            \
                                    float *restrict gs, int64_t n, float a) {                      \
    (void)a;                                                                                       \
    for (int64_t i = 0; i < n; ++i) {                                                              \
      const float y = ys[i], z = zs[i];                                                            \
      (void)y;                                                                                     \
      (void)z;                                                                                     \
      gs[i] *= (derivative_expression);                                                            \
    }                                                                                              \
  }

static inline float softplus_of(float z) {
  return (z < 0.0f ? 0.0f : z) + lks_log1p(lks_exp(-fabsf(z)));
}

static inline float gelu_slope(float z) {
  const float gauss = lks_gauss(z);
  return lks_normal(z, gauss) + z * 0.39894228040143267794f * gauss;
}

static inline float silu_slope(float z) {
  const float s = lks_sigmoid(z);
  return s * (1.0f + z * (1.0f - s));
}

/* Not fmaxf: a NaN must come through, for the finite check to see. */
ACTIVATION(linear, z, 1.0f)
ACTIVATION(relu, z<0.0f ? 0.0f : z, y> 0.0f ? 1.0f : 0.0f)
ACTIVATION(sigmoid, lks_sigmoid(z), y *(1.0f - y))
ACTIVATION(tanh, lks_tanh(z), 1.0f - y * y)
ACTIVATION(softplus, softplus_of(z), -lks_expm1(-y))
ACTIVATION(elu, z > 0.0f ? z : a * lks_expm1(z), y > 0.0f ? 1.0f : y + a)
ACTIVATION(selu, SELU_SCALE *(z > 0.0f ? z : SELU_ALPHA * lks_expm1(z)),
           y > 0.0f ? SELU_SCALE : y + SELU_SCALE * SELU_ALPHA)
ACTIVATION(gelu, z *lks_normal(z, lks_gauss(z)), gelu_slope(z))
ACTIVATION(silu, z *lks_sigmoid(z), silu_slope(z))
ACTIVATION(leaky_relu, z<0.0f ? a * z : z, y> 0.0f ? 1.0f : a)
ACTIVATION(exponential, lks_exp(z), y)

LKS_HOT static void exp_row(const float *z, float top, float *y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    y[i] = lks_exp(z[i] - top);
  }
}

static void softmax_forward(const float *z, float *y, int64_t n, float a) {
  (void)a;
  float top = z[0];
  for (int64_t i = 1; i < n; ++i) {
    top = z[i] > top ? z[i] : top;
  }
  float sum = 0.0f;
  exp_row(z, top, y, n);
  for (int64_t i = 0; i < n; ++i) {
    sum += y[i];
  }
  for (int64_t i = 0; i < n; ++i) {
    y[i] /= sum;
  }
}

/* g = y (g - sum(g y)): the Jacobian of softmax times g. */
static void softmax_derive(const float *y, const float *z, float *g, int64_t n, float a) {
  (void)z;
  (void)a;
  float dot = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    dot += g[i] * y[i];
  }
  for (int64_t i = 0; i < n; ++i) {
    g[i] = y[i] * (g[i] - dot);
  }
}

static const struct {
  forward_kernel forward;
  derive_kernel derive;
} kernels[LKS_ACT_COUNT] = {
    [LKS_ACT_LINEAR] = {linear_forward, linear_derive},
    [LKS_ACT_RELU] = {relu_forward, relu_derive},
    [LKS_ACT_SIGMOID] = {sigmoid_forward, sigmoid_derive},
    [LKS_ACT_TANH] = {tanh_forward, tanh_derive},
    [LKS_ACT_SOFTMAX] = {softmax_forward, softmax_derive},
    [LKS_ACT_SOFTPLUS] = {softplus_forward, softplus_derive},
    [LKS_ACT_ELU] = {elu_forward, elu_derive},
    [LKS_ACT_SELU] = {selu_forward, selu_derive},
    [LKS_ACT_GELU] = {gelu_forward, gelu_derive},
    [LKS_ACT_SILU] = {silu_forward, silu_derive},
    [LKS_ACT_LEAKY_RELU] = {leaky_relu_forward, leaky_relu_derive},
    [LKS_ACT_EXPONENTIAL] = {exponential_forward, exponential_derive},
};

LKS_HOT static void add_bias(const float *restrict bias, float *restrict z, int64_t rows,
                             int64_t width) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < width; ++j) {
      z[r * width + j] += bias[j];
    }
  }
}

LKS_HOT static void add_bias_relu(const float *restrict bias, float *z, float *y, int64_t rows,
                                  int64_t width) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < width; ++j) {
      const float sum = z[r * width + j] + bias[j];
      y[r * width + j] = sum < 0.0f ? 0.0f : sum;
    }
  }
}

/* So many floats of narrow rows get their bias, and then go through a kernel together, from the
 * first cache: a kernel begins with some twenty constants, and ends with what is no whole vector. A
 * step of 4-32-16-4 takes 0.91 of the time with tanh, 0.80 with gelu. */
enum { TOGETHER = 1024 };

void lks_activate_cpu(const lks_activation *activation, const float *bias, float *z, float *y,
                      int64_t rows, int64_t width) {
  const lks_activation_id id =
      activation != NULL ? lks_activation_row_of(activation)->id : LKS_ACT_LINEAR;
  if (id == LKS_ACT_RELU && bias != NULL) { /* the common case, in one pass */
    add_bias_relu(bias, z, y, rows, width);
    return;
  }
  const float parameter = activation != NULL ? (float)activation->parameter : 0.0f;
  const int64_t rows_together =
      (activation != NULL && lks_activation_row_of(activation)->across_row) || width > TOGETHER
          ? 1
          : TOGETHER / width;
  for (int64_t r = 0; r < rows; r += rows_together) {
    const int64_t count = rows - r < rows_together ? rows - r : rows_together;
    float *from = z + r * width;
    if (bias != NULL) {
      add_bias(bias, from, count, width);
    }
    if (id != LKS_ACT_LINEAR || y != z) {
      kernels[id].forward(from, y + r * width, count * width, parameter);
    }
  }
}

void lks_derive_cpu(const lks_activation *activation, const float *y, const float *z,
                    float *gradient, int64_t rows, int64_t width) {
  const lks_activation_row *row = lks_activation_row_of(activation);
  const derive_kernel derive = kernels[row->id].derive;
  const float parameter = (float)activation->parameter;
  if (!row->across_row) {
    derive(y, z, gradient, rows * width, parameter);
    return;
  }
  for (int64_t r = 0; r < rows; ++r) {
    derive(y + r * width, z + r * width, gradient + r * width, width, parameter);
  }
}

/* Units whose masks are made together: blocks of four words of random numbers, one a lane. A step
 * of 20-128-128-2 with two dropouts takes 0.80 of the time. */
enum { MASK_BLOCKS = 16, MASKS = 4 * MASK_BLOCKS };

LKS_HOT static void make_masks(uint32_t first, uint32_t row, uint32_t step, uint32_t high,
                               uint64_t key, uint32_t drop_below, unsigned char mask[MASKS]) {
  uint32_t kept[4][MASK_BLOCKS];
  for (uint32_t b = 0; b < MASK_BLOCKS; ++b) {
    const lks_random4 words =
        lks_philox(first + b, row, step, high, (uint32_t)key, (uint32_t)(key >> 32));
    kept[0][b] = words.v[0] >= drop_below;
    kept[1][b] = words.v[1] >= drop_below;
    kept[2][b] = words.v[2] >= drop_below;
    kept[3][b] = words.v[3] >= drop_below;
  }
  for (int b = 0; b < MASK_BLOCKS; ++b) {
    for (int k = 0; k < 4; ++k) {
      mask[4 * b + k] = (unsigned char)kept[k][b];
    }
  }
}

/* The masks of one row. Unit u of it takes word u % 4 of the block counted by
 * (u / 4, row, step): it does not know how many ranks there are. */
static void row_mask(uint64_t key, int64_t row, int64_t step, float rate, unsigned char *mask,
                     int64_t width) {
  const uint32_t high = (uint32_t)((uint64_t)row >> 32) ^ (uint32_t)((uint64_t)step >> 32) << 16;
  const uint32_t drop_below = (uint32_t)((double)rate * 4294967296.0);
  int64_t u = 0;
  while (width - u > MASKS / 2) {
    unsigned char part[MASKS];
    const bool whole = width - u >= MASKS;
    make_masks((uint32_t)(u / 4), (uint32_t)row, (uint32_t)step, high, key, drop_below,
               whole ? mask + u : part);
    if (!whole) {
      memcpy(mask + u, part, (size_t)(width - u));
    }
    u += MASKS;
  }
  for (; u < width; u += 4) { /* so few are made sooner one by one */
    const lks_random4 words = lks_philox((uint32_t)(u / 4), (uint32_t)row, (uint32_t)step, high,
                                         (uint32_t)key, (uint32_t)(key >> 32));
    const int64_t most = width - u < 4 ? width - u : 4;
    for (int64_t k = 0; k < most; ++k) {
      mask[u + k] = words.v[k] >= drop_below;
    }
  }
}

LKS_HOT static void apply_mask(float scale, const unsigned char *restrict mask, const float *in,
                               float *out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    out[i] = in[i] * (scale * (float)mask[i]);
  }
}

void lks_dropout_cpu(const lks_mask_key *key, float rate, const float *in, float *out,
                     unsigned char *mask, int64_t rows, int64_t width) {
  const uint64_t stream = lks_random_key(key->seed, LKS_PURPOSE_DROPOUT, (uint64_t)key->layer);
  for (int64_t r = 0; r < rows; ++r) {
    row_mask(stream, key->row_ids[r], key->step, rate, mask + r * width, width);
  }
  apply_mask(1.0f / (1.0f - rate), mask, in, out, rows * width);
}

void lks_dropout_backward_cpu(float rate, const unsigned char *mask, float *gradient, int64_t rows,
                              int64_t width) {
  apply_mask(1.0f / (1.0f - rate), mask, gradient, gradient, rows * width);
}

/* Rows lie anywhere in the table, so the beginning of a row is asked for some rows before it is
 * copied; what follows, the processor foresees itself. */
enum { AHEAD = 2, AHEAD_BYTES = 512 };

void lks_gather_cpu(const float *base, const int64_t *index, int64_t count, int64_t width,
                    float *out) {
  const size_t bytes = (size_t)width * sizeof *base;
  if (index == NULL) {
    memcpy(out, base, (size_t)count * bytes);
    return;
  }
  const size_t asked = bytes < AHEAD_BYTES ? bytes : AHEAD_BYTES;
  for (int64_t i = 0; i < count; ++i) {
    if (i + AHEAD < count) {
      for (size_t at = 0; at < asked; at += 64) {
        __builtin_prefetch((const char *)(base + index[i + AHEAD] * width) + at);
      }
    }
    memcpy(out + i * width, base + index[i] * width, bytes);
  }
}
