/* See starting.h. Like the watchdog, it may end the process: nobody else can. */
#include "world/starting.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct lks_starting {
  pthread_t thread;
  pthread_mutex_t mutex;
  pthread_cond_t ended;
  bool done;
  double timeout;
};

/* The first rank tells; the others wait a little longer, and tell where it does not: the launcher
 * ends them before that when it did. */
#define OTHERS_LATER 4.0

/* Seconds that starting has at least, however short the timeout: a connection to a node whose
 * network has just come back may take half a minute. */
#define LEAST 30.0

static bool is_first_rank(void) {
  static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"};
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    const char *value = getenv(names[i]);
    if (value != NULL) {
      return strcmp(value, "0") == 0;
    }
  }
  return true;
}

static _Noreturn void give_up(double timeout) {
  char line[512], host[64] = "";
  (void)gethostname(host, sizeof host - 1);
  const int length = snprintf(
      line, sizeof line,
      "lockstep: error: MPI has not started within %.0f s: a rank is stopped or could not begin, "
      "or "
      "a host does not answer [%s, starting]; look at the hosts of this job, and run again\n",
      timeout, host);
  (void)!write(STDERR_FILENO, line, (size_t)length);
  _exit(lks_exit_code(LKS_COMM));
}

static void *watch(void *argument) {
  lks_starting *starting = argument;
  const double seconds = starting->timeout + (is_first_rank() ? 0.0 : OTHERS_LATER);
  struct timespec until;
  (void)clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += (time_t)seconds;
  until.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
  until.tv_sec += until.tv_nsec / 1000000000L;
  until.tv_nsec %= 1000000000L;
  int code = 0;
  (void)pthread_mutex_lock(&starting->mutex);
  while (!starting->done && code == 0) {
    code = pthread_cond_timedwait(&starting->ended, &starting->mutex, &until);
  }
  const bool done = starting->done;
  (void)pthread_mutex_unlock(&starting->mutex);
  if (!done) {
    give_up(starting->timeout);
  }
  return NULL;
}

lks_status lks_starting_begin(double timeout, lks_starting **out, lks_error *err) {
  lks_status st = LKS_OK;
  pthread_condattr_t attributes;
  sigset_t all, before;
  *out = NULL;
  if (timeout <= 0.0) {
    return LKS_OK;
  }
  lks_starting *starting = calloc(1, sizeof *starting);
  TRY_ALLOC(starting);
  starting->timeout = timeout > LEAST ? timeout : LEAST;
  (void)pthread_mutex_init(&starting->mutex, NULL);
  (void)pthread_condattr_init(&attributes);
  (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  (void)pthread_cond_init(&starting->ended, &attributes);
  (void)pthread_condattr_destroy(&attributes);
  (void)sigfillset(&all); /* signals are the main thread's */
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  const int code = pthread_create(&starting->thread, NULL, watch, starting);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (code != 0) {
    FAIL(LKS_INTERNAL, "raise the limit of processes (ulimit -u)", "cannot start a thread: %s",
         strerror(code));
  }
  *out = starting;
  starting = NULL;
cleanup:
  free(starting);
  return st;
}

void lks_starting_end(lks_starting **out) {
  lks_starting *starting = *out;
  if (starting == NULL) {
    return;
  }
  (void)pthread_mutex_lock(&starting->mutex);
  starting->done = true;
  (void)pthread_cond_signal(&starting->ended);
  (void)pthread_mutex_unlock(&starting->mutex);
  (void)pthread_join(starting->thread, NULL);
  (void)pthread_cond_destroy(&starting->ended);
  (void)pthread_mutex_destroy(&starting->mutex);
  free(starting);
  *out = NULL;
}
