/* The watchdog of one rank: sees the STOP file on rank 0 alone, lets a rank that makes progress
 * live, and ends one that does not with one line and the documented code. Each waits as long as it
 * takes. */
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
  world->size = 2;
  lks_world_phase(world, "step %d", 3);
  return world;
}

static void test_stop_file(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "STOP");
  lks_world *world = rank_alone(0);
  assert_false(lks_watchdog_saw_stop_file(world)); /* none runs */
  assert_ok(lks_watchdog_start(world, 0.0, NULL, &err));
  assert_ok(lks_watchdog_start(world, 0.0, path, &err)); /* runs already: looks from now on */
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
  assert_non_null(strstr(line, " of rank 0 on "));
  assert_non_null(strstr(line, ", at step 7 (epoch 7), computing: stuck in a call"));
  assert_non_null(strstr(line, "raise run.timeout"));
}

static void test_beating_rank_lives(void **state) {
  (void)state;
  static char said[16384];
  assert_int_equal(run_as("beating", said, sizeof said), 0);
  assert_null(strstr(said, "lockstep: error"));
}

/* Bytes that come in are progress, though nothing beats: a slow file system is not a hang. */
static void test_reading_rank_lives(void **state) {
  (void)state;
  static char said[16384];
  assert_int_equal(run_as("reading", said, sizeof said), 0);
  assert_null(strstr(said, "lockstep: error"));
}

/* Computing is progress in the first step, for three timeouts; in later ones it is not. */
static void test_computing_rank(void **state) {
  (void)state;
  static char said[16384];
  assert_int_equal(run_as("first step", said, sizeof said), lks_exit_code(LKS_COMM));
  const char *line = strstr(said, "no progress for ");
  if (strstr(said, "lived on\n") == NULL || line == NULL) {
    fail_msg("%s", said);
  }
  assert_non_null(strstr(line, "at step 1"));
  assert_int_equal(run_as("second step", said, sizeof said), lks_exit_code(LKS_COMM));
  assert_null(strstr(said, "lived on\n"));
  assert_non_null(strstr(said, "at step 2"));
}

/* A job that was suspended as a whole goes on. */
static void test_suspended_rank_lives(void **state) {
  (void)state;
  static char said[16384];
  assert_int_equal(run_as("suspended", said, sizeof said), 0);
  assert_null(strstr(said, "lockstep: error"));
}

static void test_end(void **state) {
  (void)state;
  static char said[16384];
  for (int guarded = 0; guarded < 2; ++guarded) {
    assert_int_equal(run_as(guarded ? "ended guarded" : "ended", said, sizeof said),
                     lks_exit_code(LKS_STORAGE));
    assert_non_null(strstr(said, "lockstep: error: the disk is gone [rank 0, "));
    assert_non_null(strstr(said, "step 7]; look for it\n"));
  }
}

/* ---- the child's part: a world of one rank */

#define TIMEOUT 1.0

static void beat_for(lks_world *world, double seconds) {
  for (const double until = lks_now() + seconds; lks_now() < until;) {
    lks_world_beat(world);
    sleep_a_little();
  }
}

static void read_for(double seconds) {
  static char block[1 << 16];
  FILE *zeros = fopen("/dev/zero", "rb");
  for (const double until = lks_now() + seconds; zeros != NULL && lks_now() < until;) {
    (void)!fread(block, 1, sizeof block, zeros);
    sleep_a_little();
  }
  if (zeros != NULL) {
    (void)fclose(zeros);
  }
}

static void compute_for(double seconds) {
  for (const double until = lks_now() + seconds; lks_now() < until;) {
  }
}

/* Another process stops this one for longer than the timeout. */
static void be_suspended(void) {
  const pid_t self = getpid(), child = fork();
  if (child == 0) {
    const struct timespec pause = {(time_t)(3.0 * TIMEOUT), 0};
    (void)kill(self, SIGSTOP);
    (void)nanosleep(&pause, NULL);
    (void)kill(self, SIGCONT);
    _exit(0);
  }
  (void)waitpid(child, NULL, 0);
}

static void play(lks_world *world, const char *role) {
  if (strcmp(role, "beating") == 0) {
    beat_for(world, 4.0 * TIMEOUT);
  } else if (strcmp(role, "reading") == 0) {
    read_for(4.0 * TIMEOUT);
  } else if (strcmp(role, "suspended") == 0) {
    be_suspended();
    beat_for(world, 2.0 * TIMEOUT);
  } else if (strcmp(role, "stuck") == 0) {
    lks_world_step(world, 7);
    lks_world_doing(world, "computing");
    (void)sleep(30);
  } else if (strcmp(role, "first step") == 0 || strcmp(role, "second step") == 0) {
    lks_world_step(world, 1);
    const bool first = strcmp(role, "first step") == 0;
    beat_for(world, 1.0); /* long enough to be seen */
    if (!first) {
      lks_world_step(world, 2);
    }
    compute_for(first ? 2.0 * TIMEOUT : 20.0);
    (void)fprintf(stderr, "lived on\n");
    compute_for(30.0);
  }
}

static int rank_main(const char *role) {
  lks_world *world = NULL;
  if (lks_world_open(MPI_COMM_WORLD, &world, &err) != LKS_OK) {
    return 98;
  }
  lks_world_phase(world, strncmp(role, "ended", 5) == 0 ? "step %d" : "epoch %d", 7);
  if (strcmp(role, "ended") != 0 && (lks_watchdog_start(world, TIMEOUT, NULL, &err) != LKS_OK ||
                                     lks_watchdog_connect(world, &err) != LKS_OK)) {
    return 97;
  }
  if (strncmp(role, "ended", 5) == 0) {
    const lks_status st = lks_fail(&err, LKS_STORAGE, "look for it", "the disk is gone");
    err.status = st;
    lks_watchdog_end(world, &err);
  }
  play(world, role);
  lks_world_close(&world); /* stops the watchdog */
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
      cmocka_unit_test(test_reading_rank_lives),
      cmocka_unit_test(test_computing_rank),
      cmocka_unit_test(test_suspended_rank_lives),
      cmocka_unit_test(test_end),
  };
  return cmocka_run_group_tests_name("watchdog", tests, NULL, NULL);
}
