/* KEY=VALUE: walking dotted names, expanding what they pass, replacing kinds, and refusals. */
#include "option_fixture.h"

/* Parses, overrides with each of the assignments (the last is NULL), binds. */
static void apply(work *w, const char *text, const char *const *assignments) {
  assert_work(w, work_parse(w, text));
  for (; *assignments != NULL; ++assignments) {
    assert_work(w, work_override(w, *assignments));
  }
  assert_work(w, work_bind(w));
}

#define APPLY(text_, ...) apply(w, text_, (const char *const[]){__VA_ARGS__, NULL})
#define LAYERS "layers: [{wide: {units: 8}}, drop, {form: {form: bent}}, flat]\n"

static const layer *layer_at(const work *w, int index) {
  assert_true(index < w->plan.layers.count);
  return (const layer *)w->plan.layers.items + index;
}

static void scalars_are_set(void **state) {
  work *w = *state;
  const plan *p = &w->plan;
  APPLY(LAYERS "count: 5\nsource: x\n", "count=6", "title=a=b c", "fast=no", "mode=off", "limit=2m",
        "memory=1K", "threads=all", "source=data/y", "columns=[a, 'b c']",
        "metrics=[hits, {name: hits, top: 3}]");
  assert_int_equal(p->count, 6);
  assert_string_equal(p->title, "a=b c");
  assert_false(p->fast);
  assert_int_equal(p->mode, 2);
  assert_true(p->limit == 120.0);
  assert_int_equal(p->memory, 1024);
  assert_int_equal(p->threads, -2);
  assert_string_equal(p->source, "/here/data/y");
  assert_int_equal(p->columns.count, 2);
  assert_string_equal(p->columns.items[1], "b c");
  assert_int_equal(((const metric *)p->metrics.items)[1].top, 3);
}

static void last_one_wins_and_empty_is_text(void **state) {
  work *w = *state;
  APPLY(LAYERS "title: x\n", "title=y", "title=z", "note=", "columns=", "count=1", "count=2");
  assert_string_equal(w->plan.title, "z");
  assert_string_equal(w->plan.note, "");
  assert_int_equal(w->plan.columns.count, 0);
  assert_int_equal(w->plan.count, 2);
  APPLY(LAYERS, "title=", "title='5'", "source=");
  assert_string_equal(w->plan.title, "5");
  assert_string_equal(w->plan.source, "");
}

/* ${NAME} is the file's: on the command line the shell expands. */
static void values_are_not_expanded(void **state) {
  work *w = *state;
  APPLY(LAYERS, "title=${LKS_TEST_UNSET} $${x}");
  assert_string_equal(w->plan.title, "${LKS_TEST_UNSET} $${x}");
}

static void mappings_are_made(void **state) {
  work *w = *state;
  const plan *p = &w->plan;
  APPLY(LAYERS, "outer.inner.depth=9", "split.fraction=0.5", "split.part.size=2",
        "split.form.slope=4");
  assert_int_equal(p->outer.inner.size, 9);
  assert_int_equal(p->outer.level, 2);
  assert_true(p->split.present && p->split.fraction == 0.5);
  assert_int_equal(p->split.part.size, 2);
  assert_ptr_equal(p->split.form.kind, &bent);
  assert_true(p->split.form.slope == 4.0);
  APPLY(LAYERS "split: 0.1\n", "split.rows=off", "split.part={size: 3}");
  assert_true(p->split.fraction == 0.1);
  assert_int_equal(p->split.rows, 2);
  assert_int_equal(p->split.part.size, 3);
  APPLY(LAYERS "outer: {level: 5}\n", "outer={inner: {depth: 1}}");
  assert_int_equal(p->outer.level, 2);
  assert_int_equal(p->outer.inner.size, 1);
}

static void choices(void **state) {
  work *w = *state;
  const solver *s = &w->plan.solver;
  APPLY(LAYERS, "solver.rate=0.3"); /* of the default kind */
  assert_ptr_equal(s->kind, &gradient);
  assert_true(s->rate == 0.3);
  APPLY(LAYERS "solver: newton\n", "solver.tolerance=0.1");
  assert_true(s->kind == &newton && s->tolerance == 0.1);
  APPLY(LAYERS "solver: {rate: 0.3, name: gradient, momentum: 1}\n", "solver.name=newton");
  assert_true(s->kind == &newton && s->tolerance == 1e-7);
  APPLY(LAYERS "solver: {rate: 0.3, name: gradient, momentum: 0.5}\n", "solver.name=gradient");
  assert_true(s->kind == &gradient && s->rate == 0.3 && s->momentum == 0.5);
  APPLY(LAYERS "solver: {name: gradient, rate: 0.3}\n", "solver=newton", "solver.tolerance=1");
  assert_true(s->kind == &newton && s->tolerance == 1.0);
  APPLY(LAYERS "solver: {name: gradient, rate: 0.3}\n", "solver=gradient");
  assert_true(s->rate == 0.1);
  APPLY(LAYERS "solver: {rate: 0.3}\n", "solver.name=gradient");
  assert_true(s->rate == 0.3);
  APPLY(LAYERS, "spare_solver.name=newton", "spare_solver.tolerance=2");
  assert_true(w->plan.spare_solver.kind == &newton && w->plan.spare_solver.tolerance == 2.0);
}

static void elements(void **state) {
  work *w = *state;
  APPLY(LAYERS "metrics: [hits, misses]\ncolumns: x\n", "layers.0.units=16",
        "layers.0.form.name=bent", "layers.0.form.slope=7", "layers.0.name=first",
        "layers.1.rate=0.25", "layers.2.form=straight", "layers.3={drop: {rate: 0.125}}",
        "metrics.0.top=4", "metrics.1=hits", "columns.0=y");
  assert_int_equal(layer_at(w, 0)->wide.units, 16);
  assert_ptr_equal(layer_at(w, 0)->wide.form.kind, &bent);
  assert_true(layer_at(w, 0)->wide.form.slope == 7.0);
  assert_string_equal(layer_at(w, 0)->name, "first");
  assert_true(layer_at(w, 1)->drop_rate == 0.25);
  assert_ptr_equal(layer_at(w, 2)->form.kind, &straight);
  assert_true(layer_at(w, 3)->kind == &drop_kind && layer_at(w, 3)->drop_rate == 0.125);
  assert_int_equal(((const metric *)w->plan.metrics.items)[0].top, 4);
  assert_ptr_equal(((const metric *)w->plan.metrics.items)[1].kind, &hits);
  assert_string_equal(w->plan.columns.items[0], "y");
  APPLY(LAYERS "columns: [a, b]\n", "columns.1=c", "layers=[flat]");
  assert_string_equal(w->plan.columns.items[1], "c");
  assert_int_equal(w->plan.layers.count, 1);
}

#define assert_refused(text_, assignment_, expected_)                                              \
  do {                                                                                             \
    assert_work(w, work_parse(w, text_));                                                          \
    assert_line(w, work_override(w, assignment_), expected_);                                      \
  } while (0)

static void refuses_names(void **state) {
  work *w = *state;
  assert_refused(LAYERS, "word",
                 "command line: 'word' is no assignment; write KEY=VALUE, as in train.epochs=3");
  assert_refused(LAYERS, "=5",
                 "command line: '=5' is no assignment; write KEY=VALUE, as in train.epochs=3");
  assert_refused(LAYERS, "count.=5",
                 "command line: 'count.=5' is no assignment; write KEY=VALUE, as in "
                 "train.epochs=3");
  assert_refused(LAYERS, "coutn=5", "command line: coutn: unknown key; did you mean 'count'?");
  assert_refused(LAYERS, "outer.inner.dept=5",
                 "command line: outer.inner.dept: unknown key; did you mean 'depth'?");
  assert_refused(LAYERS, "outer..depth=5",
                 "command line: outer: unknown key; known here: level, inner");
  assert_refused(LAYERS, "future=5", "command line: future: not in this version; remove the key");
  assert_refused(LAYERS, "count.x=5",
                 "command line: count: has no keys below it; leave out what follows it");
  assert_refused(LAYERS "columns: [a]\n", "columns.0.x=5",
                 "command line: columns.0: a name has no keys below it; leave out what follows it");
  assert_refused(LAYERS, "solver.tolerance=5",
                 "command line: solver.tolerance: unknown key for 'gradient'; 'gradient' has rate, "
                 "momentum, careful");
  assert_refused(LAYERS, "layers.0.unit=5",
                 "command line: layers.0.unit: unknown key for 'wide'; did you mean 'units'? "
                 "'wide' has units, form, name");
  assert_refused(LAYERS, "layers.3.rate=5",
                 "command line: layers.3.rate: unknown key for 'flat'; 'flat' has nothing");
  assert_refused(LAYERS, "layers.x.units=5",
                 "command line: layers.x: expects the index of an element, got 'x'; number the "
                 "elements from 0");
  assert_refused(LAYERS, "layers.-1=flat",
                 "command line: layers.-1: expects the index of an element, got '-1'; number the "
                 "elements from 0");
  assert_refused(LAYERS, "layers.4.units=5",
                 "command line: layers.4: no such element: the list has 4; elements are numbered "
                 "from 0");
  assert_refused(LAYERS, "metrics.0=hits",
                 "command line: metrics.0: no such element: the list has 0; elements are numbered "
                 "from 0");
}

static void refuses_what_it_meets(void **state) {
  work *w = *state;
  assert_refused("outer:\n", "outer.level=5",
                 "t.yaml:1:1: outer: has no value; give it a value or remove it");
  assert_refused("outer: 5\n", "outer.level=5",
                 "t.yaml:1:1: outer: expects a mapping, got '5'; correct it there first");
  assert_refused("split: refused\n", "split.rows=last",
                 "t.yaml:1:1: split: the hook refuses; expand differently");
  assert_refused("solver: [newton]\n", "solver.rate=5",
                 "t.yaml:1:1: solver: expects a name or a mapping with 'name', got a list; choose "
                 "one");
  assert_refused("solver: {rate: 1}\n", "solver.rate=5",
                 "t.yaml:1:1: solver: the mapping has no 'name'; add 'name', one of: gradient, "
                 "newton, direct");
  assert_refused("solver: nwton\n", "solver.rate=5",
                 "t.yaml:1:1: solver: no such choice: 'nwton'; did you mean 'newton'? known: "
                 "gradient, newton, direct");
  assert_refused("metrics: [~]\n", "metrics.0.top=5",
                 "t.yaml:1:11: metrics.0: has no value; give it a value or remove it");
  assert_refused("layers: 5\n", "layers.0.units=5",
                 "t.yaml:1:1: layers: expects a list, got '5'; correct it there first");
  assert_refused("layers: [~]\n", "layers.0.units=5",
                 "t.yaml:1:10: layers.0: has no value; give it a value or remove it");
  assert_refused("layers: [wid]\n", "layers.0.units=5",
                 "t.yaml:1:10: layers.0: no such choice: 'wid'; did you mean 'wide'? known: wide, "
                 "drop, form, flat");
  assert_refused(LAYERS, "spare_solver.rate=5",
                 "command line: spare_solver: the mapping has no 'name'; add 'name', one of: "
                 "gradient, newton, direct");
}

static void refuses_values(void **state) {
  work *w = *state;
  assert_refused(LAYERS, "columns=[a",
                 "command line: columns: while parsing a flow sequence: did not find expected ',' "
                 "or ']'; put quotes around the value");
  assert_refused(LAYERS, "title=*.h5",
                 "command line: title: while scanning an alias: did not find expected alphabetic "
                 "or numeric character; put quotes around the value");
  assert_refused(LAYERS, "title=*x",
                 "command line: title: aliases (*x) are not allowed; write the value out, or put "
                 "quotes around a text");
  assert_refused(LAYERS, "title=a #b",
                 "command line: 'title=a #b': what follows ' #' would be left out, as a comment of "
                 "YAML; quote the value once more: KEY='\"a #b\"'");
  assert_refused(LAYERS, "outer={level: 1, level: 2}",
                 "command line: outer.level: repeated key; remove one");
  /* of the wrong type: found when bound, and told where it came from */
  assert_work(w, work_parse(w, LAYERS));
  assert_work(w, work_override(w, "outer.inner.depth=x"));
  assert_line(w, work_bind(w),
              "command line: outer.inner.depth: expects a whole number, got 'x'; "
              "write digits alone");
  assert_work(w, work_parse(w, LAYERS));
  assert_work(w, work_override(w, "count=~"));
  assert_line(w, work_bind(w), "command line: count: has no value; give it a value or remove it");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(scalars_are_set, work_make, work_drop),
      cmocka_unit_test_setup_teardown(last_one_wins_and_empty_is_text, work_make, work_drop),
      cmocka_unit_test_setup_teardown(values_are_not_expanded, work_make, work_drop),
      cmocka_unit_test_setup_teardown(mappings_are_made, work_make, work_drop),
      cmocka_unit_test_setup_teardown(choices, work_make, work_drop),
      cmocka_unit_test_setup_teardown(elements, work_make, work_drop),
      cmocka_unit_test_setup_teardown(refuses_names, work_make, work_drop),
      cmocka_unit_test_setup_teardown(refuses_what_it_meets, work_make, work_drop),
      cmocka_unit_test_setup_teardown(refuses_values, work_make, work_drop),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
