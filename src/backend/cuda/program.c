/* The plan's operations as launches.
 *
 * A step of L dense layers with ReLU is L forward products (bias, ReLU and its mask fused), the
 * loss with its gradient, L products for weights (bias gradients fused), L - 1 for inputs (the mask
 * of the layer below fused), one finite check and one update: 3L + 2, beside the gather of rows and
 * the exchange. What cuBLASLt has no fused product for falls back in this order: the plain product
 * and a kernel for the rest; one own kernel for all.
 *
 *   other activations   product with bias, then the activation's kernel; backward likewise. GELU
 *                       too: the library's is the tanh form, Keras' and the CPU's is by erf
 *   a dimension of 1    own kernels, activation and bias fused
 *   masks wrong at 0    product, then ReLU's derivative (mask.c)
 *   several buckets     one more finite check a bucket, before its sum */
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.h"

/* One program under construction. */
typedef struct compiler {
  lks_cuda *cuda;
  const lks_program *program;
  lks_launches *launches;
  const lks_device_state *state;
  int64_t rows;
  bool training;
  bool *masked; /* of the program's operations: its forward product leaves a ReLU mask */
} compiler;

/* What came of looking for a product. */
typedef struct attempt {
  bool done;
  int index;
} attempt;

static lks_launch *append(const compiler *c, lks_launch_kind kind) {
  lks_launch *launch = &c->launches->items[c->launches->count++];
  *launch = (lks_launch){.kind = kind};
  return launch;
}

static float *parameter(const compiler *c, size_t offset) {
  return (float *)lks_at(c->cuda, c->cuda->layout.parameters) + offset;
}

static float *gradient(const compiler *c, size_t offset) {
  return (float *)lks_at(c->cuda, c->cuda->layout.gradients) + offset;
}

static float *tensor(const compiler *c, size_t offset) {
  return lks_tensor_at(c->cuda, offset);
}

static lks_row_block whole(const compiler *c) {
  return (lks_row_block){.state = c->state, .rows = c->rows};
}

static lks_activation_id id_of(const lks_activation *activation) {
  return activation != NULL ? lks_activation_row_of(activation)->id : LKS_ACT_LINEAR;
}

static float parameter_of(const lks_activation *activation) {
  return activation != NULL ? (float)activation->parameter : 0.0f;
}

/* ---- products */

/* Appends a product if cuBLASLt has one. */
static lks_status try_product(const compiler *c, lks_product_kind kind, const lks_op *op,
                              cublasLtEpilogue_t epilogue, const lks_operands *operands,
                              attempt *made, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_product_key key = {.kind = kind,
                               .rows = c->rows,
                               .inputs = op->inputs,
                               .outputs = op->outputs,
                               .epilogue = epilogue,
                               .training = c->training};
  TRY(lks_product_find(c->cuda, &key, operands, &made->index, err));
  lks_product *product = &c->cuda->products.items[made->index];
  made->done = product->count > 0;
  if (made->done) {
    product->used = true;
    lks_launch *launch = append(c, LKS_LAUNCH_PRODUCT);
    launch->as.product.index = made->index;
    launch->as.product.operands = *operands;
  }
cleanup:
  return st;
}

/* An own kernel stands in for the product that was tried last: for the list of choices. */
static void note_own(const compiler *c, const attempt *made) {
  c->cuda->products.items[made->index].used = true;
}

static void append_activation(const compiler *c, const lks_op *op, const lks_activation *activation,
                              float *z, float *y) {
  lks_launch *launch = append(c, LKS_LAUNCH_ACTIVATE);
  launch->as.activate = (lks_activate_args){.in = z,
                                            .y = y,
                                            .rows = c->rows,
                                            .width = op->outputs,
                                            .id = id_of(activation),
                                            .parameter = parameter_of(activation)};
}

static void append_derivative(const compiler *c, const lks_activation *activation, float *y,
                              float *z, float *out, int64_t width) {
  lks_launch *launch = append(c, LKS_LAUNCH_DERIVE);
  launch->as.derive = (lks_derive_args){.y = y,
                                        .z = z,
                                        .gradient = out,
                                        .rows = c->rows,
                                        .width = width,
                                        .id = id_of(activation),
                                        .parameter = parameter_of(activation)};
}

bool lks_mask_wanted(const lks_program *program, int forward) {
  const lks_op *op = &program->ops[forward];
  if (op->kind != LKS_OP_DENSE_FORWARD || id_of(op->activation) != LKS_ACT_RELU) {
    return false;
  }
  for (int i = forward; i < program->count; ++i) {
    const lks_op *above = &program->ops[i];
    if (above->kind == LKS_OP_DENSE_BACKWARD_INPUT && above->activation != NULL &&
        above->y == op->out) {
      return true;
    }
  }
  return false;
}

/* The mask that the dense layer whose output lies at `y` has left; NULL: none. */
static void *mask_left(const compiler *c, size_t y) {
  for (int i = 0; i < c->program->count; ++i) {
    if (c->masked[i] && c->program->ops[i].out == y) {
      return lks_at(c->cuda, c->cuda->layout.masks[i]);
    }
  }
  return NULL;
}

static cublasLtEpilogue_t relu_epilogue(bool bias, bool mask) {
  if (mask) {
    return bias ? CUBLASLT_EPILOGUE_RELU_AUX_BIAS : CUBLASLT_EPILOGUE_RELU_AUX;
  }
  return bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU;
}

static lks_status compile_forward(const compiler *c, int i, lks_error *err) {
  lks_status st = LKS_OK;
  attempt made = {0};
  const lks_op *op = &c->program->ops[i];
  const lks_activation_id id = id_of(op->activation);
  float *x = tensor(c, op->in), *y = tensor(c, op->out), *z = tensor(c, op->aux);
  float *w = parameter(c, op->weights), *bias = op->has_bias ? parameter(c, op->bias) : NULL;
  lks_operands operands = {.a = w, .b = x, .d = y, .bias = bias};
  if (id == LKS_ACT_RELU) {
    const bool mask = c->training && c->cuda->layout.masks[i] != 0 && !c->cuda->unmasked;
    operands.aux = mask ? lks_at(c->cuda, c->cuda->layout.masks[i]) : NULL;
    TRY(try_product(c, LKS_PRODUCT_FORWARD, op, relu_epilogue(bias != NULL, mask), &operands, &made,
                    err));
    c->masked[i] = mask && made.done;
  }
  if (!made.done) {
    operands.d = z;
    operands.aux = NULL;
    TRY(try_product(c, LKS_PRODUCT_FORWARD, op,
                    bias != NULL ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT, &operands,
                    &made, err));
    if (made.done && id != LKS_ACT_LINEAR) {
      append_activation(c, op, op->activation, z, y);
    }
  }
  if (!made.done) {
    note_own(c, &made);
    const bool alone = id == LKS_ACT_SOFTMAX; /* acts on whole rows */
    lks_launch *launch = append(c, LKS_LAUNCH_FORWARD);
    launch->as.forward = (lks_dense_forward_args){.x = x,
                                                  .w = w,
                                                  .bias = bias,
                                                  .z = z != y ? z : NULL,
                                                  .y = y,
                                                  .rows = c->rows,
                                                  .inputs = op->inputs,
                                                  .outputs = op->outputs,
                                                  .id = alone ? LKS_ACT_LINEAR : id,
                                                  .parameter = parameter_of(op->activation)};
    if (alone) {
      append_activation(c, op, op->activation, y, y);
    }
  }
cleanup:
  return st;
}

static lks_status compile_weights(const compiler *c, const lks_op *op, lks_error *err) {
  lks_status st = LKS_OK;
  attempt made = {0};
  float *x = tensor(c, op->in), *dz = tensor(c, op->out);
  float *dw = gradient(c, op->weights), *db = op->has_bias ? gradient(c, op->bias) : NULL;
  lks_operands operands = {.a = dz, .b = x, .d = dw, .bias = db};
  if (db != NULL) {
    TRY(try_product(c, LKS_PRODUCT_WEIGHTS, op, CUBLASLT_EPILOGUE_BGRADA, &operands, &made, err));
  }
  if (!made.done) {
    operands.bias = NULL;
    TRY(try_product(c, LKS_PRODUCT_WEIGHTS, op, CUBLASLT_EPILOGUE_DEFAULT, &operands, &made, err));
    if (made.done && db != NULL) {
      lks_launch *launch = append(c, LKS_LAUNCH_COLUMN_SUMS);
      launch->as.column_sums =
          (lks_column_sums_args){.in = dz, .sums = db, .rows = c->rows, .width = op->outputs};
    }
  }
  if (!made.done) {
    note_own(c, &made);
    lks_launch *launch = append(c, LKS_LAUNCH_WEIGHTS);
    launch->as.weights = (lks_dense_weights_args){.x = x,
                                                  .dz = dz,
                                                  .dw = dw,
                                                  .db = db,
                                                  .rows = c->rows,
                                                  .inputs = op->inputs,
                                                  .outputs = op->outputs};
  }
cleanup:
  return st;
}

static lks_status compile_input(const compiler *c, const lks_op *op, lks_error *err) {
  lks_status st = LKS_OK;
  attempt made = {0};
  const lks_activation_id id = id_of(op->activation);
  float *dz = tensor(c, op->in), *dx = tensor(c, op->out), *w = parameter(c, op->weights);
  float *y = op->activation != NULL ? tensor(c, op->y) : NULL;
  float *z = op->activation != NULL ? tensor(c, op->z) : NULL;
  lks_operands operands = {.a = w, .b = dz, .d = dx};
  if (id == LKS_ACT_RELU) {
    operands.aux = mask_left(c, op->y);
  }
  if (operands.aux != NULL) {
    TRY(try_product(c, LKS_PRODUCT_INPUT, op, CUBLASLT_EPILOGUE_DRELU, &operands, &made, err));
  }
  if (!made.done) {
    operands.aux = NULL;
    TRY(try_product(c, LKS_PRODUCT_INPUT, op, CUBLASLT_EPILOGUE_DEFAULT, &operands, &made, err));
    if (made.done && id != LKS_ACT_LINEAR) {
      append_derivative(c, op->activation, y, z, dx, op->inputs);
    }
  }
  if (!made.done) {
    note_own(c, &made);
    const bool alone = id == LKS_ACT_SOFTMAX;
    lks_launch *launch = append(c, LKS_LAUNCH_INPUT);
    launch->as.input = (lks_dense_input_args){.dz = dz,
                                              .w = w,
                                              .y = y,
                                              .z = z,
                                              .dx = dx,
                                              .rows = c->rows,
                                              .inputs = op->inputs,
                                              .outputs = op->outputs,
                                              .id = alone ? LKS_ACT_LINEAR : id,
                                              .parameter = parameter_of(op->activation)};
    if (alone) {
      append_derivative(c, op->activation, y, z, dx, op->inputs);
    }
  }
cleanup:
  return st;
}

/* ---- the rest */

static void compile_dropout(const compiler *c, const lks_op *op) {
  lks_launch *launch = append(c, LKS_LAUNCH_DROPOUT);
  launch->as.dropout = (lks_dropout_args){
      .block = whole(c),
      .row_ids = lks_at(c->cuda, c->cuda->layout.row_ids),
      .in = tensor(c, op->in),
      .out = tensor(c, op->out),
      .mask = (unsigned char *)tensor(c, op->aux),
      .width = op->outputs,
      .key = lks_random_key(c->cuda->seed, LKS_PURPOSE_DROPOUT, (uint64_t)op->layer),
      .rate = op->rate};
}

static void compile_loss(const compiler *c, const lks_op *op) {
  const lks_model *model = c->cuda->plan->model;
  lks_loss_args args = {.block = whole(c),
                        .out = tensor(c, op->in),
                        .targets = tensor(c, op->aux),
                        .gradient = c->training ? tensor(c, op->out) : NULL,
                        .partials = lks_at(c->cuda, c->cuda->layout.partials),
                        .outputs = op->outputs,
                        .id = model->loss->id,
                        .link = model->link,
                        .logits = model->logits,
                        .metric_count = model->metric_count};
  for (int i = 0; i < model->metric_count; ++i) {
    args.metrics[i] = model->metrics[i]->id;
  }
  append(c, LKS_LAUNCH_LOSS)->as.loss = args;
}

static lks_status compile_op(const compiler *c, int i, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_op *op = &c->program->ops[i];
  switch (op->kind) {
  case LKS_OP_DENSE_FORWARD:
    st = compile_forward(c, i, err);
    break;
  case LKS_OP_DENSE_BACKWARD_WEIGHTS:
    st = compile_weights(c, op, err);
    break;
  case LKS_OP_DENSE_BACKWARD_INPUT:
    st = compile_input(c, op, err);
    break;
  case LKS_OP_ACTIVATION_FORWARD:
    append_activation(c, op, op->activation, tensor(c, op->in), tensor(c, op->out));
    break;
  case LKS_OP_ACTIVATION_BACKWARD:
    append_derivative(c, op->activation, tensor(c, op->y), tensor(c, op->z), tensor(c, op->out),
                      op->outputs);
    break;
  case LKS_OP_DROPOUT_FORWARD:
    compile_dropout(c, op);
    break;
  case LKS_OP_DROPOUT_BACKWARD:
    append(c, LKS_LAUNCH_UNDROP)->as.undrop =
        (lks_undrop_args){.mask = (const unsigned char *)tensor(c, op->aux),
                          .gradient = tensor(c, op->out),
                          .rows = c->rows,
                          .width = op->outputs,
                          .rate = op->rate};
    break;
  case LKS_OP_LOSS:
  case LKS_OP_LOSS_GRADIENT:
    compile_loss(c, op);
    break;
  }
  return st;
}

/* ---- the ends of a step */

lks_gather_args lks_step_gather(const lks_cuda *cuda, int slot) {
  const lks_plan *plan = cuda->plan;
  const lks_layout *layout = &cuda->layout;
  lks_gather_args args = {.block = {.state = lks_at(cuda, layout->state), .rows = plan->share_rows},
                          .features = lks_tensor_at(cuda, plan->input),
                          .targets = lks_tensor_at(cuda, plan->targets),
                          .row_ids = cuda->needs_ids ? lks_at(cuda, layout->row_ids) : NULL,
                          .inputs = plan->model->inputs,
                          .target_columns = plan->target_columns};
  if (slot < 0) {
    args.adopted = true;
    args.table_features = lks_at(cuda, layout->table);
    args.table_targets = lks_at(cuda, layout->table_targets);
  } else {
    args.table_features = lks_at(cuda, layout->staged_features[slot]);
    args.table_targets = lks_at(cuda, layout->staged_targets[slot]);
    args.staged_ids = cuda->needs_ids ? lks_at(cuda, layout->staged_ids[slot]) : NULL;
  }
  return args;
}

static int64_t partial_count(const compiler *c) {
  return lks_loss_blocks_cuda(c->rows, c->cuda->plan->model->outputs);
}

static void append_seal(const compiler *c, const lks_bucket *bucket, bool last) {
  const lks_plan *plan = c->cuda->plan;
  lks_seal_args args = {.state = lks_at(c->cuda, c->cuda->layout.state),
                        .gradients = gradient(c, bucket->first),
                        .count = (int64_t)bucket->count};
  if (last) {
    args.partials = lks_at(c->cuda, c->cuda->layout.partials);
    args.partial_count = partial_count(c);
    args.metric_count = plan->model->metric_count;
    args.control = gradient(c, plan->parameter_floats);
  }
  append(c, LKS_LAUNCH_SEAL)->as.seal = args;
}

/* After the weights of a layer: the sum of a bucket that they complete, unless it is the last. */
static void append_bucket(const compiler *c, const lks_op *op) {
  const lks_nccl *exchange = &c->cuda->exchange;
  for (int b = 0; b + 1 < exchange->bucket_count; ++b) {
    if (exchange->buckets[b].first == op->weights) {
      append_seal(c, &exchange->buckets[b], false);
      append(c, LKS_LAUNCH_EXCHANGE)->as.bucket = b;
    }
  }
}

static void append_end(const compiler *c) {
  const lks_cuda *cuda = c->cuda;
  const lks_plan *plan = cuda->plan;
  const int last = cuda->exchange.bucket_count - 1;
  append_seal(c, &cuda->exchange.buckets[last], true);
  if (cuda->exchange.comm != NULL) {
    append(c, LKS_LAUNCH_EXCHANGE)->as.bucket = last;
  }
  lks_update_args args = {.state = lks_at(cuda, cuda->layout.state),
                          .control = gradient(c, plan->parameter_floats),
                          .gradients = gradient(c, 0),
                          .parameters = parameter(c, 0),
                          .count = (int64_t)plan->parameter_floats,
                          .ring = cuda->mailbox.ring_here,
                          .ring_slots = LKS_RING_SLOTS};
  for (int s = 0; s < plan->slots; ++s) {
    args.slots[s] = lks_at(cuda, cuda->layout.slots[s]);
  }
  append(c, LKS_LAUNCH_UPDATE)->as.update = args;
}

static void append_sums(const compiler *c) {
  append(c, LKS_LAUNCH_SEAL)->as.seal =
      (lks_seal_args){.state = lks_at(c->cuda, c->cuda->layout.evaluation),
                      .partials = lks_at(c->cuda, c->cuda->layout.partials),
                      .partial_count = partial_count(c),
                      .metric_count = c->cuda->plan->model->metric_count,
                      .sums = lks_at(c->cuda, c->cuda->layout.sums)};
}

/* ---- whole programs */

static lks_status compile_program(compiler *c, lks_gather_args gather, lks_error *err) {
  lks_status st = LKS_OK;
  lks_launches *launches = c->launches;
  const size_t operations = (size_t)c->program->count;
  lks_launches_free(launches);
  /* At most two launches an operation, seal and exchange after some, and both ends. */
  launches->items = calloc(4 * operations + 8, sizeof *launches->items);
  TRY_ALLOC(launches->items);
  launches->ends = calloc(operations + 1, sizeof *launches->ends);
  TRY_ALLOC(launches->ends);
  append(c, LKS_LAUNCH_GATHER)->as.gather = gather;
  launches->ends[0] = launches->count;
  for (int i = 0; i < c->program->count; ++i) {
    TRY(compile_op(c, i, err));
    if (c->program->ops[i].kind == LKS_OP_DENSE_BACKWARD_WEIGHTS) {
      append_bucket(c, &c->program->ops[i]);
    }
    launches->ends[i + 1] = launches->count;
  }
cleanup:
  return st;
}

lks_status lks_programs_compile(lks_cuda *cuda, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_plan *plan = cuda->plan;
  compiler c = {.cuda = cuda,
                .program = &plan->train,
                .launches = &cuda->train,
                .state = lks_at(cuda, cuda->layout.state),
                .rows = plan->share_rows,
                .training = true};
  c.masked = calloc((size_t)plan->train.count, sizeof *c.masked);
  TRY_ALLOC(c.masked);
  for (int i = 0; i < cuda->products.count; ++i) {
    cuda->products.items[i].used = false;
  }
  lks_gather_args gather = lks_step_gather(cuda, 0);
  TRY(compile_program(&c, gather, err));
  append_end(&c);
  /* Blocks of rows outside a step, with an order of their own. */
  c.training = false;
  c.state = lks_at(cuda, cuda->layout.evaluation);
  c.rows = LKS_EVALUATION_ROWS;
  gather.block = whole(&c);
  gather.row_ids = NULL;
  gather.staged_ids = NULL;
  c.program = &plan->evaluate;
  c.launches = &cuda->evaluate;
  TRY(compile_program(&c, gather, err));
  append_sums(&c);
  gather.table_targets = NULL;
  c.program = &plan->predict;
  c.launches = &cuda->predict;
  TRY(compile_program(&c, gather, err));
cleanup:
  free(c.masked);
  return st;
}

void lks_launches_free(lks_launches *launches) {
  free(launches->items);
  free(launches->ends);
  *launches = (lks_launches){0};
}
