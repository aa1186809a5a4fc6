/* What `lockstep bench` says of ranks that lose to fewer. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "train/bench.h"

static void test_more_ranks_win(void **state) {
  (void)state;
  const lks_bench_row rows[] = {{.ranks = 1, .batch = 32, .step = 4e-6, .compute = 3e-6},
                                {.ranks = 2, .batch = 32, .step = 3e-6, .compute = 1.5e-6}};
  int faster = -1;
  int64_t batch = -1;
  assert_false(lks_bench_loses(rows, 2, &faster, &batch));
  assert_false(lks_bench_loses(rows, 1, &faster, &batch)); /* one rank has nobody to lose to */
}

/* Of 32 rows 1.5 us are saved and 3 us are added: both are even at 64. */
static void test_a_larger_batch_wins(void **state) {
  (void)state;
  const lks_bench_row rows[] = {{.ranks = 1, .batch = 32, .step = 4e-6, .compute = 3e-6},
                                {.ranks = 2, .batch = 32, .step = 5.5e-6, .compute = 1.5e-6}};
  int faster = -1;
  int64_t batch = -1;
  assert_true(lks_bench_loses(rows, 2, &faster, &batch));
  assert_int_equal(faster, 0);
  assert_in_range(batch, 64, 65); /* rounded up from a quotient of doubles */
}

static void test_no_batch_wins_where_computing_gains_nothing(void **state) {
  (void)state;
  const lks_bench_row rows[] = {{.ranks = 1, .batch = 32, .step = 6e-6, .compute = 3e-6},
                                {.ranks = 2, .batch = 32, .step = 4e-6, .compute = 3e-6},
                                {.ranks = 4, .batch = 32, .step = 9e-6, .compute = 3e-6}};
  int faster = -1;
  int64_t batch = -1;
  assert_true(lks_bench_loses(rows, 3, &faster, &batch));
  assert_int_equal(faster, 1); /* the fastest, not the fewest */
  assert_int_equal(batch, 0);
}

static void assert_near(double value, double wanted) {
  assert_true(fabs(value - wanted) < 1e-12 * wanted);
}

/* 2 ranks of 3 flop/s each do 12 in 4 s; 10 bytes in 2 s of 20 a second; the exchange of 1,000
 * parameters and of 9,999 more at 1 us each, in the time of exchange and update. */
static void test_ratios(void **state) {
  (void)state;
  lks_bench_row row = {.ranks = 2,
                       .step = 4,
                       .exchange = 1,
                       .update = 2,
                       .parameters = 10999,
                       .flops = 12,
                       .update_bytes = 10};
  const lks_bench_limits limits = {.ranks = 2,
                                   .product_flops = 3,
                                   .memory_bytes = 20,
                                   .exchange_small = 1.0,
                                   .exchange_large = 1.0 + 9.999};
  lks_bench_ratios ratios = lks_bench_compare(&row, &limits);
  assert_near(ratios.peak, 0.5);
  assert_near(ratios.memory, 0.25);
  assert_near(ratios.exchange, 1.009999 / 3);
  row.parameters = 10; /* no less than the latency */
  assert_near(lks_bench_compare(&row, &limits).exchange, 1.0 / 3);
  row.ranks = 1;
  assert_true(lks_bench_compare(&row, &limits).exchange == 0.0);
  row.flops = 0.0; /* a GPU's: not set against what the CPU can do */
  ratios = lks_bench_compare(&row, &limits);
  assert_true(ratios.peak == 0.0 && ratios.memory == 0.0 && ratios.exchange == 0.0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_ratios), cmocka_unit_test(test_more_ranks_win),
      cmocka_unit_test(test_a_larger_batch_wins),
      cmocka_unit_test(test_no_batch_wins_where_computing_gains_nothing)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
