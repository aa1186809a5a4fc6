/* How many BLAS threads each rank of a node may use. The program pins nothing. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "world/world.h"

enum { MAX_CPUS = 4096 };

typedef struct mask {
  unsigned char cpus[MAX_CPUS / 8];
} mask;

static void own_mask(mask *out) {
  memset(out, 0, sizeof *out);
  cpu_set_t *set = CPU_ALLOC(MAX_CPUS);
  if (set == NULL) {
    return;
  }
  const size_t bytes = CPU_ALLOC_SIZE(MAX_CPUS);
  if (sched_getaffinity(0, bytes, set) == 0) {
    for (size_t cpu = 0; cpu < MAX_CPUS; ++cpu) {
      if (CPU_ISSET_S(cpu, bytes, set)) {
        out->cpus[cpu / 8] |= (unsigned char)(1u << (cpu % 8));
      }
    }
  }
  CPU_FREE(set);
}

static int count_cpus(const mask *m) {
  int count = 0;
  for (int cpu = 0; cpu < MAX_CPUS; ++cpu) {
    count += m->cpus[cpu / 8] >> (cpu % 8) & 1;
  }
  return count;
}

/* Fills world->cores and node_cores. Returns the cores that this rank may use alone: its own when
 * the masks are disjoint, else its part of their union. */
static int share_of(const mask *masks, lks_world *world) {
  mask seen;
  memset(&seen, 0, sizeof seen);
  bool disjoint = true;
  for (int rank = 0; rank < world->local_size; ++rank) {
    for (size_t i = 0; i < sizeof seen.cpus; ++i) {
      disjoint = disjoint && (seen.cpus[i] & masks[rank].cpus[i]) == 0;
      seen.cpus[i] |= masks[rank].cpus[i];
    }
  }
  world->cores = count_cpus(&masks[world->local_rank]);
  world->node_cores = count_cpus(&seen);
  const int share = disjoint ? world->cores : world->node_cores / world->local_size;
  return share > 0 ? share : 1;
}

/* A number of threads stated in the environment; 0: none. */
static int stated_threads(void) {
  static const char *const names[] = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                                      "BLIS_NUM_THREADS"};
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    const char *text = getenv(names[i]);
    int64_t threads = 0;
    if (text != NULL && lks_parse_int64(text, &threads) && threads > 0 && threads <= MAX_CPUS) {
      return (int)threads;
    }
  }
  return 0;
}

lks_status lks_world_place_threads(lks_world *world, int asked, lks_error *err) {
  lks_status st = LKS_OK;
  mask mine, *all = malloc((size_t)world->local_size * sizeof *all);
  if (all == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for affinity masks");
  }
  TRY(lks_agree(world, st, err));
  own_mask(&mine);
  TRY_MPI(MPI_Allgather(&mine, (int)sizeof mine, MPI_BYTE, all, (int)sizeof mine, MPI_BYTE,
                        world->node));
  const int stated = stated_threads(), share = share_of(all, world);
  world->threads = asked > 0 ? asked : stated > 0 ? stated : share;
cleanup:
  free(all);
  return st;
}
