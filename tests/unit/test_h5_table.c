/* Tables: what was written is read, by fields that the file has; what is no table is refused. */
#include "scratch.h"

#include <math.h>

#include "base/h5_table.h"

typedef struct row {
  int number;
  char name[12];
  int64_t bytes;
  double rate;
} row;

static const lks_field fields[] = {LKS_FIELD(row, number, "number", LKS_FIELD_INT, NULL),
                                   LKS_FIELD(row, name, "name", LKS_FIELD_TEXT, NULL),
                                   LKS_FIELD(row, bytes, "bytes", LKS_FIELD_INT64, "bytes"),
                                   LKS_FIELD(row, rate, "rate", LKS_FIELD_REAL, "bytes/s"),
                                   {0}};

/* A later version's: one field fewer, one more, in another order. */
typedef struct later {
  char more[8];
  double rate;
  int number;
} later;

static const lks_field later_fields[] = {LKS_FIELD(later, more, "more", LKS_FIELD_TEXT, NULL),
                                         LKS_FIELD(later, rate, "rate", LKS_FIELD_REAL, NULL),
                                         LKS_FIELD(later, number, "number", LKS_FIELD_INT, NULL),
                                         {0}};

static void write_rows(const char *path, const row *rows, int64_t count) {
  lks_error err;
  lks_h5 *file = NULL;
  const int64_t shape[1] = {2};
  const double plain[2] = {1.0, 2.0};
  assert_int_equal(lks_h5_create(path, &file, &err), LKS_OK);
  assert_int_equal(lks_h5_write_table(file, "rows", fields, rows, sizeof *rows, count, &err),
                   LKS_OK);
  assert_int_equal(lks_h5_write(file, "plain", LKS_H5_F64, 1, shape, plain, &err), LKS_OK);
  assert_int_equal(lks_h5_close(&file, &err), LKS_OK);
}

static void rows_come_back(void **state) {
  const row rows[2] = {{-7, "größer", (int64_t)1 << 40, 0.5},
                       {2147483647, "", -1, (double)INFINITY}};
  lks_arena arena = {0};
  lks_error err;
  lks_h5 *file = NULL;
  void *found = NULL;
  char *unit = NULL;
  int64_t count = 0;
  const char *path = scratch_path(*state, "table.h5");
  write_rows(path, rows, 2);
  assert_int_equal(lks_h5_open(path, &file, &err), LKS_OK);
  assert_int_equal(
      lks_h5_read_table(file, "rows", fields, sizeof(row), &arena, &found, &count, &err), LKS_OK);
  assert_int_equal(count, 2);
  for (int i = 0; i < 2; ++i) {
    const row *one = (const row *)found + i;
    assert_int_equal(one->number, rows[i].number);
    assert_string_equal(one->name, rows[i].name);
    assert_true(one->bytes == rows[i].bytes && one->rate == rows[i].rate);
  }
  assert_int_equal(lks_h5_attr_read_text(file, "rows", "bytes.unit", &arena, &unit, &err), LKS_OK);
  assert_string_equal(unit, "bytes");
  assert_int_equal(lks_h5_attr_read_text(file, "rows", "number.unit", &arena, &unit, &err), LKS_OK);
  assert_null(unit);
  assert_int_equal(lks_h5_close(&file, &err), LKS_OK);
  lks_arena_free(&arena);
}

static void other_fields_read_what_both_have(void **state) {
  const row rows[1] = {{3, "x", 4, 0.25}};
  lks_arena arena = {0};
  lks_error err;
  lks_h5 *file = NULL;
  void *found = NULL;
  int64_t count = 0;
  const char *path = scratch_path(*state, "later.h5");
  write_rows(path, rows, 1);
  assert_int_equal(lks_h5_open(path, &file, &err), LKS_OK);
  assert_int_equal(
      lks_h5_read_table(file, "rows", later_fields, sizeof(later), &arena, &found, &count, &err),
      LKS_OK);
  const later *one = found;
  assert_int_equal(one->number, 3);
  assert_true(one->rate == 0.25);
  assert_string_equal(one->more, "");
  assert_int_equal(lks_h5_close(&file, &err), LKS_OK);
  lks_arena_free(&arena);
}

static void no_rows_make_an_empty_table(void **state) {
  lks_arena arena = {0};
  lks_error err;
  lks_h5 *file = NULL;
  void *found = NULL;
  int64_t count = -1;
  const char *path = scratch_path(*state, "empty.h5");
  write_rows(path, NULL, 0);
  assert_int_equal(lks_h5_open(path, &file, &err), LKS_OK);
  assert_int_equal(
      lks_h5_read_table(file, "rows", fields, sizeof(row), &arena, &found, &count, &err), LKS_OK);
  assert_int_equal(count, 0);
  assert_int_equal(lks_h5_close(&file, &err), LKS_OK);
  lks_arena_free(&arena);
}

static void what_is_no_table_is_refused(void **state) {
  lks_arena arena = {0};
  lks_error err;
  lks_h5 *file = NULL;
  void *found = NULL;
  int64_t count = 0;
  const char *path = scratch_path(*state, "plain.h5");
  write_rows(path, NULL, 0);
  assert_int_equal(lks_h5_open(path, &file, &err), LKS_OK);
  assert_int_equal(
      lks_h5_read_table(file, "plain", fields, sizeof(row), &arena, &found, &count, &err),
      LKS_DATA);
  assert_non_null(strstr(err.what, "'plain' is not a table"));
  assert_int_equal(
      lks_h5_read_table(file, "none", fields, sizeof(row), &arena, &found, &count, &err), LKS_DATA);
  assert_non_null(strstr(err.what, "no dataset 'none'"));
  assert_int_equal(lks_h5_close(&file, &err), LKS_OK);
  lks_arena_free(&arena);
}

static void a_name_that_is_taken_is_refused(void **state) {
  lks_error err;
  lks_h5 *file = NULL;
  const row rows[1] = {{0}};
  const char *path = scratch_path(*state, "twice.h5");
  assert_int_equal(lks_h5_create(path, &file, &err), LKS_OK);
  assert_int_equal(lks_h5_write_table(file, "rows", fields, rows, sizeof *rows, 1, &err), LKS_OK);
  assert_int_equal(lks_h5_write_table(file, "rows", fields, rows, sizeof *rows, 1, &err),
                   LKS_STORAGE);
  assert_non_null(strstr(err.what, "rows"));
  assert_int_equal(lks_h5_close(&file, &err), LKS_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rows_come_back),
      cmocka_unit_test(other_fields_read_what_both_have),
      cmocka_unit_test(no_rows_make_an_empty_table),
      cmocka_unit_test(what_is_no_table_is_refused),
      cmocka_unit_test(a_name_that_is_taken_is_refused),
  };
  return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
