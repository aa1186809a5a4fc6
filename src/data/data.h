/* The data of a run: sources, split, scaling, order and the loader.
 *
 *   source   rows of doubles from HDF5 or made synthetically; knows nothing of ranks
 *   rows     which rows of a source a set has: a range, or a sorted list
 *   order    row i of epoch e, arithmetic on (seed, epoch, configuration)
 *   loader   where scaled rows lie (resident once a node, or streamed), and which a rank takes
 *
 * Rows are float32, row-major, scaled. `features` is [rows, inputs], `targets` [rows, outputs];
 * class labels are one target column of whole numbers. */
#ifndef LKS_DATA_DATA_H
#define LKS_DATA_DATA_H

#include <stdbool.h>
#include <stdint.h>

#include "data/feed.h"
#include "data/options.h"
#include "model/loss.h"
#include "world/world.h"

/* ---- source */

typedef struct lks_source lks_source;

typedef struct lks_source_info {
  int64_t rows;
  int64_t inputs;            /* feature columns */
  int64_t outputs;           /* target columns; 0: none asked for */
  int64_t chunk_rows;        /* rows read together cheaply, at least 1 */
  bool targets_are_features; /* the same datasets: an autoencoder */
  bool float_features;       /* 32-bit floats hold all their values: may be read as such */
  bool float_targets;
  const char *name; /* what messages call it: the file's path as given, or "synthetic rows" */
  lks_texts features, targets; /* datasets by name; none of what is made */
  const char *feature_names;   /* "x_train", "a, b": for the summary */
  const char *target_names;
} lks_source_info;

/* Opens a table. need_targets false: targets are opened only if they are named and there.
 * key: the option's name ("data.train"), for messages, and so that synthetic tables of different
 * keys differ; "--in", where the command line names file and features. seed: of synthetic rows.
 * Errors: LKS_DATA with file, dataset, cause; LKS_CONFIG where neither or both of file and
 * synthetic are set. Not collective. */
lks_status lks_source_open(const lks_table_options *options, const char *key, bool need_targets,
                           uint64_t seed, lks_source **source, lks_error *err) LKS_MUST_USE;
void lks_source_close(lks_source **source);
const lks_source_info *lks_source_describe(const lks_source *source);

/* Where rows are read to: features [count, inputs], targets [count, outputs]. Of each kind one at
 * most is not NULL; floats only where the source's info allows them. */
typedef struct lks_raw {
  double *features, *targets;
  float *float_features, *float_targets;
} lks_raw;

/* Reads rows [first, first + count). NaN or infinity: LKS_DATA naming file, dataset, row and
 * column. Thread-safe. Not collective. */
lks_status lks_source_fetch(lks_source *source, int64_t first, int64_t count, const lks_raw *out,
                            lks_error *err) LKS_MUST_USE;
/* The same as doubles, each unless NULL. */
lks_status lks_source_read(lks_source *source, int64_t first, int64_t count, double *features,
                           double *targets, lks_error *err) LKS_MUST_USE;

/* XXH64 over shapes and up to 256 MB of content, spread evenly (all of a smaller set): the same
 * on any number of ranks. Collective. */
lks_status lks_source_fingerprint(lks_source *source, lks_world *world, uint64_t *hash,
                                  lks_error *err) LKS_MUST_USE;

/* ---- rows of a set */

typedef struct lks_rows {
  int64_t count;
  int64_t first;       /* when list is NULL: rows [first, first + count) */
  const int64_t *list; /* [count], ascending; owned by the data's arena */
} lks_rows;

/* ---- the whole of it */

typedef struct lks_table lks_table; /* one set: a source, its rows, and where they lie */

/* What a run that goes on keeps of the order that it began with. Windows are cut at whole chunks,
 * and a copy of the data may lie in others. Of other data nothing is kept. */
typedef struct lks_kept_order {
  int64_t chunk_rows;   /* lks_data's, then; 0: nothing is kept */
  uint64_t fingerprint; /* lks_data's, then */
} lks_kept_order;

typedef struct lks_data_request {
  const lks_data_options *options;
  bool need_train; /* false: evaluate and predict open only what they use */
  bool need_validation;
  bool need_test;
  uint64_t seed; /* train.seed */
  bool shuffle;
  int64_t batch_size;       /* global batch, rows */
  const lks_loss_row *loss; /* takes that many target columns, before any is read; NULL: any */
  int64_t model_outputs;    /* columns of what the model gives; below 1: of the inputs */
  int64_t label_classes;    /* > 0: targets are labels in [0, label_classes), checked when read */
  bool labels;              /* targets are class labels or lie in [0, 1]: scaling them is refused;
                               without label_classes, values outside [0, 1] are refused when read */
  bool features_only;       /* predict: no targets are asked for or read, outputs is 0 */
  const lks_scaling *feature_scaling; /* given (evaluate): used instead of fitting; else NULL */
  const lks_scaling *target_scaling;
  lks_kept_order kept_order;
} lks_data_request;

typedef struct lks_data {
  lks_table *train, *validation, *test; /* NULL where not asked for or absent */
  lks_scaling features, targets;        /* fitted or given */
  int order;                            /* lks_order_id decided: never AUTO */
  int64_t chunk_rows;                   /* at which windows are cut; 0 without need_train */
  int64_t inputs, outputs;              /* columns of features and targets */
  int64_t memory_bytes;                 /* rows that the node holds; each rank needs another 8 MiB,
                                           or a chunk, to read into */
  uint64_t fingerprint;                 /* of the training source; 0 without need_train */
  uint64_t validation_fingerprint; /* of the validation's own source; 0: none, or no training */
  char note[256];                  /* for the summary: ranks hold copies, and why; mostly "" */
  lks_arena arena;
} lks_data;

/* Opens all sets, checks that those found by guess are not the training rows (LKS_CONFIG), checks
 * shapes against each other, splits, fits scaling, decides the order, loads
 * what is resident, starts the prefetch thread when the training set is streamed. An error of one
 * rank is returned by all. Collective. */
lks_status lks_data_open(lks_world *world, const lks_data_request *request, lks_data **data,
                         lks_error *err) LKS_MUST_USE;
void lks_data_close(lks_data **data); /* collective */

/* Names the datasets that were found, in options that name none of them: so what is stored says
 * what was trained on. Names in the arena. Local. */
lks_status lks_data_keep_names(const lks_data *data, lks_data_options *options, lks_arena *arena,
                               lks_error *err) LKS_MUST_USE;

int64_t lks_table_rows(const lks_table *table);
const lks_source_info *lks_table_source(const lks_table *table);
bool lks_table_streamed(const lks_table *table); /* not resident: streamed, or read on demand */

/* ---- feeding a step */

/* Begins an epoch (from 0) of the training table at a position (rows already used). A streamed
 * table begins to read the window it needs. Collective over the node. */
lks_status lks_table_begin(lks_table *table, int64_t epoch, int64_t position,
                           lks_error *err) LKS_MUST_USE;

/* Rows [first, first + count) of the begun epoch's order; calls must not go backwards, and every
 * rank must call it for each global batch [batch_first, batch_first + batch_count), so that
 * streamed windows are released: first and count may be an empty share. Waits for the prefetch
 * threads: when one could not read, its error, with its rank and host, is returned on every rank
 * of the node that waits; the table must then be begun again or closed. Not collective, but ranks
 * of a node move together. */
lks_status lks_table_take(lks_table *table, int64_t batch_first, int64_t batch_count, int64_t first,
                          int64_t count, lks_feed *feed, lks_error *err) LKS_MUST_USE;

/* The whole training table in host memory, for a backend to copy: true when it is resident and its
 * order is one permutation of all rows. Local. */
bool lks_table_resident(const lks_table *table, lks_resident *resident);

/* From now on lks_table_take gives places instead of rows; for a table that lks_table_resident
 * gave. Local. */
void lks_table_set_adopted(lks_table *table);

/* Rows [first, first + count) of the table in its own order (evaluation, prediction). A streamed
 * table reads them now, into a buffer of its own. Not collective. */
lks_status lks_table_rows_at(lks_table *table, int64_t first, int64_t count, lks_feed *feed,
                             lks_error *err) LKS_MUST_USE;

#endif
