/* See bench.h. */
#include "train/bench.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "train/run.h"

/* The workloads of docs/performance.md: a toy, a first classifier, a small table fitted in large
 * batches, and one that is bound by arithmetic. */
const lks_bench_case lks_bench_cases[] = {
    {"seed", "data: {train: {synthetic: {rows: 10000, inputs: 100}}}\n"
             "model: [{dense: {units: 10, activation: relu}}, {dense: {units: 1}}]\n"
             "loss: mse\n"
             "train: {batch_size: 32}\n"
             "device: cpu\n"},
    {"fashion", "data: {train: {synthetic: {rows: 60000, inputs: 784, classes: 10}}}\n"
                "model: [{dense: {units: 128, activation: relu}}, {dense: {units: 10}}]\n"
                "loss: sparse_categorical_crossentropy\n"
                "train: {batch_size: 128}\n"
                "device: cpu\n"},
    {"surrogate", "data: {train: {synthetic: {rows: 100000, inputs: 8}}}\n"
                  "model: [{dense: {units: 64, activation: relu}},\n"
                  "        {dense: {units: 64, activation: relu}},\n"
                  "        {dense: {units: 64, activation: relu}}, {dense: {units: 1}}]\n"
                  "loss: mse\n"
                  "train: {batch_size: 1024}\n"
                  "device: cpu\n"},
    {"wide", "data: {train: {synthetic: {rows: 8192, inputs: 1024, classes: 10}}}\n"
             "model: [{dense: {units: 2048, activation: relu}},\n"
             "        {dense: {units: 2048, activation: relu}},\n"
             "        {dense: {units: 2048, activation: relu}}, {dense: {units: 10}}]\n"
             "loss: sparse_categorical_crossentropy\n"
             "train: {batch_size: 512}\n"
             "device: cpu\n"},
    {NULL, NULL}};

/* Steps are timed in groups, so that reading the clock costs nothing beside them. */
enum { MOST_GROUPS = 64 };
#define GROUP_SECONDS 0.02

typedef struct bench {
  lks_world *parent, *world;
  lks_run run;
  int64_t step, row, epoch;
  double input; /* s since the group began */
} bench;

/* ---- steps */

static lks_status begin_epoch(bench *b, lks_error *err) {
  lks_status st = LKS_OK;
  b->row = 0;
  st = lks_table_begin(b->run.data->train, b->epoch, 0, err);
  b->epoch += 1;
  return st;
}

/* A step that updates nothing is a cheap one: it would be timed, and praised. All ranks alike. */
static lks_status check(const lks_control *control, lks_error *err) {
  lks_status st = LKS_OK;
  if (control->step != 0 && control->not_finite > 0) {
    FAIL(LKS_NOT_FINITE, "lower optimizer.learning_rate, or scale the data (data.scaling)",
         "loss or gradients of step %lld are not finite: there are no steps to time",
         (long long)control->step);
  }
cleanup:
  return st;
}

/* Queues `count` steps of whole batches and waits for the last. */
static lks_status run_steps(bench *b, int64_t count, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_backend *backend = &b->run.backend;
  const int64_t rows = lks_table_rows(b->run.data->train);
  const int64_t batch = b->run.plan->batch_size < rows ? b->run.plan->batch_size : rows;
  int64_t first = 0, share = 0;
  lks_control control = {0};
  lks_plan_share(b->run.plan, batch, b->world->rank, b->world->size, &first, &share);
  for (int64_t i = 0; i < count; ++i) {
    lks_feed feed = {0};
    const double began = lks_now();
    if (b->row + batch > rows) {
      TRY(begin_epoch(b, err));
    }
    TRY(lks_table_take(b->run.data->train, b->row, batch, b->row + first, share, &feed, err));
    b->input += lks_now() - began;
    b->step += 1;
    b->row += batch;
    const lks_step step = {.feed = &feed, .global_rows = batch, .step = b->step};
    TRY(backend->ops->step(backend->state, &step, &control, err));
    TRY(check(&control, err));
    lks_world_beat(b->parent); /* which has the watchdog; groups may be long */
  }
  while (backend->ops->lag > 0) {
    TRY(backend->ops->drain(backend->state, &control, err));
    if (control.step == 0) {
      break;
    }
    TRY(check(&control, err));
  }
  lks_world_beat(b->parent);
cleanup:
  return st;
}

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* A number of steps that takes about `seconds`, the same on all ranks. */
static lks_status size_group(bench *b, double seconds, int64_t *count, lks_error *err) {
  lks_status st = LKS_OK;
  *count = 1;
  double took = 0.0;
  while (took < seconds && *count < INT64_C(1) << 40) {
    const double began = lks_now();
    TRY(run_steps(b, *count, err));
    took = lks_now() - began;
    TRY(lks_world_broadcast(b->world, &took, sizeof took, 0, err));
    if (took < seconds) {
      const double factor = took > 0.0 ? seconds / took * 1.1 : 2.0;
      *count = (int64_t)((double)*count * (factor < 2.0 ? 2.0 : factor)) + 1;
    }
  }
cleanup:
  return st;
}

/* The group whose time is the median gives the parts. */
typedef struct group {
  double seconds, input;
  lks_timing timing;
} group;

static void read_timing(const bench *b, lks_timing *timing) {
  *timing = (lks_timing){0};
  if (b->run.backend.ops->timing != NULL) {
    b->run.backend.ops->timing(b->run.backend.state, timing);
  }
}

static lks_status run_group(bench *b, int64_t steps, group *g, lks_error *err) {
  lks_status st = LKS_OK;
  lks_timing before, after;
  double most = 0.0;
  b->input = 0.0;
  read_timing(b, &before);
  const double began = lks_now();
  TRY(run_steps(b, steps, err));
  g->seconds = lks_now() - began;
  read_timing(b, &after);
  TRY_MPI(MPI_Allreduce(&g->seconds, &most, 1, MPI_DOUBLE, MPI_MAX, b->world->comm));
  g->seconds = most / (double)steps;
  g->input = b->input / (double)steps;
  g->timing = (lks_timing){.wait = (after.wait - before.wait) / (double)steps,
                           .compute = (after.compute - before.compute) / (double)steps,
                           .exchange = (after.exchange - before.exchange) / (double)steps,
                           .update = (after.update - before.update) / (double)steps};
  /* Of its parts, those of the rank that has them all. */
  TRY(lks_world_broadcast(b->world, g, sizeof *g, lks_plan_leader(b->run.plan, b->world->size),
                          err));
cleanup:
  return st;
}

/* Gradients are read once; parameters and slots are read and written. Each node updates its own, in
 * a slice an owner, as long as its ranks share memory. */
static double update_bytes(const bench *b) {
  const lks_plan *plan = b->run.plan;
  const int owners = plan->gradients == LKS_BY_LEADER ? 1 : b->world->slices;
  const double touched = (1.0 + 2.0 * (1 + plan->slots)) * sizeof(float);
  return touched * (double)plan->parameter_floats / owners;
}

static lks_status measure_steps(bench *b, double seconds, lks_bench_row *row, lks_error *err) {
  lks_status st = LKS_OK;
  group groups[MOST_GROUPS];
  int64_t steps = 0;
  TRY(begin_epoch(b, err));
  TRY(size_group(b, fmax(GROUP_SECONDS, seconds / MOST_GROUPS), &steps, err));
  TRY(run_group(b, steps, &groups[0], err));
  const double one = groups[0].seconds * (double)steps;
  const double wanted = one > 0.0 ? seconds / one : 5.0;
  const int count = wanted > MOST_GROUPS ? MOST_GROUPS : wanted < 5.0 ? 5 : (int)wanted;
  for (int i = 0; i < count; ++i) {
    TRY(run_group(b, steps, &groups[i], err));
  }
  double sorted[MOST_GROUPS];
  for (int i = 0; i < count; ++i) {
    sorted[i] = groups[i].seconds;
  }
  qsort(sorted, (size_t)count, sizeof *sorted, compare);
  const double median = sorted[count / 2];
  const group *middle = &groups[0];
  for (int i = 0; i < count; ++i) {
    middle = groups[i].seconds == median ? &groups[i] : middle;
  }
  const bool on_cpu = b->run.device.ordinal < 0;
  *row = (lks_bench_row){
      .ranks = b->world->size,
      .batch = b->run.plan->batch_size,
      .parameters = b->run.model->value_count,
      .led = b->run.plan->gradients == LKS_BY_LEADER,
      .steps = steps * count,
      .step = median,
      .best = sorted[0],
      .input = middle->input,
      .compute = middle->timing.compute,
      .exchange = middle->timing.exchange,
      .update = middle->timing.update,
      .flops = on_cpu ? b->run.plan->flops_per_row * (double)b->run.plan->batch_size : 0.0,
      .update_bytes = update_bytes(b)};
cleanup:
  return st;
}

/* ---- one workload on a part of the ranks */

typedef struct workload {
  lks_world *parent;
  lks_settings *settings;
  double seconds;
  lks_bench_row *row;
} workload;

static lks_status train_here(lks_world *part, void *context, lks_error *err) {
  lks_status st = LKS_OK;
  const workload *work = context;
  bench b = {.parent = work->parent, .world = part};
  const lks_run_needs needs = {.train = true};
  lks_state state = {0};
  TRY(lks_run_open(&b.run, part, work->settings, &needs, err));
  b.run.profile = true;
  TRY(lks_run_open_backend(&b.run, err));
  st = lks_state_make(&state, b.run.plan, err);
  TRY(lks_agree(part, st, err));
  lks_model_initialise(b.run.model, (uint64_t)work->settings->train.seed, state.parameters);
  TRY(lks_run_restore(&b.run, &state, err));
  TRY(measure_steps(&b, work->seconds, work->row, err));
cleanup:
  lks_state_free(&state);
  lks_run_close(&b.run);
  return st;
}

lks_status lks_bench_measure(lks_world *world, int ranks, lks_settings *settings, double seconds,
                             lks_bench_row *row, lks_error *err) {
  workload work = {world, settings, seconds, row};
  return lks_bench_on_part(world, ranks, train_here, &work, err);
}

/* Until all ranks are here, without taking a core from those that work: a waiting MPI spins. */
static lks_status sleep_until_all(lks_world *world, lks_error *err) {
  lks_status st = LKS_OK;
  MPI_Request request;
  const struct timespec millisecond = {.tv_nsec = 1000000};
  int done = 0;
  TRY_MPI(MPI_Ibarrier(world->comm, &request));
  while (!done) {
    TRY_MPI(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
    lks_world_beat(world);
    if (!done) {
      (void)nanosleep(&millisecond, NULL);
    }
  }
cleanup:
  return st;
}

lks_status lks_bench_on_part(lks_world *world, int ranks, lks_bench_work *work, void *context,
                             lks_error *err) {
  lks_status st = LKS_OK;
  MPI_Comm part = MPI_COMM_NULL;
  lks_world *inner = NULL;
  const bool in = world->rank < ranks;
  TRY_MPI(MPI_Comm_split(world->comm, in ? 0 : MPI_UNDEFINED, world->rank, &part));
  if (in) {
    st = lks_world_open(part, &inner, err);
    if (st == LKS_OK) {
      st = work(inner, context, err);
    }
  }
  lks_error waiting;
  const lks_status waited = sleep_until_all(world, &waiting);
  if (st == LKS_OK && waited != LKS_OK) {
    st = waited;
    *err = waiting;
  }
  TRY(lks_agree(world, st, err));
cleanup:
  lks_world_close(&inner);
  if (part != MPI_COMM_NULL) {
    (void)MPI_Comm_free(&part);
  }
  return st;
}

/* Latency, and what each parameter more takes. */
static double exchange_limit(const lks_bench_limits *limits, double parameters) {
  const double each = (limits->exchange_large - limits->exchange_small) /
                      (LKS_BENCH_LARGE_EXCHANGE - LKS_BENCH_SMALL_EXCHANGE);
  const double more = parameters - LKS_BENCH_SMALL_EXCHANGE;
  return limits->exchange_small + (more > 0.0 ? more * each : 0.0);
}

lks_bench_ratios lks_bench_compare(const lks_bench_row *row, const lks_bench_limits *limits) {
  lks_bench_ratios ratios = {0};
  if (row->flops > 0.0) {
    ratios.peak = row->flops / row->step / (limits->product_flops * row->ranks);
  }
  if (row->flops > 0.0 && row->update > 0.0) {
    ratios.memory = row->update_bytes / row->update / limits->memory_bytes;
  }
  if (row->flops > 0.0 && row->ranks > 1 && row->exchange + row->update > 0.0) {
    ratios.exchange =
        exchange_limit(limits, (double)row->parameters) / (row->exchange + row->update);
  }
  return ratios;
}

/* Computing grows with the batch, the rest does not: t(B) = computing B / batch + rest. */
bool lks_bench_loses(const lks_bench_row *rows, int count, int *faster, int64_t *batch) {
  const lks_bench_row *all = &rows[count - 1], *best = all;
  for (int i = 0; i < count - 1; ++i) {
    best = rows[i].step < best->step ? &rows[i] : best;
  }
  if (best == all) {
    return false;
  }
  *faster = (int)(best - rows);
  *batch = 0;
  const double gain = (best->compute - all->compute) / (double)all->batch;
  const double cost = (all->step - all->compute) - (best->step - best->compute);
  if (gain > 0.0 && all->compute > 0.0) {
    *batch = (int64_t)ceil(cost / gain);
  }
  return true;
}
