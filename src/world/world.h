/* The ranks of a run: communicators, where each runs, and how they agree.
 *
 * MPI begins here. Nothing below this folder includes mpi.h. All communicators are duplicates
 * with MPI_ERRORS_RETURN set. */
#ifndef LKS_WORLD_WORLD_H
#define LKS_WORLD_WORLD_H

#include <mpi.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/text.h"
#include "lockstep/lockstep.h"

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
  bool initialised_mpi;  /* MPI_Init was ours, so is MPI_Finalize */
  char host[64];
  char phase[24];                /* what this rank is doing; copied into errors */
  bool agreed;                   /* the last agreement was on an error: every rank has it */
  atomic_int_fast64_t beats;     /* progress of this rank; see lks_world_beat */
  struct lks_watchdog *watchdog; /* NULL while none runs */
};

/* Names the phase that errors of this rank carry ("data", "step 12"). Local. */
void lks_world_phase(lks_world *world, const char *format, ...) LKS_PRINTF(2, 3);

/* Says that this rank makes progress: call at least every few seconds of work. Local, cheap. */
static inline void lks_world_beat(lks_world *world) {
  world->beats = world->beats + 1;
}

/* Divides the node's cores among its ranks and sets world->threads. asked > 0 wins, then
 * OMP_NUM_THREADS and the BLAS library's variable, then affinity masks: disjoint ones are each
 * rank's own, overlapping ones are shared out. Collective over the node. */
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

#define TRY_MPI(call)                                                                              \
  do {                                                                                             \
    const int mpi_code_ = (call);                                                                  \
    if (mpi_code_ != MPI_SUCCESS) {                                                                \
      st = lks_fail_mpi(err, mpi_code_, #call);                                                    \
      lks_error_frame(err, st, #call, __FILE__, __LINE__);                                         \
      goto cleanup;                                                                                \
    }                                                                                              \
  } while (0)

#endif
