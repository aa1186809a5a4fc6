/* How a plan makes gradients: which of the three ways it chooses, and what follows. */
#include "model_fixture.h"

#include "plan/plan.h"

static lks_error err;

/* Networks of `inputs`-128-10, with padding to 64 floats a tensor. */
static const char net[] = "model: [dense: {units: 128, activation: relu}, dense: {units: 10}]\n"
                          "loss: sparse_categorical_crossentropy";

/* By owners where the rows of a batch are fewer floats than the parameters, by 16,384 for a
 * barrier, and on one rank where it need not write gradients of few rows by large weights at all:
 * 784-128-10 moves 784 / 2 + 128 + 128 / 2 + 10 floats a row on two ranks, and has 101,824
 * parameters. Where shares are walked in blocks, activations are not all there. */
static const int64_t most_owned = (101824 - 16384) / 594;

/* By the leader where a step's work is at most 400,000 and 150 a parameter: 20-128-10 has 4,032
 * parameters, 6 operations a row each, and 20 + 1 floats of a row, 128 + 10 of its outputs and 128
 * twice for gradients, 8 operations each. */
static const int64_t most_whole = (400000 + 150 * 4032) / (6 * 4032 + 8 * (21 + 138 + 256));

static void test_choice(void **state) {
  (void)state;
  const struct {
    int64_t inputs, batch;
    int ranks;
    lks_gradients asked, chosen;
  } cases[] = {{784, most_owned, 2, LKS_BY_BEST, LKS_BY_OWNERS},
               {784, most_owned + 1, 2, LKS_BY_BEST, LKS_BY_ROWS},
               {784, 1, 2, LKS_BY_BEST, LKS_BY_OWNERS}, /* small too, but owners share it */
               {784, 200, 8, LKS_BY_BEST, LKS_BY_OWNERS},
               {20, most_whole, 2, LKS_BY_BEST, LKS_BY_LEADER},
               {20, most_whole, 8, LKS_BY_BEST, LKS_BY_LEADER},
               {20, most_whole + 1, 2, LKS_BY_BEST, LKS_BY_ROWS},
               {20, most_whole, 1, LKS_BY_BEST, LKS_BY_ROWS},
               {784, most_owned, 1, LKS_BY_BEST, LKS_BY_ROWS},
               {1025, LKS_FEW_ROWS, 1, LKS_BY_BEST, LKS_BY_OWNERS}, /* 131,200 weights */
               {1025, LKS_FEW_ROWS + 1, 1, LKS_BY_BEST, LKS_BY_ROWS},
               {1024, LKS_FEW_ROWS, 1, LKS_BY_BEST, LKS_BY_ROWS},
               {784, most_owned, 2, LKS_BY_ROWS, LKS_BY_ROWS},
               {20, 1, 2, LKS_BY_ROWS, LKS_BY_ROWS},
               {784, 2000, 2, LKS_BY_OWNERS, LKS_BY_OWNERS},
               {784, 2000, 2, LKS_BY_LEADER, LKS_BY_LEADER}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    recipe r;
    lks_plan *plan = NULL;
    recipe_make(&r, cases[i].inputs, 0, net);
    assert_ok(lks_plan_make(r.model, cases[i].batch, cases[i].ranks, cases[i].asked, &plan, &err));
    assert_int_equal(plan->gradients, cases[i].chosen);
    const int64_t ranks = plan->gradients == LKS_BY_LEADER ? 1 : cases[i].ranks;
    assert_int_equal(plan->share_rows, (cases[i].batch + ranks - 1) / ranks);
    assert_true(plan->gradients != LKS_BY_OWNERS || plan->block_rows == plan->share_rows);
    lks_plan_free(&plan);
    recipe_free(&r);
  }
}

/* A thread for each 4 million multiplications of the largest product, which is of inputs x 128 by
 * the rows of a block; one for few rows by many weights, where there
 * are no more than two. */
static void test_threads(void **state) {
  (void)state;
  const struct {
    int64_t inputs, batch;
    int ranks, most;
    int64_t rows; /* of a block */
    int threads;
  } cases[] = {{20, 256, 1, 8, 256, 1}, {784, 79, 1, 8, 79, 1},   {784, 80, 1, 8, 80, 2},
               {784, 80, 1, 1, 80, 1},  {784, 160, 2, 8, 80, 2},  {784, 156, 2, 8, 78, 1},
               {784, 120, 1, 8, 60, 1}, {784, 100, 1, 2, 100, 2}, {784, 48, 1, 2, 48, 1},
               {2000, 48, 1, 2, 48, 1}, {2000, 48, 1, 3, 48, 3},  {2000, 48, 1, 8, 48, 3}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    recipe r;
    lks_plan *plan = NULL;
    recipe_make(&r, cases[i].inputs, 0, net);
    assert_ok(lks_plan_make(r.model, cases[i].batch, cases[i].ranks, LKS_BY_ROWS, &plan, &err));
    const int64_t rows = plan->block_rows < plan->share_rows ? plan->block_rows : plan->share_rows;
    assert_int_equal(rows, cases[i].rows);
    assert_int_equal(lks_plan_threads(plan, cases[i].most), cases[i].threads);
    lks_plan_free(&plan);
    recipe_free(&r);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_choice), cmocka_unit_test(test_threads)};
  return cmocka_run_group_tests_name("plan_gradients", tests, NULL, NULL);
}
