/* Row i of epoch e is arithmetic: a keyed bijection of the row number under (seed, epoch).
 *
 * `rows` permutes all rows. `windows` permutes windows (disjoint runs of whole chunks), and rows
 * within one. Nothing here depends on ranks or memory. */
#ifndef LKS_DATA_ORDER_H
#define LKS_DATA_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/random.h"

typedef struct lks_order {
  int64_t rows;
  bool shuffle;
  uint64_t seed;
  int64_t windows;       /* 0: one permutation of all rows */
  const int64_t *starts; /* [windows + 1] first position of each window; starts[windows]=rows */
  int64_t *sequence;     /* [windows] window visited k-th in the epoch begun */
  int64_t *offsets;      /* [windows + 1] position in the epoch at which the k-th begins */
  int64_t epoch;         /* begun; -1: none */
  lks_permutation all;   /* of the epoch, when windows is 0 */
  int64_t current;       /* k of the window that `within` belongs to; -1: none */
  lks_permutation within;
} lks_order;

/* starts is copied; NULL with windows 0. Not collective. */
lks_status lks_order_open(int64_t rows, bool shuffle, uint64_t seed, int64_t windows,
                          const int64_t *starts, lks_order *order, lks_error *err) LKS_MUST_USE;
void lks_order_close(lks_order *order);

/* Fixes the epoch. Not collective, no allocation. */
void lks_order_begin(lks_order *order, int64_t epoch);

/* Rows of the widest window; 0 without windows. */
int64_t lks_order_widest(const lks_order *order);

/* The k (0 <= k < windows) whose window holds position i of the begun epoch; 0 without windows. */
int64_t lks_order_window(const lks_order *order, int64_t i);

/* Training positions of places [first, first + count) of the epoch begun, into out[count]. */
void lks_order_map(lks_order *order, int64_t first, int64_t count, int64_t *out);

#endif
