/* Compiling a model: places of all tensors, then the four programs. */
#include "plan/plan.h"

#include <stdlib.h>

#include "plan/emit.h"

/* Blocks are kept near this many bytes of activations when all parameters stay in a cache of this
 * order anyway; a larger model reads its parameters again for each block, so it takes its share
 * whole. Decided by the model and the batch, never by the machine. */
#define BLOCK_BYTES (512 * 1024)
#define BLOCK_LEAST_ROWS 64

void lks_plan_share(const lks_plan *plan, int64_t rows, int rank, int ranks, int64_t *first,
                    int64_t *count) {
  const bool led = plan->gradients == LKS_BY_LEADER;
  const int64_t begin = led ? 0 : rows * rank / ranks;
  const int64_t all = rank == lks_plan_leader(plan, ranks) ? rows : 0;
  *first = begin;
  *count = led ? all : rows * (rank + 1) / ranks - begin;
}

int lks_plan_leader(const lks_plan *plan, int ranks) {
  return plan->gradients == LKS_BY_LEADER ? ranks - 1 : 0;
}

static int64_t choose_block(const lks_plan *plan) {
  const int64_t share = plan->share_rows;
  const int64_t row_bytes = plan->row_floats * (int64_t)sizeof(float);
  if (plan->model->arena_floats * (int64_t)sizeof(float) > BLOCK_BYTES) {
    return share;
  }
  int64_t rows = BLOCK_BYTES / row_bytes;
  rows = rows > BLOCK_LEAST_ROWS ? rows : BLOCK_LEAST_ROWS;
  const int64_t blocks = (share + rows - 1) / rows;
  return (share + blocks - 1) / blocks;
}

/* Floats by which the parameters must outnumber what owners read: some microseconds of reading from
 * another core, for one more barrier at which ranks wait for the slowest. */
enum { BARRIER_FLOATS = 16384 };

/* Whether a layer has few rows by large weights: the gradient of those an owner, be it of all,
 * never writes to memory. */
static bool has_few(const lks_plan *plan) {
  const lks_model *model = plan->model;
  bool any = false;
  for (int i = 0; i < model->layer_count; ++i) {
    const lks_layer *layer = &model->layers[i];
    any = any || (layer->parameter_count > 0 && lks_plan_is_few(plan->batch_size, layer));
  }
  return any;
}

/* Multiplications of a product that keep a thread busy: with fewer, waiting for the others takes
 * longer than they save. 20-N-N-2 takes on two threads 1.27 and 1.02 of the time on one where N x N
 * by the rows of a block are 4 million or so, 1.26 and 1.06 for 6, 0.98 for 8, 0.94 and 0.73 for
 * 10, 0.77 for 28 (a Xeon, OpenBLAS). */
#define THREAD_WORK 4000000

/* Few rows by large weights are read from memory strip by strip, which one thread does: in
 * 512-4096-4096-10 with 16 rows two threads of BLAS take 1.30 of its time. */
enum { THREADS_FOR_FEW = 2 };

int lks_plan_threads(const lks_plan *plan, int most) {
  const lks_model *model = plan->model;
  const int64_t rows = plan->share_rows < plan->block_rows ? plan->share_rows : plan->block_rows;
  int64_t largest = 0;
  for (int i = 0; i < model->layer_count; ++i) {
    const lks_layer *layer = &model->layers[i];
    const int64_t work = layer->parameter_count > 0 ? rows * layer->inputs * layer->outputs : 0;
    largest = work > largest ? work : largest;
  }
  if (has_few(plan) && most <= THREADS_FOR_FEW) {
    return 1;
  }
  const int64_t busy = largest / THREAD_WORK;
  return busy < 1 ? 1 : busy < most ? (int)busy : most;
}

/* Whether owners read less of a batch's rows than ranks would read of each other's gradients: an
 * owner of W needs the columns of the inputs that its rows of W belong to, and all of dz. */
static bool owners_pay(const lks_plan *plan, int ranks) {
  const lks_model *model = plan->model;
  int64_t floats = 0;
  if ((ranks < 2 && !has_few(plan)) || plan->block_rows < plan->share_rows) {
    return false;
  }
  for (int i = 0; i < model->layer_count; ++i) {
    const lks_layer *layer = &model->layers[i];
    floats += layer->parameter_count > 0 ? layer->inputs / ranks + layer->outputs : 0;
  }
  return plan->batch_size * floats + BARRIER_FLOATS <= model->arena_floats;
}

/* Work of a step, in floating-point operations or what takes as long, up to which one rank does it
 * all rather than share it. What sharing costs is as much as this: two barriers, and for each
 * parameter the reading of another core's gradient, and of what that core then made of it
 * (docs/performance.md has both sides of the choice). */
#define SHARING_WORK 400e3
#define SHARING_WORK_A_PARAMETER 150.0
/* What takes as long as a float of a row that is read or written. */
#define ROW_FLOAT_WORK 8.0

static bool leader_pays(const lks_plan *plan, int ranks) {
  const double p = (double)plan->model->arena_floats;
  const double row = 6.0 * p + ROW_FLOAT_WORK * (double)plan->row_floats;
  return ranks > 1 && (double)plan->batch_size * row <= SHARING_WORK + SHARING_WORK_A_PARAMETER * p;
}

static lks_gradients choose_gradients(const lks_plan *plan, int ranks) {
  return owners_pay(plan, ranks)    ? LKS_BY_OWNERS
         : leader_pays(plan, ranks) ? LKS_BY_LEADER
                                    : LKS_BY_ROWS;
}

/* Where tensors are laid out, one behind the other. */
typedef struct layout {
  int64_t rows;
  size_t floats, input, targets;
  lks_layer_places *places; /* [layer_count] */
  size_t *gradient;         /* [gradients] */
  int gradients;
} layout;

/* Takes a tensor of `width` floats a row. */
static size_t take(layout *at, int64_t width) {
  const size_t offset = at->floats;
  const int64_t floats = width * at->rows;
  at->floats += (size_t)((floats + LKS_TENSOR_ALIGN - 1) / LKS_TENSOR_ALIGN * LKS_TENSOR_ALIGN);
  return offset;
}

static void count_row(lks_plan *plan, int64_t widest) {
  const lks_model *model = plan->model;
  plan->row_floats = model->inputs + plan->target_columns + 2 * widest;
  for (int i = 0; i < model->layer_count; ++i) {
    const lks_needs needs = lks_layer_needs(model, i);
    plan->row_floats += needs.out + needs.z + needs.mask;
  }
}

/* Input, targets, what each layer keeps, and room for the places of `gradients` gradients. */
static lks_status open_layout(lks_plan *plan, int64_t rows, int gradients, layout *at,
                              lks_error *err) {
  lks_status st = LKS_OK;
  const lks_model *model = plan->model;
  *at = (layout){.rows = rows, .gradients = gradients};
  at->places = lks_arena_alloc(&plan->arena, (size_t)model->layer_count * sizeof *at->places);
  at->gradient = lks_arena_alloc(&plan->arena, (size_t)gradients * sizeof *at->gradient);
  TRY_ALLOC(at->places);
  TRY_ALLOC(at->gradient);
  at->input = take(at, model->inputs);
  at->targets = take(at, plan->target_columns);
  for (int i = 0; i < model->layer_count; ++i) {
    const lks_needs needs = lks_layer_needs(model, i);
    at->places[i].out = take(at, needs.out);
    at->places[i].z = needs.z > 0 ? take(at, needs.z) : at->places[i].out;
    at->places[i].mask = needs.mask > 0 ? take(at, needs.mask) : 0;
  }
cleanup:
  return st;
}

/* Two gradients in turn: each is done with when the next but one is made. */
static lks_status place_block(lks_plan *plan, int64_t widest, layout *at, lks_error *err) {
  lks_status st = LKS_OK;
  TRY(open_layout(plan, plan->buffer_rows, 2, at, err));
  at->gradient[0] = take(at, widest);
  at->gradient[1] = take(at, widest);
  plan->input = at->input;
  plan->targets = at->targets;
  plan->work_floats = at->floats + LKS_TENSOR_ALIGN; /* vectors may reach past the last tensor */
cleanup:
  return st;
}

/* All gradients apart: owners need them when the last is made. */
static lks_status place_common(lks_plan *plan, layout *at, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_model *model = plan->model;
  int count = 0;
  TRY(open_layout(plan, plan->batch_size, model->layer_count + 1, at, err));
  at->gradient[count++] = take(at, model->outputs);
  for (int i = model->layer_count - 1; i >= 0; --i) {
    if (model->layers[i].parameter_count > 0) {
      at->gradient[count++] = take(at, model->layers[i].inputs);
    }
  }
  plan->common = (lks_common_rows){.rows = at->rows,
                                   .input = at->input,
                                   .targets = at->targets,
                                   .floats = at->floats + LKS_TENSOR_ALIGN};
cleanup:
  return st;
}

/* The lowest layer with parameters: below it no gradient is needed. */
static int lowest_trainable(const lks_model *model) {
  int layer = 0;
  while (model->layers[layer].parameter_count == 0) {
    ++layer;
  }
  return layer;
}

static lks_status open_program(lks_plan *plan, lks_program *program, lks_error *err) {
  lks_status st = LKS_OK;
  const size_t most = (size_t)plan->model->layer_count * LKS_LAYER_MAX_OPS + 1;
  program->ops = lks_arena_alloc(&plan->arena, most * sizeof(lks_op));
  TRY_ALLOC(program->ops);
cleanup:
  return st;
}

static lks_status emit_program(lks_plan *plan, lks_mode mode, const layout *at,
                               lks_program *program, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_model *model = plan->model;
  const bool owners = plan->gradients == LKS_BY_OWNERS; /* who work on the rows of all */
  const int64_t train_rows = owners ? plan->batch_size : plan->block_rows;
  lks_emitter emitter = {.plan = plan,
                         .places = at->places,
                         .mode = mode,
                         .program = program,
                         .weights = owners ? &plan->weights : program,
                         .current = at->input,
                         .targets = at->targets,
                         .gradient = at->gradient,
                         .gradients = at->gradients,
                         .most_rows = mode == LKS_MODE_TRAIN ? train_rows : LKS_EVALUATION_ROWS,
                         .fused = model->link != LKS_LINK_NONE && !model->logits};
  emitter.inputs = lks_arena_alloc(&plan->arena, (size_t)model->layer_count * sizeof(size_t));
  TRY_ALLOC(emitter.inputs);
  TRY(open_program(plan, program, err));
  for (int i = 0; i < model->layer_count; ++i) {
    lks_emit_forward(&emitter, i);
    if (mode == LKS_MODE_PREDICT) {
      plan->taps[i] = (lks_tap){
          .ops = program->count, .offset = emitter.current, .width = model->layers[i].outputs};
    }
  }
  if (mode == LKS_MODE_PREDICT) {
    plan->prediction = emitter.current;
    goto cleanup;
  }
  lks_emit_loss(&emitter);
  if (mode == LKS_MODE_TRAIN) {
    const int lowest = lowest_trainable(model);
    for (int i = model->layer_count - 1; i >= lowest; --i) {
      lks_emit_backward(&emitter, i, i == lowest);
    }
  }
cleanup:
  return st;
}

static void add_flops(lks_plan *plan, const lks_program *program) {
  for (int i = 0; i < program->count; ++i) {
    const lks_op *op = &program->ops[i];
    if (op->kind == LKS_OP_DENSE_FORWARD || op->kind == LKS_OP_DENSE_BACKWARD_WEIGHTS ||
        op->kind == LKS_OP_DENSE_BACKWARD_INPUT) {
      plan->flops_per_row += 2.0 * (double)op->inputs * (double)op->outputs;
    }
  }
}

/* Who makes gradients, of how many rows, and how many at a time. */
static void choose_shares(lks_plan *plan, int ranks, lks_gradients gradients) {
  const int64_t batch = plan->batch_size;
  plan->share_rows = (batch + ranks - 1) / ranks;
  plan->block_rows = choose_block(plan);
  plan->gradients = gradients == LKS_BY_BEST ? choose_gradients(plan, ranks) : gradients;
  if (plan->gradients == LKS_BY_LEADER && ranks == 1) {
    plan->gradients = LKS_BY_ROWS; /* the same, with nobody to tell of it */
  }
  if (plan->gradients == LKS_BY_LEADER) {
    plan->share_rows = batch;
    plan->block_rows = choose_block(plan);
  }
  const bool owners = plan->gradients == LKS_BY_OWNERS;
  plan->block_rows = owners ? plan->share_rows : plan->block_rows;
  plan->buffer_rows =
      owners || plan->block_rows < LKS_EVALUATION_ROWS ? LKS_EVALUATION_ROWS : plan->block_rows;
}

/* Places of all tensors, and the programs that work on them. */
static lks_status compile(lks_plan *plan, int ranks, lks_gradients gradients, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_model *model = plan->model;
  layout block, common;
  int64_t widest = 0;
  for (int i = 0; i < model->layer_count; ++i) {
    widest = model->layers[i].outputs > widest ? model->layers[i].outputs : widest;
  }
  count_row(plan, widest);
  choose_shares(plan, ranks, gradients);
  const bool owners = plan->gradients == LKS_BY_OWNERS;
  TRY(place_block(plan, widest, &block, err));
  if (owners) {
    TRY(place_common(plan, &common, err));
    TRY(open_program(plan, &plan->weights, err));
  }
  TRY(emit_program(plan, LKS_MODE_TRAIN, owners ? &common : &block, &plan->train, err));
  TRY(emit_program(plan, LKS_MODE_EVALUATE, &block, &plan->evaluate, err));
  TRY(emit_program(plan, LKS_MODE_PREDICT, &block, &plan->predict, err));
  add_flops(plan, &plan->train);
  add_flops(plan, &plan->weights);
cleanup:
  return st;
}

lks_status lks_plan_make(const lks_model *model, int64_t batch_size, int ranks,
                         lks_gradients gradients, lks_plan **out, lks_error *err) {
  lks_status st = LKS_OK;
  *out = NULL;
  lks_plan *plan = calloc(1, sizeof *plan);
  TRY_ALLOC(plan);
  plan->model = model;
  plan->batch_size = batch_size;
  plan->target_columns = model->loss->labels ? 1 : model->outputs;
  plan->parameter_floats = (size_t)model->arena_floats;
  plan->gradient_floats = plan->parameter_floats + LKS_TENSOR_ALIGN;
  _Static_assert(LKS_CONTROL_FLOATS < LKS_TENSOR_ALIGN, "the control block fits its tail");
  plan->slots = lks_optimizer_slots(&model->optimizer);
  plan->taps = lks_arena_alloc(&plan->arena, (size_t)model->layer_count * sizeof *plan->taps);
  TRY_ALLOC(plan->taps);
  TRY(compile(plan, ranks, gradients, err));
  *out = plan;
  plan = NULL;
cleanup:
  lks_plan_free(&plan);
  return st;
}

int64_t lks_plan_cut_step(const lks_op *op) {
  /* With as many rows BLAS has enough to do. It makes large ones, and some of aliased inputs. */
  enum { STEP = 32, LEAST_INPUTS = 256 };
  const bool large = op->inputs * op->outputs > LKS_LARGE_WEIGHTS;
  return op->inputs >= LEAST_INPUTS && (large || op->inputs % LKS_ALIASED_FLOATS == 0) ? STEP : 1;
}

/* The nearest place between steps of rows, none of which is short. */
static size_t cut_weights(const lks_op *op, size_t place) {
  const size_t width = (size_t)op->outputs, end = op->weights + (size_t)op->inputs * width;
  const size_t step = (size_t)lks_plan_cut_step(op) * width;
  const size_t cut = op->weights + (place - op->weights + step / 2) / step * step;
  return cut + step > end ? end : cut;
}

size_t lks_plan_cut(const lks_plan *plan, double part) {
  const size_t place = (size_t)((double)plan->parameter_floats * part);
  for (int i = 0; i < plan->weights.count; ++i) {
    const lks_op *op = &plan->weights.ops[i];
    const size_t width = (size_t)op->outputs, weights = (size_t)op->inputs * width;
    if (place > op->weights && place < op->weights + weights) {
      return cut_weights(op, place);
    }
    if (op->has_bias && place > op->bias && place < op->bias + width) {
      return op->bias;
    }
  }
  return place;
}

void lks_plan_free(lks_plan **plan) {
  if (*plan != NULL) {
    lks_arena_free(&(*plan)->arena);
    free(*plan);
    *plan = NULL;
  }
}
