/* Binding: every type, flag and nesting, every refusal with its place and words. */
#include "option_fixture.h"

#define LAYERS "layers: [{wide: {units: 8}}]\n"

static const layer *layer_at(const work *w, int index) {
  assert_true(index < w->plan.layers.count);
  return (const layer *)w->plan.layers.items + index;
}

static void everything_is_stored(void **state) {
  work *w = *state;
  const plan *p = &w->plan;
  assert_work(w, work_load(w, full_text));
  assert_string_equal(p->title, "a: title");
  assert_string_equal(p->source, "/base/in/data.h5");
  assert_string_equal(p->note, "5");
  assert_false(p->fast);
  assert_int_equal(p->count, 20);
  assert_int_equal(p->threads, 4);
  assert_int_equal(p->memory, 512LL << 20);
  assert_int_equal(p->secret, 8);
  assert_true(p->rate == 1e-3);
  assert_true(p->share == 0.0);
  assert_true(p->limit == 23 * 3600.0 + 30 * 60.0);
  assert_int_equal(p->mode, 2);
  assert_int_equal(p->columns.count, 3);
  assert_string_equal(p->columns.items[1], "y z");
  assert_string_equal(p->columns.items[2], "null");
  assert_int_equal(p->outer.level, 5);
  assert_int_equal(p->outer.inner.size, 6);
  assert_true(p->split.present);
  assert_true(p->split.fraction == 0.25);
  assert_int_equal(p->split.rows, 0);
  assert_string_equal(p->split.file, "/base/other.h5");
  assert_int_equal(p->split.part.size, 2);
  assert_ptr_equal(p->split.form.kind, &bent);
  assert_true(p->split.form.slope == 2.0);
  assert_ptr_equal(p->solver.kind, &gradient);
  assert_true(p->solver.rate == 0.2 && p->solver.momentum == 0.9 && p->solver.careful);
  assert_ptr_equal(p->hidden_solver.kind, &direct);
  assert_int_equal(p->hidden.size, 4);
  assert_true(p->spare == 2.5);
  assert_int_equal(p->spare_word, 1);
  assert_int_equal(p->spares.count, 1);
  assert_string_equal(p->spares.items[0], "z");
  assert_ptr_equal(p->spare_solver.kind, &newton);
  assert_true(p->spare_solver.tolerance == 0.5);
}

static void lists_of_choices_and_layers(void **state) {
  work *w = *state;
  assert_work(w, work_load(w, full_text));
  const metric *metrics = w->plan.metrics.items;
  assert_int_equal(w->plan.metrics.count, 2);
  assert_int_equal(w->plan.metrics.element_bytes, sizeof(metric));
  assert_ptr_equal(metrics[0].kind, &misses);
  assert_int_equal(metrics[0].top, 0);
  assert_ptr_equal(metrics[1].kind, &hits);
  assert_int_equal(metrics[1].top, 5);
  assert_int_equal(w->plan.layers.count, 5);
  assert_ptr_equal(layer_at(w, 0)->kind, &wide_kind);
  assert_int_equal(layer_at(w, 0)->wide.units, 8);
  assert_ptr_equal(layer_at(w, 0)->wide.form.kind, &bent);
  assert_true(layer_at(w, 0)->wide.form.slope == 3.0);
  assert_string_equal(layer_at(w, 0)->name, "first");
  assert_ptr_equal(layer_at(w, 1)->kind, &drop_kind);
  assert_true(layer_at(w, 1)->drop_rate == 0.5);
  assert_int_equal(layer_at(w, 1)->wide.units, 0); /* other kinds' members stay zero */
  assert_null(layer_at(w, 1)->name);
  assert_ptr_equal(layer_at(w, 2)->form.kind, &bent);
  assert_true(layer_at(w, 2)->form.slope == 0.25);
  assert_ptr_equal(layer_at(w, 3)->kind, &flat_kind);
  assert_ptr_equal(layer_at(w, 4)->wide.form.kind, &straight);
  assert_string_equal(layer_at(w, 4)->name, "");
}

static void defaults_are_filled_in(void **state) {
  work *w = *state;
  const plan *p = &w->plan;
  assert_work(w, work_load(w, LAYERS));
  assert_string_equal(p->title, "untitled");
  assert_string_equal(p->source, "");
  assert_string_equal(p->note, "");
  assert_true(p->fast);
  assert_int_equal(p->count, 10);
  assert_int_equal(p->threads, -1);
  assert_int_equal(p->memory, 0);
  assert_int_equal(p->secret, 7);
  assert_true(p->rate == 0.5 && p->share == -1.0 && p->limit == 0.0);
  assert_int_equal(p->mode, 0);
  assert_int_equal(p->columns.count, 0);
  assert_int_equal(p->outer.level, 2);
  assert_int_equal(p->outer.inner.size, 3);
  assert_ptr_equal(p->solver.kind, &gradient);
  assert_true(p->solver.rate == 0.1 && p->solver.momentum == 0.0 && !p->solver.careful);
  assert_ptr_equal(p->hidden_solver.kind, &newton);
  assert_true(p->hidden_solver.tolerance == 1e-7);
  assert_int_equal(p->metrics.count, 0);
  assert_true(p->spare == 0.0);
  assert_int_equal(p->spares.count, 0);
  assert_null(p->spare_solver.kind);
  /* an absent optional group: what has a default has it, what is required stays zero */
  assert_false(p->split.present);
  assert_true(p->split.fraction == 0.0);
  assert_int_equal(p->split.rows, 1);
  assert_string_equal(p->split.file, "");
  assert_int_equal(p->split.part.size, 0);
  assert_ptr_equal(p->split.form.kind, &bent);
  assert_true(p->split.form.slope == 0.25);
}

/* One line beside the layers, and a check of what it gives. */
#define assert_accepts(text_, check_)                                                              \
  do {                                                                                             \
    assert_work(w, work_load(w, text_ "\n" LAYERS));                                               \
    assert_true(check_);                                                                           \
  } while (0)

static void values_in_other_words(void **state) {
  work *w = *state;
  const plan *p = &w->plan;
  assert_accepts("threads: all", p->threads == -2);
  assert_accepts("threads: 'auto'", p->threads == -1);
  assert_accepts("share: all", p->share == -2.0);
  assert_accepts("rate: 1", p->rate == 1.0);
  assert_accepts("fast: off", !p->fast);
  assert_accepts("mode: 'random'", p->mode == 1);
  assert_accepts("limit: '90s'", p->limit == 90.0);
  assert_accepts("memory: '4096'", p->memory == 4096);
  assert_accepts("count: +5", p->count == 5);
  assert_accepts("count: 1000000", p->count == 1000000);
  assert_accepts("title: 5", strcmp(p->title, "5") == 0);
  assert_accepts("title: ''", p->title[0] == '\0');
  assert_accepts("title: true", strcmp(p->title, "true") == 0);
  assert_accepts("title: |\n  two\n  lines", strcmp(p->title, "two\nlines\n") == 0);
  assert_accepts("source: /abs/x", strcmp(p->source, "/abs/x") == 0);
  assert_accepts("source: ../x", strcmp(p->source, "/x") == 0);
  assert_accepts("columns: x", p->columns.count == 1 && strcmp(p->columns.items[0], "x") == 0);
  assert_accepts("columns: ''", p->columns.count == 0);
  assert_accepts("columns: []", p->columns.count == 0);
  assert_accepts("solver: newton", p->solver.kind == &newton && p->solver.tolerance == 1e-7);
  assert_accepts("solver: 'direct'", p->solver.kind == &direct);
  assert_accepts("solver: {name: newton}", p->solver.tolerance == 1e-7 && p->solver.rate == 0.0);
  assert_accepts("split: {fraction: 0.5, part: {size: 8}}", p->split.present);
  assert_accepts("outer: {}", p->outer.level == 2 && p->outer.inner.size == 3);
  assert_accepts("metrics: [{name: hits, top: 1000000000}]", p->metrics.count == 1);
}

/* The line is wrong in a file of that line and sound layers. */
#define assert_refused(text_, expected_) assert_line(w, work_load(w, text_ "\n" LAYERS), expected_)

static void unknown_keys(void **state) {
  work *w = *state;
  assert_refused("titel: x", "t.yaml:1:1: titel: unknown key; did you mean 'title'?");
  assert_refused("outer:\n  inner:\n    dept: 1",
                 "t.yaml:3:5: outer.inner.dept: unknown key; did you mean 'depth'?");
  assert_refused("outer: {zzz: 1}", "t.yaml:1:9: outer.zzz: unknown key; known here: level, inner");
  assert_refused("split: {fraction: 0.5, futur: 1}",
                 "t.yaml:1:24: split.futur: unknown key; known here: fraction, rows, file, part, "
                 "form");
  assert_refused("solver: {name: newton, momentum: 1}",
                 "t.yaml:1:24: solver.momentum: unknown key for 'newton'; 'newton' has tolerance");
  assert_refused("solver: {name: gradient, momentun: 1}",
                 "t.yaml:1:26: solver.momentun: unknown key for 'gradient'; did you mean "
                 "'momentum'? 'gradient' has rate, momentum, careful");
  assert_refused("solver: {name: direct, rate: 1}",
                 "t.yaml:1:24: solver.rate: unknown key for 'direct'; 'direct' has nothing");
  assert_refused("metrics: [misses, {name: misses, top: 1}]",
                 "t.yaml:1:34: metrics.1.top: unknown key for 'misses'; 'misses' has nothing");
  assert_refused("future: 1", "t.yaml:1:1: future: not in this version; remove the key");
  assert_refused("solver: {name: gradient, clip: 1}",
                 "t.yaml:1:26: solver.clip: not in this version; remove the key");
}

static void wrong_numbers(void **state) {
  work *w = *state;
  assert_refused("count: abc",
                 "t.yaml:1:1: count: expects a whole number, got 'abc'; write digits alone");
  assert_refused("count: 1e3", "t.yaml:1:1: count: expects a whole number, got '1e3'; write 1000");
  assert_refused("count: 5.0", "t.yaml:1:1: count: expects a whole number, got '5.0'; write 5");
  assert_refused("count: 5.5",
                 "t.yaml:1:1: count: expects a whole number, got '5.5'; write digits alone");
  assert_refused("count: 99999999999999999999",
                 "t.yaml:1:1: count: expects a whole number, got '99999999999999999999'; write a "
                 "number that fits 64 bits");
  assert_refused("count: '5'", "t.yaml:1:1: count: expects a whole number, got the quoted text "
                               "'5'; remove the quotes");
  assert_refused("count: ''",
                 "t.yaml:1:1: count: expects a whole number, got none; give it a value");
  assert_refused("count: [5]", "t.yaml:1:1: count: expects a whole number, got a list; write one "
                               "value");
  assert_refused("threads: many", "t.yaml:1:1: threads: expects a whole number or 'auto' or 'all', "
                                  "got 'many'; write digits alone");
  assert_refused("rate: x",
                 "t.yaml:1:1: rate: expects a number, got 'x'; write it like 0.001 or 1e-3");
  assert_refused("rate: .nan",
                 "t.yaml:1:1: rate: expects a number, got '.nan'; write it like 0.001 or 1e-3");
  assert_refused("rate: inf",
                 "t.yaml:1:1: rate: expects a number, got 'inf'; write it like 0.001 or 1e-3");
  assert_refused("rate: '0.5'", "t.yaml:1:1: rate: expects a number, got the quoted text '0.5'; "
                                "remove the quotes");
  assert_refused("share: {a: 1}",
                 "t.yaml:1:1: share: expects a number, got a mapping; write one value");
  assert_refused("fast: 1",
                 "t.yaml:1:1: fast: expects true or false, got '1'; write true or false");
  assert_refused("fast: 'true'", "t.yaml:1:1: fast: expects true or false, got the quoted text "
                                 "'true'; remove the quotes");
  assert_refused("limit: 5x", "t.yaml:1:1: limit: expects a duration, got '5x'; write seconds, or "
                              "units as in 90s, 45m, 23h30m or 2d");
  assert_refused("limit: -1", "t.yaml:1:1: limit: expects a duration, got '-1'; write seconds, or "
                              "units as in 90s, 45m, 23h30m or 2d");
  assert_refused("memory: 5 GB", "t.yaml:1:1: memory: expects a size in bytes, got '5 GB'; write "
                                 "bytes, or units as in 64K, 512M, 4G or 1T");
}

static void out_of_range(void **state) {
  work *w = *state;
  assert_refused("count: 0",
                 "t.yaml:1:1: count: 0 is out of range: allowed is from 1 to 1000000 rows");
  assert_refused("count: 1000001",
                 "t.yaml:1:1: count: 1000001 is out of range: allowed is from 1 to 1000000 rows");
  assert_refused("rate: 0",
                 "t.yaml:1:1: rate: 0 is out of range: allowed is above 0 and at most 1");
  assert_refused("share: 1",
                 "t.yaml:1:1: share: 1 is out of range: allowed is at least 0 and below 1");
  assert_refused("share: -1",
                 "t.yaml:1:1: share: -1 is out of range: allowed is at least 0 and below 1");
  assert_refused("split: {fraction: 1}",
                 "t.yaml:1:9: split.fraction: 1 is out of range: allowed is above 0 and below 1");
  assert_refused("limit: 30d",
                 "t.yaml:1:1: limit: 30d is out of range: allowed is from 0 to 1000000 s");
  assert_refused("metrics: [{name: hits, top: 0}]",
                 "t.yaml:1:24: metrics.0.top: 0 is out of range: allowed is at least 1");
  assert_refused("columns: [a, b, c, d]", "t.yaml:1:1: columns: the list has 4 elements: allowed "
                                          "is from 0 to 3; remove some");
  assert_refused("metrics: [hits, hits, hits]", "t.yaml:1:1: metrics: the list has 3 elements: "
                                                "allowed is from 0 to 2; remove some");
  assert_line(w, work_load(w, "layers: []\n"),
              "t.yaml:1:1: layers: the list has 0 elements: "
              "allowed is from 1 to 100; add one");
}

/* Bounds are told as the row's flags and signs of infinity mean them. */
static void bounds_in_words(void **state) {
  work *w = *state;
  static const struct {
    double min, max;
    unsigned flags;
    const char *bad, *allowed;
  } cases[] = {
      {-1.0 / 0.0, 5, 0, "6", "at most 5"},
      {0, 0, LKS_OPTION_ABOVE_MIN, "0", "above 0"},
      {0, 0, LKS_OPTION_BELOW_MAX, "0", "below 0"},
      {1, 1.0 / 0.0, 0, "0", "at least 1"},
      {1, 0, 0, "0", "at least 1"},
      {1e-7, 1e12, 0, "0", "from 1e-07 to 1e+12"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    const lks_option rows[] = {{.key = "x",
                                .type = LKS_OPT_REAL,
                                .min = cases[i].min,
                                .max = cases[i].max,
                                .flags = cases[i].flags},
                               {0}};
    double x = 0.0;
    char text[32], line[128];
    (void)snprintf(text, sizeof text, "x: %s\n", cases[i].bad);
    (void)snprintf(line, sizeof line, "t.yaml:1:1: x: %s is out of range: allowed is %s",
                   cases[i].bad, cases[i].allowed);
    assert_work(w, work_parse(w, text));
    assert_line(w, lks_options_bind(rows, w->root, &x, &w->arena, &w->err), line);
  }
}

static void wrong_forms(void **state) {
  work *w = *state;
  assert_refused("title: [a]", "t.yaml:1:1: title: expects a text, got a list; write one value");
  assert_refused("title: {a: 1}",
                 "t.yaml:1:1: title: expects a text, got a mapping; write one value");
  assert_refused("source: [a]", "t.yaml:1:1: source: expects a path, got a list; write one value");
  assert_refused("mode: [last]", "t.yaml:1:1: mode: expects a word, got a list; write one value");
  assert_refused("mode: lsat", "t.yaml:1:1: mode: expects one of last, random, off, got 'lsat'; "
                               "did you mean 'last'?");
  assert_refused(
      "mode: zzz",
      "t.yaml:1:1: mode: expects one of last, random, off, got 'zzz'; write one of them");
  assert_refused("outer: 5", "t.yaml:1:1: outer: expects a mapping, got '5'; write {KEY: VALUE} "
                             "with keys of: level, inner");
  assert_refused("columns: {a: 1}", "t.yaml:1:1: columns: expects a name or a list of names, got a "
                                    "mapping; write [A, B]");
  assert_refused("columns: [a, [b]]",
                 "t.yaml:1:14: columns.1: expects a name, got a list; write [A, B]");
  assert_refused("columns: [a, '']",
                 "t.yaml:1:14: columns.1: has no value; give it a value or remove it");
  assert_refused("metrics: hits",
                 "t.yaml:1:1: metrics: expects a list, got 'hits'; put it in brackets: [NAME]");
  assert_refused("split: refused", "t.yaml:1:1: split: the hook refuses; expand differently");
  assert_refused("split: x", "t.yaml:1:1: split.fraction: expects a number, got 'x'; write it like "
                             "0.001 or 1e-3");
}

static void nulls(void **state) {
  work *w = *state;
  assert_refused("count:", "t.yaml:1:1: count: has no value; give it a value or remove it");
  assert_refused("title: ~", "t.yaml:1:1: title: has no value; give it a value or remove it");
  assert_refused("outer: null", "t.yaml:1:1: outer: has no value; give it a value or remove it");
  assert_refused("split:", "t.yaml:1:1: split: has no value; give it a value or remove it");
  assert_refused("metrics: [hits, ~]",
                 "t.yaml:1:17: metrics.1: has no value; give it a value or remove it");
  assert_refused("columns: [a, ~]",
                 "t.yaml:1:14: columns.1: has no value; give it a value or remove it");
  assert_refused("solver: {name: }",
                 "t.yaml:1:10: solver: has no value; give it a value or remove it");
}

static void missing_keys(void **state) {
  work *w = *state;
  assert_line(w, work_load(w, "# words\n\ntitle: x\n"),
              "t.yaml:3:1: layers: required, but missing; add 'layers' (help of layers)");
  assert_refused("title: x\nsplit:\n  rows: last",
                 "t.yaml:2:1: split.fraction: required, but missing; add 'fraction' (help of "
                 "fraction)");
  assert_refused("split: 0.5", "t.yaml:1:1: split.part: required, but missing; add 'part' (help of "
                               "part)");
  assert_line(w, work_load(w, "layers:\n  - drop\n  - wide\n"),
              "t.yaml:3:5: layers.1.units: required, but missing; add 'units' (help of units)");
  assert_line(w, work_load(w, "layers: [form]\n"),
              "t.yaml:1:10: layers.0.form: required, but missing; add 'form' (help of form)");
}

static void wrong_choices(void **state) {
  work *w = *state;
  assert_refused("solver: gradeint", "t.yaml:1:1: solver: no such choice: 'gradeint'; did you mean "
                                     "'gradient'? known: gradient, newton, direct");
  assert_refused("solver: {name: zzz}", "t.yaml:1:10: solver: no such choice: 'zzz'; known: "
                                        "gradient, newton, direct");
  assert_refused("solver: {rate: 1}", "t.yaml:1:1: solver: the mapping has no 'name'; add 'name', "
                                      "one of: gradient, newton, direct");
  assert_refused("solver: {name: [newton]}",
                 "t.yaml:1:10: solver: expects a name, got a list; write one name");
  assert_refused("solver: [newton]", "t.yaml:1:1: solver: expects a name or a mapping with 'name', "
                                     "got a list; choose one");
  assert_refused("metrics: [hit]", "t.yaml:1:11: metrics.0: no such choice: 'hit'; did you mean "
                                   "'hits'? known: hits, misses");
}

static void wrong_layers(void **state) {
  work *w = *state;
  assert_line(w, work_load(w, "layers: wide\n"),
              "t.yaml:1:1: layers: expects a list, got 'wide'; begin each layer's line with '- '");
  assert_line(w, work_load(w, "layers:\n  - wid: {units: 1}\n"),
              "t.yaml:2:5: layers.0: no such choice: 'wid'; did you mean 'wide'? known: wide, "
              "drop, form, flat");
  assert_line(w, work_load(w, "layers:\n  - flat\n  - wide:\n    units: 8\n"),
              "t.yaml:3:5: layers.1: a layer has one key, its kind; this one has 2; write '- KIND: "
              "{OPTION: VALUE}', or indent the options below their kind");
  assert_line(w, work_load(w, "layers: [{}]\n"),
              "t.yaml:1:10: layers.0: a layer has one key, its kind; this one has 0; write '- "
              "KIND: {OPTION: VALUE}', or indent the options below their kind");
  assert_line(w, work_load(w, "layers: [[wide]]\n"),
              "t.yaml:1:10: layers.0: expects a layer, got a list; write '- KIND' or '- KIND: "
              "{OPTION: VALUE}'");
  assert_line(w, work_load(w, "layers: [~]\n"),
              "t.yaml:1:10: layers.0: has no value; give it a value or remove it");
  assert_line(w, work_load(w, "layers:\n  - drop:\n"),
              "t.yaml:2:5: layers.0: 'drop' has no value; write '- drop', or indent its options "
              "below it");
  assert_line(w, work_load(w, "layers: [{wide: 8}]\n"),
              "t.yaml:1:11: layers.0: expects a mapping of the layer's options, got '8'; write '- "
              "KIND: {OPTION: VALUE}'");
  assert_line(w, work_load(w, "layers: [{wide: {unit: 8}}]\n"),
              "t.yaml:1:18: layers.0.unit: unknown key for 'wide'; did you mean 'units'? 'wide' "
              "has units, form, name");
  assert_line(w, work_load(w, "layers: [{wide: {units: 8, l1: 0}}]\n"),
              "t.yaml:1:28: layers.0.l1: not in this version; remove the key");
  assert_line(w, work_load(w, "layers: [{wide: {units: 0}}]\n"),
              "t.yaml:1:18: layers.0.units: 0 is out of range: allowed is from 1 to 1024 units");
  assert_line(w, work_load(w, "layers: [{drop: {rate: 1}}]\n"),
              "t.yaml:1:18: layers.0.rate: 1 is out of range: allowed is at least 0 and below 1");
  assert_line(w, work_load(w, "layers: [{wide: {units: 1, form: {name: bent, slope: -1}}}]\n"),
              "t.yaml:1:47: layers.0.form.slope: -1 is out of range: allowed is at least 0");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(everything_is_stored, work_make, work_drop),
      cmocka_unit_test_setup_teardown(lists_of_choices_and_layers, work_make, work_drop),
      cmocka_unit_test_setup_teardown(defaults_are_filled_in, work_make, work_drop),
      cmocka_unit_test_setup_teardown(values_in_other_words, work_make, work_drop),
      cmocka_unit_test_setup_teardown(unknown_keys, work_make, work_drop),
      cmocka_unit_test_setup_teardown(wrong_numbers, work_make, work_drop),
      cmocka_unit_test_setup_teardown(out_of_range, work_make, work_drop),
      cmocka_unit_test_setup_teardown(bounds_in_words, work_make, work_drop),
      cmocka_unit_test_setup_teardown(wrong_forms, work_make, work_drop),
      cmocka_unit_test_setup_teardown(nulls, work_make, work_drop),
      cmocka_unit_test_setup_teardown(missing_keys, work_make, work_drop),
      cmocka_unit_test_setup_teardown(wrong_choices, work_make, work_drop),
      cmocka_unit_test_setup_teardown(wrong_layers, work_make, work_drop),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
