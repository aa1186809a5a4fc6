/* A barrier on flags: each rank counts its rounds in a cache line of its own and waits until no
 * peer is behind. Spinning alone starves peers when ranks outnumber cores, so it soon yields. */
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "world/shared.h"

enum { SPINS = 1000 };

static lks_status fail_missing(const lks_barrier *barrier, uint64_t round, lks_error *err) {
  char missing[256] = "";
  for (int rank = 0; rank < barrier->size; ++rank) {
    const size_t used = strlen(missing);
    if (atomic_load(&barrier->flags[rank].round) < round && used + 16 < sizeof missing) {
      (void)snprintf(missing + used, sizeof missing - used, "%s%d", used > 0 ? ", " : "", rank);
    }
  }
  return lks_fail(err, LKS_COMM,
                  "run again to continue from the last checkpoint, or raise run.timeout",
                  "waited %.0f s for local rank %s of this node", barrier->timeout, missing);
}

static lks_status wait_for_all(const lks_barrier *barrier, uint64_t round, double timeout,
                               lks_error *err) {
  double started = 0.0;
  int spins = 0;
  for (int rank = 0; rank < barrier->size; ++rank) {
    while (atomic_load_explicit(&barrier->flags[rank].round, memory_order_acquire) < round) {
      if (++spins <= SPINS) {
        continue;
      }
      (void)sched_yield();
      if (timeout > 0.0 && spins % 64 == 0) {
        const double now = lks_now();
        started = started > 0.0 ? started : now;
        if (now - started > timeout) {
          return fail_missing(barrier, round, err);
        }
      }
    }
  }
  return LKS_OK;
}

void lks_barrier_arrive(lks_barrier *barrier) {
  barrier->round += 1;
  atomic_store_explicit(&barrier->flags[barrier->rank].round, barrier->round, memory_order_release);
  if (barrier->world != NULL) {
    lks_count_up(&barrier->world->standing.rounds);
  }
}

lks_status lks_barrier_await(lks_barrier *barrier, uint64_t round, lks_error *err) {
  lks_world *world = barrier->world;
  if (world == NULL) {
    return wait_for_all(barrier, round, barrier->timeout, err);
  }
  lks_world_waits(world);
  const lks_status st =
      wait_for_all(barrier, round, world->watchdog != NULL ? 0.0 : barrier->timeout, err);
  lks_world_wait_end(world);
  return st;
}

lks_status lks_barrier_wait(lks_barrier *barrier, lks_error *err) {
  lks_barrier_arrive(barrier);
  return lks_barrier_await(barrier, barrier->round, err);
}
