/* The CPU backend's own exp, tanh and the like against libm's in double: errors, edges, NaN. */
#include "model_fixture.h"

#include "backend/cpu/elementary.h"

static float normal_of(float x) {
  return lks_normal(x, lks_gauss(x));
}

static double sigmoid(double x) {
  return 1.0 / (1.0 + exp(-x));
}

static double gauss(double x) {
  return exp(-0.5 * x * x);
}

static double normal(double x) {
  return 0.5 * erfc(-x / sqrt(2.0));
}

/* Where it is held to the double function, and the error that elementary.h states. */
static const struct {
  const char *name;
  float (*ours)(float);
  double (*exact)(double);
  float from, to;
  double ulps;
} functions[] = {
    {"exp", lks_exp, exp, -104.0f, 89.0f, 1.1},
    {"expm1", lks_expm1, expm1, -104.0f, 20.0f, 1.8},
    {"log1p", lks_log1p, log1p, 0.0f, 1.0f, 2.0},
    {"tanh", lks_tanh, tanh, -20.0f, 20.0f, 2.6},
    {"sigmoid", lks_sigmoid, sigmoid, -104.0f, 104.0f, 2.5},
    {"gauss", lks_gauss, gauss, -20.0f, 20.0f, 1.7},
    {"normal", normal_of, normal, -20.0f, 20.0f, 4.6},
};
enum { FUNCTIONS = sizeof functions / sizeof *functions };

static bool is_normal(double value) {
  return fabs(value) >= 0x1p-126 && fabs(value) < 0x1p128;
}

/* Every 4,099th float, of all signs and sizes. */
static void test_errors(void **state) {
  (void)state;
  for (int f = 0; f < FUNCTIONS; ++f) {
    double worst = 0.0;
    int64_t looked_at = 0;
    for (uint64_t bits = 0; bits < UINT64_C(1) << 32; bits += 4099) {
      const float x = lks_float_of_bits((uint32_t)bits);
      if (!(x >= functions[f].from && x <= functions[f].to) || !is_normal((double)x)) {
        continue;
      }
      const double exact = functions[f].exact((double)x);
      if (is_normal(exact)) {
        const double ulp = ldexp(1.0, ilogb(exact) - 23);
        const double error = fabs((double)functions[f].ours(x) - exact) / ulp;
        worst = error <= worst ? worst : isnan(error) ? INFINITY : error;
        looked_at += 1;
      }
    }
    print_message("%s: %.2f ulp at most, %lld floats\n", functions[f].name, worst,
                  (long long)looked_at);
    assert_true(worst <= functions[f].ulps);
    assert_true(looked_at > 200000);
  }
}

static void test_edges(void **state) {
  (void)state;
  for (int f = 0; f < FUNCTIONS; ++f) {
    assert_true(isnan(functions[f].ours(NAN)) && isnan(functions[f].ours(-NAN)));
  }
  assert_true(lks_exp(0.0f) == 1.0f && lks_expm1(0.0f) == 0.0f && lks_log1p(0.0f) == 0.0f);
  assert_true(lks_exp(INFINITY) == INFINITY && lks_exp(-INFINITY) == 0.0f);
  assert_true(lks_exp(88.8f) == INFINITY && lks_exp(-1e30f) == 0.0f);
  assert_true(lks_expm1(-INFINITY) == -1.0f && lks_expm1(-30.0f) == -1.0f);
  assert_true(lks_tanh(INFINITY) == 1.0f && lks_tanh(-INFINITY) == -1.0f);
  assert_true(lks_tanh(0.0f) == 0.0f && signbit(lks_tanh(-0.0f)));
  assert_true(lks_sigmoid(0.0f) == 0.5f && lks_sigmoid(INFINITY) == 1.0f);
  assert_true(lks_sigmoid(-INFINITY) == 0.0f);
  assert_true(lks_gauss(0.0f) == 1.0f && lks_gauss(-INFINITY) == 0.0f);
  assert_true(normal_of(INFINITY) == 1.0f && normal_of(-INFINITY) == 0.0f);
  assert_true(lks_expm1(1e30f) == lks_expm1(20.0f)); /* and no overflow of an integer before */
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_errors), cmocka_unit_test(test_edges)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
