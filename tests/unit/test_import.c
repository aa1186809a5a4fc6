/* Import: requests, telling files apart, NPY and IDX, and what is left after a failure. */
#include "import_fixture.h"

#include <math.h>
#include <signal.h>
#include <sys/resource.h>

#define SHAPE(...) ((const int64_t[]){__VA_ARGS__})
#define VALUES(...) ((const double[]){__VA_ARGS__})

/* ---- NPY */

/* Builds an NPY file in bytes; returns its length. */
static size_t npy(unsigned char *bytes, int version, const char *header, const void *data,
                  size_t size) {
  const size_t length = strlen(header), width = version == 1 ? 2 : 4;
  memcpy(bytes, "\x93NUMPY", 6);
  bytes[6] = (unsigned char)version;
  bytes[7] = 0;
  for (size_t i = 0; i < width; ++i) {
    bytes[8 + i] = (unsigned char)(length >> (8 * i));
  }
  memcpy(bytes + 8 + width, header, length);
  memcpy(bytes + 8 + width + length, data, size);
  return 8 + width + length + size;
}

static const char *put_npy(fixture *f, int version, const char *descr, const char *fortran,
                           const char *shape, const void *data, size_t size) {
  unsigned char bytes[2048];
  char header[512];
  snprintf(header, sizeof header, "{'descr': %s, 'fortran_order': %s, 'shape': %s, }   \n", descr,
           fortran, shape);
  return put_file(f, "a.npy", bytes, npy(bytes, version, header, data, size));
}

static void convert_npy(fixture *f, const char *descr, const void *data, size_t size,
                        const char *type, const double *values) {
  const lks_import_request again = {.overwrite = true};
  must(f, convert_one(f, &again, put_npy(f, 1, descr, "False", "(2,)", data, size)));
  check_dataset(f, "a", type, 1, SHAPE(2), values);
}

static void test_npy_types(void **state) {
  fixture *f = *state;
  convert_npy(f, "'|b1'", "\0\1", 2, "uint8", VALUES(0, 1));
  convert_npy(f, "'|u1'", "\0\xff", 2, "uint8", VALUES(0, 255));
  convert_npy(f, "'|i1'", "\x80\x7f", 2, "int32", VALUES(-128, 127));
  convert_npy(f, "'<u2'", "\1\2\xff\xff", 4, "int32", VALUES(513, 65535));
  convert_npy(f, "'>u2'", "\1\2\xff\xff", 4, "int32", VALUES(258, 65535));
  convert_npy(f, "'<i2'", "\xfe\xff\0\x80", 4, "int32", VALUES(-2, -32768));
  convert_npy(f, "'>i2'", "\xff\xfe\0\x80", 4, "int32", VALUES(-2, 128));
  convert_npy(f, "'<u4'", "\xff\xff\xff\xff\1\0\0\0", 8, "int64", VALUES(4294967295.0, 1));
  convert_npy(f, "'>u4'", "\xff\xff\xff\xff\0\0\0\1", 8, "int64", VALUES(4294967295.0, 1));
  convert_npy(f, "'<i4'", "\xff\xff\xff\xff\0\0\0\x80", 8, "int32", VALUES(-1, -2147483648.0));
  convert_npy(f, "'>i4'", "\0\0\1\0\xff\xff\xff\xff", 8, "int32", VALUES(256, -1));
  convert_npy(f, "'<i8'", "\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\1\0\0", 16, "int64",
              VALUES(-1, 1099511627776.0));
  convert_npy(f, "'>u8'", "\0\0\0\0\0\0\0\7\0\0\1\0\0\0\0\0", 16, "int64",
              VALUES(7, 1099511627776.0));
  convert_npy(f, "'<f4'", "\0\0\x80\x3f\0\0\0\xc0", 8, "float32", VALUES(1, -2));
  convert_npy(f, "'>f4'", "\x3f\x80\0\0\xc0\0\0\0", 8, "float32", VALUES(1, -2));
  convert_npy(f, "'<f8'", "\0\0\0\0\0\0\xf0\x3f\0\0\0\0\0\0\0\xc0", 16, "float64", VALUES(1, -2));
  convert_npy(f, "'>f8'", "\x3f\xf0\0\0\0\0\0\0\xc0\0\0\0\0\0\0\0", 16, "float64", VALUES(1, -2));
}

static void test_npy_half(void **state) {
  fixture *f = *state;
  const uint16_t halves[8] = {0x3c00, 0xc000, 0x0001, 0x03ff, 0x0400, 0x7bff, 0x8000, 0x7c00};
  const double least = 1.0 / 16777216.0; /* 2^-24 */
  must(f, convert_one(f, NULL, put_npy(f, 1, "'<f2'", "False", "(8,)", halves, sizeof halves)));
  check_dataset(f, "a", "float32", 1, SHAPE(8),
                VALUES(1, -2, least, 1023 * least, 1024 * least, 65504, 0, (double)INFINITY));
}

static void test_npy_versions_and_orders(void **state) {
  fixture *f = *state;
  const lks_import_request again = {.overwrite = true, .deflate = 4};
  for (int version = 1; version <= 3; ++version) {
    must(f, convert_one(f, &again, put_npy(f, version, "'|u1'", "False", "(2, 3)", "abcdef", 6)));
    check_dataset(f, "a", "uint8", 2, SHAPE(2, 3), VALUES(97, 98, 99, 100, 101, 102));
  }
  must(f, convert_one(f, &again, put_npy(f, 1, "'|u1'", "True", "(2, 3)", "abcdef", 6)));
  check_dataset(f, "a", "uint8", 2, SHAPE(2, 3), VALUES(97, 99, 101, 98, 100, 102));
  must(f, convert_one(f, &again, put_npy(f, 1, "'|u1'", "True", "(3L,)", "abc", 3)));
  check_dataset(f, "a", "uint8", 1, SHAPE(3), VALUES(97, 98, 99));
  must(f, convert_one(f, &again, put_npy(f, 1, "\"|u1\"", "False", "(2, 1, 2)", "abcd", 4)));
  check_dataset(f, "a", "uint8", 3, SHAPE(2, 1, 2), VALUES(97, 98, 99, 100));
}

/* More rows than one block of a megabyte holds, in both orders of dimensions. */
static void test_npy_blocks(void **state) {
  fixture *f = *state;
  enum { ROWS = 700, COLUMNS = 900 };
  float *values = malloc(sizeof(float) * ROWS * COLUMNS);
  double *expected = malloc(sizeof(double) * ROWS * COLUMNS);
  unsigned char *bytes = malloc(sizeof(float) * ROWS * COLUMNS + 256);
  assert_true(values != NULL && expected != NULL && bytes != NULL);
  for (int turned = 0; turned < 2; ++turned) {
    const lks_import_request again = {.overwrite = true};
    for (int r = 0; r < ROWS; ++r) {
      for (int c = 0; c < COLUMNS; ++c) {
        values[turned ? c * ROWS + r : r * COLUMNS + c] = (float)(r * COLUMNS + c);
        expected[r * COLUMNS + c] = r * COLUMNS + c;
      }
    }
    const size_t size =
        npy(bytes, 1,
            turned ? "{'descr': '<f4', 'fortran_order': True, 'shape': (700, 900)}"
                   : "{'descr': '<f4', 'fortran_order': False, 'shape': (700, 900)}",
            values, sizeof(float) * ROWS * COLUMNS);
    must(f, convert_one(f, &again, put_file(f, "a.npy", bytes, size)));
    check_dataset(f, "a", "float32", 2, SHAPE(ROWS, COLUMNS), expected);
  }
  free(bytes);
  free(expected);
  free(values);
}

static void test_npy_refused(void **state) {
  fixture *f = *state;
  unsigned char bytes[512];
  const struct {
    const char *descr, *fortran, *shape, *what, *remedy;
  } cases[] = {
      {"[('a', '<f4')]", "False", "(1,)", "structured array", "each field"},
      {"'<U5'", "False", "(1,)", "type '<U5'", "astype"},
      {"'|O'", "False", "(1,)", "type '|O'", "astype"},
      {"'<c8'", "False", "(1,)", "type '<c8'", "astype"},
      {"''", "False", "(1,)", "type ''", "astype"},
      {"'#f4'", "False", "(1,)", "type '#f4'", "astype"},
      {"7", "False", "(1,)", "header is not valid", "numpy.save"},
      {"'|u1'", "Maybe", "(1,)", "header is not valid", "numpy.save"},
      {"'|u1'", "False", "3", "header is not valid", "numpy.save"},
      {"'|u1'", "False", "(-1,)", "header is not valid", "numpy.save"},
      {"'|u1'", "False", "(1 2)", "header is not valid", "numpy.save"},
      {"'|u1'", "False", "(1,), 'more': 1", "header is not valid", "numpy.save"},
      {"'|u1'", "False", "(1,), 'shape': (1,)", "header is not valid", "numpy.save"},
      {"'|u1'", "False", "()", "a single number", "rows"},
      {"'|u1'", "False", "(0, 3)", "no rows (dimension 0 is 0)", "made"},
      {"'|u1'", "False", "(3, 0)", "no columns (dimension 1 is 0)", "made"},
      {"'|u1'", "True", "(1, 1, 1)", "Fortran order of 3 dimensions", "ascontiguousarray"},
      {"'<f8'", "False", "(99999999999, 99999999999)", "shape is not possible", "check"},
      {"'|u1'", "False", "(2, 2)", "truncated: it holds less than the 2 rows", "again"},
      {"'|u1'", "False", "(2,)", "holds more than the 2 rows", "made"},
      {"'|u1'", "False", "(1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1)",
       "over 32 dimensions", "reshape"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    refuse(f, NULL, put_npy(f, 1, cases[i].descr, cases[i].fortran, cases[i].shape, "abc", 3),
           LKS_DATA, cases[i].what, cases[i].remedy);
  }
  refuse(f, NULL, put_npy(f, 9, "'|u1'", "False", "(3,)", "abc", 3), LKS_DATA, "NPY version 9",
         "numpy.save");
  refuse(f, NULL, put_npy(f, 1, "'<u8'", "False", "(2,)", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x80", 16),
         LKS_DATA, "row 1: 9223372036854775808 does not fit", "below 2^63");
  refuse(f, NULL, put_file(f, "a.npy", bytes, npy(bytes, 1, "{'descr': '|u1'}", "", 0)), LKS_DATA,
         "header is not valid", "numpy.save");
  refuse(f, NULL, put_file(f, "a.npy", bytes, npy(bytes, 1, "no", "", 0)), LKS_DATA,
         "header is not valid", "numpy.save");
  const size_t whole = npy(bytes, 2, "{'descr': '|u1', 'fortran_order'", "", 0);
  refuse(f, NULL, put_file(f, "a.npy", bytes, whole), LKS_DATA, "header is not valid", "");
  refuse(f, NULL, put_file(f, "a.npy", bytes, whole - 5), LKS_DATA, "truncated within its NPY",
         "again");
  refuse(f, NULL, put_file(f, "a.npy", bytes, 9), LKS_DATA, "truncated within its NPY", "again");
  refuse(f, NULL, put_file(f, "a.npy", bytes, 6), LKS_DATA, "truncated within its NPY", "again");
  memset(bytes + 8, 0xff, 4);
  refuse(f, NULL, put_file(f, "a.npy", bytes, whole), LKS_DATA, "an NPY header of 4294967295",
         "check");
}

/* A header that promises more than memory holds: the file is at fault, not the memory. */
static void test_npy_promises(void **state) {
  fixture *f = *state;
  const struct {
    const char *fortran, *shape, *what;
  } cases[] = {{"False", "(1, 99999999999999)", "a.npy: truncated: it holds less than the 1 rows"},
               {"False", "(99999999999999, 1)", "less than the 99999999999999 rows"},
               {"True", "(9999999, 9999999)", "less than the 9999999 rows"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    refuse(f, NULL, put_npy(f, 1, "'<f8'", cases[i].fortran, cases[i].shape, "", 0), LKS_DATA,
           cases[i].what, "again");
    unsigned char bytes[512];
    char header[256];
    size_t size = 0;
    snprintf(header, sizeof header, "{'descr': '<f8', 'fortran_order': %s, 'shape': %s}",
             cases[i].fortran, cases[i].shape);
    unsigned char *packed = gzip(bytes, npy(bytes, 1, header, "", 0), &size);
    refuse(f, NULL, put_file(f, "a.npy", packed, size), LKS_DATA, cases[i].what, "again");
    free(packed);
  }
}

/* Nothing that gzip can pack is taken for truncated. */
static void test_npy_packed(void **state) {
  fixture *f = *state;
  enum { COUNT = 8000000 };
  unsigned char *bytes = calloc(1, COUNT + 512);
  double *expected = calloc(COUNT, sizeof *expected);
  assert_true(bytes != NULL && expected != NULL);
  size_t size =
      npy(bytes, 1, "{'descr': '|u1', 'fortran_order': False, 'shape': (8000000,)}", "", 0);
  unsigned char *packed = gzip(bytes, size + COUNT, &size);
  assert_in_range(size, 1, COUNT / 1000);
  must(f, convert_one(f, NULL, put_file(f, "a.npy", packed, size)));
  check_dataset(f, "a", "uint8", 1, SHAPE(COUNT), expected);
  free(packed);
  free(expected);
  free(bytes);
}

/* ---- IDX */

static void test_idx_types(void **state) {
  fixture *f = *state;
  const struct {
    char code;
    const char *data;
    size_t size;
    const char *type;
    double values[2];
  } cases[] = {
      {0x08, "\0\xff", 2, "uint8", {0, 255}},
      {0x09, "\x80\x7f", 2, "int32", {-128, 127}},
      {0x0B, "\1\0\xff\xff", 4, "int32", {256, -1}},
      {0x0C, "\0\1\0\0\xff\xff\xff\xff", 8, "int32", {65536, -1}},
      {0x0D, "\x3f\x80\0\0\xc0\0\0\0", 8, "float32", {1, -2}},
      {0x0E, "\x3f\xf0\0\0\0\0\0\0\xc0\0\0\0\0\0\0\0", 16, "float64", {1, -2}},
  };
  const lks_import_request again = {.overwrite = true};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    unsigned char bytes[64] = {0, 0, (unsigned char)cases[i].code, 2, 0, 0, 0, 1, 0, 0, 0, 2};
    memcpy(bytes + 12, cases[i].data, cases[i].size);
    must(f, convert_one(f, &again, put_file(f, "images-idx2", bytes, 12 + cases[i].size)));
    check_dataset(f, "images-idx2", cases[i].type, 2, SHAPE(1, 2), cases[i].values);
  }
}

static void test_idx_refused(void **state) {
  fixture *f = *state;
  unsigned char bytes[32] = {0, 0, 8, 2, 0, 0, 0, 3, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7};
  refuse(f, NULL, put_file(f, "a", bytes, 10), LKS_DATA, "truncated within its IDX", "again");
  refuse(f, NULL, put_file(f, "a", bytes, 17), LKS_DATA, "truncated: it holds less than the 3 rows",
         "again");
  refuse(f, NULL, put_file(f, "a", bytes, 19), LKS_DATA, "more than the 3 rows", "made");
  bytes[7] = 0;
  refuse(f, NULL, put_file(f, "a", bytes, 12), LKS_DATA, "no rows", "made");
  bytes[3] = 33;
  refuse(f, NULL, put_file(f, "a", bytes, 19), LKS_DATA, "IDX of 33 dimensions", "reshape");
  bytes[2] = 7;
  refuse(f, NULL, put_file(f, "a", bytes, 19), LKS_DATA,
         "not CSV, NPY or IDX (begins with 00 00 07 21)", "check");
}

/* ---- gzip */

static void test_gzip(void **state) {
  fixture *f = *state;
  unsigned char bytes[16 + 5000] = {0, 0, 8, 1, 0, 0, 0x13, 0x88};
  double expected[5000];
  for (int i = 0; i < 5000; ++i) {
    bytes[8 + i] = (unsigned char)(i * 7919 >> 3);
    expected[i] = bytes[8 + i];
  }
  size_t size = 0;
  unsigned char *packed = gzip(bytes, 5008, &size);
  const char *path = put_file(f, "labels-idx1-ubyte.gz", packed, size);
  must(f, convert_one(f, NULL, path));
  check_dataset(f, "labels-idx1-ubyte", "uint8", 1, SHAPE(5000), expected);
  sweep(f->out, true);
  refuse(f, NULL, put_file(f, "a.gz", packed, size / 2), LKS_DATA, "truncated: its gzip stream",
         "again");
  refuse(f, NULL, put_file(f, "a.gz", packed, size - 3), LKS_DATA, "truncated: its gzip stream",
         "again");
  packed[size - 6] ^= 1; /* its checksum */
  refuse(f, NULL, put_file(f, "a.gz", packed, size), LKS_DATA, "damaged: its gzip stream", "again");
  free(packed);
  packed = gzip("", 0, &size);
  refuse(f, NULL, put_file(f, "a.gz", packed, size), LKS_DATA, "the file is empty", "made");
  free(packed);
}

/* ---- files that are none of the three, and those that are not there */

static void test_other_files(void **state) {
  fixture *f = *state;
  char path[400];
  refuse(f, NULL, put_file(f, "a", "\x89HDF\r\n\x1a\nxxx", 11), LKS_DATA, "is HDF5 already",
         "as it is");
  refuse(f, NULL, put_file(f, "a.npz", "PK\3\4xxxxxx", 10), LKS_DATA, "zip archive", "unzip");
  refuse(f, NULL, put_file(f, "a.csv", "\1\2", 2), LKS_DATA, "begins with 01 02 00 00", "check");
  refuse(f, NULL, put_file(f, "a.csv", "", 0), LKS_DATA, "the file is empty", "made");
  refuse(f, NULL, f->in, LKS_DATA, "is a folder", "name a CSV");
  snprintf(path, sizeof path, "%s/none.csv", f->in);
  refuse(f, NULL, path, LKS_DATA, "none.csv: no such file", "path");
  snprintf(path, sizeof path, "%s/a.csv/x", f->in);
  refuse(f, NULL, path, LKS_DATA, "cannot be opened: Not a directory", "path");
  snprintf(path, sizeof path, "%s/pipe", f->in);
  assert_int_equal(mkfifo(path, 0600), 0);
  refuse(f, NULL, path, LKS_DATA, "not a regular file", "file first");
}

/* ---- requests and names */

static void test_inputs(void **state) {
  fixture *f = *state;
  lks_arena arena = {0};
  lks_import_input input;
  assert_int_equal(lks_import_input_parse("x=a/b.csv", &arena, &input, &f->err), LKS_OK);
  assert_string_equal(input.name, "x");
  assert_string_equal(input.path, "a/b.csv");
  assert_int_equal(lks_import_input_parse("./x=1/b.csv", &arena, &input, &f->err), LKS_OK);
  assert_null(input.name);
  assert_string_equal(input.path, "./x=1/b.csv");
  check_failed(f, lks_import_input_parse("=a.csv", &arena, &input, &f->err), LKS_USAGE,
               "no name before '='", "NAME=FILE");
  check_failed(f, lks_import_input_parse("x=", &arena, &input, &f->err), LKS_USAGE, "no file",
               "NAME=FILE");
  check_failed(f, lks_import_input_parse("", &arena, &input, &f->err), LKS_USAGE, "no file",
               "NAME=FILE");
  lks_arena_free(&arena);
}

static void test_requests(void **state) {
  fixture *f = *state;
  char argument[600];
  const char *path = put_text(f, "a.csv", "2,1\n3,4\n");
  lks_import_request options = {.delimiter = '.'};
  refuse(f, &options, path, LKS_USAGE, "delimiter '.' cannot", "';'");
  options = (lks_import_request){.deflate = 10};
  refuse(f, &options, path, LKS_USAGE, "no compression level 10", "0 to 9");
  check_failed(f, convert_all(f, NULL, NULL, 0), LKS_USAGE, "nothing to convert", "IN");
  check_failed(f, convert_all(f, NULL, (const char *[]){path, path}, 2), LKS_USAGE,
               "both give a dataset 'a'", "NAME=FILE");
  snprintf(argument, sizeof argument, ".=%s", path);
  refuse(f, NULL, argument, LKS_USAGE, "'.' cannot name a dataset", "NAME=FILE");
  snprintf(argument, sizeof argument, "\xff=%s", path);
  refuse(f, NULL, argument, LKS_USAGE, "cannot name a dataset", "NAME=FILE");
  const char *columns[] = {"1"};
  options = (lks_import_request){.features = {columns, 1}};
  refuse(f, &options, put_npy(f, 1, "'|u1'", "False", "(1,)", "a", 1), LKS_USAGE,
         "no columns to choose", "leave --features");
  options = (lks_import_request){.delimiter = ';', .header = LKS_IMPORT_HEADER_NO};
  refuse(f, &options, put_npy(f, 1, "'|u1'", "False", "(1,)", "a", 1), LKS_USAGE,
         "a.npy: no CSV, which alone has a delimiter", "leave --delimiter out");
  options = (lks_import_request){.header = LKS_IMPORT_HEADER_YES};
  refuse(f, &options, put_npy(f, 1, "'|u1'", "False", "(1,)", "a", 1), LKS_USAGE,
         "a.npy: no CSV, which alone has a header", "leave --header out");
  snprintf(f->output, sizeof f->output, "%.250s/data.csv", f->out);
  refuse(f, NULL, path, LKS_USAGE, "must end in .h5", "OUT.h5");
  snprintf(f->output, sizeof f->output, "%.250s/none/data.h5", f->out);
  assert_int_equal(convert_one(f, NULL, path), LKS_STORAGE);
  assert_non_null(strstr(f->err.what, "none"));
}

static void test_existing_output(void **state) {
  fixture *f = *state;
  const char *path = put_text(f, "a.csv", "1\n2\n");
  must(f, convert_one(f, NULL, path));
  check_dataset(f, "a", "uint8", 1, SHAPE(2), VALUES(1, 2));
  const char *other = put_text(f, "a.csv", "3\n");
  assert_int_equal(convert_one(f, NULL, other), LKS_USAGE);
  assert_non_null(strstr(f->err.what, "data.h5: exists already"));
  assert_non_null(strstr(f->err.remedy, "--overwrite"));
  check_dataset(f, "a", "uint8", 1, SHAPE(2), VALUES(1, 2));
  const lks_import_request again = {.overwrite = true};
  /* A failure leaves the file there as it was. */
  assert_int_equal(convert_one(f, &again, put_text(f, "b.csv", "3\n4,5\n")), LKS_DATA);
  check_dataset(f, "a", "uint8", 1, SHAPE(2), VALUES(1, 2));
  must(f, convert_one(f, &again, other));
  check_dataset(f, "a", "uint8", 1, SHAPE(1), VALUES(3));
  assert_int_equal(sweep(f->out, false), 1);
}

static void test_summary(void **state) {
  fixture *f = *state;
  const char *csv = put_text(f, "a.csv", "2,1\n3,4\n");
  const char *npy_path = put_npy(f, 1, "'|b1'", "False", "(1,)", "\1", 1);
  /* Both are called a. */
  assert_int_equal(convert_all(f, NULL, (const char *[]){csv, npy_path}, 2), LKS_USAGE);
  assert_int_equal(f->summary.length, 0);
  must(f, convert_one(f, NULL, csv));
  assert_memory_equal(f->summary.data, "a: uint8 [2, 2] from ", 21);
  assert_string_equal(f->summary.data + f->summary.length - 6, "a.csv\n");
}

/* A disk that fills up, by the limit on a file's size: an error, and nothing left. */
static void test_full_disk(void **state) {
  fixture *f = *state;
  unsigned char *bytes = calloc(1, 3000000);
  assert_non_null(bytes);
  memcpy(bytes, "\0\0\x08\1\0\x2d\xc6\xb8", 8); /* 2,999,992 of them */
  struct rlimit old, small;
  const char *path = put_file(f, "a", bytes, 3000000);
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
  small = old;
  small.rlim_cur = 1 << 20;
  signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
  const lks_status st = convert_one(f, NULL, path);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
  signal(SIGXFSZ, SIG_DFL);
  check_failed(f, st, LKS_STORAGE, "data.h5", "");
  free(bytes);
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, make_fixture, drop_fixture)

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_FIXTURE(test_npy_types),
      WITH_FIXTURE(test_npy_half),
      WITH_FIXTURE(test_npy_versions_and_orders),
      WITH_FIXTURE(test_npy_blocks),
      WITH_FIXTURE(test_npy_refused),
      WITH_FIXTURE(test_npy_promises),
      WITH_FIXTURE(test_npy_packed),
      WITH_FIXTURE(test_idx_types),
      WITH_FIXTURE(test_idx_refused),
      WITH_FIXTURE(test_gzip),
      WITH_FIXTURE(test_other_files),
      WITH_FIXTURE(test_inputs),
      WITH_FIXTURE(test_requests),
      WITH_FIXTURE(test_existing_output),
      WITH_FIXTURE(test_summary),
      WITH_FIXTURE(test_full_disk),
  };
  return cmocka_run_group_tests_name("import", tests, NULL, NULL);
}
