/* Text: parsing is strict, formatting reads back, paths normalise by text alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/text.h"

static void parses_whole_strings_only(void **state) {
  (void)state;
  int64_t n = 7;
  double x = 7.0;
  bool b = false;
  assert_true(lks_parse_int64("-12", &n) && n == -12);
  const char *const not_integers[] = {"",   "-",    "1x",  " 1",
                                      "1 ", "0x10", "1.0", "9223372036854775808"};
  for (size_t i = 0; i < sizeof not_integers / sizeof *not_integers; ++i) {
    assert_false(lks_parse_int64(not_integers[i], &n));
  }
  assert_int_equal(n, -12);
  assert_true(lks_parse_real("1e-3", &x) && x == 1e-3);
  assert_true(lks_parse_real(".5", &x) && x == 0.5);
  const char *const not_reals[] = {"", "nan", "inf", "1e999", "0x1p3", "1.2.3", "e", "-", "1e"};
  for (size_t i = 0; i < sizeof not_reals / sizeof *not_reals; ++i) {
    assert_false(lks_parse_real(not_reals[i], &x));
  }
  assert_true(lks_parse_bool("on", &b) && b);
  assert_true(lks_parse_bool("FALSE", &b) && !b);
  assert_true(lks_parse_bool("True", &b) && b);
  assert_true(lks_parse_bool("false", &b) && !b);
  assert_false(lks_parse_bool("True!", &b));
}

static void parses_units(void **state) {
  (void)state;
  double seconds = 0.0;
  int64_t bytes = 0;
  assert_true(lks_parse_duration("23h30m", &seconds) && seconds == 84600.0);
  assert_true(lks_parse_duration("2d", &seconds) && seconds == 172800.0);
  assert_true(lks_parse_duration("1.5", &seconds) && seconds == 1.5);
  assert_true(lks_parse_duration("90s", &seconds) && seconds == 90.0);
  const char *const not_durations[] = {"", "-1", "5x", "3m2h", "1h1h", "h"};
  for (size_t i = 0; i < sizeof not_durations / sizeof *not_durations; ++i) {
    assert_false(lks_parse_duration(not_durations[i], &seconds));
  }
  assert_true(lks_parse_bytes("4096", &bytes) && bytes == 4096);
  assert_true(lks_parse_bytes("4G", &bytes) && bytes == INT64_C(4) << 30);
  assert_true(lks_parse_bytes("1.5KiB", &bytes) && bytes == 1536);
  assert_true(lks_parse_bytes("1.1K", &bytes) && bytes == 1126);
  const char *const not_bytes[] = {"", "-1", "4X", "G", "9000000T", "1.3", "4GG"};
  for (size_t i = 0; i < sizeof not_bytes / sizeof *not_bytes; ++i) {
    assert_false(lks_parse_bytes(not_bytes[i], &bytes));
  }
}

static void formats_for_people(void **state) {
  (void)state;
  char out[32];
  assert_string_equal(lks_format_bytes(out, 1536.0), "1.5 KiB");
  assert_string_equal(lks_format_bytes(out, 12.0), "12 B");
  assert_string_equal(lks_format_duration(out, 65.0), "1m 05s");
  assert_string_equal(lks_format_duration(out, 12000.0), "3h 20m");
  assert_string_equal(lks_format_count(out, -1234567), "-1,234,567");
  assert_string_equal(lks_format_count(out, 123), "123");
  assert_string_equal(lks_format_real(out, 0.1), "0.1");
  assert_string_equal(lks_format_real(out, 1e-7), "1e-07");
  const double third = 1.0 / 3.0;
  assert_true(strtod(lks_format_real(out, third), NULL) == third);
}

static void names_the_nearest(void **state) {
  (void)state;
  const char *const names[] = {"train", "validation", "test", "scaling", NULL};
  assert_string_equal(lks_nearest("trian", names), "train");
  assert_string_equal(lks_nearest("validatoin", names), "validation");
  assert_null(lks_nearest("optimizer", names));
  assert_null(lks_nearest("x", names));
}

static const char *resolved(lks_arena *arena, const char *folder, const char *path) {
  lks_error err;
  const char *out = NULL;
  assert_int_equal(lks_path_resolve(arena, folder, path, &out, &err), LKS_OK);
  return out;
}

static void resolves_paths(void **state) {
  (void)state;
  lks_arena arena = {0};
  assert_string_equal(resolved(&arena, "/a/b", "../c/./d"), "/a/c/d");
  assert_string_equal(resolved(&arena, "/a", "/x//y/"), "/x/y");
  assert_string_equal(resolved(&arena, "/", "../.."), "/");
  assert_string_equal(resolved(&arena, "/aaaaaaa/bbbbbbb", "cccccccccccccc"),
                      "/aaaaaaa/bbbbbbb/cccccccccccccc");
  assert_int_equal(resolved(&arena, NULL, "x")[0], '/');
  assert_string_equal(lks_path_folder(&arena, "a/b.c"), "a");
  assert_string_equal(lks_path_folder(&arena, "b.c"), ".");
  assert_string_equal(lks_path_folder(&arena, "/b"), "/");
  assert_string_equal(lks_path_base("/a/b.c"), "b.c");
  lks_arena_free(&arena);
}

/* Of an override or a file, in which no shell has put the home folder. */
static void home_folder(void **state) {
  (void)state;
  lks_arena arena = {0};
  lks_error err;
  const char *out = NULL;
  assert_int_equal(setenv("HOME", "/home/me", 1), 0);
  assert_string_equal(resolved(&arena, "/a", "~/runs/b"), "/home/me/runs/b");
  assert_string_equal(resolved(&arena, NULL, "~"), "/home/me");
  assert_string_equal(resolved(&arena, "/a", "~you/b"), "/a/~you/b");
  assert_string_equal(resolved(&arena, "/a", "./~/b"), "/a/~/b");
  assert_int_equal(unsetenv("HOME"), 0);
  assert_int_equal(lks_path_resolve(&arena, "/a", "~/b", &out, &err), LKS_CONFIG);
  assert_non_null(strstr(err.what, "~/b: HOME, which ~ stands for, is not set"));
  lks_arena_free(&arena);
}

/* Behind a symbolic link, ".." is the folder above where it leads. */
static void keeps_what_leads_elsewhere(void **state) {
  (void)state;
  lks_arena arena = {0};
  char folder[] = "/tmp/lockstep-text-XXXXXX", link[64], wanted[64];
  assert_non_null(mkdtemp(folder));
  (void)snprintf(link, sizeof link, "%s/link", folder);
  assert_int_equal(symlink("/usr/bin", link), 0);
  (void)snprintf(wanted, sizeof wanted, "%s/link/../c", folder);
  assert_string_equal(resolved(&arena, folder, "link/../b/../c"), wanted);
  (void)snprintf(wanted, sizeof wanted, "%s/link/../../c", folder);
  assert_string_equal(resolved(&arena, folder, "link/.././../c"), wanted);
  (void)snprintf(wanted, sizeof wanted, "%s/c", folder);
  assert_string_equal(resolved(&arena, folder, "no_link/../c"), wanted);
  assert_int_equal(unlink(link), 0);
  assert_int_equal(rmdir(folder), 0);
  lks_arena_free(&arena);
}

static void tells_utf8(void **state) {
  (void)state;
  assert_true(lks_is_utf8(""));
  assert_true(lks_is_utf8("caf\xc3\xa9 \xf0\x9f\x98\x80"));
  assert_false(lks_is_utf8("caf\xe9"));
  assert_false(lks_is_utf8("\xc0\x80"));
  assert_false(lks_is_utf8("\xed\xa0\x80"));
}

/* Where, and why: neither is lost to a path that is longer than a message. */
static void long_errors_keep_both_ends(void **state) {
  (void)state;
  lks_error err;
  char path[9000];
  for (int letter = 0; letter < 2; ++letter) { /* cut before and within letters of UTF-8 */
    (void)snprintf(path, sizeof path, "%s", letter == 0 ? "/begin/" : "/begin/a");
    while (strlen(path) < sizeof path - 8) {
      (void)strcat(path, "\xc3\xa4");
    }
    assert_int_equal(lks_fail(&err, LKS_DATA, NULL, "%s: no such file", path), LKS_DATA);
    const size_t length = strlen(err.what);
    assert_in_range(length, sizeof err.what - 8, sizeof err.what - 1);
    assert_memory_equal(err.what, "/begin/", 7);
    assert_string_equal(err.what + length - 16, "\xc3\xa4: no such file");
    const char *gap = strstr(err.what, " ... ");
    assert_non_null(gap);
    assert_int_equal((unsigned char)gap[-1], 0xa4);
    assert_int_equal((unsigned char)gap[5], 0xc3);
  }
}

static void errors_are_one_line(void **state) {
  (void)state;
  lks_error err;
  lks_error_clear(&err);
  char line[512];
  lks_status st =
      lks_fail(&err, LKS_DATA, "set data.train.targets", "cfd.h5: no dataset '%s'\n", "y");
  assert_int_equal(st, LKS_DATA);
  assert_int_equal(lks_exit_code(st), 3);
  lks_error_line(&err, line, sizeof line);
  assert_string_equal(line, "cfd.h5: no dataset 'y'; set data.train.targets");
  err.rank = 0;
  strcpy(err.host, "n1");
  strcpy(err.phase, "data");
  lks_error_line(&err, line, sizeof line);
  assert_string_equal(line, "cfd.h5: no dataset 'y' [rank 0, n1, data]; set data.train.targets");
  lks_error_frame(&err, st, "open()", "src/a/b.c", 12);
  assert_string_equal(err.trace, "open() (b.c:12)");
  assert_int_equal(lks_exit_code(LKS_STOPPED), 75);
  assert_int_equal(lks_exit_code((lks_status)99), 1);
}

static void arena_grows(void **state) {
  (void)state;
  lks_arena arena = {0};
  for (size_t i = 1; i < 2000; ++i) {
    unsigned char *memory = lks_arena_alloc(&arena, i);
    assert_non_null(memory);
    assert_int_equal((uintptr_t)memory % 16, 0);
    for (size_t k = 0; k < i; ++k) {
      assert_int_equal(memory[k], 0);
    }
    memset(memory, 0xff, i);
  }
  assert_null(lks_arena_alloc(&arena, SIZE_MAX));
  lks_arena_free(&arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(parses_whole_strings_only),
      cmocka_unit_test(parses_units),
      cmocka_unit_test(formats_for_people),
      cmocka_unit_test(names_the_nearest),
      cmocka_unit_test(resolves_paths),
      cmocka_unit_test(home_folder),
      cmocka_unit_test(keeps_what_leads_elsewhere),
      cmocka_unit_test(tells_utf8),
      cmocka_unit_test(errors_are_one_line),
      cmocka_unit_test(long_errors_keep_both_ends),
      cmocka_unit_test(arena_grows),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
