/* The rows of `data`: short forms, overrides of them, what is refused, and that the effective
 * configuration reads back equal. */
#include "scratch.h"

#include "data/options.h"

static lks_error err;

typedef struct holder {
  lks_data_options data;
} holder;

static const lks_option holder_rows[] = {{.key = "data",
                                          .type = LKS_OPT_GROUP,
                                          .offset = offsetof(holder, data),
                                          .options = lks_data_option_rows,
                                          .help = "data"},
                                         {0}};

static lks_status bind_with(const char *yaml, const char *override, holder *out, lks_arena *arena) {
  lks_status st = LKS_OK;
  lks_node *root = NULL;
  *out = (holder){0};
  st = lks_tree_parse(yaml, strlen(yaml), "run.yaml", "/home/me", arena, &root, &err);
  if (st == LKS_OK && override != NULL) {
    st = lks_options_override(holder_rows, root, override, "/work", arena, &err);
  }
  return st == LKS_OK ? lks_options_bind(holder_rows, root, out, arena, &err) : st;
}

static void defaults(void **state) {
  (void)state;
  lks_arena arena = {0};
  holder h;
  assert_ok(
      bind_with("data: {train: {file: a.h5, features: x, targets: [y, z]}}\n", NULL, &h, &arena));
  assert_string_equal(h.data.train.file, "/home/me/a.h5");
  assert_int_equal(h.data.train.features.count, 1);
  assert_string_equal(h.data.train.targets.items[1], "z");
  assert_false(h.data.train.synthetic.present);
  assert_false(h.data.validation.present);
  assert_false(h.data.test.present);
  assert_int_equal(lks_scaling_of(h.data.scaling.features.kind), LKS_SCALING_NONE);
  assert_int_equal(lks_scaling_of(h.data.scaling.targets.kind), LKS_SCALING_NONE);
  assert_int_equal(h.data.order, LKS_ORDER_AUTO);
  assert_int_equal(h.data.window, 65536);
  assert_int_equal(h.data.memory_per_node, 0);
  lks_arena_free(&arena);
}

#define TRAIN "data:\n  train: {synthetic: {rows: 10, inputs: 2}}\n"

static void validation_by_fraction(void **state) {
  (void)state;
  lks_arena arena = {0};
  holder h;
  assert_ok(bind_with(TRAIN "  validation: 0.1\n", NULL, &h, &arena));
  assert_true(h.data.validation.present && h.data.validation.fraction == 0.1);
  assert_int_equal(h.data.validation.rows, LKS_ROWS_LAST);
  assert_int_equal(h.data.train.synthetic.outputs, 1);
  assert_ok(bind_with(TRAIN "  validation: {fraction: 0.2, rows: stratified}\n", NULL, &h, &arena));
  assert_true(h.data.validation.fraction == 0.2);
  assert_int_equal(h.data.validation.rows, LKS_ROWS_STRATIFIED);
  assert_ok(bind_with(TRAIN "  validation: 0.1\n", "data.validation.rows=random", &h, &arena));
  assert_true(h.data.validation.fraction == 0.1);
  assert_int_equal(h.data.validation.rows, LKS_ROWS_RANDOM);
  assert_ok(bind_with(TRAIN, "data.validation=0.3", &h, &arena));
  assert_true(h.data.validation.present && h.data.validation.fraction == 0.3);
  assert_fails(bind_with(TRAIN "  validation: 1.5\n", NULL, &h, &arena), LKS_CONFIG, "run.yaml:3",
               "data.validation.fraction", "1.5", "below 1");
  assert_fails(bind_with(TRAIN "  validation: some.h5\n", NULL, &h, &arena), LKS_CONFIG,
               "data.validation.fraction", "a number");
  assert_fails(bind_with(TRAIN "  test: {fraction: 0.1}\n", NULL, &h, &arena), LKS_CONFIG,
               "data.test.fraction", "unknown key");
  lks_arena_free(&arena);
}

static void scaling_short_forms(void **state) {
  (void)state;
  static const struct {
    const char *yaml;
    lks_scaling_id features, targets;
    double divisor;
  } cases[] = {
      {"standardize", LKS_SCALING_STANDARDIZE, LKS_SCALING_NONE, 0},
      {"{divide: 255}", LKS_SCALING_DIVIDE, LKS_SCALING_NONE, 255},
      {"{name: divide, value: 255}", LKS_SCALING_DIVIDE, LKS_SCALING_NONE, 255},
      {"{features: {divide: 4}, targets: minmax}", LKS_SCALING_DIVIDE, LKS_SCALING_MINMAX, 4},
      {"{targets: standardize}", LKS_SCALING_NONE, LKS_SCALING_STANDARDIZE, 0},
      {"{features: minmax}", LKS_SCALING_MINMAX, LKS_SCALING_NONE, 0},
  };
  lks_arena arena = {0};
  holder h;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    const char *yaml = lks_arena_print(&arena, TRAIN "  scaling: %s\n", cases[i].yaml);
    const char *assignment = lks_arena_print(&arena, "data.scaling=%s", cases[i].yaml);
    assert_true(yaml != NULL && assignment != NULL);
    for (int way = 0; way < 2; ++way) {
      assert_ok(bind_with(way == 0 ? yaml : TRAIN, way == 0 ? NULL : assignment, &h, &arena));
      assert_int_equal(lks_scaling_of(h.data.scaling.features.kind), cases[i].features);
      assert_int_equal(lks_scaling_of(h.data.scaling.targets.kind), cases[i].targets);
      if (cases[i].divisor != 0) {
        assert_true(h.data.scaling.features.divisor == cases[i].divisor);
      }
    }
  }
  assert_ok(
      bind_with(TRAIN "  scaling: {divide: 255}\n", "data.scaling.features.value=128", &h, &arena));
  assert_true(h.data.scaling.features.divisor == 128);
  assert_ok(bind_with(TRAIN "  scaling: standardize\n", "data.scaling.targets=minmax", &h, &arena));
  assert_int_equal(lks_scaling_of(h.data.scaling.features.kind), LKS_SCALING_STANDARDIZE);
  assert_int_equal(lks_scaling_of(h.data.scaling.targets.kind), LKS_SCALING_MINMAX);
  assert_fails(bind_with(TRAIN "  scaling: {divide: 0}\n", NULL, &h, &arena), LKS_CONFIG,
               "data.scaling.features.value", "above 0");
  assert_fails(bind_with(TRAIN "  scaling: divide\n", NULL, &h, &arena), LKS_CONFIG,
               "data.scaling.features", "value");
  assert_fails(bind_with(TRAIN "  scaling: standardise\n", NULL, &h, &arena), LKS_CONFIG,
               "no such choice: 'standardise'");
  assert_non_null(strstr(err.remedy, "standardize"));
  lks_arena_free(&arena);
}

/* A key of a short form may be set as it is written in a file. */
static void scaling_short_forms_below(void **state) {
  (void)state;
  lks_arena arena = {0};
  holder h;
  static const char *const files[] = {
      "",
      "  scaling: standardize\n",
      "  scaling: {divide: 16}\n",
      "  scaling: {features: {name: divide, value: 3}}\n",
  };
  static const char *const overrides[] = {"data.scaling.divide=9",
                                          "data.scaling.features.divide=9"};
  for (size_t f = 0; f < sizeof files / sizeof *files; ++f) {
    char text[512];
    (void)snprintf(text, sizeof text, TRAIN "%s", files[f]);
    for (int o = 0; o < 2; ++o) {
      assert_ok(bind_with(text, overrides[o], &h, &arena));
      assert_true(lks_scaling_of(h.data.scaling.features.kind) == LKS_SCALING_DIVIDE);
      assert_true(lks_scaling_of(h.data.scaling.targets.kind) == LKS_SCALING_NONE);
      assert_true(h.data.scaling.features.divisor == 9);
    }
  }
  static const char both[] = TRAIN "  scaling: {features: minmax, targets: minmax}\n";
  assert_ok(bind_with(both, "data.scaling.divide=9", &h, &arena));
  assert_true(lks_scaling_of(h.data.scaling.features.kind) == LKS_SCALING_DIVIDE);
  assert_true(lks_scaling_of(h.data.scaling.targets.kind) == LKS_SCALING_MINMAX);
  assert_ok(bind_with(both, "data.scaling.targets.divide=9", &h, &arena));
  assert_true(lks_scaling_of(h.data.scaling.features.kind) == LKS_SCALING_MINMAX);
  assert_true(lks_scaling_of(h.data.scaling.targets.kind) == LKS_SCALING_DIVIDE);
  assert_ok(bind_with(both, "data.scaling.name=standardize", &h, &arena));
  assert_true(lks_scaling_of(h.data.scaling.features.kind) == LKS_SCALING_STANDARDIZE);
  assert_fails(bind_with(both, "data.scaling.divide=0", &h, &arena), LKS_CONFIG, "above 0");
  assert_fails(bind_with(both, "data.scaling.divided=9", &h, &arena), LKS_CONFIG, "unknown key");
  assert_fails(bind_with(both, "data.scaling.divide.by=9", &h, &arena), LKS_CONFIG, "unknown key");
  lks_arena_free(&arena);
}

static void refusals(void **state) {
  (void)state;
  lks_arena arena = {0};
  holder h;
  assert_fails(bind_with("data: {order: rows}\n", NULL, &h, &arena), LKS_CONFIG, "data.train");
  assert_fails(bind_with(TRAIN "  order: chunks\n", NULL, &h, &arena), LKS_CONFIG, "data.order",
               "windows");
  assert_fails(bind_with(TRAIN "  window: 0\n", NULL, &h, &arena), LKS_CONFIG, "data.window");
  assert_fails(bind_with("data: {train: {file: a.h5, sample_weight: w}}\n", NULL, &h, &arena),
               LKS_CONFIG, "data.train.sample_weight", "not in this version");
  assert_fails(bind_with("data: {train: {synthetic: {rows: 0, inputs: 1}}}\n", NULL, &h, &arena),
               LKS_CONFIG, "data.train.synthetic.rows");
  lks_arena_free(&arena);
}

static void effective_configuration_reads_back(void **state) {
  (void)state;
  lks_arena arena = {0};
  holder h;
  lks_text first = {0};
  lks_text second = {0};
  assert_ok(bind_with(TRAIN "  validation: {fraction: 0.25, rows: random}\n"
                            "  test: {file: t.h5, features: [a, b]}\n"
                            "  scaling: {features: {divide: 255}, targets: minmax}\n"
                            "  memory_per_node: 4G\n",
                      NULL, &h, &arena));
  assert_true(h.data.memory_per_node == INT64_C(4) << 30);
  lks_tree_print(lks_options_emit(holder_rows, &h, &arena), &first);
  holder again;
  assert_ok(bind_with(first.data, NULL, &again, &arena));
  lks_tree_print(lks_options_emit(holder_rows, &again, &arena), &second);
  assert_string_equal(first.data, second.data);
  assert_true(again.data.scaling.features.divisor == 255);
  assert_string_equal(again.data.test.file, "/home/me/t.h5");
  lks_text_free(&first);
  lks_text_free(&second);
  lks_arena_free(&arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(defaults),
      cmocka_unit_test(validation_by_fraction),
      cmocka_unit_test(scaling_short_forms),
      cmocka_unit_test(scaling_short_forms_below),
      cmocka_unit_test(refusals),
      cmocka_unit_test(effective_configuration_reads_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
