/* The history's table: growth, NaN where nothing was, cutting, HDF5. */
#include "scratch.h"

#include <math.h>

#include "store/history.h"

static lks_error err;

static void test_table(void **state) {
  (void)state;
  lks_history table = {0};
  assert_non_null(lks_history_add(&table)); /* a row before any column */
  assert_int_equal(lks_history_column(&table, "loss"), 0);
  table.values[0] = 1.0;
  for (int i = 1; i < 100; ++i) {
    double *row = lks_history_add(&table);
    assert_non_null(row);
    assert_true(isnan(row[0]));
    row[0] = i + 1;
  }
  assert_int_equal(lks_history_column(&table, "val_loss"), 1);
  assert_int_equal(lks_history_column(&table, "loss"), 0);
  assert_int_equal(table.columns, 2);
  assert_int_equal(table.epochs, 100);
  for (int i = 0; i < 100; ++i) {
    assert_true(table.values[2 * i] == i + 1);
    assert_true(isnan(table.values[2 * i + 1]));
  }
  lks_history copy;
  assert_ok(lks_history_copy(&table, &copy, &err));
  lks_history_cut(&table, 7);
  lks_history_cut(&table, 50);
  assert_int_equal(table.epochs, 7);
  lks_history_cut(&table, -1);
  assert_int_equal(table.epochs, 0);
  assert_int_equal(copy.epochs, 100);
  assert_true(copy.values[2 * 99] == 100);
  double *row = lks_history_add(&copy);
  assert_non_null(row);
  assert_true(isnan(row[0]) && isnan(row[1]));
  lks_history_free(&table);
  lks_history_free(&copy);
}

static void test_column_limits(void **state) {
  (void)state;
  lks_history table = {0};
  char name[40];
  assert_int_equal(lks_history_column(&table, ""), -1);
  memset(name, 'x', 32);
  name[32] = '\0';
  assert_int_equal(lks_history_column(&table, name), -1); /* 31 characters fit */
  name[31] = '\0';
  assert_int_equal(lks_history_column(&table, name), 0);
  for (int i = 1; i < LKS_HISTORY_MAX_COLUMNS; ++i) {
    (void)snprintf(name, sizeof(name), "c%d", i);
    assert_int_equal(lks_history_column(&table, name), i);
  }
  assert_int_equal(lks_history_column(&table, "one more"), -1);
  assert_int_equal(lks_history_column(&table, "c5"), 5);
  lks_history_free(&table);
}

static void test_file(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "history.h5");
  lks_history table = {0}, got;
  assert_int_equal(lks_history_column(&table, "val_loss"), 0); /* not in the order of names */
  assert_int_equal(lks_history_column(&table, "loss"), 1);
  for (int i = 0; i < 20; ++i) {
    double *row = lks_history_add(&table);
    assert_non_null(row);
    row[0] = i == 4 ? NAN : 0.1 * i;
    row[1] = 100 + i;
  }
  assert_ok(lks_history_write(&table, path, &err));
  assert_ok(lks_history_write(&table, path, &err)); /* replaces */
  lks_h5 *file = NULL;
  assert_ok(lks_h5_open(path, &file, &err));
  lks_arena arena = {0};
  assert_string_equal(lks_h5_list(file, "/", 9, &arena), "epoch/loss, epoch/val_loss");
  assert_ok(lks_history_load(file, "epoch", &got, &err));
  assert_int_equal(got.columns, 2);
  assert_int_equal(got.epochs, 20);
  assert_string_equal(got.names[0], "val_loss");
  assert_string_equal(got.names[1], "loss");
  assert_memory_equal(got.values, table.values, 40 * sizeof(double));
  lks_history_free(&got);
  assert_ok(lks_history_load(file, "absent", &got, &err));
  assert_int_equal(got.columns, 0);
  assert_ok(lks_h5_close(&file, &err));
  lks_history_free(&table);

  assert_ok(lks_history_write(&table, path, &err)); /* nothing yet: still a file */
  assert_ok(lks_h5_open(path, &file, &err));
  assert_ok(lks_history_load(file, "epoch", &got, &err));
  assert_int_equal(got.epochs, 0);
  assert_ok(lks_h5_close(&file, &err));
  lks_arena_free(&arena);
}

static void test_bad_files(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "bad-history.h5");
  const double values[3] = {1, 2, 3};
  const int64_t two = 2, three = 3;
  const char *const columns[2] = {"a", "b"};
  lks_h5 *file = NULL;
  lks_history got;
  assert_ok(lks_h5_create(path, &file, &err));
  assert_ok(lks_h5_write(file, "e/a", LKS_H5_F64, 1, &two, values, &err));
  assert_ok(lks_h5_write(file, "e/b", LKS_H5_F64, 1, &three, values, &err));
  assert_ok(lks_h5_attr_texts(file, "e", "columns", columns, 2, &err));
  assert_ok(lks_h5_group(file, "f", &err));
  assert_ok(lks_h5_attr_texts(file, "f", "columns", columns, 1, &err));
  assert_ok(lks_h5_close(&file, &err));
  assert_ok(lks_h5_open(path, &file, &err));
  assert_fails(lks_history_load(file, "e", &got, &err), LKS_DATA, "bad-history.h5", "'e/b'",
               "not a column of a history");
  assert_null(got.values);
  assert_fails(lks_history_load(file, "f", &got, &err), LKS_DATA, "no dataset 'f/a'");
  assert_ok(lks_h5_close(&file, &err));
  assert_fails(lks_history_write(&(lks_history){0}, scratch_path(at, "none/history.h5"), &err),
               LKS_STORAGE, "cannot write", "none/history.h5");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_table),
      cmocka_unit_test(test_column_limits),
      cmocka_unit_test(test_file),
      cmocka_unit_test(test_bad_files),
  };
  return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
