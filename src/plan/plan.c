/* Compiling a model: places of all tensors, then the three programs. */
#include "plan/plan.h"

#include <stdlib.h>

#include "plan/emit.h"

/* Blocks are kept near this many bytes of activations when all parameters stay in a cache of this
 * order anyway; a larger model reads its parameters again for each block, so it takes its share
 * whole. Decided by the model and the batch, never by the machine. */
#define BLOCK_BYTES (512 * 1024)
#define BLOCK_LEAST_ROWS 64

void lks_plan_share(int64_t rows, int rank, int ranks, int64_t *first, int64_t *count) {
  const int64_t begin = rows * rank / ranks;
  *first = begin;
  *count = rows * (rank + 1) / ranks - begin;
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

/* Takes a tensor of `width` floats a row from the work arena. */
static size_t take(lks_plan *plan, int64_t width) {
  const size_t offset = plan->work_floats;
  const int64_t floats = width * plan->buffer_rows;
  plan->work_floats +=
      (size_t)((floats + LKS_TENSOR_ALIGN - 1) / LKS_TENSOR_ALIGN * LKS_TENSOR_ALIGN);
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

static void place_tensors(lks_plan *plan, int64_t widest, lks_layer_places *places,
                          size_t gradient[2]) {
  const lks_model *model = plan->model;
  plan->input = take(plan, model->inputs);
  plan->targets = take(plan, plan->target_columns);
  for (int i = 0; i < model->layer_count; ++i) {
    const lks_needs needs = lks_layer_needs(model, i);
    places[i].out = take(plan, needs.out);
    places[i].z = needs.z > 0 ? take(plan, needs.z) : places[i].out;
    places[i].mask = needs.mask > 0 ? take(plan, needs.mask) : 0;
  }
  gradient[0] = take(plan, widest);
  gradient[1] = take(plan, widest);
}

/* The lowest layer with parameters: below it no gradient is needed. */
static int lowest_trainable(const lks_model *model) {
  int layer = 0;
  while (model->layers[layer].parameter_count == 0) {
    ++layer;
  }
  return layer;
}

static lks_status emit_program(lks_emitter *emitter, lks_mode mode, lks_program *program,
                               lks_error *err) {
  lks_status st = LKS_OK;
  lks_plan *plan = emitter->plan;
  const lks_model *model = plan->model;
  const size_t most = (size_t)model->layer_count * LKS_LAYER_MAX_OPS + 1;
  program->ops = lks_arena_alloc(&plan->arena, most * sizeof(lks_op));
  TRY_ALLOC(program->ops);
  emitter->mode = mode;
  emitter->program = program;
  emitter->current = plan->input;
  emitter->turn = 0;
  for (int i = 0; i < model->layer_count; ++i) {
    lks_emit_forward(emitter, i);
    if (mode == LKS_MODE_PREDICT) {
      plan->taps[i] = (lks_tap){
          .ops = program->count, .offset = emitter->current, .width = model->layers[i].outputs};
    }
  }
  if (mode == LKS_MODE_PREDICT) {
    plan->prediction = emitter->current;
    goto cleanup;
  }
  lks_emit_loss(emitter);
  if (mode == LKS_MODE_TRAIN) {
    const int lowest = lowest_trainable(model);
    for (int i = model->layer_count - 1; i >= lowest; --i) {
      lks_emit_backward(emitter, i, i == lowest);
    }
  }
cleanup:
  return st;
}

static void count_flops(lks_plan *plan) {
  for (int i = 0; i < plan->train.count; ++i) {
    const lks_op *op = &plan->train.ops[i];
    if (op->kind == LKS_OP_DENSE_FORWARD || op->kind == LKS_OP_DENSE_BACKWARD_WEIGHTS ||
        op->kind == LKS_OP_DENSE_BACKWARD_INPUT) {
      plan->flops_per_row += 2.0 * (double)op->inputs * (double)op->outputs;
    }
  }
}

lks_status lks_plan_make(const lks_model *model, int64_t batch_size, int ranks, lks_plan **out,
                         lks_error *err) {
  lks_status st = LKS_OK;
  *out = NULL;
  const size_t layers = (size_t)model->layer_count;
  lks_plan *plan = calloc(1, sizeof *plan);
  TRY_ALLOC(plan);
  plan->model = model;
  plan->batch_size = batch_size;
  plan->share_rows = (batch_size + ranks - 1) / ranks;
  plan->target_columns = model->loss->labels ? 1 : model->outputs;
  plan->parameter_floats = (size_t)model->arena_floats;
  plan->gradient_floats = plan->parameter_floats + LKS_TENSOR_ALIGN;
  _Static_assert(LKS_CONTROL_FLOATS <= LKS_TENSOR_ALIGN, "the control block fits its tail");
  plan->slots = lks_optimizer_slots(&model->optimizer);
  int64_t widest = 0;
  for (int i = 0; i < model->layer_count; ++i) {
    widest = model->layers[i].outputs > widest ? model->layers[i].outputs : widest;
  }
  count_row(plan, widest);
  plan->block_rows = choose_block(plan);
  plan->buffer_rows =
      plan->block_rows > LKS_EVALUATION_ROWS ? plan->block_rows : LKS_EVALUATION_ROWS;
  lks_emitter emitter = {.plan = plan, .fused = model->link != LKS_LINK_NONE && !model->logits};
  lks_layer_places *places = lks_arena_alloc(&plan->arena, layers * sizeof *places);
  emitter.inputs = lks_arena_alloc(&plan->arena, layers * sizeof(size_t));
  plan->taps = lks_arena_alloc(&plan->arena, layers * sizeof *plan->taps);
  TRY_ALLOC(places);
  TRY_ALLOC(emitter.inputs);
  TRY_ALLOC(plan->taps);
  place_tensors(plan, widest, places, emitter.gradient);
  plan->work_floats += LKS_TENSOR_ALIGN; /* vectors may reach past the last tensor */
  emitter.places = places;
  TRY(emit_program(&emitter, LKS_MODE_TRAIN, &plan->train, err));
  TRY(emit_program(&emitter, LKS_MODE_EVALUATE, &plan->evaluate, err));
  TRY(emit_program(&emitter, LKS_MODE_PREDICT, &plan->predict, err));
  count_flops(plan);
  *out = plan;
  plan = NULL;
cleanup:
  lks_plan_free(&plan);
  return st;
}

void lks_plan_free(lks_plan **plan) {
  if (*plan != NULL) {
    lks_arena_free(&(*plan)->arena);
    free(*plan);
    *plan = NULL;
  }
}
