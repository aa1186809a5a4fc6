/* The loader under mpirun, at any number of ranks: every row of every size exactly once an epoch,
 * resident and streamed alike, scaling and fingerprint the same as on one rank, and each refusal
 * the same on all ranks. */
#include "ranks_fixture.h"

#include <float.h>
#include <math.h>

#define BATCH 12

static lks_data_request request_of(const lks_data_options *options) {
  return (lks_data_request){.options = options,
                            .need_train = true,
                            .need_validation = true,
                            .need_test = true,
                            .seed = 4,
                            .shuffle = true,
                            .batch_size = BATCH,
                            .label_classes = CLASSES,
                            .labels = true};
}

static lks_data_options options_of(const char *path) {
  return (lks_data_options){.train = {.file = path}, .order = LKS_ORDER_AUTO, .window = 16};
}

/* ---- every row exactly once */

/* A test table too large for the budget makes any training table leave memory. */
static void run_size(ranks *at, const char *path, int order, bool streamed, int64_t *sequence) {
  lks_error err;
  lks_data *data = NULL;
  lks_data_options options = options_of(path);
  options.order = order;
  options.scaling.features.kind = scaling_kind(LKS_SCALING_STANDARDIZE);
  if (streamed) {
    options.test.present = true;
    options.test.synthetic = (lks_synthetic_options){true, 10000, INPUTS, 1, 0};
    options.memory_per_node = 64 << 10;
  }
  lks_data_request request = request_of(&options);
  CHECK_STATUS(at, lks_data_open(at->world, &request, &data, &err), LKS_OK);
  if (data == NULL) {
    return;
  }
  lks_table *table = data->train;
  const int64_t rows = lks_table_rows(table);
  const bool streams = streamed && order == LKS_ORDER_WINDOWS;
  CHECK(at, lks_table_streamed(table) == streams);
  CHECK(at, data->order == order && data->note[0] == '\0');
  CHECK(at, data->memory_bytes > 0 && (!streamed || data->memory_bytes <= 64 << 10));
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    const int64_t before = rows_read(table);
    run_epoch(at, data, table, BATCH, epoch, 0, sequence);
    check_each_once(at, sequence, 0, rows);
    CHECK(at, rows_read(table) - before == (streams ? rows : 0));
  }
  lks_data_close(&data);
  CHECK(at, data == NULL);
}

static void every_size(ranks *at) {
  for (int64_t rows = 1; rows <= 2 * BATCH; ++rows) {
    char path[512];
    const table_spec spec = {"size.h5", rows, rows % 2 == 0 ? 4 : 0, 0, -1};
    make_table(at, &spec, path);
    for (int order = LKS_ORDER_ROWS; order <= LKS_ORDER_WINDOWS; ++order) {
      int64_t resident[2 * BATCH];
      int64_t streamed[2 * BATCH];
      run_size(at, path, order, false, resident);
      run_size(at, path, order, true, streamed);
      CHECK(at, memcmp(resident, streamed, (size_t)rows * sizeof *resident) == 0);
    }
  }
}

/* ---- the same as one rank alone */

/* The fit is that of the training rows, summed plainly: n roundings of at most eps * 101 each. */
static void check_fit(ranks *at, const lks_data *data, lks_scaling_id kind) {
  const lks_rows *rows = &data->train->rows;
  const double n = (double)rows->count;
  for (int64_t c = 0; c < INPUTS; ++c) {
    double sum = 0;
    double squares = 0;
    double least = 101;
    double most = 0;
    for (int64_t k = 0; k < rows->count; ++k) {
      const double value = fixture_value(lks_rows_physical(rows, k), c);
      sum += value; /* whole numbers: exact */
      squares += value * value;
      least = fmin(least, value);
      most = fmax(most, value);
    }
    const bool minmax = kind == LKS_SCALING_MINMAX;
    const double mean = sum / n;
    const double shift = minmax ? least : mean;
    const double spread = minmax ? most - least : sqrt((squares - sum * mean) / n);
    CHECK(at, fabs(data->features.shift[c] - shift) <= n * DBL_EPSILON * 101);
    CHECK(at, fabs(data->features.factor[c] * spread - 1) <= n * DBL_EPSILON * 101);
  }
}

static void same_as_alone(ranks *at) {
  static const table_spec specs[] = {{"c.h5", 9001, 0, 0, -1}, {"z.h5", 9001, 256, 4, -1}};
  static const lks_scaling_id kinds[] = {LKS_SCALING_STANDARDIZE, LKS_SCALING_MINMAX};
  uint64_t hashes[2] = {0};
  lks_error err;
  for (int i = 0; i < 2; ++i) {
    char path[512];
    lks_data *together = NULL;
    lks_data *alone = NULL;
    make_table(at, &specs[i], path);
    lks_data_options options = options_of(path);
    options.scaling.features.kind = scaling_kind(kinds[i]);
    options.validation = (lks_table_options){
        .present = true, .fraction = 0.3, .rows = i == 0 ? LKS_ROWS_RANDOM : LKS_ROWS_STRATIFIED};
    const lks_data_request request = request_of(&options);
    CHECK_STATUS(at, lks_data_open(at->world, &request, &together, &err), LKS_OK);
    CHECK_STATUS(at, lks_data_open(at->alone, &request, &alone, &err), LKS_OK);
    if (together == NULL || alone == NULL) {
      return;
    }
    const size_t bytes = INPUTS * sizeof(double);
    CHECK(at, together->features.columns == INPUTS && together->targets.columns == 0);
    CHECK(at, memcmp(together->features.shift, alone->features.shift, bytes) == 0);
    CHECK(at, memcmp(together->features.factor, alone->features.factor, bytes) == 0);
    check_fit(at, together, kinds[i]);
    CHECK(at, together->fingerprint == alone->fingerprint && together->fingerprint != 0);
    hashes[i] = together->fingerprint;
    CHECK(at, together->train->rows.count == 6300 && together->validation->rows.count == 2701);
    lks_feed feed;
    lks_feed other;
    CHECK_STATUS(at, lks_table_rows_at(together->validation, 5, 2000, &feed, &err), LKS_OK);
    CHECK_STATUS(at, lks_table_rows_at(alone->validation, 5, 2000, &other, &err), LKS_OK);
    CHECK(at, feed.index == NULL && feed.count == 2000);
    CHECK(at, memcmp(feed.features, other.features, 2000 * INPUTS * sizeof(float)) == 0);
    check_feed(at, together, together->validation, &feed, 5);
    CHECK_STATUS(at, lks_table_rows_at(together->train, 6299, 2, &feed, &err), LKS_INTERNAL);
    lks_data_close(&together);
    lks_data_close(&alone);
  }
  CHECK(at, hashes[0] == hashes[1]); /* layout is no content */
}

/* ---- tables read on demand, and copies in place of shared memory */

static void on_demand_is_the_same(ranks *at) {
  const table_spec spec = {"demand.h5", 3000, 64, 4, -1};
  lks_error err;
  lks_feed feed;
  lks_data *data = NULL;
  char path[512];
  make_table(at, &spec, path);
  lks_data_options options = options_of(path);
  options.train = (lks_table_options){.synthetic = {true, 50, INPUTS, 1, 0}};
  options.test = (lks_table_options){.present = true, .file = path};
  options.memory_per_node = 8 << 10;
  lks_data_request request = request_of(&options);
  request.need_train = false;
  CHECK_STATUS(at, lks_data_open(at->world, &request, &data, &err), LKS_OK);
  if (data == NULL) {
    return;
  }
  CHECK(at, data->train == NULL && data->validation == NULL && data->fingerprint == 0);
  CHECK(at, data->order == LKS_ORDER_ROWS && data->inputs == INPUTS && data->outputs == 1);
  CHECK(at, lks_table_streamed(data->test) && data->memory_bytes == 0);
  const int64_t before = lks_source_rows_read(data->test->source);
  for (int64_t first = 0; first < 3000; first += 32) {
    const int64_t count = first + 32 <= 3000 ? 32 : 3000 - first;
    CHECK_STATUS(at, lks_table_rows_at(data->test, first, count, &feed, &err), LKS_OK);
    check_feed(at, data, data->test, &feed, first);
  }
  /* In order, with the rest of a chunk read ahead: no row twice. */
  CHECK(at, lks_source_rows_read(data->test->source) - before == 3000);
  for (int64_t first = 2950; first >= 0; first -= 50) {
    CHECK_STATUS(at, lks_table_rows_at(data->test, first, 50, &feed, &err), LKS_OK);
    check_feed(at, data, data->test, &feed, first);
  }
  CHECK_STATUS(at, lks_table_rows_at(data->test, 7, 0, &feed, &err), LKS_OK);
  CHECK(at, feed.count == 0);
  CHECK_STATUS(at, lks_table_rows_at(data->test, 7, 2900, &feed, &err), LKS_OK);
  check_feed(at, data, data->test, &feed, 7);
  CHECK_STATUS(at, lks_table_begin(data->test, 0, 0, &err), LKS_INTERNAL);
  lks_data_close(&data);
}

/* A table of its own, with /dev/shm said to be full: resident, then streamed. */
static void copies_are_the_same(ranks *at) {
  const table_spec spec = {"copies.h5", 300, 16, 0, -1};
  const lks_budget budget = {.limit = 1 << 24, .shared = 0, .ranks = at->world->size};
  const bool several = at->world->local_size > 1;
  lks_error err;
  lks_data *data = NULL;
  int64_t sequences[2][300];
  char path[512];
  make_table(at, &spec, path);
  lks_data_options options = options_of(path);
  options.order = LKS_ORDER_WINDOWS;
  const lks_data_request request = request_of(&options);
  CHECK_STATUS(at, lks_data_open(at->world, &request, &data, &err), LKS_OK);
  for (int streamed = 0; data != NULL && streamed < 2; ++streamed) {
    const lks_order *order = &data->train->order;
    lks_table *table = NULL;
    CHECK_STATUS(at,
                 lks_table_make(at->world, data->train->source, &data->train->rows, data, &request,
                                &table, &err),
                 LKS_OK);
    CHECK_STATUS(at, lks_table_set_order(table, &request, order->windows, order->starts, &err),
                 LKS_OK);
    if (streamed) {
      CHECK_STATUS(at, lks_stream_make(table, &table->stream, &err), LKS_OK);
      CHECK_STATUS(at, lks_stream_reserve(table->stream, &budget, &err), LKS_OK);
      CHECK_STATUS(at, lks_stream_start(table->stream, &err), LKS_OK);
      CHECK(at, lks_stream_memory(table->stream)->copied == several);
    } else {
      CHECK_STATUS(at, lks_table_reserve(table, &budget, &err), LKS_OK);
      CHECK_STATUS(at, lks_table_fill(table, &err), LKS_OK);
      CHECK(at, table->memory.copied == several);
      CHECK(at, lks_memory_held(at->world, &table->memory) ==
                    lks_table_bytes(table, 300) * at->world->local_size);
      (void)MPI_Barrier(at->world->comm);
    }
    run_epoch(at, data, table, BATCH, 2, 0, sequences[streamed]);
    check_each_once(at, sequences[streamed], 0, 300);
    lks_table_free(&table);
  }
  CHECK(at, memcmp(sequences[0], sequences[1], sizeof sequences[0]) == 0);
  lks_data_close(&data);
}

/* ---- scaling of targets */

static void targets_are_scaled_as_said(ranks *at) {
  const table_spec spec = {"targets.h5", 40, 0, 0, -1};
  double shift[] = {1, 2, 3};
  double factor[] = {0.5, 0.25, 2};
  const lks_scaling given = {INPUTS, shift, factor};
  lks_error err;
  lks_data *data = NULL;
  char path[512];
  make_table(at, &spec, path);
  lks_data_options options = options_of(path);
  lks_data_request request = request_of(&options);
  request.label_classes = 0;
  request.labels = false;
  /* An autoencoder's targets take the features' scaling. */
  options.train.targets = (lks_texts)FIXTURE_NAMES("x");
  options.scaling.features.kind = scaling_kind(LKS_SCALING_MINMAX);
  CHECK_STATUS(at, lks_data_open(at->world, &request, &data, &err), LKS_OK);
  CHECK(at, data != NULL && data->targets.columns == INPUTS && data->outputs == INPUTS);
  CHECK(at, data != NULL && data->targets.factor[1] == data->features.factor[1]);
  lks_data_close(&data);
  /* Named apart, they have their own. */
  options.scaling.targets = (lks_scaling_choice){scaling_kind(LKS_SCALING_DIVIDE), 4};
  CHECK_STATUS(at, lks_data_open(at->world, &request, &data, &err), LKS_OK);
  CHECK(at, data != NULL && data->targets.factor[0] == 0.25);
  lks_data_close(&data);
  /* Given scaling is used as it is. */
  request.feature_scaling = &given;
  request.target_scaling = &given;
  CHECK_STATUS(at, lks_data_open(at->world, &request, &data, &err), LKS_OK);
  CHECK(at, data != NULL && data->features.shift != shift && data->features.shift[2] == 3);
  CHECK(at, data != NULL && data->targets.factor[2] == 2);
  lks_data_close(&data);
  options.train.targets = (lks_texts){0};
  CHECK_STATUS(at, lks_data_open(at->world, &request, &data, &err), LKS_DATA);
  CHECK(at, data == NULL && mentions(&err, "3 target columns, but the data has 1"));
  request.target_scaling = NULL;
  /* Predicting reads no targets, but has the scaling that undoes predictions. */
  request.features_only = true;
  CHECK_STATUS(at, lks_data_open(at->world, &request, &data, &err), LKS_OK);
  CHECK(at, data != NULL && data->outputs == 0 && data->targets.columns == 1);
  CHECK(at, data != NULL && data->targets.factor[0] == 0.25);
  lks_feed feed;
  if (data != NULL) {
    CHECK_STATUS(at, lks_table_rows_at(data->train, 0, 40, &feed, &err), LKS_OK);
    CHECK(at, feed.targets == NULL && feed.features[2] == (float)((fixture_value(0, 2) - 3) * 2));
  }
  lks_data_close(&data);
}

/* ---- refusals, the same on all ranks */

static void refused(ranks *at, const lks_data_request *request, lks_status status,
                    const char *first, const char *second) {
  lks_error err;
  lks_data *data = NULL;
  CHECK_STATUS(at, lks_data_open(at->world, request, &data, &err), status);
  CHECK(at, data == NULL);
  CHECK(at, mentions(&err, first) && mentions(&err, second));
  CHECK(at, err.rank >= 0 && err.rank < at->world->size);
  lks_data_close(&data);
}

static void refusals_of_memory(ranks *at) {
  const table_spec spec = {"memory.h5", 5000, 8, 0, -1};
  char path[512];
  make_table(at, &spec, path);
  lks_data_options options = options_of(path);
  const lks_data_request request = request_of(&options);
  options.memory_per_node = 20000;
  options.order = LKS_ORDER_ROWS;
  refused(at, &request, LKS_CONFIG, "data.order", "data.memory_per_node");
  options.order = LKS_ORDER_WINDOWS;
  options.window = 2000;
  refused(at, &request, LKS_CONFIG, "data.window", "data.memory_per_node");
}

static void refusals_of_options(ranks *at) {
  const table_spec spec = {"options.h5", 60, 0, 0, -1};
  char path[512];
  make_table(at, &spec, path);
  lks_data_options options = options_of(path);
  lks_data_request request = request_of(&options);
  options.scaling.targets.kind = scaling_kind(LKS_SCALING_MINMAX);
  refused(at, &request, LKS_CONFIG, "data.scaling.targets", "labels");
  options.scaling.targets.kind = NULL;
  options.validation = (lks_table_options){.present = true, .fraction = 0.5, .file = path};
  refused(at, &request, LKS_CONFIG, "data.validation", "both a fraction");
  options.validation = (lks_table_options){.present = true, .file = path, .rows = LKS_ROWS_RANDOM};
  refused(at, &request, LKS_CONFIG, "data.validation.rows", "no fraction");
  options.validation = (lks_table_options){.present = true, .fraction = 0.999};
  refused(at, &request, LKS_CONFIG, "0.999 of 60 rows", "0 to train");
  options.validation = (lks_table_options){.present = true};
  refused(at, &request, LKS_CONFIG, "data.validation", "neither a fraction above 0 nor a table");
}

static void refusals_of_data(ranks *at) {
  const table_spec spec = {"data.h5", 600, 0, 0, -1};
  const table_spec bad = {"bad.h5", 600, 0, 0, 411};
  lks_data_options options;
  char path[512];
  char bad_path[512];
  make_table(at, &spec, path);
  make_table(at, &bad, bad_path);
  options = options_of(path);
  lks_data_request request = request_of(&options);
  options.test = (lks_table_options){.present = true, .synthetic = {true, 5, INPUTS + 1, 1, 0}};
  refused(at, &request, LKS_DATA, "(data.test) has 4 feature columns", "(data.train) has 3");
  options.test = (lks_table_options){.present = true, .synthetic = {true, 5, INPUTS, 2, 0}};
  refused(at, &request, LKS_DATA, "(data.test) has 2 target columns", "(data.train) has 1");
  options.test = (lks_table_options){0};
  options.train.targets = (lks_texts)FIXTURE_NAMES("x");
  refused(at, &request, LKS_DATA, "class labels are one column", "'x' has 3");
  options.train.targets = (lks_texts){0};
  options.train.file = bad_path;
  refused(at, &request, LKS_DATA, "bad.h5: dataset 'y', row 411", "label 5 is not");
  /* Numbers from 0 to 1, though not labels. */
  request.label_classes = 0;
  options.train.file = path;
  refused(at, &request, LKS_DATA, "data.h5: dataset 'y', row 1,", "range 0 to 1");
  /* An autoencoder's, which are in the file as they should be, and scaled are not. */
  options.train.targets = (lks_texts)FIXTURE_NAMES("x");
  options.train.features = (lks_texts)FIXTURE_NAMES("x");
  options.scaling.features = (lks_scaling_choice){scaling_kind(LKS_SCALING_DIVIDE), 1e-3};
  refused(at, &request, LKS_DATA, "dataset 'x', row 0,", "which it is once scaled, is not in the");
  options.train.targets = options.train.features = (lks_texts){0};
  request.labels = false;
  options.scaling.features = (lks_scaling_choice){scaling_kind(LKS_SCALING_DIVIDE), 1e-39};
  refused(at, &request, LKS_DATA, "dataset 'x', row 0, column 1", "too large for 32-bit floats");
  options.train.file = "/nonexistent/none.h5";
  refused(at, &request, LKS_DATA, "none.h5", "");
}

int main(void) {
  ranks at;
  if (ranks_open(&at) != 0) {
    return 1;
  }
  every_size(&at);
  same_as_alone(&at);
  on_demand_is_the_same(&at);
  copies_are_the_same(&at);
  targets_are_scaled_as_said(&at);
  refusals_of_memory(&at);
  refusals_of_options(&at);
  refusals_of_data(&at);
  return ranks_close(&at);
}
