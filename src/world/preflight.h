/* Is this set of hosts fit to train together? Clocks, shared memory, and the links between nodes.
 */
#ifndef LKS_WORLD_PREFLIGHT_H
#define LKS_WORLD_PREFLIGHT_H

#include "world/world.h"

/* What a look found, alike on all ranks. */
typedef struct lks_preflight {
  char text[512]; /* one line */
  char fix[256];  /* what to do; empty: all is well */
} lks_preflight;

/* Compares the clocks of all nodes with rank 0's by messages there and back; half the shortest way
 * is the error. Two seconds apart are worth a fix: logs and file times do not fit together.
 * Collective. */
lks_status lks_preflight_clocks(lks_world *world, lks_preflight *finding,
                                lks_error *err) LKS_MUST_USE;

/* Judges offsets[nodes] in seconds, hosts in node order, `error` the largest way. Local. */
void lks_preflight_judge_clocks(const double *offsets, const char (*hosts)[64], int nodes,
                                double error, lks_preflight *finding);

/* Free space of /dev/shm on every node: parameters, gradients and resident data lie there, and
 * containers often have 64 MiB. Collective. */
lks_status lks_preflight_shared(lks_world *world, lks_preflight *finding,
                                lks_error *err) LKS_MUST_USE;

/* Judges free_bytes[nodes]; negative: that node has none. Local. */
void lks_preflight_judge_shared(const int64_t *free_bytes, const char (*hosts)[64], int nodes,
                                lks_preflight *finding);

/* The link from each node's first rank to the next node's, all at once. */
typedef struct lks_link_rate {
  double rate;        /* bytes a second */
  double fastest;     /* of the host's network interfaces; 0: unknown */
  char interface[32]; /* that one's name */
} lks_link_rate;

/* Sends known values around the nodes. A wrong one is LKS_COMM naming both hosts; a link that is
 * slow beside the others, or beside what the host has, is a finding. Collective. */
lks_status lks_preflight_links(lks_world *world, lks_preflight *finding,
                               lks_error *err) LKS_MUST_USE;

/* Judges links[nodes], link i going from node i to the next. Local. */
void lks_preflight_judge_links(const lks_link_rate *links, const char (*hosts)[64], int nodes,
                               lks_preflight *finding);

#endif
