/* What `lockstep bench` says of ranks that lose to fewer. */
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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_more_ranks_win), cmocka_unit_test(test_a_larger_batch_wins),
      cmocka_unit_test(test_no_batch_wins_where_computing_gains_nothing)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
