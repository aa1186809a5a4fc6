/* An invented table that uses every type, flag and nesting of option rows. */
#ifndef LKS_TESTS_OPTION_FIXTURE_H
#define LKS_TESTS_OPTION_FIXTURE_H

#include "scratch.h"

#include "config/option.h"

typedef struct form {
  const lks_kind *kind;
  double slope;
} form;

typedef struct layer {
  const lks_kind *kind;
  const char *name;
  struct {
    int64_t units;
    form form;
  } wide;
  double drop_rate;
  form form;
} layer;

typedef struct solver {
  const lks_kind *kind;
  double rate, momentum, tolerance;
  bool careful;
} solver;

typedef struct metric {
  const lks_kind *kind;
  int64_t top;
} metric;

typedef struct part {
  int64_t size;
} part;

typedef struct split {
  bool present;
  double fraction;
  int rows;
  const char *file;
  part part;
  form form;
} split;

typedef struct outer {
  int64_t level;
  part inner;
} outer;

typedef struct plan {
  const char *title, *source, *note;
  bool fast;
  int64_t count, threads, memory, secret;
  double rate, share, limit;
  int mode;
  lks_texts columns;
  outer outer;
  split split;
  solver solver, hidden_solver;
  part hidden;
  lks_choices metrics, layers;
  double spare;
  int spare_word;
  lks_texts spares;
  solver spare_solver;
} plan;

#define ROW(type_, key_, struct_, member_)                                                         \
  .key = key_, .type = type_, .offset = offsetof(struct_, member_), .help = "help of " key_

static const char *const mode_words[] = {"last", "random", "off", NULL};
static const char *const auto_words[] = {"auto", "all", NULL};

static const lks_option slope_rows[] = {
    {ROW(LKS_OPT_REAL, "slope", form, slope), .fallback = "0.25", .min = 0, .max = -1}, {0}};
static const lks_kind bent = {"bent", "with a slope", slope_rows};
static const lks_kind straight = {"straight", "without", NULL};
static const lks_kind *const form_kinds[] = {&bent, &straight, NULL};

static const lks_option wide_rows[] = {
    {ROW(LKS_OPT_INT, "units", layer, wide.units), .min = 1, .max = 1024, .unit = "units"},
    {ROW(LKS_OPT_CHOICE, "form", layer, wide.form), .fallback = "straight", .kinds = form_kinds},
    {ROW(LKS_OPT_TEXT, "name", layer, name), .fallback = ""},
    {.key = "l1", .type = LKS_OPT_LATER, .help = "a penalty"},
    {0}};
static const lks_option drop_rows[] = {{ROW(LKS_OPT_REAL, "rate", layer, drop_rate),
                                        .fallback = "0.5", .max = 1, .flags = LKS_OPTION_BELOW_MAX},
                                       {0}};
/* a kind that has an option of its own name */
static const lks_option form_rows[] = {
    {ROW(LKS_OPT_CHOICE, "form", layer, form), .kinds = form_kinds}, {0}};
static const lks_kind wide_kind = {"wide", "many units", wide_rows};
static const lks_kind drop_kind = {"drop", "drops some", drop_rows};
static const lks_kind form_kind = {"form", "a form alone", form_rows};
static const lks_kind flat_kind = {"flat", "nothing to say", NULL};
static const lks_kind *const layer_kinds[] = {&wide_kind, &drop_kind, &form_kind, &flat_kind, NULL};

static const lks_option gradient_rows[] = {
    {ROW(LKS_OPT_REAL, "rate", solver, rate), .fallback = "0.1", .max = 10,
     .flags = LKS_OPTION_ABOVE_MIN},
    {ROW(LKS_OPT_REAL, "momentum", solver, momentum), .fallback = "0"},
    {ROW(LKS_OPT_BOOL, "careful", solver, careful), .fallback = "false"},
    {.key = "clip", .type = LKS_OPT_LATER, .help = "clips"},
    {0}};
static const lks_option newton_rows[] = {
    {ROW(LKS_OPT_REAL, "tolerance", solver, tolerance), .fallback = "1e-7"}, {0}};
static const lks_kind gradient = {"gradient", "step by step", gradient_rows};
static const lks_kind newton = {"newton", "by curvature", newton_rows};
static const lks_kind direct = {"direct", "at once", NULL};
static const lks_kind *const solver_kinds[] = {&gradient, &newton, &direct, NULL};

static const lks_option top_rows[] = {
    {ROW(LKS_OPT_INT, "top", metric, top), .fallback = "1", .min = 1, .max = -1}, {0}};
static const lks_kind hits = {"hits", "counts | hits", top_rows};
static const lks_kind misses = {"misses", "counts misses", NULL};
static const lks_kind *const metric_kinds[] = {&hits, &misses, NULL};

/* split: 0.1 -> {fraction: 0.1} */
static inline lks_status expand_split(lks_node *node, const char *dotted, lks_arena *arena,
                                      lks_error *err) {
  if (node->kind != LKS_NODE_SCALAR) {
    return LKS_OK;
  }
  if (strcmp(node->text, "refused") == 0) {
    return lks_node_fail(node, dotted, err, "expand differently", "the hook refuses");
  }
  lks_node *fraction = lks_node_new(arena, LKS_NODE_SCALAR, "fraction", node->text, node);
  if (fraction == NULL) {
    return lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory");
  }
  node->kind = LKS_NODE_MAP;
  node->first = fraction;
  return LKS_OK;
}

static const lks_option part_rows[] = {{ROW(LKS_OPT_INT, "size", part, size), .min = 1, .max = 8},
                                       {0}};
static const lks_option inner_rows[] = {{ROW(LKS_OPT_INT, "depth", part, size), .fallback = "3"},
                                        {0}};
static const lks_option outer_rows[] = {
    {ROW(LKS_OPT_INT, "level", outer, level), .fallback = "2"},
    {ROW(LKS_OPT_GROUP, "inner", outer, inner), .fallback = "{}", .options = inner_rows},
    {0}};
static const lks_option split_rows[] = {
    {ROW(LKS_OPT_REAL, "fraction", split, fraction), .max = 1,
     .flags = LKS_OPTION_ABOVE_MIN | LKS_OPTION_BELOW_MAX},
    {ROW(LKS_OPT_WORD, "rows", split, rows), .fallback = "random", .words = mode_words},
    {ROW(LKS_OPT_PATH, "file", split, file), .flags = LKS_OPTION_OPTIONAL},
    {ROW(LKS_OPT_GROUP, "part", split, part), .options = part_rows},
    {ROW(LKS_OPT_CHOICE, "form", split, form), .fallback = "bent", .kinds = form_kinds},
    {0}};

static const lks_option plan_rows[] = {
    {ROW(LKS_OPT_TEXT, "title", plan, title), .fallback = "untitled"},
    {ROW(LKS_OPT_PATH, "source", plan, source), .fallback = ""},
    {ROW(LKS_OPT_TEXT, "note", plan, note), .flags = LKS_OPTION_OPTIONAL},
    {ROW(LKS_OPT_BOOL, "fast", plan, fast), .fallback = "true"},
    {ROW(LKS_OPT_INT, "count", plan, count), .fallback = "10", .min = 1, .max = 1e6, .unit = "rows",
     .flags = LKS_OPTION_RESUME},
    {ROW(LKS_OPT_INT, "threads", plan, threads), .fallback = "auto", .min = 1, .max = 64,
     .words = auto_words},
    {ROW(LKS_OPT_BYTES, "memory", plan, memory), .fallback = "0", .unit = "bytes"},
    {ROW(LKS_OPT_INT, "secret", plan, secret), .fallback = "7", .flags = LKS_OPTION_HIDDEN},
    {ROW(LKS_OPT_REAL, "rate", plan, rate), .fallback = "0.5", .max = 1,
     .flags = LKS_OPTION_ABOVE_MIN},
    {ROW(LKS_OPT_REAL, "share", plan, share), .fallback = "auto", .max = 1, .words = auto_words,
     .flags = LKS_OPTION_BELOW_MAX},
    {ROW(LKS_OPT_DURATION, "limit", plan, limit), .fallback = "0", .max = 1e6, .unit = "s"},
    {ROW(LKS_OPT_WORD, "mode", plan, mode), .fallback = "last", .words = mode_words},
    {ROW(LKS_OPT_TEXTS, "columns", plan, columns), .fallback = "[]", .max = 3},
    {ROW(LKS_OPT_GROUP, "outer", plan, outer), .fallback = "{}", .options = outer_rows,
     .flags = LKS_OPTION_RESUME},
    {ROW(LKS_OPT_GROUP, "split", plan, split), .options = split_rows, .expand = expand_split,
     .flags = LKS_OPTION_OPTIONAL},
    {ROW(LKS_OPT_CHOICE, "solver", plan, solver), .fallback = "gradient", .kinds = solver_kinds},
    {ROW(LKS_OPT_CHOICE, "hidden_solver", plan, hidden_solver), .fallback = "newton",
     .kinds = solver_kinds, .flags = LKS_OPTION_HIDDEN},
    {ROW(LKS_OPT_GROUP, "hidden", plan, hidden), .fallback = "{}", .options = inner_rows,
     .flags = LKS_OPTION_HIDDEN},
    {ROW(LKS_OPT_CHOICES, "metrics", plan, metrics), .fallback = "[]", .kinds = metric_kinds,
     .element_bytes = sizeof(metric), .max = 2},
    {ROW(LKS_OPT_LAYERS, "layers", plan, layers), .kinds = layer_kinds,
     .element_bytes = sizeof(layer), .min = 1, .max = 100},
    {ROW(LKS_OPT_REAL, "spare", plan, spare), .flags = LKS_OPTION_OPTIONAL},
    {ROW(LKS_OPT_WORD, "spare_word", plan, spare_word), .words = mode_words,
     .flags = LKS_OPTION_OPTIONAL},
    {ROW(LKS_OPT_TEXTS, "spares", plan, spares), .flags = LKS_OPTION_OPTIONAL},
    {ROW(LKS_OPT_CHOICE, "spare_solver", plan, spare_solver), .kinds = solver_kinds,
     .flags = LKS_OPTION_OPTIONAL},
    {.key = "future", .type = LKS_OPT_LATER, .help = "what comes"},
    {0}};
#undef ROW

/* A configuration that says something about every key. */
static const char full_text[] = "title: 'a: title'\n"
                                "source: in/data.h5\n"
                                "note: \"5\"\n"
                                "fast: no\n"
                                "count: 20\n"
                                "threads: 4\n"
                                "memory: 512M\n"
                                "secret: 8\n"
                                "rate: 1e-3\n"
                                "share: 0\n"
                                "limit: 23h30m\n"
                                "mode: off\n"
                                "columns: [x, 'y z', \"null\"]\n"
                                "outer: {level: 5, inner: {depth: 6}}\n"
                                "split:\n"
                                "  fraction: 0.25\n"
                                "  rows: last\n"
                                "  file: other.h5\n"
                                "  part: {size: 2}\n"
                                "  form: {name: bent, slope: 2}\n"
                                "solver: {name: gradient, rate: 0.2, momentum: 0.9, careful: on}\n"
                                "hidden_solver: direct\n"
                                "hidden: {depth: 4}\n"
                                "metrics: [misses, {name: hits, top: 5}]\n"
                                "layers:\n"
                                "  - wide: {units: 8, form: {name: bent, slope: 3}, name: first}\n"
                                "  - drop\n"
                                "  - form: {form: bent}\n"
                                "  - flat\n"
                                "  - wide: {units: 1}\n"
                                "spare: 2.5\n"
                                "spare_word: random\n"
                                "spares: z\n"
                                "spare_solver: {name: newton, tolerance: 0.5}\n";

/* What each test works on. */
typedef struct work {
  lks_arena arena;
  lks_node *root;
  plan plan;
  lks_error err;
} work;

static inline int work_make(void **state) {
  *state = calloc(1, sizeof(work));
  return *state != NULL ? 0 : -1;
}

static inline int work_drop(void **state) {
  work *w = *state;
  lks_arena_free(&w->arena);
  free(w);
  return 0;
}

static inline lks_status work_parse(work *w, const char *text) {
  return lks_tree_parse(text, strlen(text), "t.yaml", "/base", &w->arena, &w->root, &w->err);
}

static inline lks_status work_bind(work *w) {
  memset(&w->plan, 0, sizeof w->plan);
  return lks_options_bind(plan_rows, w->root, &w->plan, &w->arena, &w->err);
}

static inline lks_status work_load(work *w, const char *text) {
  const lks_status st = work_parse(w, text);
  return st == LKS_OK ? work_bind(w) : st;
}

static inline lks_status work_override(work *w, const char *assignment) {
  return lks_options_override(plan_rows, w->root, assignment, "/here", &w->arena, &w->err);
}

/* The effective configuration as text; free() it. */
static inline char *work_print(work *w) {
  lks_text out = {0};
  const lks_node *root = lks_options_emit(plan_rows, &w->plan, &w->arena);
  assert_non_null(root);
  lks_tree_print(root, &out);
  assert_false(out.failed);
  return out.data;
}

#define assert_work(w_, call_)                                                                     \
  do {                                                                                             \
    if ((call_) != LKS_OK) {                                                                       \
      fail_msg("%s: %s; %s", #call_, (w_)->err.what, (w_)->err.remedy);                            \
    }                                                                                              \
  } while (0)

/* The error is of the configuration; its line says exactly this. */
#define assert_line(w_, call_, expected_)                                                          \
  do {                                                                                             \
    char line_[2048];                                                                              \
    lks_error_clear(&(w_)->err);                                                                   \
    assert_int_equal((call_), LKS_CONFIG);                                                         \
    assert_int_equal((w_)->err.status, LKS_CONFIG);                                                \
    lks_error_line(&(w_)->err, line_, sizeof line_);                                               \
    assert_string_equal(line_, (expected_));                                                       \
  } while (0)

#endif
