/* The ranks of a run: communicators, where each runs, how they agree, and what each is doing.
 *
 * MPI begins here. Nothing below this folder includes mpi.h. All communicators are duplicates
 * with MPI_ERRORS_RETURN set. What a rank is doing is written by its main thread alone and read by
 * its watchdog, so it is atomic. */
#ifndef LKS_WORLD_WORLD_H
#define LKS_WORLD_WORLD_H

#include <mpi.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/text.h"
#include "lockstep/lockstep.h"

/* Where a rank stands, for the watchdogs of all ranks. */
typedef struct lks_standing {
  atomic_int_fast64_t beats;     /* any progress */
  atomic_int_fast64_t step;      /* update under way, from 1; 0: before the first */
  atomic_int_fast64_t entered;   /* waits of the whole world begun: who has fewest is behind */
  atomic_int_fast64_t rounds;    /* barriers of the node begun: the same within it; or steps that a
                                    leader has done, and its followers wait for or have */
  atomic_int_fast64_t met;       /* waits ended: all ranks were alive then, or not long before */
  atomic_bool waiting;           /* inside such a wait: others make the progress */
  _Atomic(const char *) doing;   /* a literal; NULL: nothing said */
  atomic_uint_fast64_t phase[3]; /* copy of lks_world.phase */
  atomic_uint_fast64_t phase_versions; /* odd while the copy is being written */
} lks_standing;

struct lks_world {
  MPI_Comm comm;  /* all ranks */
  MPI_Comm node;  /* ranks that share memory with this one */
  MPI_Comm slice; /* ranks of the same local rank below `slices`, one a node, in node order;
                     MPI_COMM_NULL where this rank owns no slice */
  int rank, size;
  int local_rank, local_size;
  int node_index, nodes; /* nodes are numbered by their lowest rank */
  int slices;            /* smallest local_size of any node */
  int threads;           /* BLAS threads of this rank */
  int cores;             /* cores in this rank's affinity mask */
  int node_cores;        /* in those of the node's ranks together; 0: not known yet */
  bool initialised_mpi;  /* MPI_Init was ours, so is MPI_Finalize */
  char host[64];
  char phase[24];                /* what this rank is doing; copied into errors */
  bool agreed;                   /* the last agreement was on an error: every rank has it */
  lks_standing standing;         /* see lks_world_beat and its kin */
  struct lks_watchdog *watchdog; /* NULL while none runs */
};

/* Whether all ranks share memory, as one does with itself. Local. */
static inline bool lks_world_shares(const lks_world *world) {
  return world->nodes == 1;
}

/* Names the phase that errors of this rank carry ("data", "step 12"). Local, main thread. */
void lks_world_phase(lks_world *world, const char *format, ...) LKS_PRINTF(2, 3);

/* The phase as another thread of this process may read it. */
void lks_world_shown_phase(const lks_world *world, char out[24]);

static inline void lks_count_up(atomic_int_fast64_t *count) {
  /* One writer: no read-modify-write instruction is needed. */
  atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1,
                        memory_order_relaxed);
}

/* Says that this rank makes progress: call at least every few seconds of work. Local, cheap, main
 * thread, like those below. */
static inline void lks_world_beat(lks_world *world) {
  lks_count_up(&world->standing.beats);
}

/* Says what the rank is at, for the line that tells where it was last seen: a literal such as
 * "reading rows"; NULL: no more. */
static inline void lks_world_doing(lks_world *world, const char *what) {
  atomic_store_explicit(&world->standing.doing, what, memory_order_relaxed);
}

/* The update that begins, from 1. A beat too. */
static inline void lks_world_step(lks_world *world, int64_t step) {
  atomic_store_explicit(&world->standing.step, step, memory_order_relaxed);
  lks_world_beat(world);
}

/* Around every wait for other ranks. A rank that waits is not blamed while another makes progress;
 * so do nothing else in between. Pairs do not nest. _begin is for waits that all ranks of the world
 * enter, and counts them; lks_world_waits for those of some. NULL: ranks that no watchdog knows. */
static inline void lks_world_waits(lks_world *world) {
  if (world != NULL) {
    atomic_store_explicit(&world->standing.waiting, true, memory_order_relaxed);
  }
}
static inline void lks_world_wait_begin(lks_world *world) {
  if (world != NULL) {
    lks_count_up(&world->standing.entered);
    lks_world_waits(world);
  }
}
static inline void lks_world_wait_end(lks_world *world) {
  if (world != NULL) {
    atomic_store_explicit(&world->standing.waiting, false, memory_order_relaxed);
    lks_count_up(&world->standing.met);
    lks_world_beat(world);
  }
}

/* Says that all ranks were alive a moment ago: their sum has come. */
static inline void lks_world_met(lks_world *world) {
  lks_count_up(&world->standing.met);
}

/* Divides the node's cores among its ranks and sets world->threads, cores and node_cores. asked > 0
 * wins, then OMP_NUM_THREADS and the BLAS library's variable, then affinity masks: disjoint ones
 * are each rank's own, overlapping ones are shared out. Collective over the node. */
lks_status lks_world_place_threads(lks_world *world, int asked, lks_error *err) LKS_MUST_USE;

/* The end of a phase: every rank gives its status; all get the worst one, with the error of the
 * lowest rank that has it in *err. One small allreduce when all is well. Collective. */
lks_status lks_agree(lks_world *world, lks_status mine, lks_error *err) LKS_MUST_USE;

/* Refuses ranks whose text differs from rank 0's (build id, configuration): LKS_COMM naming what,
 * both ranks and hosts. Collective. */
lks_status lks_world_same(lks_world *world, const char *what, const char *text,
                          lks_error *err) LKS_MUST_USE;

/* Root's bytes to all, any size. Collective. */
lks_status lks_world_broadcast(lks_world *world, void *data, size_t bytes, int root,
                               lks_error *err) LKS_MUST_USE;

/* Gathers `bytes` of every rank to all, in rank order: out holds size * bytes. Collective. */
lks_status lks_world_gather(lks_world *world, const void *mine, size_t bytes, void *out,
                            lks_error *err) LKS_MUST_USE;

/* Text about MPI for --version --verbose: library version and standard, in out. Local. */
void lks_world_versions(char *out, size_t size);

/* Turns an MPI return code into an error (LKS_COMM) with MPI's own words. */
lks_status lks_fail_mpi(lks_error *err, int code, const char *expression) LKS_MUST_USE;

#define TRY_MPI_CODE(code, text)                                                                   \
  do {                                                                                             \
    const int mpi_code_ = (code);                                                                  \
    if (mpi_code_ != MPI_SUCCESS) {                                                                \
      st = lks_fail_mpi(err, mpi_code_, text);                                                     \
      lks_error_frame(err, st, text, __FILE__, __LINE__);                                          \
      goto cleanup;                                                                                \
    }                                                                                              \
  } while (0)

#define TRY_MPI(call) TRY_MPI_CODE(call, #call)

/* The same for a call that waits for other ranks. */
#define TRY_MPI_WAIT(world, call)                                                                  \
  do {                                                                                             \
    lks_world_wait_begin(world);                                                                   \
    const int mpi_waited_ = (call);                                                                \
    lks_world_wait_end(world);                                                                     \
    TRY_MPI_CODE(mpi_waited_, #call);                                                              \
  } while (0)

#endif
