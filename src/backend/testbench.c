/* See testbench.h. */
#include "backend/testbench.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "backend/reference.h"
#include "base/random.h"

#define FACTOR 8.0
#define DIFFERENCE 1e-6 /* of central differences in double: its own error is about 1e-9 */

void lks_testbench_close(lks_testbench *b) {
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
  free(b->mine);
  for (int s = 0; s < LKS_MAX_SLOTS; ++s) {
    free(b->slots[s]);
  }
}

/* ---- data */

static double normal(uint64_t key, uint64_t i) {
  const lks_random4 r = lks_philox((uint32_t)i, 0, 0, 0, (uint32_t)key, (uint32_t)(key >> 32));
  return sqrt(-2.0 * log((double)lks_uniform(r.v[0]))) *
         cos(6.283185307179586 * (double)lks_uniform(r.v[1]));
}

static int64_t target_columns(const lks_model *model) {
  return model->loss->labels ? 1 : model->outputs;
}

/* Targets that the loss understands: labels, one-hot rows, 0/1, or any numbers. */
static void make_data(lks_testbench *b) {
  const lks_testcase *c = b->testcase;
  const lks_model *model = b->model;
  const int64_t n = model->outputs, columns = target_columns(model);
  const uint64_t key = lks_random_key(LKS_TEST_SEED, 100, 0);
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

static bool allocate(lks_testbench *b) {
  const lks_testcase *c = b->testcase;
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
  all = (b->mine = malloc(rows * sizeof(int64_t))) != NULL && all;
  for (int s = 0; s < b->plan->slots; ++s) {
    all = (b->slots[s] = calloc(p, sizeof(double))) != NULL && all;
  }
  return all;
}

/* ---- this rank's rows of a step: the batch is all rows, in order or shuffled */

static lks_status adopt(lks_testbench *b, bool *adopted, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_testcase *c = b->testcase;
  *adopted = false;
  if (c->feed == LKS_FEED_PLACES && b->backend.ops->adopt != NULL) {
    const lks_resident table = {.features = b->x,
                                .targets = b->t,
                                .rows = c->rows,
                                .inputs = c->inputs,
                                .outputs = target_columns(b->model)};
    st = b->backend.ops->adopt(b->backend.state, &table, adopted, err);
  }
  return lks_agree(b->world, st, err);
}

static lks_status make_feed(lks_testbench *b, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_testcase *c = b->testcase;
  const lks_world *world = b->world;
  int64_t first = 0, count = world->rank == world->size - 1 ? c->rows : 0;
  bool adopted = false;
  if (!c->crowded) {
    lks_plan_share(b->plan, c->rows, world->rank, world->size, &first, &count);
  }
  TRY(adopt(b, &adopted, err));
  b->places = (lks_places){
      .permutation = lks_permutation_make((uint64_t)c->rows, LKS_TEST_SEED), true, first};
  for (int64_t k = 0; k < count; ++k) {
    b->mine[k] = (int64_t)lks_permute(&b->places.permutation, (uint64_t)(first + k));
  }
  if (adopted) {
    b->feed = (lks_feed){.first = first, .count = count, .places = &b->places};
  } else if (c->feed == LKS_FEED_ROWS) {
    b->feed = (lks_feed){.features = b->x + first * c->inputs,
                         .targets = b->t + first * target_columns(b->model),
                         .row_ids = b->ids + first,
                         .first = first,
                         .count = count};
  } else {
    b->feed = (lks_feed){.features = b->x,
                         .targets = b->t,
                         .index = b->mine,
                         .row_ids = b->mine,
                         .first = first,
                         .count = count};
  }
cleanup:
  return st;
}

/* ---- opening */

static lks_status make_model(lks_testbench *b, bool on_cpu, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_testcase *c = b->testcase;
  const lks_model_options options = {
      .layers = {(void *)c->layers, c->layer_count, sizeof *c->layers},
      .metrics = {(void *)c->metrics, c->metric_count, sizeof *c->metrics},
      .loss = {.kind = c->loss},
      .optimizer = c->optimizer};
  TRY(lks_model_make(&options, c->inputs, 0, &b->model, err));
  TRY(lks_plan_make(b->model, c->batch_size, b->world->size,
                    on_cpu && lks_world_shares(b->world) ? c->gradients : LKS_BY_ROWS, &b->plan,
                    err));
  if (!allocate(b)) {
    FAIL(LKS_NO_MEMORY, NULL, "out of memory for the self-test");
  }
cleanup:
  return st;
}

lks_status lks_testbench_open(lks_testbench *b, const lks_testcase *c, lks_world *world,
                              const lks_device_choice *device, lks_error *err) {
  lks_status st = LKS_OK;
  *b = (lks_testbench){.testcase = c, .world = world};
  TRY(lks_agree(world, make_model(b, device->ordinal < 0, err), err));
  const int64_t columns = c->inputs + target_columns(b->model);
  const lks_backend_request request = {.world = world,
                                       .rank = world->rank,
                                       .size = world->size,
                                       .local_rank = world->local_rank,
                                       .local_size = world->local_size,
                                       .host = world->host,
                                       .plan = b->plan,
                                       .seed = LKS_TEST_SEED,
                                       .timeout = 60.0,
                                       .ordinal = device->ordinal,
                                       .memory_growth = true,
                                       .resident_bytes =
                                           c->feed == LKS_FEED_PLACES ? c->rows * columns * 4 : 0};
  TRY(lks_backend_open(device->backend, &request, &b->backend, err));
  make_data(b);
  lks_model_initialise(b->model, LKS_TEST_SEED, b->parameters);
  for (int64_t i = 0; i < b->model->arena_floats; ++i) {
    b->wide[i] = (double)b->parameters[i];
  }
  TRY(make_feed(b, err));
  TRY(lks_testbench_reset(b, err));
cleanup:
  return st;
}

lks_status lks_testbench_reset(lks_testbench *b, lks_error *err) {
  const lks_status st = b->backend.ops->restore(b->backend.state, b->parameters, NULL, err);
  return lks_agree(b->world, st, err);
}

/* ---- running */

lks_status lks_testbench_steps(lks_testbench *b, const lks_step *steps, int count,
                               lks_control *controls, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_backend *backend = &b->backend;
  for (int queued = 0, read = 0; read < count;) {
    lks_control control = {0};
    bool due = true;
    if (queued < count) {
      TRY(backend->ops->step(backend->state, &steps[queued++], &control, err));
      due = queued - read > backend->ops->lag;
    } else {
      TRY(backend->ops->drain(backend->state, &control, err));
    }
    if (control.step != (due ? steps[read].step : 0)) {
      FAIL(LKS_INTERNAL, NULL, "the block of step %lld came where that of step %lld was due",
           (long long)control.step, (long long)(due ? steps[read].step : 0));
    }
    if (due) {
      controls[read++] = control;
    }
  }
cleanup:
  return st;
}

double lks_test_distance(const float *a, const double *b, int64_t count) {
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

double lks_test_larger(double a, double b) {
  return a > b || isnan(a) ? a : b;
}

lks_status lks_testbench_inference(lks_testbench *b, double *error, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_testcase *c = b->testcase;
  const lks_model *model = b->model;
  const int64_t n = model->outputs, columns = target_columns(model);
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
  *error = lks_test_larger(relative(sums.loss, result.loss), *error);
  *error = lks_test_larger(lks_test_distance(b->predicted, b->outputs, c->rows * n), *error);
  for (int i = 0; i < model->metric_count; ++i) {
    *error = lks_test_larger(relative(sums.metrics[i], result.metrics[i]), *error);
  }
cleanup:
  return st;
}

/* The case's steps in double: results by step, parameters in b->wide. */
static lks_status run_reference(lks_testbench *b, lks_reference_result *results, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_testcase *c = b->testcase;
  for (int i = 0; i < c->steps; ++i) {
    const lks_reference_batch batch = {.x = b->wide_x,
                                       .t = b->wide_t,
                                       .rows = c->rows,
                                       .training = true,
                                       .seed = LKS_TEST_SEED,
                                       .step = i + 1,
                                       .row_ids = b->ids};
    TRY(lks_reference_run(b->model, b->wide, &batch, &results[i], err));
    TRY(lks_reference_gradient(b->model, b->wide, &batch, DIFFERENCE, b->gradient, err));
    lks_reference_update(b->model, i + 1, b->gradient, b->wide, b->slots);
  }
cleanup:
  return st;
}

static double compare_control(const lks_testbench *b, const lks_control *control,
                              const lks_reference_result *result) {
  double error = relative(control->loss, result->loss);
  error = lks_test_larger(control->rows == b->testcase->rows ? 0.0 : 1.0, error);
  for (int i = 0; i < b->model->metric_count; ++i) {
    error = lks_test_larger(relative(control->metrics[i], result->metrics[i]), error);
  }
  return error;
}

lks_status lks_testbench_training(lks_testbench *b, double *error, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_testcase *c = b->testcase;
  const int64_t count = b->model->arena_floats;
  lks_reference_result results[LKS_TEST_STEPS] = {0};
  lks_control controls[LKS_TEST_STEPS];
  lks_step steps[LKS_TEST_STEPS];
  for (int i = 0; i < c->steps; ++i) {
    steps[i] = (lks_step){.feed = &b->feed, .global_rows = c->rows, .step = i + 1};
  }
  TRY(lks_agree(b->world, run_reference(b, results, err), err));
  TRY(lks_testbench_steps(b, steps, c->steps, controls, err));
  for (int i = 0; i < c->steps; ++i) {
    *error = lks_test_larger(compare_control(b, &controls[i], &results[i]), *error);
  }
  TRY(b->backend.ops->snapshot(b->backend.state, b->after, NULL, err));
  if (c->steps == 1) { /* sgd with rate 1: what went is the gradient */
    for (int64_t i = 0; i < count; ++i) {
      b->after[i] = b->parameters[i] - b->after[i];
    }
    *error = lks_test_larger(lks_test_distance(b->after, b->gradient, count), *error);
  } else {
    *error = lks_test_larger(lks_test_distance(b->after, b->wide, count), *error);
  }
cleanup:
  return st;
}

double lks_testbench_bound(const lks_testbench *b) {
  const lks_testcase *c = b->testcase;
  int64_t longest = c->rows > c->inputs ? c->rows : c->inputs;
  for (int i = 0; i < b->model->layer_count; ++i) {
    longest = b->model->layers[i].outputs > longest ? b->model->layers[i].outputs : longest;
  }
  return FACTOR * (double)FLT_EPSILON * sqrt((double)longest) * (double)c->layer_count;
}
