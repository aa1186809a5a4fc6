/* The history of a run: one value an epoch and metric. Written to history.h5 as
 * /epoch/<metric>, one dataset a metric; kept inside the checkpoint at /lockstep/history. */
#ifndef LKS_STORE_HISTORY_H
#define LKS_STORE_HISTORY_H

#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/h5.h"

#define LKS_HISTORY_MAX_COLUMNS 32

/* Columns such as "loss", "accuracy", "val_loss", "seconds"; NaN where an epoch has no value. */
typedef struct lks_history {
  int columns;
  char names[LKS_HISTORY_MAX_COLUMNS][32];
  int64_t epochs, capacity;
  double *values; /* [epochs, columns], malloc'ed */
} lks_history;

/* A row of NaN for the next epoch, returned for filling; NULL when memory is out. */
double *lks_history_add(lks_history *history);
/* Column by name, added when new (earlier rows NaN); -1 when full or out of memory. */
int lks_history_column(lks_history *history, const char *name);
void lks_history_cut(lks_history *history, int64_t epochs); /* keeps the first epochs */
lks_status lks_history_copy(const lks_history *from, lks_history *to, lks_error *err) LKS_MUST_USE;
void lks_history_free(lks_history *history);

/* Writes and reads one dataset a column under group of an open file. */
lks_status lks_history_store(const lks_history *history, lks_h5 *file, const char *group,
                             lks_error *err) LKS_MUST_USE;
lks_status lks_history_load(lks_h5 *file, const char *group, lks_history *history,
                            lks_error *err) LKS_MUST_USE;

/* Writes history.h5 aside and renames it. */
lks_status lks_history_write(const lks_history *history, const char *path,
                             lks_error *err) LKS_MUST_USE;

#endif
