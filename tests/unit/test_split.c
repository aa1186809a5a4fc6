/* Parting rows: fractions as Keras takes them, keyed and stratified splits, ranges cut at chunks,
 * windows; and how much memory a machine says it has free. */
#include "scratch.h"

#include <sys/stat.h>

#include "data_fixture.h"

#include "data/memory.h"
#include "data/place.h"
#include "data/rows.h"
#include "data/split.h"

static lks_error err;

static void has_remedy(const char *words) {
  if (strstr(err.remedy, words) == NULL) {
    fail_msg("\"%s\" is not in the remedy \"%s\"", words, err.remedy);
  }
}

static lks_source *synthetic(int64_t rows) {
  lks_source *source = NULL;
  const lks_table_options options = {.synthetic = {true, rows, 1, 1, 0}};
  assert_ok(lks_source_open(&options, "data.train", true, 1, &source, &err));
  return source;
}

static lks_data_options with_fraction(double fraction, int rows) {
  return (lks_data_options){.validation = {.present = true, .fraction = fraction, .rows = rows}};
}

/* floor(rows * (1 - fraction)) in doubles, as Python computes it. */
static void last_rows_as_keras(void **state) {
  (void)state;
  static const struct {
    int64_t rows;
    double fraction;
    int64_t training;
  } cases[] = {{1000, 0.1, 900},  {10, 0.3, 7},  {7, 0.5, 3}, {3, 0.9, 0},
               {1797, 0.2, 1437}, {90, 0.3, 62}, {20, 0.9, 1}};
  lks_arena arena = {0};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    const lks_data_options options = with_fraction(cases[i].fraction, LKS_ROWS_LAST);
    const lks_data_request request = {.options = &options};
    lks_source *source = synthetic(cases[i].rows);
    lks_rows train;
    lks_rows validation;
    if (cases[i].training == 0) {
      assert_fails(lks_split(source, &request, &arena, &train, &validation, &err), LKS_CONFIG,
                   "fraction 0.9 of 3 rows", "0 to train and 3 to validate");
      has_remedy("data.validation.fraction");
    } else {
      assert_ok(lks_split(source, &request, &arena, &train, &validation, &err));
      assert_null(train.list);
      assert_int_equal(train.first, 0);
      assert_int_equal(train.count, cases[i].training);
      assert_int_equal(validation.first, cases[i].training);
      assert_int_equal(validation.count, cases[i].rows - cases[i].training);
    }
    lks_source_close(&source);
  }
  const lks_data_options tiny = with_fraction(1e-17, LKS_ROWS_RANDOM);
  const lks_data_request request = {.options = &tiny};
  lks_source *source = synthetic(8);
  lks_rows train;
  lks_rows validation;
  assert_fails(lks_split(source, &request, &arena, &train, &validation, &err), LKS_CONFIG, "8 rows",
               "8 to train and 0 to validate");
  lks_source_close(&source);
  lks_arena_free(&arena);
}

/* Both lists ascend, and together hold each row once. */
static void check_lists(const lks_rows *train, const lks_rows *validation) {
  int64_t t = 0;
  int64_t v = 0;
  for (int64_t row = 0; row < train->count + validation->count; ++row) {
    if (t < train->count && train->list[t] == row) {
      ++t;
    } else {
      assert_true(v < validation->count && validation->list[v] == row);
      ++v;
    }
  }
}

static void random_rows_are_keyed(void **state) {
  (void)state;
  lks_arena arena = {0};
  const lks_data_options options = with_fraction(0.25, LKS_ROWS_RANDOM);
  lks_data_request request = {.options = &options, .seed = 5};
  lks_source *source = synthetic(1001);
  lks_rows train[3];
  lks_rows validation[3];
  for (int i = 0; i < 3; ++i) {
    request.seed = i == 2 ? 6 : 5;
    assert_ok(lks_split(source, &request, &arena, &train[i], &validation[i], &err));
    assert_int_equal(train[i].count, 750);
    assert_int_equal(validation[i].count, 251);
    check_lists(&train[i], &validation[i]);
  }
  const size_t bytes = 251 * sizeof(int64_t);
  assert_memory_equal(validation[0].list, validation[1].list, bytes);
  assert_true(memcmp(validation[0].list, validation[2].list, bytes) != 0);
  /* Not the last rows, and not the first: of 251, about a quarter in each quarter. */
  int64_t early = 0;
  for (int64_t k = 0; k < 251; ++k) {
    early += validation[0].list[k] < 500;
  }
  assert_in_range(early, 80, 170);
  lks_source_close(&source);
  lks_arena_free(&arena);
}

/* Writes targets [rows, columns] named y beside features x, and opens them. */
static lks_source *labelled(scratch *at, const double *targets, int64_t rows, int64_t columns) {
  const char *path = scratch_path(at, "labels.h5");
  const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const fixture_layout x = {H5T_IEEE_F32LE, 1, {(hsize_t)rows}, 0, 0};
  const fixture_layout y = {H5T_IEEE_F64LE, 2, {(hsize_t)rows, (hsize_t)columns}, 0, 0};
  assert_int_equal(fixture_table(file, "x", &x, 0), 0);
  assert_int_equal(fixture_dataset(file, "y", &y, targets), 0);
  assert_true(H5Fclose(file) >= 0);
  lks_source *source = NULL;
  const lks_table_options options = {.file = path};
  assert_ok(lks_source_open(&options, "data.train", true, 1, &source, &err));
  return source;
}

/* 100 rows of 60, 30, 7, 3 of four classes, 0.25 of them: 15, 7.5, 1.75, 0.75; the whole parts are
 * 23, so the two largest remainders, of the last two classes, take one more: 15, 7, 2, 1. */
static void stratified_rows_are_proportional(void **state) {
  static const int64_t shares[] = {15, 7, 2, 1};
  lks_arena arena = {0};
  double labels[100];
  double one_hot[100 * 4] = {0};
  for (int r = 0; r < 100; ++r) {
    const int place = r * 37 % 100;
    const int label = place < 60 ? 0 : place < 90 ? 1 : place < 97 ? 2 : 3;
    labels[r] = label;
    one_hot[r * 4 + label] = 1;
  }
  const lks_data_options options = with_fraction(0.25, LKS_ROWS_STRATIFIED);
  for (int form = 0; form < 2; ++form) {
    const lks_data_request request = {
        .options = &options, .seed = 3, .labels = true, .label_classes = form == 0 ? 4 : 0};
    lks_source *source =
        form == 0 ? labelled(*state, labels, 100, 1) : labelled(*state, one_hot, 100, 4);
    lks_rows train;
    lks_rows validation;
    int64_t counts[4] = {0};
    assert_ok(lks_split(source, &request, &arena, &train, &validation, &err));
    check_lists(&train, &validation);
    assert_int_equal(validation.count, 25);
    for (int64_t k = 0; k < 25; ++k) {
      ++counts[(int)labels[validation.list[k]]];
    }
    assert_memory_equal(counts, shares, sizeof shares);
    lks_source_close(&source);
  }
  lks_arena_free(&arena);
}

static void stratified_zero_or_one(void **state) {
  lks_arena arena = {0};
  double labels[40];
  for (int r = 0; r < 40; ++r) {
    labels[r] = r < 8;
  }
  const lks_data_options options = with_fraction(0.5, LKS_ROWS_STRATIFIED);
  const lks_data_request request = {.options = &options, .labels = true};
  lks_source *source = labelled(*state, labels, 40, 1);
  lks_rows train;
  lks_rows validation;
  assert_ok(lks_split(source, &request, &arena, &train, &validation, &err));
  assert_int_equal(validation.count, 20);
  assert_true(validation.list[3] < 8 && validation.list[4] >= 8); /* 4 of the 8 */
  lks_source_close(&source);
  lks_arena_free(&arena);
}

static void stratified_needs_labels(void **state) {
  lks_arena arena = {0};
  double labels[] = {0, 1, 2, 1.5, 0, 7};
  const lks_data_options options = with_fraction(0.5, LKS_ROWS_STRATIFIED);
  lks_data_request request = {.options = &options};
  lks_source *source = labelled(*state, labels, 6, 1);
  lks_rows train;
  lks_rows validation;
  assert_fails(lks_split(source, &request, &arena, &train, &validation, &err), LKS_CONFIG,
               "data.validation.rows", "stratified needs class labels");
  has_remedy("data.validation.rows: random");
  request.label_classes = 3;
  assert_fails(lks_split(source, &request, &arena, &train, &validation, &err), LKS_DATA,
               "labels.h5: dataset 'y', row 3", "label 1.5", "from 0 to 2", "3 outputs");
  lks_source_close(&source);
  labels[3] = 1;
  source = labelled(*state, labels, 6, 1);
  assert_fails(lks_split(source, &request, &arena, &train, &validation, &err), LKS_DATA, "row 5",
               "label 7");
  has_remedy("more units");
  lks_source_close(&source);
  lks_arena_free(&arena);
}

/* ---- cuts and windows */

static void cuts_cover_whole_chunks(void **state) {
  (void)state;
  static const int64_t sparse[] = {0, 1, 2, 9, 10, 19, 25, 26, 27, 28, 29, 40, 41};
  const lks_rows sets[] = {
      {.count = 100}, {.count = 57, .first = 13}, {.count = 13, .list = sparse}};
  for (int s = 0; s < 3; ++s) {
    const lks_rows *rows = &sets[s];
    for (int64_t chunk = 1; chunk < 40; chunk += 3) {
      for (int parts = 1; parts <= 9; ++parts) {
        int64_t before = 0;
        for (int part = 0; part < parts; ++part) {
          const int64_t from = lks_rows_cut(rows, chunk, 0, rows->count, part, parts);
          const int64_t to = lks_rows_cut(rows, chunk, 0, rows->count, part + 1, parts);
          assert_int_equal(from, before);
          assert_in_range(to, from, rows->count);
          if (from > 0 && from < rows->count) { /* no chunk on both sides of a cut */
            assert_true(lks_rows_physical(rows, from - 1) / chunk <
                        lks_rows_physical(rows, from) / chunk);
          }
          before = to;
        }
        assert_int_equal(before, rows->count);
      }
    }
  }
}

static void windows_hold_enough(void **state) {
  (void)state;
  lks_arena arena = {0};
  int64_t *odd = malloc(500 * sizeof *odd);
  assert_non_null(odd);
  for (int64_t k = 0; k < 500; ++k) {
    odd[k] = k * 2 + (k % 7 == 0);
  }
  for (int64_t count = 1; count <= 500; count += count < 40 ? 1 : 23) {
    const lks_rows sets[] = {{.count = count}, {.count = count, .list = odd}};
    for (int s = 0; s < 2; ++s) {
      for (int64_t chunk = 1; chunk < 30; chunk += 7) {
        for (int64_t batch = 1; batch < 40; batch += 12) {
          int64_t windows = 0;
          const int64_t *starts = NULL;
          assert_ok(lks_windows_make(&sets[s], chunk, 16, batch, &arena, &windows, &starts, &err));
          const int64_t need = batch > 16 ? batch : 16;
          assert_true(windows >= 1 && starts[0] == 0 && starts[windows] == count);
          for (int64_t w = 0; w < windows; ++w) {
            const int64_t rows = starts[w + 1] - starts[w];
            assert_true(rows >= (w + 1 < windows ? need : windows > 1 ? batch : 1));
            if (w > 0) {
              assert_true(lks_rows_physical(&sets[s], starts[w] - 1) / chunk <
                          lks_rows_physical(&sets[s], starts[w]) / chunk);
            }
          }
        }
      }
    }
  }
  free(odd);
  lks_arena_free(&arena);
}

/* ---- memory */

static void write_text(const char *path, const char *text) {
  scratch_write(path, text, strlen(text));
}

static void free_memory_is_read(void **state) {
  const char *info = scratch_path(*state, "meminfo");
  const char *group = scratch_path(*state, "cgroup");
  const char *root = scratch_path(*state, "fs");
  const char *none = scratch_path(*state, "none");
  assert_int_equal(lks_memory_free(none, none, none), -1);
  write_text(info, "MemTotal: 4000 kB\nMemAvailable:    3000 kB\n");
  assert_int_equal(lks_memory_free(info, none, none), 3000 * 1024);
  assert_int_equal(mkdir(root, 0700), 0);
  assert_int_equal(mkdir(scratch_path(*state, "fs/job"), 0700), 0);
  assert_int_equal(mkdir(scratch_path(*state, "fs/job/step"), 0700), 0);
  write_text(group, "0::/job/step\n");
  assert_int_equal(lks_memory_free(info, group, root), 3000 * 1024);
  /* The job above the step has the limit; its pages of files would be given up. */
  write_text(scratch_path(*state, "fs/job/step/memory.max"), "max\n");
  write_text(scratch_path(*state, "fs/job/step/memory.current"), "5000\n");
  write_text(scratch_path(*state, "fs/job/memory.max"), "1000000\n");
  write_text(scratch_path(*state, "fs/job/memory.current"), "900000\n");
  assert_int_equal(lks_memory_free(info, group, root), 100000);
  write_text(scratch_path(*state, "fs/job/memory.stat"),
             "anon 1\ninactive_file 300000\nactive_file 200000\n");
  assert_int_equal(lks_memory_free(info, group, root), 600000);
  write_text(scratch_path(*state, "fs/job/memory.max"), "1000\n");
  assert_int_equal(lks_memory_free(info, group, root), 0);
  /* Version 1. */
  assert_int_equal(mkdir(scratch_path(*state, "fs/memory"), 0700), 0);
  assert_int_equal(mkdir(scratch_path(*state, "fs/memory/job"), 0700), 0);
  write_text(group, "5:cpu:/job\n4:memory:/job\n");
  write_text(scratch_path(*state, "fs/memory/job/memory.limit_in_bytes"), "50000\n");
  write_text(scratch_path(*state, "fs/memory/job/memory.usage_in_bytes"), "20000\n");
  assert_int_equal(lks_memory_free(info, group, root), 30000);
}

static void budgets_count_copies(void **state) {
  (void)state;
  const lks_budget budget = {.limit = 1000, .shared = 300, .ranks = 4};
  assert_true(lks_budget_fits(&budget, 250));
  assert_true(lks_budget_fits(&budget, 300));
  assert_false(lks_budget_fits(&budget, 301)); /* four copies do not fit */
  const lks_budget roomy = {.limit = 1000, .shared = 100, .ranks = 4};
  assert_true(lks_budget_fits(&roomy, 250));
  assert_false(lks_budget_fits(&roomy, 251));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(last_rows_as_keras),
      cmocka_unit_test(random_rows_are_keyed),
      cmocka_unit_test(stratified_rows_are_proportional),
      cmocka_unit_test(stratified_zero_or_one),
      cmocka_unit_test(stratified_needs_labels),
      cmocka_unit_test(cuts_cover_whole_chunks),
      cmocka_unit_test(windows_hold_enough),
      cmocka_unit_test(free_memory_is_read),
      cmocka_unit_test(budgets_count_copies),
  };
  return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
