/* Reading the rows of a set: positions in the set, physical rows of the source.
 *
 * A position is a row's number within the set (0 <= position < rows.count); its physical row is
 * where it lies in the source. Pieces end at chunk boundaries where they can, so that ranges cut
 * at chunks read each chunk once. */
#ifndef LKS_DATA_ROWS_H
#define LKS_DATA_ROWS_H

#include "data/data.h"

/* Physical row of a position. */
int64_t lks_rows_physical(const lks_rows *rows, int64_t position);

/* First position whose physical row is at least `physical`; rows->count when there is none. */
int64_t lks_rows_position(const lks_rows *rows, int64_t physical);

/* The first position at or after `position` at which a chunk begins, at most `end`. */
int64_t lks_rows_chunk_up(const lks_rows *rows, int64_t chunk_rows, int64_t position, int64_t end);

/* Where part number `part` of `parts` of positions [first, end) begins: equal shares, moved up to
 * chunk boundaries. part == parts gives end. */
int64_t lks_rows_cut(const lks_rows *rows, int64_t chunk_rows, int64_t first, int64_t end, int part,
                     int parts);

/* What a reader needs of its own: raw values of one piece. */
typedef struct lks_scratch {
  int64_t capacity; /* physical rows */
  lks_raw raw;      /* [capacity, ...] */
} lks_scratch;

typedef enum lks_wanted {
  LKS_NOT_READ,
  LKS_AS_DOUBLES,
  LKS_AS_FLOATS, /* where floats hold all values, else as doubles */
} lks_wanted;

/* About 8 MiB of doubles, or one chunk where a chunk is larger (up to 256 MiB). */
lks_status lks_scratch_open(const lks_source *source, lks_wanted features, lks_wanted targets,
                            lks_scratch *scratch, lks_error *err) LKS_MUST_USE;
void lks_scratch_close(lks_scratch *scratch);

/* Reads positions from `first` on, before `end`, as many as fit `capacity` physical rows, into the
 * first *got rows of `out`, which has room for as many as are asked for and, where the set is a
 * list, for the capacity. *got is at least 1 when first < end. */
lks_status lks_rows_read(lks_source *source, const lks_rows *rows, int64_t first, int64_t end,
                         int64_t capacity, const lks_raw *out, int64_t *got,
                         lks_error *err) LKS_MUST_USE;

#endif
