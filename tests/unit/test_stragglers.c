/* Slow ranks: who is named, when it matters, and when there is advice. */
#include "scratch.h"

#include "train/stragglers.h"

enum { SIZE = 4 };

static char line[1024];

/* Ranks of a 10 s epoch that were busy so long; rank 0 and 1 on n1, the others on n2. */
static void set_paces(lks_pace *paces, const double busy[SIZE]) {
  for (int rank = 0; rank < SIZE; ++rank) {
    paces[rank] = (lks_pace){.seconds = 10.0, .wait = 10.0 - busy[rank], .input = 0.1};
    (void)snprintf(paces[rank].host, sizeof paces[rank].host, "n%d", 1 + rank / 2);
  }
}

static bool judge(const double busy[SIZE], lks_straggler *straggler) {
  lks_pace paces[SIZE];
  set_paces(paces, busy);
  return lks_straggler_judge(paces, SIZE, 7, straggler, line, sizeof line);
}

static void test_names_the_slowest(void **state) {
  (void)state;
  for (int slow = 0; slow < SIZE; ++slow) {
    lks_straggler straggler = {0};
    double busy[SIZE] = {6.0, 6.1, 5.9, 6.0};
    char words[64];
    busy[slow] = 9.9;
    assert_true(judge(busy, &straggler));
    assert_int_equal(straggler.rank, slow);
    (void)snprintf(words, sizeof words, "rank %d on n%d held the others up in epoch 7", slow,
                   1 + slow / 2);
    assert_non_null(strstr(line, words));
    assert_non_null(strstr(line, "busy for 9.9 of 10.0 s, the median rank for 6.0 s"));
    assert_non_null(strstr(line, "slow in computing"));
    assert_null(strstr(line, "--exclude"));
  }
}

static void test_what_does_not_matter(void **state) {
  (void)state;
  lks_straggler straggler = {0};
  assert_false(judge((const double[SIZE]){9.0, 9.1, 9.2, 9.3}, &straggler)); /* all alike */
  assert_false(judge((const double[SIZE]){8.0, 8.0, 8.0, 9.5}, &straggler)); /* 1.19 times */
  assert_false(judge((const double[SIZE]){0.1, 0.1, 0.1, 0.5}, &straggler)); /* 4 % of the epoch */
  assert_true(judge((const double[SIZE]){8.0, 8.0, 8.0, 9.7}, &straggler));  /* 1.21 times */
  assert_true(judge((const double[SIZE]){0.1, 0.1, 0.1, 0.61}, &straggler)); /* 5.1 % */
  lks_pace paces[SIZE];
  set_paces(paces, (const double[SIZE]){6.0, 6.0, 6.0, 9.9});
  for (int rank = 0; rank < SIZE; ++rank) { /* a short epoch: what was sampled is chance */
    paces[rank].seconds /= 6.0;
    paces[rank].wait /= 6.0;
  }
  assert_false(lks_straggler_judge(paces, SIZE, 1, &straggler, line, sizeof line));
  assert_int_equal(straggler.rank, -1);
  assert_false(lks_straggler_judge(paces, 1, 1, &straggler, line, sizeof line));
}

/* Of two ranks the slower one is held against the other. */
static void test_two_ranks(void **state) {
  (void)state;
  lks_pace paces[SIZE];
  lks_straggler straggler = {0};
  set_paces(paces, (const double[SIZE]){9.9, 5.0, 0.0, 0.0});
  assert_true(lks_straggler_judge(paces, 2, 1, &straggler, line, sizeof line));
  assert_int_equal(straggler.rank, 0);
  assert_non_null(strstr(line, "the median rank for 5.0 s"));
}

static void test_slow_reading(void **state) {
  (void)state;
  lks_pace paces[SIZE];
  lks_straggler straggler = {0};
  set_paces(paces, (const double[SIZE]){6.0, 6.0, 6.0, 9.9});
  paces[3].input = 3.5;
  assert_true(lks_straggler_judge(paces, SIZE, 1, &straggler, line, sizeof line));
  assert_non_null(strstr(line, "rank 3 on n2"));
  assert_non_null(strstr(line, "slow in reading rows"));
}

/* The same host three epochs in a row, by whichever of its ranks; once, not again and again. */
static void test_advice(void **state) {
  (void)state;
  static const double second[SIZE] = {6.0, 6.0, 6.0, 9.9}, third[SIZE] = {6.0, 6.0, 9.9, 6.0},
                      first[SIZE] = {9.9, 6.0, 6.0, 6.0}, even[SIZE] = {6.0, 6.0, 6.0, 6.0};
  const struct {
    const double *busy;
    bool advice;
  } epochs[] = {{second, false}, {third, false}, {second, true}, {third, false},  {first, false},
                {second, false}, {even, false},  {third, false}, {second, false}, {second, true}};
  lks_straggler straggler = {0};
  for (size_t i = 0; i < sizeof epochs / sizeof *epochs; ++i) {
    line[0] = '\0';
    assert_int_equal(judge(epochs[i].busy, &straggler), epochs[i].busy != even);
    assert_int_equal(strstr(line, "--exclude-host n2") != NULL, epochs[i].advice);
    assert_int_equal(strstr(line, "--exclude=n2") != NULL, epochs[i].advice);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_names_the_slowest),
      cmocka_unit_test(test_what_does_not_matter),
      cmocka_unit_test(test_two_ranks),
      cmocka_unit_test(test_slow_reading),
      cmocka_unit_test(test_advice),
  };
  return cmocka_run_group_tests_name("stragglers", tests, NULL, NULL);
}
