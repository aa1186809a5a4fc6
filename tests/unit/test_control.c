/* The control block: counts add up exactly over ranks, reals to the last bits, votes are counted.
 */
#include "scratch.h"

#include <math.h>

#include "plan/control.h"

/* Adds a rank's block to the sum, as the exchange does. */
static void add(float *sum, const float *block) {
  for (int i = 0; i < LKS_CONTROL_FLOATS; ++i) {
    sum[i] += block[i];
  }
}

/* A pair adds to 64 bits what no single float could hold. */
static void check_count(int64_t count, int ranks) {
  float block[LKS_CONTROL_FLOATS] = {0}, sum[LKS_CONTROL_FLOATS] = {0};
  lks_control control = {0};
  lks_control_put_count(block + LKS_CONTROL_ROWS, count);
  for (int rank = 0; rank < ranks; ++rank) {
    add(sum, block);
  }
  lks_control_decode(sum, &control);
  assert_int_equal(control.rows, count * ranks);
}

static void test_counts(void **state) {
  (void)state;
  static const int64_t counts[] = {0,       1,       2,        4095,     4096,         4097,
                                   8191,    65535,   16777215, 16777216, 16777217,     33554433,
                                   1000001, 9999999, 99999999, 1 << 30,  (1 << 26) - 1};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; ++i) {
    check_count(counts[i], 1);
    check_count(counts[i], 3);
    check_count(counts[i], 64);
  }
  check_count(4095, 4096);
  for (int64_t count = 0; count < 100000; count += 37) {
    check_count(count, 7);
  }
}

static void test_different_counts(void **state) {
  (void)state;
  float sum[LKS_CONTROL_FLOATS] = {0};
  lks_control control = {0};
  int64_t total = 0;
  for (int64_t rank = 0; rank < 1000; ++rank) {
    float block[LKS_CONTROL_FLOATS] = {0};
    const int64_t count = rank * rank * 37 % 1000003;
    lks_control_put_count(block + LKS_CONTROL_ROWS, count);
    add(sum, block);
    total += count;
  }
  lks_control_decode(sum, &control);
  assert_int_equal(control.rows, total);
}

static void test_beyond_floats(void **state) {
  (void)state;
  static const double beyond[] = {1e39, -1e300, INFINITY};
  for (size_t i = 0; i < sizeof beyond / sizeof *beyond; ++i) {
    float block[LKS_CONTROL_FLOATS] = {0};
    lks_control control = {0};
    assert_false(lks_control_holds(beyond[i]));
    lks_control_put_real(block + LKS_CONTROL_LOSS, beyond[i]);
    lks_control_decode(block, &control);
    assert_true(isinf(control.loss) && (control.loss > 0) == (beyond[i] > 0));
  }
  assert_false(lks_control_holds((double)NAN));
  assert_true(lks_control_holds(3e38) && lks_control_holds(-3e38) && lks_control_holds(0.0));
}

/* Two floats hold a real to 2^-48 of it: each part is rounded to 24 bits. */
static void test_reals(void **state) {
  (void)state;
  static const double values[] = {
      0.0,      0.1,   1.0 / 3.0,  3.141592653589793, -2.718281828459045,
      1e10 / 7, 1e-10, 12345678.9, 16777217.0};
  for (size_t i = 0; i < sizeof values / sizeof *values; ++i) {
    float block[LKS_CONTROL_FLOATS] = {0};
    lks_control control = {0};
    lks_control_put_real(block + LKS_CONTROL_LOSS, values[i]);
    lks_control_decode(block, &control);
    assert_true(fabs(control.loss - values[i]) <= 0x1p-48 * fabs(values[i]));
  }
}

/* Nothing that is not finite looks finite afterwards. */
static void test_not_finite(void **state) {
  (void)state;
  static const double values[] = {NAN, INFINITY, -INFINITY, 1e300};
  for (size_t i = 0; i < sizeof values / sizeof *values; ++i) {
    float block[LKS_CONTROL_FLOATS] = {0};
    lks_control control = {0};
    lks_control_put_real(block + LKS_CONTROL_LOSS, values[i]);
    lks_control_decode(block, &control);
    assert_true(!isfinite(control.loss));
    assert_int_equal(control.not_finite, 1);
  }
}

/* Each number has a place of its own. */
static void test_places(void **state) {
  (void)state;
  float block[LKS_CONTROL_FLOATS] = {0};
  lks_control control = {.step = 5, .not_finite_here = true};
  lks_control_put_real(block + LKS_CONTROL_LOSS, 0.5);
  lks_control_put_count(block + LKS_CONTROL_ROWS, 12);
  block[LKS_CONTROL_STOP] = 1.0f;
  block[LKS_CONTROL_SAVE] = 2.0f;
  block[LKS_CONTROL_FAILED] = 3.0f;
  block[LKS_CONTROL_NOT_FINITE] = 4.0f;
  for (int i = 0; i < LKS_MAX_METRICS; ++i) {
    lks_control_put_real(block + LKS_CONTROL_METRICS + 2 * i, 100.0 + i);
  }
  lks_control_decode(block, &control);
  assert_true(control.loss == 0.5);
  assert_int_equal(control.rows, 12);
  assert_int_equal(control.stop, 1);
  assert_int_equal(control.save, 2);
  assert_int_equal(control.failed, 3);
  assert_int_equal(control.not_finite, 4);
  for (int i = 0; i < LKS_MAX_METRICS; ++i) {
    assert_true(control.metrics[i] == 100.0 + i);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_counts),        cmocka_unit_test(test_different_counts),
      cmocka_unit_test(test_beyond_floats), cmocka_unit_test(test_reals),
      cmocka_unit_test(test_not_finite),    cmocka_unit_test(test_places),
  };
  return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
