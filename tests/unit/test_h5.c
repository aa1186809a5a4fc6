/* HDF5 through base/h5: what is written reads back, every number type converts. Foreign types are
 * made with HDF5 itself. */
#include "scratch.h"

#include <hdf5.h>
#include <math.h>

#include "base/h5.h"

static lks_error err;

/* ---- round trips */

static void test_write_read(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "plain.h5");
  const float values[6] = {1.5f, -2.0f, 3.25f, 0.0f, 1e-30f, 1e30f};
  const int64_t shape[2] = {3, 2};
  const int64_t big = INT64_MIN;
  const double real = 0.1;
  lks_h5 *file = NULL;
  assert_ok(lks_h5_create(path, &file, &err));
  assert_string_equal(lks_h5_path(file), path);
  assert_ok(lks_h5_write(file, "a/b/values", LKS_H5_F32, 2, shape, values, &err));
  assert_ok(lks_h5_write(file, "/a/step", LKS_H5_I64, 0, NULL, &big, &err));
  assert_ok(lks_h5_write(file, "a/real", LKS_H5_F64, 0, NULL, &real, &err));
  assert_ok(lks_h5_write_text(file, "a/text", "gr\xc3\xbc\xc3\x9f", &err));
  assert_ok(lks_h5_group(file, "empty", &err));
  assert_ok(lks_h5_group(file, "empty", &err)); /* twice is fine */
  assert_ok(lks_h5_link(file, "a/b/values", "other/name", &err));
  assert_ok(lks_h5_close(&file, &err));
  assert_null(file);

  float floats[6];
  double doubles[4];
  int64_t whole = 0;
  double got = 0.0;
  char *text = NULL;
  lks_arena arena = {0};
  lks_h5_dataset *dataset = NULL;
  assert_ok(lks_h5_open(path, &file, &err));
  assert_ok(lks_h5_dataset_open(file, "/other/name", &dataset, &err));
  const lks_h5_info *info = lks_h5_dataset_info(dataset);
  assert_int_equal(info->kind, LKS_H5_FLOAT);
  assert_int_equal(info->rank, 2);
  assert_int_equal(info->shape[0], 3);
  assert_int_equal(info->shape[1], 2);
  assert_int_equal(info->chunk_rows, 0);
  assert_false(info->compressed);
  assert_string_equal(info->type_name, "float32");
  assert_ok(lks_h5_read_rows_float(dataset, 0, 3, floats, &err));
  assert_memory_equal(floats, values, sizeof(values));
  assert_ok(lks_h5_read_rows(dataset, 1, 2, doubles, &err));
  for (int i = 0; i < 4; ++i) {
    assert_true(doubles[i] == (double)values[2 + i]);
  }
  assert_fails(lks_h5_read_rows(dataset, 2, 2, doubles, &err), LKS_DATA, "plain.h5", "other/name",
               "has 3 rows");
  lks_h5_dataset_close(&dataset);
  assert_null(dataset);
  lks_h5_dataset_close(&dataset);
  assert_ok(lks_h5_read_int64(file, "a/step", &whole, &err));
  assert_int_equal(whole, INT64_MIN);
  assert_ok(lks_h5_read_real(file, "a/real", &got, &err));
  assert_true(got == 0.1);
  assert_ok(lks_h5_read_text(file, "a/text", &arena, &text, &err));
  assert_string_equal(text, "gr\xc3\xbc\xc3\x9f");
  assert_ok(lks_h5_close(&file, &err));
  assert_ok(lks_h5_close(&file, &err)); /* NULL is accepted */
  lks_arena_free(&arena);
}

static void test_equal_content_equal_bytes(void **state) {
  scratch *at = *state;
  const double values[3] = {1, 2, 3};
  const int64_t shape[1] = {3};
  char *data[2];
  size_t bytes[2];
  for (int i = 0; i < 2; ++i) {
    lks_h5 *file = NULL;
    const char *path = scratch_path(at, i == 0 ? "first.h5" : "second.h5");
    assert_ok(lks_h5_create(path, &file, &err));
    assert_ok(lks_h5_write(file, "g/x", LKS_H5_F64, 1, shape, values, &err));
    assert_ok(lks_h5_attr_text(file, "g", "key", "text", &err));
    assert_ok(lks_h5_close(&file, &err));
    data[i] = scratch_read(path, &bytes[i]);
    sleep(i == 0 ? 1 : 0); /* a time stamp would differ */
  }
  assert_int_equal(bytes[0], bytes[1]);
  assert_memory_equal(data[0], data[1], bytes[0]);
  free(data[0]);
  free(data[1]);
}

static void test_reserve(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "reserved.h5");
  const float values[4] = {1, 2, 3, 4};
  const int64_t shape[2] = {2, 2};
  int64_t offset[2] = {0, 0};
  lks_h5 *file = NULL;
  assert_ok(lks_h5_create(path, &file, &err));
  assert_ok(lks_h5_reserve(file, "layers/a", LKS_H5_F32, 2, shape, &offset[0], &err));
  assert_ok(lks_h5_reserve(file, "layers/b", LKS_H5_F32, 2, shape, &offset[1], &err));
  assert_ok(lks_h5_close(&file, &err));
  FILE *raw = fopen(path, "r+b");
  assert_non_null(raw);
  for (int i = 0; i < 2; ++i) {
    assert_int_equal(fseek(raw, offset[i], SEEK_SET), 0);
    assert_int_equal(fwrite(values, sizeof(float), 4, raw), 4);
  }
  assert_int_equal(fclose(raw), 0);
  float got[4];
  lks_h5_dataset *dataset = NULL;
  assert_ok(lks_h5_open(path, &file, &err));
  for (int i = 0; i < 2; ++i) {
    assert_ok(lks_h5_dataset_open(file, i == 0 ? "layers/a" : "layers/b", &dataset, &err));
    assert_ok(lks_h5_read_rows_float(dataset, 0, 2, got, &err));
    assert_memory_equal(got, values, sizeof(values));
    lks_h5_dataset_close(&dataset);
  }
  assert_ok(lks_h5_close(&file, &err));
}

static void test_growing_rows(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "rows.h5");
  const int64_t shape[3] = {0, 2, 2};
  int32_t block[5 * 4];
  lks_h5 *file = NULL;
  lks_h5_dataset *dataset = NULL;
  assert_ok(lks_h5_create(path, &file, &err));
  assert_ok(lks_h5_create_rows(file, "table", LKS_H5_I32, 3, shape, 4, 4, &dataset, &err));
  for (int first = 0; first < 20; first += 5) {
    for (int i = 0; i < 20; ++i) {
      block[i] = first * 4 + i;
    }
    assert_ok(lks_h5_write_rows(dataset, first, 5, block, &err));
  }
  assert_ok(lks_h5_write_rows(dataset, 3, 0, block, &err));
  lks_h5_dataset_close(&dataset);
  assert_ok(lks_h5_close(&file, &err));

  double got[80];
  assert_ok(lks_h5_open(path, &file, &err));
  assert_ok(lks_h5_dataset_open(file, "table", &dataset, &err));
  const lks_h5_info *info = lks_h5_dataset_info(dataset);
  assert_int_equal(info->shape[0], 20);
  assert_int_equal(info->chunk_rows, 4);
  assert_true(info->compressed);
  assert_string_equal(info->type_name, "int32");
  assert_ok(lks_h5_read_rows(dataset, 0, 20, got, &err));
  for (int i = 0; i < 80; ++i) {
    assert_true(got[i] == i);
  }
  lks_h5_dataset_close(&dataset);
  assert_ok(lks_h5_close(&file, &err));
}

static void test_attributes(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "attributes.h5");
  const char *const names[3] = {"dense", "dropout", "dense_1"};
  lks_h5 *file = NULL;
  char *large = calloc(1, 100001);
  assert_non_null(large);
  memset(large, 'x', 100000); /* over the 64 KiB that an object header holds */
  assert_ok(lks_h5_create(path, &file, &err));
  assert_ok(lks_h5_group(file, "g", &err));
  assert_ok(lks_h5_attr_text(file, "/", "large", large, &err));
  assert_ok(lks_h5_attr_text(file, "g", "text", "old", &err));
  assert_ok(lks_h5_attr_text(file, "g", "text", "new", &err)); /* replaces */
  assert_ok(lks_h5_attr_texts(file, "/g", "names", names, 3, &err));
  assert_ok(lks_h5_attr_texts(file, "g", "none", NULL, 0, &err));
  assert_ok(lks_h5_attr_int64(file, "g", "whole", -7, &err));
  assert_ok(lks_h5_attr_real(file, "g", "real", NAN, &err));
  assert_fails(lks_h5_attr_text(file, "absent", "text", "", &err), LKS_STORAGE, "cannot write",
               "attributes.h5", "absent");
  assert_ok(lks_h5_close(&file, &err));

  lks_arena arena = {0};
  char *text = NULL;
  lks_texts texts;
  int64_t whole = 0;
  assert_ok(lks_h5_open(path, &file, &err));
  assert_ok(lks_h5_attr_read_text(file, "/", "large", &arena, &text, &err));
  assert_string_equal(text, large);
  assert_ok(lks_h5_attr_read_text(file, "g", "text", &arena, &text, &err));
  assert_string_equal(text, "new");
  assert_ok(lks_h5_attr_read_text(file, "g", "absent", &arena, &text, &err));
  assert_null(text);
  assert_ok(lks_h5_attr_read_text(file, "absent", "text", &arena, &text, &err));
  assert_null(text);
  assert_ok(lks_h5_attr_read_texts(file, "g", "names", &arena, &texts, &err));
  assert_int_equal(texts.count, 3);
  assert_string_equal(texts.items[2], "dense_1");
  assert_ok(lks_h5_attr_read_texts(file, "g", "none", &arena, &texts, &err));
  assert_int_equal(texts.count, 0);
  assert_fails(lks_h5_attr_read_texts(file, "g", "whole", &arena, &texts, &err), LKS_DATA, "whole",
               "holds no text");
  assert_ok(lks_h5_attr_read_int64(file, "g", "whole", &whole, &err));
  assert_int_equal(whole, -7);
  assert_fails(lks_h5_attr_read_int64(file, "g", "absent", &whole, &err), LKS_DATA,
               "no attribute 'absent'");
  assert_fails(lks_h5_attr_read_int64(file, "g", "text", &whole, &err), LKS_DATA,
               "not one whole number");
  assert_ok(lks_h5_close(&file, &err));
  lks_arena_free(&arena);
  free(large);
}

static void test_names(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "names.h5");
  const int64_t one = 1;
  lks_h5 *file = NULL;
  assert_ok(lks_h5_create(path, &file, &err));
  assert_ok(lks_h5_write(file, "b", LKS_H5_I64, 0, NULL, &one, &err));
  assert_ok(lks_h5_write(file, "a/x", LKS_H5_I64, 0, NULL, &one, &err));
  assert_ok(lks_h5_write(file, "a/c/y", LKS_H5_I64, 0, NULL, &one, &err));
  assert_ok(lks_h5_link(file, "/", "a/cycle", &err));
  assert_ok(lks_h5_close(&file, &err));
  const hid_t raw = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
  assert_true(raw >= 0);
  assert_true(H5Lcreate_soft("/nowhere", raw, "dangling", H5P_DEFAULT, H5P_DEFAULT) >= 0);
  assert_true(H5Fclose(raw) >= 0);

  lks_arena arena = {0};
  lks_texts texts;
  lks_h5_dataset *dataset = NULL;
  assert_ok(lks_h5_open(path, &file, &err));
  assert_string_equal(lks_h5_list(file, "/", 9, &arena), "a/c/y, a/x, b");
  assert_string_equal(lks_h5_list(file, "/", 2, &arena), "a/c/y, a/x, ...");
  assert_string_equal(lks_h5_list(file, "/a/c/", 9, &arena), "a/c/y");
  assert_string_equal(lks_h5_list(file, "absent", 9, &arena), "");
  assert_true(lks_h5_exists(file, "/"));
  assert_true(lks_h5_exists(file, "/a/c/y"));
  assert_true(lks_h5_exists(file, "a/c/"));
  assert_true(lks_h5_exists(file, "./a/././c/y"));
  assert_true(lks_h5_exists(file, "."));
  assert_false(lks_h5_exists(file, "./a/./d/y"));
  assert_true(lks_h5_exists(file, "a/cycle/a/x"));
  assert_false(lks_h5_exists(file, "a/d/y"));
  assert_false(lks_h5_exists(file, "b/y"));
  assert_false(lks_h5_exists(file, "dangling"));
  assert_ok(lks_h5_members(file, "a", &arena, &texts, &err));
  assert_int_equal(texts.count, 3);
  assert_string_equal(texts.items[0], "c");
  assert_string_equal(texts.items[1], "cycle");
  assert_string_equal(texts.items[2], "x");
  assert_ok(lks_h5_members(file, "absent", &arena, &texts, &err));
  assert_int_equal(texts.count, 0);
  assert_fails(lks_h5_members(file, "b", &arena, &texts, &err), LKS_DATA, "names.h5", "'b'");
  assert_fails(lks_h5_dataset_open(file, "label", &dataset, &err), LKS_DATA,
               "names.h5: no dataset 'label' (has a/c/y, a/x, b)");
  assert_true(lks_h5_misnamed(file, "label"));
  assert_true(lks_h5_misnamed(file, "a"));
  assert_fails(lks_h5_dataset_open(file, "dangling", &dataset, &err), LKS_DATA,
               "names.h5: 'dangling' is a link to '/nowhere', which is not there");
  assert_fails(lks_h5_dataset_open(file, "dangling/deep", &dataset, &err), LKS_DATA,
               "'dangling' is a link to '/nowhere'");
  assert_false(lks_h5_misnamed(file, "dangling/deep"));
  assert_false(lks_h5_misnamed(file, "b"));
  assert_fails(lks_h5_dataset_open(file, "a", &dataset, &err), LKS_DATA, "'a' is not a dataset",
               "a/x");
  assert_ok(lks_h5_close(&file, &err));
  lks_arena_free(&arena);
}

/* ---- foreign types */

static void put(hid_t file, const char *name, hid_t stored, hid_t native, const void *data) {
  const hsize_t three = 3;
  const hid_t space = H5Screate_simple(1, &three, NULL);
  const hid_t id = H5Dcreate2(file, name, stored, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(id >= 0);
  assert_true(H5Dwrite(id, native, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
  assert_true(H5Dclose(id) >= 0);
  assert_true(H5Sclose(space) >= 0);
}

static hid_t half_type(void) { /* as h5py makes float16 */
  const hid_t half = H5Tcopy(H5T_IEEE_F32LE);
  assert_true(H5Tset_fields(half, 15, 10, 5, 0, 10) >= 0);
  assert_true(H5Tset_size(half, 2) >= 0);
  assert_true(H5Tset_ebias(half, 15) >= 0);
  return half;
}

static hid_t bool_type(void) { /* as h5py makes booleans */
  const int8_t no = 0, yes = 1;
  const hid_t type = H5Tenum_create(H5T_STD_I8LE);
  assert_true(H5Tenum_insert(type, "FALSE", &no) >= 0);
  assert_true(H5Tenum_insert(type, "TRUE", &yes) >= 0);
  return type;
}

static void make_foreign(const char *path) {
  const double numbers[3] = {0, 1, 1};
  const int8_t flags[3] = {0, 1, 1};
  const uint64_t large[3] = {0, UINT64_MAX, 1};
  static const long double extended[3] = {0, 0.5L, 1};
  const struct { double re, im; } complexes[3] = {{0, 0}, {1, 0}, {1, 0}};
  const char words[3][4] = {"a", "bb", "ccc"};
  const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(file >= 0);
  put(file, "int8", H5T_STD_I8BE, H5T_NATIVE_DOUBLE, numbers);
  put(file, "uint16", H5T_STD_U16BE, H5T_NATIVE_DOUBLE, numbers);
  put(file, "int64", H5T_STD_I64BE, H5T_NATIVE_DOUBLE, numbers);
  put(file, "float64", H5T_IEEE_F64BE, H5T_NATIVE_DOUBLE, numbers);
  put(file, "uint64", H5T_STD_U64LE, H5T_NATIVE_UINT64, large);
  put(file, "float128", H5T_NATIVE_LDOUBLE, H5T_NATIVE_LDOUBLE, extended);
  const hid_t half = half_type(), flag = bool_type();
  put(file, "float16", half, H5T_NATIVE_DOUBLE, numbers);
  put(file, "bool", flag, flag, flags);
  const hid_t compound = H5Tcreate(H5T_COMPOUND, sizeof(complexes[0]));
  assert_true(H5Tinsert(compound, "r", 0, H5T_NATIVE_DOUBLE) >= 0);
  assert_true(H5Tinsert(compound, "i", sizeof(double), H5T_NATIVE_DOUBLE) >= 0);
  put(file, "compound", compound, compound, complexes);
  const hid_t word = H5Tcopy(H5T_C_S1);
  assert_true(H5Tset_size(word, 4) >= 0);
  put(file, "string", word, word, words);
  const hid_t opaque = H5Tcreate(H5T_OPAQUE, 4);
  put(file, "opaque", opaque, opaque, words);
  const hid_t none = H5Screate(H5S_NULL), single = H5Screate(H5S_SCALAR);
  hid_t id = H5Dcreate2(file, "null", H5T_IEEE_F64LE, none, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(H5Dclose(id) >= 0);
  id = H5Dcreate2(file, "padded", word, single, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(H5Dwrite(id, word, H5S_ALL, H5S_ALL, H5P_DEFAULT, "abcd") >= 0);
  assert_true(H5Dclose(id) >= 0);
  const hsize_t zero = 0; /* as Keras writes an empty list of names */
  const hid_t empty = H5Screate_simple(1, &zero, NULL);
  id = H5Acreate2(file, "no_names", H5T_IEEE_F64LE, empty, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(H5Aclose(id) >= 0);
  (void)H5Sclose(empty);
  (void)H5Sclose(none);
  (void)H5Sclose(single);
  (void)H5Tclose(half);
  (void)H5Tclose(flag);
  (void)H5Tclose(compound);
  (void)H5Tclose(word);
  (void)H5Tclose(opaque);
  assert_true(H5Fclose(file) >= 0);
}

static void check_numbers(lks_h5 *file, const char *name, lks_h5_class kind, double middle) {
  double got[3];
  float floats[3];
  lks_h5_dataset *dataset = NULL;
  assert_ok(lks_h5_dataset_open(file, name, &dataset, &err));
  assert_string_equal(lks_h5_dataset_info(dataset)->type_name, name);
  assert_int_equal(lks_h5_dataset_info(dataset)->kind, kind);
  assert_ok(lks_h5_read_rows(dataset, 0, 3, got, &err));
  assert_true(got[0] == 0 && got[1] == middle && got[2] == 1);
  assert_ok(lks_h5_read_rows_float(dataset, 0, 3, floats, &err));
  assert_true(floats[0] == 0 && floats[1] == (float)middle && floats[2] == 1);
  lks_h5_dataset_close(&dataset);
}

static void check_refused(lks_h5 *file, const char *name, const char *words) {
  double got[3];
  lks_h5_dataset *dataset = NULL;
  assert_ok(lks_h5_dataset_open(file, name, &dataset, &err));
  assert_fails(lks_h5_read_rows(dataset, 0, 3, got, &err), LKS_DATA, "foreign.h5", name, words);
  lks_h5_dataset_close(&dataset);
}

static void test_types(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "foreign.h5");
  lks_h5 *file = NULL;
  lks_h5_dataset *dataset = NULL;
  lks_arena arena = {0};
  int64_t whole = 0;
  double real = 0;
  char *text = NULL;
  make_foreign(path);
  lks_texts names = {NULL, 1};
  assert_ok(lks_h5_open(path, &file, &err));
  assert_ok(lks_h5_attr_read_texts(file, "/", "no_names", &arena, &names, &err));
  assert_int_equal(names.count, 0);
  check_numbers(file, "int8", LKS_H5_INTEGER, 1);
  check_numbers(file, "uint16", LKS_H5_INTEGER, 1);
  check_numbers(file, "int64", LKS_H5_INTEGER, 1);
  check_numbers(file, "float64", LKS_H5_FLOAT, 1);
  check_numbers(file, "uint64", LKS_H5_INTEGER, 18446744073709551616.0);
  check_numbers(file, "float128", LKS_H5_FLOAT, 0.5);
  check_numbers(file, "float16", LKS_H5_FLOAT, 1);
  check_numbers(file, "bool", LKS_H5_INTEGER, 1);
  check_refused(file, "string", "dataset 'string' holds strings, numbers are needed");
  check_refused(file, "compound", "holds compound values, numbers are needed");
  check_refused(file, "opaque", "holds opaque values, numbers are needed");
  assert_fails(lks_h5_dataset_open(file, "null", &dataset, &err), LKS_DATA, "dataset 'null'",
               "null dataspace");
  assert_fails(lks_h5_read_int64(file, "int64", &whole, &err), LKS_DATA, "not a single value");
  assert_fails(lks_h5_read_real(file, "padded", &real, &err), LKS_DATA, "holds strings");
  assert_fails(lks_h5_read_int64(file, "padded", &whole, &err), LKS_DATA, "type string",
               "whole number");
  assert_fails(lks_h5_read_text(file, "string", &arena, &text, &err), LKS_DATA,
               "not a single value");
  assert_ok(lks_h5_read_text(file, "padded", &arena, &text, &err));
  assert_string_equal(text, "abcd"); /* no NUL is stored */
  assert_ok(lks_h5_close(&file, &err));
  lks_arena_free(&arena);
}

static void test_versions(void **state) {
  (void)state;
  assert_string_equal(lks_h5_version_running(), lks_h5_version_built());
  assert_true(lks_h5_version_built()[0] >= '1');
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_write_read), cmocka_unit_test(test_equal_content_equal_bytes),
      cmocka_unit_test(test_reserve),    cmocka_unit_test(test_growing_rows),
      cmocka_unit_test(test_attributes), cmocka_unit_test(test_names),
      cmocka_unit_test(test_types),      cmocka_unit_test(test_versions),
  };
  return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
