/* See stop.h. Only async-signal-safe calls in the handler. */
#include "world/stop.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

static volatile sig_atomic_t stop_signal;
static volatile sig_atomic_t stop_time; /* tenths of a second, when the first one came */

static int depth; /* catches not yet released; main thread */

static const int caught[] = {SIGTERM, SIGINT, SIGUSR1, SIGHUP};

static bool outlives_terminal; /* nohup has HUP ignored, before the first catch */

static bool is_left_alone(int number) {
  return number == SIGHUP && outlives_terminal;
}

static void note(int number) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  const sig_atomic_t tenths = (sig_atomic_t)(now.tv_sec * 10 + now.tv_nsec / 100000000L);
  if (stop_signal == 0) {
    stop_time = tenths;
    stop_signal = number;
  } else if (tenths - stop_time >= 10) { /* launchers repeat themselves */
    (void)signal(number, SIG_DFL);
    (void)raise(number);
  }
}

lks_status lks_stop_catch(lks_error *err) {
  lks_status st = LKS_OK;
  struct sigaction action;
  if (depth == 0) {
    outlives_terminal = sigaction(SIGHUP, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
  }
  depth += 1;
  memset(&action, 0, sizeof action);
  action.sa_handler = note;
  action.sa_flags = SA_RESTART;
  (void)sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < sizeof caught / sizeof *caught; ++i) {
    if (!is_left_alone(caught[i]) && sigaction(caught[i], &action, NULL) != 0) {
      FAIL(LKS_INTERNAL, NULL, "cannot catch signal %d: %s", caught[i], strerror(errno));
    }
  }
cleanup:
  return st;
}

const char *lks_stop_signal(void) {
  switch (stop_signal) {
  case SIGTERM:
    return "SIGTERM";
  case SIGINT:
    return "SIGINT";
  case SIGUSR1:
    return "SIGUSR1";
  case SIGHUP:
    return "SIGHUP";
  default:
    return NULL;
  }
}

void lks_stop_ignore(void) {
  for (size_t i = 0; i < sizeof caught / sizeof *caught; ++i) {
    (void)signal(caught[i], SIG_IGN);
  }
}

void lks_stop_release(void) {
  depth -= depth > 0;
  if (depth > 0) {
    return;
  }
  for (size_t i = 0; i < sizeof caught / sizeof *caught; ++i) {
    if (!is_left_alone(caught[i])) {
      (void)signal(caught[i], SIG_DFL);
    }
  }
  stop_signal = 0;
}
