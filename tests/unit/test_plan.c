/* The plan: which operations in which order, tensors that never overlap while both matter, shares
 * and blocks. */
#include "model_fixture.h"

#include "plan/plan.h"

static lks_error err;

typedef struct compiled {
  recipe recipe;
  lks_plan *plan;
} compiled;

static void compile_as(compiled *out, int64_t inputs, int64_t batch_size, int ranks,
                       lks_gradients gradients, const char *yaml) {
  recipe_make(&out->recipe, inputs, 0, yaml);
  assert_ok(lks_plan_make(out->recipe.model, batch_size, ranks, gradients, &out->plan, &err));
}

static void compile(compiled *out, int64_t inputs, int64_t batch_size, int ranks,
                    const char *yaml) {
  compile_as(out, inputs, batch_size, ranks, LKS_BY_ROWS, yaml);
}

static void release(compiled *c) {
  lks_plan_free(&c->plan);
  recipe_free(&c->recipe);
}

/* ---- which operations: one word each, "forward1:relu" for layer 1's product with relu */

static const char *kind_name(lks_op_kind kind) {
  static const char *const names[] = {
      [LKS_OP_DENSE_FORWARD] = "forward",     [LKS_OP_ACTIVATION_FORWARD] = "activate",
      [LKS_OP_DROPOUT_FORWARD] = "drop",      [LKS_OP_LOSS] = "loss",
      [LKS_OP_LOSS_GRADIENT] = "gradient",    [LKS_OP_ACTIVATION_BACKWARD] = "derive",
      [LKS_OP_DROPOUT_BACKWARD] = "undrop",   [LKS_OP_DENSE_BACKWARD_WEIGHTS] = "weights",
      [LKS_OP_DENSE_BACKWARD_INPUT] = "input"};
  return names[kind];
}

static void assert_program(const lks_program *program, const char *expected) {
  lks_text text = {0};
  for (int i = 0; i < program->count; ++i) {
    const lks_op *op = &program->ops[i];
    lks_text_add(&text, "%s%s", i > 0 ? " " : "", kind_name(op->kind));
    if (op->layer >= 0) {
      lks_text_add(&text, "%d", op->layer);
    }
    if (op->activation != NULL) {
      lks_text_add(&text, ":%s", op->activation->kind->name);
    }
  }
  assert_string_equal(text.data, expected);
  lks_text_free(&text);
}

typedef struct program_case {
  int64_t inputs;
  const char *yaml, *train, *evaluate, *predict;
} program_case;

static const program_case cases[] = {
    /* A link belongs to the loss, but not to predictions; dropout only to training. */
    {5,
     "model: [dense: {units: 8, activation: relu}, dropout: {rate: 0.5},"
     " dense: {units: 3, activation: softmax}]\nloss: sparse_categorical_crossentropy",
     "forward0:relu drop1 forward2 gradient weights2 input2 undrop1 derive0:relu weights0",
     "forward0:relu forward2 loss", "forward0:relu forward2:softmax"},
    /* The derivative joins the product that makes its gradient. */
    {5,
     "model: [dense: {units: 8, activation: relu}, dense: {units: 4, activation: gelu},"
     " dense: {units: 2}]\nloss: mse",
     "forward0:relu forward1:gelu forward2 gradient weights2 input2:gelu weights1 input1:relu"
     " weights0",
     "forward0:relu forward1:gelu forward2 loss", "forward0:relu forward1:gelu forward2"},
    /* Below the lowest layer with parameters nothing needs a gradient; two activations in a row
     * can't both join. */
    {6,
     "model: [activation: {activation: tanh}, dropout: {rate: 0.1}, dense: {units: 6},"
     " activation: {activation: elu}, activation: {activation: softplus}, dense: {units: 2}]\n"
     "loss: mae",
     "activate0:tanh drop1 forward2 activate3:elu activate4:softplus forward5 gradient weights5"
     " input5:softplus derive3:elu weights2",
     "activate0:tanh forward2 activate3:elu activate4:softplus forward5 loss",
     "activate0:tanh forward2 activate3:elu activate4:softplus forward5"},
    /* An activation that is no link of the loss stays. */
    {3, "model: [dense: {units: 2, activation: sigmoid}]\nloss: mse",
     "forward0:sigmoid gradient derive0:sigmoid weights0", "forward0:sigmoid loss",
     "forward0:sigmoid"},
    {3, "model: [dense: {units: 4, activation: softmax}, dropout: {rate: 0.3}]\nloss: mse",
     "forward0:softmax drop1 gradient undrop1 derive0:softmax weights0", "forward0:softmax loss",
     "forward0:softmax"},
    /* The link as a layer; a linear one, which is nothing; logits. */
    {3,
     "model: [dense: {units: 3}, activation: {activation: softmax}]\n"
     "loss: categorical_crossentropy",
     "forward0 gradient weights0", "forward0 loss", "forward0 activate1:softmax"},
    {3, "model: [dense: {units: 1}, activation: {activation: linear}]\nloss: binary_crossentropy",
     "forward0 gradient weights0", "forward0 loss", "forward0"},
    /* Dropout of nothing. */
    {3, "model: [dropout: {rate: 0}, dense: {units: 2}, dropout: {rate: 0}]\nloss: mse",
     "forward1 gradient weights1", "forward1 loss", "forward1"},
    {3,
     "model: [dense: {units: 300, activation: silu}, dropout: {rate: 0.2},"
     " activation: {activation: gelu}, dense: {units: 70, use_bias: false, activation: relu},"
     " dense: {units: 5}]\nloss: binary_crossentropy\nmetrics: [mae]",
     "forward0:silu drop1 activate2:gelu forward3:relu forward4 gradient weights4 input4:relu"
     " weights3 input3:gelu undrop1 derive0:silu weights0",
     "forward0:silu activate2:gelu forward3:relu forward4 loss",
     "forward0:silu activate2:gelu forward3:relu forward4"}};

static void test_programs(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    compiled c;
    compile(&c, cases[i].inputs, 32, 1, cases[i].yaml);
    assert_program(&c.plan->train, cases[i].train);
    assert_program(&c.plan->evaluate, cases[i].evaluate);
    assert_program(&c.plan->predict, cases[i].predict);
    release(&c);
  }
}

/* ---- where they work: the program is played with a tag in every float: who wrote it last */

enum { NOBODY = 0, GATHERED = 1, FIRST_OP = 2 };

typedef struct play {
  const lks_plan *plan;
  const lks_program *program;
  int64_t rows;  /* of each tensor */
  size_t floats; /* of the arena */
  size_t targets;
  int *owner;    /* [floats] */
  size_t latest; /* where the latest gradient lies */
} play;

static size_t floats_of(const play *p, int64_t width) {
  return (size_t)(width * p->rows);
}

static void put(play *p, size_t at, int64_t width, int owner) {
  assert_int_equal(at % LKS_TENSOR_ALIGN, 0);
  assert_true(at + floats_of(p, width) <= p->floats);
  for (size_t i = 0; i < floats_of(p, width); ++i) {
    p->owner[at + i] = owner;
  }
}

/* The tensor is whole, as one operation wrote it; gives that operation, NULL for gathered rows. */
static const lks_op *get(const play *p, size_t at, int64_t width) {
  assert_true(at + floats_of(p, width) <= p->floats);
  const int owner = p->owner[at];
  assert_int_not_equal(owner, NOBODY);
  for (size_t i = 0; i < floats_of(p, width); ++i) {
    assert_int_equal(p->owner[at + i], owner);
  }
  return owner == GATHERED ? NULL : &p->program->ops[owner - FIRST_OP];
}

/* What an operation reads while it writes elsewhere is apart from what it writes. */
static void assert_apart(const play *p, size_t a, int64_t a_width, size_t b, int64_t b_width) {
  assert_true(a + floats_of(p, a_width) <= b || b + floats_of(p, b_width) <= a);
}

static bool goes_forward(const lks_op *op) {
  return op == NULL || op->kind == LKS_OP_DENSE_FORWARD || op->kind == LKS_OP_ACTIVATION_FORWARD ||
         op->kind == LKS_OP_DROPOUT_FORWARD;
}

static void play_forward(play *p, const lks_op *op, int self) {
  assert_true(goes_forward(get(p, op->in, op->inputs)));
  if (op->kind == LKS_OP_DENSE_FORWARD) {
    assert_apart(p, op->in, op->inputs, op->out, op->outputs);
    assert_apart(p, op->in, op->inputs, op->aux, op->outputs);
    put(p, op->aux, op->outputs, self);
  }
  put(p, op->out, op->outputs, self);
  if (op->kind == LKS_OP_DROPOUT_FORWARD) {
    put(p, op->aux, (op->outputs + 3) / 4, self);
  }
}

/* y and z are what the layer's own forward operation left. */
static void play_derivative(const play *p, const lks_op *op, int64_t width) {
  if (op->activation == NULL) {
    return;
  }
  const lks_op *made = get(p, op->y, width);
  assert_non_null(made);
  assert_ptr_equal(made->activation, op->activation);
  assert_int_equal(made->out, op->y);
  if (lks_activation_row_of(op->activation)->needs_input) {
    assert_true(op->z != op->y);
    const lks_op *left = get(p, op->z, width);
    if (made->kind == LKS_OP_DENSE_FORWARD) {
      assert_ptr_equal(left, made);
      assert_int_equal(made->aux, op->z);
    } else {
      assert_int_equal(made->in, op->z);
    }
  }
}

static void play_loss(play *p, const lks_op *op, int self) {
  assert_true(goes_forward(get(p, op->in, op->outputs)));
  assert_null(get(p, p->targets, p->plan->target_columns));
  if (op->kind == LKS_OP_LOSS_GRADIENT) {
    put(p, op->out, op->outputs, self);
    p->latest = op->out;
  }
}

static void play_backward(play *p, const lks_op *op, int self) {
  const bool product = op->kind == LKS_OP_DENSE_BACKWARD_INPUT;
  const size_t gradient = product ? op->in : op->out;
  assert_int_equal(gradient, p->latest);
  assert_false(goes_forward(get(p, gradient, op->outputs)));
  if (op->kind == LKS_OP_DENSE_BACKWARD_WEIGHTS) {
    const lks_op *made = get(p, op->in, op->inputs);
    assert_true(goes_forward(made));
    return;
  }
  if (op->kind == LKS_OP_DROPOUT_BACKWARD) {
    const lks_op *made = get(p, op->aux, (op->outputs + 3) / 4);
    assert_int_equal(made->kind, LKS_OP_DROPOUT_FORWARD);
    assert_int_equal(made->layer, op->layer);
    assert_true(made->rate == op->rate);
  }
  play_derivative(p, op, product ? op->inputs : op->outputs);
  if (product) {
    assert_apart(p, op->in, op->outputs, op->out, op->inputs);
  }
  put(p, op->out, product ? op->inputs : op->outputs, self);
  p->latest = op->out;
}

/* By owners: what `train` left when it was done. */
static void play_weights(const play *p) {
  for (int i = 0; i < p->plan->weights.count; ++i) {
    const lks_op *op = &p->plan->weights.ops[i];
    assert_int_equal(op->kind, LKS_OP_DENSE_BACKWARD_WEIGHTS);
    assert_true(goes_forward(get(p, op->in, op->inputs)));
    const lks_op *made = get(p, op->out, op->outputs);
    assert_false(goes_forward(made));
    /* The layer's own gradient: nothing below it in the network has written there. */
    assert_true(made->layer == -1 || made->layer >= op->layer);
    for (int j = 0; j < i; ++j) {
      assert_true(p->plan->weights.ops[j].out != op->out);
      assert_true(p->plan->weights.ops[j].layer > op->layer);
    }
  }
}

static void play_program(const lks_plan *plan, const lks_program *program, bool targets) {
  const bool common = plan->gradients == LKS_BY_OWNERS && program == &plan->train;
  play p = {.plan = plan,
            .program = program,
            .rows = common ? plan->common.rows : plan->buffer_rows,
            .floats = common ? plan->common.floats : plan->work_floats,
            .targets = common ? plan->common.targets : plan->targets};
  p.owner = calloc(p.floats, sizeof *p.owner);
  assert_non_null(p.owner);
  put(&p, common ? plan->common.input : plan->input, plan->model->inputs, GATHERED);
  if (targets) {
    put(&p, p.targets, plan->target_columns, GATHERED);
  }
  for (int i = 0; i < program->count; ++i) {
    const lks_op *op = &program->ops[i];
    if (op->kind == LKS_OP_LOSS || op->kind == LKS_OP_LOSS_GRADIENT) {
      play_loss(&p, op, FIRST_OP + i);
    } else if (goes_forward(op)) {
      play_forward(&p, op, FIRST_OP + i);
    } else {
      play_backward(&p, op, FIRST_OP + i);
    }
  }
  if (common) {
    play_weights(&p);
  }
  if (!targets) {
    assert_true(goes_forward(get(&p, plan->prediction, plan->model->outputs)));
  }
  free(p.owner);
}

/* Parameters: each operation of a dense layer has its layer's. */
static void check_parameters(const lks_plan *plan, const lks_program *program) {
  const lks_model *model = plan->model;
  for (int i = 0; i < program->count; ++i) {
    const lks_op *op = &program->ops[i];
    const bool dense = op->kind == LKS_OP_DENSE_FORWARD ||
                       op->kind == LKS_OP_DENSE_BACKWARD_WEIGHTS ||
                       op->kind == LKS_OP_DENSE_BACKWARD_INPUT;
    if (!dense) {
      continue;
    }
    const lks_layer *layer = &model->layers[op->layer];
    const lks_parameter *first = &model->parameters[layer->first_parameter];
    assert_int_equal(op->weights, first[0].offset);
    if (op->kind != LKS_OP_DENSE_BACKWARD_INPUT) {
      assert_int_equal(op->has_bias, layer->parameter_count == 2);
      assert_true(!op->has_bias || op->bias == (size_t)first[1].offset);
    }
  }
}

static void test_places(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    compiled c;
    compile(&c, cases[i].inputs, 100, 3, cases[i].yaml);
    play_program(c.plan, &c.plan->train, true);
    play_program(c.plan, &c.plan->evaluate, true);
    play_program(c.plan, &c.plan->predict, false);
    check_parameters(c.plan, &c.plan->train);
    check_parameters(c.plan, &c.plan->evaluate);
    check_parameters(c.plan, &c.plan->predict);
    assert_int_equal(c.plan->parameter_floats, c.recipe.model->arena_floats);
    assert_true(c.plan->gradient_floats >= c.plan->parameter_floats + LKS_CONTROL_FLOATS);
    release(&c);
  }
}

/* An inner layer's output is there after so many operations. */
static void test_taps(void **state) {
  (void)state;
  static const int after[] = {1, 1, 2, 3};
  compiled c;
  compile(&c, 3, 8, 1,
          "model: [dense: {units: 4, activation: relu}, dropout: {rate: 0.5}, dense: {units: 3},"
          " activation: {activation: softmax}]\nloss: sparse_categorical_crossentropy");
  for (int i = 0; i < 4; ++i) {
    const lks_tap *tap = &c.plan->taps[i];
    assert_int_equal(tap->ops, after[i]);
    assert_int_equal(tap->width, c.recipe.model->layers[i].outputs);
    assert_int_equal(tap->offset, c.plan->predict.ops[after[i] - 1].out);
  }
  assert_int_equal(c.plan->taps[3].offset, c.plan->prediction);
  assert_int_equal(c.plan->target_columns, 1);
  /* Two forward products, and backward two for weights and one for input. */
  assert_true(c.plan->flops_per_row == 2.0 * (2 * 12 + 3 * 12));
  release(&c);
}

/* ---- shares and blocks */

static void test_shares(void **state) {
  (void)state;
  const lks_plan plan = {.gradients = LKS_BY_ROWS}, led = {.gradients = LKS_BY_LEADER};
  for (int ranks = 1; ranks <= 8; ++ranks) {
    for (int64_t rows = 0; rows < 200; ++rows) {
      int64_t next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        int64_t first = -1, count = -1;
        lks_plan_share(&plan, rows, rank, ranks, &first, &count);
        assert_int_equal(first, next);
        assert_true(count >= rows / ranks && count <= (rows + ranks - 1) / ranks);
        next = first + count;
      }
      assert_int_equal(next, rows);
    }
  }
  int64_t first = 0, count = 0;
  lks_plan_share(&plan, 1 << 30, 4095, 4096, &first, &count);
  assert_int_equal(first + count, 1 << 30);
  for (int rank = 0; rank < 3; ++rank) {
    lks_plan_share(&led, 33, rank, 3, &first, &count);
    assert_int_equal(first, 0);
    assert_int_equal(count, rank == lks_plan_leader(&led, 3) ? 33 : 0);
  }
  assert_int_equal(lks_plan_leader(&plan, 3), 0);
}

/* Even blocks, no more of them than the bound wants; evaluation's rows always fit. */
static void check_block(const lks_plan *plan, int64_t share) {
  assert_int_equal(plan->share_rows, share);
  const int64_t blocks = (share + plan->block_rows - 1) / plan->block_rows;
  assert_true(plan->block_rows >= 1 && plan->block_rows <= share);
  assert_true(blocks * plan->block_rows - share < blocks);
  assert_int_equal(plan->buffer_rows,
                   plan->block_rows > LKS_EVALUATION_ROWS ? plan->block_rows : LKS_EVALUATION_ROWS);
}

static void test_blocks(void **state) {
  (void)state;
  static const int64_t batches[] = {1, 2, 63, 64, 65, 100, 1000, 4099, 100000};
  compiled c;
  for (size_t i = 0; i < sizeof batches / sizeof *batches; ++i) {
    for (int ranks = 1; ranks <= 8; ++ranks) {
      const int64_t share = (batches[i] + ranks - 1) / ranks;
      /* Small parameters: blocks of 512 KiB of activations, 64 rows at least. */
      compile(&c, 10, batches[i], ranks, "model: [dense: {units: 20}]\nloss: mse");
      const int64_t row_bytes = (10 + 20 + 3 * 20) * 4, most = 512 * 1024 / row_bytes;
      check_block(c.plan, share);
      assert_int_equal(c.plan->row_floats * 4, row_bytes);
      assert_true(c.plan->block_rows <= most);
      assert_true(share > most || c.plan->block_rows == share);
      release(&c);
      compile(&c, 10, batches[i], ranks, "model: [dense: {units: 5000}]\nloss: mse");
      check_block(c.plan, share);
      assert_true(c.plan->block_rows <= 64);
      release(&c);
    }
  }
  compile(&c, 1000, 5000, 1, "model: [dense: {units: 200}]\nloss: mse");
  assert_int_equal(c.plan->block_rows, 5000); /* parameters beyond a cache: the share at once */
  check_block(c.plan, 5000);
  release(&c);
}

/* ---- gradients by owners */

/* The operations of both programs are those of the plan by rows, in its order. */
static void check_same_work(const lks_plan *owners, const lks_plan *rows) {
  int train = 0, weights = 0;
  for (int i = 0; i < rows->train.count; ++i) {
    const lks_op *op = &rows->train.ops[i];
    const bool product = op->kind == LKS_OP_DENSE_BACKWARD_WEIGHTS;
    const lks_op *same = product ? &owners->weights.ops[weights++] : &owners->train.ops[train++];
    assert_int_equal(same->kind, op->kind);
    assert_int_equal(same->layer, op->layer);
    assert_int_equal(same->activation != NULL, op->activation != NULL);
    assert_true(op->activation == NULL || op->activation->kind == same->activation->kind);
  }
  assert_int_equal(train, owners->train.count);
  assert_int_equal(weights, owners->weights.count);
  assert_true(owners->flops_per_row == rows->flops_per_row);
  assert_int_equal(rows->weights.count, 0);
}

/* Slices follow one another, cover all, and cut no row of weights and no bias. */
static void check_slices(const lks_plan *plan, int ranks) {
  size_t next = 0, widest = 0;
  for (int i = 0; i < plan->weights.count; ++i) {
    const lks_op *op = &plan->weights.ops[i];
    const size_t width = (size_t)(op->outputs * lks_plan_cut_step(op));
    widest = width > widest ? width : widest;
  }
  for (int rank = 0; rank < ranks; ++rank) {
    const size_t first = lks_plan_cut(plan, (double)rank / ranks);
    const size_t count = lks_plan_cut(plan, (double)(rank + 1) / ranks) - first;
    assert_int_equal(first, next);
    next = first + count;
    assert_true(count <= plan->parameter_floats / (size_t)ranks + 2 * widest + 1);
    for (int i = 0; i < plan->weights.count; ++i) {
      const lks_op *op = &plan->weights.ops[i];
      const size_t width = (size_t)op->outputs, after = op->weights + (size_t)op->inputs * width;
      const size_t step = width * (size_t)lks_plan_cut_step(op);
      assert_true(next <= op->weights || next >= after || (next - op->weights) % step == 0);
      assert_true(next <= op->weights || next >= after || after - next >= step);
      assert_true(!op->has_bias || next <= op->bias || next >= op->bias + width);
    }
  }
  assert_int_equal(next, plan->parameter_floats);
}

static const char wide[] =
    "model: [dense: {units: 300, activation: silu}, dropout: {rate: 0.2},"
    " activation: {activation: gelu}, dense: {units: 70, use_bias: false, activation: relu},"
    " dense: {units: 5}]\nloss: binary_crossentropy\nmetrics: [mae]";

/* With 700 units, which BLAS may make, the second layer and the first are cut in steps of rows. */
static const char large[] = "model: [dense: {units: 700}, dense: {units: 200}]\nloss: mse";

static void test_owners(void **state) {
  (void)state;
  for (int ranks = 2; ranks <= 9; ++ranks) {
    compiled owners, rows, cut;
    compile_as(&cut, 300, 37, ranks, LKS_BY_OWNERS, large);
    assert_int_equal(lks_plan_cut_step(&cut.plan->weights.ops[0]), 32);
    check_slices(cut.plan, ranks);
    release(&cut);
    compile_as(&owners, 200, 37, ranks, LKS_BY_OWNERS, wide);
    compile(&rows, 200, 37, ranks, wide);
    assert_true(owners.plan->gradients == LKS_BY_OWNERS && rows.plan->gradients == LKS_BY_ROWS);
    assert_int_equal(owners.plan->common.rows, 37);
    assert_int_equal(owners.plan->buffer_rows, LKS_EVALUATION_ROWS);
    check_same_work(owners.plan, rows.plan);
    check_slices(owners.plan, ranks);
    play_program(owners.plan, &owners.plan->train, true);
    play_program(owners.plan, &owners.plan->evaluate, true);
    play_program(owners.plan, &owners.plan->predict, false);
    check_parameters(owners.plan, &owners.plan->train);
    check_parameters(owners.plan, &owners.plan->weights);
    release(&owners);
    release(&rows);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_programs), cmocka_unit_test(test_places), cmocka_unit_test(test_taps),
      cmocka_unit_test(test_shares),   cmocka_unit_test(test_blocks), cmocka_unit_test(test_owners),
  };
  return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
