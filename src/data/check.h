/* Checks of values as they are read: labels in range, targets in [0, 1], floats finite. Each error
 * is LKS_DATA and names file, dataset, row and column. Not collective. */
#ifndef LKS_DATA_CHECK_H
#define LKS_DATA_CHECK_H

#include "data/data.h"

/* Raw labels of positions [first, first + count) of rows: whole numbers in [0, classes). */
lks_status lks_check_labels(const lks_source *source, const lks_rows *rows, int64_t first,
                            int64_t count, const double *labels, int64_t classes,
                            lks_error *err) LKS_MUST_USE;

/* What values must be beside finite. */
typedef enum lks_range { LKS_RANGE_ANY, LKS_RANGE_UNIT, LKS_RANGE_UNIT_SCALED } lks_range;

/* Values [count, columns] of those positions, scaled if they are: finite as floats; of the unit
 * ranges, in [0, 1], and with words on what they are once scaled. */
lks_status lks_check_floats(const lks_source *source, const lks_rows *rows, int64_t first,
                            int64_t count, bool targets, lks_range range, const float *values,
                            lks_error *err) LKS_MUST_USE;

#endif
