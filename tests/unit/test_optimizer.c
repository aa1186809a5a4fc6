/* Optimizers: the values Keras gives after three steps, the formulas, and the same bits however
 * the arenas are cut into slices. */
#include "model_fixture.h"

#include "backend/cpu/update.h"

static const lks_optimizer adam = {
    .learning_rate = 0.001, .beta_1 = 0.9, .beta_2 = 0.999, .epsilon = 1e-7};

static lks_optimizer named(const char *name, lks_optimizer options) {
  for (int i = 0; lks_optimizer_kinds[i] != NULL; ++i) {
    if (strcmp(lks_optimizer_kinds[i]->name, name) == 0) {
      options.kind = lks_optimizer_kinds[i];
      return options;
    }
  }
  fail_msg("no optimizer %s", name);
  return options;
}

/* One step in double, as keras/src/optimizers writes it. s: two slots. */
static void reference_step(const lks_optimizer *o, int t, double g, double *w, double s[2]) {
  const lks_optimizer_id id = lks_optimizer_row_of(o)->id;
  if (id == LKS_OPTIMIZER_SGD) {
    s[0] = o->momentum * s[0] - o->learning_rate * g;
    *w += o->nesterov ? o->momentum * s[0] - o->learning_rate * g : s[0];
    return;
  }
  if (id == LKS_OPTIMIZER_ADAMW) {
    *w -= *w * o->weight_decay * o->learning_rate;
  }
  const double alpha = o->learning_rate * sqrt(1.0 - pow(o->beta_2, t)) / (1.0 - pow(o->beta_1, t));
  s[0] += (g - s[0]) * (1.0 - o->beta_1);
  s[1] += (g * g - s[1]) * (1.0 - o->beta_2);
  *w -= alpha * s[0] / (sqrt(s[1]) + o->epsilon);
}

/* Each step rounds w about twice, at most half a unit in the last place of 4, and its step, which
 * is under 0.01, a few times. */
#define STEPS 3
#define TOLERANCE (STEPS * (2 * 4 * HALF_ULP + 0.01 * 8 * HALF_ULP))

/* Three steps from 1, -2, 3 with gradients 0.1, -0.2, 0.3; keras: the first component's value. */
static void check(const lks_optimizer *o, int slots, double keras) {
  static const float g[3] = {0.1f, -0.2f, 0.3f};
  float w[3] = {1.0f, -2.0f, 3.0f}, kept[2][3] = {{0}};
  double expected[3] = {1, -2, 3}, state[3][2] = {{0}};
  const lks_values values = {w, {slots > 0 ? kept[0] : NULL, slots > 1 ? kept[1] : NULL}};
  assert_int_equal(lks_optimizer_slots(o), slots);
  for (int t = 1; t <= STEPS; ++t) {
    const lks_update update = lks_optimizer_update(o, t);
    lks_update_cpu(&update, 3, g, &values);
    for (int i = 0; i < 3; ++i) {
      reference_step(o, t, (double)g[i], &expected[i], state[i]);
    }
  }
  for (int i = 0; i < 3; ++i) {
    assert_near((double)w[i], expected[i], TOLERANCE, o->kind->name);
    for (int s = 0; s < slots; ++s) {
      assert_near((double)kept[s][i], state[i][s], 12 * HALF_ULP * fabs(state[i][s]), "slot");
    }
  }
  if (keras > 0.0) { /* printed to 8 places; two units in the last place below 1 */
    assert_near((double)w[0], keras, 2 * HALF_ULP + 5e-9, o->kind->name);
  }
}

static void test_keras_values(void **state) {
  (void)state;
  const lks_optimizer plain = named("adam", adam);
  check(&plain, 2, 0.99700004);
  lks_optimizer decayed = named("adamw", adam);
  decayed.weight_decay = 0.004;
  check(&decayed, 2, 0.99698806);
  const lks_optimizer nesterov =
      named("sgd", (lks_optimizer){.learning_rate = 0.01, .momentum = 0.9, .nesterov = true});
  check(&nesterov, 1, 0.99195099);
}

static void test_formulas(void **state) {
  (void)state;
  const lks_optimizer sgd = named("sgd", (lks_optimizer){.learning_rate = 0.01});
  check(&sgd, 0, 0.997);
  const lks_optimizer momentum =
      named("sgd", (lks_optimizer){.learning_rate = 0.01, .momentum = 0.9});
  check(&momentum, 1, 1.0 - 0.001 * (1.0 + 1.9 + 2.71));
  lks_optimizer other = named("adam", adam);
  other.beta_1 = 0.5;
  other.beta_2 = 0.75;
  other.epsilon = 0.01;
  other.learning_rate = 0.002;
  check(&other, 2, 0.0);
  other = named("adamw", other);
  other.weight_decay = 0.5;
  check(&other, 2, 0.0);
}

/* Adam does not decay, whatever another optimizer's option holds. */
static void test_scalars(void **state) {
  (void)state;
  const lks_optimizer plain = named("adam", adam);
  lks_update update = lks_optimizer_update(&plain, 1);
  assert_true(update.decay == 0.0f);
  assert_near((double)update.alpha, 0.001 * sqrt(0.001) / 0.1, 1e-10, "alpha of step 1");
  update = lks_optimizer_update(&plain, 10000000);
  assert_near((double)update.alpha, 0.001, 1e-10, "alpha in the limit");
  assert_true(update.one_minus_beta_2 == (float)(1.0 - 0.999));
}

#define COUNT 1003

static void fill(float *w, float *g, float slots[2][COUNT]) {
  for (uint32_t i = 0; i < COUNT; ++i) {
    w[i] = test_number(1, i, -2.0f, 2.0f);
    g[i] = test_number(2, i, -1.0f, 1.0f);
    slots[0][i] = test_number(3, i, -1.0f, 1.0f);
    slots[1][i] = test_number(4, i, 0.0f, 1.0f);
  }
}

/* The whole, then the same in pieces of odd lengths at odd places. */
static void check_slices(const lks_optimizer *o) {
  static float w[2][COUNT], g[COUNT], slots[2][2][COUNT];
  const int count = lks_optimizer_slots(o);
  const lks_update update = lks_optimizer_update(o, 7);
  fill(w[0], g, slots[0]);
  fill(w[1], g, slots[1]);
  const lks_values whole = {w[0], {count > 0 ? slots[0][0] : NULL, count > 1 ? slots[0][1] : NULL}};
  lks_update_cpu(&update, COUNT, g, &whole);
  for (size_t at = 0, piece = 1; at < COUNT; at += piece, piece = piece * 3 % 64 + 1) {
    piece = COUNT - at < piece ? COUNT - at : piece;
    const lks_values part = {
        w[1] + at, {count > 0 ? slots[1][0] + at : NULL, count > 1 ? slots[1][1] + at : NULL}};
    lks_update_cpu(&update, piece, g + at, &part);
  }
  assert_memory_equal(w[0], w[1], sizeof w[0]);
  assert_memory_equal(slots[0], slots[1], sizeof slots[0]);
}

static void test_slices(void **state) {
  (void)state;
  const lks_optimizer all[] = {
      named("adam", adam),
      named("adamw", (lks_optimizer){.learning_rate = 0.1,
                                     .beta_1 = 0.9,
                                     .beta_2 = 0.99,
                                     .epsilon = 1e-3,
                                     .weight_decay = 0.1}),
      named("sgd", (lks_optimizer){.learning_rate = 0.3}),
      named("sgd", (lks_optimizer){.learning_rate = 0.3, .momentum = 0.7}),
      named("sgd", (lks_optimizer){.learning_rate = 0.3, .momentum = 0.7, .nesterov = true})};
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) {
    check_slices(&all[i]);
  }
}

/* Keras' names and defaults. */
static void test_defaults(void **state) {
  (void)state;
  recipe made;
  recipe_make(&made, 2, 1, "model: [dense: {units: 1}]\nloss: mse\noptimizer: adamw");
  const lks_optimizer *o = &made.model->optimizer;
  assert_true(o->learning_rate == 0.001 && o->beta_1 == 0.9 && o->beta_2 == 0.999);
  assert_true(o->epsilon == 1e-7 && o->weight_decay == 0.004);
  recipe_free(&made);
  recipe_make(&made, 2, 1, "model: [dense: {units: 1}]\nloss: mse\noptimizer: sgd");
  o = &made.model->optimizer;
  assert_true(o->learning_rate == 0.01 && o->momentum == 0.0 && !o->nesterov);
  assert_int_equal(lks_optimizer_slots(o), 0);
  recipe_free(&made);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_keras_values), cmocka_unit_test(test_formulas),
      cmocka_unit_test(test_scalars),      cmocka_unit_test(test_slices),
      cmocka_unit_test(test_defaults),
  };
  return cmocka_run_group_tests_name("optimizer", tests, NULL, NULL);
}
