/* Memory of a node: how much may hold rows, and blocks of it that the node's ranks share.
 *
 * Where /dev/shm is too small for a block, each rank keeps a copy of its own, if the budget allows
 * for all of them: slower to fill, the same result. */
#ifndef LKS_DATA_MEMORY_H
#define LKS_DATA_MEMORY_H

#include "world/shared.h"
#include "world/world.h"

/* The same numbers on every rank of every node, so that all decide alike. */
typedef struct lks_budget {
  int64_t limit;  /* bytes a node may use */
  int64_t shared; /* bytes that fit in the smallest node's /dev/shm; INT64_MAX: not known */
  int64_t ranks;  /* on the fullest node */
} lks_budget;

/* asked: data.memory_per_node; 0 takes half of what is free, within the control group's limit
 * too (a batch system's). Collective. */
lks_status lks_budget_open(lks_world *world, int64_t asked, lks_budget *budget,
                           lks_error *err) LKS_MUST_USE;

/* Whether that many bytes in all fit the node, as one copy or, beyond /dev/shm, a copy a rank. */
bool lks_budget_fits(const lks_budget *budget, int64_t bytes);

typedef struct lks_memory {
  void *base; /* zeroed */
  size_t bytes;
  int part, parts; /* this rank fills part `part` of `parts`; 0 of 1 when it has its own copy */
  bool copied;     /* each rank of the node has its own */
  lks_shared shared;
} lks_memory;

/* LKS_NO_MEMORY, on all ranks of the node alike, when neither way fits. Collective over the node.
 */
lks_status lks_memory_open(lks_world *world, const lks_budget *budget, size_t bytes,
                           lks_memory *memory, lks_error *err) LKS_MUST_USE;
void lks_memory_close(lks_memory *memory); /* collective over the node */

/* Bytes that the node holds for this block. */
int64_t lks_memory_held(const lks_world *world, const lks_memory *memory);

/* Bytes free on this machine, within control groups. Exposed for the test: reads `meminfo`
 * (/proc/meminfo) and the control groups that `cgroup` (/proc/self/cgroup) names under `root`
 * (/sys/fs/cgroup). -1 when meminfo does not say. */
int64_t lks_memory_free(const char *meminfo, const char *cgroup, const char *root);

#endif
