/* See starting.h. Like the watchdog, it may end the process: nobody else can. */
#include "world/starting.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/thread.h"

struct lks_starting {
  pthread_t thread;
  pthread_mutex_t mutex;
  pthread_cond_t ended;
  bool done;
  double timeout; /* seconds, as it is told */
  double late;    /* seconds that this rank waits longer */
};

/* The first rank tells; the others wait a little longer, and tell where it does not: the launcher
 * ends them before that when it did. */
#define OTHERS_LATER 4.0

/* Seconds that starting has at least, however short the timeout: to a node whose network has just
 * come back, TCP asks again after 1, 3, 7, 15 and 31 s. */
#define LEAST 35.0

/* Bytes of address space that starting has at least. With less than half of it left, Open MPI's
 * components, the shared memory and the first threads found no room, and some crashed or waited. */
#define ROOM ((size_t)128 << 20)

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
  (void)snprintf(
      line, sizeof line,
      "lockstep: error: MPI has not started within %.0f s: a rank is stopped or could not begin, "
      "or "
      "a host does not answer [%s, starting]; look at the hosts of this job, and run again\n",
      timeout, host);
  (void)!write(STDERR_FILENO, line, strnlen(line, sizeof line));
  _exit(lks_exit_code(LKS_COMM));
}

static void *watch(void *argument) {
  lks_starting *starting = argument;
  const double seconds = starting->timeout + starting->late;
  const struct timespec until = lks_thread_moment(seconds);
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

/* Where MPI and its libraries do not fit a limit of address space, MPI_Init ends the process in
 * words of its own, or never. What is mapped here is given back at once. */
static lks_status check_room(lks_error *err) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return LKS_OK;
  }
  void *room = mmap(NULL, ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) {
    return lks_fail(err, LKS_NO_MEMORY,
                    "raise it (ulimit -v unlimited; in a batch job ask for more memory)",
                    "the limit of address space, %llu MiB, leaves less than the %zu MiB that MPI "
                    "and the first buffers take",
                    (unsigned long long)limit.rlim_cur >> 20, ROOM >> 20);
  }
  (void)munmap(room, ROOM);
  return LKS_OK;
}

lks_status lks_starting_begin(double timeout, lks_starting **out, lks_error *err) {
  lks_status st = LKS_OK;
  lks_starting *starting = NULL;
  *out = NULL;
  TRY(check_room(err));
  if (timeout <= 0.0) {
    return LKS_OK;
  }
  starting = calloc(1, sizeof *starting);
  TRY_ALLOC(starting);
  starting->timeout = timeout > LEAST ? timeout : LEAST;
  starting->late = is_first_rank() ? 0.0 : OTHERS_LATER;
  (void)pthread_mutex_init(&starting->mutex, NULL);
  lks_thread_condition(&starting->ended);
  TRY(lks_thread_start(&starting->thread, watch, starting, err));
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
