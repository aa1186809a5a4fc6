/* Summing gradients over ranks and updating parameters, each rank a slice.
 *
 * Within a node everything lies in memory that its ranks share: parameters and slots once, one
 * gradient buffer a rank. After the barrier "gradients complete" each owner sums its slice
 * straight from its peers' buffers in rank order and updates it; after "parameters complete" all
 * go on. Across nodes the owners of a slice exchange node sums by MPI and add them in node order,
 * so that all nodes hold the same bits.
 *
 * Invariants: a rank writes its own gradient buffer only between "parameters complete" and
 * "gradients complete"; parameters are written only between the two barriers, each element by
 * one owner. By owners (owners.c) nobody reads another's gradients, only its control block and its
 * verdict; by the leader (leader.c) one rank owns all. Ranks may be threads: without nodes beyond
 * this one, nothing here calls MPI. */
#ifndef LKS_BACKEND_CPU_EXCHANGE_H
#define LKS_BACKEND_CPU_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>

#include "backend/cpu/update.h"
#include "plan/control.h"
#include "world/shared.h"
#include "world/world.h"

typedef struct lks_exchange_layout {
  size_t parameter_floats; /* P */
  size_t gradient_floats;  /* P + the control block, padded */
  int slots;
  int local_size;
} lks_exchange_layout;

typedef struct lks_exchange {
  lks_exchange_layout layout;
  int local_rank;
  size_t first, count; /* this rank's slice of P; count 0: owns none */
  lks_values values;   /* parameters and slots, [P] each; shared by the node, unless alone */
  float *gradients;    /* this rank's own [gradient_floats] */
  float *peers;        /* all ranks' gradients, [local_size, gradient_floats] */
  float *node_control; /* [LKS_CONTROL_FLOATS], shared: the sum over all nodes */
  lks_barrier barrier;
  double waited;  /* s for other ranks, in all runs so far; 0 with one rank */
  bool profile;   /* whether `updated` is measured; set after opening */
  double updated; /* s in the optimizer's pass, in all runs so far */
  /* across nodes; MPI_COMM_NULL and NULL when there is one node or no slice */
  MPI_Comm slice;
  int nodes, node_index;
  float *sum;      /* [count + control]: this node's sum, then that of all */
  float *received; /* [nodes, piece] */
  /* without shared memory: private parameters and slots, one MPI_Allreduce */
  MPI_Comm everyone; /* MPI_COMM_NULL in the usual case */
  lks_shared shared;
  void *private_memory;
} lks_exchange;

/* Bytes that a node's ranks share. */
size_t lks_exchange_bytes(const lks_exchange_layout *layout);

/* Whether MPI's messages, of INT_MAX elements each, hold a slice and its control block of so many
 * floats among so many nodes: few go whole to every node, many in a piece a node. */
bool lks_exchange_fits(size_t floats, int nodes);

/* Lays the exchange out in zeroed memory of that many bytes, shared by the local ranks. slices: how
 * many of them own one. Not collective. */
void lks_exchange_place(lks_exchange *exchange, const lks_exchange_layout *layout, void *memory,
                        int local_rank, int slices, double timeout);

/* Opens it for a world: shared window, or private memory where that can't be had (then *note says
 * so; else it is left alone). Collective. */
lks_status lks_exchange_open(lks_exchange *exchange, lks_world *world, size_t parameter_floats,
                             size_t gradient_floats, int slots, double timeout, const char **note,
                             lks_error *err) LKS_MUST_USE;
void lks_exchange_close(lks_exchange *exchange); /* collective */

/* Gives this rank another slice than its even part: slices of a node's ranks follow one another
 * and cover all. One node only. */
void lks_exchange_own(lks_exchange *exchange, size_t first, size_t count);

/* The whole exchange: every rank's gradients and control block are complete when it is called;
 * afterwards *control is the sum of all and parameters are updated, unless it says failed or not
 * finite. Collective. */
lks_status lks_exchange_run(lks_exchange *exchange, const lks_update *update, lks_control *control,
                            lks_error *err) LKS_MUST_USE;

/* Its parts, for a step whose gradients are made by owners or by a leader (see plan.h), on one node
 * with shared memory. meet: a barrier, its wait on the account; collective. sum_control: all ranks'
 * control blocks, between barriers. update_own: this rank's slice by its own gradient buffer,
 * between barriers; update: elements [first, first + count) of its slice by g [count]. */
lks_status lks_exchange_meet(lks_exchange *exchange, lks_error *err) LKS_MUST_USE;
void lks_exchange_sum_control(const lks_exchange *exchange, lks_control *control);
void lks_exchange_update_own(lks_exchange *exchange, const lks_update *update);
void lks_exchange_update(lks_exchange *exchange, const lks_update *update, size_t first,
                         size_t count, const float *g);
/* Whether nothing forbids the update. */
bool lks_exchange_may_update(const lks_control *control);

/* Flags of a rank for its peers, beside the control block: what each says of its slice of the
 * gradient in a step. */
typedef enum lks_verdict {
  LKS_VERDICT_BAD,     /* not finite */
  LKS_VERDICT_UNSURE,  /* it may be, once it is made */
  LKS_VERDICT_BAD_THEN /* it was not, when it was made */
} lks_verdict;
enum { LKS_VERDICTS = LKS_VERDICT_BAD_THEN + 1 };

void lks_exchange_set_verdict(lks_exchange *exchange, lks_verdict verdict, bool set);
/* How many ranks of the node set it. */
int lks_exchange_count_verdicts(const lks_exchange *exchange, lks_verdict verdict);

/* Beside them, what this rank's share of the work took in seconds: told before a barrier, to be
 * heard behind it and before the next one. took [local_size]: what all have told. */
void lks_exchange_tell_time(lks_exchange *exchange, double seconds);
void lks_exchange_hear_times(const lks_exchange *exchange, float *took);

#endif
