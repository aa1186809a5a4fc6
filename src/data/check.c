/* Checks of values as they are read. */
#include "data/check.h"

#include <math.h>

#include "base/finite.h"
#include "data/rows.h"
#include "data/source.h"

lks_status lks_check_labels(const lks_source *source, const lks_rows *rows, int64_t first,
                            int64_t count, const double *labels, int64_t classes, lks_error *err) {
  lks_status st = LKS_OK;
  char place[768];
  char number[32];
  for (int64_t k = 0; k < count; ++k) {
    const double label = labels[k];
    if (label >= 0 && label < (double)classes && label == floor(label)) {
      continue;
    }
    lks_source_place(source, true, lks_rows_physical(rows, first + k), 0, place, sizeof place);
    st = lks_fail(err, LKS_DATA, NULL,
                  "%s: label %s is not a whole number from 0 to %lld; the model has %lld outputs",
                  place, lks_format_real(number, label), (long long)(classes - 1),
                  (long long)classes);
    lks_advise(err,
               "labels count from 0, rows too: correct them, or give the last layer more units");
    goto cleanup;
  }
cleanup:
  return st;
}

lks_status lks_check_floats(const lks_source *source, const lks_rows *rows, int64_t first,
                            int64_t count, bool targets, lks_range range, const float *values,
                            lks_error *err) {
  lks_status st = LKS_OK;
  char place[768];
  char number[32];
  const lks_source_info *info = lks_source_describe(source);
  const int64_t columns = targets ? info->outputs : info->inputs;
  const bool unit = range != LKS_RANGE_ANY, scaled = range == LKS_RANGE_UNIT_SCALED;
  if (!unit && lks_all_finite(values, (size_t)(count * columns))) {
    return LKS_OK;
  }
  for (int64_t i = 0; i < count * columns; ++i) {
    const float value = values[i];
    if (isfinite(value) && (!unit || (value >= 0 && value <= 1))) {
      continue;
    }
    lks_source_place(source, targets, lks_rows_physical(rows, first + i / columns), i % columns,
                     place, sizeof place);
    if (!isfinite(value)) {
      FAIL(LKS_DATA, "scale the column (data.scaling) or correct the value",
           "%s: the value, once scaled, is too large for 32-bit floats", place);
    }
    FAIL(LKS_DATA,
         scaled ? "choose another scaling (data.scaling) or another loss (mean_squared_error)"
                : "correct the value, or choose another loss (mean_squared_error)",
         "%s: the target %s%s is not in the range 0 to 1 that this loss needs", place,
         lks_format_real(number, (double)value), scaled ? ", which it is once scaled," : "");
  }
cleanup:
  return st;
}
