/* A barrier on flags: each rank counts its rounds in a cache line of its own and waits until no
 * peer is behind. Spinning alone starves peers when ranks outnumber cores, so it soon yields. */
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "world/shared.h"

enum { SPINS = 1000 };

static lks_status fail_missing(const lks_barrier *barrier, lks_error *err) {
  char missing[256] = "";
  for (int rank = 0; rank < barrier->size; ++rank) {
    const size_t used = strlen(missing);
    if (atomic_load(&barrier->flags[rank].round) < barrier->round && used + 16 < sizeof missing) {
      (void)snprintf(missing + used, sizeof missing - used, "%s%d", used > 0 ? ", " : "", rank);
    }
  }
  return lks_fail(err, LKS_COMM,
                  "run again to continue from the last checkpoint, or raise run.timeout",
                  "waited %.0f s for local rank %s of this node", barrier->timeout, missing);
}

lks_status lks_barrier_wait(lks_barrier *barrier, lks_error *err) {
  const uint64_t round = ++barrier->round;
  atomic_store_explicit(&barrier->flags[barrier->rank].round, round, memory_order_release);
  double started = 0.0;
  int spins = 0;
  for (int rank = 0; rank < barrier->size; ++rank) {
    while (atomic_load_explicit(&barrier->flags[rank].round, memory_order_acquire) < round) {
      if (++spins <= SPINS) {
        continue;
      }
      (void)sched_yield();
      if (barrier->timeout > 0.0 && spins % 64 == 0) {
        const double now = lks_now();
        started = started > 0.0 ? started : now;
        if (now - started > barrier->timeout) {
          return fail_missing(barrier, err);
        }
      }
    }
  }
  return LKS_OK;
}
