/* Models from a few lines of configuration, and comparing floats with doubles. */
#ifndef LKS_TESTS_MODEL_FIXTURE_H
#define LKS_TESTS_MODEL_FIXTURE_H

#include "scratch.h"

#include <float.h>
#include <math.h>

#include "base/random.h"
#include "train/settings.h"

typedef struct recipe {
  lks_settings *settings;
  lks_model *model;
} recipe;

/* yaml: the keys model and loss, and whatever else matters. Gives what lks_model_make gives. */
static inline lks_status recipe_try(recipe *made, int64_t inputs, int64_t targets, const char *yaml,
                                    lks_error *err) {
  lks_text text = {0};
  *made = (recipe){0};
  lks_text_add(&text, "data: {train: {synthetic: {rows: 1, inputs: 1}}}\n%s\n", yaml);
  const lks_status parsed =
      lks_settings_parse(text.data, "recipe.yaml", NULL, 0, &made->settings, err);
  if (parsed != LKS_OK) {
    fail_msg("%s", err->what);
  }
  lks_text_free(&text);
  return lks_model_make(&made->settings->model, inputs, targets, &made->model, err);
}

static inline void recipe_free(recipe *made) {
  lks_model_free(&made->model);
  lks_settings_free(&made->settings);
}

static inline void recipe_make(recipe *made, int64_t inputs, int64_t targets, const char *yaml) {
  lks_error err;
  lks_error_clear(&err);
  assert_ok(recipe_try(made, inputs, targets, yaml, &err));
}

/* Refused with that status and those words (the first may be in the remedy too). */
#define RECIPE_FAILS(inputs, targets, yaml, status, ...)                                           \
  do {                                                                                             \
    recipe refused_;                                                                               \
    assert_fails(recipe_try(&refused_, inputs, targets, yaml, &err), status, __VA_ARGS__);         \
    assert_null(refused_.model);                                                                   \
    recipe_free(&refused_);                                                                        \
  } while (0)

/* Half a unit in the last place, relative: what one rounding to float can do. */
#define HALF_ULP (0.5 * (double)FLT_EPSILON)

static inline void assert_near(double got, double expected, double tolerance, const char *what) {
  if (!(fabs(got - expected) <= tolerance)) {
    fail_msg("%s: %.10g, expected %.10g within %.3g", what, got, expected, tolerance);
  }
}

/* Numbers for tests: uniform in (low, high), by counter. */
static inline float test_number(uint32_t stream, uint32_t i, float low, float high) {
  return low +
         (high - low) * ((float)(lks_philox(i, 0, 0, 0, stream, 77).v[0] >> 9) + 0.5f) / 8388608.0f;
}

#endif
