/* Initial values: limits and moments of each scheme within derived bounds, and that an element
 * depends on seed, parameter and its number alone. */
#include "model_fixture.h"

enum { INPUTS = 120, UNITS = 200, COUNT = INPUTS * UNITS };

/* The kernel of one dense layer, initialised under a seed. */
static void kernel_of(const char *initializer, uint64_t seed, float *out) {
  char yaml[256];
  recipe made;
  (void)snprintf(yaml, sizeof yaml,
                 "model: [dense: {units: %d, kernel_initializer: %s}]\nloss: mse", UNITS,
                 initializer);
  recipe_make(&made, INPUTS, UNITS, yaml);
  float *all = malloc((size_t)made.model->arena_floats * sizeof *all);
  assert_non_null(all);
  lks_model_initialise(made.model, seed, all);
  memcpy(out, all + made.model->parameters[0].offset, COUNT * sizeof *out);
  free(all);
  recipe_free(&made);
}

typedef struct expected {
  const char *initializer;
  double mean, stddev, kurtosis; /* of the distribution; kurtosis: E (x - mean)^4 / stddev^4 */
  double low, high;              /* its ends; 0, 0: none */
} expected;

/* Six standard deviations: of a mean, stddev / sqrt(n); of a variance, stddev^2
 * sqrt((kurtosis - 1) / n). */
static void check_moments(const expected *e, const float *values) {
  double sum = 0.0, squares = 0.0, least = INFINITY, most = -INFINITY;
  for (int i = 0; i < COUNT; ++i) {
    const double d = (double)values[i] - e->mean;
    sum += d;
    squares += d * d;
    least = fmin(least, (double)values[i]);
    most = fmax(most, (double)values[i]);
  }
  const double variance = e->stddev * e->stddev;
  assert_near(sum / COUNT, 0.0, 6.0 * e->stddev / sqrt(COUNT), e->initializer);
  assert_near(squares / COUNT, variance, 6.0 * variance * sqrt((e->kurtosis - 1.0) / COUNT),
              e->initializer);
  if (e->high > e->low) {
    /* None outside; the ends are neared: 20 / n of the range holds a value but for exp(-20). */
    const double slack = HALF_ULP * fmax(fabs(e->low), fabs(e->high));
    assert_true(least >= e->low - slack && most <= e->high + slack);
    if (e->kurtosis < 2.0) {
      const double gap = 20.0 / COUNT * (e->high - e->low);
      assert_true(least < e->low + gap && most > e->high - gap);
    }
  }
}

/* A standard normal cut at two, Z = erf(sqrt 2): E x^2 = 1 - 4 phi(2) / Z, E x^4 = 3 E x^2 -
 * 16 phi(2) / Z. */
#define CUT_STDDEV 0.87962566103423978
#define CUT_KURTOSIS 2.3655

static void test_schemes(void **state) {
  (void)state;
  static float values[COUNT];
  const double fan = INPUTS, both = 0.5 * (INPUTS + UNITS);
  const double glorot = sqrt(3.0 / both), he = sqrt(6.0 / fan), lecun = sqrt(3.0 / fan);
  const double root3 = sqrt(3.0), cut = 2.0 / CUT_STDDEV;
  const expected all[] = {
      {"glorot_uniform", 0, glorot / root3, 1.8, -glorot, glorot},
      {"he_uniform", 0, he / root3, 1.8, -he, he},
      {"lecun_uniform", 0, lecun / root3, 1.8, -lecun, lecun},
      {"{name: random_uniform, minval: -1, maxval: 3}", 1, 4 / sqrt(12.0), 1.8, -1, 3},
      {"random_uniform", 0, 0.1 / sqrt(12.0), 1.8, -0.05, 0.05},
      {"{name: random_normal, mean: 2, stddev: 0.5}", 2, 0.5, 3.0, 0, 0},
      {"random_normal", 0, 0.05, 3.0, 0, 0},
      {"truncated_normal", 0, 0.05 * CUT_STDDEV, CUT_KURTOSIS, -0.1, 0.1},
      {"glorot_normal", 0, sqrt(1 / both), CUT_KURTOSIS, -cut / sqrt(both), cut / sqrt(both)},
      {"he_normal", 0, sqrt(2 / fan), CUT_KURTOSIS, -cut * sqrt(2 / fan), cut * sqrt(2 / fan)},
      {"lecun_normal", 0, sqrt(1 / fan), CUT_KURTOSIS, -cut / sqrt(fan), cut / sqrt(fan)}};
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) {
    kernel_of(all[i].initializer, 11, values);
    check_moments(&all[i], values);
  }
}

/* A plain normal does leave two standard deviations, about 4.55 % of it. */
static void test_tails(void **state) {
  (void)state;
  static float values[COUNT];
  int beyond = 0;
  kernel_of("{name: random_normal, stddev: 1}", 5, values);
  for (int i = 0; i < COUNT; ++i) {
    beyond += fabsf(values[i]) > 2.0f;
  }
  const double share = 0.0455003, spread = sqrt(share * (1.0 - share) / COUNT);
  assert_near((double)beyond / COUNT, share, 6.0 * spread, "beyond two");
}

static void test_constants(void **state) {
  (void)state;
  static const struct {
    const char *initializer;
    float value;
  } all[] = {{"zeros", 0.0f}, {"ones", 1.0f}, {"{name: constant, value: -2.5}", -2.5f}};
  static float values[COUNT];
  for (size_t k = 0; k < sizeof all / sizeof *all; ++k) {
    kernel_of(all[k].initializer, 1, values);
    for (int i = 0; i < COUNT; ++i) {
      assert_true(values[i] == all[k].value);
    }
  }
}

/* Uncorrelated within six standard deviations: a mean of products of unit variables. */
static void check_independent(const float *a, const float *b, int count, const char *what) {
  double mean_a = 0, mean_b = 0, aa = 0, bb = 0, ab = 0;
  for (int i = 0; i < count; ++i) {
    mean_a += (double)a[i] / count;
    mean_b += (double)b[i] / count;
  }
  for (int i = 0; i < count; ++i) {
    const double x = (double)a[i] - mean_a, y = (double)b[i] - mean_b;
    aa += x * x;
    bb += y * y;
    ab += x * y;
  }
  assert_near(ab / sqrt(aa * bb), 0.0, 6.0 / sqrt(count), what);
}

static void check_streams(const char *initializer) {
  static float first[COUNT], again[COUNT], other[COUNT];
  kernel_of(initializer, 1, first);
  kernel_of(initializer, 1, again);
  assert_memory_equal(first, again, sizeof first);
  kernel_of(initializer, 2, other);
  check_independent(first, other, COUNT, "seeds");
  kernel_of(initializer, (uint64_t)1 << 32 | 1, other);
  check_independent(first, other, COUNT, "upper half of the seed");
  for (int lag = 1; lag < 5; ++lag) {
    check_independent(first, first + lag, COUNT - lag, "neighbours");
  }
}

static void test_independence(void **state) {
  (void)state;
  check_streams("glorot_uniform");
  check_streams("random_normal");
  check_streams("truncated_normal");
}

/* Two parameters of one shape differ; a layer more does not change those before it. */
static void test_parameters_have_streams(void **state) {
  (void)state;
  recipe one, two;
  recipe_make(&one, 64, 64, "model: [dense: {units: 64}]\nloss: mse");
  recipe_make(&two, 64, 64, "model: [dense: {units: 64}, dense: {units: 64}]\nloss: mse");
  float *a = malloc((size_t)one.model->arena_floats * sizeof *a);
  float *b = malloc((size_t)two.model->arena_floats * sizeof *b);
  assert_true(a != NULL && b != NULL);
  lks_model_initialise(one.model, 9, a);
  lks_model_initialise(two.model, 9, b);
  assert_memory_equal(a, b, 64 * 64 * sizeof *a);
  check_independent(b, b + two.model->parameters[2].offset, 64 * 64, "parameters");
  free(a);
  free(b);
  recipe_free(&one);
  recipe_free(&two);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_schemes),
      cmocka_unit_test(test_tails),
      cmocka_unit_test(test_constants),
      cmocka_unit_test(test_independence),
      cmocka_unit_test(test_parameters_have_streams),
  };
  return cmocka_run_group_tests_name("initializer", tests, NULL, NULL);
}
