/* Shares that follow the cores' speed, by times that are made up. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "backend/cpu/shares.h"

static void open_shares(lks_shares *shares, int ranks) {
  lks_error err;
  assert_int_equal(lks_shares_open(shares, ranks, &err), LKS_OK);
}

/* They cover 1, one behind the other, and none is below what is promised. */
static void check_cover(const lks_shares *shares) {
  double next = 0.0;
  for (int r = 0; r < shares->ranks; ++r) {
    assert_true(lks_shares_begin(shares, r) == next);
    assert_true(shares->of[r] >= LKS_LEAST_SHARE / shares->ranks * (1.0 - 1e-9));
    next += shares->of[r];
  }
  assert_true(fabs(next - 1.0) < 1e-9);
  assert_true(lks_shares_begin(shares, shares->ranks) == 1.0);
}

/* A step of so many seconds for one rank at speed 1, by cores of these speeds. */
static void step(lks_shares *shares, const double *speeds, double seconds) {
  for (int r = 0; r < shares->ranks; ++r) {
    shares->took[r] = (float)(seconds * shares->of[r] / speeds[r]);
  }
  lks_shares_follow(shares);
  check_cover(shares);
}

static void test_even(void **state) {
  (void)state;
  static const double same[] = {2.0, 2.0, 2.0, 2.0, 2.0};
  for (int ranks = 1; ranks <= 5; ++ranks) {
    lks_shares shares;
    open_shares(&shares, ranks);
    check_cover(&shares);
    for (int i = 0; i < 20; ++i) {
      step(&shares, same, 0.1);
    }
    for (int r = 0; r < ranks; ++r) {
      assert_true(fabs(shares.of[r] - 1.0 / ranks) < 1e-6); /* times are floats */
    }
    lks_shares_close(&shares);
  }
}

/* Shares become those of the speeds, and again when these change; in long steps within few. */
static void test_follow(void **state) {
  (void)state;
  static const double before[] = {1.0, 1.5, 0.8}, after[] = {1.6, 1.0, 1.0};
  static const struct {
    double seconds;
    int steps;
  } runs[] = {{0.3, 20}, {2.5e-4, 300}};
  for (size_t i = 0; i < sizeof runs / sizeof *runs; ++i) {
    lks_shares shares;
    open_shares(&shares, 3);
    for (int k = 0; k < runs[i].steps; ++k) {
      step(&shares, before, runs[i].seconds);
    }
    for (int r = 0; r < 3; ++r) {
      assert_true(fabs(shares.of[r] - before[r] / 3.3) < 1e-3);
    }
    for (int k = 0; k < runs[i].steps; ++k) {
      step(&shares, after, runs[i].seconds);
    }
    for (int r = 0; r < 3; ++r) {
      assert_true(fabs(shares.of[r] - after[r] / 3.6) < 1e-3);
    }
    lks_shares_close(&shares);
  }
}

/* A rank that hardly gets a core keeps its least share; one step's interruption moves little where
 * steps are short; a time that is missing, nothing. */
static void test_outliers(void **state) {
  (void)state;
  static const double stopped[] = {1.0, 1e-6, 1.0, 1.0};
  lks_shares shares;
  open_shares(&shares, 4);
  for (int i = 0; i < 100; ++i) {
    step(&shares, stopped, 0.1);
  }
  assert_true(shares.of[1] < 0.5 / 4);
  lks_shares_close(&shares);
  open_shares(&shares, 2);
  shares.took[0] = 2e-4f;
  shares.took[1] = 4e-4f;
  lks_shares_follow(&shares);
  check_cover(&shares);
  assert_true(shares.of[0] > 0.5 && shares.of[0] < 0.54);
  const double was = shares.of[0];
  shares.took[1] = 0.0f;
  lks_shares_follow(&shares);
  shares.took[1] = NAN;
  lks_shares_follow(&shares);
  assert_true(shares.of[0] == was);
  lks_shares_close(&shares);
}

/* Even for a while, and then as before. */
static void test_even_for_now(void **state) {
  (void)state;
  static const double speeds[] = {1.0, 2.0, 3.0};
  lks_shares shares;
  open_shares(&shares, 3);
  step(&shares, speeds, 0.1);
  const double was = shares.of[0];
  assert_true(was < 0.3);
  shares.even = true;
  assert_true(lks_shares_begin(&shares, 1) == 1.0 / 3 && lks_shares_begin(&shares, 3) == 1.0);
  lks_shares_follow(&shares);
  shares.even = false;
  assert_true(lks_shares_begin(&shares, 1) == was);
  lks_shares_close(&shares);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_even), cmocka_unit_test(test_follow),
                                     cmocka_unit_test(test_outliers),
                                     cmocka_unit_test(test_even_for_now)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
