/* See selftest.h: the cases, from the tables. What a case is held against: testbench.c. */
#include "backend/selftest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/contract.h"
#include "backend/testbench.h"

typedef struct suite {
  lks_world *world;
  lks_device_choice device;
  lks_selftest_report *report;
  lks_selftest_each each;
  void *user;
} suite;

static void report_case(const suite *s, const char *name, double error, double bound) {
  lks_selftest_report *report = s->report;
  report->cases += 1;
  report->failed += !(error <= bound);
  if (!(error / bound <= report->worst)) {
    report->worst = error / bound;
    (void)snprintf(report->worst_name, sizeof report->worst_name, "%s", name);
  }
  if (s->each != NULL) {
    s->each(s->user, name, error, bound);
  }
}

static lks_status run_case(const suite *s, const lks_testcase *c, lks_error *err) {
  lks_status st = LKS_OK;
  lks_testbench b = {0};
  double error = 0.0;
  TRY(lks_testbench_open(&b, c, s->world, &s->device, err));
  st = lks_testbench_inference(&b, &error, err);
  TRY(lks_agree(s->world, st, err));
  TRY(lks_testbench_training(&b, &error, err));
  report_case(s, c->name, error, lks_testbench_bound(&b));
cleanup:
  lks_testbench_close(&b);
  return st;
}

/* ---- making a case */

/* Binds a kind's options: required ones get a plain value of their type, then `text` (KEY: VALUE in
 * YAML flow, may be NULL) overrides. */
static lks_status bind_kind(const lks_kind *kind, const char *text, void *target, lks_arena *arena,
                            lks_error *err) {
  lks_status st = LKS_OK;
  lks_node *root = NULL;
  const char *given = text != NULL ? text : "{}";
  TRY(lks_tree_parse(given, strlen(given), "self-test", ".", arena, &root, err));
  for (const lks_option *o = kind->options; o != NULL && o->key != NULL; ++o) {
    if (o->fallback != NULL || (o->flags & LKS_OPTION_OPTIONAL) != 0 || o->type == LKS_OPT_LATER ||
        lks_node_child(root, o->key) != NULL) {
      continue;
    }
    const char *value = o->type == LKS_OPT_REAL ? "0.3" : o->type == LKS_OPT_CHOICE ? "tanh" : "6";
    lks_node *node = lks_node_new(arena, LKS_NODE_SCALAR, o->key, value, root);
    TRY_ALLOC(node);
    lks_node_append(root, node);
  }
  if (kind->options != NULL) {
    TRY(lks_options_bind(kind->options, root, target, arena, err));
  }
cleanup:
  return st;
}

static lks_status add_layer(lks_testcase *c, const lks_kind *kind, const char *text,
                            lks_error *err) {
  lks_layer_options *layer = &c->layers[c->layer_count++];
  layer->kind = kind;
  layer->name = "";
  return bind_kind(kind, text, layer, &c->arena, err);
}

static const lks_kind *layer_kind(lks_layer_id id) {
  for (const lks_kind *const *kind = lks_layer_kinds;; ++kind) {
    if (((const lks_layer_row *)(const void *)*kind)->id == id) {
      return *kind;
    }
  }
}

/* A case with plain gradient descent of rate 1: one step shows the gradient. */
static void begin_case(lks_testcase *c, const char *what, const char *name, const lks_kind *loss) {
  *c = (lks_testcase){.loss = loss,
                      .inputs = 7,
                      .rows = 11,
                      .batch_size = 16,
                      .steps = 1,
                      .gradients = LKS_BY_ROWS};
  (void)snprintf(c->name, sizeof c->name, "%s %s", what, name);
  for (const lks_kind *const *kind = lks_optimizer_kinds; *kind != NULL; ++kind) {
    if (((const lks_optimizer_row *)(const void *)*kind)->id == LKS_OPTIMIZER_SGD) {
      c->optimizer = (lks_optimizer){.kind = *kind, .learning_rate = 1.0};
    }
  }
}

static lks_status end_case(const suite *s, lks_testcase *c, lks_status made, lks_error *err) {
  lks_status st = lks_agree(s->world, made, err);
  if (st == LKS_OK) {
    st = run_case(s, c, err);
  }
  lks_arena_free(&c->arena);
  return st;
}

static lks_status add_dense(lks_testcase *c, int units, const char *activation, lks_error *err) {
  char text[160];
  (void)snprintf(text, sizeof text,
                 "{units: %d, activation: %s, bias_initializer: {name: random_normal, stddev: "
                 "0.3}}",
                 units, activation);
  return add_layer(c, layer_kind(LKS_LAYER_DENSE), text, err);
}

static lks_status try_activations(const suite *s, lks_error *err) {
  lks_status st = LKS_OK;
  for (const lks_kind *const *kind = lks_activation_kinds; *kind != NULL; ++kind) {
    lks_testcase c;
    begin_case(&c, "activation", (*kind)->name, lks_loss_kinds[0]);
    st = add_dense(&c, 13, (*kind)->name, err);
    st = st == LKS_OK ? add_dense(&c, 9, (*kind)->name, err) : st;
    st = st == LKS_OK ? add_dense(&c, 3, "linear", err) : st;
    TRY(end_case(s, &c, st, err));
  }
cleanup:
  return st;
}

/* The hidden layers' inputs to ReLU are exactly 0, where its slope is 0 as in Keras: no gradient
 * reaches what lies below. Differences, which look to both sides, could not tell. */
static lks_status check_slope_at_zero(const suite *s, const lks_testcase *c, lks_error *err) {
  lks_status st = LKS_OK;
  lks_testbench b = {0};
  lks_control control;
  double error = 0.0;
  TRY(lks_testbench_open(&b, c, s->world, &s->device, err));
  const lks_step step = {.feed = &b.feed, .global_rows = c->rows, .step = 1};
  TRY(lks_testbench_steps(&b, &step, 1, &control, err));
  TRY(b.backend.ops->snapshot(b.backend.state, b.after, NULL, err));
  const lks_layer *last = &b.model->layers[c->layer_count - 1];
  const int64_t below = b.model->parameters[last->first_parameter].offset;
  for (int64_t i = 0; i < below; ++i) {
    error += fabs((double)b.after[i] - (double)b.parameters[i]);
  }
  const int64_t bias = b.model->parameters[last->first_parameter + 1].offset;
  error += b.after[bias] != b.parameters[bias] ? 0.0 : 1.0; /* but that layer learns */
  report_case(s, c->name, error, lks_testbench_bound(&b));
cleanup:
  lks_testbench_close(&b);
  return st;
}

static lks_status try_slope_at_zero(const suite *s, lks_error *err) {
  static const char silent[] = "{units: 13, activation: relu, kernel_initializer: zeros}";
  lks_status st = LKS_OK;
  lks_testcase c;
  begin_case(&c, "slope at 0", "relu", lks_loss_kinds[0]);
  st = add_layer(&c, layer_kind(LKS_LAYER_DENSE), silent, err);
  st = st == LKS_OK ? add_layer(&c, layer_kind(LKS_LAYER_DENSE), silent, err) : st;
  st = st == LKS_OK ? add_dense(&c, 3, "linear", err) : st;
  st = lks_agree(s->world, st, err);
  st = st == LKS_OK ? check_slope_at_zero(s, &c, err) : st;
  lks_arena_free(&c.arena);
  return st;
}

/* Each layer kind between two dense ones, before and after an activation that bends. */
static lks_status try_layers(const suite *s, lks_error *err) {
  lks_status st = LKS_OK;
  for (const lks_kind *const *kind = lks_layer_kinds; *kind != NULL; ++kind) {
    lks_testcase c;
    begin_case(&c, "layer", (*kind)->name, lks_loss_kinds[0]);
    st = add_dense(&c, 13, "gelu", err);
    st = st == LKS_OK ? add_layer(&c, *kind, NULL, err) : st;
    st = st == LKS_OK ? add_layer(&c, *kind, NULL, err) : st;
    st = st == LKS_OK ? add_dense(&c, 3, "tanh", err) : st;
    TRY(end_case(s, &c, st, err));
  }
cleanup:
  return st;
}

static void add_metrics(lks_testcase *c) {
  const bool labels = ((const lks_loss_row *)(const void *)c->loss)->labels;
  for (const lks_kind *const *kind = lks_metric_kinds; *kind != NULL; ++kind) {
    const lks_metric_row *row = (const lks_metric_row *)(const void *)*kind;
    const bool sparse = row->id == LKS_METRIC_SPARSE_CATEGORICAL_ACCURACY;
    if (row->id != LKS_METRIC_BY_SHAPE && sparse == labels && c->metric_count < LKS_MAX_METRICS) {
      c->metrics[c->metric_count++] = (lks_metric_options){.kind = *kind};
    }
  }
}

/* Each loss on its own activation and on logits, with every metric that fits. */
static lks_status try_losses(const suite *s, lks_error *err) {
  static const char *const outputs[] = {
      [LKS_LINK_NONE] = "sigmoid", [LKS_LINK_SIGMOID] = "sigmoid", [LKS_LINK_SOFTMAX] = "softmax"};
  lks_status st = LKS_OK;
  for (const lks_kind *const *kind = lks_loss_kinds; *kind != NULL; ++kind) {
    const lks_loss_row *row = (const lks_loss_row *)(const void *)*kind;
    for (int linear = 0; linear < 2; ++linear) {
      lks_testcase c;
      const char *last = linear ? "linear" : outputs[row->link];
      begin_case(&c, last, (*kind)->name, *kind);
      st = add_dense(&c, 12, "tanh", err);
      st = st == LKS_OK ? add_dense(&c, 5, last, err) : st;
      add_metrics(&c);
      TRY(end_case(s, &c, st, err));
    }
  }
cleanup:
  return st;
}

/* Each optimizer over four steps, and with momentum in both forms. */
static lks_status try_optimizers(const suite *s, lks_error *err) {
  static const struct {
    lks_optimizer_id id;
    const char *options;
  } more[] = {{LKS_OPTIMIZER_SGD, "{momentum: 0.9, learning_rate: 0.1}"},
              {LKS_OPTIMIZER_SGD, "{momentum: 0.9, nesterov: true, learning_rate: 0.1}"},
              {LKS_OPTIMIZER_ADAMW, "{weight_decay: 0.1, learning_rate: 0.01}"}};
  lks_status st = LKS_OK;
  for (const lks_kind *const *kind = lks_optimizer_kinds; *kind != NULL; ++kind) {
    const lks_optimizer_row *row = (const lks_optimizer_row *)(const void *)*kind;
    for (size_t k = 0; k <= sizeof more / sizeof *more; ++k) {
      if (k > 0 && more[k - 1].id != row->id) {
        continue;
      }
      lks_testcase c;
      begin_case(&c, "optimizer", (*kind)->name, lks_loss_kinds[0]);
      c.steps = 4;
      c.optimizer.kind = *kind;
      st = bind_kind(*kind, k > 0 ? more[k - 1].options : NULL, &c.optimizer, &c.arena, err);
      st = st == LKS_OK ? add_dense(&c, 9, "tanh", err) : st;
      st = st == LKS_OK ? add_dense(&c, 3, "linear", err) : st;
      TRY(end_case(s, &c, st, err));
    }
  }
cleanup:
  return st;
}

/* Sizes at which indices go wrong: one of everything, fewer rows than ranks, several blocks. */
static lks_status try_shapes(const suite *s, lks_error *err) {
  static const struct {
    const char *name;
    int64_t inputs, rows, batch;
    int hidden, outputs;
  } shapes[] = {{"1-1-1, 1 row", 1, 1, 1, 1, 1},
                {"fewer rows than ranks", 3, 2, 64, 5, 2},
                {"17-33-9, 65 rows", 17, 65, 65, 33, 9},
                {"several blocks a rank", 2, 24000, 24000, 3, 1}};
  lks_status st = LKS_OK;
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) {
    lks_testcase c;
    begin_case(&c, "shape", shapes[i].name, lks_loss_kinds[0]);
    c.inputs = shapes[i].inputs;
    c.rows = shapes[i].rows;
    c.batch_size = shapes[i].batch;
    st = add_dense(&c, shapes[i].hidden, "tanh", err);
    st = st == LKS_OK ? add_dense(&c, shapes[i].outputs, "linear", err) : st;
    TRY(end_case(s, &c, st, err));
  }
cleanup:
  return st;
}

/* Gradients by owners: with masks, and with a tensor of its own for each layer's gradient; rows on
 * one rank alone; and slices that are less than a row of weights. By the leader: masks again. */
static lks_status try_gradients(const suite *s, lks_error *err) {
  static const struct {
    lks_gradients gradients;
    const char *what, *name;
    int hidden;
    bool crowded;
  } shapes[] = {{LKS_BY_OWNERS, "owners", "7-24-29-3 with dropout", 24, false},
                {LKS_BY_OWNERS, "owners", "all rows on the last rank", 24, true},
                {LKS_BY_OWNERS, "owners", "7-1-6-3", 1, false},
                {LKS_BY_LEADER, "leader", "7-24-29-3 with dropout", 24, false}};
  lks_status st = LKS_OK;
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) {
    lks_testcase c;
    begin_case(&c, shapes[i].what, shapes[i].name, lks_loss_kinds[0]);
    c.gradients = shapes[i].gradients;
    c.crowded = shapes[i].crowded;
    c.batch_size *= c.crowded ? s->world->size : 1;
    st = add_dense(&c, shapes[i].hidden, "silu", err);
    st = st == LKS_OK ? add_layer(&c, layer_kind(LKS_LAYER_DROPOUT), NULL, err) : st;
    st = st == LKS_OK ? add_dense(&c, shapes[i].hidden + 5, "gelu", err) : st;
    st = st == LKS_OK ? add_dense(&c, 3, "linear", err) : st;
    TRY(end_case(s, &c, st, err));
  }
cleanup:
  return st;
}

/* How rows reach a step: by an index, by places in an adopted table, uneven shares, empty ones. */
static lks_status try_feeds(const suite *s, lks_error *err) {
  static const struct {
    const char *name;
    lks_test_feed feed;
    bool crowded;
    int64_t rows;
  } feeds[] = {{"index", LKS_FEED_INDEX, false, 65},
               {"adopted table", LKS_FEED_PLACES, false, 65},
               {"all rows on the last rank", LKS_FEED_INDEX, true, 33},
               {"all rows on the last rank, adopted", LKS_FEED_PLACES, true, 33}};
  lks_status st = LKS_OK;
  for (size_t i = 0; i < sizeof feeds / sizeof *feeds; ++i) {
    lks_testcase c;
    begin_case(&c, "feed", feeds[i].name, lks_loss_kinds[0]);
    c.feed = feeds[i].feed;
    c.crowded = feeds[i].crowded;
    c.rows = feeds[i].rows;
    c.batch_size = c.rows * (c.crowded ? s->world->size : 1);
    st = add_dense(&c, 12, "tanh", err);
    st = st == LKS_OK ? add_layer(&c, layer_kind(LKS_LAYER_DROPOUT), NULL, err) : st;
    st = st == LKS_OK ? add_dense(&c, 3, "linear", err) : st;
    TRY(end_case(s, &c, st, err));
  }
cleanup:
  return st;
}

/* What the contract says beyond numbers, on a model with slots; by each way of making gradients. */
static lks_status try_contract(const suite *s, lks_gradients gradients, lks_error *err) {
  static const char *const names[] = {[LKS_BY_ROWS] = "contract",
                                      [LKS_BY_OWNERS] = "contract by owners",
                                      [LKS_BY_LEADER] = "contract by the leader"};
  lks_status st = LKS_OK;
  for (const lks_contract_check *check = lks_contract_checks; check->name != NULL; ++check) {
    lks_testcase c;
    lks_testbench b = {0};
    double error = 0.0;
    begin_case(&c, names[gradients], check->name, lks_loss_kinds[0]);
    c.gradients = gradients;
    for (const lks_kind *const *kind = lks_optimizer_kinds; *kind != NULL; ++kind) {
      if (((const lks_optimizer_row *)(const void *)*kind)->id == LKS_OPTIMIZER_ADAM) {
        c.optimizer.kind = *kind;
      }
    }
    st = bind_kind(c.optimizer.kind, "{learning_rate: 0.1}", &c.optimizer, &c.arena, err);
    st = st == LKS_OK ? add_dense(&c, 9, "tanh", err) : st;
    st = st == LKS_OK ? add_dense(&c, 3, "linear", err) : st;
    st = lks_agree(s->world, st, err);
    st = st == LKS_OK ? lks_testbench_open(&b, &c, s->world, &s->device, err) : st;
    st = st == LKS_OK ? check->run(&b, &error, err) : st;
    if (st == LKS_OK) {
      report_case(s, c.name, error, lks_testbench_bound(&b));
    }
    lks_testbench_close(&b);
    lks_arena_free(&c.arena);
    TRY(st);
  }
cleanup:
  return st;
}

/* ---- the suite */

lks_status lks_selftest_names(lks_world *world, const char *const **names, lks_error *err) {
  lks_status st = LKS_OK;
  struct {
    int count;
    char host[64];
  } mine = {0}, *all = malloc((size_t)world->size * sizeof *all);
  *names = lks_backend_names();
  while ((*names)[mine.count] != NULL) {
    ++mine.count;
  }
  memcpy(mine.host, world->host, sizeof mine.host);
  if (all == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for %d ranks", world->size);
  }
  TRY(lks_agree(world, st, err));
  TRY(lks_world_gather(world, &mine, sizeof mine, all, err));
  for (int rank = 0; rank < world->size && st == LKS_OK; ++rank) {
    if (all[rank].count != all[0].count) {
      const int with = all[rank].count > all[0].count ? rank : 0, without = rank - with;
      st = lks_fail(err, LKS_DEVICE, NULL,
                    "rank %d on %s has a GPU that can be used, rank %d on %s has none", with,
                    all[with].host, without, all[without].host);
      lks_advise(err, "run lockstep devices diagnose on %s, or leave it out", all[without].host);
    }
  }
  TRY(lks_agree(world, st, err));
cleanup:
  free(all);
  return st;
}

lks_status lks_selftest_run(lks_world *world, const char *backend, lks_selftest_report *report,
                            lks_selftest_each each, void *user, lks_error *err) {
  lks_status st = LKS_OK;
  suite s = {.world = world, .report = report, .each = each, .user = user};
  const lks_device_options device = {
      .kind = strcmp(backend, "cpu") == 0 ? LKS_DEVICE_CPU : LKS_DEVICE_GPU, .ordinal = -1};
  *report = (lks_selftest_report){0};
  lks_world_phase(world, "self-test");
  TRY(lks_device_choose(world, &device, &s.device, err));
  TRY(try_activations(&s, err));
  TRY(try_slope_at_zero(&s, err));
  TRY(try_layers(&s, err));
  TRY(try_losses(&s, err));
  TRY(try_optimizers(&s, err));
  TRY(try_shapes(&s, err));
  TRY(try_gradients(&s, err));
  TRY(try_feeds(&s, err));
  for (int way = LKS_BY_ROWS; way <= LKS_BY_LEADER; ++way) {
    TRY(try_contract(&s, (lks_gradients)way, err));
  }
cleanup:
  return st;
}
