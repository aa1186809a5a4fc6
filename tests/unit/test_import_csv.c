/* Import of CSV: records, headers, columns, types, class names, and each way a file can be wrong.
 */
#include "import_fixture.h"

#include <hdf5.h>

#include "data/import_parts.h"

#define SHAPE(...) ((const int64_t[]){__VA_ARGS__})
#define VALUES(...) ((const double[]){__VA_ARGS__})
#define NAMES(...)                                                                                 \
  {                                                                                                \
    .items = (const char *[]){__VA_ARGS__},                                                        \
    .count = (int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(const char *))                   \
  }

/* The texts of an attribute, joined by '|'. */
static void check_texts(fixture *f, const char *dataset, const char *key, const char *expected) {
  char joined[256] = "";
  char *texts[16];
  const hid_t file = H5Fopen(f->output, H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t attribute = H5Aopen_by_name(file, dataset, key, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(file >= 0 && attribute >= 0);
  const hid_t space = H5Aget_space(attribute), type = H5Aget_type(attribute);
  const hssize_t count = H5Sget_simple_extent_npoints(space);
  assert_in_range(count, 1, 16);
  assert_true(H5Aread(attribute, type, texts) >= 0);
  for (hssize_t i = 0; i < count; ++i) {
    snprintf(joined + strlen(joined), sizeof joined - strlen(joined), "%s%s", i > 0 ? "|" : "",
             texts[i]);
  }
  H5Dvlen_reclaim(type, space, H5P_DEFAULT, texts);
  H5Tclose(type);
  H5Sclose(space);
  H5Aclose(attribute);
  H5Fclose(file);
  assert_string_equal(joined, expected);
}

static void check_no_attribute(fixture *f, const char *dataset, const char *key) {
  lks_h5 *file = NULL;
  lks_arena arena = {0};
  char *text = NULL;
  assert_int_equal(lks_h5_open(f->output, &file, &f->err), LKS_OK);
  assert_int_equal(lks_h5_attr_read_text(file, dataset, key, &arena, &text, &f->err), LKS_OK);
  assert_null(text);
  assert_int_equal(lks_h5_close(&file, &f->err), LKS_OK);
  lks_arena_free(&arena);
}

/* Converts text with the request and expects one dataset `a` of uint8 [2, 2]: 2 1 3 4. */
static void same(fixture *f, const char *text) {
  const lks_import_request again = {.overwrite = true};
  must(f, convert_one(f, &again, put_text(f, "a.csv", text)));
  check_dataset(f, "a", "uint8", 2, SHAPE(2, 2), VALUES(2, 1, 3, 4));
}

static void wrong(fixture *f, const lks_import_request *options, const char *text, const char *what,
                  const char *remedy) {
  refuse(f, options, put_text(f, "a.csv", text), LKS_DATA, what, remedy);
}

static void test_records(void **state) {
  fixture *f = *state;
  same(f, "2,1\n3,4\n");
  same(f, "2,1\n3,4");
  same(f, "2,1\r\n3,4\r\n\r\n\n");
  same(f, "2,1\r3,4\r");
  same(f, "\xEF\xBB\xBF"
          "2,1\n3,4\n");
  same(f, "\"2\",\"1\"\n\"3\",4\n");
  same(f, " 2 ,\t1\n3 , 4\n");
  same(f, " \"2\", \"1\"\t\n\"3\" ,  \"4\"  ");
  same(f, "2.0,1e0\n+3,4.\n");
  check_no_attribute(f, "a", "columns");
}

static void test_header(void **state) {
  fixture *f = *state;
  same(f, "p,\"q, \"\"r\"\"\ns\"\n2,1\n3,4\n");
  check_texts(f, "a", "columns", "p|q, \"r\"\ns");
  same(f, "0,name\n2,1\n3,4\n");
  check_texts(f, "a", "columns", "0|name");
  const lks_import_request yes = {.overwrite = true, .header = LKS_IMPORT_HEADER_YES};
  must(f, convert_one(f, &yes, put_text(f, "a.csv", "9,8\n1,2\n3,4\n")));
  check_dataset(f, "a", "uint8", 2, SHAPE(2, 2), VALUES(1, 2, 3, 4));
  check_texts(f, "a", "columns", "9|8");
}

/* Numbers that name columns, and rows in which something is missing. */
static void test_header_asked(void **state) {
  fixture *f = *state;
  static const char *const asked[] = {
      "0,1\n5,6\n",         "0,1,2\n0.1,0.2,0.3\n", "0, 1,\"2\"\n4,5,6\n", "0,1\n",
      "3.2,-,5.1\n4,5,6\n", "-1,-\n4,5\n",          "x,1e3\n4,5\n",        "3.2,-\n",
      "0,-,1.5\n1,2,3\n"};
  for (size_t i = 0; i < sizeof asked / sizeof asked[0]; ++i) {
    wrong(f, NULL, asked[i], "a.csv:1: cannot tell whether", "say --header yes or --header no");
  }
  static const char *const rows[] = {"0\n1\n",     "1,2\n3,4\n",     "2,3\n4,5\n", "0,2\n4,5\n",
                                     "0,0\n4,5\n", "0.0,1.0\n4,5\n", "1,0\n4,5\n"};
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; ++i) {
    must(f, convert_one(f, NULL, put_text(f, "a.csv", rows[i])));
    check_no_attribute(f, "a", "columns");
    sweep(f->out, true);
  }
  lks_import_request options = {.overwrite = true, .header = LKS_IMPORT_HEADER_YES};
  must(f, convert_one(f, &options, put_text(f, "a.csv", "0,1\n5,6\n7,8\n")));
  check_dataset(f, "a", "uint8", 2, SHAPE(2, 2), VALUES(5, 6, 7, 8));
  check_texts(f, "a", "columns", "0|1");
  options.header = LKS_IMPORT_HEADER_NO;
  must(f, convert_one(f, &options, put_text(f, "a.csv", "0,1\n5,6\n")));
  check_dataset(f, "a", "uint8", 2, SHAPE(2, 2), VALUES(0, 1, 5, 6));
}

static void test_header_refused(void **state) {
  fixture *f = *state;
  wrong(f, NULL, "5.1,setosa\n4.9,setosa\n", "a.csv:1: cannot tell whether", "--header yes");
  wrong(f, NULL, "a,b\nc,d\n", "a.csv:1: cannot tell whether", "--header no");
  wrong(f, NULL, "a,b\n", "no rows, only a line of names", "made");
  wrong(f, NULL, "\n\n", "no rows", "made");
  wrong(f, NULL, "a,\xe9t\xe9\n1,2\n", "the name of column 2 is not UTF-8", "iconv");
  const lks_import_request no = {.header = LKS_IMPORT_HEADER_NO};
  wrong(f, &no, "a,b\n1,2\n", "a.csv:1: column 1: 'a' is not a number", "--features");
}

static void test_types(void **state) {
  fixture *f = *state;
  const lks_import_request again = {.overwrite = true};
  const struct {
    const char *text, *type;
    double values[2];
  } cases[] = {
      {"0\n255\n", "uint8", {0, 255}},
      {"0\n256\n", "int32", {0, 256}},
      {"-1\n0\n", "int32", {-1, 0}},
      {"-2147483648\n2147483647\n", "int32", {-2147483648.0, 2147483647.0}},
      {"2147483648\n1\n", "float64", {2147483648.0, 1}},
      {"0.1\n1\n", "float64", {0.1, 1}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    must(f, convert_one(f, &again, put_text(f, "a.csv", cases[i].text)));
    check_dataset(f, "a", cases[i].type, 1, SHAPE(2), cases[i].values);
  }
}

static void test_columns(void **state) {
  fixture *f = *state;
  const char *path = put_text(f, "a.csv", "p;q;2;s\n1;2;0.5;3\n4;5;6;7\n");
  lks_import_request options = {
      .delimiter = ';', .overwrite = true, .features = NAMES("s", "1"), .targets = NAMES("2")};
  must(f, convert_one(f, &options, path));
  check_dataset(f, "x", "uint8", 2, SHAPE(2, 2), VALUES(3, 1, 7, 4));
  check_dataset(f, "y", "float64", 1, SHAPE(2), VALUES(0.5, 6)); /* the name, not the number */
  check_texts(f, "x", "columns", "s|p");
  options.features.count = 0;
  options.targets = (lks_texts)NAMES("q", "p");
  must(f, convert_one(f, &options, path));
  check_dataset(f, "x", "float64", 2, SHAPE(2, 2), VALUES(0.5, 3, 6, 7)); /* the others */
  check_dataset(f, "y", "uint8", 2, SHAPE(2, 2), VALUES(2, 1, 5, 4));
  options = (lks_import_request){.delimiter = ';', .overwrite = true, .features = NAMES("q")};
  must(f, convert_one(f, &options, path));
  check_dataset(f, "x", "uint8", 1, SHAPE(2), VALUES(2, 5));
}

static void test_columns_refused(void **state) {
  fixture *f = *state;
  const char *path = put_text(f, "a.csv", "p,q,q\n1,2,3\n");
  const struct {
    lks_texts features, targets;
    const char *what, *remedy;
  } cases[] = {
      {NAMES("r"), {0}, "no column 'r' (has p, q, q)", "column names, or numbers"},
      {NAMES("0"), {0}, "no column '0'", "from 1"},
      {{0}, NAMES("4"), "no column '4'", "from 1"},
      {NAMES("q"), {0}, "columns 2 and 3 are both 'q'", "its number"},
      {NAMES("p"), NAMES("1"), "column 'p' is chosen twice", "once"},
      {NAMES("2", "2"), {0}, "column '2' is chosen twice", "once"},
      {{0}, NAMES("1", "2", "3"), "every column is a target", "leave columns"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    const lks_import_request options = {.features = cases[i].features, .targets = cases[i].targets};
    refuse(f, &options, path, LKS_USAGE, cases[i].what, cases[i].remedy);
  }
  const lks_import_request options = {.features = NAMES("z")};
  refuse(f, &options, put_text(f, "a.csv", "2,1\n"), LKS_USAGE,
         "no column 'z' (has columns 1 to 2, without a header)", "numbers");
  refuse(f, &options, put_text(f, "a.csv", "a,b,c,d,e,f,g,h,i,j,k,l,m\n1,2,3,4,5,6,7,8,9,0,1,2,3"),
         LKS_USAGE, "k, l, ... 13 in all)", "numbers");
}

static void test_classes(void **state) {
  fixture *f = *state;
  const lks_import_request options = {.targets = NAMES("kind")};
  char train[600], test[600];
  snprintf(train, sizeof train, "train=%s",
           put_text(f, "a.csv", "size,kind\n1,dog\n2, cat \n3,dog\n"));
  snprintf(test, sizeof test, "test=%s", put_text(f, "b.csv", "size,kind\n4,\"cow, wild\"\n5,dog"));
  must(f, convert_all(f, &options, (const char *[]){train, test}, 2));
  check_dataset(f, "x_train", "uint8", 1, SHAPE(3), VALUES(1, 2, 3));
  check_dataset(f, "y_train", "uint8", 1, SHAPE(3), VALUES(2, 0, 2));
  check_dataset(f, "x_test", "uint8", 1, SHAPE(2), VALUES(4, 5));
  check_dataset(f, "y_test", "uint8", 1, SHAPE(2), VALUES(1, 2));
  check_texts(f, "y_train", "classes", "cat|cow, wild|dog");
  check_texts(f, "y_test", "classes", "cat|cow, wild|dog");
  check_no_attribute(f, "x_train", "classes");
}

/* A name is the same with blanks beside its quotes, unless they are what separates columns. */
static void test_quoted_classes(void **state) {
  fixture *f = *state;
  lks_import_request options = {.overwrite = true, .targets = NAMES("k")};
  const char *path = put_text(f, "a.csv", "a, \"k\"\n1,x\n2, \"x\"\n3,\"x\" \n4,\t\"y, z\" \r\n");
  must(f, convert_one(f, &options, path));
  check_texts(f, "y", "classes", "x|y, z");
  check_dataset(f, "y", "uint8", 1, SHAPE(4), VALUES(0, 0, 0, 1));
  options.delimiter = '\t';
  must(f, convert_one(f, &options, put_text(f, "a.csv", "a\tb\tk\n1\t2\t\"x\"\n3\t4\t \"y\"\n")));
  check_dataset(f, "x", "uint8", 2, SHAPE(2, 2), VALUES(1, 2, 3, 4));
  check_texts(f, "y", "classes", "x|y");
  sweep(f->out, true);
  wrong(f, &options, "a\tb\tk\n1\t\t\"x\"\n", "a.csv:2: column 2 ('b'): missing value",
        "fill it in");
}

/* Files whose columns are named, but not in one order. */
static void test_column_order(void **state) {
  fixture *f = *state;
  const char *abc = "a,b,c\n1,20,0\n", *bac = "b,a,c\n20,1,0\n", *cab = "c,a,b\n0,1,20\n";
  const char *more = "c,id,a,b\n0,7,1,20\n", *first = "column 1 is 'b', where ";
  const char *blanks = "a b,c d,e\n1,20,0\n", *turned = "c d,a b,e\n20,1,0\n";
  const struct {
    const char *a, *b;
    lks_texts features, targets;
    const char *what, *remedy; /* NULL: converted */
  } cases[] = {
      {abc, bac, NAMES("a", "b"), NAMES("c"), NULL, NULL},
      {abc, bac, {0}, NAMES("c"), first, "by name: --features a,b"},
      {abc, bac, {0}, {0}, "a.csv has 'a': the columns are in another", "--features a,b,c"},
      {abc, bac, NAMES("1", "2"), NAMES("3"), first, "by name: --features a,b"},
      {abc, bac, {0}, NAMES("1"), first, "with --features and --targets"},
      {abc, more, {0}, NAMES("c"), "column 2 is 'id', where ", "--features a,b"},
      {blanks, turned, {0}, NAMES("e"), "column 1 is 'c d'", "with --features and --targets"},
      {abc, cab, {0}, NAMES("c"), NULL, NULL},
      {"t,a,b\n1,20,0\n", "p,t\n20,1\n", {0}, {0}, NULL, NULL}, /* inputs and outputs */
      {"t,a\n1,20\n", "p,t\n20,1\n", {0}, {0}, NULL, NULL},
      {abc, "d,e,c\n20,1,0\n", {0}, NAMES("c"), NULL, NULL},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    const lks_import_request options = {.features = cases[i].features, .targets = cases[i].targets};
    char train[600], test[600];
    snprintf(train, sizeof train, "train=%s", put_text(f, "a.csv", cases[i].a));
    snprintf(test, sizeof test, "test=%s", put_text(f, "b.csv", cases[i].b));
    const lks_status st = convert_all(f, &options, (const char *[]){train, test}, 2);
    if (cases[i].what != NULL) {
      check_failed(f, st, LKS_DATA, cases[i].what, cases[i].remedy);
    } else {
      must(f, st);
    }
    if (i == 0) {
      check_dataset(f, "x_train", "uint8", 2, SHAPE(1, 2), VALUES(1, 20));
      check_dataset(f, "x_test", "uint8", 2, SHAPE(1, 2), VALUES(1, 20));
    }
    sweep(f->out, true);
  }
}

/* count lines "1,cNNNN" */
static char *many_classes(int count) {
  char *text = malloc((size_t)count * 12 + 1);
  assert_non_null(text);
  size_t used = 0;
  for (int i = 0; i < count; ++i) {
    used += (size_t)sprintf(text + used, "1,c%05d\n", i * 7919 % count);
  }
  return text;
}

static void test_many_classes(void **state) {
  fixture *f = *state;
  const lks_import_request options = {.header = LKS_IMPORT_HEADER_NO, .targets = NAMES("2")};
  double expected[300];
  char *text = many_classes(4001);
  wrong(f, &options, text, "a.csv:4001: column 2: over 4000 different class names",
        "write class numbers from 0 there, or name another column in --targets");
  free(text);
  text = many_classes(300);
  for (int i = 0; i < 300; ++i) {
    expected[i] = i * 7919 % 300;
  }
  must(f, convert_one(f, &options, put_text(f, "a.csv", text)));
  check_dataset(f, "y", "int32", 1, SHAPE(300), expected);
  free(text);
}

static void test_classes_refused(void **state) {
  fixture *f = *state;
  lks_import_request options = {.header = LKS_IMPORT_HEADER_YES, .targets = NAMES("k")};
  wrong(f, &options, "a,k\n1,x\n2,\n", "a.csv:3: column 2 ('k'): missing value", "fill it in");
  wrong(f, &options, "a,k\n1,x\n2,NA\n", "a.csv:3: column 2 ('k'): missing value", "fill it in");
  wrong(f, &options, "a,k\n1,2\n2,x\n", "a.csv:3: column 2 ('k'): 'x' is not a number",
        "class names alone");
  wrong(f, &options, "a,k\n1,\xff\n", "a.csv:2: column 2: a class name that is not UTF-8", "iconv");
  char train[600], test[600];
  snprintf(train, sizeof train, "train=%s", put_text(f, "a.csv", "a,k\n1,x\n"));
  snprintf(test, sizeof test, "test=%s", put_text(f, "b.csv", "a,k\n1,2\n"));
  check_failed(f, convert_all(f, &options, (const char *[]){train, test}, 2), LKS_DATA,
               "class names in one target, numbers in the other", "both alike");
  options.targets = (lks_texts)NAMES("k", "l");
  wrong(f, &options, "a,k,l\n1,x,2\n", "a.csv:2: column 2 ('k'): 'x' is not a number",
        "the one --targets");
}

/* A sole target is numbers or class names, whatever its first row is. */
static void test_mixed_target(void **state) {
  fixture *f = *state;
  lks_import_request options = {
      .overwrite = true, .header = LKS_IMPORT_HEADER_YES, .delimiter = ';', .targets = NAMES("k")};
  static const char *const texts[] = {"None", "#N/A", "inf"};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; ++i) {
    char text[64], what[128];
    snprintf(text, sizeof text, "k;a\n%s;1\n2;3\n3.5;2\n", texts[i]);
    snprintf(what, sizeof what, "a.csv:2: column 1 ('k'): '%s' is not a number, but line 3 has one",
             texts[i]);
    wrong(f, &options, text, what, "class names alone");
  }
  wrong(f, &options, "a;k\n1;x\n2;y\n3;7\n", "'x' is not a number, but line 4 has one", "alone");
  static const char *const numbers[] = {"2,5",     "-10,25",    "+1.234,5", "1,234.5",
                                        "1,5E+03", "1.234.567", ",5"};
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; ++i) {
    char text[64], what[128];
    snprintf(text, sizeof text, "a;k\n1;%s\n2;%s\n", numbers[i], numbers[i]);
    snprintf(what, sizeof what, "a.csv:2: column 2 ('k'): '%s' is not a number", numbers[i]);
    wrong(f, &options, text, what, "decimal point, or class names with a letter");
  }
  wrong(f, &options, "a;k\n1;None\n2;2,5\n", "a.csv:3: column 2 ('k'): '2,5'", "decimal point");
  wrong(f, &options, "a;k\n1;2\n2;2,5\n", "a.csv:3: column 2 ('k'): '2,5'", "decimal point");
  const char *path = put_text(f, "a.csv", "a;k\n1;3a\n2;b\n3;0-10\n4;1,2 m\n5;-\n6;2+\n7;a,b\n");
  must(f, convert_one(f, &options, path));
  check_texts(f, "y", "classes", "-|0-10|1,2 m|2+|3a|a,b|b");
}

static void test_rows_refused(void **state) {
  fixture *f = *state;
  wrong(f, NULL, "2,1\n3\n", "a.csv:2: 1 column where line 1 has 2", "as many columns");
  wrong(f, NULL, "2,1\n3,4,5\n", "a.csv:2: 3 columns where line 1 has 2", "as many columns");
  wrong(f, NULL, "2,1\n\n3,4\n", "a.csv:2: an empty line before more rows", "remove it");
  wrong(f, NULL, "a,b\n1,\n", "a.csv:2: column 2 ('b'): missing value", "fill it in");
  wrong(f, NULL, "2,1\n3,nan\n", "a.csv:2: column 2: missing value", "fill it in");
  wrong(f, NULL, "2,1\n3,inf\n", "a.csv:2: column 2: 'inf' is not a number", "text");
  wrong(f, NULL, "2,1\n3,1e999\n", "a.csv:2: column 2: '1e999' is not a number", "text");
  wrong(f, NULL, "1;2\n3;4\n", "cannot tell whether", "say --delimiter ';'");
  wrong(f, NULL, "1\n3;4\n", "a.csv:2: column 1: '3;4' is not a number", "say --delimiter ';'");
  wrong(f, NULL, "1\n3\t4\n", "'3 4' is not a number", "say --delimiter '\\t'");
  const lks_import_request semicolon = {.delimiter = ';'};
  wrong(f, &semicolon, "2;1\n3;-4,5\n", "'-4,5' is not a number", "decimal point");
  wrong(f, NULL, "2,1\n\"3,4\n5,6\n", "a.csv:2: column 1: a quote is not closed", "close");
  wrong(f, NULL, "2,1\n3,\"4\"x\n", "a.csv:2: column 2: text after the closing quote", "double");
  wrong(f, NULL, "2,1\n3,\"4\" x\n", "a.csv:2: column 2: text after the closing quote", "double");
  wrong(f, NULL, "2,1\n3,x \"4\"\n", "a.csv:2: column 2: 'x \"4\"' is not a number", "text");
  wrong(f, NULL, "2\n \n", "a.csv:2: column 1: missing value", "fill it in");
  refuse(f, NULL, put_file(f, "a.csv", "2,1,3,4,5\n1\0,2\n", 15), LKS_DATA, "a.csv:2: a zero byte",
         "UTF-8");
  /* A record over several lines counts them all. */
  wrong(f, NULL, "\"a\n\nb\",c\n1,2\n3,x\n", "a.csv:5: column 2 ('c'): 'x'", "text");
}

static void test_long_record(void **state) {
  fixture *f = *state;
  const size_t size = (64u << 20) + 16;
  char *text = malloc(size);
  assert_non_null(text);
  memset(text, 'a', size);
  memcpy(text, "2,1\n\"", 5);
  refuse(f, NULL, put_file(f, "a.csv", text, size), LKS_DATA, "a.csv:2: a record of over 64 MiB",
         "quote");
  free(text);
}

/* Several blocks of rows, gzipped, with a last one that is not full. */
static void test_blocks(void **state) {
  fixture *f = *state;
  enum { ROWS = 140000 };
  double *x = malloc(sizeof(double) * ROWS), *y = malloc(sizeof(double) * ROWS);
  char *text = malloc(ROWS * 32);
  assert_true(x != NULL && y != NULL && text != NULL);
  size_t used = 0, size = 0;
  for (int i = 0; i < ROWS; ++i) {
    x[i] = i * 0.25;
    y[i] = i % 3;
    used += (size_t)sprintf(text + used, "%.2f,%c\n", x[i], "abc"[i % 3]);
  }
  unsigned char *packed = gzip(text, used, &size);
  const lks_import_request options = {.header = LKS_IMPORT_HEADER_NO, .targets = NAMES("2")};
  must(f, convert_one(f, &options, put_file(f, "a.csv.gz", packed, size)));
  check_dataset(f, "x", "float64", 1, SHAPE(ROWS), x);
  check_dataset(f, "y", "uint8", 1, SHAPE(ROWS), y);
  sweep(f->out, true);
  refuse(f, &options, put_file(f, "a.csv.gz", packed, size / 2), LKS_DATA,
         "truncated: its gzip stream", "again");
  free(packed);
  free(text);
  free(y);
  free(x);
}

/* Between the two readings the file becomes another one. */
static void test_changed(void **state) {
  fixture *f = *state;
  static const char *const changes[] = {"a,k\n1,x\n", "a,k\n1,x\n2,y\n3,x\n", "a,k\n1,x\n256,y\n",
                                        "a,k\n1,x\n0.5,y\n", "a,k\n1,x\n2,other\n"};
  for (size_t i = 0; i < sizeof changes / sizeof changes[0]; ++i) {
    lks_arena arena = {0};
    lks_import_table table;
    lks_import_reader reader;
    lks_import_classes *classes = calloc(1, sizeof *classes);
    lks_import_output output = {0};
    const lks_import_request request = {.targets = NAMES("k")};
    const lks_import_input input = {.path = put_text(f, "a.csv", "a,k\n1,x\n2,y\n")};
    assert_non_null(classes);
    must(f, lks_import_reader_open(&reader, input.path, &f->err));
    must(f, lks_import_table_survey(&reader, &request, &input, classes, &table, &arena, &f->err));
    lks_import_reader_close(&reader);
    (void)put_text(f, "a.csv", changes[i]);
    must(f, lks_h5_create(f->output, &output.file, &f->err));
    must(f, lks_import_reader_open(&reader, input.path, &f->err));
    assert_int_equal(lks_import_table_write(&reader, &table, classes, &output, &f->err), LKS_DATA);
    assert_non_null(strstr(f->err.what, "a.csv: changed while it was read"));
    lks_import_reader_close(&reader);
    must(f, lks_h5_close(&output.file, &f->err));
    lks_arena_free(&arena);
    free(classes);
  }
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, make_fixture, drop_fixture)

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_FIXTURE(test_records),         WITH_FIXTURE(test_header),
      WITH_FIXTURE(test_header_asked),    WITH_FIXTURE(test_header_refused),
      WITH_FIXTURE(test_types),           WITH_FIXTURE(test_columns),
      WITH_FIXTURE(test_columns_refused), WITH_FIXTURE(test_quoted_classes),
      WITH_FIXTURE(test_column_order),    WITH_FIXTURE(test_classes),
      WITH_FIXTURE(test_many_classes),    WITH_FIXTURE(test_mixed_target),
      WITH_FIXTURE(test_classes_refused), WITH_FIXTURE(test_rows_refused),
      WITH_FIXTURE(test_long_record),     WITH_FIXTURE(test_blocks),
      WITH_FIXTURE(test_changed),
  };
  return cmocka_run_group_tests_name("import of CSV", tests, NULL, NULL);
}
