/* The watchdog: sees the STOP file on rank 0 alone, lets a rank that beats live, and ends one that
 * does not with one line and the documented code. Each waits as long as it takes. */
#include "scratch.h"

#include <time.h>

#include "world/watchdog.h"

static lks_error err;

static void sleep_a_little(void) {
  const struct timespec pause = {0, 20 * 1000 * 1000};
  (void)nanosleep(&pause, NULL);
}

/* A rank that needs no MPI: the watchdog looks at its number, phase and beats alone. */
static lks_world *rank_alone(int rank) {
  lks_world *world = calloc(1, sizeof *world);
  assert_non_null(world);
  world->rank = rank;
  lks_world_phase(world, "step %d", 3);
  return world;
}

static void test_stop_file(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "STOP");
  lks_world *world = rank_alone(0);
  assert_false(lks_watchdog_saw_stop_file(world)); /* none runs */
  assert_ok(lks_watchdog_start(world, 0.0, path, &err));
  assert_false(lks_watchdog_saw_stop_file(world));
  scratch_write(path, "", 0);
  while (!lks_watchdog_saw_stop_file(world)) {
    sleep_a_little();
  }
  assert_int_equal(remove(path), 0);
  sleep_a_little();
  assert_true(lks_watchdog_saw_stop_file(world)); /* once seen, always */
  lks_watchdog_stop(world);
  assert_null(world->watchdog);
  lks_watchdog_stop(world); /* none runs: nothing to do */
  free(world);
}

/* Two watchdogs, one file: when rank 0's has seen it twice over, rank 1's would have too. */
static void test_stop_file_is_rank_0s(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "STOP");
  lks_world *first = rank_alone(0), *second = rank_alone(1);
  scratch_write(path, "", 0);
  assert_ok(lks_watchdog_start(second, 0.0, path, &err));
  for (int i = 0; i < 2; ++i) {
    assert_ok(lks_watchdog_start(first, 0.0, path, &err));
    while (!lks_watchdog_saw_stop_file(first)) {
      sleep_a_little();
    }
    lks_watchdog_stop(first);
  }
  assert_false(lks_watchdog_saw_stop_file(second));
  lks_watchdog_stop(second);
  free(first);
  free(second);
}

/* Starting and ending at once, many times: neither waits for the period. */
static void test_start_and_stop(void **state) {
  (void)state;
  lks_world *world = rank_alone(0);
  for (int i = 0; i < 200; ++i) {
    assert_ok(lks_watchdog_start(world, 100.0, NULL, &err));
    lks_world_beat(world);
    assert_false(lks_watchdog_saw_stop_file(world));
    lks_watchdog_stop(world);
  }
  free(world);
}

/* Runs this program again, as a rank under the watchdog; gives how it ended and what it said. */
static int run_as(const char *role, char *said, size_t size) {
  int ends[2], how = 0;
  assert_int_equal(pipe(ends), 0);
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    (void)dup2(ends[1], STDERR_FILENO);
    (void)close(ends[0]);
    (void)close(ends[1]);
    (void)execl("/proc/self/exe", "test_watchdog", role, (char *)NULL);
    _exit(99);
  }
  (void)close(ends[1]);
  size_t length = 0;
  for (ssize_t got = 1; got > 0 && length + 1 < size; length += got > 0 ? (size_t)got : 0) {
    got = read(ends[0], said + length, size - 1 - length);
  }
  said[length] = '\0';
  (void)close(ends[0]);
  assert_int_equal(waitpid(child, &how, 0), child);
  assert_true(WIFEXITED(how));
  return WEXITSTATUS(how);
}

static void test_stuck_rank_is_ended(void **state) {
  (void)state;
  static char said[16384];
  assert_int_equal(run_as("stuck", said, sizeof said), lks_exit_code(LKS_COMM));
  const char *line = strstr(said, "lockstep: error: no progress for ");
  assert_non_null(line);
  assert_non_null(strstr(line, " s while in step 7 [rank 0, "));
  assert_non_null(strstr(line, "raise run.timeout"));
}

static void test_beating_rank_lives(void **state) {
  (void)state;
  static char said[16384];
  assert_int_equal(run_as("beating", said, sizeof said), 0);
  assert_null(strstr(said, "lockstep: error"));
}

static void test_end(void **state) {
  (void)state;
  static char said[16384];
  assert_int_equal(run_as("ended", said, sizeof said), lks_exit_code(LKS_STORAGE));
  assert_non_null(strstr(said, "lockstep: error: the disk is gone [rank 0, "));
  assert_non_null(strstr(said, "step 7]; look for it\n"));
}

/* The child's part: a world of one rank whose timeout is the shortest there is. */
static int rank_main(const char *role) {
  lks_world *world = NULL;
  if (lks_world_open(MPI_COMM_WORLD, &world, &err) != LKS_OK) {
    return 98;
  }
  lks_world_phase(world, "step %d", 7);
  if (strcmp(role, "ended") == 0) {
    const lks_status st = lks_fail(&err, LKS_STORAGE, "look for it", "the disk is gone");
    err.status = st;
    lks_watchdog_end(world, &err);
  }
  if (lks_watchdog_start(world, 0.2, NULL, &err) != LKS_OK) {
    return 97;
  }
  const double started = lks_now(); /* beating: through more than the timeout and its grace */
  while (strcmp(role, "stuck") == 0 || lks_now() - started < 5.0) {
    if (strcmp(role, "beating") == 0) {
      lks_world_beat(world);
    }
    sleep_a_little();
  }
  lks_watchdog_stop(world);
  lks_world_close(&world);
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 2) {
    return rank_main(argv[1]);
  }
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_stop_file, scratch_make, scratch_remove),
      cmocka_unit_test_setup_teardown(test_stop_file_is_rank_0s, scratch_make, scratch_remove),
      cmocka_unit_test(test_start_and_stop),
      cmocka_unit_test(test_stuck_rank_is_ended),
      cmocka_unit_test(test_beating_rank_lives),
      cmocka_unit_test(test_end),
  };
  return cmocka_run_group_tests_name("watchdog", tests, NULL, NULL);
}
