/* Sources: every type and layout gives the same doubles, however it is read; datasets are joined,
 * guessed and refused as documented; synthetic rows depend on seed, key, row and column alone. */
#include "scratch.h"

#include <math.h>

#include "data_fixture.h"

#include "data/source.h"

static lks_error err;

static hid_t create(const char *path) {
  const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(file >= 0);
  return file;
}

static void put(hid_t file, const char *name, int64_t rows, int64_t columns, int64_t first) {
  const fixture_layout layout = {H5T_IEEE_F32LE, 2, {(hsize_t)rows, (hsize_t)columns}, 0, 0};
  assert_int_equal(fixture_table(file, name, &layout, first), 0);
}

static void has_remedy(const char *words) {
  if (strstr(err.remedy, words) == NULL) {
    fail_msg("\"%s\" is not in the remedy \"%s\"", words, err.remedy);
  }
}

/* All rows, in blocks of `step`, hold fixture values; targets begin at column `inputs`. */
static void check_values(lks_source *source, int64_t step) {
  const lks_source_info *info = lks_source_describe(source);
  double *features = malloc((size_t)(step * info->inputs) * sizeof *features);
  double *targets = malloc((size_t)(step * info->outputs + 1) * sizeof *targets);
  const int64_t before = lks_source_rows_read(source);
  for (int64_t first = 0; first < info->rows; first += step) {
    const int64_t count = info->rows - first < step ? info->rows - first : step;
    assert_ok(
        lks_source_read(source, first, count, features, info->outputs > 0 ? targets : NULL, &err));
    for (int64_t k = 0; k < count; ++k) {
      for (int64_t c = 0; c < info->inputs; ++c) {
        assert_true(features[k * info->inputs + c] == fixture_value(first + k, c));
      }
      for (int64_t c = 0; c < info->outputs; ++c) {
        const int64_t column = info->targets_are_features ? c : info->inputs + c;
        assert_true(targets[k * info->outputs + c] == fixture_value(first + k, column));
      }
    }
  }
  assert_int_equal(lks_source_rows_read(source) - before, info->rows);
  free(features);
  free(targets);
}

/* The same as floats, where the source says that floats hold all values. */
static void check_floats(lks_source *source, int64_t step) {
  const lks_source_info *info = lks_source_describe(source);
  float *features = malloc((size_t)(step * info->inputs) * sizeof *features);
  float *targets = malloc((size_t)(step * info->outputs + 1) * sizeof *targets);
  const lks_raw out = {.float_features = info->float_features ? features : NULL,
                       .float_targets = info->float_targets ? targets : NULL};
  for (int64_t first = 0; first < info->rows; first += step) {
    const int64_t count = info->rows - first < step ? info->rows - first : step;
    assert_ok(lks_source_fetch(source, first, count, &out, &err));
    for (int64_t k = 0; info->float_features && k < count; ++k) {
      for (int64_t c = 0; c < info->inputs; ++c) {
        assert_true((double)features[k * info->inputs + c] == fixture_value(first + k, c));
      }
    }
    for (int64_t k = 0; info->float_targets && k < count; ++k) {
      for (int64_t c = 0; c < info->outputs; ++c) {
        const int64_t column = info->targets_are_features ? c : info->inputs + c;
        assert_true((double)targets[k * info->outputs + c] == fixture_value(first + k, column));
      }
    }
  }
  free(features);
  free(targets);
}

static hid_t half_type(void) {
  const hid_t type = H5Tcopy(H5T_IEEE_F32LE);
  assert_true(H5Tset_fields(type, 15, 10, 5, 0, 10) >= 0 && H5Tset_ebias(type, 15) >= 0);
  assert_true(H5Tset_size(type, 2) >= 0);
  return type;
}

static void every_type_and_layout(void **state) {
  const char *path = scratch_path(*state, "types.h5");
  const hid_t half = half_type();
  const hid_t types[] = {H5T_STD_I8LE,   H5T_STD_U8LE,  H5T_STD_I16BE,  H5T_STD_U16LE,
                         H5T_STD_I32LE,  H5T_STD_U32BE, H5T_STD_I64LE,  H5T_STD_U64LE,
                         H5T_IEEE_F32LE, half,          H5T_IEEE_F64BE, H5T_NATIVE_LDOUBLE};
  /* Those that a float holds: integers of 8 and 16 bits, halves and floats. */
  const bool narrow[] = {true,  true,  true, true, false, false,
                         false, false, true, true, false, false};
  const fixture_layout layouts[] = {{0, 1, {37}, 0, 0},
                                    {0, 2, {37, 1}, 0, 0},
                                    {0, 2, {37, 6}, 8, 0},
                                    {0, 3, {37, 2, 3}, 8, 4},
                                    {0, 4, {37, 2, 1, 2}, 37, 1}};
  for (size_t t = 0; t < sizeof types / sizeof types[0]; ++t) {
    for (size_t l = 0; l < sizeof layouts / sizeof layouts[0]; ++l) {
      const hid_t file = create(path);
      fixture_layout layout = layouts[l];
      layout.type = types[t];
      assert_int_equal(fixture_table(file, "x", &layout, 0), 0);
      assert_true(H5Fclose(file) >= 0);
      lks_source *source = NULL;
      const lks_table_options options = {.file = path};
      assert_ok(lks_source_open(&options, "data.train", false, 1, &source, &err));
      const lks_source_info *info = lks_source_describe(source);
      assert_int_equal(info->rows, 37);
      assert_int_equal(info->outputs, 0);
      assert_int_equal(info->chunk_rows, layout.chunk_rows > 0 ? layout.chunk_rows : 1);
      assert_false(info->targets_are_features);
      assert_int_equal(info->float_features, narrow[t]);
      check_floats(source, 37);
      check_floats(source, 5);
      check_values(source, 37);
      check_values(source, 5);
      check_values(source, 1);
      lks_source_close(&source);
      assert_null(source);
    }
  }
  H5Tclose(half);
}

static void lists_are_joined(void **state) {
  const char *path = scratch_path(*state, "lists.h5");
  const hid_t file = create(path);
  const fixture_layout wide = {H5T_STD_U8LE, 3, {50, 2, 2}, 16, 4};
  const fixture_layout thin = {H5T_IEEE_F64LE, 1, {50}, 7, 0};
  assert_int_equal(fixture_table(file, "a", &wide, 0), 0);
  assert_int_equal(fixture_table(file, "b", &thin, 4), 0);
  put(file, "c", 50, 3, 5);
  put(file, "d", 50, 2, 8);
  assert_true(H5Fclose(file) >= 0);
  lks_source *source = NULL;
  const lks_table_options options = {
      .file = path, .features = FIXTURE_NAMES("a", "/b", "c"), .targets = FIXTURE_NAMES("d")};
  assert_ok(lks_source_open(&options, "data.train", true, 1, &source, &err));
  const lks_source_info *info = lks_source_describe(source);
  assert_int_equal(info->inputs, 8);
  assert_int_equal(info->outputs, 2);
  assert_string_equal(info->feature_names, "a, /b, c");
  assert_string_equal(info->target_names, "d");
  assert_string_equal(info->name, path);
  assert_int_equal(info->chunk_rows, 1); /* c has the widest rows, and no chunks */
  assert_false(info->float_features);    /* b holds doubles */
  assert_true(info->float_targets);
  check_floats(source, 7);
  check_values(source, 50);
  check_values(source, 7);
  char place[512];
  lks_source_place(source, false, 9, 4, place, sizeof place);
  assert_non_null(strstr(place, "lists.h5: dataset '/b', row 9, column 0"));
  lks_source_place(source, true, 9, 1, place, sizeof place);
  assert_non_null(strstr(place, "dataset 'd', row 9, column 1"));
  assert_fails(lks_source_read(source, 48, 3, NULL, NULL, &err), LKS_INTERNAL, "48", "50");
  assert_ok(lks_source_read(source, 48, 0, NULL, NULL, &err));
  lks_source_close(&source);
}

static void usual_names_are_found(void **state) {
  const char *path = scratch_path(*state, "guess.h5");
  hid_t file = create(path);
  const hid_t group = H5Gcreate2(file, "data", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  put(file, "features", 4, 2, 0); /* `data` comes first, but is a group */
  put(file, "target", 4, 1, 2);
  put(group, "inner", 4, 1, 0);
  assert_true(H5Gclose(group) >= 0 && H5Fclose(file) >= 0);
  lks_source *source = NULL;
  lks_table_options options = {.file = path};
  assert_ok(lks_source_open(&options, "data.train", true, 1, &source, &err));
  assert_string_equal(lks_source_describe(source)->feature_names, "features");
  assert_string_equal(lks_source_describe(source)->target_names, "target");
  check_values(source, 3);
  lks_source_close(&source);
  /* Unasked, targets are opened only where they are named and there. */
  assert_ok(lks_source_open(&options, "data.test", false, 1, &source, &err));
  assert_int_equal(lks_source_describe(source)->outputs, 0);
  lks_source_close(&source);
  options.targets = (lks_texts)FIXTURE_NAMES("gone");
  assert_ok(lks_source_open(&options, "data.test", false, 1, &source, &err));
  assert_int_equal(lks_source_describe(source)->outputs, 0);
  lks_source_close(&source);
  options.targets = (lks_texts)FIXTURE_NAMES("target");
  assert_ok(lks_source_open(&options, "data.test", false, 1, &source, &err));
  assert_int_equal(lks_source_describe(source)->outputs, 1);
  lks_source_close(&source);
  file = create(path);
  put(file, "temperature", 4, 1, 0);
  assert_true(H5Fclose(file) >= 0);
  options.targets = (lks_texts){0};
  assert_fails(lks_source_open(&options, "data.train", true, 1, &source, &err), LKS_DATA,
               "guess.h5", "no dataset of features", "x_train", "has temperature");
  has_remedy("set data.train.features");
  assert_null(source);
  options.features = (lks_texts)FIXTURE_NAMES("temperature");
  assert_fails(lks_source_open(&options, "data.test", true, 1, &source, &err), LKS_DATA,
               "no dataset of targets", "y, label", "has temperature");
  has_remedy("set data.test.targets");
}

static void autoencoders_are_seen(void **state) {
  const char *path = scratch_path(*state, "auto.h5");
  const hid_t file = create(path);
  put(file, "x", 9, 3, 0);
  put(file, "z", 9, 3, 0);
  assert_true(H5Lcreate_hard(file, "x", file, "hard", H5P_DEFAULT, H5P_DEFAULT) >= 0);
  assert_true(H5Lcreate_soft("/x", file, "soft", H5P_DEFAULT, H5P_DEFAULT) >= 0);
  assert_true(H5Lcreate_external("auto.h5", "/x", file, "outer", H5P_DEFAULT, H5P_DEFAULT) >= 0);
  assert_true(H5Fclose(file) >= 0);
  lks_source *source = NULL;
  lks_table_options options = {.file = path, .targets = FIXTURE_NAMES("/x")};
  assert_ok(lks_source_open(&options, "data.train", true, 1, &source, &err));
  assert_true(lks_source_describe(source)->targets_are_features);
  check_values(source, 4);
  double targets[3];
  assert_ok(lks_source_read(source, 5, 1, NULL, targets, &err));
  assert_true(targets[2] == fixture_value(5, 2));
  lks_source_close(&source);
  const lks_texts links[] = {FIXTURE_NAMES("hard"), FIXTURE_NAMES("soft"), FIXTURE_NAMES("outer")};
  for (size_t i = 0; i < sizeof links / sizeof links[0]; ++i) {
    options.targets = links[i];
    assert_ok(lks_source_open(&options, "data.train", true, 1, &source, &err));
    assert_true(lks_source_describe(source)->targets_are_features);
    lks_source_close(&source);
  }
  options.targets = (lks_texts)FIXTURE_NAMES("z");
  assert_ok(lks_source_open(&options, "data.train", true, 1, &source, &err));
  assert_false(lks_source_describe(source)->targets_are_features);
  lks_source_close(&source);
}

/* Opens features `name` (and targets "y") of the file, which must fail with those words. */
static void refused(const char *path, const char *name, const char *first, const char *second,
                    const char *remedy) {
  lks_source *source = NULL;
  const lks_table_options options = {
      .file = path, .features = FIXTURE_NAMES(name), .targets = FIXTURE_NAMES("y")};
  assert_fails(lks_source_open(&options, "data.train", true, 1, &source, &err), LKS_DATA, first,
               second);
  has_remedy(remedy);
  assert_null(source);
}

static void bad_datasets_are_refused(void **state) {
  const char *path = scratch_path(*state, "bad.h5");
  const hid_t file = create(path);
  const hid_t text = H5Tcopy(H5T_C_S1);
  const hid_t pair = H5Tcreate(H5T_COMPOUND, 16);
  assert_true(H5Tset_size(text, 8) >= 0);
  assert_true(H5Tinsert(pair, "re", 0, H5T_IEEE_F64LE) >= 0);
  assert_true(H5Tinsert(pair, "im", 8, H5T_IEEE_F64LE) >= 0);
  put(file, "x", 10, 2, 0);
  put(file, "y", 9, 1, 2);
  put(file, "empty", 0, 2, 0);
  put(file, "hollow", 10, 0, 0);
  const double one = 1;
  const fixture_layout scalar = {H5T_IEEE_F64LE, 0, {0}, 0, 0};
  const fixture_layout words = {text, 1, {10}, 0, 0};
  const fixture_layout pairs = {pair, 1, {10}, 0, 0};
  assert_int_equal(fixture_dataset(file, "scalar", &scalar, &one), 0);
  assert_int_equal(fixture_dataset(file, "words", &words, NULL), 0);
  assert_int_equal(fixture_dataset(file, "pairs", &pairs, NULL), 0);
  assert_true(H5Tclose(text) >= 0 && H5Tclose(pair) >= 0 && H5Fclose(file) >= 0);
  refused(path, "x", "'y' has 9 rows", "'x' has 10", "data.train.targets");
  refused(path, "gone", "no dataset 'gone'", "scalar, words, x, y", "set data.train.features");
  refused(path, "empty", "bad.h5", "'empty' has no rows", "at least one row");
  refused(path, "hollow", "'hollow'", "holds nothing", "at least one number");
  refused(path, "scalar", "'scalar'", "single number", "first dimension of rows");
  refused(path, "words", "'words'", "not numbers", "set data.train.features");
  refused(path, "pairs", "'pairs'", "not numbers", "set data.train.features");
  refused(scratch_path(*state, "none.h5"), "x", "none.h5", "no such file", "");
}

static void one_of_file_and_synthetic(void **state) {
  lks_source *source = NULL;
  const lks_table_options neither = {.file = ""};
  const lks_table_options both = {.file = scratch_path(*state, "x.h5"),
                                  .synthetic = {true, 1, 1, 1, 0}};
  assert_fails(lks_source_open(&neither, "data.test", true, 1, &source, &err), LKS_CONFIG,
               "data.test has neither");
  has_remedy("data.test.file");
  assert_fails(lks_source_open(&both, "data.train", true, 1, &source, &err), LKS_CONFIG, "both");
}

static void not_a_number_is_placed(void **state) {
  const char *path = scratch_path(*state, "nan.h5");
  const hid_t file = create(path);
  double values[20 * 3];
  for (int i = 0; i < 60; ++i) {
    values[i] = i;
  }
  put(file, "x", 20, 2, 0);
  const fixture_layout layout = {H5T_IEEE_F32LE, 2, {20, 3}, 0, 0};
  values[17 * 3 + 2] = NAN;
  assert_int_equal(fixture_dataset(file, "b", &layout, values), 0);
  values[17 * 3 + 2] = 0;
  values[4 * 3 + 1] = -INFINITY;
  assert_int_equal(fixture_dataset(file, "y", &layout, values), 0);
  assert_true(H5Fclose(file) >= 0);
  lks_source *source = NULL;
  double features[20 * 5];
  double targets[20 * 3];
  const lks_table_options options = {.file = path, .features = FIXTURE_NAMES("x", "b")};
  assert_ok(lks_source_open(&options, "data.train", true, 1, &source, &err));
  assert_fails(lks_source_read(source, 10, 10, features, NULL, &err), LKS_DATA, "nan.h5",
               "dataset 'b' holds NaN at row 17, column 2");
  assert_ok(lks_source_read(source, 0, 17, features, NULL, &err));
  assert_fails(lks_source_read(source, 0, 6, features, targets, &err), LKS_DATA,
               "dataset 'y' holds an infinity at row 4, column 1");
  float narrow[20 * 3];
  const lks_raw out = {.float_targets = narrow};
  assert_ok(lks_source_fetch(source, 5, 15, &out, &err));
  assert_fails(lks_source_fetch(source, 3, 15, &out, &err), LKS_DATA,
               "dataset 'y' holds an infinity at row 4, column 1");
  lks_source_close(&source);
}

/* Bytes that this process has read from files so far. */
static long long bytes_read(void) {
  long long bytes = -1;
  FILE *io = fopen("/proc/self/io", "r");
  if (io != NULL) {
    if (fscanf(io, "rchar: %lld", &bytes) != 1) {
      bytes = -1;
    }
    (void)fclose(io);
  }
  return bytes;
}

/* A packed chunk larger than HDF5's own cache of 1 MiB, read part by part: what is unpacked more
 * than once is also read from the file more than once. */
static void large_packed_chunks_are_read_once(void **state) {
  enum { ROWS = 400, COLUMNS = 1000, PART = 20 };
  static double values[PART * COLUMNS];
  const char *path = scratch_path(*state, "packed.h5");
  const hid_t file = create(path);
  const fixture_layout layout = {H5T_IEEE_F32LE, 2, {ROWS, COLUMNS}, ROWS, 1};
  assert_int_equal(fixture_table(file, "x", &layout, 0), 0);
  const hid_t set = H5Dopen2(file, "x", H5P_DEFAULT);
  const long long stored = (long long)H5Dget_storage_size(set);
  assert_true(stored > 0 && H5Dclose(set) >= 0 && H5Fclose(file) >= 0);
  lks_source *source = NULL;
  const lks_table_options options = {.file = path};
  assert_ok(lks_source_open(&options, "data.train", false, 1, &source, &err));
  const long long before = bytes_read();
  if (before < 0) {
    lks_source_close(&source);
    skip();
  }
  for (int64_t first = 0; first < ROWS; first += PART) {
    assert_ok(lks_source_read(source, first, PART, values, NULL, &err));
    assert_true(values[COLUMNS + 7] == fixture_value(first + 1, 7));
  }
  const long long took = bytes_read() - before;
  assert_true(took >= stored && took < 2 * stored);
  lks_source_close(&source);
}

/* ---- synthetic */

static void synthetic_rows_do_not_depend_on_reading(void **state) {
  (void)state;
  enum { ROWS = 200, IN = 5, OUT = 2 };
  static double whole[ROWS * IN];
  static double whole_targets[ROWS * OUT];
  double row[IN];
  double row_targets[OUT];
  lks_source *source = NULL;
  const lks_table_options options = {.synthetic = {true, ROWS, IN, OUT, 0}};
  assert_ok(lks_source_open(&options, "data.train", true, 1, &source, &err));
  const lks_source_info *info = lks_source_describe(source);
  assert_true(info->rows == ROWS && info->inputs == IN && info->outputs == OUT);
  assert_int_equal(info->chunk_rows, 1);
  assert_ok(lks_source_read(source, 0, ROWS, whole, whole_targets, &err));
  for (int64_t r = ROWS - 1; r >= 0; r -= 3) {
    assert_ok(lks_source_read(source, r, 1, row, row_targets, &err));
    assert_memory_equal(row, whole + r * IN, sizeof row);
    assert_memory_equal(row_targets, whole_targets + r * OUT, sizeof row_targets);
  }
  lks_source_close(&source);
  /* Another seed and another key give other rows. */
  for (int other = 0; other < 2; ++other) {
    assert_ok(lks_source_open(&options, other == 0 ? "data.test" : "data.train", true,
                              other == 0 ? 1 : 2, &source, &err));
    assert_ok(lks_source_read(source, 0, 1, row, NULL, &err));
    for (int c = 0; c < IN; ++c) {
      assert_true(row[c] != whole[c]);
    }
    lks_source_close(&source);
  }
}

static void synthetic_labels_are_even(void **state) {
  (void)state;
  enum { ROWS = 30000, CLASSES = 3 };
  lks_source *source = NULL;
  const lks_table_options options = {
      .synthetic = {.present = true, .rows = ROWS, .inputs = 1, .outputs = 1, .classes = CLASSES}};
  assert_int_equal(lks_source_open(&options, "data.train", true, 7, &source, &err), LKS_OK);
  double *labels = malloc(ROWS * sizeof *labels);
  assert_non_null(labels);
  assert_int_equal(lks_source_read(source, 0, ROWS, NULL, labels, &err), LKS_OK);
  int counts[CLASSES] = {0};
  for (int i = 0; i < ROWS; ++i) {
    assert_true(labels[i] == 0.0 || labels[i] == 1.0 || labels[i] == 2.0);
    ++counts[(int)labels[i]];
  }
  for (int c = 0; c < CLASSES; ++c) { /* five standard deviations of a binomial count: 408 */
    assert_in_range(counts[c], 10000 - 408, 10000 + 408);
  }
  double one = -1.0;
  assert_int_equal(lks_source_read(source, 1234, 1, NULL, &one, &err), LKS_OK);
  assert_true(one == labels[1234]);
  free(labels);
  lks_source_close(&source);
}

/* n numbers: the mean lies within 6/sqrt(n) of 0, the mean square within 6 sqrt(2/n) of 1, the
 * correlation of features and targets within 6/sqrt(n) of 0: each fails once in 5e8. The largest of
 * n lies between 3 and 7. */
static void synthetic_rows_are_standard_normal(void **state) {
  (void)state;
  enum { ROWS = 20000, IN = 3, OUT = 3, N = ROWS * IN };
  static double x[N];
  static double y[N];
  lks_source *source = NULL;
  const lks_table_options options = {.synthetic = {true, ROWS, IN, OUT, 0}};
  assert_ok(lks_source_open(&options, "data.train", true, 9, &source, &err));
  assert_ok(lks_source_read(source, 0, ROWS, x, y, &err));
  double sum = 0;
  double squares = 0;
  double products = 0;
  double largest = 0;
  for (int i = 0; i < N; ++i) {
    sum += x[i];
    squares += x[i] * x[i];
    products += x[i] * y[i];
    largest = fmax(largest, fabs(x[i]));
  }
  assert_true(fabs(sum / N) < 6 / sqrt(N));
  assert_true(fabs(squares / N - 1) < 6 * sqrt(2.0 / N));
  assert_true(fabs(products / N) < 6 / sqrt(N));
  assert_true(largest > 3 && largest < 7);
  lks_source_close(&source);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_type_and_layout),
      cmocka_unit_test(lists_are_joined),
      cmocka_unit_test(usual_names_are_found),
      cmocka_unit_test(autoencoders_are_seen),
      cmocka_unit_test(bad_datasets_are_refused),
      cmocka_unit_test(one_of_file_and_synthetic),
      cmocka_unit_test(not_a_number_is_placed),
      cmocka_unit_test(large_packed_chunks_are_read_once),
      cmocka_unit_test(synthetic_rows_do_not_depend_on_reading),
      cmocka_unit_test(synthetic_rows_are_standard_normal),
      cmocka_unit_test(synthetic_labels_are_even),
  };
  return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
