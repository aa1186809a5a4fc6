/* The lock of a run folder: living holders are refused, dead ones taken over, those of other
 * machines by what their file system says of them, and a lock that was lost is noticed. */
#include "scratch.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

#include "store/files.h"

static lks_error err;

static void sleep_ms(long ms) {
  const struct timespec pause = {ms / 1000, ms % 1000 * 1000000L};
  (void)nanosleep(&pause, NULL);
}

static void no_job(void) {
  (void)unsetenv("SLURM_JOB_ID");
  (void)unsetenv("SLURM_RESTART_COUNT");
}

static void test_this_process(void **state) {
  scratch *at = *state;
  lks_run_lock *first = NULL, *second = NULL;
  char pid[32];
  (void)snprintf(pid, sizeof(pid), "process %ld", (long)getpid());
  assert_ok(lks_run_lock_take(at->folder, &first, &err));
  assert_string_equal(lks_run_lock_note(first), "");
  assert_ok(lks_run_lock_check(first, &err));
  assert_fails(lks_run_lock_take(at->folder, &second, &err), LKS_STORAGE, "run folder",
               "is in use by", pid);
  assert_null(second);
  lks_run_lock_release(&first);
  assert_null(first);
  lks_run_lock_release(&first);
  assert_ok(lks_run_lock_take(at->folder, &second, &err));
  lks_run_lock_release(&second);
  assert_fails(lks_run_lock_take(scratch_path(at, "none"), &first, &err), LKS_STORAGE,
               "cannot write", ".lock");
  assert_int_equal(scratch_count(at->folder, ""), 1); /* .lock alone, and empty */
}

/* Starts a process that takes the lock, says so, and stays. */
static pid_t start_holder(const char *folder) {
  int ready[2];
  char byte = 0;
  assert_int_equal(pipe(ready), 0);
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    lks_run_lock *lock = NULL;
    const bool fine = lks_run_lock_take(folder, &lock, &err) == LKS_OK;
    if (write(ready[1], fine ? "y" : "n", 1) == 1) {
      (void)pause();
    }
    _exit(1);
  }
  assert_int_equal(read(ready[0], &byte, 1), 1);
  assert_int_equal(byte, 'y');
  (void)close(ready[0]);
  (void)close(ready[1]);
  return child;
}

static void end_holder(pid_t child) {
  assert_int_equal(kill(child, SIGKILL), 0);
  assert_int_equal(waitpid(child, NULL, 0), child);
}

static void test_another_process(void **state) {
  scratch *at = *state;
  char pid[32];
  lks_run_lock *lock = NULL;
  const pid_t child = start_holder(at->folder);
  (void)snprintf(pid, sizeof(pid), "process %ld on ", (long)child);
  assert_fails(lks_run_lock_take(at->folder, &lock, &err), LKS_STORAGE, "in use by", pid);
  end_holder(child);
  /* Its text is still there, but it is dead: taken over. */
  assert_ok(lks_run_lock_take(at->folder, &lock, &err));
  lks_run_lock_release(&lock);
}

/* This machine as the lock writes it: "<host> <pid> <start> <machine> <job> <restarts>". */
static void own_fields(scratch *at, char host[80], char machine[120]) {
  lks_run_lock *lock = NULL;
  size_t bytes = 0;
  assert_ok(lks_run_lock_take(at->folder, &lock, &err));
  char *text = scratch_read(scratch_path(at, ".lock"), &bytes);
  assert_int_equal(sscanf(text, "%79s %*d %*u %119s", host, machine), 2);
  free(text);
  lks_run_lock_release(&lock);
}

/* Where the kernel's lock says nothing, the text decides. */
static void test_text_of_this_machine(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, ".lock");
  char host[80], machine[120], text[512];
  lks_run_lock *lock = NULL;
  own_fields(at, host, machine);
  (void)snprintf(text, sizeof(text), "%s %ld 0 %s - 0\n", host, (long)getppid(), machine);
  scratch_write(path, text, strlen(text)); /* lives */
  assert_fails(lks_run_lock_take(at->folder, &lock, &err), LKS_STORAGE, "in use by process", host);
  (void)snprintf(text, sizeof(text), "%s %ld 1 %s - 0\n", host, (long)getppid(), machine);
  scratch_write(path, text, strlen(text)); /* lives, but as another process */
  assert_ok(lks_run_lock_take(at->folder, &lock, &err));
  assert_string_equal(lks_run_lock_note(lock), "");
  lks_run_lock_release(&lock);
  scratch_write(path, "nonsense", 8);
  assert_ok(lks_run_lock_take(at->folder, &lock, &err));
  lks_run_lock_release(&lock);
}

/* Leaves the lock of process 12 of another machine, touched `age` seconds ago. */
static const char *leave_foreign(scratch *at, double age) {
  static const char text[] = "elsewhere 12 3456 11111111-2222/pid:[4026531836] 77 1\n";
  const char *path = scratch_path(at, ".lock");
  struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}};
  scratch_write(path, text, sizeof(text) - 1);
  (void)clock_gettime(CLOCK_REALTIME, &times[1]);
  times[1].tv_sec -= (time_t)age;
  assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
  return path;
}

static void test_fresh_lock_of_another_machine(void **state) {
  scratch *at = *state;
  lks_run_lock *lock = NULL;
  no_job();
  (void)leave_foreign(at, 40);
  assert_fails(lks_run_lock_take(at->folder, &lock, &err), LKS_STORAGE,
               "in use by process 12 on elsewhere");
  assert_non_null(strstr(err.remedy, "60 s"));
  assert_int_equal(scratch_count(at->folder, ""), 1); /* no file of the measurement is left */
}

static void test_old_lock_of_another_machine(void **state) {
  scratch *at = *state;
  lks_run_lock *lock = NULL;
  no_job();
  (void)leave_foreign(at, 3600);
  assert_ok(lks_run_lock_take(at->folder, &lock, &err));
  assert_non_null(strstr(lks_run_lock_note(lock), "process 12 on elsewhere"));
  assert_non_null(strstr(lks_run_lock_note(lock), "for 3600 s"));
  lks_run_lock_release(&lock);
  assert_int_equal(scratch_count(at->folder, ""), 1);
}

static void *touch_soon(void *path) {
  sleep_ms(1200);
  (void)utimensat(AT_FDCWD, path, NULL, 0);
  return NULL;
}

/* By a clock that is wrong, a living run's lock may look old: it is seen to be touched. */
static void test_old_but_touched(void **state) {
  scratch *at = *state;
  lks_run_lock *lock = NULL;
  pthread_t thread;
  no_job();
  for (int i = 0; i < 2; ++i) { /* the past, the future */
    const char *path = leave_foreign(at, i == 0 ? 3600 : -3600);
    assert_int_equal(pthread_create(&thread, NULL, touch_soon, (void *)(uintptr_t)path), 0);
    assert_fails(lks_run_lock_take(at->folder, &lock, &err), LKS_STORAGE,
                 "in use by process 12 on elsewhere");
    assert_int_equal(pthread_join(thread, NULL), 0);
  }
}

/* A job that Slurm has begun again takes over from its former self at once, on any host. */
static void test_restarted_job(void **state) {
  scratch *at = *state;
  lks_run_lock *lock = NULL;
  static const struct {
    const char *job, *restarts;
    bool taken;
  } cases[] = {{"77", "2", true},
               {"77", "1", false},
               {"77", NULL, false},
               {"78", "2", false},
               {NULL, "2", false}};
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
    no_job();
    (void)leave_foreign(at, 0);
    if (cases[i].job != NULL) {
      (void)setenv("SLURM_JOB_ID", cases[i].job, 1);
    }
    if (cases[i].restarts != NULL) {
      (void)setenv("SLURM_RESTART_COUNT", cases[i].restarts, 1);
    }
    if (cases[i].taken) {
      assert_ok(lks_run_lock_take(at->folder, &lock, &err));
      assert_non_null(strstr(lks_run_lock_note(lock), "job 77 was begun again"));
      lks_run_lock_release(&lock);
    } else {
      assert_fails(lks_run_lock_take(at->folder, &lock, &err), LKS_STORAGE, "process 12");
    }
  }
  no_job();
}

/* Even where the kernel still holds the lock for it, as a server does for a host that is lost. */
static void test_restarted_job_while_locked(void **state) {
  scratch *at = *state;
  lks_run_lock *lock = NULL;
  (void)setenv("SLURM_JOB_ID", "99", 1);
  const pid_t child = start_holder(at->folder);
  assert_fails(lks_run_lock_take(at->folder, &lock, &err), LKS_STORAGE, "in use by");
  (void)setenv("SLURM_RESTART_COUNT", "1", 1);
  assert_ok(lks_run_lock_take(at->folder, &lock, &err));
  lks_run_lock_release(&lock);
  end_holder(child);
  no_job();
}

/* A holder touches its file, and notices that it is not its own any more. */
static void test_kept_and_lost(void **state) {
  scratch *at = *state;
  lks_run_lock *lock = NULL;
  struct stat before, now;
  no_job();
  assert_ok(lks_run_lock_take(at->folder, &lock, &err));
  const char *path = scratch_path(at, ".lock");
  const struct timespec past[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
  assert_int_equal(utimensat(AT_FDCWD, path, past, 0), 0);
  assert_int_equal(stat(path, &before), 0);
  do {
    sleep_ms(50);
    assert_int_equal(stat(path, &now), 0);
  } while (now.st_mtim.tv_sec == before.st_mtim.tv_sec);
  assert_ok(lks_run_lock_check(lock, &err));
  (void)leave_foreign(at, 0);
  while (lks_run_lock_check(lock, &err) == LKS_OK) {
    sleep_ms(50);
  }
  assert_fails(lks_run_lock_check(lock, &err), LKS_STORAGE, "taken over by process 12 on elsewhere",
               ".lock");
  lks_run_lock_release(&lock);
  assert_int_equal(stat(path, &now), 0);
  assert_true(now.st_size > 0); /* the other's text is left alone */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_this_process, scratch_make, scratch_remove),
      cmocka_unit_test_setup_teardown(test_another_process, scratch_make, scratch_remove),
      cmocka_unit_test_setup_teardown(test_text_of_this_machine, scratch_make, scratch_remove),
      cmocka_unit_test_setup_teardown(test_fresh_lock_of_another_machine, scratch_make,
                                      scratch_remove),
      cmocka_unit_test_setup_teardown(test_old_lock_of_another_machine, scratch_make,
                                      scratch_remove),
      cmocka_unit_test_setup_teardown(test_old_but_touched, scratch_make, scratch_remove),
      cmocka_unit_test_setup_teardown(test_restarted_job, scratch_make, scratch_remove),
      cmocka_unit_test_setup_teardown(test_restarted_job_while_locked, scratch_make,
                                      scratch_remove),
      cmocka_unit_test_setup_teardown(test_kept_and_lost, scratch_make, scratch_remove),
  };
  return cmocka_run_group_tests_name("lock", tests, NULL, NULL);
}
