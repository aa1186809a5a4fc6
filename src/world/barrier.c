/* A barrier on flags: each rank counts its rounds in a cache line of its own and waits until no
 * peer is behind. Spinning alone starves peers when ranks outnumber cores, so it yields then. */
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "world/shared.h"

/* Looks before the core is offered to others: some tens of microseconds, more than most waits; but
 * hardly any where others surely want the core (docs/performance.md, "Waiting"). */
enum { LOOKS = 1000, LOOKS_IN_A_CROWD = 30 };

static void count_crowd(lks_barrier *barrier, int64_t cores) {
  barrier->crowded = barrier->size > cores;
  barrier->looks = barrier->crowded ? LOOKS_IN_A_CROWD : LOOKS;
}

lks_barrier lks_barrier_make(lks_barrier_flag *flags, int rank, int size, double timeout) {
  lks_barrier barrier = {.flags = flags, .rank = rank, .size = size, .timeout = timeout};
  count_crowd(&barrier, sysconf(_SC_NPROCESSORS_ONLN));
  return barrier;
}

void lks_barrier_join(lks_barrier *barrier, lks_world *world) {
  barrier->world = world;
  if (world->node_cores > 0) {
    count_crowd(barrier, world->node_cores);
  }
}

/* A look that found nothing: lets the other thread of the core, where there is one, and its
 * memory alone for a moment. */
static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* Where a watchdog runs, it is the one deadline. */
static double timeout_of(const lks_barrier *barrier) {
  return barrier->world != NULL && barrier->world->watchdog != NULL ? 0.0 : barrier->timeout;
}

/* pauses: between looks. False: the timeout passed. */
static bool wait_until(const lks_barrier *barrier, const atomic_uint_fast64_t *counter,
                       uint64_t least, int pauses) {
  const double timeout = timeout_of(barrier);
  double started = 0.0;
  for (int64_t looks = 1; atomic_load_explicit(counter, memory_order_acquire) < least; ++looks) {
    for (int pause = 0; pause < pauses; ++pause) {
      relax();
    }
    if (looks <= barrier->looks / pauses) {
      continue;
    }
    (void)sched_yield();
    if (timeout > 0.0 && looks % 64 == 0) {
      const double now = lks_now();
      started = started > 0.0 ? started : now;
      if (now - started > timeout) {
        return false;
      }
    }
  }
  return true;
}

static lks_status fail(const lks_barrier *barrier, const char *missing, lks_error *err) {
  return lks_fail(err, LKS_COMM,
                  "run again to continue from the last checkpoint, or raise run.timeout",
                  "waited %.0f s for local rank %s of this node", barrier->timeout, missing);
}

static lks_status fail_missing(const lks_barrier *barrier, lks_error *err) {
  char missing[256] = "";
  for (int rank = 0; rank < barrier->size; ++rank) {
    const size_t used = strlen(missing);
    if (atomic_load(&barrier->flags[rank].round) < barrier->round && used + 16 < sizeof missing) {
      (void)snprintf(missing + used, sizeof missing - used, "%s%d", used > 0 ? ", " : "", rank);
    }
  }
  return fail(barrier, missing, err);
}

lks_status lks_barrier_wait(lks_barrier *barrier, lks_error *err) {
  lks_status st = LKS_OK;
  barrier->round += 1;
  atomic_store_explicit(&barrier->flags[barrier->rank].round, barrier->round, memory_order_release);
  if (barrier->world != NULL) {
    lks_count_up(&barrier->world->standing.rounds);
  }
  lks_world_waits(barrier->world);
  for (int rank = 0; rank < barrier->size && st == LKS_OK; ++rank) {
    if (!wait_until(barrier, &barrier->flags[rank].round, barrier->round, 1)) {
      st = fail_missing(barrier, err);
    }
  }
  lks_world_wait_end(barrier->world);
  return st;
}

/* Pauses between the looks of a rank that follows. With 64 the leader's steps of `seed` took 2 %
 * less than with 1 (medians of 796 epochs of each in turn); 16 and 256 gained half of that. */
enum { SELDOM = 64 };

lks_status lks_barrier_await(const lks_barrier *barrier, const atomic_uint_fast64_t *counter,
                             uint64_t least, bool seldom, int whose, lks_error *err) {
  lks_status st = LKS_OK;
  char rank[16];
  lks_world_waits(barrier->world);
  if (!wait_until(barrier, counter, least, seldom && barrier->looks > SELDOM ? SELDOM : 1)) {
    (void)snprintf(rank, sizeof rank, "%d", whose);
    st = fail(barrier, rank, err);
  }
  lks_world_wait_end(barrier->world);
  return st;
}
