/* lks_evaluate: loss and metrics of a set; for regressions also errors in raw units. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/run.h"
#include "train/stored.h"

/* Errors of one output over some rows, in raw units. */
typedef struct raw_sums {
  double absolute, squared;
  lks_moments target;
} raw_sums;

/* ---- errors in raw units */

typedef struct raw_work {
  float *prediction, *target; /* [LKS_EVALUATION_ROWS, outputs] */
  double *wide;               /* targets in raw units */
  raw_sums *mine, *all;       /* [per_rank, outputs], [size * per_rank, outputs] */
} raw_work;

static void free_raw(raw_work *work) {
  free(work->prediction);
  free(work->target);
  free(work->wide);
  free(work->mine);
  free(work->all);
}

static bool make_raw(raw_work *work, int64_t outputs, int64_t per_rank, int size) {
  const size_t values = (size_t)(LKS_EVALUATION_ROWS * outputs);
  const size_t sums = (size_t)(per_rank * outputs);
  work->prediction = malloc(values * sizeof(float));
  work->target = malloc(values * sizeof(float));
  work->wide = malloc(values * sizeof(double));
  work->mine = calloc(sums, sizeof(raw_sums));
  work->all = calloc(sums * (size_t)size, sizeof(raw_sums));
  return work->prediction != NULL && work->target != NULL && work->wide != NULL &&
         work->mine != NULL && work->all != NULL;
}

static lks_status raw_block(lks_run *run, const lks_feed *feed, raw_work *work, raw_sums *sums,
                            lks_error *err) {
  lks_status st = LKS_OK;
  const int64_t outputs = run->model->outputs, values = feed->count * outputs;
  TRY(run->backend.ops->predict(run->backend.state, feed, -1, work->prediction, err));
  for (int64_t row = 0; row < feed->count; ++row) {
    const int64_t from = feed->index != NULL ? feed->index[row] : row;
    memcpy(work->target + row * outputs, feed->targets + from * outputs,
           (size_t)outputs * sizeof(float));
  }
  lks_moments *moments = malloc((size_t)outputs * sizeof *moments);
  TRY_ALLOC(moments);
  /* In doubles, and errors before the shift: beside a large one, floats would lose them. */
  lks_scaling_undo(&run->data->targets, work->target, work->wide, feed->count, outputs);
  for (int64_t i = 0; i < values; ++i) {
    const double scaled = (double)work->prediction[i] - (double)work->target[i];
    const double e = scaled / lks_scaling_factor(&run->data->targets, i % outputs);
    sums[i % outputs].absolute += fabs(e);
    sums[i % outputs].squared += e * e;
  }
  lks_moments_of(work->wide, feed->count, outputs, moments);
  for (int64_t j = 0; j < outputs; ++j) {
    sums[j].target = moments[j];
  }
  free(moments);
cleanup:
  return st;
}

static lks_status raw_round(lks_run *run, lks_table *table, const lks_rounds *rounds, int64_t round,
                            raw_work *work, lks_error *err) {
  lks_status st = LKS_OK;
  const int64_t outputs = run->model->outputs;
  memset(work->mine, 0, (size_t)(rounds->per_rank * outputs) * sizeof *work->mine);
  for (int64_t k = 0; k < rounds->per_rank; ++k) {
    const int64_t block = lks_rounds_block(rounds, round, run->world->rank, run->world->size, k);
    if (block < 0) {
      break;
    }
    int64_t first = 0, count = 0;
    lks_feed feed;
    lks_rounds_rows(rounds, block, &first, &count);
    TRY(lks_table_rows_at(table, first, count, &feed, err));
    TRY(raw_block(run, &feed, work, work->mine + k * outputs, err));
    lks_world_beat(run->world);
  }
cleanup:
  return st;
}

/* totals[outputs], added in block order. Collective. */
static lks_status raw_errors(lks_run *run, lks_table *table, raw_sums *totals, lks_error *err) {
  lks_status st = LKS_OK;
  lks_world *world = run->world;
  const int64_t outputs = run->model->outputs;
  const lks_rounds rounds =
      lks_rounds_make(lks_table_rows(table), world->size, (size_t)outputs * sizeof(raw_sums));
  raw_work work = {0};
  if (!make_raw(&work, outputs, rounds.per_rank, world->size)) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for evaluation");
  }
  TRY(lks_agree(world, st, err));
  const size_t bytes = (size_t)(rounds.per_rank * outputs) * sizeof *work.mine;
  for (int64_t round = 0; round < rounds.rounds; ++round) {
    st = lks_run_look_for_stop(run, err);
    st = st == LKS_OK ? raw_round(run, table, &rounds, round, &work, err) : st;
    TRY(lks_agree(world, st, err));
    TRY(lks_world_gather(world, work.mine, bytes, work.all, err));
    for (int64_t i = 0; i < rounds.per_rank * world->size * outputs; ++i) {
      raw_sums *total = &totals[i % outputs];
      total->absolute += work.all[i].absolute;
      total->squared += work.all[i].squared;
      if (work.all[i].target.count > 0.0) {
        lks_moments_merge(&total->target, &work.all[i].target, 1);
      }
    }
  }
cleanup:
  free_raw(&work);
  return st;
}

static void print_raw(const raw_sums *totals, int64_t outputs) {
  for (int64_t j = 0; j < outputs; ++j) {
    const double n = totals[j].target.count;
    const double r2 =
        totals[j].target.m2 > 0.0 ? 1.0 - totals[j].squared / totals[j].target.m2 : (double)NAN;
    (void)printf("output %lld: mae %.9g - rmse %.9g - r2 %.9g (raw units)\n", (long long)j,
                 totals[j].absolute / n, sqrt(totals[j].squared / n), r2);
  }
}

/* ---- the command */

static lks_status choose_set(const lks_settings *settings, const char *name, lks_run_needs *needs,
                             const char **chosen, lks_error *err) {
  lks_status st = LKS_OK;
  *chosen = name != NULL                        ? name
            : settings->data.test.present       ? "test"
            : settings->data.validation.present ? "validation"
                                                : "train";
  needs->train = strcmp(*chosen, "train") == 0;
  needs->validation = strcmp(*chosen, "validation") == 0;
  needs->test = strcmp(*chosen, "test") == 0;
  if (!needs->train && !needs->validation && !needs->test) {
    FAIL(LKS_USAGE, "use train, validation or test", "--data: there is no set '%s'", *chosen);
  }
  if ((needs->validation && !settings->data.validation.present) ||
      (needs->test && !settings->data.test.present)) {
    st = lks_fail(err, LKS_CONFIG, NULL, "the configuration has no data.%s", *chosen);
    lks_advise(err, "add data.%s, or use --data train", *chosen);
  }
cleanup:
  return st;
}

static void print_sums(const lks_model *model, const lks_sums *sums) {
  (void)printf("loss: %.9g\n", sums->loss / (double)sums->rows);
  for (int i = 0; i < model->metric_count; ++i) {
    const double value = sums->metrics[i] / (double)sums->rows;
    if (model->metrics[i]->counts && sums->metrics[i] == floor(sums->metrics[i])) {
      (void)printf("%s: %.9g (%.0f of %lld)\n", model->metric_names[i], value, sums->metrics[i],
                   (long long)sums->rows);
    } else {
      (void)printf("%s: %.9g\n", model->metric_names[i], value);
    }
  }
}

lks_status lks_evaluate(lks_world *world, lks_settings *settings,
                        const lks_evaluate_request *request, lks_error *err) {
  lks_status st = LKS_OK;
  lks_run run = {0};
  lks_run_needs needs = {0};
  lks_arena arena = {0};
  lks_stored stored = {0};
  lks_sums sums = {0};
  raw_sums *totals = NULL;
  const char *chosen = NULL;
  lks_world_phase(world, "configuration");
  st = choose_set(settings, request->data, &needs, &chosen, err);
  TRY(lks_agree(world, st, err));
  TRY(lks_stored_read(world, settings, request->checkpoint, &arena, &stored, err));
  needs.inputs = stored.inputs;
  needs.features = stored.known ? &stored.features : NULL;
  needs.targets = stored.known ? &stored.targets : NULL;
  TRY(lks_run_open(&run, world, settings, &needs, err));
  TRY(lks_run_open_backend(&run, err));
  TRY(lks_run_load(&run, stored.path, &arena, NULL, err));
  lks_world_phase(world, "evaluation");
  lks_table *table = needs.train        ? run.data->train
                     : needs.validation ? run.data->validation
                                        : run.data->test;
  TRY(lks_run_evaluate(&run, table, &sums, err));
  if (run.model->link == LKS_LINK_NONE) {
    totals = calloc((size_t)run.model->outputs, sizeof *totals);
    if (totals == NULL) {
      st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for evaluation");
    }
    TRY(lks_agree(world, st, err));
    TRY(raw_errors(&run, table, totals, err));
  }
  if (world->rank == 0) {
    char rows[32];
    (void)printf("%s: %s rows of %s with %s\n", chosen, lks_format_count(rows, sums.rows),
                 lks_table_source(table)->name, stored.path);
    print_sums(run.model, &sums);
    if (totals != NULL) {
      print_raw(totals, run.model->outputs);
    }
  }
  if (!isfinite(sums.loss)) { /* on all ranks */
    st = lks_fail(err, LKS_NOT_FINITE, "look at the values of the data, and at data.scaling",
                  "the loss of the %s set is not finite", chosen);
    TRY(lks_agree(world, st, err));
  }
cleanup:
  free(totals);
  lks_run_close(&run);
  lks_arena_free(&arena);
  return st;
}
