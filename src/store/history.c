/* The table of a run's values, in memory and in HDF5. values is [epochs, columns], row-major, with
 * room for `capacity` rows of the present columns. */
#include "store/history.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/files.h"

/* Gives the table room for `capacity` rows of `columns` columns, the new ones NaN. */
static bool reshape(lks_history *history, int64_t capacity, int columns) {
  const int old = history->columns;
  double *values = malloc((size_t)capacity * (size_t)columns * sizeof(*values));
  if (values == NULL) {
    return false;
  }
  for (int64_t row = 0; row < history->epochs; ++row) {
    for (int column = 0; column < columns; ++column) {
      values[row * columns + column] = column < old ? history->values[row * old + column] : NAN;
    }
  }
  free(history->values);
  history->values = values;
  history->capacity = capacity;
  history->columns = columns;
  return true;
}

double *lks_history_add(lks_history *history) {
  const int columns = history->columns > 0 ? history->columns : 1; /* malloc(0) may be NULL */
  if (history->epochs == history->capacity || history->values == NULL) {
    const int64_t capacity = history->epochs < 8 ? 16 : 2 * history->epochs;
    double *values = realloc(history->values, (size_t)capacity * (size_t)columns * sizeof(*values));
    if (values == NULL) {
      return NULL;
    }
    history->values = values;
    history->capacity = capacity;
  }
  double *row = history->values + history->epochs * history->columns;
  for (int column = 0; column < history->columns; ++column) {
    row[column] = NAN;
  }
  history->epochs += 1;
  return row;
}

int lks_history_column(lks_history *history, const char *name) {
  for (int column = 0; column < history->columns; ++column) {
    if (strcmp(history->names[column], name) == 0) {
      return column;
    }
  }
  const int column = history->columns;
  const size_t length = strlen(name);
  if (column == LKS_HISTORY_MAX_COLUMNS || length == 0 || length >= sizeof(history->names[0])) {
    return -1;
  }
  const int64_t capacity = history->capacity > 0 ? history->capacity : 16;
  if (!reshape(history, capacity, column + 1)) {
    return -1;
  }
  memcpy(history->names[column], name, length + 1);
  return column;
}

void lks_history_cut(lks_history *history, int64_t epochs) {
  if (epochs < history->epochs) {
    history->epochs = epochs > 0 ? epochs : 0;
  }
}

lks_status lks_history_copy(const lks_history *from, lks_history *to, lks_error *err) {
  lks_status st = LKS_OK;
  const int64_t count = from->epochs * from->columns;
  memset(to, 0, sizeof(*to));
  double *values = malloc((size_t)(count > 0 ? count : 1) * sizeof(*values));
  TRY_ALLOC(values);
  if (count > 0) {
    memcpy(values, from->values, (size_t)count * sizeof(*values));
  }
  *to = *from;
  to->values = values;
  to->capacity = from->epochs;
cleanup:
  return st;
}

void lks_history_free(lks_history *history) {
  free(history->values);
  memset(history, 0, sizeof(*history));
}

/* ---- HDF5 */

lks_status lks_history_store(const lks_history *history, lks_h5 *file, const char *group,
                             lks_error *err) {
  lks_status st = LKS_OK;
  char name[256];
  const char *names[LKS_HISTORY_MAX_COLUMNS];
  const int64_t shape[1] = {history->epochs};
  double *column = malloc((size_t)(history->epochs > 0 ? history->epochs : 1) * sizeof(*column));
  TRY_ALLOC(column);
  TRY(lks_h5_group(file, group, err));
  for (int c = 0; c < history->columns; ++c) {
    for (int64_t row = 0; row < history->epochs; ++row) {
      column[row] = history->values[row * history->columns + c];
    }
    names[c] = history->names[c];
    (void)snprintf(name, sizeof(name), "%s/%s", group, names[c]);
    TRY(lks_h5_write(file, name, LKS_H5_F64, 1, shape, column, err));
  }
  /* HDF5 lists members by name; this keeps their order. */
  TRY(lks_h5_attr_texts(file, group, "columns", names, history->columns, err));
cleanup:
  free(column);
  return st;
}

/* Reads one column of the table. */
static lks_status load_column(lks_h5 *file, const char *group, const char *column,
                              lks_history *history, lks_error *err) {
  lks_status st = LKS_OK;
  char name[256];
  double *values = NULL;
  lks_h5_dataset *dataset = NULL;
  (void)snprintf(name, sizeof(name), "%s/%s", group, column);
  TRY(lks_h5_dataset_open(file, name, &dataset, err));
  const lks_h5_info *info = lks_h5_dataset_info(dataset);
  const int index = lks_history_column(history, column);
  if (info->rank != 1 || index < 0 || (index > 0 && info->shape[0] != history->epochs)) {
    FAIL(LKS_DATA, "copy or write the file again", "%s: '%s' is not a column of a history",
         lks_h5_path(file), name);
  }
  while (history->epochs < info->shape[0]) {
    if (lks_history_add(history) == NULL) {
      FAIL(LKS_NO_MEMORY, NULL, "out of memory for a history of %lld epochs",
           (long long)info->shape[0]);
    }
  }
  values = malloc((size_t)(history->epochs > 0 ? history->epochs : 1) * sizeof(*values));
  TRY_ALLOC(values);
  TRY(lks_h5_read_rows(dataset, 0, history->epochs, values, err));
  for (int64_t row = 0; row < history->epochs; ++row) {
    history->values[row * history->columns + index] = values[row];
  }
cleanup:
  free(values);
  lks_h5_dataset_close(&dataset);
  return st;
}

lks_status lks_history_load(lks_h5 *file, const char *group, lks_history *history, lks_error *err) {
  lks_status st = LKS_OK;
  lks_arena arena = {0};
  lks_texts columns;
  memset(history, 0, sizeof(*history));
  TRY(lks_h5_attr_read_texts(file, group, "columns", &arena, &columns, err));
  for (int i = 0; i < columns.count; ++i) {
    TRY(load_column(file, group, columns.items[i], history, err));
  }
cleanup:
  if (st != LKS_OK) {
    lks_history_free(history);
  }
  lks_arena_free(&arena);
  return st;
}

lks_status lks_history_write(const lks_history *history, const char *path, lks_error *err) {
  lks_status st = LKS_OK;
  lks_error second;
  lks_h5 *file = NULL;
  lks_arena arena = {0};
  const char *aside = lks_aside_path(&arena, path);
  TRY_ALLOC(aside);
  TRY(lks_h5_create_aside(aside, path, &file, err));
  TRY(lks_history_store(history, file, "epoch", err));
  TRY(lks_h5_close(&file, err));
  TRY(lks_file_publish(aside, path, err));
cleanup:
  if (st != LKS_OK && lks_h5_close(&file, &second) != LKS_OK) {
    file = NULL; /* the first failure is the one to tell */
  }
  if (st != LKS_OK && aside != NULL) {
    (void)unlink(aside);
  }
  lks_arena_free(&arena);
  return st;
}
