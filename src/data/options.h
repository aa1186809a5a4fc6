/* What the configuration says about data: the struct and its rows. */
#ifndef LKS_DATA_OPTIONS_H
#define LKS_DATA_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "config/option.h"
#include "model/scaling.h"

typedef struct lks_synthetic_options {
  bool present;
  int64_t rows, inputs, outputs;
  int64_t classes; /* > 0: targets are labels in [0, classes); 0: standard normal */
} lks_synthetic_options;

/* One table of rows: a file's datasets, or rows made alike by every rank. Fractions belong to
 * data.validation alone. */
typedef struct lks_table_options {
  bool present;
  const char *file;   /* absolute; "" when synthetic or a fraction */
  lks_texts features; /* dataset names, joined column by column; none: guessed */
  lks_texts targets;
  bool found_features, found_targets; /* not options: named by lks_data_keep_names */
  lks_synthetic_options synthetic;
  double fraction; /* of the training rows; 0: none */
  int rows;        /* lks_fraction_rows */
} lks_table_options;

typedef enum lks_fraction_rows {
  LKS_ROWS_LAST,
  LKS_ROWS_RANDOM,
  LKS_ROWS_STRATIFIED
} lks_fraction_rows;
typedef enum lks_order_id { LKS_ORDER_AUTO, LKS_ORDER_ROWS, LKS_ORDER_WINDOWS } lks_order_id;

typedef struct lks_data_options {
  lks_table_options train, validation, test;
  struct {
    lks_scaling_choice features, targets;
  } scaling;
  int order;               /* lks_order_id; `auto` is decided by size and then stored */
  int64_t window;          /* rows */
  int64_t memory_per_node; /* bytes; 0: half of what is free */
} lks_data_options;

extern const lks_option lks_data_option_rows[];

#endif
