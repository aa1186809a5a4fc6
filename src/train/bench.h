/* Measuring a training step, and the machine that it runs on: what `lockstep bench` prints.
 *
 * A workload is trained without writing any file, on 1, 2, 4 ... and all ranks. A step's parts are
 * its own clock's; the limits are measured in the same minute on the same ranks, all of them busy.
 */
#ifndef LKS_TRAIN_BENCH_H
#define LKS_TRAIN_BENCH_H

#include "train/settings.h"
#include "world/world.h"

/* What the machine can do, with every rank at it at once. */
typedef struct lks_bench_limits {
  double product_flops;  /* flop/s of a rank: a large fp32 product */
  double memory_bytes;   /* byte/s of a rank: read two arrays, write one, far beyond the caches */
  double exchange_small; /* s: an exchange of 1,000 parameters; 0 with one rank */
  double exchange_large; /* s: one of 10 million */
} lks_bench_limits;

/* One workload on some ranks. Seconds are those of the slowest rank's median step. */
typedef struct lks_bench_row {
  const char *name;
  int ranks;
  int64_t batch, parameters;
  bool led;                                /* one rank does the whole step */
  int64_t steps;                           /* measured */
  double step;                             /* s, median */
  double best;                             /* s, least */
  double input, compute, exchange, update; /* s of the median step; 0: not told apart */
  double flops; /* of a step, all ranks; 0: on a GPU, whose limits are not measured */
} lks_bench_row;

typedef struct lks_bench_case {
  const char *name;
  const char *config; /* YAML */
} lks_bench_case;

/* The built-in workloads; name NULL ends the table. */
extern const lks_bench_case lks_bench_cases[];

/* Collective. */
lks_status lks_bench_measure_limits(lks_world *world, lks_bench_limits *limits,
                                    lks_error *err) LKS_MUST_USE;

/* Trains on the first `ranks` ranks for about `seconds`; the others sleep. *row is filled on rank
 * 0, but for its name. Collective over all ranks. */
lks_status lks_bench_measure(lks_world *world, int ranks, lks_settings *settings, double seconds,
                             lks_bench_row *row, lks_error *err) LKS_MUST_USE;

/* Whether rows[count - 1], on the most ranks, is slower than one before it, of the same workload on
 * fewer. Then *faster is that row, and *batch a batch from which on the most ranks should win: 0
 * when none would, by what was measured. */
bool lks_bench_loses(const lks_bench_row *rows, int count, int *faster, int64_t *batch);

#endif
