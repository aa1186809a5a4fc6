/* Measuring a training step, and the machine that it runs on: what `lockstep bench` prints.
 *
 * A workload is trained without writing any file, on 1, 2, 4 ... and all ranks. A step's parts are
 * its own clock's; the limits are measured in the same minutes on the same ranks, all of them busy.
 */
#ifndef LKS_TRAIN_BENCH_H
#define LKS_TRAIN_BENCH_H

#include "train/settings.h"
#include "world/world.h"

/* Parameters of the two exchanges that are measured. */
#define LKS_BENCH_SMALL_EXCHANGE 1000
#define LKS_BENCH_LARGE_EXCHANGE 10000000

/* What the machine can do with so many ranks, all at it at once. */
typedef struct lks_bench_limits {
  int ranks;
  double product_flops;  /* flop/s of a rank: a large fp32 product */
  double memory_bytes;   /* byte/s of a rank: read two arrays, write one. Those of all ranks are
                            twice the last cache, as far as the system says how large it is */
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
  double flops;        /* of a step, all ranks; 0: on a GPU, whose limits are not measured */
  double update_bytes; /* that a rank's optimizer pass reads and writes */
} lks_bench_row;

/* A step beside the limits of as many ranks, 1 where it reaches them, more where it does better:
 * products of the program's own beat the large one, and what a cache holds is not read from memory.
 * 0: not measured. */
typedef struct lks_bench_ratios {
  double peak;     /* floating-point operations of a second to those of the large product */
  double memory;   /* bytes of a second of the update to those of memory */
  double exchange; /* an exchange of as many gradients to exchange and update, in time */
} lks_bench_ratios;

lks_bench_ratios lks_bench_compare(const lks_bench_row *row, const lks_bench_limits *limits);

typedef struct lks_bench_case {
  const char *name;
  const char *config; /* YAML */
} lks_bench_case;

/* The built-in workloads; name NULL ends the table. */
extern const lks_bench_case lks_bench_cases[];

/* What the first `ranks` ranks do in a world of their own, while the others sleep; its error is
 * everyone's. Collective over all ranks. */
typedef lks_status lks_bench_work(lks_world *part, void *context, lks_error *err);
lks_status lks_bench_on_part(lks_world *world, int ranks, lks_bench_work *work, void *context,
                             lks_error *err) LKS_MUST_USE;

/* Limits of the first `ranks` ranks; threads as device.threads has them, 0: auto. *limits is filled
 * on rank 0. Collective over all ranks. */
lks_status lks_bench_measure_limits(lks_world *world, int ranks, int threads,
                                    lks_bench_limits *limits, lks_error *err) LKS_MUST_USE;

/* Trains on the first `ranks` ranks for about `seconds`; the others sleep. *row is filled on rank
 * 0, but for its name. Collective over all ranks. */
lks_status lks_bench_measure(lks_world *world, int ranks, lks_settings *settings, double seconds,
                             lks_bench_row *row, lks_error *err) LKS_MUST_USE;

/* Whether rows[count - 1], on the most ranks, is slower than one before it, of the same workload on
 * fewer. Then *faster is that row, and *batch a batch from which on the most ranks should win: 0
 * when none would, by what was measured. */
bool lks_bench_loses(const lks_bench_row *rows, int count, int *faster, int64_t *batch);

#endif
