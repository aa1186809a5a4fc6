/* Elementwise kernels of the CPU backend: activations and derivatives against double formulas at
 * odd widths between sentinels, dropout, gather, the finite check. */
#include "model_fixture.h"

#include "backend/cpu/cpu.h"
#include "base/finite.h"

#define SENTINEL (-123456.0f)
enum { GUARD = 16 };

/* A buffer of floats between guards. */
typedef struct guarded {
  float *all, *values;
  size_t count;
} guarded;

static guarded guard(size_t count) {
  guarded g = {.all = malloc((count + 2 * GUARD) * sizeof(float)), .count = count};
  assert_non_null(g.all);
  for (size_t i = 0; i < count + 2 * GUARD; ++i) {
    g.all[i] = SENTINEL;
  }
  g.values = g.all + GUARD;
  return g;
}

static void unguard(guarded *g) {
  for (size_t i = 0; i < GUARD; ++i) {
    assert_true(g->all[i] == SENTINEL);
    assert_true(g->values[g->count + i] == SENTINEL);
  }
  free(g->all);
}

/* ---- activations */

static double reference(lks_activation_id id, double z, double a) {
  const double alpha = 1.6732632423543772848170429916717;
  const double scale = 1.0507009873554804934193349852946;
  switch (id) {
  case LKS_ACT_RELU:
    return z > 0 ? z : 0;
  case LKS_ACT_SIGMOID:
    return 1 / (1 + exp(-z));
  case LKS_ACT_TANH:
    return tanh(z);
  case LKS_ACT_SOFTPLUS:
    return z > 0 ? z + log1p(exp(-z)) : log1p(exp(z));
  case LKS_ACT_ELU:
    return z > 0 ? z : a * expm1(z);
  case LKS_ACT_SELU:
    return scale * (z > 0 ? z : alpha * expm1(z));
  case LKS_ACT_GELU:
    return 0.5 * z * erfc(-z / sqrt(2.0));
  case LKS_ACT_SILU:
    return z / (1 + exp(-z));
  case LKS_ACT_LEAKY_RELU:
    return z > 0 ? z : a * z;
  case LKS_ACT_EXPONENTIAL:
    return exp(z);
  case LKS_ACT_LINEAR:
  case LKS_ACT_SOFTMAX:
  case LKS_ACT_COUNT:
    break;
  }
  return z;
}

static lks_activation_id id_of(const lks_activation *activation) {
  return lks_activation_row_of(activation)->id;
}

/* A few roundings of the result; gelu's normal distribution amplifies the argument's rounding by
 * z^2 in its tail. */
static double forward_tolerance(double z, double y) {
  return (8.0 + 2.0 * z * z) * HALF_ULP * fabs(y) + 1e-38;
}

/* All kinds that act on elements, with their parameters. */
static int elementwise(lks_activation out[LKS_ACT_COUNT]) {
  int count = 0;
  for (int i = 0; lks_activation_kinds[i] != NULL; ++i) {
    lks_activation one = {lks_activation_kinds[i], 0.0};
    if (lks_activation_row_of(&one)->across_row ||
        (count > 0 && id_of(&one) == id_of(&out[count - 1]))) { /* another name of the one before */
      continue;
    }
    one.parameter = id_of(&one) == LKS_ACT_ELU          ? 0.75
                    : id_of(&one) == LKS_ACT_LEAKY_RELU ? 0.125
                                                        : 0;
    out[count++] = one;
  }
  assert_int_equal(count, LKS_ACT_COUNT - 1);
  return count;
}

/* Row, column and stream to a number within the range where nothing overflows. */
static void fill(float *values, size_t count, uint32_t stream, float reach) {
  for (uint32_t i = 0; i < count; ++i) {
    values[i] = test_number(stream, i, -reach, reach);
  }
}

static void check_forward(const lks_activation *activation, int64_t rows, int64_t width,
                          bool biased, bool in_place) {
  const size_t count = (size_t)(rows * width);
  guarded z = guard(count), y = guard(count), bias = guard((size_t)width);
  float *raw = malloc(count * sizeof *raw);
  assert_non_null(raw);
  fill(z.values, count, 1, 8.0f);
  fill(bias.values, (size_t)width, 2, 2.0f);
  memcpy(raw, z.values, count * sizeof *raw);
  float *out = in_place ? z.values : y.values;
  lks_activate_cpu(activation, biased ? bias.values : NULL, z.values, out, rows, width);
  for (size_t i = 0; i < count; ++i) {
    const float sum = biased ? raw[i] + bias.values[i % (size_t)width] : raw[i];
    const double expected = reference(id_of(activation), (double)sum, activation->parameter);
    assert_near((double)out[i], expected, forward_tolerance((double)sum, expected),
                activation->kind->name);
    if (!in_place && lks_activation_row_of(activation)->needs_input) {
      assert_true(z.values[i] == sum);
    }
  }
  free(raw);
  unguard(&z);
  unguard(&y);
  unguard(&bias);
}

static const int64_t widths[] = {1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 33, 65};
#define WIDTHS (sizeof widths / sizeof *widths)

static void test_forward(void **state) {
  (void)state;
  lks_activation all[LKS_ACT_COUNT];
  const int count = elementwise(all);
  for (int i = 0; i < count; ++i) {
    for (size_t w = 0; w < WIDTHS; ++w) {
      for (int how = 0; how < 4; ++how) {
        check_forward(&all[i], 3, widths[w], (how & 1) != 0, (how & 2) != 0);
      }
    }
  }
}

/* An element has the same bits alone as in rows of any width, wherever it lies: so ranks may divide
 * rows and columns as they like. */
static void test_same_bits_anywhere(void **state) {
  (void)state;
  lks_activation all[LKS_ACT_COUNT];
  const int count = elementwise(all);
  enum { ROWS = 7, WIDTH = 53 };
  for (int i = 0; i < count; ++i) {
    float z[ROWS * WIDTH], y[ROWS * WIDTH], g[ROWS * WIDTH];
    fill(z, ROWS * WIDTH, 4, 9.0f);
    fill(g, ROWS * WIDTH, 7, 2.0f);
    float alone[3][ROWS * WIDTH];
    memcpy(alone[0], z, sizeof z);
    memcpy(alone[2], g, sizeof g);
    lks_activate_cpu(&all[i], NULL, z, y, ROWS, WIDTH);
    lks_derive_cpu(&all[i], y, z, g, ROWS, WIDTH);
    for (int k = 0; k < ROWS * WIDTH; ++k) {
      lks_activate_cpu(&all[i], NULL, &alone[0][k], &alone[1][k], 1, 1);
      lks_derive_cpu(&all[i], &alone[1][k], &alone[0][k], &alone[2][k], 1, 1);
    }
    assert_memory_equal(y, alone[1], sizeof y);
    assert_memory_equal(g, alone[2], sizeof g);
  }
}

/* A dense layer without activation only adds its bias. */
static void test_bias_alone(void **state) {
  (void)state;
  float z[6] = {1, 2, 3, 4, 5, 6}, bias[3] = {0.5f, -1, 10};
  lks_activate_cpu(NULL, bias, z, z, 2, 3);
  static const float expected[6] = {1.5f, 1, 13, 4.5f, 4, 16};
  assert_memory_equal(z, expected, sizeof z);
}

/* Against central differences of the double formula: their error is h^2 / 6 of the third
 * derivative (under 3 e^8 of exp) and 1e-16 / h of rounding. */
static void check_derivative(const lks_activation *activation, int64_t rows, int64_t width) {
  const size_t count = (size_t)(rows * width);
  const double h = 1e-5, a = activation->parameter;
  guarded z = guard(count), y = guard(count), g = guard(count);
  fill(z.values, count, 3, 6.0f);
  for (size_t i = 0; i < count; ++i) { /* not at the kink */
    z.values[i] += fabsf(z.values[i]) < 1e-3f ? 0.01f : 0.0f;
    g.values[i] = (float)(i % 7) - 3.0f;
  }
  float *kept = malloc(count * sizeof *kept);
  assert_non_null(kept);
  memcpy(kept, z.values, count * sizeof *kept);
  lks_activate_cpu(activation, NULL, z.values, y.values, rows, width);
  assert_memory_equal(kept, z.values, count * sizeof *kept);
  lks_derive_cpu(activation, y.values, z.values, g.values, rows, width);
  for (size_t i = 0; i < count; ++i) {
    const lks_activation_id id = id_of(activation);
    const double at = (double)z.values[i], up = (double)(i % 7) - 3.0;
    const double slope = (reference(id, at + h, a) - reference(id, at - h, a)) / (2 * h);
    const double tolerance = fabs(up) * (16 * HALF_ULP * (2.0 + fabs(slope)) + 1e-7);
    assert_near((double)g.values[i], up * slope, tolerance, activation->kind->name);
  }
  free(kept);
  unguard(&z);
  unguard(&y);
  unguard(&g);
}

static void test_derivatives(void **state) {
  (void)state;
  lks_activation all[LKS_ACT_COUNT];
  const int count = elementwise(all);
  for (int i = 0; i < count; ++i) {
    for (size_t w = 0; w < WIDTHS; ++w) {
      check_derivative(&all[i], 3, widths[w]);
    }
  }
}

/* Where most functions need not be told z: it may be anything. */
static void test_only_some_need_input(void **state) {
  (void)state;
  lks_activation all[LKS_ACT_COUNT];
  const int count = elementwise(all);
  for (int i = 0; i < count; ++i) {
    float z[5], y[5], garbage[5], one[5] = {1, 1, 1, 1, 1}, two[5] = {1, 1, 1, 1, 1};
    fill(z, 5, 9, 3.0f);
    fill(garbage, 5, 10, 3.0f);
    lks_activate_cpu(&all[i], NULL, z, y, 1, 5);
    lks_derive_cpu(&all[i], y, z, one, 1, 5);
    lks_derive_cpu(&all[i], y, garbage, two, 1, 5);
    const bool same = memcmp(one, two, sizeof one) == 0;
    assert_int_equal(same, !lks_activation_row_of(&all[i])->needs_input);
  }
}

/* NaN comes through every activation, with and without a bias, for the finite check to see; values
 * far out stay finite where the function is bounded. */
static void test_extremes(void **state) {
  (void)state;
  lks_activation all[LKS_ACT_COUNT];
  const int count = elementwise(all);
  for (int i = 0; i < count; ++i) {
    for (int biased = 0; biased < 2; ++biased) {
      float z[17] = {0}, y[17], bias[17] = {0};
      z[0] = z[16] = NAN;
      lks_activate_cpu(&all[i], biased ? bias : NULL, z, y, 1, 17);
      assert_true(isnan(y[0]) && isnan(y[16]) && !isnan(y[8]));
    }
    if (id_of(&all[i]) != LKS_ACT_EXPONENTIAL) {
      float z[4] = {-1e4f, 1e4f, -88.8f, 88.8f}, y[4], g[4] = {1, 1, 1, 1};
      lks_activate_cpu(&all[i], NULL, z, y, 1, 4);
      assert_true(lks_all_finite(y, 4));
      lks_derive_cpu(&all[i], y, z, g, 1, 4);
      assert_true(lks_all_finite(g, 4));
    }
  }
}

/* ---- softmax */

static void softmax_reference(const double *z, int64_t n, double *p) {
  double top = z[0], sum = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    top = fmax(top, z[i]);
  }
  for (int64_t i = 0; i < n; ++i) {
    p[i] = exp(z[i] - top);
    sum += p[i];
  }
  for (int64_t i = 0; i < n; ++i) {
    p[i] /= sum;
  }
}

/* exp of a rounded difference of up to 16 (half an ulp of 16), n - 1 additions, a quotient. */
static double softmax_tolerance(int64_t n) {
  return (16.0 * 2.0 + (double)n + 4.0) * HALF_ULP;
}

static void check_softmax_row(const float *z, const float *y, const float *up, const float *g,
                              int64_t n) {
  double at[128] = {0}, p[128], moved[128], q[128];
  for (int64_t i = 0; i < n; ++i) {
    at[i] = (double)z[i];
  }
  softmax_reference(at, n, p);
  for (int64_t i = 0; i < n; ++i) {
    assert_near((double)y[i], p[i], softmax_tolerance(n) * p[i], "softmax");
    const double h = 1e-5;
    double slope = 0.0, size = 0.0;
    for (int side = -1; side <= 1; side += 2) { /* of sum(up * p) along z[i] */
      memcpy(moved, at, sizeof moved);
      moved[i] += side * h;
      softmax_reference(moved, n, q);
      for (int64_t k = 0; k < n; ++k) {
        slope += side * (double)up[k] * q[k] / (2 * h);
      }
    }
    for (int64_t k = 0; k < n; ++k) {
      size += fabs((double)up[k]) * p[k];
    }
    const double bound = p[i] * (fabs((double)up[i]) + size);
    assert_near((double)g[i], slope, 3.0 * softmax_tolerance(n) * bound + 1e-9, "its derivative");
  }
}

static void test_softmax(void **state) {
  (void)state;
  lks_activation softmax = {NULL, 0.0};
  for (int i = 0; lks_activation_kinds[i] != NULL; ++i) {
    if (strcmp(lks_activation_kinds[i]->name, "softmax") == 0) {
      softmax.kind = lks_activation_kinds[i];
    }
  }
  for (size_t w = 0; w < WIDTHS; ++w) {
    const int64_t n = widths[w], rows = 4;
    const size_t count = (size_t)(rows * n);
    guarded z = guard(count), y = guard(count), g = guard(count);
    float *up = malloc(count * sizeof *up);
    assert_non_null(up);
    fill(z.values, count, 5, 8.0f);
    fill(g.values, count, 6, 2.0f);
    memcpy(up, g.values, count * sizeof *up);
    lks_activate_cpu(&softmax, NULL, z.values, y.values, rows, n);
    lks_derive_cpu(&softmax, y.values, z.values, g.values, rows, n);
    for (int64_t r = 0; r < rows; ++r) {
      check_softmax_row(z.values + r * n, y.values + r * n, up + r * n, g.values + r * n, n);
    }
    free(up);
    unguard(&z);
    unguard(&y);
    unguard(&g);
  }
  float far[3] = {1e4f, -1e4f, 1e4f}, y[3];
  lks_activate_cpu(&softmax, NULL, far, y, 1, 3);
  assert_true(y[0] == 0.5f && y[1] == 0.0f && y[2] == 0.5f);
}

/* ---- gather, finite check */

static void test_gather(void **state) {
  (void)state;
  float base[7 * 5];
  static const int64_t index[] = {6, 0, 3, 3};
  fill(base, 35, 8, 1.0f);
  guarded out = guard(4 * 5);
  lks_gather_cpu(base, index, 4, 5, out.values);
  for (int i = 0; i < 4; ++i) {
    assert_memory_equal(out.values + 5 * i, base + 5 * index[i], 5 * sizeof(float));
  }
  lks_gather_cpu(base + 10, NULL, 4, 5, out.values);
  assert_memory_equal(out.values, base + 10, 20 * sizeof(float));
  lks_gather_cpu(base, index, 0, 5, out.values);
  assert_memory_equal(out.values, base + 10, 20 * sizeof(float));
  unguard(&out);
}

static void test_all_finite(void **state) {
  (void)state;
  static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
  float values[80];
  fill(values, 80, 9, 1.0f);
  values[3] = FLT_MAX;
  values[4] = -FLT_MAX;
  values[5] = 1e-45f;
  assert_true(lks_all_finite(values, 0));
  for (size_t count = 1; count <= 80; ++count) {
    assert_true(lks_all_finite(values, count));
    for (size_t at = 0; at < count; ++at) {
      for (size_t k = 0; k < 4; ++k) {
        const float kept = values[at];
        values[at] = bad[k];
        assert_false(lks_all_finite(values, count));
        assert_true(lks_all_finite(values, at)); /* and nothing beyond is looked at */
        values[at] = kept;
      }
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_forward),
      cmocka_unit_test(test_same_bits_anywhere),
      cmocka_unit_test(test_bias_alone),
      cmocka_unit_test(test_derivatives),
      cmocka_unit_test(test_only_some_need_input),
      cmocka_unit_test(test_extremes),
      cmocka_unit_test(test_softmax),
      cmocka_unit_test(test_gather),
      cmocka_unit_test(test_all_finite),
  };
  return cmocka_run_group_tests_name("pointwise", tests, NULL, NULL);
}
