/* Stop requests: which signals are noted, that they are forgotten again, and that a second one a
 * while later ends the process. */
#include "scratch.h"

#include <time.h>

#include "world/stop.h"

static lks_error err;

static void test_signals(void **state) {
  (void)state;
  static const struct {
    int number;
    const char *name;
  } all[] = {{SIGTERM, "SIGTERM"}, {SIGINT, "SIGINT"}, {SIGUSR1, "SIGUSR1"}};
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) {
    assert_ok(lks_stop_catch(&err));
    assert_null(lks_stop_signal());
    assert_int_equal(raise(all[i].number), 0);
    assert_string_equal(lks_stop_signal(), all[i].name);
    assert_int_equal(raise(SIGUSR1), 0); /* launchers repeat themselves; the first one counts */
    assert_string_equal(lks_stop_signal(), all[i].name);
    lks_stop_release();
    assert_null(lks_stop_signal());
  }
}

/* Gives the signal's default meaning a chance in a child; returns how the child ended. */
static int end_of_child(void (*work)(void)) {
  int how = 0;
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    work();
    _exit(33);
  }
  assert_int_equal(waitpid(child, &how, 0), child);
  return how;
}

static void release_then_term(void) {
  if (lks_stop_catch(&err) == LKS_OK) {
    lks_stop_release();
    (void)raise(SIGTERM);
  }
}

static void term_twice(void) {
  struct timespec left = {1, 200000000L}; /* a second later, and tenths are compared */
  if (lks_stop_catch(&err) != LKS_OK || raise(SIGTERM) != 0) {
    return;
  }
  while (nanosleep(&left, &left) != 0) {
  }
  (void)raise(SIGTERM);
}

static void ignore_then_term(void) {
  if (lks_stop_catch(&err) == LKS_OK) {
    lks_stop_ignore();
    (void)raise(SIGTERM);
    (void)raise(SIGINT);
    (void)raise(SIGUSR1);
    (void)raise(SIGHUP);
  }
}

static void test_ignore(void **state) {
  (void)state;
  const int how = end_of_child(ignore_then_term);
  assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 33);
}

static void test_release(void **state) {
  (void)state;
  const int how = end_of_child(release_then_term);
  assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGTERM);
}

static void test_second_signal_ends(void **state) {
  (void)state;
  const int how = end_of_child(term_twice);
  assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGTERM);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_signals),
      cmocka_unit_test(test_ignore),
      cmocka_unit_test(test_release),
      cmocka_unit_test(test_second_signal_ends),
  };
  return cmocka_run_group_tests_name("stop", tests, NULL, NULL);
}
