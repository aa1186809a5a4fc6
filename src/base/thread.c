/* See thread.h. */
#include "base/thread.h"

#include <signal.h>
#include <string.h>

lks_status lks_thread_start(pthread_t *thread, void *(*run)(void *), void *user, lks_error *err) {
  lks_status st = LKS_OK;
  sigset_t all, before;
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  const int code = pthread_create(thread, NULL, run, user);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (code != 0) {
    FAIL(LKS_INTERNAL, "raise the limit of processes (ulimit -u)", "cannot start a thread: %s",
         strerror(code));
  }
cleanup:
  return st;
}

void lks_thread_condition(pthread_cond_t *condition) {
  pthread_condattr_t attributes;
  (void)pthread_condattr_init(&attributes);
  (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  (void)pthread_cond_init(condition, &attributes);
  (void)pthread_condattr_destroy(&attributes);
}

struct timespec lks_thread_moment(double seconds) {
  const double longest = 1e9; /* thirty years; far more is more than a time_t holds */
  const double left = seconds < longest ? seconds : longest;
  struct timespec moment;
  (void)clock_gettime(CLOCK_MONOTONIC, &moment);
  moment.tv_sec += (time_t)left;
  moment.tv_nsec += (long)((left - (double)(time_t)left) * 1e9);
  moment.tv_sec += moment.tv_nsec / 1000000000L;
  moment.tv_nsec %= 1000000000L;
  return moment;
}
