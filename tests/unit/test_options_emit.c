/* The effective configuration reads back as the same struct; comparison; the reference; and random
 * damage to a text that uses everything. */
#include "option_fixture.h"

#define LAYERS "layers: [{wide: {units: 8}}]\n"

static void defaults_are_printed_in_full(void **state) {
  work *w = *state;
  assert_work(w, work_load(w, "layers: [{wide: {units: 8}}, drop, flat]\n"));
  char *text = work_print(w);
  assert_string_equal(text, "title: untitled\n"
                            "source: \"\"\n"
                            "fast: true\n"
                            "count: 10\n"
                            "threads: auto\n"
                            "memory: 0\n"
                            "rate: 0.5\n"
                            "share: auto\n"
                            "limit: 0\n"
                            "mode: last\n"
                            "columns: []\n"
                            "outer:\n"
                            "  level: 2\n"
                            "  inner:\n"
                            "    depth: 3\n"
                            "solver:\n"
                            "  name: gradient\n"
                            "  rate: 0.1\n"
                            "  momentum: 0\n"
                            "  careful: false\n"
                            "metrics: []\n"
                            "layers:\n"
                            "  - wide:\n"
                            "      units: 8\n"
                            "      form:\n"
                            "        name: straight\n"
                            "      name: \"\"\n"
                            "  - drop:\n"
                            "      rate: 0.5\n"
                            "  - flat: {}\n");
  free(text);
}

static void full_configuration_is_printed(void **state) {
  work *w = *state;
  assert_work(w, work_load(w, full_text));
  char *text = work_print(w);
  static const char *const lines[] = {
      "title: \"a: title\"\n",
      "source: /base/in/data.h5\n",
      "note: \"5\"\n",
      "fast: false\n",
      "threads: 4\n",
      "memory: 536870912\n",
      "secret: 8\n",
      "rate: 0.001\n",
      "limit: 84600\n",
      "mode: \"off\"\n",
      "columns:\n  - x\n  - \"y z\"\n  - \"null\"\n",
      "split:\n  fraction: 0.25\n  rows: last\n  file: /base/other.h5\n  part:\n    size: 2\n"
      "  form:\n    name: bent\n    slope: 2\n",
      "hidden_solver:\n  name: direct\n",
      "hidden:\n  depth: 4\n",
      "metrics:\n  - name: misses\n  - name: hits\n    top: 5\n",
      "  - form:\n      form:\n        name: bent\n        slope: 0.25\n  - flat: {}\n",
      "spare: 2.5\nspare_word: random\nspares: z\nspare_solver:\n  name: newton\n  tolerance: "
      "0.5\n",
  };
  for (size_t i = 0; i < sizeof lines / sizeof lines[0]; ++i) {
    if (strstr(text, lines[i]) == NULL) {
      fail_msg("\"%s\" is not in \"%s\"", lines[i], text);
    }
  }
  free(text);
}

/* Printed, read from another folder and printed again: the same text, and the same members. */
static void assert_round_trip(work *w, const char *source) {
  work again = {.root = NULL};
  assert_work(w, work_load(w, source));
  char *first = work_print(w);
  assert_work(&again, lks_tree_parse(first, strlen(first), "e.yaml", "/elsewhere", &again.arena,
                                     &again.root, &again.err));
  assert_work(&again, work_bind(&again));
  char *second = work_print(&again);
  assert_string_equal(first, second);
  assert_memory_equal(&w->plan.rate, &again.plan.rate, sizeof(double));
  assert_memory_equal(&w->plan.share, &again.plan.share, sizeof(double));
  assert_memory_equal(&w->plan.limit, &again.plan.limit, sizeof(double));
  assert_string_equal(w->plan.title, again.plan.title);
  assert_int_equal(w->plan.memory, again.plan.memory);
  assert_int_equal(w->plan.secret, again.plan.secret);
  assert_int_equal(w->plan.split.present, again.plan.split.present);
  assert_int_equal(w->plan.columns.count, again.plan.columns.count);
  free(first);
  free(second);
  lks_arena_free(&again.arena);
}

static void effective_configuration_reads_back(void **state) {
  work *w = *state;
  static const char *const sources[] = {
      LAYERS,
      full_text,
      LAYERS "rate: 0.1\n",
      LAYERS "rate: 3.3333333333333331e-21\n",
      LAYERS "rate: 0.30000000000000004\nlimit: 0.1\n",
      LAYERS "limit: 1000000\n",
      LAYERS "memory: 7T\nthreads: all\nshare: all\n",
      LAYERS "title: '${x} $${y} null'\ncolumns: 'off'\n"
             "note: \"tab\\t quote \\\" line\\n\"\n",
      LAYERS "note: ''\ncolumns: ''\n",
      LAYERS "columns: [' ']\n",
      LAYERS "secret: 9\nhidden: {depth: 5}\nhidden_solver: {name: newton, tolerance: 2}\n",
      "layers: [flat, {wide: {units: 1, name: '5'}}, {form: {form: {name: bent, slope: 1e300}}}]\n",
  };
  assert_int_equal(setenv("x", "an x", 1), 0);
  for (size_t i = 0; i < sizeof sources / sizeof sources[0]; ++i) {
    assert_round_trip(w, sources[i]);
  }
}

/* A hidden row comes back as soon as anything in it differs from its default. */
static void hidden_rows(void **state) {
  work *w = *state;
  static const struct {
    const char *source;
    const char *shown; /* NULL: none of the hidden rows */
  } cases[] = {
      {LAYERS "secret: 7\nhidden: {depth: 3}\nhidden_solver: newton\n", NULL},
      {LAYERS "secret: 6\n", "secret: 6\n"},
      {LAYERS "hidden: {depth: 2}\n", "hidden:\n  depth: 2\n"},
      {LAYERS "hidden_solver: direct\n", "hidden_solver:\n  name: direct\n"},
      {LAYERS "hidden_solver: {name: newton, tolerance: 1}\n",
       "hidden_solver:\n  name: newton\n  tolerance: 1\n"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    assert_work(w, work_load(w, cases[i].source));
    char *text = work_print(w);
    if (cases[i].shown != NULL) {
      assert_non_null(strstr(text, cases[i].shown));
    } else {
      assert_null(strstr(text, "secret"));
      assert_null(strstr(text, "hidden"));
    }
    free(text);
  }
}

typedef struct extras {
  bool truth;
  int64_t whole, size;
  double real, time;
  const char *text;
  int word;
  lks_texts names;
  lks_choices list;
  lks_texts shy_names;
  lks_choices shy_list;
  split shy_group;
} extras;

#define EXTRA(type_, member_)                                                                      \
  .key = #member_, .type = type_, .offset = offsetof(extras, member_), .help = ""
static const lks_option extra_rows[] = {
    {EXTRA(LKS_OPT_BOOL, truth), .flags = LKS_OPTION_OPTIONAL},
    {EXTRA(LKS_OPT_INT, whole), .flags = LKS_OPTION_OPTIONAL},
    {EXTRA(LKS_OPT_BYTES, size), .flags = LKS_OPTION_OPTIONAL},
    {EXTRA(LKS_OPT_REAL, real), .flags = LKS_OPTION_OPTIONAL},
    {EXTRA(LKS_OPT_DURATION, time), .flags = LKS_OPTION_OPTIONAL},
    {EXTRA(LKS_OPT_TEXT, text), .flags = LKS_OPTION_OPTIONAL},
    {EXTRA(LKS_OPT_WORD, word), .flags = LKS_OPTION_OPTIONAL, .words = mode_words},
    {EXTRA(LKS_OPT_TEXTS, names), .flags = LKS_OPTION_OPTIONAL},
    {EXTRA(LKS_OPT_CHOICES, list), .flags = LKS_OPTION_OPTIONAL, .kinds = metric_kinds,
     .element_bytes = sizeof(metric)},
    {EXTRA(LKS_OPT_TEXTS, shy_names), .flags = LKS_OPTION_HIDDEN, .fallback = "[]"},
    {EXTRA(LKS_OPT_CHOICES, shy_list), .flags = LKS_OPTION_HIDDEN, .fallback = "[]",
     .kinds = metric_kinds, .element_bytes = sizeof(metric)},
    {EXTRA(LKS_OPT_GROUP, shy_group), .flags = LKS_OPTION_HIDDEN | LKS_OPTION_OPTIONAL,
     .options = split_rows},
    {0}};

/* Optional rows without a default are left out while zero, and hidden lists while empty. */
static void zeros_are_left_out(void **state) {
  work *w = *state;
  extras e = {.truth = false};
  static const char given[] = "truth: true\nwhole: -5\nsize: 5\nreal: -0.5\ntime: 1.5\ntext: x\n"
                              "word: random\nnames:\n  - a\n  - b\nlist:\n  - name: misses\n"
                              "shy_names: c\nshy_list:\n  - name: misses\n";
  assert_work(w, work_parse(w, "{}"));
  assert_work(w, lks_options_bind(extra_rows, w->root, &e, &w->arena, &w->err));
  assert_null(lks_options_emit(extra_rows, &e, &w->arena)->first);
  assert_work(w, work_parse(w, given));
  assert_work(w, lks_options_bind(extra_rows, w->root, &e, &w->arena, &w->err));
  lks_text out = {0};
  lks_tree_print(lks_options_emit(extra_rows, &e, &w->arena), &out);
  assert_string_equal(out.data, given);
  lks_text_free(&out);
}

/* ---- comparison */

static const lks_difference *compare(work *w, const char *old_text, const char *new_text,
                                     int *count) {
  lks_difference *out = NULL;
  assert_work(w, work_load(w, old_text));
  const lks_node *old_root = lks_options_emit(plan_rows, &w->plan, &w->arena);
  assert_work(w, work_load(w, new_text));
  const lks_node *new_root = lks_options_emit(plan_rows, &w->plan, &w->arena);
  assert_true(old_root != NULL && new_root != NULL);
  assert_work(w,
              lks_options_compare(plan_rows, old_root, new_root, &w->arena, &out, count, &w->err));
  return out;
}

static void assert_difference(const lks_difference *d, const char *key, const char *old_value,
                              const char *new_value, bool resumable) {
  assert_string_equal(d->key, key);
  assert_string_equal(d->old_value, old_value);
  assert_string_equal(d->new_value, new_value);
  assert_int_equal(d->resumable, resumable);
}

static void differences_are_named(void **state) {
  work *w = *state;
  int count = 0;
  (void)compare(w, full_text, full_text, &count);
  assert_int_equal(count, 0);
  const lks_difference *d =
      compare(w, LAYERS "count: 1\ntitle: a\nouter: {level: 1, inner: {depth: 1}}\n",
              LAYERS "count: 2\ntitle: b\nouter: {level: 3, inner: {depth: 4}}\n", &count);
  assert_int_equal(count, 4);
  assert_difference(&d[0], "title", "a", "b", false);
  assert_difference(&d[1], "count", "1", "2", true);
  assert_difference(&d[2], "outer.level", "1", "3", true);
  assert_difference(&d[3], "outer.inner.depth", "1", "4", true);
  d = compare(w, LAYERS "columns: [a, b]\nsolver: newton\n", LAYERS "columns: [a, c]\n", &count);
  assert_int_equal(count, 6);
  assert_difference(&d[0], "columns.1", "b", "c", false);
  assert_difference(&d[1], "solver.name", "newton", "gradient", false);
  assert_difference(&d[2], "solver.tolerance", "1e-07", "(absent)", false);
  assert_difference(&d[3], "solver.rate", "(absent)", "0.1", false);
  assert_difference(&d[5], "solver.careful", "(absent)", "false", false);
}

/* A layer's kind is left out of the name, as in overrides, yet a changed kind is a difference. */
static void differences_in_layers(void **state) {
  work *w = *state;
  int count = 0;
  const lks_difference *d =
      compare(w, "layers: [{wide: {units: 8, form: bent}}, flat]\nmetrics: [hits]\n",
              "layers: [{wide: {units: 9, form: {name: bent, slope: 1}}}, drop]\n"
              "metrics: [{name: hits, top: 2}]\n",
              &count);
  assert_int_equal(count, 5);
  assert_difference(&d[0], "metrics.0.top", "1", "2", false);
  assert_difference(&d[1], "layers.0.units", "8", "9", false);
  assert_difference(&d[2], "layers.0.form.slope", "0.25", "1", false);
  assert_difference(&d[3], "layers.1", "{}", "(absent)", false);
  assert_difference(&d[4], "layers.1.rate", "(absent)", "0.5", false);
}

/* Keys that no row has any more (a configuration of another version) are differences too. */
static void unknown_keys_are_compared(void **state) {
  work *w = *state;
  lks_node *old_root = NULL;
  lks_difference *d = NULL;
  int count = 0;
  assert_work(w, work_parse(w, "outer: {gone: {more: 1}}\nlost: 2\nlayers: [{odd: {x: 1}}]\n"
                               "count: {deep: 3}\n"));
  old_root = w->root;
  assert_work(w, work_parse(w, "lost: 2\n"));
  assert_work(w, lks_options_compare(plan_rows, old_root, w->root, &w->arena, &d, &count, &w->err));
  assert_int_equal(count, 3);
  assert_difference(&d[0], "outer.gone.more", "1", "(absent)", true);
  assert_difference(&d[1], "layers.0.x", "1", "(absent)", false);
  assert_difference(&d[2], "count.deep", "3", "(absent)", true);
}

/* ---- reference */

static void assert_contains(const char *text, const char *wanted) {
  if (strstr(text, wanted) == NULL) {
    fail_msg("\"%s\" is not in\n%s", wanted, text);
  }
}

static void reference_as_markdown(void **state) {
  (void)state;
  lks_text out = {0};
  lks_options_reference(plan_rows, true, &out);
  assert_false(out.failed);
  static const char *const parts[] = {
      "| `title` | text | untitled |  | help of title |\n",
      "| `source` | path | empty |  | help of source |\n",
      "| `count` | whole number from 1 to 1000000 | 10 | rows | help of count |\n",
      "| `threads` | whole number from 1 to 64 or auto or all | auto |  | help of threads |\n",
      "| `rate` | number above 0 and at most 1 | 0.5 |  | help of rate |\n",
      "| `mode` | last or random or off | last |  | help of mode |\n",
      "| `limit` | duration from 0 to 1000000 | 0 | s | help of limit |\n",
      "| `layers` | list of layers | required |  | help of layers |\n",
      "| `split` | mapping | absent |  | help of split |\n",
      "| `spare_solver` | choice | absent |  | help of spare_solver |\n| `future` | (a later "
      "version)",
      "\n### `outer.inner`\n\nhelp of inner\n",
      "| `outer.inner.depth` | whole number | 3 |  | help of depth |\n",
      "\n## `solver`\n",
      "| `gradient` | step by step |\n",
      "\n### `solver: gradient`\n\nstep by step\n",
      "| `solver.rate` | number above 0 and at most 10 | 0.1 |",
      "| `solver.clip` | (a later version) | | | clips |\n",
      "| `hits` | counts \\| hits |\n",
      "| `metrics.N.top` | whole number at least 1 | 1 |  | help of top |\n",
      "\n### `layers.N: wide`\n",
      "| `layers.N.units` | whole number from 1 to 1024 | required | units | help of units |\n",
      "Kinds and their options as for `split.form`.\n",
  };
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; ++i) {
    assert_contains(out.data, parts[i]);
  }
  lks_text_free(&out);
}

static void reference_as_text(void **state) {
  (void)state;
  static const lks_option rows[] = {
      {.key = "a_key_that_is_longer_than_the_margin_is",
       .type = LKS_OPT_BOOL,
       .fallback = "true",
       .help = "a help of many words, so many that they do not fit into one line of a hundred "
               "columns, nor into two"},
      {.key = "b", .type = LKS_OPT_LATER, .help = "what comes"},
      {.key = "c", .type = LKS_OPT_BYTES, .unit = "bytes", .help = "a size"},
      {0}};
#define MARGIN "                                  "
  lks_text out = {0};
  lks_options_reference(rows, false, &out);
  assert_string_equal(out.data,
                      "  a_key_that_is_longer_than_the_margin_is\n" MARGIN
                      "a help of many words, so many that they do not fit into one line\n" MARGIN
                      "of a hundred columns, nor into two (true or false; default true)\n"
                      "  c                               a size (size; required; bytes)\n"
                      "  b                               what comes (a later version)\n");
#undef MARGIN
  lks_text_free(&out);
  lks_options_reference(plan_rows, false, &out);
  assert_contains(out.data, "\nsolver: newton: by curvature\n");
  assert_contains(out.data, "  layers.N.rate                   help of rate (number at least 0 and "
                            "below 1; default 0.5)\n");
  assert_contains(out.data, "  kinds and their options as for solver\n");
  for (const char *line = out.data; *line != '\0'; line += strcspn(line, "\n") + 1) {
    assert_true(strcspn(line, "\n") <= 100);
  }
  lks_text_free(&out);
}

/* ---- damage */

/* The generator of the C standard's example: the same damage everywhere. */
static unsigned next_random(unsigned *state, unsigned below) {
  *state = *state * 1103515245u + 12345u;
  return (*state >> 16) % below;
}

/* Changes, deletes, repeats or moves a few pieces. Returns the new length; at most `room`. */
static size_t damage(char *text, size_t length, size_t room, unsigned *state) {
  static const char alphabet[] = "\0\t\n :,-[]{}#&*!|>'\"%@`?~$\\0aez.\xc3\xff";
  for (unsigned edits = 1 + next_random(state, 3); edits > 0 && length > 8; --edits) {
    const size_t at = next_random(state, (unsigned)length - 4);
    const size_t span = 1 + next_random(state, 3);
    switch (next_random(state, 4)) {
    case 0:
      text[at] = alphabet[next_random(state, sizeof alphabet - 1)];
      break;
    case 1:
      memmove(text + at, text + at + span, length - at - span);
      length -= span;
      break;
    case 2:
      if (length + span <= room) {
        memmove(text + at + span, text + at, length - at);
        length += span;
      }
      break;
    default:
      memmove(text + at, text + next_random(state, (unsigned)length - 4), span);
    }
  }
  return length;
}

/* Nothing crashes or leaks (sanitizers tell); whatever binds prints and binds again. */
static void damaged_texts_are_refused_or_read(void **state) {
  (void)state;
  const size_t room = sizeof full_text + 64;
  unsigned random = 20240607u;
  int bound = 0, refused = 0;
  char *text = malloc(room);
  assert_non_null(text);
  for (int trial = 0; trial < 4000; ++trial) {
    work w = {.root = NULL};
    memcpy(text, full_text, sizeof full_text - 1);
    const size_t length = damage(text, sizeof full_text - 1, room, &random);
    lks_status st = lks_tree_parse(text, length, "t.yaml", "/base", &w.arena, &w.root, &w.err);
    if (st == LKS_OK) {
      /* whether it applies depends on the damage; that it is handled is what counts */
      const lks_status applied = work_override(&w, "layers.0.units=3");
      assert_true(applied == LKS_OK || applied == LKS_CONFIG);
      st = work_bind(&w);
    }
    if (st == LKS_OK) {
      char *printed = work_print(&w);
      assert_work(&w, work_load(&w, printed));
      free(printed);
      ++bound;
    } else {
      assert_int_equal(st, LKS_CONFIG);
      assert_true(w.err.what[0] != '\0');
      ++refused;
    }
    lks_arena_free(&w.arena);
  }
  free(text);
  assert_true(bound > 100 && refused > 100); /* the damage reaches both ends */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(defaults_are_printed_in_full, work_make, work_drop),
      cmocka_unit_test_setup_teardown(full_configuration_is_printed, work_make, work_drop),
      cmocka_unit_test_setup_teardown(effective_configuration_reads_back, work_make, work_drop),
      cmocka_unit_test_setup_teardown(zeros_are_left_out, work_make, work_drop),
      cmocka_unit_test_setup_teardown(hidden_rows, work_make, work_drop),
      cmocka_unit_test_setup_teardown(differences_are_named, work_make, work_drop),
      cmocka_unit_test_setup_teardown(differences_in_layers, work_make, work_drop),
      cmocka_unit_test_setup_teardown(unknown_keys_are_compared, work_make, work_drop),
      cmocka_unit_test(reference_as_markdown),
      cmocka_unit_test(reference_as_text),
      cmocka_unit_test(damaged_texts_are_refused_or_read),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
