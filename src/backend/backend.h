/* The backend contract: what a kind of device must do to run a plan.
 *
 * A backend owns parameters, gradients and optimizer slots, wherever they lie (once a node in
 * shared memory, once a GPU); all others see them only as flat host arrays, through restore and
 * snapshot. One ops struct a backend, checked when it is looked up. To add one: a folder, a row
 * in registry.c, the conformance suite green. Modules loaded at run time read this header, so it
 * needs no MPI. */
#ifndef LKS_BACKEND_BACKEND_H
#define LKS_BACKEND_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "data/feed.h"
#include "lockstep/handles.h"
#include "plan/plan.h"

#define LKS_BACKEND_ABI 5

typedef struct lks_backend_request {
  lks_world *world;
  int rank, size; /* of the world; a module sees no more of it */
  int local_rank, local_size;
  const char *host;
  const lks_plan *plan;
  uint64_t seed;
  double timeout;       /* seconds a rank may wait for its peers; 0: for ever */
  int ordinal;          /* GPU of this rank among those it sees; -1: none */
  int precision;        /* lks_precision */
  bool tune;            /* measure algorithms of products, and take the fastest */
  bool memory_growth;   /* takes what the plan needs; false: all that memory_limit allows at once */
  int64_t memory_limit; /* bytes of device memory; 0: no limit but the device's */
  int64_t resident_bytes; /* of the training table, should the backend adopt it; 0: unknown */
  bool profile;           /* tell the parts of a step apart, at the price of reading the clock */
} lks_backend_request;

/* Arithmetic of the products; parameters, gradients and slots are fp32 in all of them. */
typedef enum lks_precision { LKS_FP32, LKS_TF32, LKS_BF16 } lks_precision;

/* One update. */
typedef struct lks_step {
  const lks_feed *feed; /* this rank's share of the global batch; may be empty */
  int64_t global_rows;  /* live rows of the whole batch: gradient = sum over them / global_rows */
  int64_t step;         /* from 1 */
  lks_votes votes;
} lks_step;

/* Sums over the rows of a block, before they are divided by anything. */
typedef struct lks_block_sums {
  double loss;
  double metrics[LKS_MAX_METRICS];
} lks_block_sums;

/* Where a rank's memory on its device goes, in bytes. */
typedef struct lks_memory_plan {
  int64_t parameters, gradients, slots, activations, data, workspace;
  int64_t total;        /* of the above, with alignment */
  int64_t limit;        /* most that may be taken; 0: no limit */
  int64_t device_total; /* what the device has */
  int64_t free_before;  /* when the backend was opened, before anything was taken */
  int64_t free_after;   /* now: the difference also holds contexts and libraries */
} lks_memory_plan;

/* One product's chosen algorithm, for the device report. */
typedef struct lks_choice_made {
  char what[64];   /* "forward 784x128 rows 64" */
  char chosen[96]; /* "cublasLt algo 23, tile 20, stages 8, split-K 1" */
  double seconds;  /* measured; 0: not measured */
} lks_choice_made;

/* Totals of all steps so far, in seconds. `wait` is sampled by a coarse clock: right to some
 * milliseconds, not less. The others stay 0 unless the request said `profile`. */
typedef struct lks_timing {
  double wait;     /* in exchanges until the other ranks were there */
  double compute;  /* gathering rows, forward and backward */
  double exchange; /* summing gradients over the ranks, waiting included */
  double update;   /* the optimizer's pass */
} lks_timing;

typedef struct lks_backend_ops {
  const char *name; /* "cpu" */
  int abi;          /* LKS_BACKEND_ABI */
  int lag;          /* D: step k returns the control block of step k - D (control->step 0: none
                       yet). All ranks queue alike, so what a block asks for happens D steps on */

  /* required; collective over the world */
  lks_status (*open)(const lks_backend_request *request, void **state, lks_error *err);
  void (*close)(void *state);
  /* Sets parameters and slots from flat host arrays in the model's layout, alike on all ranks.
   * slots: plan->slots pointers; NULL sets them to zero. No step may be queued. */
  lks_status (*restore)(void *state, const float *parameters, const float *const *slots,
                        lks_error *err);
  /* Copies parameters and slots out; either may be NULL where a rank does not need them. No step
   * may be queued. No rank may begin a step before all that copy are done: the next step's own
   * barrier sees to it, or the leader's wait for the others in the first step after a drain. */
  lks_status (*snapshot)(void *state, float *parameters, float *const *slots, lks_error *err);
  /* Forward, backward, exchange, update: done, or queued where there is a lag. Where the summed
   * control block says failed or not finite, nothing is updated, by this step and all later ones.
   * An empty share or a failed rank contributes zeros. A vote counts in the block of its step; in a
   * plan by the leader, another rank's in that or a later one before the next drain, or in none: it
   * is to be cast until it is heard. The feed is read before it returns. */
  lks_status (*step)(void *state, const lks_step *step, lks_control *control, lks_error *err);
  /* Required where lag > 0: completes the oldest step that is queued; control->step 0: none is. */
  lks_status (*drain)(void *state, lks_control *control, lks_error *err);

  /* required; local: no rank waits for another. No step may be queued. */
  /* Loss and metrics of at most LKS_EVALUATION_ROWS rows, without dropout. */
  lks_status (*evaluate)(void *state, const lks_feed *feed, lks_block_sums *sums, lks_error *err);
  /* Outputs of the model (layer -1) or of an inner layer: out is [feed->count, width], host. */
  lks_status (*predict)(void *state, const lks_feed *feed, int layer, float *out, lks_error *err);

  /* optional */
  /* Copies the training table to where the backend computes, if it fits: *adopted. From then on
   * feeds of steps carry `places`. Local, but every rank's table is the same. */
  lks_status (*adopt)(void *state, const lks_resident *table, bool *adopted, lks_error *err);
  /* One line of what it is and found, for the summary: "OpenBLAS 0.3.21 (Haswell), 1 thread". */
  void (*describe)(void *state, char *out, size_t size);
  void (*memory)(void *state, lks_memory_plan *memory);
  /* The first `capacity` choices into out; returns how many there are. */
  int (*choices)(void *state, lks_choice_made *out, int capacity);
  /* XXH64-like hash of the parameters where they lie, the same for equal bits: replicas are
   * compared by it. NULL: they are not compared. Local. No step may be queued. */
  lks_status (*fingerprint)(void *state, uint64_t *hash, lks_error *err);
  /* How long steps have waited, since the backend was opened: slow ranks are found by it. Local,
   * cheap. NULL: not known. */
  void (*timing)(void *state, lks_timing *timing);
} lks_backend_ops;

typedef struct lks_backend {
  const lks_backend_ops *ops;
  void *state;
} lks_backend;

/* Opens the backend of that name; LKS_INTERNAL when its ops struct lacks a required slot.
 * Collective. */
lks_status lks_backend_open(const char *name, const lks_backend_request *request,
                            lks_backend *backend, lks_error *err) LKS_MUST_USE;
void lks_backend_close(lks_backend *backend);

/* Names of the backends that can be used here, NULL-terminated, for self-tests and --version: one
 * of a module is among them when it is loaded and a device answers. Local. */
const char *const *lks_backend_names(void);

#endif
