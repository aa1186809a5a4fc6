/* The kernels that end a step, on the simulated GPU: loss and metrics, finite check and control
 * block, update, fingerprint, against the CPU backend's functions. */
#include "kernel_fixture.h"

#include "backend/cpu/cpu.h"
#include "backend/cpu/update.h"

/* ---- loss */

enum { LOSS_ROWS = 40 };

static const lks_loss_row *loss_at(int i) {
  return (const lks_loss_row *)(const void *)lks_loss_kinds[i];
}

static lks_metric_row metric_rows[LKS_METRIC_COUNT];

/* A model as lks_loss_cpu looks at it: every metric that fits the targets. */
static lks_model loss_model(const lks_loss_row *loss, lks_link link, bool logits, int64_t outputs) {
  lks_model model = {.outputs = outputs, .loss = loss, .link = link, .logits = logits};
  for (int id = LKS_METRIC_MAE; id < LKS_METRIC_COUNT; ++id) {
    metric_rows[id].id = (lks_metric_id)id;
    if (loss->labels == (id == LKS_METRIC_SPARSE_CATEGORICAL_ACCURACY)) {
      model.metrics[model.metric_count++] = &metric_rows[id];
    }
  }
  return model;
}

/* Outputs with ties and extremes among them; targets that fit the loss. */
static void loss_inputs(const lks_model *model, float *z, float *t) {
  const int64_t n = model->outputs, width = model->loss->labels ? 1 : n;
  for (int64_t i = 0; i < LOSS_ROWS * n; ++i) {
    z[i] = 3.0f * value_at(20, i);
    z[i] = i % 11 == 5 ? 0.0f : i % 13 == 7 ? 60.0f * value_at(21, i) : z[i];
  }
  for (int64_t i = 0; i < LOSS_ROWS * width; ++i) {
    const float u = 0.5f + 0.5f * value_at(22, i);
    t[i] = model->loss->labels                                    ? floorf(u * (float)n)
           : model->loss->id == LKS_LOSS_CATEGORICAL_CROSSENTROPY ? u / (float)n
           : model->loss->zero_one                                ? u
                                                                  : 3.0f * u;
  }
}

static void check_sums(const lks_model *model, const double *got, const lks_block_sums *expected) {
  for (int v = 0; v <= model->metric_count; ++v) {
    const double want = v == 0 ? expected->loss : expected->metrics[v - 1];
    assert_true(fabs(got[v] - want) <= 1e-6 * (fabs(want) > 1.0 ? fabs(want) : 1.0));
  }
}

static void check_loss(const lks_model *model, int64_t live) {
  const int64_t n = model->outputs, count = LOSS_ROWS * n;
  const int64_t width = model->loss->labels ? 1 : n;
  const size_t bytes = (size_t)count * 4;
  const int values = 1 + model->metric_count;
  const int64_t blocks = lks_loss_blocks_cuda(LOSS_ROWS, n);
  const lks_step_order order = {.rows = live, .global_rows = 3 * LOSS_ROWS};
  float *z = malloc(bytes), *t = malloc(bytes), *got = malloc(bytes), *expected = calloc(1, bytes);
  loss_inputs(model, z, t);
  lks_block_sums sums = {0};
  lks_loss_cpu(model, z, t, live, 3.0 * LOSS_ROWS, expected, &sums);
  lks_loss_args args = {.block = {state_with(&order, 1), LOSS_ROWS},
                        .out = to_device(z, bytes),
                        .targets = to_device(t, (size_t)(LOSS_ROWS * width) * 4),
                        .gradient = device_new(bytes),
                        .partials = device_new((size_t)(blocks * values) * sizeof(double)),
                        .outputs = n,
                        .id = model->loss->id,
                        .link = model->link,
                        .logits = model->logits,
                        .metric_count = model->metric_count};
  for (int i = 0; i < model->metric_count; ++i) {
    args.metrics[i] = model->metrics[i]->id;
  }
  lks_seal_args add = {.state = (lks_device_state *)args.block.state,
                       .partials = args.partials,
                       .partial_count = blocks,
                       .metric_count = model->metric_count,
                       .sums = device_new((size_t)values * sizeof(double))};
  double got_sums[1 + LKS_MAX_METRICS];
  assert_int_equal(lks_loss_cuda(&args, NULL), 0);
  assert_int_equal(lks_seal_cuda(&add, NULL), 0);
  from_device(got, args.gradient, bytes);
  assert_close(got, expected, count, 1e-6 / LOSS_ROWS);
  from_device(got_sums, add.sums, (size_t)values * sizeof(double));
  check_sums(model, got_sums, &sums);
  args.gradient = NULL; /* evaluation: the same sums */
  assert_int_equal(lks_loss_cuda(&args, NULL), 0);
  assert_int_equal(lks_seal_cuda(&add, NULL), 0);
  double again[1 + LKS_MAX_METRICS];
  from_device(again, add.sums, (size_t)values * sizeof(double));
  assert_memory_equal(again, got_sums, (size_t)values * sizeof(double));
  free_all();
  free(z), free(t), free(got), free(expected);
}

static void every_loss_and_metric_is_the_cpus(void **unused) {
  (void)unused;
  static const int64_t widths[] = {1, 2, 10, 70};
  unsigned seen = 0;
  for (int i = 0; lks_loss_kinds[i] != NULL; ++i) {
    const lks_loss_row *loss = loss_at(i);
    seen |= 1u << loss->id;
    for (size_t w = 0; w < sizeof widths / sizeof *widths; ++w) {
      for (int logits = 0; logits <= (loss->link != LKS_LINK_NONE); ++logits) {
        const lks_model model = loss_model(loss, loss->link, logits == 1, widths[w]);
        check_loss(&model, LOSS_ROWS - 3);
      }
    }
    const lks_model model = loss_model(loss, loss->link, false, 3);
    check_loss(&model, 0);
  }
  assert_int_equal(seen, (1u << LKS_LOSS_COUNT) - 1);
}

/* ---- seal */

enum { GRADIENTS = 4096 + 64 };

/* Seals gradients with partial sums of two metrics; the control block comes back. */
static void seal(lks_device_state *state, const float *gradients, const double partials[2][3],
                 float control[LKS_CONTROL_FLOATS]) {
  const lks_seal_args args = {.state = state,
                              .gradients = to_device(gradients, GRADIENTS * 4),
                              .count = GRADIENTS,
                              .partials = to_device(partials, 6 * sizeof(double)),
                              .partial_count = 2,
                              .metric_count = 2,
                              .control = device_new(LKS_CONTROL_FLOATS * 4)};
  assert_int_equal(lks_seal_cuda(&args, NULL), 0);
  from_device(control, args.control, LKS_CONTROL_FLOATS * 4);
}

static void the_control_block_is_the_cpus(void **unused) {
  (void)unused;
  const lks_step_order order = {.step = 5, .rows = 1234567, .stop = 1, .failed = 1};
  const double partials[2][3] = {{1.0 / 3, 2e5 / 7, 10}, {1e-9, 1.0 / 9, 0.5}};
  float *gradients = values_of(30, GRADIENTS, 1.0f), got[LKS_CONTROL_FLOATS];
  float expected[LKS_CONTROL_FLOATS] = {0};
  lks_control_put_real(expected + LKS_CONTROL_LOSS, partials[0][0] + partials[1][0]);
  lks_control_put_count(expected + LKS_CONTROL_ROWS, order.rows);
  expected[LKS_CONTROL_STOP] = expected[LKS_CONTROL_FAILED] = 1.0f;
  for (int i = 0; i < 2; ++i) {
    lks_control_put_real(expected + LKS_CONTROL_METRICS + 2 * i,
                         partials[0][1 + i] + partials[1][1 + i]);
  }
  lks_device_state *state = state_with(&order, 1);
  for (int again = 0; again < 2; ++again) { /* the ticket is back at 0 */
    seal(state, gradients, partials, got);
    assert_memory_equal(got, expected, sizeof got);
  }
  free_all();
  free(gradients);
}

static void a_bad_value_anywhere_is_seen(void **unused) {
  (void)unused;
  static const int places[] = {0, 1, 2, 3, 2047, GRADIENTS - 1};
  const lks_step_order order = {.rows = 1};
  const double good[2][3] = {{1, 1, 1}, {1, 1, 1}}, bad[2][3] = {{1, 1, 1}, {NAN, 1, 1}};
  float *gradients = values_of(31, GRADIENTS, 1.0f), control[LKS_CONTROL_FLOATS];
  for (size_t i = 0; i < sizeof places / sizeof *places; ++i) {
    const float kept = gradients[places[i]];
    gradients[places[i]] = i % 2 == 0 ? NAN : -INFINITY;
    seal(state_with(&order, 1), gradients, good, control);
    assert_true(control[LKS_CONTROL_NOT_FINITE] == 1.0f);
    gradients[places[i]] = kept;
    free_all();
  }
  seal(state_with(&order, 1), gradients, good, control);
  assert_true(control[LKS_CONTROL_NOT_FINITE] == 0.0f);
  seal(state_with(&order, 1), gradients, bad, control);
  assert_true(control[LKS_CONTROL_NOT_FINITE] == 1.0f);
  free_all();
  free(gradients);
}

/* Gradients that become ready in pieces: an earlier launch only looks, the last one tells. */
static void an_earlier_piece_counts(void **unused) {
  (void)unused;
  const lks_step_order order = {.rows = 1};
  const double good[2][3] = {{1, 1, 1}, {1, 1, 1}};
  float *gradients = values_of(31, GRADIENTS, 1.0f), control[LKS_CONTROL_FLOATS];
  const float piece[4] = {0, INFINITY, 0, 0};
  lks_device_state *state = state_with(&order, 1);
  const lks_seal_args look = {
      .state = state, .gradients = to_device(piece, sizeof piece), .count = 4};
  assert_int_equal(lks_seal_cuda(&look, NULL), 0);
  seal(state, gradients, good, control);
  assert_true(control[LKS_CONTROL_NOT_FINITE] == 1.0f);
  free_all();
  free(gradients);
}

/* ---- update */

enum { PARAMETERS = 2048 + 64, STEPS = 3, RING = 2 };

typedef struct training {
  float *parameters, *gradients, *slots[LKS_MAX_SLOTS]; /* host */
  lks_update_args args;
  lks_published *ring; /* pinned */
} training;

static training training_new(const lks_step_order *orders, int count, int slots) {
  training t = {.parameters = values_of(40, PARAMETERS, 1.0f),
                .gradients = values_of(41, PARAMETERS, 1.0f)};
  const float control[LKS_CONTROL_FLOATS] = {[LKS_CONTROL_LOSS] = 2.5f, [LKS_CONTROL_ROWS] = 8.0f};
  t.args = (lks_update_args){.state = state_with(orders, count),
                             .control = to_device(control, sizeof control),
                             .gradients = to_device(t.gradients, PARAMETERS * 4),
                             .parameters = to_device(t.parameters, PARAMETERS * 4),
                             .count = PARAMETERS,
                             .ring_slots = RING};
  for (int s = 0; s < slots; ++s) {
    t.slots[s] = values_of(42, PARAMETERS, 0.0f);
    t.args.slots[s] = to_device(t.slots[s], PARAMETERS * 4);
  }
  void *ring = NULL, *mapped = NULL;
  assert_int_equal(cudaHostAlloc(&ring, RING * sizeof *t.ring, cudaHostAllocMapped), cudaSuccess);
  memset(ring, 0, RING * sizeof *t.ring);
  assert_int_equal(cudaHostGetDevicePointer(&mapped, ring, 0), cudaSuccess);
  t.ring = ring;
  t.args.ring = mapped;
  return t;
}

static void training_free(training *t) {
  free_all();
  assert_int_equal(cudaFreeHost(t->ring), cudaSuccess);
  free(t->parameters), free(t->gradients), free(t->slots[0]), free(t->slots[1]);
}

static void run_update(training *t) {
  assert_int_equal(lks_update_cuda(&t->args, NULL), 0);
  assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
}

static void assert_parameters(const training *t) {
  float got[PARAMETERS];
  from_device(got, t->args.parameters, sizeof got);
  assert_close(got, t->parameters, PARAMETERS, 1e-6);
}

static void check_optimizer(const lks_optimizer *optimizer) {
  const int slots = lks_optimizer_slots(optimizer);
  lks_step_order orders[STEPS];
  for (int k = 0; k < STEPS; ++k) {
    orders[k] = (lks_step_order){.step = 10 + k, .update = lks_optimizer_update(optimizer, 10 + k)};
  }
  training t = training_new(orders, STEPS, slots);
  const lks_values values = {t.parameters, {t.slots[0], t.slots[1]}};
  for (int k = 0; k < STEPS; ++k) {
    run_update(&t);
    lks_update_cpu(&orders[k].update, PARAMETERS, t.gradients, &values);
    assert_parameters(&t);
    const lks_published *slot = &t.ring[k % RING];
    assert_true(slot->sequence == 10 + k);
    assert_true(slot->control[LKS_CONTROL_LOSS] == 2.5f && slot->control[LKS_CONTROL_ROWS] == 8.0f);
    assert_true(slot->halted == 0 && slot->not_finite_here == 0);
  }
  for (int s = 0; s < slots; ++s) {
    float got[PARAMETERS];
    from_device(got, t.args.slots[s], sizeof got);
    assert_close(got, t.slots[s], PARAMETERS, 1e-6);
  }
  training_free(&t);
}

static void every_optimizer_is_the_cpus(void **unused) {
  (void)unused;
  for (int i = 0; lks_optimizer_kinds[i] != NULL; ++i) {
    lks_optimizer optimizer = {.kind = lks_optimizer_kinds[i],
                               .learning_rate = 0.01,
                               .beta_1 = 0.9,
                               .beta_2 = 0.999,
                               .epsilon = 1e-7,
                               .weight_decay = 0.1};
    check_optimizer(&optimizer);
    optimizer.momentum = 0.9;
    check_optimizer(&optimizer);
    optimizer.nesterov = true;
    check_optimizer(&optimizer);
  }
}

/* What a vote does holds for all later steps, whatever their votes. */
static void a_failed_or_bad_step_stops_updates_for_ever(void **unused) {
  (void)unused;
  static const int votes[] = {LKS_CONTROL_FAILED, LKS_CONTROL_NOT_FINITE};
  const lks_update sgd = {.id = LKS_OPTIMIZER_SGD, .learning_rate = 1.0f};
  const lks_step_order orders[2] = {{.step = 1, .update = sgd}, {.step = 2, .update = sgd}};
  for (int i = 0; i < 2; ++i) {
    training t = training_new(orders, 2, 0);
    float control[LKS_CONTROL_FLOATS] = {0};
    control[votes[i]] = 1.0f;
    t.args.control = to_device(control, sizeof control);
    run_update(&t);
    assert_parameters(&t);
    assert_true(t.ring[0].sequence == 1 && t.ring[0].halted == 1);
    control[votes[i]] = 0.0f;
    t.args.control = to_device(control, sizeof control);
    run_update(&t);
    assert_parameters(&t);
    assert_true(t.ring[1].sequence == 2 && t.ring[1].halted == 1);
    training_free(&t);
  }
}

/* The update overflows one parameter: the next step's own flag says so. */
static void a_bad_parameter_is_told_with_the_next_step(void **unused) {
  (void)unused;
  const lks_update sgd = {.id = LKS_OPTIMIZER_SGD, .learning_rate = 2.0f};
  const lks_step_order orders[2] = {{.step = 1, .update = sgd}, {.step = 2, .update = sgd}};
  training t = training_new(orders, 2, 0);
  t.gradients[PARAMETERS - 1] = 3e38f;
  t.args.gradients = to_device(t.gradients, PARAMETERS * 4);
  run_update(&t);
  assert_true(t.ring[0].not_finite_here == 0);
  const lks_seal_args seal_next = {.state = t.args.state,
                                   .gradients = to_device(t.parameters, PARAMETERS * 4),
                                   .count = PARAMETERS,
                                   .partials = to_device((const double[1]){1.0}, sizeof(double)),
                                   .partial_count = 1,
                                   .control = device_new(LKS_CONTROL_FLOATS * 4)};
  assert_int_equal(lks_seal_cuda(&seal_next, NULL), 0);
  t.args.control = seal_next.control;
  run_update(&t);
  assert_true(t.ring[1].not_finite_here == 1 && t.ring[1].halted == 1);
  assert_true(t.ring[1].control[LKS_CONTROL_NOT_FINITE] == 1.0f);
  training_free(&t);
}

/* ---- fingerprint */

static uint64_t fingerprint(const float *values, int64_t count) {
  uint64_t hash = 0;
  const lks_fingerprint_args args = {.values = to_device(values, (size_t)count * 4),
                                     .hash = to_device(&hash, sizeof hash),
                                     .count = count};
  assert_int_equal(lks_fingerprint_cuda(&args, NULL), 0);
  from_device(&hash, args.hash, sizeof hash);
  free_all();
  return hash;
}

static void a_fingerprint_is_the_sum_of_terms(void **unused) {
  (void)unused;
  enum { COUNT = 1000 };
  float *values = values_of(50, COUNT, 1.0f);
  uint64_t expected = 0;
  for (uint64_t i = 0; i < COUNT; ++i) {
    uint32_t bits;
    memcpy(&bits, values + i, sizeof bits);
    expected += lks_fingerprint_term(i, bits);
  }
  assert_true(fingerprint(values, COUNT) == expected);
  values[500] = nextafterf(values[500], 2.0f);
  assert_true(fingerprint(values, COUNT) != expected);
  values[500] = values[0];
  const uint64_t same = fingerprint(values, COUNT);
  values[0] = values[1];
  values[1] = values[500]; /* two swapped */
  assert_true(fingerprint(values, COUNT) != same);
  free(values);
}

static void nothing_runs(void **unused) {
  (void)unused;
  assert_int_equal(lks_nothing_cuda(NULL), 0);
  assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_loss_and_metric_is_the_cpus),
      cmocka_unit_test(the_control_block_is_the_cpus),
      cmocka_unit_test(a_bad_value_anywhere_is_seen),
      cmocka_unit_test(an_earlier_piece_counts),
      cmocka_unit_test(every_optimizer_is_the_cpus),
      cmocka_unit_test(a_failed_or_bad_step_stops_updates_for_ever),
      cmocka_unit_test(a_bad_parameter_is_told_with_the_next_step),
      cmocka_unit_test(a_fingerprint_is_the_sum_of_terms),
      cmocka_unit_test(nothing_runs),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
