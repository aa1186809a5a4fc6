/* See watchdog.h.
 *
 * Invariants: the heart is the thread's alone. What the main thread hands over (`orders`) changes
 * under the mutex, and is taken at the next turn. The thread calls nothing that may block but the
 * one write of its last line and MPI_Abort, and both have an executioner behind them. */
#include "world/watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/thread.h"
#include "world/heartbeat.h"
#include "world/lookout.h"
#include "world/stop.h"

/* Seconds: a turn; most that the clock advances in one, so that it stands still while the whole
 * process does (a suspended job); a report may stay unanswered; a ruling of another rank may take
 * to end this one through MPI; the last acts of a process may take. */
#define TURN 0.25
#define MOST_A_TURN 0.5
#define REPORT_PATIENCE 5.0
#define TOLD_PATIENCE 1.5
#define LAST_ACTS 4.0

/* Seconds in which mpirun may itself notice that a node is lost. Told to end the others before, it
 * waits for that node's answer for many minutes. */
#define LAUNCHER_PATIENCE 6.0

/* The first step may take this many timeouts, if it computes. */
#define FIRST_STEP 3.0

/* Share of a core that a thread which computes, or spins, has at least on a crowded host. */
#define LEAST_SHARE 0.02

/* What the main thread wants. */
typedef struct orders {
  bool ending, mpi_over;
  bool meet; /* take the meeting over, once */
  double timeout;
  lks_link *links[2]; /* to hubs; to be taken over, once */
  lks_error failure;  /* LKS_OK: none */
} orders;

/* Signs of progress, and when the last one was seen. */
typedef struct progress {
  int64_t beats, entered, rounds, step;
  int64_t steps;          /* begun, as far as seen */
  int64_t moved;          /* bytes read and written */
  double computed;        /* s of the main thread */
  bool computing;         /* it has, since the look before */
  double looked, changed; /* own clock: at the last look at those two; at the last progress */
  double beaten;          /* own clock: at the last beat */
} progress;

struct lks_watchdog {
  lks_world *world;
  pthread_t thread, main_thread;
  pthread_mutex_t mutex;
  orders orders; /* under the mutex */
  int wake;      /* eventfd */
  lks_heart *heart;
  lks_meeting meeting;  /* the main thread's; the thread reads it when told, and takes listeners */
  lks_lookout *lookout; /* the main thread's */
  bool by_mpirun;       /* it started this rank */
  progress progress;
};

static void wake(struct lks_watchdog *dog) {
  (void)eventfd_write(dog->wake, 1);
}

/* ---- the end */

/* What the last thread does: outlives every stack. */
typedef struct sentence {
  int code;
  double patience;
} sentence;

static void rest(double seconds) {
  struct timespec left = {.tv_sec = (time_t)seconds,
                          .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

static void *execute(void *user) {
  const sentence *passed = user;
  rest(passed->patience);
  _exit(passed->code);
}

/* MPI_Abort may wait for what no longer answers, and a write for a reader that has gone. */
static void call_executioner(sentence *passed) {
  pthread_t thread;
  sigset_t all;
  lks_error unsaid;
  (void)sigfillset(&all); /* this thread has no more use for any either */
  (void)pthread_sigmask(SIG_SETMASK, &all, NULL);
  if (lks_thread_start(&thread, execute, passed, &unsaid) != LKS_OK) {
    _exit(passed->code);
  }
}

static void print_line(const lks_error *error) {
  char line[2048], text[2100];
  lks_error_line(error, line, sizeof line);
  const int length = snprintf(text, sizeof text, "lockstep: error: %s\n", line);
  /* In one piece, and past stdio, whose lock the main thread may hold. */
  const ssize_t written = write(STDERR_FILENO, text, (size_t)length);
  (void)written;
}

/* dog: NULL where none runs. print: no other rank does. */
static _Noreturn void end_process(lks_world *world, struct lks_watchdog *dog,
                                  const lks_error *error, bool print) {
  static sentence passed;
  const bool cut = dog != NULL && lks_heart_cut(dog->heart);
  const double patience = cut && dog->by_mpirun ? LAUNCHER_PATIENCE : 0.0;
  passed = (sentence){.code = lks_exit_code(error->status), .patience = patience + LAST_ACTS};
  lks_stop_ignore(); /* launchers send TERM now */
  call_executioner(&passed);
  if (print) {
    print_line(error);
    if (dog != NULL) {
      lks_heart_tell(dog->heart, error);
    }
  }
  rest(patience);
  if (dog != NULL) { /* held to the end: MPI is not to be finalised meanwhile */
    (void)pthread_mutex_lock(&dog->mutex);
  }
  if (dog == NULL || !dog->orders.mpi_over) {
    (void)MPI_Abort(world->comm, passed.code);
  }
  _exit(passed.code); /* some launchers wait for ever after MPI_Abort */
}

_Noreturn void lks_watchdog_end(lks_world *world, const lks_error *error) {
  struct lks_watchdog *dog = world->watchdog;
  lks_error mine = *error;
  if (mine.rank < 0) {
    mine.rank = world->rank;
    (void)snprintf(mine.host, sizeof mine.host, "%s", world->host);
    (void)snprintf(mine.phase, sizeof mine.phase, "%s", world->phase);
  }
  (void)fflush(stdout);
  if (dog == NULL) {
    end_process(world, NULL, &mine, true);
  }
  (void)pthread_mutex_lock(&dog->mutex);
  dog->orders.failure = mine;
  (void)pthread_mutex_unlock(&dog->mutex);
  wake(dog);
  for (;;) {
    (void)pause(); /* the thread ends the process */
  }
}

/* ---- progress */

/* Bytes this process has read and written so far: of files and pipes; our sockets do not count. */
static int64_t bytes_moved(void) {
  char text[512];
  long long read_bytes = 0, written = 0;
  const int fd = open("/proc/self/io", O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return 0;
  }
  const ssize_t got = read(fd, text, sizeof text - 1);
  (void)close(fd);
  text[got > 0 ? got : 0] = '\0';
  return sscanf(text, "rchar: %lld wchar: %lld", &read_bytes, &written) == 2 ? read_bytes + written
                                                                             : 0;
}

static double computed(pthread_t thread) {
  clockid_t clock;
  struct timespec time;
  if (pthread_getcpuclockid(thread, &clock) != 0 || clock_gettime(clock, &time) != 0) {
    return 0.0;
  }
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* A rank that does not beat: reads or writes much all the same, or is at work on its first step.
 * Looked at once a second or four times a timeout, and only then. */
static bool is_busy(struct lks_watchdog *dog, double now, double timeout) {
  enum { OWN_READING = 512 }; /* of /proc and of the run's lock, in a second */
  progress *p = &dog->progress;
  const double elapsed = now - p->looked;
  if (elapsed < 1.0 && elapsed < 0.25 * timeout) {
    return false;
  }
  const int64_t moved = bytes_moved();
  const double spent = computed(dog->main_thread);
  const bool first_look = p->looked <= p->beaten; /* what came before was accounted for by beats */
  const bool moving = moved - p->moved > OWN_READING && !first_look;
  p->computing = spent - p->computed > LEAST_SHARE * elapsed;
  p->looked = now;
  p->moved = moved;
  p->computed = spent;
  const bool first_step = p->steps == 1 && now - p->beaten < FIRST_STEP * timeout &&
                          !atomic_load(&dog->world->standing.waiting);
  return moving || (first_step && p->computing);
}

static void watch_progress(struct lks_watchdog *dog, double now, double timeout) {
  const lks_standing *standing = &dog->world->standing;
  progress *p = &dog->progress;
  const int64_t beats = atomic_load(&standing->beats), entered = atomic_load(&standing->entered),
                rounds = atomic_load(&standing->rounds);
  const int64_t step = atomic_load(&standing->step);
  if (step != p->step) {
    p->step = step;
    p->steps += 1;
  }
  if (beats != p->beats || entered != p->entered || rounds != p->rounds) {
    p->beats = beats;
    p->entered = entered;
    p->rounds = rounds;
    p->beaten = p->changed = now;
  } else if (is_busy(dog, now, timeout)) {
    p->changed = now;
  }
}

static lks_pulse make_pulse(const struct lks_watchdog *dog, double now) {
  const lks_standing *standing = &dog->world->standing;
  const char *doing = atomic_load(&standing->doing);
  lks_pulse pulse = {.entered = atomic_load(&standing->entered),
                     .rounds = atomic_load(&standing->rounds),
                     .step = atomic_load(&standing->step),
                     .idle = now - dog->progress.changed,
                     .rank = dog->world->rank,
                     .waiting = atomic_load(&standing->waiting),
                     .computing = dog->progress.computing};
  lks_world_shown_phase(dog->world, pulse.phase);
  (void)snprintf(pulse.doing, sizeof pulse.doing, "%s", doing != NULL ? doing : "");
  return pulse;
}

/* ---- the thread */

static orders take_orders(struct lks_watchdog *dog, double now) {
  (void)pthread_mutex_lock(&dog->mutex);
  const orders taken = dog->orders;
  dog->orders.meet = false;
  dog->orders.links[0] = dog->orders.links[1] = NULL;
  (void)pthread_mutex_unlock(&dog->mutex);
  if (taken.meet) {
    lks_heart_meet(dog->heart, &dog->meeting);
  }
  for (int i = 0; i < 2; ++i) {
    if (taken.links[i] != NULL) {
      lks_heart_join(dog->heart, dog->meeting.hubs[i], taken.links[i], now);
    }
  }
  return taken;
}

/* This rank's own failure: told to a hub, which prints it. Where none answers, printed here. */
static void report(struct lks_watchdog *dog, const lks_error *failure, double now,
                   double *reported) {
  if (*reported < 0.0) {
    *reported = now;
    if (!lks_heart_report(dog->heart, failure, now)) {
      end_process(dog->world, dog, failure, true);
    }
  } else if (now - *reported > REPORT_PATIENCE) {
    end_process(dog->world, dog, failure, true);
  }
}

/* The process that judged ends the others through MPI; where it can't, they end themselves. */
static _Noreturn void obey(struct lks_watchdog *dog, lks_ruling ruling, const lks_error *error) {
  if (ruling == LKS_RULING_TOLD) {
    lks_stop_ignore();
    rest(TOLD_PATIENCE);
  }
  end_process(dog->world, dog, error, ruling == LKS_RULING_OURS);
}

static void *watch(void *argument) {
  struct lks_watchdog *dog = argument;
  double now = 0.0, real = lks_now(), reported = -1.0;
  bool farewell = false;
  orders current = take_orders(dog, now);
  while (!current.ending) {
    lks_error error;
    eventfd_t news = 0;
    if (current.failure.status != LKS_OK) {
      report(dog, &current.failure, now, &reported);
    }
    if (current.mpi_over && !farewell) {
      farewell = true;
      lks_heart_tell(dog->heart, NULL);
    }
    watch_progress(dog, now, current.timeout);
    const lks_pulse pulse = make_pulse(dog, now);
    const lks_ruling ruling =
        lks_heart_turn(dog->heart, &pulse, atomic_load(&dog->world->standing.met), now,
                       current.timeout, TURN, dog->wake, &error);
    if (ruling != LKS_RULING_NONE) {
      obey(dog, ruling, &error);
    }
    (void)eventfd_read(dog->wake, &news);
    const double elapsed = lks_now() - real;
    real += elapsed;
    now += elapsed < MOST_A_TURN ? elapsed : MOST_A_TURN;
    current = take_orders(dog, now);
  }
  if (!farewell) {
    lks_heart_tell(dog->heart, NULL);
  }
  return NULL;
}

/* ---- starting and stopping */

static void free_dog(struct lks_watchdog *dog) {
  if (dog->wake >= 0) {
    (void)close(dog->wake);
  }
  lks_lookout_stop(&dog->lookout);
  lks_heart_free(&dog->heart);
  lks_meeting_free(&dog->meeting);
  (void)pthread_mutex_destroy(&dog->mutex);
  free(dog);
}

static lks_status start_thread(lks_world *world, double timeout, lks_error *err) {
  lks_status st = LKS_OK;
  struct lks_watchdog *dog = calloc(1, sizeof *dog);
  TRY_ALLOC(dog);
  dog->world = world;
  dog->main_thread = pthread_self();
  dog->by_mpirun = getenv("OMPI_COMM_WORLD_SIZE") != NULL;
  dog->orders.timeout = timeout;
  dog->meeting = (lks_meeting){.hubs = {-1, -1}, .listeners = {-1, -1}};
  lks_error_clear(&dog->orders.failure);
  (void)pthread_mutex_init(&dog->mutex, NULL);
  dog->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (dog->wake < 0) {
    FAIL(LKS_INTERNAL, "raise the limit of open files (ulimit -n)", "cannot wake the watchdog: %s",
         strerror(errno));
  }
  TRY(lks_heart_make(world, &dog->heart, err));
  TRY(lks_thread_start(&dog->thread, watch, dog, err));
  world->watchdog = dog;
  dog = NULL;
cleanup:
  if (dog != NULL) {
    free_dog(dog);
  }
  return st;
}

lks_status lks_watchdog_start(lks_world *world, double timeout, const char *stop_file,
                              lks_error *err) {
  lks_status st = LKS_OK;
  if (world->watchdog == NULL) {
    TRY(start_thread(world, timeout, err));
  } else {
    (void)pthread_mutex_lock(&world->watchdog->mutex);
    world->watchdog->orders.timeout = timeout;
    (void)pthread_mutex_unlock(&world->watchdog->mutex);
  }
  if (stop_file != NULL && world->rank == 0 && world->watchdog->lookout == NULL) {
    TRY(lks_lookout_start(stop_file, &world->watchdog->lookout, err));
  }
cleanup:
  return st;
}

/* The first rank that missed a hub, told by rank 0. Collective. */
static lks_status warn(lks_world *world, const char *missed, lks_error *err) {
  lks_status st = LKS_OK;
  char text[512] = "";
  const int mine = missed[0] != '\0' ? world->rank : world->size;
  int first = 0;
  (void)snprintf(text, sizeof text, "%s", missed);
  TRY_MPI_WAIT(world, MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, world->comm));
  if (first < world->size) {
    TRY(lks_world_broadcast(world, text, sizeof text, first, err));
    if (world->rank == 0) {
      (void)fprintf(stderr,
                    "lockstep: warning: no heartbeats: %s; a rank that dies is noticed by "
                    "run.timeout alone there; open TCP ports between the nodes\n",
                    text);
    }
  }
cleanup:
  return st;
}

lks_status lks_watchdog_connect(lks_world *world, lks_error *err) {
  lks_status st = LKS_OK;
  struct lks_watchdog *dog = world->watchdog;
  lks_link *links[2] = {NULL, NULL};
  char missed[512];
  if (world->size == 1) {
    goto cleanup;
  }
  TRY(lks_meeting_hold(world, &dog->meeting, err));
  (void)pthread_mutex_lock(&dog->mutex);
  dog->orders.meet = true;
  (void)pthread_mutex_unlock(&dog->mutex);
  wake(dog);
  lks_meeting_call(world, &dog->meeting, links, missed, sizeof missed);
  (void)pthread_mutex_lock(&dog->mutex);
  memcpy(dog->orders.links, links, sizeof links);
  (void)pthread_mutex_unlock(&dog->mutex);
  wake(dog);
  TRY(warn(world, missed, err));
cleanup:
  return st;
}

void lks_watchdog_leave_mpi(lks_world *world) {
  struct lks_watchdog *dog = world->watchdog;
  if (dog != NULL) {
    (void)pthread_mutex_lock(&dog->mutex);
    dog->orders.mpi_over = true;
    (void)pthread_mutex_unlock(&dog->mutex);
    wake(dog);
  }
}

void lks_watchdog_stop(lks_world *world) {
  struct lks_watchdog *dog = world->watchdog;
  if (dog == NULL) {
    return;
  }
  (void)pthread_mutex_lock(&dog->mutex);
  dog->orders.ending = true;
  (void)pthread_mutex_unlock(&dog->mutex);
  wake(dog);
  (void)pthread_join(dog->thread, NULL);
  free_dog(dog);
  world->watchdog = NULL;
}

bool lks_watchdog_saw_stop_file(const lks_world *world) {
  return world->watchdog != NULL && lks_lookout_saw(world->watchdog->lookout);
}
