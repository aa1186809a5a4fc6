/* See lookout.h. */
#include "world/lookout.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"

struct lks_lookout {
  char *path;
  pthread_t thread;
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  bool ending; /* under the mutex */
  atomic_bool saw;
};

#define PERIOD 0.5 /* seconds */

static void *look(void *user) {
  lks_lookout *lookout = user;
  (void)pthread_mutex_lock(&lookout->mutex);
  while (!lookout->ending && !atomic_load(&lookout->saw)) {
    (void)pthread_mutex_unlock(&lookout->mutex);
    if (access(lookout->path, F_OK) == 0) {
      atomic_store(&lookout->saw, true);
    }
    (void)pthread_mutex_lock(&lookout->mutex);
    const struct timespec until = lks_thread_moment(PERIOD);
    if (!lookout->ending) {
      (void)pthread_cond_timedwait(&lookout->wake, &lookout->mutex, &until);
    }
  }
  (void)pthread_mutex_unlock(&lookout->mutex);
  return NULL;
}

lks_status lks_lookout_start(const char *path, lks_lookout **out, lks_error *err) {
  lks_status st = LKS_OK;
  *out = NULL;
  lks_lookout *lookout = calloc(1, sizeof *lookout);
  TRY_ALLOC(lookout);
  lookout->path = strdup(path);
  TRY_ALLOC(lookout->path);
  (void)pthread_mutex_init(&lookout->mutex, NULL);
  lks_thread_condition(&lookout->wake);
  TRY(lks_thread_start(&lookout->thread, look, lookout, err));
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
