/* See watchdog.h. */
#include "world/watchdog.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct lks_watchdog {
  lks_world *world;
  pthread_t thread;
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  bool ending;
  double timeout;
  char *stop_file;
  atomic_bool saw_stop_file;
};

/* Seconds between two looks at the heartbeat. */
#define PERIOD 0.5

/* What waits inside the run (a barrier) gives up at the timeout with a better message; the
 * watchdog is for what cannot. */
#define GRACE 3.0

_Noreturn void lks_watchdog_end(lks_world *world, const lks_error *error) {
  lks_error mine = *error;
  if (mine.rank < 0) {
    mine.rank = world->rank;
    (void)snprintf(mine.host, sizeof mine.host, "%s", world->host);
    (void)snprintf(mine.phase, sizeof mine.phase, "%s", world->phase);
  }
  char line[2048];
  lks_error_line(&mine, line, sizeof line);
  (void)fprintf(stderr, "lockstep: error: %s\n", line);
  (void)fflush(stderr);
  (void)MPI_Abort(world->comm, lks_exit_code(mine.status));
  _exit(lks_exit_code(mine.status)); /* some launchers wait for ever after MPI_Abort */
}

static void sleep_or_wake(struct lks_watchdog *dog) {
  struct timespec until;
  (void)clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += (long)(PERIOD * 1e9);
  until.tv_sec += until.tv_nsec / 1000000000L;
  until.tv_nsec %= 1000000000L;
  (void)pthread_cond_timedwait(&dog->wake, &dog->mutex, &until);
}

static _Noreturn void give_up(struct lks_watchdog *dog, double seconds) {
  lks_error error, *err = &error;
  lks_error_clear(err);
  const lks_status st = lks_fail(
      err, LKS_COMM,
      "a peer or a file system may be stuck; run again to continue from the last checkpoint, or "
      "raise run.timeout",
      "no progress for %.0f s while in %s", seconds, dog->world->phase);
  error.status = st;
  lks_watchdog_end(dog->world, err);
}

static void *watch(void *argument) {
  struct lks_watchdog *dog = argument;
  int64_t beats = atomic_load(&dog->world->beats);
  double beat_time = lks_now();
  (void)pthread_mutex_lock(&dog->mutex);
  while (!dog->ending) {
    sleep_or_wake(dog);
    const double now = lks_now();
    const int64_t seen = atomic_load(&dog->world->beats);
    if (seen != beats) {
      beats = seen;
      beat_time = now;
    }
    if (dog->stop_file != NULL && !atomic_load(&dog->saw_stop_file) &&
        access(dog->stop_file, F_OK) == 0) {
      atomic_store(&dog->saw_stop_file, true);
    }
    if (!dog->ending && dog->timeout > 0.0 && now - beat_time > dog->timeout + GRACE) {
      give_up(dog, now - beat_time);
    }
  }
  (void)pthread_mutex_unlock(&dog->mutex);
  return NULL;
}

lks_status lks_watchdog_start(lks_world *world, double timeout, const char *stop_file,
                              lks_error *err) {
  lks_status st = LKS_OK;
  struct lks_watchdog *dog = calloc(1, sizeof *dog);
  TRY_ALLOC(dog);
  dog->world = world;
  dog->timeout = timeout;
  if (stop_file != NULL && world->rank == 0) {
    dog->stop_file = strdup(stop_file);
    TRY_ALLOC(dog->stop_file);
  }
  (void)pthread_mutex_init(&dog->mutex, NULL);
  (void)pthread_cond_init(&dog->wake, NULL);
  const int code = pthread_create(&dog->thread, NULL, watch, dog);
  if (code != 0) {
    FAIL(LKS_INTERNAL, "raise the limit of processes (ulimit -u)", "cannot start a thread: %s",
         strerror(code));
  }
  world->watchdog = dog;
  dog = NULL;
cleanup:
  if (dog != NULL) {
    free(dog->stop_file);
    free(dog);
  }
  return st;
}

void lks_watchdog_stop(lks_world *world) {
  struct lks_watchdog *dog = world->watchdog;
  if (dog == NULL) {
    return;
  }
  (void)pthread_mutex_lock(&dog->mutex);
  dog->ending = true;
  (void)pthread_cond_signal(&dog->wake);
  (void)pthread_mutex_unlock(&dog->mutex);
  (void)pthread_join(dog->thread, NULL);
  (void)pthread_cond_destroy(&dog->wake);
  (void)pthread_mutex_destroy(&dog->mutex);
  free(dog->stop_file);
  free(dog);
  world->watchdog = NULL;
}

bool lks_watchdog_saw_stop_file(const lks_world *world) {
  return world->watchdog != NULL && atomic_load(&world->watchdog->saw_stop_file);
}
