/* The backend contract: what a kind of device must do to run a plan.
 *
 * A backend owns parameters, gradients and optimizer slots, wherever they lie (once a node in
 * shared memory, once a GPU); all others see them only as flat host arrays, through restore and
 * snapshot. One ops struct a backend, checked when it is looked up. To add one: a folder, a row
 * in registry.c, the conformance suite green. */
#ifndef LKS_BACKEND_BACKEND_H
#define LKS_BACKEND_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "data/data.h"
#include "plan/plan.h"
#include "world/world.h"

#define LKS_BACKEND_ABI 1

typedef struct lks_backend_request {
  lks_world *world;
  const lks_plan *plan;
  uint64_t seed;
  double timeout; /* seconds a rank may wait for its peers; 0: for ever */
} lks_backend_request;

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

typedef struct lks_backend_ops {
  const char *name; /* "cpu" */
  int abi;          /* LKS_BACKEND_ABI */
  int lag;          /* the control block that step k returns is that of step k - lag */

  /* required; collective over the world */
  lks_status (*open)(const lks_backend_request *request, void **state, lks_error *err);
  void (*close)(void *state);
  /* Sets parameters and slots from flat host arrays in the model's layout, alike on all ranks.
   * slots: plan->slots pointers; NULL sets them to zero. */
  lks_status (*restore)(void *state, const float *parameters, const float *const *slots,
                        lks_error *err);
  /* Copies parameters and slots out; either may be NULL where a rank does not need them. No rank
   * may begin a step before all that copy are done: the next step's own barrier sees to it. */
  lks_status (*snapshot)(void *state, float *parameters, float *const *slots, lks_error *err);
  /* Forward, backward, exchange, update. Where the summed control block says failed or not
   * finite, nothing is updated. An empty share or a failed rank contributes zeros. */
  lks_status (*step)(void *state, const lks_step *step, lks_control *control, lks_error *err);

  /* required; local: no rank waits for another */
  /* Loss and metrics of at most LKS_EVALUATION_ROWS rows, without dropout. */
  lks_status (*evaluate)(void *state, const lks_feed *feed, lks_block_sums *sums, lks_error *err);
  /* Outputs of the model (layer -1) or of an inner layer: out is [feed->count, width], host. */
  lks_status (*predict)(void *state, const lks_feed *feed, int layer, float *out, lks_error *err);

  /* optional */
  /* One line of what it is and found, for the summary: "OpenBLAS 0.3.21 (Haswell), 1 thread". */
  void (*describe)(void *state, char *out, size_t size);
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

/* Names of all backends, NULL-terminated, for tests and --version. */
const char *const *lks_backend_names(void);

#endif
