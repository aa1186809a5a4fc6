/* lks_product_cpu against plain loops: every shape near the tiles' edges, all three layouts, both
 * ways of ending, with sentinels behind c. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cpu/product.h"
#include "base/random.h"

enum { SENTINELS = 64 };
#define SENTINEL 12345.0f
#define MANY ((int64_t)1 << 40) /* of weights: BLAS, unless rows are few */

static float *values(int64_t count, uint32_t key) {
  float *out = malloc((size_t)count * sizeof *out);
  assert_non_null(out);
  for (int64_t i = 0; i < count; ++i) {
    out[i] = lks_uniform(lks_philox((uint32_t)i, 0, 0, 0, key, 9).v[0]) - 0.5f;
  }
  return out;
}

/* Terms are below 1/4, so `depth` roundings are below depth eps depth / 4. */
static void try_product(lks_product p, int64_t weights) {
  p.weights = weights;
  p.c_row = p.c_row > 0 ? p.c_row : p.columns;
  const int64_t size = p.rows * p.c_row;
  float *a = values(p.rows * p.depth + LKS_PRODUCT_SLACK, 1);
  float *b = values(p.depth * p.columns + LKS_PRODUCT_SLACK, 2);
  for (int64_t i = 0; i < LKS_PRODUCT_SLACK; ++i) { /* may be read, never counts */
    a[p.rows * p.depth + i] = b[p.depth * p.columns + i] = NAN;
  }
  float *c = values(size + SENTINELS, 3), *before = values(size + SENTINELS, 3);
  for (int64_t i = size; i < size + SENTINELS; ++i) {
    c[i] = SENTINEL;
  }
  p.a = a;
  p.b = b;
  p.c = c;
  lks_product_cpu(&p);
  const double bound = (double)FLT_EPSILON * ((double)p.depth * (double)p.depth / 4.0 + 1.0);
  for (int64_t i = 0; i < p.rows; ++i) {
    for (int64_t j = 0; j < p.columns; ++j) {
      double sum = p.add ? (double)before[i * p.c_row + j] : 0.0;
      for (int64_t k = 0; k < p.depth; ++k) {
        sum += (double)a[i * p.a_row + k * p.a_depth] * (double)b[k * p.b_depth + j * p.b_column];
      }
      assert_true(fabs(sum - (double)c[i * p.c_row + j]) <= bound);
    }
    for (int64_t j = p.columns; j < p.c_row; ++j) { /* another rank's */
      assert_true(c[i * p.c_row + j] == before[i * p.c_row + j]);
    }
  }
  for (int64_t i = size; i < size + SENTINELS; ++i) {
    assert_true(c[i] == SENTINEL);
  }
  free(a);
  free(b);
  free(c);
  free(before);
}

/* The three products of a dense layer. */
static void try_layouts_of(bool few, int64_t rows, int64_t columns, int64_t depth, bool add,
                           int64_t weights) {
  try_product((lks_product){.rows = rows,
                            .columns = columns,
                            .depth = depth,
                            .a_row = depth,
                            .a_depth = 1,
                            .b_depth = columns,
                            .b_column = 1,
                            .add = add,
                            .few = few},
              weights);
  try_product((lks_product){.rows = rows,
                            .columns = columns,
                            .depth = depth,
                            .a_row = 1,
                            .a_depth = rows,
                            .b_depth = columns,
                            .b_column = 1,
                            .add = add,
                            .few = few},
              weights);
  try_product((lks_product){.rows = rows,
                            .columns = columns,
                            .depth = depth,
                            .a_row = depth,
                            .a_depth = 1,
                            .b_depth = 1,
                            .b_column = depth,
                            .add = add,
                            .few = few},
              weights);
}

static void try_layouts(int64_t rows, int64_t columns, int64_t depth, bool add, int64_t weights) {
  try_layouts_of(false, rows, columns, depth, add, weights);
}

static void try_few(int64_t rows, int64_t columns, int64_t depth, bool add) {
  try_layouts_of(true, rows, columns, depth, add, MANY);
}

static void test_edges(void **state) {
  (void)state;
  static const int64_t rows[] = {1, 2, 5, 6, 7, 8, 12, 13, 14, 15, 27};
  static const int64_t columns[] = {1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 40, 50};
  static const int64_t depths[] = {1, 3, 8, 16, 33, 70};
  for (size_t r = 0; r < sizeof rows / sizeof *rows; ++r) {
    for (size_t c = 0; c < sizeof columns / sizeof *columns; ++c) {
      for (size_t d = 0; d < sizeof depths / sizeof *depths; ++d) {
        try_layouts(rows[r], columns[c], depths[d], (r + c + d) % 2 == 0, 1);
      }
    }
  }
}

static void test_deep(void **state) {
  (void)state;
  try_layouts(7, 19, 512, false, 1);
  try_layouts(7, 19, 513, true, 1);
  try_layouts(13, 1, 1500, false, 1);
  try_layouts(1, 1, 1500, true, 1);
}

/* Few columns and many rows, which are computed turned round. */
static void test_narrow(void **state) {
  (void)state;
  static const int64_t rows[] = {31, 32, 33, 47, 64, 100};
  static const int64_t depths[] = {1, 16, 33, 600};
  for (int64_t columns = 2; columns <= 13; ++columns) {
    for (size_t r = 0; r < sizeof rows / sizeof *rows; ++r) {
      for (size_t d = 0; d < sizeof depths / sizeof *depths; ++d) {
        try_layouts(rows[r], columns, depths[d], (r + d) % 2 == 0, 1);
        try_layouts(rows[r], columns, depths[d], (r + d) % 2 == 1, 1);
      }
    }
  }
}

static void test_blas(void **state) {
  (void)state;
  const lks_product any = {.a_depth = 1, .weights = MANY};
  assert_false(lks_product_is_own(&any));
  static const int64_t sizes[] = {1, 2, 17, 33}; /* of one row or column all strides may be 1 */
  for (int i = 0; i < 64; ++i) {
    const int64_t rows = sizes[i % 4], columns = sizes[i / 4 % 4], depth = sizes[i / 16];
    try_layouts(rows, columns, depth, false, MANY);
    try_layouts(rows, columns, depth, true, MANY);
  }
}

/* Few rows by large weights: about the lengths that are copied together, 48 rows and 32 or 256 of
 * the depth; and c in strips of 48, as for the gradient of weights. */
static void test_few(void **state) {
  (void)state;
  static const int64_t rows[] = {1, 2, 12, 13, 47, 48, 49, 97}, columns[] = {2, 16, 31, 33, 70};
  static const int64_t depths[] = {1, 31, 33, 64, 255, 257};
  const lks_product few = {.a_depth = 1, .weights = MANY, .few = true};
  const lks_product small = {.a_depth = 1, .weights = 64};
  assert_int_equal(lks_product_is_own(&few), lks_product_is_own(&small));
  for (size_t r = 0; r < sizeof rows / sizeof *rows; ++r) {
    for (size_t c = 0; c < sizeof columns / sizeof *columns; ++c) {
      for (size_t d = 0; d < sizeof depths / sizeof *depths; ++d) {
        try_few(rows[r], columns[c], depths[d], (r + c + d) % 2 == 0);
      }
    }
  }
}

/* Columns of a larger c, the rest of which is another rank's. */
static void test_columns(void **state) {
  (void)state;
  const lks_product part = {
      .rows = 9, .columns = 17, .depth = 33, .a_row = 33, .a_depth = 1, .c_row = 29};
  lks_product forward = part, input = part;
  forward.b_depth = 17;
  forward.b_column = 1;
  input.b_depth = 1;
  input.b_column = 33;
  try_product(forward, MANY);
  try_product(input, MANY);
  forward.few = input.few = true;
  try_product(forward, MANY);
  try_product(input, MANY);
}

/* Only the gradient of weights reads a across its rows, and 64 floats apart is too even. */
static void test_aliased(void **state) {
  (void)state;
  const int64_t some = (int64_t)1 << 16;
  lks_product even = {.a_row = 1, .a_depth = 256, .weights = some};
  lks_product odd = even, forward = even;
  odd.a_depth = 250;
  forward.a_row = 256;
  forward.a_depth = 1;
  assert_false(lks_product_is_own(&even));
  assert_int_equal(lks_product_is_own(&odd), lks_product_is_own(&forward));
  even.weights = forward.weights = 64;
  assert_int_equal(lks_product_is_own(&even), lks_product_is_own(&forward));
  try_layouts(64, 9, 70, false, some);
}

/* A product of these sizes in two parts, at many places: the same bits. */
static void check_parts(const lks_product *whole, bool by_rows, int64_t least) {
  lks_product p = *whole;
  const int64_t size = by_rows ? p.rows : p.columns, count = p.rows * p.columns;
  float *a = values(p.rows * p.depth + LKS_PRODUCT_SLACK, 1);
  float *b = values(p.depth * p.columns + LKS_PRODUCT_SLACK, 2);
  float *expected = values(count, 3), *c = values(count, 4);
  p.a = a;
  p.b = b;
  p.c = expected;
  lks_product_cpu(&p);
  for (int64_t i = 0; i < 12; ++i) {
    const int64_t cut = least + (size - 2 * least) * i / 11;
    lks_product first = p, second = p;
    *(by_rows ? &first.rows : &first.columns) = cut;
    *(by_rows ? &second.rows : &second.columns) = size - cut;
    first.c = c;
    second.c = c + (by_rows ? cut * p.c_row : cut);
    second.a += by_rows ? cut * p.a_row : 0;
    second.b += by_rows ? 0 : cut * p.b_column;
    lks_product_cpu(&first);
    lks_product_cpu(&second);
    assert_memory_equal(c, expected, (size_t)count * sizeof *c);
  }
  free(a);
  free(b);
  free(expected);
  free(c);
}

/* Where a product is said to divide freely, it does, ours and BLAS'; ours always is. */
static void test_divides(void **state) {
  (void)state;
  static const struct {
    int64_t rows, columns, depth, weights;
    bool few;
  } sizes[] = {{64, 128, 96, 1, false},       {5, 33, 600, 1, false},
               {130, 10, 70, 1, false},       {17, 200, 300, MANY, true},
               {40, 65, 700, MANY, true},     {64, 700, 300, MANY, false},
               {100, 1000, 410, MANY, false}, {49, 96, 64, MANY, false}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
    const int64_t m = sizes[i].rows, n = sizes[i].columns, k = sizes[i].depth;
    lks_product p = {.rows = m, .columns = n, .depth = k, .c_row = n};
    p.weights = sizes[i].weights;
    p.few = sizes[i].few;
    const lks_product like[] = {{.a_row = k, .a_depth = 1, .b_depth = n, .b_column = 1},
                                {.a_row = k, .a_depth = 1, .b_depth = 1, .b_column = k},
                                {.a_row = 1, .a_depth = m, .b_depth = n, .b_column = 1}};
    for (size_t way = 0; way < sizeof like / sizeof *like; ++way) {
      const bool by_rows = like[way].a_row == 1;
      const int64_t least = by_rows ? 1 : 16;
      p.a_row = like[way].a_row;
      p.a_depth = like[way].a_depth;
      p.b_depth = like[way].b_depth;
      p.b_column = like[way].b_column;
      const bool divides = lks_product_divides(&p, by_rows, least);
      assert_true(divides || !lks_product_is_own(&p));
      if (divides && (by_rows ? m : n) >= 2 * least) {
        check_parts(&p, by_rows, least);
      }
    }
  }
}

static void test_not_finite(void **state) {
  (void)state;
  float a[20 + LKS_PRODUCT_SLACK] = {0}, b[20 + LKS_PRODUCT_SLACK] = {0}, c = 0.0f;
  b[3] = NAN;
  const lks_product p = {.rows = 1,
                         .columns = 1,
                         .depth = 20,
                         .a = a,
                         .a_row = 20,
                         .a_depth = 1,
                         .b = b,
                         .b_depth = 1,
                         .b_column = 1,
                         .c = &c,
                         .c_row = 1,
                         .weights = 20};
  lks_product_cpu(&p);
  assert_true(isnan(c));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_edges),     cmocka_unit_test(test_deep),
      cmocka_unit_test(test_narrow),    cmocka_unit_test(test_blas),
      cmocka_unit_test(test_few),       cmocka_unit_test(test_columns),
      cmocka_unit_test(test_aliased),   cmocka_unit_test(test_divides),
      cmocka_unit_test(test_not_finite)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
