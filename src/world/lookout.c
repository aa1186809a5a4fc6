/* See lookout.h. */
#include "world/lookout.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct lks_lookout {
  char *path;
  pthread_t thread;
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  bool ending; /* under the mutex */
  atomic_bool saw;
};

static const long period_ns = 500000000L;

static void *look(void *user) {
  lks_lookout *lookout = user;
  (void)pthread_mutex_lock(&lookout->mutex);
  while (!lookout->ending && !atomic_load(&lookout->saw)) {
    struct timespec until;
    (void)pthread_mutex_unlock(&lookout->mutex);
    if (access(lookout->path, F_OK) == 0) {
      atomic_store(&lookout->saw, true);
    }
    (void)pthread_mutex_lock(&lookout->mutex);
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += period_ns;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    if (!lookout->ending) {
      (void)pthread_cond_timedwait(&lookout->wake, &lookout->mutex, &until);
    }
  }
  (void)pthread_mutex_unlock(&lookout->mutex);
  return NULL;
}

lks_status lks_lookout_start(const char *path, lks_lookout **out, lks_error *err) {
  lks_status st = LKS_OK;
  sigset_t all, before;
  *out = NULL;
  lks_lookout *lookout = calloc(1, sizeof *lookout);
  TRY_ALLOC(lookout);
  lookout->path = strdup(path);
  TRY_ALLOC(lookout->path);
  (void)pthread_mutex_init(&lookout->mutex, NULL);
  (void)pthread_cond_init(&lookout->wake, NULL);
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  const int code = pthread_create(&lookout->thread, NULL, look, lookout);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (code != 0) {
    FAIL(LKS_INTERNAL, "raise the limit of processes (ulimit -u)", "cannot start a thread: %s",
         strerror(code));
  }
  *out = lookout;
  lookout = NULL;
cleanup:
  if (lookout != NULL) {
    free(lookout->path);
    free(lookout);
  }
  return st;
}

void lks_lookout_stop(lks_lookout **out) {
  lks_lookout *lookout = *out;
  if (lookout == NULL) {
    return;
  }
  *out = NULL;
  (void)pthread_mutex_lock(&lookout->mutex);
  lookout->ending = true;
  (void)pthread_cond_signal(&lookout->wake);
  (void)pthread_mutex_unlock(&lookout->mutex);
  (void)pthread_join(lookout->thread, NULL);
  (void)pthread_cond_destroy(&lookout->wake);
  (void)pthread_mutex_destroy(&lookout->mutex);
  free(lookout->path);
  free(lookout);
}

bool lks_lookout_saw(const lks_lookout *lookout) {
  return lookout != NULL && atomic_load(&lookout->saw);
}
