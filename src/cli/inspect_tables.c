/* inspect: history.h5, and the files that predict writes. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/inspect.h"
#include "store/history.h"
#include "train/journal.h"

/* ---- history */

enum { COLUMN_WIDTH = 12 };

static void print_row(const lks_history *history, int64_t epoch, lks_text *text) {
  lks_text_add(text, "  %7" PRId64, epoch + 1);
  for (int c = 0; c < history->columns; ++c) {
    const int width = (int)strlen(history->names[c]);
    lks_text_add(text, " %*.6g", width > COLUMN_WIDTH ? width : COLUMN_WIDTH,
                 history->values[epoch * history->columns + c]);
  }
  lks_text_add(text, "\n");
}

lks_status lks_inspect_history(lks_h5 *file, lks_report *report, lks_error *err) {
  lks_status st = LKS_OK;
  lks_history history = {0};
  TRY(lks_history_load(file, "/epoch", &history, err));
  lks_report_count(report, report->json, "epochs", "epochs", history.epochs);
  json_t *columns = lks_report_object(report, report->json, "columns");
  lks_text_add(&report->text, "  %7s", "epoch");
  for (int c = 0; c < history.columns; ++c) {
    json_t *values = lks_report_array(report, columns, history.names[c]);
    for (int64_t e = 0; e < history.epochs; ++e) {
      if (json_array_append_new(values, lks_json_real(history.values[e * history.columns + c])) !=
          0) {
        report->failed = true;
      }
    }
    lks_text_add(&report->text, " %*s", COLUMN_WIDTH, history.names[c]);
  }
  lks_text_add(&report->text, "\n");
  for (int64_t e = 0; e < history.epochs; ++e) {
    print_row(&history, e, &report->text);
  }
cleanup:
  lks_history_free(&history);
  return st;
}

/* ---- predictions */

enum { MOST_COLUMNS = 8, BLOCK_VALUES = 1 << 17 };

typedef struct column {
  double min, max, sum;
  int64_t finite;
} column;

/* Reads the dataset once, a block of rows at a time. columns: [shown] of the width. */
static lks_status sum_columns(lks_h5_dataset *dataset, int64_t rows, int64_t width, int64_t shown,
                              column *columns, lks_error *err) {
  lks_status st = LKS_OK;
  const int64_t step = width < BLOCK_VALUES ? BLOCK_VALUES / width : 1;
  double *block = malloc((size_t)(step * width) * sizeof *block);
  TRY_ALLOC(block);
  for (int64_t c = 0; c < shown; ++c) {
    columns[c] = (column){.min = INFINITY, .max = -INFINITY};
  }
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = rows - first < step ? rows - first : step;
    TRY(lks_h5_read_rows(dataset, first, count, block, err));
    for (int64_t i = 0; i < count * width; ++i) {
      if (i % width < shown && isfinite(block[i])) {
        column *at = &columns[i % width];
        at->min = block[i] < at->min ? block[i] : at->min;
        at->max = block[i] > at->max ? block[i] : at->max;
        at->sum += block[i];
        at->finite += 1;
      }
    }
  }
cleanup:
  free(block);
  return st;
}

static void report_column(lks_report *report, json_t *into, int64_t index, int64_t rows,
                          const column *values) {
  char label[32], bad[48] = "";
  const bool any = values->finite > 0;
  const double mean = any ? values->sum / (double)values->finite : (double)NAN;
  const int64_t not_finite = rows - values->finite;
  lks_report_set(report, into, "min", lks_json_real(values->min));
  lks_report_set(report, into, "mean", lks_json_real(mean));
  lks_report_set(report, into, "max", lks_json_real(values->max));
  lks_report_set(report, into, "not_finite", json_integer((json_int_t)not_finite));
  (void)snprintf(label, sizeof label, "column %" PRId64, index);
  if (not_finite > 0) {
    (void)snprintf(bad, sizeof bad, ", %" PRId64 " not finite", not_finite);
  }
  if (any) {
    lks_report_line(report, label, "min %.6g, mean %.6g, max %.6g%s", values->min, mean,
                    values->max, bad);
  } else {
    lks_report_line(report, label, "no finite value");
  }
}

lks_status lks_inspect_predictions(lks_h5 *file, lks_arena *arena, lks_report *report,
                                   lks_error *err) {
  static const char name[] = "/predictions";
  lks_status st = LKS_OK;
  char *hash = NULL, *checkpoint = NULL, *layer = NULL;
  lks_h5_dataset *dataset = NULL;
  column columns[MOST_COLUMNS];
  TRY(lks_h5_attr_read_text(file, name, "weights_hash", arena, &hash, err));
  TRY(lks_h5_attr_read_text(file, name, "checkpoint", arena, &checkpoint, err));
  TRY(lks_h5_attr_read_text(file, name, "layer", arena, &layer, err));
  TRY(lks_h5_dataset_open(file, name, &dataset, err));
  const lks_h5_info *info = lks_h5_dataset_info(dataset);
  if (info->rank != 2 || info->shape[1] < 1) {
    FAIL(LKS_DATA, "write the predictions again", "%s: '%s' is not [rows, outputs]",
         lks_h5_path(file), name);
  }
  const int64_t rows = info->shape[0], width = info->shape[1];
  const int64_t shown = width < MOST_COLUMNS ? width : MOST_COLUMNS;
  TRY(sum_columns(dataset, rows, width, shown, columns, err));
  lks_report_set(report, report->json, "rows", json_integer((json_int_t)rows));
  lks_report_set(report, report->json, "outputs", json_integer((json_int_t)width));
  lks_report_line(report, "shape", "%" PRId64 " rows of %" PRId64 " value%s, %s", rows, width,
                  width == 1 ? "" : "s", info->type_name);
  lks_report_text(report, report->json, "checkpoint", "checkpoint", checkpoint);
  lks_report_text(report, report->json, "weights_hash", "weights_hash", hash);
  lks_report_text(report, report->json, "layer", "layer",
                  layer != NULL && layer[0] != '\0' ? layer : NULL);
  json_t *array = lks_report_array(report, report->json, "columns");
  for (int64_t c = 0; c < shown; ++c) {
    report_column(report, lks_report_append(report, array), c, rows, &columns[c]);
  }
  if (width > shown) {
    lks_report_line(report, "...", "%" PRId64 " columns more", width - shown);
  }
cleanup:
  lks_h5_dataset_close(&dataset);
  return st;
}
