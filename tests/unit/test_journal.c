/* log.jsonl: lines appended whole, cut back to a checkpoint, damage dropped. */
#include "scratch.h"

#include <math.h>
#include <sys/stat.h>

#include "train/journal.h"

static lks_error err;

#define START "{\"event\":\"start\",\"ranks\":2}\n"
#define EPOCH_1 "{\"event\":\"epoch\",\"epoch\":1,\"step\":10}\n"
#define EPOCH_2 "{\"event\":\"epoch\",\"epoch\":2,\"step\":20}\n"
#define EPOCH_3 "{\"event\":\"epoch\",\"epoch\":3,\"step\":30}\n"

static void write_event(lks_journal *journal, int step) {
  assert_ok(
      lks_journal_write(journal, json_pack("{s:s, s:i}", "event", "more", "step", step), &err));
}

static void assert_log(scratch *at, const char *expected) {
  size_t bytes = 0;
  char *text = scratch_read(scratch_path(at, "log.jsonl"), &bytes);
  assert_string_equal(text, expected);
  assert_int_equal(bytes, strlen(expected));
  free(text);
}

/* Opens over `before` (NULL: no file), writes a line of step 99, compares. */
static void check_cut(scratch *at, const char *before, int64_t keep_step, int64_t keep_epoch,
                      const char *kept) {
  char expected[1024];
  lks_journal *journal = NULL;
  (void)remove(scratch_path(at, "log.jsonl"));
  if (before != NULL) {
    scratch_write(scratch_path(at, "log.jsonl"), before, strlen(before));
  }
  assert_ok(lks_journal_open(at->folder, keep_step, keep_epoch, &journal, &err));
  assert_log(at, kept);
  write_event(journal, 99);
  lks_journal_close(&journal);
  assert_null(journal);
  (void)snprintf(expected, sizeof expected, "%s{\"event\":\"more\",\"step\":99}\n", kept);
  assert_log(at, expected);
  assert_int_equal(scratch_count(at->folder, ""), 1); /* nothing is left aside */
}

static void check_open(scratch *at, const char *before, int64_t keep_step, const char *kept) {
  check_cut(at, before, keep_step, 1000, kept);
}

static void test_cut(void **state) {
  scratch *at = *state;
  const char *all = START EPOCH_1 EPOCH_2 EPOCH_3;
  check_open(at, NULL, -1, "");
  check_open(at, NULL, 5, "");
  check_open(at, all, -1, "");
  check_open(at, all, 0, START);
  check_open(at, all, 9, START);
  check_open(at, all, 10, START EPOCH_1);
  check_open(at, all, 25, START EPOCH_1 EPOCH_2);
  check_open(at, all, 1000, all);
  check_open(at, "", 10, "");
}

/* A checkpoint of an epoch's last step, from before its validation: the epoch is not done. */
static void test_epoch_not_counted(void **state) {
  scratch *at = *state;
  static const char again[] = "{\"event\":\"start\",\"step\":20,\"epoch\":1}\n";
  static const char stopped[] = "{\"event\":\"end\",\"reason\":\"stopped\",\"step\":20}\n";
  char before[2048], kept[1024];
  (void)snprintf(kept, sizeof kept, "%s%s%s%s", START, EPOCH_1, stopped, again);
  (void)snprintf(before, sizeof before, "%s%s%s", kept, EPOCH_2, EPOCH_3);
  check_cut(at, before, 20, 1, kept);
  (void)snprintf(kept, sizeof kept, "%s%s%s%s%s", START, EPOCH_1, stopped, again, EPOCH_2);
  check_cut(at, before, 20, 2, kept);
}

/* A line the power went out on: cut in the middle, or just before its end. */
static void test_torn_line(void **state) {
  scratch *at = *state;
  static const char last[] = EPOCH_2;
  for (size_t length = 1; length + 1 < sizeof last - 1; ++length) {
    char before[1024];
    (void)snprintf(before, sizeof before, "%s%.*s", START EPOCH_1, (int)length, last);
    check_open(at, before, 1000, START EPOCH_1);
  }
}

/* Whole but for its newline: kept or dropped, but the next line is one of its own. */
static void test_missing_newline(void **state) {
  scratch *at = *state;
  static const char before[] = START "{\"event\":\"epoch\",\"epoch\":1,\"step\":10}";
  lks_journal *journal = NULL;
  size_t bytes = 0;
  scratch_write(scratch_path(at, "log.jsonl"), before, sizeof before - 1);
  assert_ok(lks_journal_open(at->folder, 1000, 1000, &journal, &err));
  write_event(journal, 11);
  lks_journal_close(&journal);
  char *text = scratch_read(scratch_path(at, "log.jsonl"), &bytes);
  for (char *line = text, *end = text; *line != '\0'; line = end + 1) {
    end = strchr(line, '\n');
    assert_non_null(end);
    json_t *object = json_loadb(line, (size_t)(end - line), 0, NULL);
    assert_non_null(object);
    json_decref(object);
  }
  free(text);
}

static void test_foreign_lines(void **state) {
  scratch *at = *state;
  check_open(at, START "hello\n" EPOCH_1 "\n[1, 2\n" EPOCH_2, 1000, START EPOCH_1 EPOCH_2);
}

/* Order and form are as handed over; JSON has no NaN. */
static void test_values(void **state) {
  scratch *at = *state;
  lks_journal *journal = NULL;
  assert_ok(lks_journal_open(at->folder, -1, 0, &journal, &err));
  json_t *object = json_object();
  assert_int_equal(json_object_set_new(object, "z", lks_json_real(0.5)), 0);
  assert_int_equal(json_object_set_new(object, "a", lks_json_real(NAN)), 0);
  assert_int_equal(json_object_set_new(object, "b", lks_json_real(INFINITY)), 0);
  assert_int_equal(json_object_set_new(object, "c", lks_json_real(-INFINITY)), 0);
  assert_int_equal(json_object_set_new(object, "text", json_string("two\nlines")), 0);
  assert_ok(lks_journal_write(journal, object, &err));
  lks_journal_close(&journal);
  assert_log(at, "{\"z\":0.5,\"a\":null,\"b\":null,\"c\":null,\"text\":\"two\\nlines\"}\n");
}

/* Reals read back equal. */
static void test_reals_read_back(void **state) {
  scratch *at = *state;
  static const double values[] = {0.1, 1.0 / 3.0, 1e-300, 123456789.123456789, -0.0};
  lks_journal *journal = NULL;
  size_t bytes = 0;
  assert_ok(lks_journal_open(at->folder, -1, 0, &journal, &err));
  json_t *list = json_array();
  for (size_t i = 0; i < sizeof values / sizeof *values; ++i) {
    assert_int_equal(json_array_append_new(list, lks_json_real(values[i])), 0);
  }
  assert_ok(lks_journal_write(journal, list, &err));
  lks_journal_close(&journal);
  char *text = scratch_read(scratch_path(at, "log.jsonl"), &bytes);
  json_t *read = json_loads(text, 0, NULL);
  assert_non_null(read);
  for (size_t i = 0; i < sizeof values / sizeof *values; ++i) {
    assert_true(json_real_value(json_array_get(read, i)) == values[i]);
  }
  json_decref(read);
  free(text);
}

static lks_status write_beyond(void *user, lks_error *error) {
  lks_status st = LKS_OK;
  lks_journal *journal = NULL;
  scratch_limit_files(64);
  st = lks_journal_open(((const scratch *)user)->folder, -1, 0, &journal, error);
  for (int i = 0; i < 10 && st == LKS_OK; ++i) {
    st = lks_journal_write(journal, json_pack("{s:i}", "step", i), error);
  }
  lks_journal_close(&journal);
  return st;
}

static void test_refusals(void **state) {
  scratch *at = *state;
  lks_journal *journal = NULL;
  const char *none = scratch_path(at, "none");
  assert_fails(lks_journal_open(none, -1, 0, &journal, &err), LKS_STORAGE, "none/log.jsonl",
               "cannot write: No such file");
  assert_null(journal);
  assert_fails(scratch_in_child(write_beyond, at, &err), LKS_STORAGE, "log.jsonl", "cannot write");
  assert_non_null(strstr(err.remedy, "free some space"));
  assert_ok(lks_journal_open(at->folder, -1, 0, &journal, &err));
  assert_fails(lks_journal_write(journal, NULL, &err), LKS_NO_MEMORY, "out of memory");
  lks_journal_close(&journal);
  lks_journal_close(&journal);
  assert_int_equal(remove(scratch_path(at, "log.jsonl")), 0);
  assert_int_equal(mkdir(scratch_path(at, "log.jsonl"), 0700), 0);
  assert_fails(lks_journal_open(at->folder, 5, 0, &journal, &err), LKS_STORAGE, "log.jsonl");
  assert_fails(lks_journal_open(at->folder, -1, 0, &journal, &err), LKS_STORAGE, "log.jsonl",
               "cannot write");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_make, scratch_remove)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_cut),
      TEST(test_epoch_not_counted),
      TEST(test_torn_line),
      TEST(test_missing_newline),
      TEST(test_foreign_lines),
      TEST(test_values),
      TEST(test_reals_read_back),
      TEST(test_refusals),
  };
  return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
