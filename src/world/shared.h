/* Memory that the ranks of a node share: one MPI window, populated at once.
 *
 * Every rank sees the same bytes. The free space of /dev/shm is compared, or the pages populated,
 * before the window is used, for a small /dev/shm gives SIGBUS later otherwise. */
#ifndef LKS_WORLD_SHARED_H
#define LKS_WORLD_SHARED_H

#include <stdatomic.h>
#include <stddef.h>

#include "world/world.h"

typedef struct lks_shared {
  void *base; /* `bytes` bytes, zeroed, 4096-byte aligned, the same memory on all ranks of node */
  size_t bytes;
  MPI_Win window; /* MPI_WIN_NULL when a single rank's private memory serves */
} lks_shared;

/* Makes the window. Refused on all ranks of the node alike (LKS_NO_MEMORY, naming bytes wanted and
 * free) when it does not fit. Collective over the node. */
lks_status lks_shared_open(lks_world *world, size_t bytes, lks_shared *shared,
                           lks_error *err) LKS_MUST_USE;
void lks_shared_close(lks_shared *shared); /* collective over the node */

/* Barrier of the node's ranks on flags in shared memory: no message, no system call. Spins, then
 * yields and looks at the deadline. Ranks may be threads: nothing in it is MPI. */
typedef struct lks_barrier_flag {
  _Alignas(64) atomic_uint_fast64_t round;
} lks_barrier_flag;

typedef struct lks_barrier {
  lks_barrier_flag *flags; /* [size], in shared memory, zero at first */
  int rank, size;
  uint64_t round;   /* rounds this rank has entered */
  bool crowded;     /* ranks outnumber cores */
  int looks;        /* before the core is offered to others */
  double timeout;   /* seconds; 0: none. Where a watchdog runs, it is the one deadline */
  lks_world *world; /* whose watchdog that is; NULL: none */
} lks_barrier;

/* flags: [size], zeroed, shared by the `size` ranks of a node. */
lks_barrier lks_barrier_make(lks_barrier_flag *flags, int rank, int size, double timeout);

/* From now on the world's watchdog is the deadline, and the cores are those that the ranks of the
 * node may run on (lks_world_place_threads), where there may be others. */
void lks_barrier_join(lks_barrier *barrier, lks_world *world);

/* Waits for all. Without a watchdog: LKS_COMM naming the local ranks not there when the timeout
 * passes. */
lks_status lks_barrier_wait(lks_barrier *barrier, lks_error *err) LKS_MUST_USE;

/* Waits, as the barrier does, until *counter, in shared memory, is `least`: local rank `whose`
 * counts it up. seldom: nobody waits for this rank, which so leaves the counter's line to the core
 * that writes it. Errors as above. */
lks_status lks_barrier_await(const lks_barrier *barrier, const atomic_uint_fast64_t *counter,
                             uint64_t least, bool seldom, int whose, lks_error *err) LKS_MUST_USE;

#endif
