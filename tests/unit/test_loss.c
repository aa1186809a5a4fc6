/* Losses and metrics of the CPU backend against plain double loops, gradients against finite
 * differences, extreme logits, ties and thresholds. */
#include "model_fixture.h"

#include "backend/cpu/cpu.h"
#include "base/finite.h"

enum { ROWS = 9, MOST = 17 };

/* One row of a batch in double: z as the plan hands it over, t targets. */
typedef struct row {
  double z[MOST], t[MOST];
  int64_t n;
} row;

static double link_of(const lks_model *model, const row *r, int64_t i) {
  if (model->link == LKS_LINK_NONE) {
    return r->z[i];
  }
  if (model->link == LKS_LINK_SIGMOID) {
    return 1.0 / (1.0 + exp(-r->z[i]));
  }
  double sum = 0.0;
  for (int64_t k = 0; k < r->n; ++k) {
    sum += exp(r->z[k] - r->z[i]);
  }
  return 1.0 / sum;
}

/* As Keras defines it on outputs: means over the last axis; entropies of probabilities. */
static double reference_loss(const lks_model *model, const row *r) {
  double sum = 0.0;
  const double n = (double)r->n;
  for (int64_t i = 0; i < r->n; ++i) {
    const double p = link_of(model, r, i), t = r->t[i];
    switch (model->loss->id) {
    case LKS_LOSS_MEAN_SQUARED_ERROR:
      sum += (p - t) * (p - t) / n;
      break;
    case LKS_LOSS_MEAN_ABSOLUTE_ERROR:
      sum += fabs(p - t) / n;
      break;
    case LKS_LOSS_BINARY_CROSSENTROPY:
      sum -= (t * log(p) + (1 - t) * log(1 - p)) / n;
      break;
    case LKS_LOSS_CATEGORICAL_CROSSENTROPY:
      sum -= t * log(p);
      break;
    case LKS_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY:
      sum -= i == (int64_t)r->t[0] ? log(p) : 0.0;
      break;
    case LKS_LOSS_COUNT:
      break;
    }
  }
  return sum;
}

/* What metrics compare: what the model shows. */
static double shown(const lks_model *model, const row *r, int64_t i) {
  return model->logits ? r->z[i] : link_of(model, r, i);
}

static int64_t largest(const double *values, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; ++i) {
    best = values[i] > values[best] ? i : best;
  }
  return best;
}

static double reference_metric(const lks_model *model, lks_metric_id id, const row *r) {
  double y[MOST], sum = 0.0;
  const double n = (double)r->n, threshold = model->logits ? 0.0 : 0.5;
  for (int64_t i = 0; i < r->n; ++i) {
    y[i] = shown(model, r, i);
    const double d = y[i] - r->t[i];
    sum += id == LKS_METRIC_MAE ? fabs(d) / n : id == LKS_METRIC_MSE ? d * d / n : 0.0;
    sum += id == LKS_METRIC_BINARY_ACCURACY && (y[i] > threshold) == (r->t[i] > 0.5) ? 1 / n : 0.0;
  }
  if (id == LKS_METRIC_CATEGORICAL_ACCURACY) {
    sum = largest(y, r->n) == largest(r->t, r->n);
  } else if (id == LKS_METRIC_SPARSE_CATEGORICAL_ACCURACY) {
    sum = largest(y, r->n) == (int64_t)r->t[0];
  }
  return sum;
}

/* ---- a batch of a model */

typedef struct batch {
  recipe recipe;
  int64_t n, target_width;
  float z[ROWS * MOST], t[ROWS * MOST], g[ROWS * MOST + 4];
} batch;

static row row_of(const batch *b, int64_t r) {
  row out = {.n = b->n};
  for (int64_t i = 0; i < b->n; ++i) {
    out.z[i] = (double)b->z[r * b->n + i];
  }
  for (int64_t i = 0; i < b->target_width; ++i) {
    out.t[i] = (double)b->t[r * b->target_width + i];
  }
  return out;
}

static void fill_targets(batch *b) {
  const lks_loss_row *loss = b->recipe.model->loss;
  for (int r = 0; r < ROWS; ++r) {
    for (int64_t i = 0; i < b->target_width; ++i) {
      const uint32_t k = (uint32_t)(r * MOST + i);
      float *t = &b->t[r * b->target_width + i];
      *t = test_number(2, k, -2.0f, 2.0f);
      if (loss->labels) {
        *t = (float)(r % b->n);
      } else if (loss->id == LKS_LOSS_CATEGORICAL_CROSSENTROPY) {
        *t = i == r % b->n ? 1.0f : 0.0f;
      } else if (loss->zero_one) { /* soft ones too */
        *t = r % 3 == 2 ? test_number(3, k, 0.0f, 1.0f) : (float)(k % 2);
      }
    }
  }
}

static void make(batch *b, const char *loss, const char *last, int64_t n, const char *metrics) {
  char yaml[256];
  (void)snprintf(yaml, sizeof yaml,
                 "model: [dense: {units: %d, activation: %s}]\nloss: %s\nmetrics: [%s]", (int)n,
                 last, loss, metrics);
  memset(b, 0, sizeof *b);
  recipe_make(&b->recipe, 2, 0, yaml);
  b->n = n;
  b->target_width = b->recipe.model->loss->labels ? 1 : n;
  for (uint32_t i = 0; i < ROWS * (uint32_t)n; ++i) {
    b->z[i] = test_number(1, i, -4.0f, 4.0f);
  }
  fill_targets(b);
}

static lks_block_sums run(batch *b, int64_t rows, double divisor, bool gradient) {
  lks_block_sums sums = {0};
  for (size_t i = 0; i < sizeof b->g / sizeof *b->g; ++i) {
    b->g[i] = -77.0f;
  }
  lks_loss_cpu(b->recipe.model, b->z, b->t, rows, divisor, gradient ? b->g : NULL, &sums);
  return sums;
}

/* Per row: n terms of up to 36, each rounded a few times in float, two exponentials of rounded
 * differences of up to 8. */
static double loss_tolerance(int64_t n, double size) {
  return (double)ROWS * ((double)n + 40.0) * HALF_ULP * (1.0 + size);
}

static void check_loss(const char *loss, const char *last, int64_t n) {
  batch b;
  make(&b, loss, last, n, "");
  const double divisor = 37.0;
  double expected = 0.0;
  for (int r = 0; r < ROWS; ++r) {
    const row at = row_of(&b, r);
    expected += reference_loss(b.recipe.model, &at);
  }
  const lks_block_sums with = run(&b, ROWS, divisor, true);
  assert_near(with.loss, expected, loss_tolerance(n, fabs(expected) / ROWS), loss);
  for (size_t i = ROWS * (size_t)n; i < sizeof b.g / sizeof *b.g; ++i) {
    assert_true(b.g[i] == -77.0f);
  }
  /* Central differences in double: h^2 and 1e-15 / h are far below float's rounding of p - t. */
  for (int r = 0; r < ROWS; ++r) {
    for (int64_t i = 0; i < n; ++i) {
      const double h = 1e-6;
      row up = row_of(&b, r), down = up;
      up.z[i] += h;
      down.z[i] -= h;
      const double slope =
          (reference_loss(b.recipe.model, &up) - reference_loss(b.recipe.model, &down)) / (2 * h);
      assert_near((double)b.g[r * n + i] * divisor, slope,
                  ((double)n + 24.0) * HALF_ULP * (1.0 + fabs(slope)) + 1e-8, loss);
    }
  }
  const lks_block_sums without = run(&b, ROWS, 1.0, false);
  assert_true(without.loss == with.loss);
  assert_true(run(&b, 0, 1.0, true).loss == 0.0 && b.g[0] == -77.0f);
  recipe_free(&b.recipe);
}

static const int64_t widths[] = {2, 3, 8, 10, 17};

static void test_losses(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof widths / sizeof *widths; ++i) {
    check_loss("mse", "linear", widths[i]);
    check_loss("mae", "linear", widths[i]);
    check_loss("binary_crossentropy", "sigmoid", widths[i]);
    check_loss("binary_crossentropy", "linear", widths[i]);
    check_loss("categorical_crossentropy", "softmax", widths[i]);
    check_loss("categorical_crossentropy", "linear", widths[i]);
    check_loss("sparse_categorical_crossentropy", "softmax", widths[i]);
    check_loss("sparse_categorical_crossentropy", "linear", widths[i]);
  }
  check_loss("mse", "linear", 1);
  check_loss("mae", "linear", 1);
  check_loss("binary_crossentropy", "sigmoid", 1);
}

/* Sums are added to; of a loss, up to roundings of doubles. */
static void test_sums_continue(void **state) {
  (void)state;
  batch b;
  make(&b, "mse", "linear", 3, "mae");
  const lks_block_sums whole = run(&b, ROWS, 1.0, false);
  lks_block_sums parts = {0};
  lks_loss_cpu(b.recipe.model, b.z, b.t, 4, 1.0, NULL, &parts);
  lks_loss_cpu(b.recipe.model, b.z + 12, b.t + 12, ROWS - 4, 1.0, NULL, &parts);
  assert_near(parts.loss, whole.loss, ROWS * 3 * 0x1p-52 * whole.loss, "loss");
  assert_true(parts.metrics[0] == whole.metrics[0]);
  recipe_free(&b.recipe);
}

/* Soft class targets that don't sum to one, as label smoothing never makes but Keras accepts. */
static void test_unnormalised_classes(void **state) {
  (void)state;
  batch b;
  make(&b, "categorical_crossentropy", "softmax", 3, "");
  static const float t[3] = {0.5f, 0.25f, 1.0f};
  memcpy(b.t, t, sizeof t);
  const row at = row_of(&b, 0);
  const double got = run(&b, 1, 1.0, true).loss;
  assert_near(got, reference_loss(b.recipe.model, &at), loss_tolerance(3, got), "soft classes");
  for (int64_t i = 0; i < 3; ++i) {
    const double slope = 1.75 * link_of(b.recipe.model, &at, i) - at.t[i];
    assert_near((double)b.g[i], slope, 48 * HALF_ULP, "its gradient");
  }
  recipe_free(&b.recipe);
}

/* The size of the loss far out is |z| itself; nothing overflows. */
static void check_extreme(const char *loss, const char *last, double expected) {
  static const float z[2][2] = {{1e4f, -1e4f}, {-1e4f, 1e4f}};
  batch b;
  make(&b, loss, last, 2, "");
  memcpy(b.z, z, sizeof z);
  for (int r = 0; r < 2; ++r) { /* the wrong answer in row 0, the right one in row 1 */
    b.t[r * b.target_width] = b.recipe.model->loss->labels ? 1.0f : 0.0f;
    if (b.target_width == 2) {
      b.t[r * 2 + 1] = 1.0f;
    }
  }
  const lks_block_sums sums = run(&b, 2, 1.0, true);
  assert_near(sums.loss, expected, expected * HALF_ULP, loss);
  assert_true(lks_all_finite(b.g, 4));
  assert_near((double)b.g[0], b.recipe.model->link == LKS_LINK_SIGMOID ? 0.5 : 1.0, 0.0, loss);
  assert_true(b.g[2] == 0.0f && b.g[3] == 0.0f);
  recipe_free(&b.recipe);
}

static void test_extreme_logits(void **state) {
  (void)state;
  check_extreme("binary_crossentropy", "sigmoid", 1e4);
  check_extreme("binary_crossentropy", "linear", 1e4);
  check_extreme("categorical_crossentropy", "softmax", 2e4);
  check_extreme("categorical_crossentropy", "linear", 2e4);
  check_extreme("sparse_categorical_crossentropy", "softmax", 2e4);
  check_extreme("sparse_categorical_crossentropy", "linear", 2e4);
}

/* A NaN in the outputs shows in loss and gradient of every kind. */
static void test_nan(void **state) {
  (void)state;
  static const char *const losses[] = {"mse", "mae", "binary_crossentropy",
                                       "categorical_crossentropy",
                                       "sparse_categorical_crossentropy"};
  for (size_t i = 0; i < sizeof losses / sizeof *losses; ++i) {
    for (int at = 0; at < 3; ++at) {
      batch b;
      make(&b, losses[i], "linear", 3, "");
      b.z[3 + at] = NAN;
      assert_true(isnan(run(&b, ROWS, 1.0, true).loss));
      assert_false(lks_all_finite(b.g, ROWS * 3));
      recipe_free(&b.recipe);
    }
  }
}

/* ---- metrics */

static void check_metric(const char *loss, const char *last, int64_t n, const char *metric) {
  batch b;
  make(&b, loss, last, n, metric);
  const lks_model *model = b.recipe.model;
  double expected = 0.0;
  for (int r = 0; r < ROWS; ++r) {
    const row at = row_of(&b, r);
    expected += reference_metric(model, model->metrics[0]->id, &at);
  }
  const double got = run(&b, ROWS, 1.0, false).metrics[0];
  /* Counted metrics are fractions added in double; errors are of exact doubles. */
  assert_near(got, expected, 1e-12 * (1.0 + expected), metric);
  assert_true(run(&b, ROWS, 1.0, true).metrics[0] == got);
  recipe_free(&b.recipe);
}

static void test_metrics(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof widths / sizeof *widths; ++i) {
    const int64_t n = widths[i];
    static const char *const errors[] = {"mae", "mse", "mean_absolute_error", "mean_squared_error"};
    for (size_t k = 0; k < sizeof errors / sizeof *errors; ++k) {
      check_metric("mse", "linear", n, errors[k]);
      check_metric("binary_crossentropy", "sigmoid", n, errors[k]);
      check_metric("binary_crossentropy", "linear", n, errors[k]);
      check_metric("categorical_crossentropy", "softmax", n, errors[k]);
      check_metric("categorical_crossentropy", "linear", n, errors[k]);
    }
    check_metric("mse", "linear", n, "binary_accuracy");
    check_metric("binary_crossentropy", "sigmoid", n, "binary_accuracy");
    check_metric("binary_crossentropy", "linear", n, "binary_accuracy");
    check_metric("mae", "linear", n, "accuracy");
    check_metric("categorical_crossentropy", "softmax", n, "accuracy");
    check_metric("categorical_crossentropy", "linear", n, "accuracy");
    check_metric("sparse_categorical_crossentropy", "softmax", n, "accuracy");
    check_metric("sparse_categorical_crossentropy", "linear", n, "accuracy");
  }
  check_metric("binary_crossentropy", "sigmoid", 1, "accuracy");
  check_metric("binary_crossentropy", "linear", 1, "accuracy");
  check_metric("mse", "linear", 1, "accuracy");
}

/* One half of a probability is not any fixed number of a softmax's logits. */
static void test_binary_accuracy_of_softmax(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof widths / sizeof *widths; ++i) {
    check_metric("categorical_crossentropy", "softmax", widths[i], "binary_accuracy");
  }
}

static double one_row(const char *loss, const char *last, const char *metric, const float *z,
                      const float *t) {
  batch b;
  make(&b, loss, last, 3, metric);
  memcpy(b.z, z, 3 * sizeof *z);
  memcpy(b.t, t, (size_t)b.target_width * sizeof *t);
  const double got = run(&b, 1, 1.0, false).metrics[0];
  recipe_free(&b.recipe);
  return got;
}

/* The first of equals wins, in outputs and in targets. */
static void test_ties(void **state) {
  (void)state;
  static const float z[3] = {1, 5, 5}, second[3] = {0, 1, 0}, third[3] = {0, 0, 1};
  static const float both[3] = {0, 1, 1}, equal[3] = {2, 2, 2}, first[3] = {1, 0, 0};
  const char *loss = "categorical_crossentropy";
  assert_true(one_row(loss, "softmax", "accuracy", z, second) == 1.0);
  assert_true(one_row(loss, "softmax", "accuracy", z, third) == 0.0);
  assert_true(one_row(loss, "softmax", "accuracy", z, both) == 1.0);
  assert_true(one_row(loss, "softmax", "accuracy", equal, first) == 1.0);
  assert_true(one_row("sparse_categorical_crossentropy", "linear", "accuracy", z,
                      (const float[]){1}) == 1.0);
  assert_true(one_row("sparse_categorical_crossentropy", "linear", "accuracy", z,
                      (const float[]){2}) == 0.0);
}

/* More than one half, or more than 0 of logits; the threshold itself is a zero. */
static void test_thresholds(void **state) {
  (void)state;
  static const float t[3] = {0, 1, 1};
  static const float logits[3] = {0.0f, 1e-6f, -1e-6f}, values[3] = {0.5f, 0.50001f, 0.49999f};
  const char *loss = "binary_crossentropy";
  assert_near(one_row(loss, "linear", "binary_accuracy", logits, t), 2.0 / 3, 1e-15, "logits");
  assert_near(one_row(loss, "sigmoid", "binary_accuracy", logits, t), 2.0 / 3, 1e-15, "fused");
  assert_near(one_row("mse", "linear", "binary_accuracy", values, t), 2.0 / 3, 1e-15, "values");
}

static void test_several_metrics(void **state) {
  (void)state;
  batch b;
  make(&b, "mse", "linear", 3, "mse, mae, binary_accuracy, categorical_accuracy");
  double expected[4] = {0};
  for (int r = 0; r < ROWS; ++r) {
    const row at = row_of(&b, r);
    for (int i = 0; i < 4; ++i) {
      expected[i] += reference_metric(b.recipe.model, b.recipe.model->metrics[i]->id, &at);
    }
  }
  const lks_block_sums sums = run(&b, ROWS, 1.0, false);
  for (int i = 0; i < 4; ++i) {
    assert_near(sums.metrics[i], expected[i], 1e-12 * (1 + expected[i]), "several");
  }
  assert_true(sums.metrics[4] == 0.0);
  recipe_free(&b.recipe);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_losses),
      cmocka_unit_test(test_sums_continue),
      cmocka_unit_test(test_unnormalised_classes),
      cmocka_unit_test(test_extreme_logits),
      cmocka_unit_test(test_nan),
      cmocka_unit_test(test_metrics),
      cmocka_unit_test(test_binary_accuracy_of_softmax),
      cmocka_unit_test(test_ties),
      cmocka_unit_test(test_thresholds),
      cmocka_unit_test(test_several_metrics),
  };
  return cmocka_run_group_tests_name("loss", tests, NULL, NULL);
}
