/* The blocks of a table, dealt to ranks in rounds: each once, in order, and few enough at a time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "train/run.h"

/* Walks all rounds as their users do. */
static void check_dealt(int64_t rows, int ranks, size_t block_bytes) {
  const lks_rounds rounds = lks_rounds_make(rows, ranks, block_bytes);
  int64_t next = 0, covered = 0;
  for (int64_t round = 0; round < rounds.rounds; ++round) {
    for (int rank = 0; rank < ranks; ++rank) {
      for (int64_t k = 0; k < rounds.per_rank; ++k) {
        int64_t first = 0, count = 0;
        const int64_t block = lks_rounds_block(&rounds, round, rank, ranks, k);
        if (block < 0) {
          continue;
        }
        lks_rounds_rows(&rounds, block, &first, &count);
        assert_int_equal(block, next);
        assert_int_equal(first, covered);
        next += 1;
        covered += count;
      }
    }
  }
  assert_int_equal(covered, rows);
}

static void test_dealt(void **state) {
  (void)state;
  static const int64_t rows[] = {1, 255, 256, 257, 5000, 100000};
  static const size_t bytes[] = {8, 1 << 20, (size_t)1 << 30};
  for (size_t r = 0; r < sizeof rows / sizeof *rows; ++r) {
    for (int ranks = 1; ranks <= 5; ++ranks) {
      for (size_t b = 0; b < sizeof bytes / sizeof *bytes; ++b) {
        check_dealt(rows[r], ranks, bytes[b]);
      }
    }
  }
}

/* Every rank holds what all gather: of large blocks fewer, down to one of each. */
static void test_memory(void **state) {
  (void)state;
  const size_t mib = (size_t)1 << 20;
  assert_int_equal(lks_rounds_make(1000000, 2, 64).per_rank, 16);
  assert_int_equal(lks_rounds_make(1000000, 2, 4 * mib).per_rank, 8);
  assert_int_equal(lks_rounds_make(1000000, 4, 4 * mib).per_rank, 4);
  assert_int_equal(lks_rounds_make(1000000, 4, 200 * mib).per_rank, 1);
  assert_int_equal(lks_rounds_make(300, 1, 64).per_rank, 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_dealt),
      cmocka_unit_test(test_memory),
  };
  return cmocka_run_group_tests_name("rounds", tests, NULL, NULL);
}
