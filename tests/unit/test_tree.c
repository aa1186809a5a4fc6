/* The tree: reading YAML with places and caps, refusing what it must, finding, visiting, printing
 * so that it reads back equal. */
#include "scratch.h"

#include <sys/stat.h>

#include "config/tree.h"

static lks_status parse(const char *text, lks_arena *arena, lks_node **root, lks_error *err) {
  return lks_tree_parse(text, strlen(text), "t.yaml", "/base", arena, root, err);
}

/* The text is refused; the whole line is this. */
static void refuse(const char *text, size_t length, const char *expected) {
  lks_arena arena = {0};
  lks_node *root = NULL;
  lks_error err;
  char line[2048];
  lks_error_clear(&err);
  assert_int_equal(lks_tree_parse(text, length, "t.yaml", NULL, &arena, &root, &err), LKS_CONFIG);
  lks_error_line(&err, line, sizeof line);
  assert_string_equal(line, expected);
  lks_arena_free(&arena);
}

static void refuse_text(const char *text, const char *expected) {
  refuse(text, strlen(text), expected);
}

static void nodes_have_places(void **state) {
  (void)state;
  lks_arena arena = {0};
  lks_node *root = NULL;
  lks_error err;
  assert_ok(parse("a: 1\nb:\n  - x\n  - {c: \"2\"}\n", &arena, &root, &err));
  assert_int_equal(root->kind, LKS_NODE_MAP);
  assert_int_equal(root->line, 1);
  const lks_node *a = lks_node_child(root, "a");
  assert_string_equal(a->text, "1");
  assert_false(a->quoted);
  const lks_node *b = lks_node_child(root, "b");
  assert_int_equal(b->line, 2);
  assert_int_equal(b->column, 1);
  assert_int_equal(lks_node_count(b), 2);
  assert_int_equal(lks_node_item(b, 0)->line, 3);
  assert_int_equal(lks_node_item(b, 0)->column, 5);
  const lks_node *c = lks_node_child(lks_node_item(b, 1), "c");
  assert_true(c->quoted);
  assert_int_equal(c->line, 4);
  assert_int_equal(c->column, 6);
  assert_string_equal(c->origin, "t.yaml");
  assert_string_equal(c->folder, "/base");
  assert_null(lks_node_item(b, 2));
  assert_null(lks_node_item(b, -1));
  assert_null(lks_node_item(root, 0));
  assert_null(lks_node_child(b, "x"));
  assert_null(lks_node_child(root, "bb"));
  assert_null(lks_node_child(NULL, "a"));
  assert_int_equal(lks_node_count(NULL), 0);
  lks_arena_free(&arena);
}

static void finds_by_dotted_name(void **state) {
  (void)state;
  lks_arena arena = {0};
  lks_node *root = NULL;
  lks_error err;
  assert_ok(parse("data: {train: {file: f}}\n"
                  "model:\n"
                  "  - dense: {units: 8}\n"
                  "  - activation: {activation: relu}\n"
                  "  - flat\n",
                  &arena, &root, &err));
  assert_ptr_equal(lks_node_find(root, ""), root);
  assert_string_equal(lks_node_find(root, "data.train.file")->text, "f");
  assert_string_equal(lks_node_find(root, "model.0.units")->text, "8");
  assert_string_equal(lks_node_find(root, "model.0.dense.units")->text, "8");
  assert_string_equal(lks_node_find(root, "model.1.activation")->text, "relu");
  assert_string_equal(lks_node_find(root, "model.2.units")->text, "flat");
  const lks_node *model = lks_node_child(root, "model");
  assert_ptr_equal(lks_node_find(root, "model.7.units"), model);
  assert_ptr_equal(lks_node_find(root, "model.x"), model);
  assert_ptr_equal(lks_node_find(root, "model.99999999999999999999"), model);
  assert_ptr_equal(lks_node_find(root, "train.file"), root);
  assert_string_equal(lks_node_find(root, "data.train.file.more")->text, "f");
  assert_string_equal(lks_node_find(root, "data.trian")->key, "data");
  assert_string_equal(lks_node_find(root, "data.file")->key, "data"); /* no list, no layer */
  lks_arena_free(&arena);
}

static void refuses_with_place(void **state) {
  (void)state;
  refuse_text("a: 1\nb:\n  c: 1\n  c: 2\n",
              "t.yaml:4:3: b.c: repeated key; it stands in line 3 already: remove one");
  refuse_text("a: &x 1\n", "t.yaml:1:4: a: anchors (&x) are not allowed; write the values out");
  refuse_text("a: &x [1]\n", "t.yaml:1:4: a: anchors (&x) are not allowed; write the values out");
  refuse_text("a: [1, *x]\n", "t.yaml:1:8: a.1: aliases (*x) are not allowed; write the value out, "
                              "or put quotes around a text");
  refuse_text("a: !!int 1\n", "t.yaml:1:4: a: tags (tag:yaml.org,2002:int) are not allowed; remove "
                              "it, or put quotes around a text");
  refuse_text("a: !x {b: 1}\n",
              "t.yaml:1:4: a: tags (!x) are not allowed; remove it, or put quotes around a text");
  refuse_text("a: 1\n---\nb: 1\n", "t.yaml:2:1: a second document; keep one document a file");
  refuse_text("", "t.yaml: empty; write the configuration into it, or give another file");
  refuse_text("# words\n", "t.yaml: empty; write the configuration into it, or give another file");
  refuse_text("---\n", "t.yaml: empty; write the configuration into it, or give another file");
  refuse_text("- a\n", "t.yaml:1:1: expects a mapping of keys, got a list; begin with a line such "
                       "as 'data:'");
  refuse_text("word\n", "t.yaml:1:1: expects a mapping of keys, got a text; begin with a line such "
                        "as 'data:'");
  refuse_text("a:\n  ? [x]\n  : 1\n", "t.yaml:2:5: a: a key is a text, not a list; write 'key: "
                                      "value'");
  refuse_text("{a: 1, {b: 1}: 2}\n",
              "t.yaml:1:8: a key is a text, not a mapping; write 'key: value'");
  refuse_text("a: {'': 1}\n",
              "t.yaml:1:5: a: a key has 1 to 128 characters, this one 0; name the key");
  refuse_text("a: \"x\\0y\"\n", "t.yaml:1:4: a: a text with a NUL character; remove it");
}

static void refuses_bad_syntax(void **state) {
  (void)state;
  refuse_text("a: [1, 2\nb: 3\n", "t.yaml:2:2: while parsing a flow sequence: did not find "
                                  "expected ',' or ']'; correct the YAML there");
  refuse_text("a:\n\tb: 1\n", "t.yaml:2:1: while scanning for the next token: found character that "
                              "cannot start any token; indent with spaces, not with tabs");
  refuse_text("a: @x\n", "t.yaml:1:4: while scanning for the next token: found character that "
                         "cannot start any token; correct the YAML there");
  refuse_text("a: 1\nb: x\xff\n", "t.yaml:2:5: not text: invalid leading UTF-8 octet; save the "
                                  "file as UTF-8 text");
  refuse("a: \0b\n", 6,
         "t.yaml:1:4: not text: control characters are not allowed; save the file as UTF-8 text");
}

/* A text of `count` copies of piece between head and tail; free() it. */
static char *repeat(const char *head, const char *piece, int count, const char *tail) {
  lks_text out = {0};
  lks_text_add(&out, "%s", head);
  for (int i = 0; i < count; ++i) {
    lks_text_add(&out, "%s", piece);
  }
  lks_text_add(&out, "%s", tail);
  assert_false(out.failed);
  return out.data;
}

static void caps_hold_to_the_unit(void **state) {
  (void)state;
  lks_arena arena = {0};
  lks_node *root = NULL;
  lks_error err;
  char *text = repeat("a: ", "[", LKS_TREE_MAX_DEPTH - 1, "");
  char *closed = repeat(text, "]", LKS_TREE_MAX_DEPTH - 1, "");
  assert_ok(parse(closed, &arena, &root, &err));
  free(text);
  free(closed);
  text = repeat("a: ", "[", LKS_TREE_MAX_DEPTH, "]");
  assert_fails(parse(text, &arena, &root, &err), LKS_CONFIG, "t.yaml:1:19: a.0.0",
               "nested deeper than 16 levels");
  free(text);

  text = repeat("a: [", "1,", LKS_TREE_MAX_NODES - 2, "]"); /* the mapping and the list count */
  assert_ok(parse(text, &arena, &root, &err));
  free(text);
  text = repeat("a: [", "1,", LKS_TREE_MAX_NODES - 1, "]");
  assert_fails(parse(text, &arena, &root, &err), LKS_CONFIG, "more than 100000 values");
  free(text);

  text = repeat("a: ", "x", LKS_TREE_MAX_BYTES - 3, "");
  assert_ok(parse(text, &arena, &root, &err));
  free(text);
  text = repeat("a: ", "x", LKS_TREE_MAX_BYTES - 2, "");
  assert_fails(parse(text, &arena, &root, &err), LKS_CONFIG, "t.yaml: larger than 1048576 bytes");
  free(text);

  text = repeat("", "k", LKS_TREE_MAX_KEY, ": 1");
  assert_ok(parse(text, &arena, &root, &err));
  free(text);
  text = repeat("", "k", LKS_TREE_MAX_KEY + 1, ": 1");
  assert_fails(parse(text, &arena, &root, &err), LKS_CONFIG, "1 to 128 characters, this one 129");
  free(text);

  lks_text many = {0};
  for (int i = 0; i < LKS_TREE_MAX_KEYS; ++i) {
    lks_text_add(&many, "k%d: 1\n", i);
  }
  assert_ok(parse(many.data, &arena, &root, &err));
  lks_text_add(&many, "more: 1\n");
  assert_fails(parse(many.data, &arena, &root, &err), LKS_CONFIG, "t.yaml:1001:1: more",
               "more than 1000 keys in one mapping");
  lks_text_free(&many);
  lks_arena_free(&arena);
}

static void environment_is_expanded(void **state) {
  (void)state;
  lks_arena arena = {0};
  lks_node *root = NULL;
  lks_error err;
  assert_int_equal(setenv("LKS_TEST_NAME", "value", 1), 0);
  assert_int_equal(setenv("LKS_TEST_EMPTY", "", 1), 0);
  assert_int_equal(setenv("LKS_TEST_BYTES", "\xff", 1), 0);
  assert_int_equal(unsetenv("LKS_TEST_UNSET"), 0);
  assert_ok(parse("a: x/${LKS_TEST_NAME}/y\nb: '${LKS_TEST_NAME}${LKS_TEST_EMPTY}'\n"
                  "c: $${LKS_TEST_NAME}\nd: $HOME $$\n",
                  &arena, &root, &err));
  assert_string_equal(lks_node_child(root, "a")->text, "x/value/y");
  assert_string_equal(lks_node_child(root, "b")->text, "value");
  assert_true(lks_node_child(root, "b")->quoted);
  assert_string_equal(lks_node_child(root, "c")->text, "${LKS_TEST_NAME}");
  assert_string_equal(lks_node_child(root, "d")->text, "$HOME $$");
  refuse_text("a:\n  b: ${LKS_TEST_UNSET}\n",
              "t.yaml:2:6: a.b: the environment variable LKS_TEST_UNSET is not set; set it, or "
              "write $${ for the characters ${ themselves");
  refuse_text("a: ['${1X}']\n",
              "t.yaml:1:5: a.0: '${' is not followed by a variable's name and '}'; write ${NAME}, "
              "or $${ for the characters ${ themselves");
  refuse_text("a: '${LKS_TEST_NAME'\n",
              "t.yaml:1:4: a: '${' is not followed by a variable's name and '}'; write ${NAME}, or "
              "$${ for the characters ${ themselves");
  refuse_text("a: ${LKS_TEST_BYTES}\n", "t.yaml:1:4: a: the environment variable LKS_TEST_BYTES is "
                                        "not UTF-8; set it to UTF-8 text");
  char *big = repeat("", "v", 60000, "");
  assert_int_equal(setenv("LKS_TEST_BIG", big, 1), 0);
  char *text = repeat("a: ", "${LKS_TEST_BIG}", 18, "");
  assert_fails(parse(text, &arena, &root, &err), LKS_CONFIG, "t.yaml:1:4: a: the texts are larger");
  assert_int_equal(unsetenv("LKS_TEST_BIG"), 0);
  free(text);
  free(big);
  lks_arena_free(&arena);
}

static void files_are_read(void **state) {
  scratch *at = *state;
  lks_arena arena = {0};
  lks_node *root = NULL;
  lks_error err;
  const char *path = scratch_path(at, "good.yaml");
  scratch_write(path, "a: 1\n", 5);
  assert_ok(lks_tree_read(path, &arena, &root, &err));
  assert_string_equal(root->origin, path);
  assert_string_equal(root->folder, at->folder);
  assert_fails(lks_tree_read(scratch_path(at, "none.yaml"), &arena, &root, &err), LKS_CONFIG,
               "none.yaml: no such file");
  assert_string_equal(err.remedy, "check the name");
  assert_fails(lks_tree_read(at->folder, &arena, &root, &err), LKS_CONFIG, ": is a folder");
  assert_fails(lks_tree_read(scratch_path(at, "good.yaml/x"), &arena, &root, &err), LKS_CONFIG,
               "cannot be opened (Not a directory)");
  path = scratch_path(at, "empty.yaml");
  scratch_write(path, "", 0);
  assert_fails(lks_tree_read(path, &arena, &root, &err), LKS_CONFIG, "empty.yaml: empty");
  char *big = repeat("#", "x", LKS_TREE_MAX_BYTES, "\n");
  path = scratch_path(at, "big.yaml");
  scratch_write(path, big, strlen(big));
  assert_fails(lks_tree_read(path, &arena, &root, &err), LKS_CONFIG, "larger than 1048576 bytes");
  free(big);
  lks_arena_free(&arena);
}

/* ---- printing */

static void assert_equal_trees(const lks_node *a, const lks_node *b) {
  assert_int_equal(a->kind, b->kind);
  if (a->key != NULL || b->key != NULL) {
    assert_string_equal(a->key, b->key);
  }
  if (a->kind == LKS_NODE_SCALAR) {
    assert_string_equal(a->text, b->text);
    return;
  }
  assert_int_equal(lks_node_count(a), lks_node_count(b));
  for (a = a->first, b = b->first; a != NULL; a = a->next, b = b->next) {
    assert_equal_trees(a, b);
  }
}

static char *printed(const lks_node *root) {
  lks_text out = {0};
  lks_tree_print(root, &out);
  assert_false(out.failed);
  return out.data;
}

static void prints_block_yaml(void **state) {
  (void)state;
  lks_arena arena = {0};
  lks_node *root = NULL, *again = NULL;
  lks_error err;
  assert_ok(parse("{a: 1, 'b c': [x, [y, []], {k: v, l: {}}, {m: [1]}], d: {e: '5', f: ~, g: }}",
                  &arena, &root, &err));
  char *text = printed(root);
  assert_string_equal(text, "a: 1\n"
                            "\"b c\":\n"
                            "  - x\n"
                            "  - - y\n"
                            "    - []\n"
                            "  - k: v\n"
                            "    l: {}\n"
                            "  - m:\n"
                            "      - 1\n"
                            "d:\n"
                            "  e: \"5\"\n"
                            "  f: ~\n"
                            "  g: \n");
  assert_ok(parse(text, &arena, &again, &err));
  assert_equal_trees(root, again);
  free(text);
  text = printed(lks_node_new(&arena, LKS_NODE_MAP, NULL, NULL, NULL));
  assert_string_equal(text, "{}\n");
  free(text);
  text = printed(lks_node_new(&arena, LKS_NODE_LIST, NULL, NULL, NULL));
  assert_string_equal(text, "[]\n");
  free(text);
  text = printed(lks_node_new(&arena, LKS_NODE_SCALAR, NULL, "word", NULL));
  assert_string_equal(text, "word\n");
  free(text);
  lks_arena_free(&arena);
}

/* Texts keep every character, and stay texts: what is printed plain is no other YAML type. */
static void texts_read_back(void **state) {
  (void)state;
  static const struct {
    const char *text;
    const char *shown; /* NULL: only the way back counts */
  } cases[] = {
      {"relu", "relu"},
      {"/data/x_1.h5", "/data/x_1.h5"},
      {"", "\"\""},
      {"5", "\"5\""},
      {"1e-3", "\"1e-3\""},
      {".inf", "\".inf\""},
      {"+1", "\"+1\""},
      {"0x1F", "\"0x1F\""},
      {"2026-11-24", "\"2026-11-24\""},
      {"null", "\"null\""},
      {"~", "\"~\""},
      {"True", "\"True\""},
      {"off", "\"off\""},
      {"n", "\"n\""},
      {"gpu:1", "\"gpu:1\""},
      {"- x", "\"- x\""},
      {" x ", "\" x \""},
      {"a #b", "\"a #b\""},
      {"say \"hi\"\\", "\"say \\\"hi\\\"\\\\\""},
      {"two\nlines\tand\rmore\x01\x7f", "\"two\\nlines\\tand\\x0dmore\\x01\\x7f\""},
      {"gr\xc3\xb6\xc3\x9f"
       "e \xf0\x9f\x98\x80",
       NULL},
      {"\xc2\x80\xc2\x85\xc2\xa0", "\"\\x80\\x85\xc2\xa0\""},
      {"\xe2\x80\xa8\xe2\x80\xa9\xef\xbb\xbf\xef\xbf\xbe", "\"\\u2028\\u2029\\ufeff\\ufffe\""},
      {"${HOME}", "\"$${HOME}\""},
      {"$${x} $$${ $", "\"$$${x} $$$${ $\""},
      {"*x", NULL},
      {"&x", NULL},
      {"!x", NULL},
      {"%x", NULL},
      {"@x", NULL},
      {"{x", NULL},
      {"]", NULL},
      {"---", NULL},
      {"...", NULL},
      {"?", NULL},
      {"-", NULL},
      {"=", NULL},
      {"<<", NULL},
  };
  lks_arena arena = {0};
  lks_error err;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    lks_node *root = lks_node_new(&arena, LKS_NODE_MAP, NULL, NULL, NULL);
    lks_node *list = lks_node_new(&arena, LKS_NODE_LIST, "k", NULL, NULL);
    lks_node *text = lks_node_new(&arena, LKS_NODE_SCALAR, NULL, cases[i].text, NULL);
    assert_true(root != NULL && list != NULL && text != NULL);
    text->quoted = true;
    lks_node_append(root, list);
    lks_node_append(list, text);
    char *shown = printed(root);
    if (cases[i].shown != NULL) {
      assert_memory_equal(shown, "k:\n  - ", 7);
      shown[strlen(shown) - 1] = '\0';
      assert_string_equal(shown + 7, cases[i].shown);
    }
    lks_node *again = NULL;
    assert_ok(parse(shown, &arena, &again, &err));
    assert_equal_trees(root, again);
    free(shown);
  }
  lks_arena_free(&arena);
}

/* What is not valid UTF-8 can't be YAML: it is printed as it is, and refused when read. */
static void bad_utf8_is_not_hidden(void **state) {
  (void)state;
  static const char *const bad[] = {"\xff", "\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80"};
  lks_arena arena = {0};
  lks_error err;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    lks_node *root = lks_node_new(&arena, LKS_NODE_MAP, NULL, NULL, NULL);
    lks_node *text = lks_node_new(&arena, LKS_NODE_SCALAR, "k", bad[i], NULL);
    assert_true(root != NULL && text != NULL);
    lks_node_append(root, text);
    char *shown = printed(root);
    assert_non_null(strstr(shown, bad[i]));
    lks_node *again = NULL;
    assert_fails(parse(shown, &arena, &again, &err), LKS_CONFIG, "t.yaml:1:", "not text");
    free(shown);
  }
  lks_arena_free(&arena);
}

static void note_visit(const char *name, const char *text, void *user) {
  lks_text_add(user, "%s=%s ", name, text);
}

static void visits_in_order(void **state) {
  (void)state;
  lks_arena arena = {0};
  lks_node *root = NULL;
  lks_error err;
  lks_text seen = {0};
  assert_ok(parse("{b: 1, a: {c: [], d: [x, {e: f}]}, g: {}}", &arena, &root, &err));
  lks_tree_visit(root, note_visit, &seen);
  assert_string_equal(seen.data, "b=1 a.c=[] a.d.0=x a.d.1.e=f g={} ");
  lks_text_free(&seen);
  lks_arena_free(&arena);
}

static void fails_at_a_place(void **state) {
  (void)state;
  lks_error err;
  const lks_node file = {.origin = "f.yaml", .line = 3, .column = 4};
  const lks_node command = {.origin = "command line"};
  const lks_node nowhere = {.line = 0};
  assert_int_equal(lks_node_fail(&file, "a.b", &err, "fix it", "is %d", 5), LKS_CONFIG);
  assert_string_equal(err.what, "f.yaml:3:4: a.b: is 5");
  assert_string_equal(err.remedy, "fix it");
  assert_int_equal(lks_node_fail(&command, "a", &err, NULL, "bad"), LKS_CONFIG);
  assert_string_equal(err.what, "command line: a: bad");
  assert_int_equal(lks_node_fail(&nowhere, "a", &err, NULL, "bad"), LKS_CONFIG);
  assert_string_equal(err.what, "a: bad");
  assert_int_equal(lks_node_fail(NULL, NULL, &err, NULL, "bad"), LKS_CONFIG);
  assert_string_equal(err.what, "bad");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(nodes_have_places),     cmocka_unit_test(finds_by_dotted_name),
      cmocka_unit_test(refuses_with_place),    cmocka_unit_test(refuses_bad_syntax),
      cmocka_unit_test(caps_hold_to_the_unit), cmocka_unit_test(environment_is_expanded),
      cmocka_unit_test(files_are_read),        cmocka_unit_test(prints_block_yaml),
      cmocka_unit_test(texts_read_back),       cmocka_unit_test(bad_utf8_is_not_hidden),
      cmocka_unit_test(visits_in_order),       cmocka_unit_test(fails_at_a_place),
  };
  return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
