/* Kernels that work along rows, on the simulated GPU: gather, activations, dropout, column sums and
 * the fallback products, against the CPU backend and plain loops. */
#include "kernel_fixture.h"

#include "backend/cpu/cpu.h"

/* fp32 arithmetic in another order or another libm: a few units in the last place. */
#define CLOSE 2e-6

static const lks_activation_row *activation_at(int i) {
  return (const lks_activation_row *)(const void *)lks_activation_kinds[i];
}

/* ---- gather */

enum { TABLE_ROWS = 37, INPUTS = 5, TARGETS = 2, BLOCK = 12 };

typedef struct gathered {
  float features[BLOCK * INPUTS], targets[BLOCK * TARGETS];
  int64_t ids[BLOCK];
} gathered;

static void run_gather(const lks_step_order *order, const int64_t *staged_ids, bool adopted,
                       gathered *out) {
  float *features = values_of(1, TABLE_ROWS * INPUTS, 1.0f);
  float *targets = values_of(2, TABLE_ROWS * TARGETS, 1.0f);
  lks_gather_args args = {.block = {state_with(order, 1), BLOCK},
                          .table_features = to_device(features, TABLE_ROWS * INPUTS * 4),
                          .table_targets = to_device(targets, TABLE_ROWS * TARGETS * 4),
                          .features = device_new(sizeof out->features),
                          .targets = device_new(sizeof out->targets),
                          .row_ids = device_new(sizeof out->ids),
                          .inputs = INPUTS,
                          .target_columns = TARGETS,
                          .adopted = adopted};
  if (staged_ids != NULL) {
    args.staged_ids = to_device(staged_ids, (size_t)order->rows * sizeof *staged_ids);
  }
  assert_int_equal(lks_gather_cuda(&args, NULL), 0);
  from_device(out->features, args.features, sizeof out->features);
  from_device(out->targets, args.targets, sizeof out->targets);
  from_device(out->ids, args.row_ids, sizeof out->ids);
  free_all();
  free(features);
  free(targets);
}

/* Row k of the block came from table row source[k]; the rest is dead. */
static void check_gather(const gathered *got, const int64_t *source, const int64_t *ids,
                         int64_t live) {
  for (int64_t k = 0; k < BLOCK; ++k) {
    assert_true(got->ids[k] == (k < live ? ids[k] : -1));
    for (int64_t j = 0; j < INPUTS; ++j) {
      const float expected = k < live ? value_at(1, source[k] * INPUTS + j) : 0.0f;
      assert_true(got->features[k * INPUTS + j] == expected);
    }
    for (int64_t j = 0; j < TARGETS; ++j) {
      const float expected = k < live ? value_at(2, source[k] * TARGETS + j) : 0.0f;
      assert_true(got->targets[k * TARGETS + j] == expected);
    }
  }
}

static void gather_finds_rows_of_an_adopted_table(void **unused) {
  (void)unused;
  for (int64_t live = 0; live <= BLOCK; live += 6) {
    for (int shuffle = 0; shuffle < 2; ++shuffle) {
      const lks_step_order order = {
          .rows = live, .places = {lks_permutation_make(TABLE_ROWS, 99), shuffle == 1, 20}};
      int64_t source[BLOCK];
      for (int64_t k = 0; k < live; ++k) {
        const uint64_t place = (uint64_t)(20 + k);
        source[k] = (int64_t)(shuffle == 1 ? lks_permute(&order.places.permutation, place) : place);
      }
      gathered got;
      run_gather(&order, NULL, true, &got);
      check_gather(&got, source, source, live);
    }
  }
}

static void gather_takes_staged_rows_in_order(void **unused) {
  (void)unused;
  const lks_step_order order = {.rows = 7, .places = {.shuffle = true, .first = 5}};
  int64_t source[7], ids[7];
  for (int64_t k = 0; k < 7; ++k) {
    source[k] = k;
    ids[k] = 1000 - k;
  }
  gathered got;
  run_gather(&order, ids, false, &got);
  check_gather(&got, source, ids, 7);
  run_gather(&order, NULL, false, &got);
  check_gather(&got, source, source, 7);
}

/* ---- activations */

static const int64_t shapes[][2] = {{1, 1}, {9, 1}, {5, 10}, {3, 70}, {2, 1100}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void check_activation(const lks_activation *activation, int64_t rows, int64_t width,
                             bool biased) {
  const lks_activation_row *row = lks_activation_row_of(activation);
  const int64_t count = rows * width;
  const size_t bytes = (size_t)count * 4;
  float *in = values_of(3, count, 4.0f), *bias = values_of(4, width, 1.0f);
  float *z = values_of(3, count, 4.0f), *y = malloc(bytes), *got = malloc(bytes);
  lks_activate_cpu(activation, biased ? bias : NULL, z, y, rows, width);
  lks_activate_args args = {.in = to_device(in, bytes),
                            .bias = biased ? to_device(bias, (size_t)width * 4) : NULL,
                            .z = row->needs_input ? device_new(bytes) : NULL,
                            .y = device_new(bytes),
                            .rows = rows,
                            .width = width,
                            .id = row->id,
                            .parameter = (float)activation->parameter};
  assert_int_equal(lks_activate_cuda(&args, NULL), 0);
  from_device(got, args.y, bytes);
  assert_close(got, y, count, CLOSE);
  if (row->needs_input) {
    from_device(got, args.z, bytes);
    assert_close(got, z, count, CLOSE);
  }
  float *gradient = values_of(5, count, 1.0f);
  lks_derive_args derive = {.y = args.y,
                            .z = args.z,
                            .gradient = to_device(gradient, bytes),
                            .rows = rows,
                            .width = width,
                            .id = row->id,
                            .parameter = args.parameter};
  assert_int_equal(lks_derive_cuda(&derive, NULL), 0);
  from_device(got, derive.gradient, bytes);
  lks_derive_cpu(activation, y, z, gradient, rows, width);
  assert_close(got, gradient, count, CLOSE);
  free_all();
  free(in), free(bias), free(z), free(y), free(got), free(gradient);
}

static void every_activation_is_the_cpus(void **unused) {
  (void)unused;
  unsigned seen = 0;
  for (int i = 0; lks_activation_kinds[i] != NULL; ++i) {
    const lks_activation activation = {lks_activation_kinds[i], 0.3};
    seen |= 1U << lks_activation_row_of(&activation)->id;
    for (int s = 0; s < SHAPES; ++s) {
      check_activation(&activation, shapes[s][0], shapes[s][1], s % 2 == 0);
    }
  }
  assert_int_equal(seen, (1U << LKS_ACT_COUNT) - 1);
}

static void a_nan_comes_through(void **unused) {
  (void)unused;
  for (int i = 0; lks_activation_kinds[i] != NULL; ++i) {
    const float in[2] = {NAN, 1.0f};
    lks_activate_args args = {.in = to_device(in, sizeof in),
                              .y = device_new(sizeof in),
                              .rows = 1,
                              .width = 2,
                              .id = activation_at(i)->id};
    float got[2];
    assert_int_equal(lks_activate_cuda(&args, NULL), 0);
    from_device(got, args.y, sizeof got);
    assert_true(isnan(got[0]));
    free_all();
  }
}

/* ---- dropout */

static void dropout_masks_are_the_cpus(void **unused) {
  (void)unused;
  enum { ROWS = 6, LIVE = 5, WIDTH = 11 };
  const int64_t ids[ROWS] = {0, 1, 77, 5000000000, 3, -1};
  const lks_step_order order = {.step = 6000000000, .rows = LIVE};
  const float rate = 0.3f;
  float *in = values_of(6, ROWS * WIDTH, 1.0f), out[ROWS * WIDTH], got[ROWS * WIDTH];
  unsigned char mask[ROWS * WIDTH], got_mask[ROWS * WIDTH];
  const lks_mask_key key = {.seed = 42, .layer = 3, .step = order.step, .row_ids = ids};
  lks_dropout_cpu(&key, rate, in, out, mask, LIVE, WIDTH);
  memset(mask + LIVE * WIDTH, 0, WIDTH);
  memset(out + LIVE * WIDTH, 0, WIDTH * sizeof *out);
  const lks_dropout_args args = {.block = {state_with(&order, 1), ROWS},
                                 .row_ids = to_device(ids, sizeof ids),
                                 .in = to_device(in, sizeof out),
                                 .out = device_new(sizeof out),
                                 .mask = device_new(sizeof mask),
                                 .width = WIDTH,
                                 .key = lks_random_key(42, LKS_PURPOSE_DROPOUT, 3),
                                 .rate = rate};
  assert_int_equal(lks_dropout_cuda(&args, NULL), 0);
  from_device(got, args.out, sizeof got);
  from_device(got_mask, args.mask, sizeof got_mask);
  assert_memory_equal(got_mask, mask, sizeof mask);
  assert_memory_equal(got, out, LIVE * WIDTH * sizeof *out);
  assert_close(got, out, ROWS * WIDTH, 0.0);
  const lks_undrop_args undrop = {
      .mask = args.mask, .gradient = args.out, .rows = ROWS, .width = WIDTH, .rate = rate};
  assert_int_equal(lks_undrop_cuda(&undrop, NULL), 0);
  from_device(got, args.out, sizeof got);
  lks_dropout_backward_cpu(rate, mask, out, ROWS, WIDTH);
  assert_close(got, out, ROWS * WIDTH, 0.0);
  free_all();
  free(in);
}

/* ---- products */

/* An error bound of k products summed in any order, operands below 1: k units of 2^-24 each. */
static double product_tolerance(int64_t k) {
  return (double)(k + 8) * 6e-8;
}

typedef struct dense {
  int64_t rows, inputs, outputs;
  float *x, *w, *bias, *dz, *y, *z; /* y and z of the layer below */
  float *dx, *dw, *db;              /* expected */
} dense;

static dense dense_new(int64_t rows, int64_t inputs, int64_t outputs) {
  dense d = {.rows = rows, .inputs = inputs, .outputs = outputs};
  d.x = values_of(10, rows * inputs, 1.0f);
  d.w = values_of(11, inputs * outputs, 1.0f);
  d.bias = values_of(12, outputs, 1.0f);
  d.dz = values_of(13, rows * outputs, 1.0f);
  d.y = values_of(14, rows * inputs, 1.0f);
  d.z = values_of(15, rows * inputs, 1.0f);
  d.dx = values_of(0, rows * inputs, 0.0f);
  d.dw = values_of(0, inputs * outputs, 0.0f);
  d.db = values_of(0, outputs, 0.0f);
  return d;
}

static void dense_free(dense *d) {
  free_all();
  free(d->x), free(d->w), free(d->bias), free(d->dz), free(d->y), free(d->z);
  free(d->dx), free(d->dw), free(d->db);
}

static void check_forward(const dense *d, const lks_activation *activation) {
  const lks_activation_row *row = lks_activation_row_of(activation);
  const int64_t count = d->rows * d->outputs;
  float *z = values_of(0, count, 0.0f), *y = values_of(0, count, 0.0f);
  for (int64_t r = 0; r < d->rows; ++r) {
    for (int64_t o = 0; o < d->outputs; ++o) {
      double sum = 0.0;
      for (int64_t i = 0; i < d->inputs; ++i) {
        sum += (double)d->x[r * d->inputs + i] * (double)d->w[i * d->outputs + o];
      }
      z[r * d->outputs + o] = (float)sum;
    }
  }
  lks_activate_cpu(activation, d->bias, z, y, d->rows, d->outputs);
  const size_t bytes = (size_t)count * 4;
  const lks_dense_forward_args args = {.x = to_device(d->x, (size_t)(d->rows * d->inputs) * 4),
                                       .w = to_device(d->w, (size_t)(d->inputs * d->outputs) * 4),
                                       .bias = to_device(d->bias, (size_t)d->outputs * 4),
                                       .z = row->needs_input ? device_new(bytes) : NULL,
                                       .y = device_new(bytes),
                                       .rows = d->rows,
                                       .inputs = d->inputs,
                                       .outputs = d->outputs,
                                       .id = row->id,
                                       .parameter = (float)activation->parameter};
  assert_int_equal(lks_dense_forward_cuda(&args, NULL), 0);
  float *got = malloc(bytes);
  from_device(got, args.y, bytes);
  assert_close(got, y, count, product_tolerance(d->inputs));
  if (row->needs_input) {
    from_device(got, args.z, bytes);
    assert_close(got, z, count, product_tolerance(d->inputs));
  }
  free(z), free(y), free(got);
}

static void check_weights(const dense *d) {
  for (int64_t o = 0; o < d->outputs; ++o) {
    for (int64_t i = 0; i <= d->inputs; ++i) {
      double sum = 0.0;
      for (int64_t r = 0; r < d->rows; ++r) {
        const double x = i < d->inputs ? (double)d->x[r * d->inputs + i] : 1.0;
        sum += x * (double)d->dz[r * d->outputs + o];
      }
      *(i < d->inputs ? d->dw + i * d->outputs + o : d->db + o) = (float)sum;
    }
  }
  const int64_t count = d->inputs * d->outputs;
  const size_t bias_bytes = (size_t)d->outputs * 4;
  const lks_dense_weights_args args = {.x = to_device(d->x, (size_t)(d->rows * d->inputs) * 4),
                                       .dz = to_device(d->dz, (size_t)(d->rows * d->outputs) * 4),
                                       .dw = device_new((size_t)count * 4),
                                       .db = device_new(bias_bytes),
                                       .rows = d->rows,
                                       .inputs = d->inputs,
                                       .outputs = d->outputs};
  const lks_column_sums_args columns = {
      .in = args.dz, .sums = device_new(bias_bytes), .rows = d->rows, .width = d->outputs};
  float *got = malloc((size_t)count * 4 + bias_bytes);
  assert_int_equal(lks_dense_weights_cuda(&args, NULL), 0);
  from_device(got, args.dw, (size_t)count * 4);
  assert_close(got, d->dw, count, product_tolerance(d->rows));
  from_device(got, args.db, bias_bytes);
  assert_close(got, d->db, d->outputs, product_tolerance(d->rows));
  assert_int_equal(lks_column_sums_cuda(&columns, NULL), 0);
  from_device(got, columns.sums, bias_bytes);
  assert_close(got, d->db, d->outputs, product_tolerance(d->rows));
  free(got);
}

static void check_input(const dense *d, const lks_activation *activation) {
  const lks_activation_row *row = lks_activation_row_of(activation);
  const int64_t count = d->rows * d->inputs;
  for (int64_t r = 0; r < d->rows; ++r) {
    for (int64_t i = 0; i < d->inputs; ++i) {
      double sum = 0.0;
      for (int64_t o = 0; o < d->outputs; ++o) {
        sum += (double)d->dz[r * d->outputs + o] * (double)d->w[i * d->outputs + o];
      }
      d->dx[r * d->inputs + i] = (float)sum;
    }
  }
  lks_derive_cpu(activation, d->y, d->z, d->dx, d->rows, d->inputs);
  const size_t bytes = (size_t)count * 4;
  const lks_dense_input_args args = {.dz = to_device(d->dz, (size_t)(d->rows * d->outputs) * 4),
                                     .w = to_device(d->w, (size_t)(d->inputs * d->outputs) * 4),
                                     .y = row->needs_input ? NULL : to_device(d->y, bytes),
                                     .z = row->needs_input ? to_device(d->z, bytes) : NULL,
                                     .dx = device_new(bytes),
                                     .rows = d->rows,
                                     .inputs = d->inputs,
                                     .outputs = d->outputs,
                                     .id = row->id,
                                     .parameter = (float)activation->parameter};
  assert_int_equal(lks_dense_input_cuda(&args, NULL), 0);
  float *got = malloc(bytes);
  from_device(got, args.dx, bytes);
  assert_close(got, d->dx, count, product_tolerance(d->outputs));
  free(got);
}

/* More tiles side by side than a grid has blocks along y. So many threads take the simulator half a
 * minute, and one launch has one order: only the first is tried, in the long runs. */
static void very_wide_layers_are_right(void **unused) {
  (void)unused;
  const char *seed = getenv("SIMGPU_SEED");
  if (getenv("LOCKSTEP_TEST_LONG") == NULL || getenv("SIMGPU_LAZY") != NULL ||
      (seed != NULL && strcmp(seed, "1") != 0)) {
    skip();
  }
  enum { WIDE = 65535 * 16 + 1 };
  const float x[1] = {2.0f};
  float *w = values_of(3, WIDE, 1.0f), *got = malloc(WIDE * sizeof *got);
  const lks_dense_forward_args args = {.x = to_device(x, sizeof x),
                                       .w = to_device(w, WIDE * sizeof *w),
                                       .y = device_new(WIDE * sizeof *w),
                                       .rows = 1,
                                       .inputs = 1,
                                       .outputs = WIDE,
                                       .id = LKS_ACT_LINEAR};
  assert_int_equal(lks_dense_forward_cuda(&args, NULL), 0);
  from_device(got, args.y, WIDE * sizeof *got);
  for (int64_t i = 0; i < WIDE; ++i) {
    w[i] *= 2.0f;
  }
  assert_memory_equal(got, w, WIDE * sizeof *w); /* a product by 2 is exact */
  free(w), free(got);
}

static void products_of_every_shape_are_right(void **unused) {
  (void)unused;
  static const int64_t sizes[][3] = {{1, 1, 1},  {5, 1, 1},   {1, 7, 1},    {33, 40, 1},
                                     {1, 5, 3},  {17, 1, 18}, {20, 33, 17}, {16, 16, 16},
                                     {70, 3, 2}, {300, 9, 1}};
  int activation = 0;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
    dense d = dense_new(sizes[i][0], sizes[i][1], sizes[i][2]);
    for (int turn = 0; turn < 3; ++turn, activation = (activation + 1) % LKS_ACT_COUNT) {
      if (!activation_at(activation)->across_row) {
        const lks_activation fused = {lks_activation_kinds[activation], 0.3};
        check_forward(&d, &fused);
        check_input(&d, &fused);
      }
    }
    check_weights(&d);
    dense_free(&d);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(gather_finds_rows_of_an_adopted_table),
      cmocka_unit_test(gather_takes_staged_rows_in_order),
      cmocka_unit_test(every_activation_is_the_cpus),
      cmocka_unit_test(a_nan_comes_through),
      cmocka_unit_test(dropout_masks_are_the_cpus),
      cmocka_unit_test(products_of_every_shape_are_right),
      cmocka_unit_test(very_wide_layers_are_right),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
