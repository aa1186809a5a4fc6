/* Where rows lie. The configuration and the data decide the order; memory decides only between
 * resident, streamed and on demand, and does so alike on every node. */
#include "data/place.h"

#include <stdio.h>

#include "data/table.h"

#define ROWS_ORDER_MOST_BYTES ((int64_t)4 << 30)

/* ---- order */

lks_status lks_windows_make(const lks_rows *rows, int64_t chunk_rows, int64_t least,
                            int64_t batch_size, lks_arena *arena, int64_t *windows,
                            const int64_t **starts, lks_error *err) {
  lks_status st = LKS_OK;
  const int64_t need = least > batch_size ? least : batch_size;
  int64_t count = 0;
  int64_t *made = lks_arena_alloc(arena, (size_t)(rows->count / need + 2) * sizeof *made);
  TRY_ALLOC(made);
  for (int64_t first = 0; first < rows->count;) {
    const int64_t left = rows->count - first;
    if (left < batch_size && count > 0) {
      break;
    }
    made[count++] = first;
    first =
        left <= need ? rows->count : lks_rows_chunk_up(rows, chunk_rows, first + need, rows->count);
  }
  made[count] = rows->count;
  *windows = count;
  *starts = made;
cleanup:
  return st;
}

static int order_of(const lks_data_options *options, const lks_table *train) {
  if (options->order != LKS_ORDER_AUTO) {
    return options->order;
  }
  /* Numbers of columns are far below 2^31: the product with the row count is taken in double. */
  const double bytes = train == NULL ? 0
                                     : (double)train->rows.count *
                                           (double)(train->inputs + train->outputs) * sizeof(float);
  return bytes > (double)ROWS_ORDER_MOST_BYTES ? LKS_ORDER_WINDOWS : LKS_ORDER_ROWS;
}

/* Rows of the chunks at which windows are cut. */
static int64_t chunk_rows_of(const lks_data_request *request, const lks_data *data) {
  const lks_kept_order *kept = &request->kept_order;
  return kept->chunk_rows > 0 && kept->fingerprint == data->fingerprint
             ? kept->chunk_rows
             : lks_source_describe(data->train->source)->chunk_rows;
}

static lks_status set_order(const lks_data_request *request, lks_data *data, lks_error *err) {
  lks_status st = LKS_OK;
  lks_table *train = data->train;
  int64_t windows = 0;
  const int64_t *starts = NULL;
  data->order = order_of(request->options, train);
  if (train != NULL) {
    data->chunk_rows = chunk_rows_of(request, data);
    if (data->order == LKS_ORDER_WINDOWS) {
      TRY(lks_windows_make(&train->rows, data->chunk_rows, request->options->window,
                           request->batch_size, &data->arena, &windows, &starts, err));
    }
    TRY(lks_table_set_order(train, request, windows, starts, err));
  }
cleanup:
  return st;
}

/* ---- residence */

typedef enum place { PLACE_NONE, PLACE_RESIDENT, PLACE_STREAMED, PLACE_ON_DEMAND } place;

typedef struct placing {
  lks_table *tables[3]; /* training, validation, test; NULL: absent */
  place places[3];
} placing;

/* "data.memory_per_node allows 1 GiB", and what /dev/shm has to do with it. */
static void say_allowed(const lks_budget *budget, const lks_data_options *options, int64_t bytes,
                        char *out, size_t size) {
  const char *half = options->memory_per_node > 0 ? "" : "=0, half of what is free,";
  char limit[32];
  char shared[32];
  (void)lks_format_bytes(limit, (double)budget->limit);
  if (bytes <= budget->shared) {
    (void)snprintf(out, size, "data.memory_per_node%s allows %s", half, limit);
  } else {
    (void)snprintf(out, size,
                   "data.memory_per_node%s allows %s (/dev/shm has only %s free, so each of %lld "
                   "ranks would need a copy)",
                   half, limit, lks_format_bytes(shared, (double)budget->shared),
                   (long long)budget->ranks);
  }
}

/* Not even windows fit. What makes them as large as they are is what to lower. */
static lks_status fail_windows(const lks_data_request *request, const lks_data *data,
                               const char *need, const char *allowed, lks_error *err) {
  const lks_order *order = &data->train->order;
  const int64_t window = request->options->window, batch = request->batch_size;
  const int64_t rows = lks_order_widest(order);
  const int64_t chunk = lks_source_describe(data->train->source)->chunk_rows;
  char made[128];
  if (order->windows == 1) {
    (void)snprintf(made, sizeof made, "one window of all %lld rows, which needs", (long long)rows);
  } else {
    (void)snprintf(made, sizeof made, "windows of up to %lld rows, of which two need",
                   (long long)rows);
  }
  const lks_status st = lks_fail(
      err, LKS_CONFIG, NULL,
      "data.window=%lld (with train.batch_size=%lld and chunks of %lld rows) makes %s %s, but %s",
      (long long)window, (long long)batch, (long long)data->chunk_rows, made, need, allowed);
  if (data->chunk_rows < (window > batch ? window : batch)) {
    lks_advise(err, "lower %s, or raise data.memory_per_node",
               window > batch ? "data.window" : "train.batch_size");
  } else if (data->chunk_rows == chunk) {
    lks_advise(err, "raise data.memory_per_node, or store the data in chunks of fewer rows "
                    "(h5repack -l)");
  } else { /* a resumed run goes on with its windows */
    lks_advise(err, "raise data.memory_per_node");
  }
  return st;
}

/* Bytes that the training table holds, however it lies, and how. */
static lks_status place_train(const lks_budget *budget, const lks_data_request *request,
                              const lks_data *data, place *where, int64_t *held, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_data_options *options = request->options;
  const lks_table *train = data->train;
  char need[32];
  char allowed[256];
  const bool streams = train->order.windows > 0;
  *held = streams ? lks_stream_bytes(train) : lks_table_bytes(train, train->rows.count);
  *where = streams ? PLACE_STREAMED : PLACE_RESIDENT;
  if (!lks_budget_fits(budget, *held)) {
    say_allowed(budget, options, *held, allowed, sizeof allowed);
    (void)lks_format_bytes(need, (double)*held);
    if (streams) {
      TRY(fail_windows(request, data, need, allowed, err));
    }
    FAIL(LKS_CONFIG, "set data.order=windows or raise data.memory_per_node",
         "data.order=%s needs all training rows in memory, %s, but %s",
         options->order == LKS_ORDER_AUTO ? "auto, which is rows below 4 GiB," : "rows", need,
         allowed);
  }
cleanup:
  return st;
}

/* The training table is the first to leave memory, for it is streamed; then those after it. */
static lks_status decide(const lks_budget *budget, const lks_data_request *request,
                         const lks_data *data, placing *all, lks_error *err) {
  lks_status st = LKS_OK;
  int64_t held = 0;
  for (int t = 0; t < 3; ++t) {
    const lks_table *table = all->tables[t];
    held += table != NULL ? lks_table_bytes(table, table->rows.count) : 0;
    all->places[t] = table != NULL ? PLACE_RESIDENT : PLACE_NONE;
  }
  if (lks_budget_fits(budget, held)) {
    return LKS_OK;
  }
  held = 0;
  if (all->tables[0] != NULL) {
    TRY(place_train(budget, request, data, &all->places[0], &held, err));
  }
  for (int t = 1; t < 3; ++t) {
    const lks_table *table = all->tables[t];
    const int64_t bytes = table != NULL ? lks_table_bytes(table, table->rows.count) : 0;
    if (lks_budget_fits(budget, held + bytes)) {
      held += bytes;
    } else {
      all->places[t] = PLACE_ON_DEMAND;
    }
  }
cleanup:
  return st;
}

static void account(const lks_world *world, const lks_memory *memory, lks_data *data) {
  char bytes[32];
  data->memory_bytes += lks_memory_held(world, memory);
  if (memory->copied) {
    (void)snprintf(data->note, sizeof data->note,
                   "/dev/shm has no room for %s of data: each of the node's %d ranks holds a copy",
                   lks_format_bytes(bytes, (double)memory->bytes), world->local_size);
  }
}

static lks_status make_resident(lks_world *world, const lks_budget *budget, lks_table *table,
                                lks_data *data, lks_error *err) {
  lks_status st = LKS_OK;
  TRY(lks_agree(world, lks_table_reserve(table, budget, err), err));
  account(world, &table->memory, data);
  /* Agreeing also is the barrier after which the other ranks' parts are there. */
  TRY(lks_agree(world, lks_table_fill(table, err), err));
cleanup:
  return st;
}

static lks_status make_streamed(lks_world *world, const lks_budget *budget, lks_table *table,
                                lks_data *data, lks_error *err) {
  lks_status st = LKS_OK;
  TRY(lks_agree(world, lks_stream_make(table, &table->stream, err), err));
  TRY(lks_agree(world, lks_stream_reserve(table->stream, budget, err), err));
  account(world, lks_stream_memory(table->stream), data);
  TRY(lks_agree(world, lks_stream_start(table->stream, err), err));
cleanup:
  return st;
}

lks_status lks_data_place(lks_world *world, const lks_data_request *request, lks_data *data,
                          lks_error *err) {
  lks_status st = LKS_OK;
  lks_budget budget;
  placing all = {.tables = {data->train, data->validation, data->test}};
  TRY(lks_agree(world, set_order(request, data, err), err));
  TRY(lks_budget_open(world, request->options->memory_per_node, &budget, err));
  TRY(lks_agree(world, decide(&budget, request, data, &all, err), err));
  for (int t = 0; t < 3; ++t) {
    if (all.places[t] == PLACE_RESIDENT) {
      TRY(make_resident(world, &budget, all.tables[t], data, err));
    } else if (all.places[t] == PLACE_STREAMED) {
      TRY(make_streamed(world, &budget, all.tables[t], data, err));
    }
  }
cleanup:
  return st;
}
