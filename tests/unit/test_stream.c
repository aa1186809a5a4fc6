/* Streaming under mpirun, at any number of ranks: the same rows and values as when resident, each
 * chunk read once an epoch, epochs begun anywhere and left anywhere, and a read that fails. */
#include "ranks_fixture.h"

#include <sys/stat.h>
#include <time.h>
#include <xxhash.h>

#define ROWS 2000
#define BATCH 32
#define WINDOW 150
#define BUDGET 20000 /* less than the 2000 rows of 16 bytes; more than two windows of them */

static lks_data_options options_of(const char *path, int64_t memory) {
  return (lks_data_options){.train = {.file = path},
                            .scaling = {.features = {scaling_kind(LKS_SCALING_MINMAX), 0}},
                            .order = LKS_ORDER_WINDOWS,
                            .window = WINDOW,
                            .memory_per_node = memory};
}

static lks_data_request request_of(const lks_data_options *options) {
  return (lks_data_request){.options = options,
                            .need_train = true,
                            .need_validation = true,
                            .seed = 8,
                            .shuffle = true,
                            .batch_size = BATCH,
                            .label_classes = CLASSES,
                            .labels = true};
}

static lks_data *open_data(ranks *at, const lks_data_request *request, bool streamed) {
  lks_error err;
  lks_data *data = NULL;
  CHECK_STATUS(at, lks_data_open(at->world, request, &data, &err), LKS_OK);
  CHECK(at, data == NULL || lks_table_streamed(data->train) == streamed);
  CHECK(at, data == NULL || !streamed || data->memory_bytes <= BUDGET);
  return data;
}

/* A table of its own file, streamed. */
static lks_data *open_streamed(ranks *at, const table_spec *spec) {
  char path[512];
  make_table(at, spec, path);
  const lks_data_options options = options_of(path, BUDGET);
  const lks_data_request request = request_of(&options);
  return open_data(at, &request, true);
}

/* ---- resident and streamed, over layouts and splits */

/* Rows of the first window of an epoch. */
static int64_t first_window(ranks *at, const lks_order *like, int64_t epoch) {
  lks_error err;
  lks_order order;
  CHECK_STATUS(at,
               lks_order_open(like->rows, like->shuffle, like->seed, like->windows, like->starts,
                              &order, &err),
               LKS_OK);
  lks_order_begin(&order, epoch);
  const int64_t rows = order.offsets[1];
  lks_order_close(&order);
  return rows;
}

/* Waits until the threads have read so many rows; they may not read more. Collective. */
static void check_read(ranks *at, const lks_table *table, int64_t expected) {
  const struct timespec millisecond = {0, 1000000};
  int64_t read = rows_read(table);
  for (int looks = 0; read < expected && looks < 30000; ++looks) {
    (void)nanosleep(&millisecond, NULL);
    read = rows_read(table);
  }
  CHECK(at, read == expected);
}

static void same_when_streamed(ranks *at, const table_spec *spec, const lks_table_options *split) {
  static int64_t resident_order[3][ROWS];
  static int64_t order[ROWS];
  lks_error err;
  char path[512];
  make_table(at, spec, path);
  lks_data_options options = options_of(path, 0);
  options.validation = *split;
  const lks_data_request request = request_of(&options);
  lks_data *data = open_data(at, &request, false);
  for (int64_t epoch = 0; data != NULL && epoch < 3; ++epoch) {
    run_epoch(at, data, data->train, BATCH, epoch, 0, resident_order[epoch]);
  }
  lks_data_close(&data);
  options.memory_per_node = BUDGET;
  data = open_data(at, &request, true);
  if (data == NULL) {
    return;
  }
  const int64_t rows = lks_table_rows(data->train);
  const size_t bytes = (size_t)rows * sizeof *order;
  /* Epochs in any order, each the same as when resident. Each reads the table once, but for the
   * first window of the next, which the one that follows takes over and another drops. (Whole
   * chunks are read, so the rows of a list are less than what is read.) */
  int64_t expected = rows_read(data->train);
  int64_t ahead = 0;
  for (int64_t k = 0; k < 4; ++k) {
    const int64_t epoch = k < 3 ? k : 0;
    run_epoch(at, data, data->train, BATCH, epoch, 0, order);
    check_each_once(at, order, 0, rows);
    CHECK(at, memcmp(order, resident_order[epoch], bytes) == 0);
    expected += k < 3 ? rows - ahead : rows;
    ahead = first_window(at, &data->train->order, epoch + 1);
    expected += ahead;
    if (data->train->rows.list == NULL) {
      check_read(at, data->train, expected);
    }
  }
  /* Begun in the middle, as a resume does. */
  for (int64_t start = BATCH; start <= rows; start += 7 * BATCH) {
    run_epoch(at, data, data->train, BATCH, 1, start, order);
    CHECK(at, memcmp(order + start, resident_order[1] + start, bytes - (size_t)start * 8) == 0);
  }
  run_epoch(at, data, data->train, BATCH, 2, rows, order); /* nothing left of it */
  /* Left in the middle, by some ranks later than by others: these may be told so, but don't hang.
   */
  lks_feed feed;
  for (int64_t batches = 0; batches < 12; batches += 3) {
    CHECK_STATUS(at, lks_table_begin(data->train, 7, 0, &err), LKS_OK);
    lks_status st = LKS_OK;
    for (int64_t b = 0; st == LKS_OK && b < batches + at->world->rank % 2 * 8; ++b) {
      st = lks_table_take(data->train, b * BATCH, BATCH, b * BATCH, BATCH, &feed, &err);
      CHECK(at, st == LKS_OK || (b >= batches && mentions(&err, "left the epoch")));
    }
  }
  run_epoch(at, data, data->train, BATCH, 2, 0, order);
  CHECK(at, memcmp(order, resident_order[2], bytes) == 0);
  /* Rows in the table's own order, in the midst of an epoch. */
  CHECK_STATUS(at, lks_table_begin(data->train, 3, 0, &err), LKS_OK);
  CHECK_STATUS(at, lks_table_rows_at(data->train, 40, 100, &feed, &err), LKS_OK);
  check_feed(at, data, data->train, &feed, 40);
  lks_data_close(&data); /* while the threads are reading */
}

/* Every rank may leave as soon as it has its batch, while a slower one still waits for the same:
 * that one has its batch too, however the two meet. */
static void left_at_the_same_batch(ranks *at) {
  const table_spec spec = {"left.h5", ROWS, 7, 0, -1};
  lks_error err;
  lks_feed feed;
  lks_data *data = open_streamed(at, &spec);
  for (int64_t k = 0; data != NULL && k < 300; ++k) {
    CHECK_STATUS(at, lks_table_begin(data->train, k, 0, &err), LKS_OK);
    CHECK_STATUS(at, lks_table_take(data->train, 0, BATCH, 0, BATCH, &feed, &err), LKS_OK);
  }
  lks_data_close(&data);
}

/* The rows of an epoch, whatever the number of ranks. */
static void order_is_frozen(ranks *at) {
  static int64_t order[ROWS];
  const table_spec spec = {"frozen.h5", ROWS, 7, 0, -1};
  lks_data *data = open_streamed(at, &spec);
  if (data != NULL) {
    run_epoch(at, data, data->train, BATCH, 5, 0, order);
    CHECK(at, XXH64(order, sizeof order, 0) == UINT64_C(0x84fe984425b6ef60));
  }
  lks_data_close(&data);
}

static void misuse_is_refused(ranks *at) {
  const table_spec spec = {"misuse.h5", ROWS, 7, 0, -1};
  lks_error err;
  lks_feed feed;
  lks_data *data = open_streamed(at, &spec);
  if (data == NULL) {
    return;
  }
  lks_table *table = data->train;
  CHECK_STATUS(at, lks_table_take(table, 0, BATCH, 0, 1, &feed, &err), LKS_INTERNAL);
  CHECK_STATUS(at, lks_table_begin(table, 0, ROWS + 1, &err), LKS_INTERNAL);
  CHECK_STATUS(at, lks_table_begin(table, 0, 0, &err), LKS_OK);
  CHECK_STATUS(at, lks_table_take(table, 0, BATCH + 1, 0, 1, &feed, &err), LKS_INTERNAL);
  CHECK_STATUS(at, lks_table_take(table, ROWS - 1, 2, ROWS - 1, 1, &feed, &err), LKS_INTERNAL);
  CHECK_STATUS(at, lks_table_take(table, BATCH, BATCH, 0, 1, &feed, &err), LKS_INTERNAL);
  CHECK_STATUS(at, lks_table_take(table, 0, BATCH, 0, 0, &feed, &err), LKS_OK);
  CHECK(at, feed.count == 0);
  lks_data_close(&data);
}

/* ---- a read that fails */

/* Takes batches until one fails on some rank; what that rank says. *at_batch: which batch. */
static lks_status run_until_failure(ranks *at, lks_table *table, int64_t *batch, lks_error *err) {
  lks_status st = LKS_OK;
  lks_feed feed;
  st = lks_table_begin(table, 0, 0, err);
  st = lks_agree(at->world, st, err);
  for (*batch = 0; st == LKS_OK && *batch < ROWS; *batch += BATCH) {
    const int64_t count = ROWS - *batch < BATCH ? ROWS - *batch : BATCH;
    const int64_t first = *batch + count * at->world->rank / at->world->size;
    const int64_t end = *batch + count * (at->world->rank + 1) / at->world->size;
    lks_error_clear(err);
    st = lks_table_take(table, *batch, count, first, end - first, &feed, err);
    st = lks_agree(at->world, st, err);
  }
  return st;
}

/* The label is out of range: found only when its window is read, by one of the readers. */
static void a_failed_read_reaches_all(ranks *at) {
  const table_spec spec = {"fails.h5", ROWS, 16, 4, 1234};
  lks_error err;
  lks_data *data = open_streamed(at, &spec);
  if (data == NULL) {
    return;
  }
  for (int again = 0; again < 2; ++again) {
    int64_t batch = 0;
    CHECK(at, run_until_failure(at, data->train, &batch, &err) == LKS_DATA);
    CHECK(at, mentions(&err, "fails.h5: dataset 'y', row 1234, column 0: label 5"));
    CHECK(at, err.rank >= 0 && err.rank < at->world->size && err.host[0] != '\0');
    /* The window before it may have been used, nothing of it. */
    const lks_order *order = &data->train->order;
    int64_t bad_window = 0;
    while (order->starts[bad_window + 1] <= 1234) {
      ++bad_window;
    }
    for (int64_t k = 0; k < order->windows; ++k) {
      CHECK(at, order->sequence[k] != bad_window || batch <= order->offsets[k + 1]);
    }
  }
  lks_data_close(&data);
}

static void take_batch(ranks *at, lks_table *table, int64_t first, lks_status expected) {
  lks_error err;
  lks_feed feed;
  const int64_t count = ROWS - first < BATCH ? ROWS - first : BATCH;
  CHECK_STATUS(at, lks_table_take(table, first, count, first, count, &feed, &err), expected);
  CHECK(at, expected == LKS_OK || mentions(&err, "became shorter"));
}

/* Of an epoch that may never come: the one before it ends undisturbed. */
static void a_failed_read_ahead_waits(ranks *at) {
  const table_spec spec = {"ahead.h5", ROWS, 0, 0, -1};
  lks_error err;
  struct stat about;
  lks_data *data = open_streamed(at, &spec);
  if (data == NULL) {
    return;
  }
  lks_table *table = data->train;
  const lks_order *order = &table->order;
  const char *path = lks_table_source(table)->name;
  const int64_t before = rows_read(table);
  int64_t first = 0;
  CHECK_STATUS(at, lks_table_begin(table, 0, 0, &err), LKS_OK);
  for (; first < order->offsets[order->windows - 2] + BATCH; first += BATCH) {
    take_batch(at, table, first, LKS_OK);
  }
  check_read(at, table, before + ROWS); /* all of this epoch, nothing of the next */
  if (at->world->rank == 0) {
    CHECK(at, stat(path, &about) == 0 && truncate(path, about.st_size - 1) == 0);
  }
  (void)MPI_Barrier(at->world->comm);
  for (; first < ROWS; first += BATCH) {
    take_batch(at, table, first, LKS_OK);
  }
  CHECK_STATUS(at, lks_table_begin(table, 1, 0, &err), LKS_OK);
  take_batch(at, table, 0, LKS_DATA);
  lks_data_close(&data);
}

int main(void) {
  static const table_spec specs[] = {{"plain.h5", ROWS, 0, 0, -1},
                                     {"chunks.h5", ROWS, 7, 0, -1},
                                     {"zip.h5", ROWS, 64, 4, -1},
                                     {"wide.h5", ROWS, 333, 1, -1}};
  static const lks_table_options splits[] = {
      {.present = false},
      {.present = true, .fraction = 0.1, .rows = LKS_ROWS_LAST},
      {.present = true, .fraction = 0.1, .rows = LKS_ROWS_RANDOM},
      {.present = true, .fraction = 0.2, .rows = LKS_ROWS_STRATIFIED}};
  ranks at;
  if (ranks_open(&at) != 0) {
    return 1;
  }
  for (int i = 0; i < 4; ++i) {
    same_when_streamed(&at, &specs[i], &splits[i]);
  }
  left_at_the_same_batch(&at);
  order_is_frozen(&at);
  misuse_is_refused(&at);
  a_failed_read_reaches_all(&at);
  a_failed_read_ahead_waits(&at);
  return ranks_close(&at);
}
