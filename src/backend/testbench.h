/* One small model on one backend, with everything that holds it against the reference: inside of
 * the self-test.
 *
 * Errors are normalised: |ours - reference| over |reference|, in the 2-norm. Bounds are derived: a
 * sum of K products in fp32 is off by at most about sqrt(K) eps relative to its terms (rounding
 * errors are independent), each of the few layers adds one such error, and cancellation costs a
 * small factor. */
#ifndef LKS_BACKEND_TESTBENCH_H
#define LKS_BACKEND_TESTBENCH_H

#include "backend/backend.h"
#include "base/arena.h"
#include "device/place.h"
#include "world/world.h"

/* Layers of a case at most, its steps, and the seed of its data: any other does as well. */
enum { LKS_TEST_LAYERS = 4, LKS_TEST_STEPS = 4, LKS_TEST_SEED = 20 };

/* How a step is told its rows. Where a backend adopts no table, places become an index. */
typedef enum lks_test_feed { LKS_FEED_ROWS, LKS_FEED_INDEX, LKS_FEED_PLACES } lks_test_feed;

typedef struct lks_testcase {
  char name[96];
  lks_layer_options layers[LKS_TEST_LAYERS];
  int layer_count;
  lks_metric_options metrics[LKS_MAX_METRICS];
  int metric_count;
  const lks_kind *loss;
  lks_optimizer optimizer;
  int64_t inputs, rows, batch_size;
  int steps; /* 1: compare the gradient; more: compare parameters after them */
  lks_test_feed feed;
  bool crowded; /* the last rank takes all rows, the others none */
  lks_gradients
      gradients; /* not LKS_BY_BEST; where the ranks of a CPU backend share memory; else by rows */
  lks_arena arena;
} lks_testcase;

typedef struct lks_testbench {
  const lks_testcase *testcase;
  lks_world *world;
  lks_model *model;
  lks_plan *plan;
  lks_backend backend;
  float *x, *t; /* [rows, inputs], [rows, target columns] */
  float *parameters, *after, *predicted;
  double *wide_x, *wide_t, *wide, *gradient, *outputs, *slots[LKS_MAX_SLOTS];
  int64_t *ids;  /* [rows] in order */
  int64_t *mine; /* [rows] those of this rank, as the feed names them */
  lks_feed feed; /* this rank's share */
  lks_places places;
} lks_testbench;

/* Opens the backend on a case and makes its data and initial parameters. Collective. */
lks_status lks_testbench_open(lks_testbench *bench, const lks_testcase *testcase, lks_world *world,
                              const lks_device_choice *device, lks_error *err) LKS_MUST_USE;
void lks_testbench_close(lks_testbench *bench); /* collective */

/* Sets the initial parameters; slots to zero. Collective. */
lks_status lks_testbench_reset(lks_testbench *bench, lks_error *err) LKS_MUST_USE;

/* Queues count steps and drains: controls[i] is the block of steps[i]. A block that comes out of
 * turn is LKS_INTERNAL. Collective. */
lks_status lks_testbench_steps(lks_testbench *bench, const lks_step *steps, int count,
                               lks_control *controls, lks_error *err) LKS_MUST_USE;

/* evaluate and predict against the reference without dropout: *error grows to the largest error.
 * Local. */
lks_status lks_testbench_inference(lks_testbench *bench, double *error,
                                   lks_error *err) LKS_MUST_USE;

/* The case's steps against steps in double from gradients by differences. Collective. */
lks_status lks_testbench_training(lks_testbench *bench, double *error, lks_error *err) LKS_MUST_USE;

/* What *error may come to. */
double lks_testbench_bound(const lks_testbench *bench);

/* 2-norm of a - b over that of b; the larger of two errors, NaN being the largest. */
double lks_test_distance(const float *a, const double *b, int64_t count);
double lks_test_larger(double a, double b);

#endif
