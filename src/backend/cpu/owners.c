/* A step with gradients by owners: the ranks of a node keep the activations of a batch in common,
 * and each makes the gradient of the weights that it owns from the rows of all.
 *
 *   1. Each rank runs `train` on its rows, which lie behind those of lower ranks; or, of products
 *      that pay it, on its columns of all rows, between two barriers.
 *   2. Barrier: activations and their gradients complete; the control blocks with them.
 *   3. Each rank runs `weights` on its slice of the parameters and all rows, and says whether that
 *      is finite (slice.c).
 *   4. Barrier: verdicts complete. Each updates its slice.
 *   5. Barrier: parameters complete.
 *
 * Columns and slices are as wide as the ranks' cores are fast (shares.h), where no bit depends on
 * it, and in whole batches; rows are divided evenly, for sums of losses are added rank by rank.
 *
 * By rows, a rank reads (n - 1) / n of the parameters' gradients from its peers; here as much of
 * the activations, which is less (owners_pay in plan.c). A product over all rows also writes a
 * gradient once, not once a rank, and its sums have the same order on any number of ranks.
 *
 * Where the node has no memory to share, each rank makes the whole gradient of its rows in memory
 * of its own, and the exchange sums it as always. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/product.h"
#include "base/finite.h"
#include "base/pages.h"

enum { LINE = 16 }; /* floats of a cache line */

/* Memory of this rank's own. */
static lks_status open_apart(lks_cpu *cpu, size_t bytes, lks_error *err) {
  lks_status st = LKS_OK;
  cpu->common.base = lks_pages_alloc(bytes);
  if (cpu->common.base == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, "use a smaller train.batch_size or more nodes",
                  "out of memory for %zu bytes of activations", bytes);
  }
  return lks_agree(cpu->world, st, err);
}

/* Whether ranks divide a product by columns. BLAS copies what it multiplies: all weights and a
 * share of the rows when rows are divided, a share of the weights and all rows when columns are,
 * which is less where there are more columns than rows. Of 256 rows and 4096 by 4096 weights on two
 * cores, a forward product takes 43 ms instead of 50, the gradient of the inputs 43 instead of 47.
 */
static bool is_by_columns(const lks_cpu *cpu, const lks_op *op) {
  const bool forward = op->kind == LKS_OP_DENSE_FORWARD;
  const int64_t columns = forward ? op->outputs : op->inputs;
  if (!cpu->is_common || cpu->world->size == 1 ||
      (!forward && op->kind != LKS_OP_DENSE_BACKWARD_INPUT)) {
    return false;
  }
  const bool whole = op->activation != NULL && lks_activation_row_of(op->activation)->across_row;
  return !whole && columns > cpu->plan->batch_size && op->inputs * op->outputs > LKS_LARGE_WEIGHTS;
}

/* Where a rank's columns begin: whole cache lines, the last rank takes what is left. */
static int64_t first_column(const lks_cpu *cpu, int64_t columns, int rank) {
  const double begin = lks_shares_begin(&cpu->shares, rank);
  return rank < cpu->shares.ranks ? (int64_t)((double)(columns / LINE) * begin) * LINE : columns;
}

static void own_slice(lks_cpu *cpu) {
  const int rank = cpu->world->rank;
  const size_t first = lks_plan_cut(cpu->plan, lks_shares_begin(&cpu->shares, rank));
  const size_t end = lks_plan_cut(cpu->plan, lks_shares_begin(&cpu->shares, rank + 1));
  lks_exchange_own(&cpu->exchange, first, end - first);
}

/* Whether all that is divided has the same bits however it is, in a whole batch: what BLAS does
 * with the few rows of a last one was not tried. */
static bool divides_freely(lks_cpu *cpu) {
  const lks_plan *plan = cpu->plan;
  const int64_t rows = plan->batch_size;
  float *work = cpu->common.base;
  const float *parameters = cpu->exchange.values.w;
  bool freely = true;
  for (int i = 0; freely && i < plan->train.count; ++i) {
    lks_op op = plan->train.ops[i];
    if (is_by_columns(cpu, &op)) {
      const int64_t columns = op.kind == LKS_OP_DENSE_FORWARD ? op.outputs : op.inputs;
      const double fewest = (double)columns * LKS_LEAST_SHARE / cpu->world->size;
      const int64_t least = (int64_t)fewest / LINE * LINE;
      op.few = lks_is_few_cpu(cpu, &op);
      freely = lks_dense_divides_cpu(&op, rows, work, parameters, least > LINE ? least : LINE);
    }
  }
  for (int i = 0; freely && i < plan->weights.count; ++i) {
    lks_op op = plan->weights.ops[i];
    op.few = lks_is_few_cpu(cpu, &op);
    freely = lks_dense_divides_cpu(&op, rows, work, parameters, lks_plan_cut_step(&op));
  }
  return freely;
}

/* Shares follow the cores' speed where no bit depends on them and each rank has one core, whose
 * speed it can tell. */
static lks_status open_shares(lks_cpu *cpu, lks_error *err) {
  lks_status st = LKS_OK;
  lks_world *world = cpu->world;
  TRY(lks_agree(world, lks_shares_open(&cpu->shares, world->size, err), err));
  int here = world->size > 1 && cpu->threads == 1 && !cpu->exchange.barrier.crowded;
  int everywhere = 0;
  here = here && divides_freely(cpu);
  TRY_MPI(MPI_Allreduce(&here, &everywhere, 1, MPI_INT, MPI_MIN, world->comm));
  cpu->shares.follow = everywhere != 0;
cleanup:
  return st;
}

lks_status lks_owners_open(lks_cpu *cpu, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_plan *plan = cpu->plan;
  const size_t bytes = plan->common.floats * sizeof(float);
  const bool sharing = cpu->exchange.everyone == MPI_COMM_NULL;
  cpu->common = (lks_shared){.window = MPI_WIN_NULL};
  if (cpu->world->size == 1) {
    TRY(open_apart(cpu, bytes, err));
    cpu->is_common = true;
  } else {
    const lks_status opened =
        sharing ? lks_shared_open(cpu->world, bytes, &cpu->common, err) : LKS_NO_MEMORY;
    cpu->is_common = lks_agree(cpu->world, opened, err) == LKS_OK;
  }
  if (cpu->is_common) {
    return open_shares(cpu, err);
  }
  if (sharing && cpu->world->rank == 0) {
    (void)fprintf(stderr, "lockstep: warning: the node has too little shared memory for a batch's "
                          "activations: every rank makes gradients of its own rows (slower); a "
                          "larger /dev/shm mends it\n");
  }
  lks_shared_close(&cpu->common);
  TRY(open_apart(cpu, bytes, err));
cleanup:
  return st;
}

void lks_owners_close(lks_cpu *cpu) {
  if (cpu->plan->gradients == LKS_BY_OWNERS) {
    lks_shared_close(&cpu->common);
    lks_shares_close(&cpu->shares);
  }
}

/* The same operation on rows from `first` on. */
static lks_op from_row(const lks_op *op, size_t first) {
  lks_op moved = *op;
  const size_t in = first * (size_t)op->inputs, out = first * (size_t)op->outputs;
  const bool down = op->kind == LKS_OP_DENSE_BACKWARD_INPUT;
  moved.in += op->kind == LKS_OP_DENSE_FORWARD ? in : out;
  moved.out += down ? in : out;
  moved.y += down ? in : out;
  moved.z += down ? in : out;
  /* Masks take a byte a unit, in whole floats a row. */
  const bool masks = op->kind == LKS_OP_DROPOUT_FORWARD || op->kind == LKS_OP_DROPOUT_BACKWARD;
  moved.aux += masks ? first * (size_t)((op->outputs + 3) / 4) : out;
  return moved;
}

/* This rank's columns of a product, of the rows of all. */
static void run_columns(lks_cpu *cpu, const lks_op *op, int64_t rows, float *work) {
  const float *parameters = cpu->exchange.values.w;
  const int rank = cpu->world->rank;
  const bool forward = op->kind == LKS_OP_DENSE_FORWARD;
  const int64_t columns = forward ? op->outputs : op->inputs;
  const int64_t first = first_column(cpu, columns, rank);
  const int64_t end = first_column(cpu, columns, rank + 1);
  if (first == end) {
    return;
  }
  const double began = lks_now();
  lks_op here = *op;
  here.few = lks_is_few_cpu(cpu, op);
  if (forward) {
    lks_dense_forward_cpu(&here, rows, work, parameters, first, end);
  } else {
    lks_dense_input_cpu(&here, rows, work, parameters, first, end);
  }
  cpu->divided += lks_now() - began;
}

/* An operation on this rank's rows, which begin at `first`. */
static void run_rows(lks_cpu *cpu, const lks_op *whole, int64_t first, lks_cpu_block *b) {
  const lks_op op = from_row(whole, (size_t)first);
  if (op.kind == LKS_OP_DENSE_FORWARD) { /* its owners have updated them since */
    const int64_t weights = op.inputs * op.outputs;
    lks_product_fetch(cpu->exchange.values.w + op.weights, 1, weights, weights, weights);
  }
  lks_run_ops_cpu(cpu, &op, 1, b);
}

/* The barrier behind divided work, or none: shares follow what it took. */
static lks_status meet(lks_cpu *cpu, lks_error *err) {
  lks_status st = LKS_OK;
  lks_exchange_tell_time(&cpu->exchange, cpu->divided);
  cpu->divided = 0.0;
  TRY(lks_exchange_meet(&cpu->exchange, err));
  if (cpu->shares.follow) {
    lks_exchange_hear_times(&cpu->exchange, cpu->shares.took);
    lks_shares_follow(&cpu->shares);
  }
cleanup:
  return st;
}

/* One within forward and backward, on the account of the exchange. */
static lks_status meet_within(lks_cpu *cpu, lks_error *err) {
  const double began = cpu->profile ? lks_now() : 0.0;
  const lks_status st = meet(cpu, err);
  const double took = cpu->profile ? lks_now() - began : 0.0;
  cpu->exchanged += took;
  cpu->compute -= took;
  return st;
}

/* Forward and backward of `rows` rows from `first` on, and of this rank's columns. *finite: the
 * loss and, of rows that were not divided by columns, the lowest gradient. Collective where rows
 * are in common: a rank without rows meets the others too. */
static lks_status run_train(lks_cpu *cpu, const lks_step *step, int64_t first, int64_t rows,
                            lks_cpu_block *b, bool *finite, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_plan *plan = cpu->plan;
  float *features = b->work + plan->common.input + (size_t)(first * plan->model->inputs);
  float *targets = b->work + plan->common.targets + (size_t)(first * plan->target_columns);
  bool divided = false;
  b->rows = rows;
  b->targets = targets;
  if (rows > 0) {
    b->mask.row_ids = step->feed->row_ids;
    lks_gather_feed_cpu(plan, step->feed, 0, rows, features, targets);
  }
  for (int i = 0; i < plan->train.count; ++i) {
    const lks_op *op = &plan->train.ops[i];
    const bool before = divided;
    divided = is_by_columns(cpu, op);
    if (divided || before) {
      TRY(meet_within(cpu, err)); /* what others made is read now */
    }
    if (divided) {
      run_columns(cpu, op, step->global_rows, b->work);
      lks_world_beat(cpu->world);
    } else if (rows > 0) {
      run_rows(cpu, op, first, b);
    }
  }
  /* Where a number is not finite, the lowest dz mostly tells whose row it was. */
  const lks_op lowest = from_row(&plan->weights.ops[plan->weights.count - 1], (size_t)first);
  *finite = lks_control_holds(b->sums.loss) &&
            (divided || lks_all_finite(b->work + lowest.out, (size_t)(rows * lowest.outputs)));
cleanup:
  return st;
}

/* By rows after all: no memory is shared. */
static lks_status step_apart(lks_cpu *cpu, const lks_step *step, const lks_update *update,
                             lks_control *control, lks_error *err) {
  lks_status st = LKS_OK;
  const size_t p = cpu->plan->parameter_floats;
  float *gradients = cpu->exchange.gradients;
  const int64_t rows = step->votes.failed ? 0 : step->feed->count;
  lks_cpu_block b = lks_begin_step_cpu(cpu, step, cpu->common.base);
  const double began = cpu->profile ? lks_now() : 0.0;
  bool finite = true;
  if (rows > 0) {
    TRY(run_train(cpu, step, 0, rows, &b, &finite, err));
    finite = lks_slice_make_all(cpu, b.work, rows) && finite;
  } else {
    memset(gradients, 0, p * sizeof *gradients);
  }
  lks_put_control_cpu(gradients + p, cpu->plan->model, &step->votes, &b, rows, finite);
  const double computed = cpu->profile ? lks_now() : 0.0;
  TRY(lks_exchange_run(&cpu->exchange, update, control, err));
  cpu->compute += computed - began;
  cpu->exchanged += cpu->profile ? lks_now() - computed : 0.0;
  control->not_finite_here = !finite;
cleanup:
  return st;
}

static lks_status step_common(lks_cpu *cpu, const lks_step *step, const lks_update *update,
                              lks_control *control, lks_error *err) {
  lks_status st = LKS_OK;
  lks_exchange *exchange = &cpu->exchange;
  const size_t p = cpu->plan->parameter_floats;
  const int64_t rows = step->votes.failed ? 0 : step->feed->count;
  lks_cpu_block b = lks_begin_step_cpu(cpu, step, cpu->common.base);
  double times[3] = {cpu->profile ? lks_now() : 0.0};
  bool finite = true;
  lks_slice slice;
  cpu->divided = 0.0;
  cpu->shares.even = step->global_rows < cpu->plan->batch_size;
  TRY(run_train(cpu, step, rows > 0 ? step->feed->first : 0, rows, &b, &finite, err));
  lks_put_control_cpu(exchange->gradients + p, cpu->plan->model, &step->votes, &b, rows, finite);
  times[1] = cpu->profile ? lks_now() : 0.0;
  TRY(meet(cpu, err)); /* activations complete */
  lks_exchange_sum_control(exchange, control);
  control->not_finite_here = !finite;
  if (!lks_exchange_may_update(control)) {
    goto cleanup; /* all ranks, and none writes its block again: see lks_step_together */
  }
  own_slice(cpu);
  TRY(lks_slice_make(cpu, b.work, step->global_rows, &slice, err));
  control->not_finite += slice.bad;
  control->not_finite_here = !slice.finite;
  if (lks_exchange_may_update(control)) {
    const double began = lks_now();
    lks_slice_update(cpu, b.work, step->global_rows, update, slice.whole);
    cpu->divided += lks_now() - began;
  }
  TRY(meet(cpu, err)); /* parameters complete */
  times[2] = cpu->profile ? lks_now() : 0.0;
  cpu->compute += times[1] - times[0];
  cpu->exchanged += times[2] - times[1];
cleanup:
  return st;
}

lks_status lks_owners_step(lks_cpu *cpu, const lks_step *step, lks_control *control,
                           lks_error *err) {
  lks_status st = LKS_OK;
  const lks_update update = lks_optimizer_update(&cpu->plan->model->optimizer, step->step);
  if (cpu->is_common) {
    TRY(step_common(cpu, step, &update, control, err));
  } else {
    TRY(step_apart(cpu, step, &update, control, err));
  }
  control->step = step->step;
cleanup:
  return st;
}
