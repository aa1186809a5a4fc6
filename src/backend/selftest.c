/* See selftest.h. Errors are normalised: |ours - reference| over |reference|, in the 2-norm.
 *
 * Bounds are derived: a sum of K products in fp32 is off by at most about sqrt(K) eps relative to
 * its terms (rounding errors are independent), each of the few layers adds one such error, and
 * cancellation costs a small factor. */
#include "backend/selftest.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/reference.h"
#include "base/random.h"

/* Layers of a case at most, and the seed of its data: any other does as well. */
enum { MOST_LAYERS = 4, SEED = 20 };

#define FACTOR 8.0
#define STEP 1e-6 /* of central differences in double: its own error is about 1e-9 */

typedef struct testcase {
  char name[96];
  lks_layer_options layers[MOST_LAYERS];
  int layer_count;
  lks_metric_options metrics[LKS_MAX_METRICS];
  int metric_count;
  const lks_kind *loss;
  lks_optimizer optimizer;
  int64_t inputs, rows, batch_size;
  int steps; /* 1: compare the gradient; more: compare parameters after them */
  lks_arena arena;
} testcase;

/* Everything one case needs while it runs. */
typedef struct bench {
  lks_model *model;
  lks_plan *plan;
  lks_backend backend;
  float *x, *t, *parameters, *after, *predicted;
  double *wide_x, *wide_t, *wide, *gradient, *outputs, *slots[LKS_MAX_SLOTS];
  int64_t *ids;
} bench;

static void free_bench(bench *b) {
  lks_backend_close(&b->backend);
  lks_plan_free(&b->plan);
  lks_model_free(&b->model);
  free(b->x);
  free(b->t);
  free(b->parameters);
  free(b->after);
  free(b->predicted);
  free(b->wide_x);
  free(b->wide_t);
  free(b->wide);
  free(b->gradient);
  free(b->outputs);
  free(b->ids);
  for (int s = 0; s < LKS_MAX_SLOTS; ++s) {
    free(b->slots[s]);
  }
}

static double normal(uint64_t key, uint64_t i) {
  const lks_random4 r = lks_philox((uint32_t)i, 0, 0, 0, (uint32_t)key, (uint32_t)(key >> 32));
  return sqrt(-2.0 * log((double)lks_uniform(r.v[0]))) *
         cos(6.283185307179586 * (double)lks_uniform(r.v[1]));
}

/* Targets that the loss understands: labels, one-hot rows, 0/1, or any numbers. */
static void make_data(const testcase *c, bench *b) {
  const lks_model *model = b->model;
  const int64_t n = model->outputs, columns = model->loss->labels ? 1 : n;
  const uint64_t key = lks_random_key(SEED, 100, 0);
  for (int64_t i = 0; i < c->rows * c->inputs; ++i) {
    b->x[i] = (float)normal(key, (uint64_t)i);
    b->wide_x[i] = (double)b->x[i];
  }
  for (int64_t row = 0; row < c->rows; ++row) {
    const int64_t label = (row * 7 + 3) % n;
    for (int64_t j = 0; j < columns; ++j) {
      float *t = &b->t[row * columns + j];
      *t = (float)normal(key, (uint64_t)(1000000 + row * columns + j));
      if (model->loss->labels) {
        *t = (float)label;
      } else if (model->loss->link == LKS_LINK_SOFTMAX) {
        *t = j == label ? 1.0f : 0.0f;
      } else if (model->loss->zero_one) {
        *t = *t > 0.0f ? 1.0f : 0.0f;
      }
      b->wide_t[row * columns + j] = (double)*t;
    }
    b->ids[row] = row;
  }
}

static bool allocate(const testcase *c, bench *b) {
  const lks_model *model = b->model;
  const size_t rows = (size_t)c->rows, n = (size_t)model->outputs;
  const size_t p = (size_t)model->arena_floats, inputs = (size_t)c->inputs;
  bool all = true;
  all = (b->x = malloc(rows * inputs * sizeof(float))) != NULL && all;
  all = (b->t = malloc(rows * n * sizeof(float))) != NULL && all;
  all = (b->parameters = malloc(p * sizeof(float))) != NULL && all;
  all = (b->after = malloc(p * sizeof(float))) != NULL && all;
  all = (b->predicted = malloc(rows * n * sizeof(float))) != NULL && all;
  all = (b->wide_x = malloc(rows * inputs * sizeof(double))) != NULL && all;
  all = (b->wide_t = malloc(rows * n * sizeof(double))) != NULL && all;
  all = (b->wide = malloc(p * sizeof(double))) != NULL && all;
  all = (b->gradient = malloc(p * sizeof(double))) != NULL && all;
  all = (b->outputs = malloc(rows * n * sizeof(double))) != NULL && all;
  all = (b->ids = malloc(rows * sizeof(int64_t))) != NULL && all;
  for (int s = 0; s < b->plan->slots; ++s) {
    all = (b->slots[s] = calloc(p, sizeof(double))) != NULL && all;
  }
  return all;
}

static lks_status open_bench(const testcase *c, lks_world *world, const char *backend, bench *b,
                             lks_error *err) {
  lks_status st = LKS_OK;
  const lks_model_options options = {
      .layers = {(void *)c->layers, c->layer_count, sizeof *c->layers},
      .metrics = {(void *)c->metrics, c->metric_count, sizeof *c->metrics},
      .loss = {.kind = c->loss},
      .optimizer = c->optimizer};
  st = lks_model_make(&options, c->inputs, 0, &b->model, err);
  TRY(lks_agree(world, st, err));
  st = lks_plan_make(b->model, c->batch_size, world->size, &b->plan, err);
  TRY(lks_agree(world, st, err));
  if (!allocate(c, b)) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for the self-test");
  }
  TRY(lks_agree(world, st, err));
  const lks_backend_request request = {
      .world = world, .plan = b->plan, .seed = SEED, .timeout = 60.0};
  TRY(lks_backend_open(backend, &request, &b->backend, err));
  make_data(c, b);
  lks_model_initialise(b->model, SEED, b->parameters);
  for (int64_t i = 0; i < b->model->arena_floats; ++i) {
    b->wide[i] = (double)b->parameters[i];
  }
cleanup:
  return st;
}

/* 2-norm of a - b over that of b. */
static double distance(const float *a, const double *b, int64_t count) {
  double difference = 0.0, size = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    size += b[i] * b[i];
  }
  return sqrt(difference) / (sqrt(size) > 0.0 ? sqrt(size) : 1.0);
}

static double relative(double a, double b) {
  return fabs(a - b) / (fabs(b) > 0.0 ? fabs(b) : 1.0);
}

static double larger(double a, double b) {
  return a > b || isnan(a) ? a : b;
}

/* evaluate and predict, block by block, against the reference without dropout. */
static lks_status try_inference(const testcase *c, bench *b, double *error, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_model *model = b->model;
  const int64_t n = model->outputs, columns = model->loss->labels ? 1 : n;
  const lks_reference_batch batch = {.x = b->wide_x, .t = b->wide_t, .rows = c->rows};
  lks_reference_result result = {.outputs = b->outputs};
  lks_block_sums sums = {0};
  TRY(lks_reference_run(model, b->wide, &batch, &result, err));
  for (int64_t first = 0; first < c->rows; first += LKS_EVALUATION_ROWS) {
    const int64_t rest = c->rows - first;
    const lks_feed feed = {.features = b->x + first * c->inputs,
                           .targets = b->t + first * columns,
                           .count = rest < LKS_EVALUATION_ROWS ? rest : LKS_EVALUATION_ROWS};
    lks_block_sums part = {0};
    TRY(b->backend.ops->evaluate(b->backend.state, &feed, &part, err));
    TRY(b->backend.ops->predict(b->backend.state, &feed, -1, b->predicted + first * n, err));
    sums.loss += part.loss;
    for (int i = 0; i < model->metric_count; ++i) {
      sums.metrics[i] += part.metrics[i];
    }
  }
  *error = larger(relative(sums.loss, result.loss), *error);
  *error = larger(distance(b->predicted, b->outputs, c->rows * n), *error);
  for (int i = 0; i < model->metric_count; ++i) {
    *error = larger(relative(sums.metrics[i], result.metrics[i]), *error);
  }
cleanup:
  return st;
}

/* Steps of the backend against steps in double from gradients by differences. */
static lks_status try_steps(const testcase *c, lks_world *world, bench *b, double *error,
                            lks_error *err) {
  lks_status st = LKS_OK;
  const lks_model *model = b->model;
  const int64_t columns = model->loss->labels ? 1 : model->outputs;
  int64_t first = 0, count = 0;
  lks_plan_share(c->rows, world->rank, world->size, &first, &count);
  const lks_feed feed = {.features = b->x + first * c->inputs,
                         .targets = b->t + first * columns,
                         .row_ids = b->ids + first,
                         .count = count};
  TRY(b->backend.ops->restore(b->backend.state, b->parameters, NULL, err));
  for (int step = 1; step <= c->steps; ++step) {
    const lks_reference_batch batch = {.x = b->wide_x,
                                       .t = b->wide_t,
                                       .rows = c->rows,
                                       .training = true,
                                       .seed = SEED,
                                       .step = step,
                                       .row_ids = b->ids};
    const lks_step request = {.feed = &feed, .global_rows = c->rows, .step = step};
    lks_reference_result result = {0};
    lks_control control = {0};
    TRY(lks_reference_run(model, b->wide, &batch, &result, err));
    TRY(lks_reference_gradient(model, b->wide, &batch, STEP, b->gradient, err));
    TRY(b->backend.ops->step(b->backend.state, &request, &control, err));
    lks_reference_update(model, step, b->gradient, b->wide, b->slots);
    *error = larger(relative(control.loss, result.loss), *error);
    *error = larger(control.rows == c->rows ? 0.0 : 1.0, *error);
    for (int i = 0; i < model->metric_count; ++i) {
      *error = larger(relative(control.metrics[i], result.metrics[i]), *error);
    }
  }
  TRY(b->backend.ops->snapshot(b->backend.state, b->after, NULL, err));
  if (c->steps == 1) { /* sgd with rate 1: what went is the gradient */
    for (int64_t i = 0; i < model->arena_floats; ++i) {
      b->after[i] = b->parameters[i] - b->after[i];
    }
    *error = larger(distance(b->after, b->gradient, model->arena_floats), *error);
  } else {
    *error = larger(distance(b->after, b->wide, model->arena_floats), *error);
  }
cleanup:
  return st;
}

static double bound_of(const testcase *c, const bench *b) {
  int64_t longest = c->rows > c->inputs ? c->rows : c->inputs;
  for (int i = 0; i < b->model->layer_count; ++i) {
    longest = b->model->layers[i].outputs > longest ? b->model->layers[i].outputs : longest;
  }
  return FACTOR * (double)FLT_EPSILON * sqrt((double)longest) * (double)c->layer_count;
}

static lks_status run_case(const testcase *c, lks_world *world, const char *backend,
                           lks_selftest_report *report, lks_selftest_each each, void *user,
                           lks_error *err) {
  lks_status st = LKS_OK;
  bench b = {0};
  double error = 0.0;
  TRY(open_bench(c, world, backend, &b, err));
  st = b.backend.ops->restore(b.backend.state, b.parameters, NULL, err);
  TRY(lks_agree(world, st, err));
  st = try_inference(c, &b, &error, err);
  TRY(lks_agree(world, st, err));
  TRY(try_steps(c, world, &b, &error, err));
  const double bound = bound_of(c, &b);
  report->cases += 1;
  report->failed += !(error <= bound);
  if (!(error / bound <= report->worst)) {
    report->worst = error / bound;
    (void)snprintf(report->worst_name, sizeof report->worst_name, "%s", c->name);
  }
  if (each != NULL) {
    each(user, c->name, error, bound);
  }
cleanup:
  free_bench(&b);
  return st;
}

/* ---- cases, from the tables */

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

static lks_status add_layer(testcase *c, const lks_kind *kind, const char *text, lks_error *err) {
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
static void begin_case(testcase *c, const char *what, const char *name, const lks_kind *loss) {
  *c = (testcase){.loss = loss, .inputs = 7, .rows = 11, .batch_size = 16, .steps = 1};
  (void)snprintf(c->name, sizeof c->name, "%s %s", what, name);
  for (const lks_kind *const *kind = lks_optimizer_kinds; *kind != NULL; ++kind) {
    if (((const lks_optimizer_row *)(const void *)*kind)->id == LKS_OPTIMIZER_SGD) {
      c->optimizer = (lks_optimizer){.kind = *kind, .learning_rate = 1.0};
    }
  }
}

typedef struct suite {
  lks_world *world;
  const char *backend;
  lks_selftest_report *report;
  lks_selftest_each each;
  void *user;
} suite;

static lks_status end_case(const suite *s, testcase *c, lks_status made, lks_error *err) {
  lks_status st = lks_agree(s->world, made, err);
  if (st == LKS_OK) {
    st = run_case(c, s->world, s->backend, s->report, s->each, s->user, err);
  }
  lks_arena_free(&c->arena);
  return st;
}

static lks_status add_dense(testcase *c, int units, const char *activation, lks_error *err) {
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
    testcase c;
    begin_case(&c, "activation", (*kind)->name, lks_loss_kinds[0]);
    st = add_dense(&c, 13, (*kind)->name, err);
    st = st == LKS_OK ? add_dense(&c, 9, (*kind)->name, err) : st;
    st = st == LKS_OK ? add_dense(&c, 3, "linear", err) : st;
    TRY(end_case(s, &c, st, err));
  }
cleanup:
  return st;
}

/* Each layer kind between two dense ones, before and after an activation that bends. */
static lks_status try_layers(const suite *s, lks_error *err) {
  lks_status st = LKS_OK;
  for (const lks_kind *const *kind = lks_layer_kinds; *kind != NULL; ++kind) {
    testcase c;
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

static void add_metrics(testcase *c) {
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
      testcase c;
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
      testcase c;
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
    testcase c;
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

lks_status lks_selftest_run(lks_world *world, const char *backend, lks_selftest_report *report,
                            lks_selftest_each each, void *user, lks_error *err) {
  lks_status st = LKS_OK;
  const suite s = {
      .world = world, .backend = backend, .report = report, .each = each, .user = user};
  *report = (lks_selftest_report){0};
  lks_world_phase(world, "self-test");
  TRY(try_activations(&s, err));
  TRY(try_layers(&s, err));
  TRY(try_losses(&s, err));
  TRY(try_optimizers(&s, err));
  TRY(try_shapes(&s, err));
cleanup:
  return st;
}
