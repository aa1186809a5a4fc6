/* Positions of a set, and reading them piece by piece. */
#include "data/rows.h"

#include <stdlib.h>
#include <string.h>

/* Of a piece's rows as doubles: as floats they are still in the second cache when they are checked,
 * right after they were read. */
#define PIECE_BYTES ((int64_t)2 << 20)
#define MOST_CHUNK_BYTES ((int64_t)256 << 20)

int64_t lks_rows_physical(const lks_rows *rows, int64_t position) {
  return rows->list != NULL ? rows->list[position] : rows->first + position;
}

int64_t lks_rows_position(const lks_rows *rows, int64_t physical) {
  int64_t low = 0;
  int64_t high = rows->count;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (lks_rows_physical(rows, middle) < physical) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

int64_t lks_rows_chunk_up(const lks_rows *rows, int64_t chunk_rows, int64_t position, int64_t end) {
  if (position <= 0 || position >= end) {
    return position < end ? position : end;
  }
  /* The chunk of the row before: everything of it belongs before the boundary. */
  const int64_t chunk = lks_rows_physical(rows, position - 1) / chunk_rows;
  const int64_t up = lks_rows_position(rows, (chunk + 1) * chunk_rows);
  return up < end ? up : end;
}

int64_t lks_rows_cut(const lks_rows *rows, int64_t chunk_rows, int64_t first, int64_t end, int part,
                     int parts) {
  if (part == 0) {
    return first;
  }
  const int64_t count = end - first;
  const int64_t share = count / parts * part + count % parts * part / parts;
  return lks_rows_chunk_up(rows, chunk_rows, first + share, end);
}

/* One of the two, of `count` values; neither where they are not wanted. */
static lks_status open_values(lks_wanted wanted, bool fits_floats, int64_t count, double **doubles,
                              float **floats, lks_error *err) {
  lks_status st = LKS_OK;
  if (wanted == LKS_AS_FLOATS && fits_floats) {
    *floats = malloc((size_t)count * sizeof **floats);
    TRY_ALLOC(*floats);
  } else if (wanted != LKS_NOT_READ) {
    *doubles = malloc((size_t)count * sizeof **doubles);
    TRY_ALLOC(*doubles);
  }
cleanup:
  return st;
}

lks_status lks_scratch_open(const lks_source *source, lks_wanted features, lks_wanted targets,
                            lks_scratch *scratch, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_source_info *info = lks_source_describe(source);
  targets = info->outputs > 0 ? targets : LKS_NOT_READ;
  const int64_t columns =
      (features != LKS_NOT_READ ? info->inputs : 0) + (targets != LKS_NOT_READ ? info->outputs : 0);
  const int64_t row_bytes = columns * (int64_t)sizeof(double);
  /* Packed chunks beyond HDF5's cache are unpacked for every piece of them. */
  const bool beyond = info->chunk_rows * row_bytes > MOST_CHUNK_BYTES;
  const int64_t bytes = beyond ? 4 * PIECE_BYTES : PIECE_BYTES;
  int64_t capacity = row_bytes > 0 ? bytes / row_bytes : 1;
  if (info->chunk_rows <= capacity) {
    capacity -= capacity % info->chunk_rows;
  } else if (!beyond) {
    capacity = info->chunk_rows;
  }
  capacity = capacity < 1 ? 1 : capacity < info->rows ? capacity : info->rows;
  *scratch = (lks_scratch){.capacity = capacity};
  lks_raw *raw = &scratch->raw;
  TRY(open_values(features, info->float_features, capacity * info->inputs, &raw->features,
                  &raw->float_features, err));
  TRY(open_values(targets, info->float_targets, capacity * info->outputs, &raw->targets,
                  &raw->float_targets, err));
cleanup:
  if (st != LKS_OK) {
    lks_scratch_close(scratch);
  }
  return st;
}

void lks_scratch_close(lks_scratch *scratch) {
  free(scratch->raw.features);
  free(scratch->raw.targets);
  free(scratch->raw.float_features);
  free(scratch->raw.float_targets);
  *scratch = (lks_scratch){0};
}

/* Moves the rows of positions [first, first + count) to the front, over the gaps between them. */
static void close_gaps(const lks_rows *rows, int64_t first, int64_t count, void *values,
                       size_t row_bytes) {
  const int64_t base = lks_rows_physical(rows, first);
  char *bytes = values;
  for (int64_t k = 1; bytes != NULL && k < count; ++k) {
    const int64_t from = lks_rows_physical(rows, first + k) - base;
    if (from != k) {
      memmove(bytes + (size_t)k * row_bytes, bytes + (size_t)from * row_bytes, row_bytes);
    }
  }
}

lks_status lks_rows_read(lks_source *source, const lks_rows *rows, int64_t first, int64_t end,
                         int64_t capacity, const lks_raw *out, int64_t *got, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_source_info *info = lks_source_describe(source);
  *got = 0;
  if (first >= end) {
    return LKS_OK;
  }
  const int64_t from = lks_rows_physical(rows, first);
  int64_t to = from + capacity;
  const int64_t boundary = to - to % info->chunk_rows;
  to = boundary > from ? boundary : to;
  int64_t last = lks_rows_position(rows, to); /* positions [first, last) lie before `to` */
  last = last < end ? last : end;
  to = lks_rows_physical(rows, last - 1) + 1;
  TRY(lks_source_fetch(source, from, to - from, out, err));
  *got = last - first;
  if (rows->list != NULL) {
    const size_t inputs = (size_t)info->inputs, outputs = (size_t)info->outputs;
    close_gaps(rows, first, *got, out->features, inputs * sizeof(double));
    close_gaps(rows, first, *got, out->float_features, inputs * sizeof(float));
    close_gaps(rows, first, *got, out->targets, outputs * sizeof(double));
    close_gaps(rows, first, *got, out->float_targets, outputs * sizeof(float));
  }
cleanup:
  return st;
}
