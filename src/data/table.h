/* Inside of a table: one set of rows, and where they lie.
 *
 * resident     all rows, scaled, in the node's memory
 * streamed     the training table only: two windows in the node's memory, a prefetch thread
 * on demand    read when asked for (validation and test tables that do not fit)
 * Every way gives the same floats for a position. */
#ifndef LKS_DATA_TABLE_H
#define LKS_DATA_TABLE_H

#include "data/data.h"
#include "data/memory.h"
#include "data/order.h"
#include "data/rows.h"
#include "data/stream.h"

struct lks_table {
  lks_world *world;
  lks_source *source; /* borrowed */
  lks_rows rows;
  int64_t inputs, outputs;            /* outputs 0: no targets are read */
  const lks_scaling *feature_scaling; /* borrowed */
  const lks_scaling *target_scaling;
  int64_t label_classes; /* > 0: targets are checked as labels */
  bool unit_targets;     /* scaled targets are checked to lie in [0, 1] */

  lks_memory memory; /* resident */
  float *features;   /* [rows, inputs] in memory; NULL: not resident */
  float *targets;    /* [rows, outputs] */

  lks_order order;    /* the training table's; order.rows is 0 in others */
  lks_stream *stream; /* NULL: not streamed */
  int64_t *ids;       /* [batch_size] positions of the rows taken last */
  int64_t *slots;     /* [batch_size] where they lie in the stream's buffer */
  int64_t batch_size;
  bool adopted;      /* the backend finds rows by itself: takes give places */
  lks_places places; /* of the rows taken last */

  lks_scratch scratch; /* on demand */
  float *held;         /* [held_capacity, inputs + outputs]: features, then targets */
  int64_t held_capacity, held_first, held_end; /* positions that held holds */
};

/* Makes a table that lies nowhere yet. Not collective. */
lks_status lks_table_make(lks_world *world, lks_source *source, const lks_rows *rows,
                          const lks_data *data, const lks_data_request *request, lks_table **table,
                          lks_error *err) LKS_MUST_USE;

/* Gives the training table its order and the arrays that a step needs. starts: see lks_order_open.
 * Not collective. */
lks_status lks_table_set_order(lks_table *table, const lks_data_request *request, int64_t windows,
                               const int64_t *starts, lks_error *err) LKS_MUST_USE;

/* Frees the table and what it holds. NULL is accepted. Collective over the node. */
void lks_table_free(lks_table **table);

/* Bytes that `rows` rows take, features and targets each padded to whole cache lines. */
int64_t lks_table_bytes(const lks_table *table, int64_t rows);
/* Lays `rows` rows out in that many bytes at base: *targets is NULL where there are none. */
void lks_table_lay_out(const lks_table *table, int64_t rows, void *base, float **features,
                       float **targets);

/* What lks_table_load needs of its own. */
lks_status lks_table_scratch(const lks_table *table, lks_scratch *scratch,
                             lks_error *err) LKS_MUST_USE;

/* Reads, checks and scales positions from `first` on, before `end`, as many as the scratch takes:
 * *got of them into features [*got, inputs] and targets [*got, outputs]. Not collective. Safe to
 * call from several threads with a scratch each. */
lks_status lks_table_load(lks_table *table, int64_t first, int64_t end, lks_scratch *scratch,
                          float *features, float *targets, int64_t *got,
                          lks_error *err) LKS_MUST_USE;

/* Reserves memory for all rows. Collective over the node. */
lks_status lks_table_reserve(lks_table *table, const lks_budget *budget,
                             lks_error *err) LKS_MUST_USE;
/* Fills this rank's part of it; the others' are there once all ranks have agreed. Local. */
lks_status lks_table_fill(lks_table *table, lks_error *err) LKS_MUST_USE;

#endif
