/* Tables: making them, reading pieces of them, and feeding steps. */
#include "data/table.h"

#include <stdlib.h>
#include <string.h>

#include "data/check.h"

#define READ_AHEAD_BYTES ((int64_t)8 << 20)

/* ---- making and freeing */

lks_status lks_table_make(lks_world *world, lks_source *source, const lks_rows *rows,
                          const lks_data *data, const lks_data_request *request, lks_table **table,
                          lks_error *err) {
  lks_status st = LKS_OK;
  const lks_source_info *info = lks_source_describe(source);
  lks_table *made = calloc(1, sizeof *made);
  TRY_ALLOC(made);
  made->world = world;
  made->source = source;
  made->rows = *rows;
  made->inputs = info->inputs;
  made->outputs = request->features_only ? 0 : info->outputs;
  made->feature_scaling = &data->features;
  made->target_scaling = &data->targets;
  made->label_classes = request->label_classes;
  made->unit_targets = request->labels && request->label_classes == 0;
  *table = made;
cleanup:
  return st;
}

lks_status lks_table_set_order(lks_table *table, const lks_data_request *request, int64_t windows,
                               const int64_t *starts, lks_error *err) {
  lks_status st = LKS_OK;
  const size_t bytes = (size_t)request->batch_size * sizeof *table->ids;
  TRY(lks_order_open(table->rows.count, request->shuffle, request->seed, windows, starts,
                     &table->order, err));
  table->ids = malloc(bytes);
  TRY_ALLOC(table->ids);
  table->slots = malloc(bytes);
  TRY_ALLOC(table->slots);
  table->batch_size = request->batch_size;
cleanup:
  return st;
}

void lks_table_free(lks_table **table) {
  lks_table *t = *table;
  if (t == NULL) {
    return;
  }
  lks_stream_close(&t->stream); /* first: its thread uses the rest */
  lks_memory_close(&t->memory);
  lks_order_close(&t->order);
  lks_scratch_close(&t->scratch);
  free(t->ids);
  free(t->slots);
  free(t->held);
  free(t);
  *table = NULL;
}

static int64_t padded(int64_t rows, int64_t columns) {
  return (rows * columns * (int64_t)sizeof(float) + 63) / 64 * 64;
}

int64_t lks_table_bytes(const lks_table *table, int64_t rows) {
  return padded(rows, table->inputs) + padded(rows, table->outputs);
}

void lks_table_lay_out(const lks_table *table, int64_t rows, void *base, float **features,
                       float **targets) {
  *features = base;
  *targets =
      table->outputs > 0 ? (float *)(void *)((char *)base + padded(rows, table->inputs)) : NULL;
}

int64_t lks_table_rows(const lks_table *table) {
  return table->rows.count;
}

const lks_source_info *lks_table_source(const lks_table *table) {
  return lks_source_describe(table->source);
}

bool lks_table_streamed(const lks_table *table) {
  return table->features == NULL;
}

/* ---- reading */

lks_status lks_table_scratch(const lks_table *table, lks_scratch *scratch, lks_error *err) {
  const lks_wanted targets = table->outputs == 0        ? LKS_NOT_READ
                             : table->label_classes > 0 ? LKS_AS_DOUBLES /* checked as such */
                                                        : LKS_AS_FLOATS;
  return lks_scratch_open(table->source, LKS_AS_FLOATS, targets, scratch, err);
}

/* Raw values of one kind, scaled to where they are used, and checked once more unless they are
 * what the source checked already. */
static lks_status take_values(const lks_table *table, int64_t first, int64_t count, bool targets,
                              const double *doubles, const float *floats, float *out,
                              lks_error *err) {
  lks_status st = LKS_OK;
  const lks_scaling *scaling = targets ? table->target_scaling : table->feature_scaling;
  const int64_t columns = targets ? table->outputs : table->inputs;
  const bool unit = targets && table->unit_targets;
  if (floats != NULL) {
    lks_scaling_apply_floats(scaling, floats, out, count, columns);
  } else {
    lks_scaling_apply(scaling, doubles, out, count, columns);
  }
  const lks_range range = !unit                   ? LKS_RANGE_ANY
                          : scaling->columns == 0 ? LKS_RANGE_UNIT
                                                  : LKS_RANGE_UNIT_SCALED;
  if (floats == NULL || scaling->columns != 0 || unit) {
    TRY(lks_check_floats(table->source, &table->rows, first, count, targets, range, out, err));
  }
cleanup:
  return st;
}

lks_status lks_table_load(lks_table *table, int64_t first, int64_t end, lks_scratch *scratch,
                          float *features, float *targets, int64_t *got, lks_error *err) {
  lks_status st = LKS_OK;
  lks_raw raw = scratch->raw;
  if (table->rows.list == NULL) { /* no gaps: floats are read where they are used */
    raw.float_features = raw.float_features != NULL ? features : NULL;
    raw.float_targets = raw.float_targets != NULL ? targets : NULL;
  }
  TRY(lks_rows_read(table->source, &table->rows, first, end, scratch->capacity, &raw, got, err));
  TRY(take_values(table, first, *got, false, raw.features, raw.float_features, features, err));
  if (table->label_classes > 0 && table->outputs > 0) {
    TRY(lks_check_labels(table->source, &table->rows, first, *got, raw.targets,
                         table->label_classes, err));
  }
  if (table->outputs > 0) {
    TRY(take_values(table, first, *got, true, raw.targets, raw.float_targets, targets, err));
  }
cleanup:
  return st;
}

lks_status lks_table_reserve(lks_table *table, const lks_budget *budget, lks_error *err) {
  lks_status st = LKS_OK;
  const int64_t rows = table->rows.count;
  TRY(lks_memory_open(table->world, budget, (size_t)lks_table_bytes(table, rows), &table->memory,
                      err));
  lks_table_lay_out(table, rows, table->memory.base, &table->features, &table->targets);
cleanup:
  return st;
}

lks_status lks_table_fill(lks_table *table, lks_error *err) {
  lks_status st = LKS_OK;
  lks_scratch scratch = {0};
  const lks_memory *memory = &table->memory;
  const int64_t chunk_rows = lks_source_describe(table->source)->chunk_rows;
  const int64_t rows = table->rows.count;
  int64_t first = lks_rows_cut(&table->rows, chunk_rows, 0, rows, memory->part, memory->parts);
  const int64_t end =
      lks_rows_cut(&table->rows, chunk_rows, 0, rows, memory->part + 1, memory->parts);
  int64_t got = 0;
  TRY(lks_table_scratch(table, &scratch, err));
  for (; first < end; first += got) {
    TRY(lks_table_load(table, first, end, &scratch, table->features + first * table->inputs,
                       table->outputs > 0 ? table->targets + first * table->outputs : NULL, &got,
                       err));
    lks_world_beat(table->world);
  }
cleanup:
  lks_scratch_close(&scratch);
  return st;
}

/* ---- feeding a step */

lks_status lks_table_begin(lks_table *table, int64_t epoch, int64_t position, lks_error *err) {
  lks_status st = LKS_OK;
  if (table->ids == NULL || position < 0 || position > table->rows.count) {
    FAIL(LKS_INTERNAL, NULL, "an epoch cannot begin at row %lld of %lld", (long long)position,
         (long long)table->rows.count);
  }
  if (table->stream == NULL) {
    lks_order_begin(&table->order, epoch);
  } else {
    TRY(lks_stream_begin(table->stream, epoch, position, err));
  }
cleanup:
  return st;
}

/* Windows of the epoch that lie wholly before a position are done with. */
static void release_before(lks_table *table, int64_t position) {
  const lks_order *order = &table->order;
  const int64_t k = position < order->rows ? lks_order_window(order, position) : order->windows;
  lks_stream_release(table->stream, k);
}

/* Waits for the windows of places [first, first + count), whose positions are in table->ids, and
 * finds where each lies. */
static lks_status find_slots(lks_table *table, int64_t first, int64_t count, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_order *order = &table->order;
  int64_t j = 0;
  for (int64_t k = lks_order_window(order, first); j < count; ++k) {
    TRY(lks_stream_wait(table->stream, k, err));
    const int64_t shift = lks_stream_shift(table->stream, k);
    for (; j < count && first + j < order->offsets[k + 1]; ++j) {
      table->slots[j] = table->ids[j] + shift;
    }
  }
cleanup:
  return st;
}

bool lks_table_resident(const lks_table *table, lks_resident *resident) {
  *resident = (lks_resident){.features = table->features,
                             .targets = table->targets,
                             .rows = table->rows.count,
                             .inputs = table->inputs,
                             .outputs = table->outputs};
  return table->features != NULL && table->ids != NULL && table->order.windows == 0;
}

void lks_table_set_adopted(lks_table *table) {
  table->adopted = true;
}

lks_status lks_table_take(lks_table *table, int64_t batch_first, int64_t batch_count, int64_t first,
                          int64_t count, lks_feed *feed, lks_error *err) {
  lks_status st = LKS_OK;
  const int64_t batch_end = batch_first + batch_count;
  const bool outside = count > 0 && (first < batch_first || first + count > batch_end);
  if (table->order.epoch < 0 || count < 0 || batch_first < 0 || batch_count > table->batch_size ||
      batch_end > table->rows.count || outside) {
    FAIL(LKS_INTERNAL, NULL, "rows %lld to %lld taken of the batch %lld to %lld, of %lld rows",
         (long long)first, (long long)(first + count), (long long)batch_first, (long long)batch_end,
         (long long)table->rows.count);
  }
  if (table->stream != NULL) {
    release_before(table, batch_first);
  }
  if (table->adopted) {
    table->places = (lks_places){
        .permutation = table->order.all, .shuffle = table->order.shuffle, .first = first};
    *feed = (lks_feed){.first = first - batch_first, .count = count, .places = &table->places};
    goto cleanup;
  }
  *feed = (lks_feed){.features = table->features,
                     .targets = table->targets,
                     .index = table->ids,
                     .row_ids = table->ids,
                     .first = first - batch_first,
                     .count = count};
  if (table->stream != NULL) {
    feed->features = lks_stream_features(table->stream);
    feed->targets = lks_stream_targets(table->stream);
    feed->index = table->slots;
  }
  if (count > 0) {
    lks_order_map(&table->order, first, count, table->ids);
  }
  if (count > 0 && table->stream != NULL) {
    TRY(find_slots(table, first, count, err));
  }
  if (table->stream != NULL && batch_end > table->order.offsets[table->order.windows - 1]) {
    lks_stream_finish(table->stream);
  }
cleanup:
  return st;
}

/* ---- rows in the table's own order */

/* Makes table->held hold positions [first, end), and the rest of the last chunk where that is
 * little, for blocks often follow one another. */
static lks_status hold(lks_table *table, int64_t first, int64_t end, lks_error *err) {
  lks_status st = LKS_OK;
  const int64_t columns = table->inputs + table->outputs;
  const int64_t chunk_rows = lks_source_describe(table->source)->chunk_rows;
  const int64_t ahead = lks_rows_chunk_up(&table->rows, chunk_rows, end, table->rows.count);
  if ((ahead - first) * columns * (int64_t)sizeof(float) <= READ_AHEAD_BYTES) {
    end = ahead;
  }
  if (table->scratch.capacity == 0) {
    TRY(lks_table_scratch(table, &table->scratch, err));
  }
  table->held_first = table->held_end = 0;
  if (end - first > table->held_capacity) {
    free(table->held);
    table->held_capacity = 0;
    table->held = malloc((size_t)((end - first) * columns) * sizeof *table->held);
    TRY_ALLOC(table->held);
    table->held_capacity = end - first;
  }
  float *targets = table->held + table->held_capacity * table->inputs;
  int64_t got = 0;
  for (int64_t at = first; at < end; at += got) {
    TRY(lks_table_load(table, at, end, &table->scratch, table->held + (at - first) * table->inputs,
                       targets + (at - first) * table->outputs, &got, err));
    lks_world_beat(table->world);
  }
  table->held_first = first;
  table->held_end = end;
cleanup:
  return st;
}

lks_status lks_table_rows_at(lks_table *table, int64_t first, int64_t count, lks_feed *feed,
                             lks_error *err) {
  lks_status st = LKS_OK;
  if (first < 0 || count < 0 || first > table->rows.count - count) {
    FAIL(LKS_INTERNAL, NULL, "rows %lld to %lld asked of a table of %lld", (long long)first,
         (long long)(first + count), (long long)table->rows.count);
  }
  *feed = (lks_feed){.features = table->features, .targets = table->targets, .count = count};
  int64_t skip = first;
  if (table->features == NULL && count > 0) {
    if (first < table->held_first || first + count > table->held_end) {
      TRY(hold(table, first, first + count, err));
    }
    feed->features = table->held;
    feed->targets = table->outputs > 0 ? table->held + table->held_capacity * table->inputs : NULL;
    skip = first - table->held_first;
  }
  if (feed->features != NULL) {
    feed->features += skip * table->inputs;
  }
  if (feed->targets != NULL) {
    feed->targets += skip * table->outputs;
  }
cleanup:
  return st;
}
