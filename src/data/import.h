/* Turning CSV, NPY and IDX files into the HDF5 that training reads.
 *
 * Files are told apart by content, never by name, and each may be gzipped. Every input is looked
 * over before the output is begun, and the output appears under its name only once it is whole.
 *
 *   NPY, IDX  one dataset of the same shape. Types: bool and 8-bit unsigned become uint8, other
 *             integers up to 16 bits and 32-bit signed int32, wider ones int64 (checked), half
 *             and single float32, double float64.
 *   CSV       without a choice of columns one dataset of all of them, under the input's name.
 *             With `features` or `targets` the datasets `x` and `y`, or `x_NAME` and `y_NAME`
 *             when the input has a name; targets alone leave all other columns to `x`. The type
 *             is the narrowest of uint8, int32 and float64 that holds every value; one column
 *             gives a dataset of rank 1. A sole target column of class names becomes 0 to K-1 in
 *             byte order of the names, the same for all inputs, with the names as its attribute
 *             `classes`; it may not hold numbers too, nor text such as 2,5. A header's
 *             names are the attribute `columns`. Two files with columns of one name at two places
 *             of their datasets are refused. */
#ifndef LKS_DATA_IMPORT_H
#define LKS_DATA_IMPORT_H

#include <stdbool.h>

#include "base/error.h"
#include "base/text.h"

typedef enum lks_import_header {
  LKS_IMPORT_HEADER_AUTO, /* by content; a first line that may be either is an error */
  LKS_IMPORT_HEADER_YES,
  LKS_IMPORT_HEADER_NO,
} lks_import_header;

typedef struct lks_import_input {
  const char *name; /* of its dataset; NULL: the file's stem (x and y for chosen columns) */
  const char *path;
} lks_import_input;

typedef struct lks_import_request {
  const lks_import_input *inputs;
  int input_count;
  const char *output; /* ends in .h5 or .hdf5 */
  bool overwrite;     /* an output that exists is refused without it */
  lks_texts features; /* CSV columns by name or number from 1; none: not chosen */
  lks_texts targets;
  char delimiter;           /* of CSV; '\0': a comma */
  lks_import_header header; /* of CSV */
  int deflate;              /* 0 (not compressed) to 9 */
  lks_text *summary;        /* one line a dataset is appended; may be NULL */
  lks_text *notes;          /* one line for each thing that the output lacks; may be NULL */
} lks_import_request;

/* Splits "NAME=PATH", or takes the whole as a path: a NAME holds no '/', so that "./a=b.csv" is a
 * path. The result lives in arena. LKS_USAGE on an empty name or path. */
lks_status lks_import_input_parse(const char *argument, lks_arena *arena, lks_import_input *input,
                                  lks_error *err) LKS_MUST_USE;

/* Converts. Errors: LKS_USAGE (names, columns, an output that exists), LKS_DATA (an input, with
 * file, line and column), LKS_STORAGE (the output). Nothing is left behind on failure.
 * Not collective. */
lks_status lks_import_files(const lks_import_request *request, lks_error *err) LKS_MUST_USE;

#endif
