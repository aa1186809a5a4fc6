/* The CPU backend's contract: what it owns, and its step with gradients by rows. The reference of
 * all others. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "backend/cpu/cpu.h"
#include "base/blas.h"
#include "base/finite.h"
#include "base/pages.h"
#include "base/subnormal.h"

/* ---- BLAS threads: every library names its setter differently; none is needed to be right. */

lks_set_threads lks_find_set_threads(void) {
  static const char *const names[] = {"openblas_set_num_threads", "MKL_Set_Num_Threads",
                                      "bli_thread_set_num_threads"};
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    void *symbol = dlsym(RTLD_DEFAULT, names[i]);
    if (symbol != NULL) {
      lks_set_threads function;
      memcpy(&function, &symbol, sizeof function); /* ISO C has no cast from data to code */
      return function;
    }
  }
  return NULL;
}

static void use_threads(const lks_cpu *cpu, int threads) {
  if (cpu->set_blas_threads != NULL) {
    cpu->set_blas_threads(threads);
  }
}

/* ---- the contract */

static void close_cpu(void *state) {
  lks_cpu *cpu = state;
  if (cpu != NULL) {
    lks_lead_close(cpu);
    lks_owners_close(cpu);
    lks_exchange_close(&cpu->exchange);
    free(cpu->work);
    free(cpu);
  }
}

static lks_status open_cpu(const lks_backend_request *request, void **state, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_plan *plan = request->plan;
  const char *note = NULL;
  lks_cpu *cpu = calloc(1, sizeof *cpu);
  if (cpu != NULL) {
    cpu->plan = plan;
    cpu->common.window = cpu->exchange.shared.window = MPI_WIN_NULL; /* closed if opening fails */
    cpu->world = request->world;
    cpu->seed = request->seed;
    cpu->profile = request->profile;
    cpu->threads = request->world->threads;
    cpu->set_blas_threads = lks_find_set_threads();
    cpu->work = lks_pages_alloc(plan->work_floats * sizeof(float));
  }
  if (cpu == NULL || cpu->work == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, "use a smaller train.batch_size or more nodes",
                  "out of memory for %zu bytes of activations", plan->work_floats * sizeof(float));
  }
  TRY(lks_agree(request->world, st, err));
  TRY(lks_exchange_open(&cpu->exchange, request->world, plan->parameter_floats,
                        plan->gradient_floats, plan->slots, request->timeout, &note, err));
  if (note != NULL && request->world->rank == 0) {
    (void)fprintf(stderr, "lockstep: warning: %s\n", note);
  }
  cpu->exchange.profile = request->profile;
  use_threads(cpu, cpu->threads);
  if (plan->gradients == LKS_BY_OWNERS) {
    TRY(lks_owners_open(cpu, err));
  } else if (plan->gradients == LKS_BY_LEADER) {
    TRY(lks_lead_open(cpu, err));
  }
  *state = cpu;
  cpu = NULL;
cleanup:
  close_cpu(cpu);
  return st;
}

/* One rank a copy of the state writes it, then all may read it. */
static lks_status restore_cpu(void *state, const float *parameters, const float *const *slots,
                              lks_error *err) {
  lks_status st = LKS_OK;
  lks_cpu *cpu = state;
  const size_t bytes = cpu->plan->parameter_floats * sizeof(float);
  lks_lead_forget(cpu);
  cpu->ended = false;
  TRY_MPI(MPI_Barrier(cpu->world->comm)); /* nobody still reads the old state */
  if (cpu->exchange.local_rank == 0) {
    memcpy(cpu->exchange.values.w, parameters, bytes);
    for (int s = 0; s < cpu->plan->slots; ++s) {
      if (slots != NULL && slots[s] != NULL) {
        memcpy(cpu->exchange.values.slots[s], slots[s], bytes);
      } else {
        memset(cpu->exchange.values.slots[s], 0, bytes);
      }
    }
  }
  TRY_MPI(MPI_Barrier(cpu->world->comm));
cleanup:
  return st;
}

/* Between steps the shared state is complete and nobody writes it. */
static lks_status snapshot_cpu(void *state, float *parameters, float *const *slots,
                               lks_error *err) {
  (void)err;
  lks_cpu *cpu = state;
  const size_t bytes = cpu->plan->parameter_floats * sizeof(float);
  if (parameters != NULL) {
    memcpy(parameters, cpu->exchange.values.w, bytes);
  }
  for (int s = 0; slots != NULL && s < cpu->plan->slots; ++s) {
    memcpy(slots[s], cpu->exchange.values.slots[s], bytes);
  }
  return LKS_OK;
}

void lks_put_control_cpu(float *control, const lks_model *model, const lks_votes *votes,
                         const lks_cpu_block *b, int64_t rows, bool finite) {
  lks_control_put_real(control + LKS_CONTROL_LOSS, b->sums.loss);
  lks_control_put_count(control + LKS_CONTROL_ROWS, rows);
  control[LKS_CONTROL_STOP] = votes->stop ? 1.0f : 0.0f;
  control[LKS_CONTROL_SAVE] = votes->save ? 1.0f : 0.0f;
  control[LKS_CONTROL_FAILED] = votes->failed ? 1.0f : 0.0f;
  control[LKS_CONTROL_NOT_FINITE] = finite ? 0.0f : 1.0f;
  for (int i = 0; i < model->metric_count; ++i) {
    lks_control_put_real(control + LKS_CONTROL_METRICS + 2 * i, b->sums.metrics[i]);
  }
}

bool lks_make_gradients_cpu(lks_cpu *cpu, const lks_step *step, lks_cpu_block *b) {
  const lks_plan *plan = cpu->plan;
  const lks_feed *feed = step->feed;
  float *gradients = cpu->exchange.gradients;
  const int64_t rows = step->votes.failed ? 0 : feed->count;
  *b = lks_begin_step_cpu(cpu, step, cpu->work);
  b->targets = cpu->work + plan->targets;
  for (int64_t first = 0; first < rows; first += plan->block_rows) {
    b->rows = rows - first < plan->block_rows ? rows - first : plan->block_rows;
    b->accumulate = first > 0;
    b->mask.row_ids = feed->row_ids != NULL ? feed->row_ids + first : NULL;
    lks_gather_feed_cpu(plan, feed, first, b->rows, cpu->work + plan->input,
                        cpu->work + plan->targets);
    lks_run_ops_cpu(cpu, plan->train.ops, plan->train.count, b);
    lks_world_beat(cpu->world); /* a large share takes long */
  }
  if (rows == 0) {
    memset(gradients, 0, plan->parameter_floats * sizeof *gradients);
  }
  /* Before the exchange: a sum would not say whose it was, and ReLU hides a NaN later. */
  const bool finite =
      lks_all_finite(gradients, plan->parameter_floats) && lks_control_holds(b->sums.loss);
  lks_put_control_cpu(gradients + plan->parameter_floats, plan->model, &step->votes, b, rows,
                      finite);
  return finite;
}

static lks_status step_by_rows(lks_cpu *cpu, const lks_step *step, lks_control *control,
                               lks_error *err) {
  lks_status st = LKS_OK;
  const lks_plan *plan = cpu->plan;
  lks_cpu_block b;
  const double began = cpu->profile ? lks_now() : 0.0;
  const bool finite = lks_make_gradients_cpu(cpu, step, &b);
  const lks_update update = lks_optimizer_update(&plan->model->optimizer, step->step);
  const double computed = cpu->profile ? lks_now() : 0.0;
  TRY(lks_exchange_run(&cpu->exchange, &update, control, err));
  if (cpu->profile) {
    cpu->compute += computed - began;
    cpu->exchanged += lks_now() - computed;
  }
  control->step = step->step;
  control->not_finite_here = !finite;
cleanup:
  return st;
}

lks_status lks_step_together(lks_cpu *cpu, const lks_step *step, lks_control *control,
                             lks_error *err) {
  lks_status st = LKS_OK;
  if (cpu->ended) { /* on all ranks */
    *control = (lks_control){.step = step->step, .failed = 1};
    goto cleanup;
  }
  if (cpu->plan->gradients == LKS_BY_OWNERS) {
    TRY(lks_owners_step(cpu, step, control, err));
  } else {
    TRY(step_by_rows(cpu, step, control, err));
  }
  cpu->ended = !lks_exchange_may_update(control);
cleanup:
  return st;
}

static lks_status step_cpu(void *state, const lks_step *step, lks_control *control,
                           lks_error *err) {
  const unsigned mode = lks_subnormals_to_zero();
  const lks_status st = lks_step_together(state, step, control, err);
  lks_subnormals_restore(mode);
  return st;
}

static lks_status step_led(void *state, const lks_step *step, lks_control *control,
                           lks_error *err) {
  const unsigned mode = lks_subnormals_to_zero();
  const lks_status st = lks_lead_step(state, step, control, err);
  lks_subnormals_restore(mode);
  return st;
}

/* Outside of steps: by one thread of BLAS, however many steps may use. */
static void run_alone(lks_cpu *cpu, const lks_op *ops, int count, lks_cpu_block *b) {
  const unsigned mode = lks_subnormals_to_zero();
  use_threads(cpu, 1);
  lks_run_ops_cpu(cpu, ops, count, b);
  use_threads(cpu, cpu->threads);
  lks_subnormals_restore(mode);
}

static lks_status evaluate_cpu(void *state, const lks_feed *feed, lks_block_sums *sums,
                               lks_error *err) {
  (void)err;
  lks_cpu *cpu = state;
  const lks_plan *plan = cpu->plan;
  lks_cpu_block b = {.work = cpu->work, .rows = feed->count, .targets = cpu->work + plan->targets};
  lks_gather_feed_cpu(plan, feed, 0, feed->count, cpu->work + plan->input,
                      cpu->work + plan->targets);
  run_alone(cpu, plan->evaluate.ops, plan->evaluate.count, &b);
  *sums = b.sums;
  return LKS_OK;
}

static lks_status predict_cpu(void *state, const lks_feed *feed, int layer, float *out,
                              lks_error *err) {
  (void)err;
  lks_cpu *cpu = state;
  const lks_plan *plan = cpu->plan;
  lks_cpu_block b = {.work = cpu->work, .rows = feed->count};
  const lks_feed features = {
      .features = feed->features, .index = feed->index, .count = feed->count};
  lks_gather_feed_cpu(plan, &features, 0, feed->count, cpu->work + plan->input, NULL);
  const lks_tap *tap = &plan->taps[layer >= 0 ? layer : plan->model->layer_count - 1];
  run_alone(cpu, plan->predict.ops, tap->ops, &b);
  memcpy(out, cpu->work + tap->offset, (size_t)(feed->count * tap->width) * sizeof *out);
  return LKS_OK;
}

static void describe_cpu(void *state, char *out, size_t size) {
  const lks_cpu *cpu = state;
  (void)snprintf(out, size, "%s, %d thread%s a rank", lks_blas_words(), cpu->threads,
                 cpu->threads == 1 ? "" : "s");
}

static lks_status fingerprint_cpu(void *state, uint64_t *hash, lks_error *err) {
  (void)err;
  const lks_cpu *cpu = state;
  *hash = XXH64(cpu->exchange.values.w, cpu->plan->parameter_floats * sizeof(float), 0);
  return LKS_OK;
}

static void timing_cpu(void *state, lks_timing *timing) {
  const lks_cpu *cpu = state;
  *timing = (lks_timing){.wait = cpu->exchange.waited,
                         .compute = cpu->compute,
                         .exchange = cpu->exchanged - cpu->exchange.updated,
                         .update = cpu->exchange.updated};
}

#define COMMON_OPS                                                                                 \
  .name = "cpu", .abi = LKS_BACKEND_ABI, .open = open_cpu, .close = close_cpu,                     \
  .restore = restore_cpu, .snapshot = snapshot_cpu, .evaluate = evaluate_cpu,                      \
  .predict = predict_cpu, .describe = describe_cpu, .fingerprint = fingerprint_cpu,                \
  .timing = timing_cpu

const lks_backend_ops lks_backend_cpu = {COMMON_OPS, .step = step_cpu};
const lks_backend_ops lks_backend_cpu_led = {COMMON_OPS, .lag = 1, .step = step_led,
                                             .drain = lks_lead_drain};
