/* Rows handed to a backend: where they lie, or how to find them. Plain data without MPI, for
 * backend modules read it too. */
#ifndef LKS_DATA_FEED_H
#define LKS_DATA_FEED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/random.h"

/* Where a rank's rows of one block lie. Valid until the next call on the same table. Host memory
 * (the node's window). Row k of the block is features + index[k] * inputs, or, with index NULL,
 * features + k * inputs. `row_ids` are positions in the training set (0 <= id < rows): the key of
 * dropout masks.
 *
 * A backend that has adopted the training table (see backend.h) finds rows itself: `places` is
 * then set and the pointers above it may be NULL. */
typedef struct lks_feed {
  const float *features;
  const float *targets;   /* NULL where the table has none */
  const int64_t *index;   /* [count] or NULL */
  const int64_t *row_ids; /* [count] or NULL */
  int64_t first, count;   /* first: of a step's rows, where they begin in the global batch */
  const struct lks_places *places; /* NULL: rows are where the pointers say */
} lks_feed;

/* Row k of a share is position first + k of the epoch's order: permutation's image of it, or,
 * unshuffled, itself. */
typedef struct lks_places {
  lks_permutation permutation;
  bool shuffle;
  int64_t first;
} lks_places;

/* A whole table in host memory, float32 and scaled. */
typedef struct lks_resident {
  const float *features; /* [rows, inputs] */
  const float *targets;  /* [rows, outputs]; NULL where there are none */
  int64_t rows, inputs, outputs;
} lks_resident;

#endif
