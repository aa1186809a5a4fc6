/* What the simulated GPU finds inside a launch: each fault of broken_kernels.cu, in every seed, and
 * nothing where there is none. A finding ends the process, so each case is a child of its own. */
#include "kernel_fixture.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broken_kernels.h"

enum { COUNT = 256, FINDING_EXIT = 99 };

typedef int (*launcher)(const broken_args *args, struct CUstream_st *stream);

/* In the child: runs it and compares; returns the exit code. */
static int run(launcher launch, fault wrong, const char *seed) {
  float *in = values_of(60, COUNT, 1.0f), got[COUNT];
  const float zeros[COUNT] = {0};
  const unsigned zero = 0;
  setenv("SIMGPU_SEED", seed, 1);
  const broken_args args = {.in = wrong == FAULT_HOST_POINTER ? in : to_device(in, COUNT * 4),
                            .out = to_device(zeros, sizeof zeros),
                            .ticket = to_device(&zero, sizeof zero),
                            .count = COUNT,
                            .wrong = wrong};
  if (launch(&args, NULL) != 0) {
    return 1;
  }
  from_device(got, args.out, launch == broken_reverse ? COUNT * 4 : 5 * 4);
  if (launch == broken_total) {
    float total = 0.0f;
    for (int i = 0; i < COUNT; ++i) {
      total += in[i];
    }
    return fabsf(got[0] - total) < 1e-4f ? 0 : 1;
  }
  for (int i = 0; i < COUNT; ++i) {
    if (got[i] != in[i / 64 * 64 + 63 - i % 64]) {
      return 1;
    }
  }
  return 0;
}

/* The child's exit code, and what it wrote on stderr. */
static int run_apart(launcher launch, fault wrong, const char *seed, char *text, size_t size) {
  int ends[2], status = 0;
  assert_int_equal(pipe(ends), 0);
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    _exit(run(launch, wrong, seed));
  }
  close(ends[1]);
  size_t length = 0;
  ssize_t got = 0;
  while (length + 1 < size && (got = read(ends[0], text + length, size - 1 - length)) > 0) {
    length += (size_t)got;
  }
  text[length] = '\0';
  close(ends[0]);
  assert_true(waitpid(child, &status, 0) == child);
  assert_true(WIFEXITED(status));
  return WEXITSTATUS(status);
}

/* kind "": any, for which one it is depends on who comes first. */
static void expect(launcher launch, fault wrong, const char *kind, const char *words) {
  static const char *const seeds[] = {"1", "2", "3", "4", "5"};
  for (size_t i = 0; i < sizeof seeds / sizeof *seeds; ++i) {
    char text[2048], begin[64];
    const int code = run_apart(launch, wrong, seeds[i], text, sizeof text);
    (void)snprintf(begin, sizeof begin, "simgpu: %s", kind);
    if (code != FINDING_EXIT || strstr(text, begin) == NULL || strstr(text, words) == NULL) {
      fail_msg("fault %d, seed %s: code %d, \"%s\" where %s\"%s\" should be", (int)wrong, seeds[i],
               code, text, begin, words);
    }
  }
}

static void right_kernels_pass(void **unused) {
  (void)unused;
  char text[2048];
  assert_int_equal(run_apart(broken_reverse, FAULT_NONE, "1", text, sizeof text), 0);
  assert_string_equal(text, "");
  assert_int_equal(run_apart(broken_total, FAULT_NONE, "1", text, sizeof text), 0);
  assert_string_equal(text, "");
}

static void barriers(void **unused) {
  (void)unused;
  expect(broken_reverse, FAULT_HALF_BARRIER, "barrier", "does not reach");
  expect(broken_reverse, FAULT_TWO_BARRIERS, "barrier", "different barriers");
  expect(broken_total, FAULT_LANE_MISSING, "barrier", "does not reach");
  expect(broken_total, FAULT_LANE_UNMASKED, "barrier", "mask");
}

static void races(void **unused) {
  (void)unused;
  expect(broken_reverse, FAULT_NO_BARRIER, "", "shared memory");
  expect(broken_reverse, FAULT_SAME_ELEMENT, "race", "broken_reverse_kernel");
  expect(broken_reverse, FAULT_OTHER_BLOCK, "race", "release and acquire");
  expect(broken_total, FAULT_NO_TICKET, "race", "release and acquire");
  expect(broken_total, FAULT_NO_RELEASE, "race", "release and acquire");
  expect(broken_total, FAULT_NO_ACQUIRE, "race", "release and acquire");
  expect(broken_total, FAULT_PLAIN_TICKET, "race", "release and acquire");
}

static void memory_and_shapes(void **unused) {
  (void)unused;
  expect(broken_reverse, FAULT_UNWRITTEN, "uninitialised", "shared memory");
  expect(broken_reverse, FAULT_PAST_THE_END, "bounds", "broken_reverse_kernel");
  expect(broken_reverse, FAULT_WRITE_PAST, "bounds", "broken_reverse_kernel");
  expect(broken_reverse, FAULT_TOO_MANY, "unmodelled", "launch bounds");
  expect(broken_reverse, FAULT_HOST_POINTER, "host_access", "broken_reverse_kernel");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(right_kernels_pass),
      cmocka_unit_test(barriers),
      cmocka_unit_test(races),
      cmocka_unit_test(memory_and_shapes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
