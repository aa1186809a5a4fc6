/* Scaling: moments however they are cut and merged, each kind of map, applying and undoing. */
#include "scratch.h"

#include <float.h>
#include <math.h>

#include "model/scaling.h"

static lks_scaling_choice choose(lks_scaling_id id, double divisor) {
  for (int i = 0; lks_scaling_kinds[i] != NULL; ++i) {
    if (lks_scaling_of(lks_scaling_kinds[i]) == id) {
      return (lks_scaling_choice){lks_scaling_kinds[i], divisor};
    }
  }
  fail_msg("no kind %d", (int)id);
  return (lks_scaling_choice){0};
}

/* |a - b| within `ulps` roundings of a double relative to scale. */
static void close_to(double a, double b, double ulps, double scale) {
  if (!(fabs(a - b) <= ulps * DBL_EPSILON * scale)) {
    fail_msg("%.17g is not %.17g", a, b);
  }
}

static void kinds_are_told_apart(void **state) {
  (void)state;
  static const char *const names[] = {"none", "standardize", "minmax", "divide"};
  for (int id = 0; id < 4; ++id) {
    const lks_scaling_choice choice = choose((lks_scaling_id)id, 2);
    assert_string_equal(choice.kind->name, names[id]);
    assert_int_equal(lks_scaling_needs_fit(&choice), id == 1 || id == 2);
  }
  assert_int_equal(lks_scaling_of(NULL), LKS_SCALING_NONE);
}

/* The numbers 1 to n have mean (n + 1) / 2 and n (n^2 - 1) / 12 as sum of squares about it. Welford
 * makes a few roundings a row, each of at most eps relative: 4 n of them bound the sum. */
static void moments_are_right(void **state) {
  (void)state;
  enum { N = 1000 };
  static double values[N][2];
  lks_moments m[2];
  for (int i = 0; i < N; ++i) {
    values[i][0] = i + 1;
    values[i][1] = 1e6 - 3 * (i + 1);
  }
  lks_moments_of(values[0], N, 2, m);
  const double m2 = (double)N * ((double)N * N - 1) / 12;
  assert_true(m[0].count == N && m[1].count == N);
  close_to(m[0].mean, (N + 1) / 2.0, 4.0 * N, N);
  close_to(m[0].m2, m2, 4.0 * N, m2);
  assert_true(m[0].min == 1 && m[0].max == N);
  close_to(m[1].mean, 1e6 - 3 * (N + 1) / 2.0, 4.0 * N, 1e6);
  /* Values of 1e6 against a spread of 1e3: roundings of the mean count a thousandfold. */
  close_to(m[1].m2, 9 * m2, 4.0 * N * 1000, 9 * m2);
  assert_true(m[1].min == 1e6 - 3.0 * N && m[1].max == 1e6 - 3);
}

/* Adding in any cuts gives the same bits; merging blocks gives the same up to rounding. */
static void cuts_do_not_show(void **state) {
  (void)state;
  enum { N = 211, C = 3 };
  double values[N * C];
  lks_moments whole[C];
  lks_moments merged[C];
  for (int i = 0; i < N * C; ++i) {
    values[i] = sin(i * 1.7) * 50 + i % C;
  }
  lks_moments_of(values, N, C, whole);
  for (int cut = 0; cut <= N; cut += 13) {
    lks_moments parts[C];
    lks_moments rest[C];
    lks_moments_clear(parts, C);
    lks_moments_add(parts, values, cut, C);
    lks_moments_add(parts, values + cut * C, N - cut, C);
    assert_memory_equal(parts, whole, sizeof whole);
    lks_moments_of(values, cut, C, merged);
    lks_moments_of(values + cut * C, N - cut, C, rest);
    lks_moments_merge(merged, rest, C); /* one of them is empty at either end */
    for (int c = 0; c < C; ++c) {
      assert_true(merged[c].count == whole[c].count);
      close_to(merged[c].mean, whole[c].mean, 4.0 * N, 53);
      close_to(merged[c].m2, whole[c].m2, 4.0 * N, whole[c].m2);
      assert_true(merged[c].min == whole[c].min && merged[c].max == whole[c].max);
    }
  }
}

static void maps_are_right(void **state) {
  (void)state;
  /* Columns: 0 2 4 6 (mean 3, variance 5); constant; so wide that no double can divide by it. */
  static const double values[4][3] = {{0, 0.1, -1e300}, {2, 0.1, 1e300}, {4, 0.1, 0}, {6, 0.1, 0}};
  lks_arena arena = {0};
  lks_moments m[3];
  lks_scaling s;
  lks_moments_of(values[0], 4, 3, m);
  lks_scaling_choice choice = choose(LKS_SCALING_STANDARDIZE, 0);
  assert_true(lks_scaling_fit(&s, &choice, m, 3, &arena));
  assert_int_equal(s.columns, 3);
  assert_true(s.shift[0] == 3);
  close_to(s.factor[0], 1 / sqrt(5), 4, 1);
  assert_true(s.shift[1] == 0.1 && s.factor[1] == 1);
  assert_true(s.factor[2] == 1);
  choice = choose(LKS_SCALING_MINMAX, 0);
  assert_true(lks_scaling_fit(&s, &choice, m, 3, &arena));
  assert_true(s.shift[0] == 0 && s.factor[0] == 1.0 / 6);
  assert_true(s.shift[1] == 0.1 && s.factor[1] == 1);
  choice = choose(LKS_SCALING_DIVIDE, 8);
  assert_true(lks_scaling_fit(&s, &choice, NULL, 3, &arena));
  assert_true(s.shift[2] == 0 && s.factor[2] == 0.125);
  choice = choose(LKS_SCALING_NONE, 0);
  assert_true(lks_scaling_fit(&s, &choice, NULL, 3, &arena));
  assert_true(s.columns == 0 && s.shift == NULL && s.factor == NULL);
  lks_arena_free(&arena);
}

static void floats_give_the_same_bits(void **state) {
  (void)state;
  enum { ROWS = 50, COLUMNS = 3 };
  double shift[] = {0.1, -1e3, 7};
  double factor[] = {1.0 / 3, 4e-6, 1e9};
  const lks_scaling scalings[] = {{COLUMNS, shift, factor}, {0}};
  double doubles[ROWS * COLUMNS];
  float floats[ROWS * COLUMNS], expected[ROWS * COLUMNS], out[ROWS * COLUMNS];
  for (int s = 0; s < 2; ++s) {
    for (int i = 0; i < ROWS * COLUMNS; ++i) {
      floats[i] = (float)(sin(i * 1.3) * 20);
      doubles[i] = (double)floats[i];
    }
    lks_scaling_apply(&scalings[s], doubles, expected, ROWS, COLUMNS);
    lks_scaling_apply_floats(&scalings[s], floats, out, ROWS, COLUMNS);
    assert_memory_equal(out, expected, sizeof expected);
    lks_scaling_apply_floats(&scalings[s], floats, floats, ROWS, COLUMNS);
    assert_memory_equal(floats, expected, sizeof expected);
  }
}

static void applied_and_undone(void **state) {
  (void)state;
  double shift[] = {3, -1};
  double factor[] = {0.5, 4};
  const lks_scaling s = {2, shift, factor};
  const lks_scaling nothing = {0};
  static const double in[] = {1, 2, 3, 4, 5, 0.1};
  static const float scaled[] = {-1, 12, 0, 20, 1, (float)((0.1 + 1) * 4)};
  float out[6];
  double back[6];
  lks_scaling_apply(&s, in, out, 3, 2);
  assert_memory_equal(out, scaled, sizeof scaled);
  lks_scaling_undo(&s, out, back, 3, 2);
  for (int i = 0; i < 6; ++i) {
    /* One rounding to float, of scaled values up to 20, that stand for a quarter at least. */
    assert_true(fabs(back[i] - in[i]) <= (double)FLT_EPSILON * 20 / 0.5);
  }
  lks_scaling_apply(&nothing, in, out, 3, 2);
  assert_true(out[0] == 1 && out[5] == 0.1f);
  lks_scaling_undo(&nothing, out, back, 3, 2);
  assert_true(back[0] == 1 && back[5] == (double)0.1f);
}

/* What lies far from zero comes back as near as scaled values tell it apart. */
static void large_shifts_are_undone(void **state) {
  (void)state;
  double shift[] = {1.7e9};
  double factor[] = {0.01};
  const lks_scaling s = {1, shift, factor};
  static const double in[] = {1.7e9 - 150, 1.7e9 + 0.5, 1.7e9 + 199};
  float out[3];
  double back[3];
  lks_scaling_apply(&s, in, out, 3, 1);
  lks_scaling_undo(&s, out, back, 3, 1);
  for (int i = 0; i < 3; ++i) { /* a rounding to float, of values up to 2, that stand for 200 */
    assert_true(fabs(back[i] - in[i]) <= (double)FLT_EPSILON * 2 / 0.01);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(kinds_are_told_apart),      cmocka_unit_test(moments_are_right),
      cmocka_unit_test(cuts_do_not_show),          cmocka_unit_test(maps_are_right),
      cmocka_unit_test(floats_give_the_same_bits), cmocka_unit_test(applied_and_undone),
      cmocka_unit_test(large_shifts_are_undone),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
