/* The order of an epoch: a bijection at every size, keyed by seed and epoch, within windows, and
 * frozen, for a checkpoint in the middle of an epoch depends on it. */
#include "scratch.h"

#include "data/order.h"

static lks_error err;

static void check_bijection(lks_order *order, int64_t rows, int64_t step) {
  bool *seen = calloc((size_t)rows, sizeof *seen);
  int64_t *out = malloc((size_t)step * sizeof *out);
  assert_true(seen != NULL && out != NULL);
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = rows - first < step ? rows - first : step;
    lks_order_map(order, first, count, out);
    for (int64_t k = 0; k < count; ++k) {
      assert_in_range(out[k], 0, rows - 1);
      assert_false(seen[out[k]]);
      seen[out[k]] = true;
    }
  }
  free(seen);
  free(out);
}

static void every_size_is_a_bijection(void **state) {
  (void)state;
  static const int64_t large[] = {1000, 4096, 65537, 1000003};
  for (int64_t rows = 1; rows < 300; ++rows) {
    lks_order order;
    assert_ok(lks_order_open(rows, true, 7, 0, NULL, &order, &err));
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      lks_order_begin(&order, epoch);
      check_bijection(&order, rows, 17);
    }
    lks_order_close(&order);
  }
  for (size_t i = 0; i < sizeof large / sizeof large[0]; ++i) {
    lks_order order;
    assert_ok(lks_order_open(large[i], true, 7, 0, NULL, &order, &err));
    lks_order_begin(&order, 5);
    check_bijection(&order, large[i], 997);
    lks_order_close(&order);
  }
}

/* Rows mapped many at a time are those of the header's plain walk, which a GPU follows: where the
 * domain's rows are shorter than a vector, where a place starts a new one, and past 32 bits. */
static void many_at_once_as_one_by_one(void **state) {
  (void)state;
  static const int64_t sizes[] = {1,     31,      1000,       1024,       1025,
                                  65537, 1000003, 4294967295, 4294967296, INT64_C(1) << 40};
  int64_t out[100];
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; ++s) {
    lks_order order;
    assert_ok(lks_order_open(sizes[s], true, 77 + s, 0, NULL, &order, &err));
    lks_order_begin(&order, 5);
    for (int64_t part = 0; part < 64; ++part) {
      const int64_t left = sizes[s] - sizes[s] / 64 * part;
      const int64_t count = left < 100 ? left : 100;
      lks_order_map(&order, sizes[s] - left, count, out);
      for (int64_t j = 0; j < count; ++j) {
        const uint64_t place = (uint64_t)(sizes[s] - left + j);
        assert_int_equal(out[j], lks_permute(&order.all, place));
      }
    }
    lks_order_close(&order);
  }
}

static void windows_stay_together(void **state) {
  (void)state;
  static const int64_t starts[] = {0, 10, 11, 40, 64, 100};
  lks_order order;
  assert_ok(lks_order_open(100, true, 3, 5, starts, &order, &err));
  for (int64_t epoch = 0; epoch < 20; ++epoch) {
    int64_t out[100];
    lks_order_begin(&order, epoch);
    check_bijection(&order, 100, 7); /* steps that cross windows */
    lks_order_map(&order, 0, 100, out);
    for (int64_t k = 0; k < 5; ++k) {
      const int64_t w = order.sequence[k];
      assert_int_equal(order.offsets[k + 1] - order.offsets[k], starts[w + 1] - starts[w]);
      for (int64_t i = order.offsets[k]; i < order.offsets[k + 1]; ++i) {
        assert_in_range(out[i], starts[w], starts[w + 1] - 1);
        assert_int_equal(lks_order_window(&order, i), k);
      }
    }
  }
  lks_order_close(&order);
}

/* How a stretch is cut into calls, and going back, change nothing. */
static void calls_do_not_show(void **state) {
  (void)state;
  static const int64_t starts[] = {0, 30, 50, 90};
  lks_order order;
  int64_t whole[90];
  assert_ok(lks_order_open(90, true, 11, 3, starts, &order, &err));
  lks_order_begin(&order, 2);
  lks_order_map(&order, 0, 90, whole);
  for (int64_t first = 89; first >= 0; --first) {
    int64_t part[90];
    lks_order_map(&order, first, 90 - first, part);
    assert_memory_equal(part, whole + first, (size_t)(90 - first) * sizeof *part);
  }
  lks_order_close(&order);
}

static int64_t fixed_points(lks_order *a, lks_order *b) {
  int64_t x[1000];
  int64_t y[1000];
  int64_t same = 0;
  lks_order_map(a, 0, 1000, x);
  lks_order_map(b, 0, 1000, y);
  for (int i = 0; i < 1000; ++i) {
    same += x[i] == y[i];
  }
  return same;
}

/* Two random permutations agree in one place on average; the chance of 12 or more is below 1e-8. */
static void epochs_and_seeds_differ(void **state) {
  (void)state;
  lks_order a;
  lks_order b;
  assert_ok(lks_order_open(1000, true, 1, 0, NULL, &a, &err));
  assert_ok(lks_order_open(1000, true, 2, 0, NULL, &b, &err));
  lks_order_begin(&a, 0);
  lks_order_begin(&b, 0);
  assert_in_range(fixed_points(&a, &b), 0, 12);
  lks_order_close(&b);
  assert_ok(lks_order_open(1000, true, 1, 0, NULL, &b, &err));
  for (int64_t epoch = 1; epoch < 20; ++epoch) {
    lks_order_begin(&b, epoch);
    assert_in_range(fixed_points(&a, &b), 0, 12);
  }
  lks_order_begin(&b, 0);
  assert_int_equal(fixed_points(&a, &b), 1000);
  lks_order_close(&a);
  lks_order_close(&b);
}

static void without_shuffle_rows_are_in_order(void **state) {
  (void)state;
  static const int64_t starts[] = {0, 8, 20};
  for (int64_t windows = 0; windows <= 2; windows += 2) {
    lks_order order;
    int64_t out[20];
    assert_ok(lks_order_open(20, false, 1, windows, starts, &order, &err));
    lks_order_begin(&order, 3);
    lks_order_map(&order, 0, 20, out);
    for (int64_t i = 0; i < 20; ++i) {
      assert_int_equal(out[i], i);
    }
    lks_order_close(&order);
  }
}

/* Frozen: other values would continue old runs with other rows. */
static void values_are_frozen(void **state) {
  (void)state;
  static const int64_t rows_golden[] = {20089, 41876, 22951, 9636, 24618, 15896, 46358, 38420};
  static const int64_t windows_golden[] = {11, 9, 8, 10, 4, 7, 5, 6, 1, 0, 3, 2};
  static const int64_t starts[] = {0, 4, 8, 12};
  lks_order order;
  int64_t out[12];
  assert_ok(lks_order_open(60000, true, 1, 0, NULL, &order, &err));
  lks_order_begin(&order, 3);
  lks_order_map(&order, 59990, 8, out);
  assert_memory_equal(out, rows_golden, sizeof rows_golden);
  lks_order_close(&order);
  assert_ok(lks_order_open(12, true, 1, 3, starts, &order, &err));
  lks_order_begin(&order, 1);
  lks_order_map(&order, 0, 12, out);
  assert_memory_equal(out, windows_golden, sizeof windows_golden);
  lks_order_close(&order);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_size_is_a_bijection),
      cmocka_unit_test(many_at_once_as_one_by_one),
      cmocka_unit_test(windows_stay_together),
      cmocka_unit_test(calls_do_not_show),
      cmocka_unit_test(epochs_and_seeds_differ),
      cmocka_unit_test(without_shuffle_rows_are_in_order),
      cmocka_unit_test(values_are_frozen),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
