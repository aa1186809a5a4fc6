/* When a plan makes gradients by owners. */
#include "model_fixture.h"

#include "plan/plan.h"

static lks_error err;

/* By owners where the rows of a batch are fewer floats than the parameters, by 16,384 for a
 * barrier: 784-128-10 moves 784 / 2 + 128 + 128 / 2 + 10 floats a row on two ranks, and has 101,824
 * with padding. Where shares are walked in blocks, activations are not all there. */
static void test_who_owns(void **state) {
  (void)state;
  static const char net[] = "model: [dense: {units: 128, activation: relu}, dense: {units: 10}]\n"
                            "loss: sparse_categorical_crossentropy";
  static const int64_t most = (101824 - 16384) / 594;
  static const struct {
    int64_t inputs, batch;
    int ranks;
    lks_gradients gradients;
    bool owners;
  } expected[] = {{784, most, 2, LKS_BY_BEST, true},       {784, most + 1, 2, LKS_BY_BEST, false},
                  {784, most, 2, LKS_BY_ROWS, false},      {784, most, 1, LKS_BY_BEST, false},
                  {784, 200, 8, LKS_BY_BEST, true},        {20, 2, 2, LKS_BY_BEST, false},
                  {784, most + 1, 2, LKS_BY_OWNERS, true}, {784, 2000, 2, LKS_BY_OWNERS, true}};
  for (size_t i = 0; i < sizeof expected / sizeof *expected; ++i) {
    recipe r;
    lks_plan *plan = NULL;
    recipe_make(&r, expected[i].inputs, 0, net);
    assert_ok(lks_plan_make(r.model, expected[i].batch, expected[i].ranks, expected[i].gradients,
                            &plan, &err));
    assert_int_equal((plan->gradients == LKS_BY_OWNERS), expected[i].owners);
    assert_true(!(plan->gradients == LKS_BY_OWNERS) || plan->block_rows == plan->share_rows);
    lks_plan_free(&plan);
    recipe_free(&r);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_who_owns)};
  return cmocka_run_group_tests_name("plan_owners", tests, NULL, NULL);
}
