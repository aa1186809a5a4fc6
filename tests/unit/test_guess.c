/* Which datasets a table takes where none are named. */
#include "scratch.h"

#include "data_fixture.h"

static lks_error err;

/* What is found under a key, where the file holds those datasets; wanted "": nothing. */
static void found(const char *path, const char *const *held, const char *key, const char *features,
                  const char *wanted_features, const char *wanted_targets) {
  const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(file >= 0);
  const fixture_layout layout = {H5T_IEEE_F32LE, 2, {4, 1}, 0, 0};
  for (int i = 0; held[i] != NULL; ++i) {
    assert_int_equal(fixture_table(file, held[i], &layout, 0), 0);
  }
  assert_true(H5Fclose(file) >= 0);
  lks_source *source = NULL;
  const lks_table_options options = {.file = path,
                                     .features = {&features, features != NULL ? 1 : 0}};
  const lks_status st = lks_source_open(&options, key, true, 1, &source, &err);
  if (wanted_targets[0] == '\0') {
    assert_int_equal(st, LKS_DATA);
    assert_non_null(strstr(err.what, "no dataset of targets"));
    return;
  }
  assert_ok(st);
  assert_string_equal(lks_source_describe(source)->feature_names, wanted_features);
  assert_string_equal(lks_source_describe(source)->target_names, wanted_targets);
  lks_source_close(&source);
}

#define HELD(...) ((const char *const[]){__VA_ARGS__, NULL})

static void each_table_finds_its_own(void **state) {
  const char *path = scratch_path(*state, "own.h5");
  const char *const *all = HELD("x_train", "y_train", "x_test", "y_test", "x_val", "y_val", "y");
  found(path, all, "data.train", NULL, "x_train", "y_train");
  found(path, all, "data.validation", NULL, "x_val", "y_val");
  found(path, all, "data.test", NULL, "x_test", "y_test");
  found(path, all, "--in", NULL, "x_train", "y_train");
  found(path, all, "data.test", "x_test", "x_test", "y_test");
  found(path, all, "data.test", "/x_val", "/x_val", "/y_val");
  found(path, all, "data.train", "x_test", "x_test", "y_test");
  found(path, all, "data.train", "y", "y", "y");
  found(path, HELD("x_valid", "y_valid", "x_validation", "y_validation"), "data.validation", NULL,
        "x_validation", "y_validation");
  found(path, HELD("x_valid", "y_valid", "x_test", "y_test"), "data.validation", NULL, "x_valid",
        "y_valid");
  /* Nothing but y_test belongs to x_test; what is not told apart goes by the usual names. */
  found(path, HELD("x_test", "y_train", "y"), "data.test", NULL, "", "");
  found(path, HELD("x_train", "labels"), "data.train", NULL, "x_train", "labels");
  found(path, HELD("x_raw", "y", "y_raw"), "data.train", "x_raw", "x_raw", "y_raw");
  found(path, HELD("x_raw", "y"), "data.train", "x_raw", "x_raw", "y");
  found(path, HELD("x", "y", "x_train", "y_train"), "data.test", NULL, "x", "y");
  found(path, HELD("x", "y", "x_train", "y_train"), "data.train", NULL, "x", "y");
  found(path, HELD("x", "y_train"), "data.validation", NULL, "x", "y_train");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(each_table_finds_its_own)};
  return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
