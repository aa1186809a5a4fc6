/* The CPU backend: runs programs as calls, block by block. The reference of all others. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "backend/cpu/cpu.h"
#include "base/blas.h"
#include "base/finite.h"

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

/* ---- programs */

typedef struct block {
  int64_t rows;
  const float *targets; /* of the loss */
  double divisor;       /* of the gradient */
  bool accumulate;      /* not the step's first block: gradients are added up */
  lks_mask_key mask;
  lks_block_sums sums;
} block;

static void run_op(lks_cpu *cpu, const lks_op *op, block *b) {
  float *work = cpu->work;
  const float *parameters = cpu->exchange.parameters;
  float *gradients = cpu->exchange.gradients;
  switch (op->kind) {
  case LKS_OP_DENSE_FORWARD:
    lks_dense_forward_cpu(op, b->rows, work, parameters);
    break;
  case LKS_OP_ACTIVATION_FORWARD:
    lks_activate_cpu(op->activation, NULL, work + op->in, work + op->out, b->rows, op->outputs);
    break;
  case LKS_OP_DROPOUT_FORWARD:
    b->mask.layer = op->layer;
    lks_dropout_cpu(&b->mask, op->rate, work + op->in, work + op->out,
                    (unsigned char *)(work + op->aux), b->rows, op->outputs);
    break;
  case LKS_OP_LOSS:
    lks_loss_cpu(cpu->plan->model, work + op->in, b->targets, b->rows, 1.0, NULL, &b->sums);
    break;
  case LKS_OP_LOSS_GRADIENT:
    lks_loss_cpu(cpu->plan->model, work + op->in, b->targets, b->rows, b->divisor, work + op->out,
                 &b->sums);
    break;
  case LKS_OP_ACTIVATION_BACKWARD:
    lks_derive_cpu(op->activation, work + op->y, work + op->z, work + op->out, b->rows,
                   op->outputs);
    break;
  case LKS_OP_DROPOUT_BACKWARD:
    lks_dropout_backward_cpu(op->rate, (const unsigned char *)(work + op->aux), work + op->out,
                             b->rows, op->outputs);
    break;
  case LKS_OP_DENSE_BACKWARD_WEIGHTS:
    lks_dense_weights_cpu(op, b->rows, work, gradients, b->accumulate);
    break;
  case LKS_OP_DENSE_BACKWARD_INPUT:
    lks_dense_input_cpu(op, b->rows, work, parameters);
    break;
  }
}

static void run_program(lks_cpu *cpu, const lks_op *ops, int count, block *b) {
  for (int i = 0; i < count; ++i) {
    run_op(cpu, &ops[i], b);
  }
}

/* Rows [first, first + count) of a feed into the work arena. */
static void gather(lks_cpu *cpu, const lks_feed *feed, int64_t first, int64_t count) {
  const lks_plan *plan = cpu->plan;
  const int64_t inputs = plan->model->inputs, targets = plan->target_columns;
  const int64_t *index = feed->index != NULL ? feed->index + first : NULL;
  const int64_t skip = feed->index != NULL ? 0 : first;
  lks_gather_cpu(feed->features + skip * inputs, index, count, inputs, cpu->work + plan->input);
  if (feed->targets != NULL) {
    lks_gather_cpu(feed->targets + skip * targets, index, count, targets,
                   cpu->work + plan->targets);
  }
}

/* ---- the contract */

static void close_cpu(void *state) {
  lks_cpu *cpu = state;
  if (cpu != NULL) {
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
    const size_t bytes = (plan->work_floats * sizeof(float) + 4095) / 4096 * 4096;
    cpu->plan = plan;
    cpu->world = request->world;
    cpu->seed = request->seed;
    cpu->profile = request->profile;
    cpu->threads = request->world->threads;
    cpu->set_blas_threads = lks_find_set_threads();
    cpu->work = aligned_alloc(4096, bytes);
    if (cpu->work != NULL) {
      memset(cpu->work, 0, bytes);
    }
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
  TRY_MPI(MPI_Barrier(cpu->world->comm)); /* nobody still reads the old state */
  if (cpu->exchange.local_rank == 0) {
    memcpy(cpu->exchange.parameters, parameters, bytes);
    for (int s = 0; s < cpu->plan->slots; ++s) {
      if (slots != NULL && slots[s] != NULL) {
        memcpy(cpu->exchange.slots[s], slots[s], bytes);
      } else {
        memset(cpu->exchange.slots[s], 0, bytes);
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
    memcpy(parameters, cpu->exchange.parameters, bytes);
  }
  for (int s = 0; slots != NULL && s < cpu->plan->slots; ++s) {
    memcpy(slots[s], cpu->exchange.slots[s], bytes);
  }
  return LKS_OK;
}

static void put_control(float *control, const lks_model *model, const lks_votes *votes,
                        const block *b, int64_t rows, bool finite) {
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

static lks_status step_cpu(void *state, const lks_step *step, lks_control *control,
                           lks_error *err) {
  lks_status st = LKS_OK;
  lks_cpu *cpu = state;
  const lks_plan *plan = cpu->plan;
  const lks_feed *feed = step->feed;
  float *gradients = cpu->exchange.gradients;
  block b = {.divisor = (double)step->global_rows,
             .targets = cpu->work + plan->targets,
             .mask = {.seed = cpu->seed, .step = step->step}};
  const int64_t rows = step->votes.failed ? 0 : feed->count;
  const double began = cpu->profile ? lks_now() : 0.0;
  for (int64_t first = 0; first < rows; first += plan->block_rows) {
    b.rows = rows - first < plan->block_rows ? rows - first : plan->block_rows;
    b.accumulate = first > 0;
    b.mask.row_ids = feed->row_ids != NULL ? feed->row_ids + first : NULL;
    gather(cpu, feed, first, b.rows);
    run_program(cpu, plan->train.ops, plan->train.count, &b);
    lks_world_beat(cpu->world); /* a large share takes long */
  }
  if (rows == 0) {
    memset(gradients, 0, plan->parameter_floats * sizeof *gradients);
  }
  /* Before the exchange: a sum would not say whose it was, and ReLU hides a NaN later. */
  const bool finite =
      lks_all_finite(gradients, plan->parameter_floats) && b.sums.loss - b.sums.loss == 0.0;
  put_control(gradients + plan->parameter_floats, plan->model, &step->votes, &b, rows, finite);
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

static lks_status evaluate_cpu(void *state, const lks_feed *feed, lks_block_sums *sums,
                               lks_error *err) {
  (void)err;
  lks_cpu *cpu = state;
  block b = {.rows = feed->count, .targets = cpu->work + cpu->plan->targets};
  gather(cpu, feed, 0, feed->count);
  use_threads(cpu, 1);
  run_program(cpu, cpu->plan->evaluate.ops, cpu->plan->evaluate.count, &b);
  use_threads(cpu, cpu->threads);
  *sums = b.sums;
  return LKS_OK;
}

static lks_status predict_cpu(void *state, const lks_feed *feed, int layer, float *out,
                              lks_error *err) {
  (void)err;
  lks_cpu *cpu = state;
  const lks_plan *plan = cpu->plan;
  block b = {.rows = feed->count};
  const lks_feed features = {
      .features = feed->features, .index = feed->index, .count = feed->count};
  gather(cpu, &features, 0, feed->count);
  const lks_tap *tap = &plan->taps[layer >= 0 ? layer : plan->model->layer_count - 1];
  use_threads(cpu, 1);
  run_program(cpu, plan->predict.ops, tap->ops, &b);
  use_threads(cpu, cpu->threads);
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
  *hash = XXH64(cpu->exchange.parameters, cpu->plan->parameter_floats * sizeof(float), 0);
  return LKS_OK;
}

static void timing_cpu(void *state, lks_timing *timing) {
  const lks_cpu *cpu = state;
  *timing = (lks_timing){.wait = cpu->exchange.waited,
                         .compute = cpu->compute,
                         .exchange = cpu->exchanged - cpu->exchange.updated,
                         .update = cpu->exchange.updated};
}

const lks_backend_ops lks_backend_cpu = {.name = "cpu",
                                         .abi = LKS_BACKEND_ABI,
                                         .lag = 0,
                                         .open = open_cpu,
                                         .close = close_cpu,
                                         .restore = restore_cpu,
                                         .snapshot = snapshot_cpu,
                                         .step = step_cpu,
                                         .evaluate = evaluate_cpu,
                                         .predict = predict_cpu,
                                         .describe = describe_cpu,
                                         .fingerprint = fingerprint_cpu,
                                         .timing = timing_cpu};
