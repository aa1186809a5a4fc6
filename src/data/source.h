/* Inside of a source: what the kinds of source share. */
#ifndef LKS_DATA_SOURCE_H
#define LKS_DATA_SOURCE_H

#include <stdatomic.h>

#include "data/data.h"

typedef struct lks_source_ops {
  /* Rows are in range, count at least 1. Thread-safe. */
  lks_status (*read)(lks_source *source, int64_t first, int64_t count, const lks_raw *out,
                     lks_error *err);
  /* Writes "dataset 'x', row 3, column 2": row and column of the joined table, named as the user
   * knows them. */
  void (*place)(const lks_source *source, bool target, int64_t row, int64_t column, char *out,
                size_t size);
  void (*close)(lks_source *source); /* NULL: nothing to close */
} lks_source_ops;

struct lks_source {
  lks_source_info info;
  const lks_source_ops *ops;
  void *state;                   /* of its kind, in the arena */
  const char *signature;         /* types and shapes, as text: part of the fingerprint */
  atomic_int_fast64_t rows_read; /* by this process so far */
  lks_arena arena;
};

/* Each kind fills info, ops, state and signature; the caller closes the source on failure. */
lks_status lks_source_open_h5(const lks_table_options *options, const char *key, bool need_targets,
                              lks_source *source, lks_error *err) LKS_MUST_USE;
lks_status lks_source_open_synthetic(const lks_synthetic_options *options, const char *key,
                                     uint64_t seed, lks_source *source,
                                     lks_error *err) LKS_MUST_USE;

/* Whether both take the same datasets of one file. */
bool lks_source_same(const lks_source *a, const lks_source *b);

/* "FILE: dataset 'x', row 3, column 2", for messages. */
void lks_source_place(const lks_source *source, bool target, int64_t row, int64_t column, char *out,
                      size_t size);

/* Rows that this process has read so far, over all calls. */
int64_t lks_source_rows_read(const lks_source *source);

#endif
