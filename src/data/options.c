/* The option rows of `data`, and their short forms. */
#include "data/options.h"

#include <string.h>

#define MOST_ROWS 1e12
#define MOST_COLUMNS 1e7

static const char *const fraction_words[] = {"last", "random", "stratified", NULL};
static const char *const order_words[] = {"auto", "rows", "windows", NULL};

/* ---- short forms */

static lks_status no_memory(lks_error *err) {
  return lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for the configuration");
}

/* Makes the node a mapping of one key; what the node was becomes that key's value. */
static lks_status wrap(lks_node *node, const char *key, lks_arena *arena, lks_error *err) {
  lks_node *inner = lks_node_new(arena, node->kind, key, node->text, node);
  if (inner == NULL) {
    return no_memory(err);
  }
  inner->quoted = node->quoted;
  inner->first = node->first;
  node->kind = LKS_NODE_MAP;
  node->text = NULL;
  node->quoted = false;
  node->first = NULL;
  lks_node_append(node, inner);
  return LKS_OK;
}

/* validation: 0.1 -> {fraction: 0.1} */
static lks_status expand_validation(lks_node *node, const char *dotted, lks_arena *arena,
                                    lks_error *err) {
  (void)dotted;
  return node->kind == LKS_NODE_SCALAR ? wrap(node, "fraction", arena, err) : LKS_OK;
}

/* scaling: standardize, {divide: 255} or {name: ...} -> {features: ...} */
static lks_status expand_scaling(lks_node *node, const char *dotted, lks_arena *arena,
                                 lks_error *err) {
  (void)dotted;
  const bool names_a_kind = node->kind == LKS_NODE_MAP && (lks_node_child(node, "divide") != NULL ||
                                                           lks_node_child(node, "name") != NULL);
  return node->kind == LKS_NODE_SCALAR || names_a_kind ? wrap(node, "features", arena, err)
                                                       : LKS_OK;
}

/* {divide: 255} -> {name: divide, value: 255} */
static lks_status expand_divide(lks_node *node, const char *dotted, lks_arena *arena,
                                lks_error *err) {
  (void)dotted;
  lks_node *value = node->kind == LKS_NODE_MAP ? lks_node_child(node, "divide") : NULL;
  if (value == NULL || lks_node_count(node) != 1) {
    return LKS_OK;
  }
  lks_node *name = lks_node_new(arena, LKS_NODE_SCALAR, "name", "divide", value);
  if (name == NULL) {
    return no_memory(err);
  }
  value->key = "value";
  node->first = NULL;
  lks_node_append(node, name);
  lks_node_append(node, value);
  return LKS_OK;
}

/* ---- rows */

static const lks_option synthetic_rows[] = {
    {.key = "rows",
     .type = LKS_OPT_INT,
     .offset = offsetof(lks_synthetic_options, rows),
     .min = 1,
     .max = MOST_ROWS,
     .unit = "rows",
     .help = "rows to make"},
    {.key = "inputs",
     .type = LKS_OPT_INT,
     .offset = offsetof(lks_synthetic_options, inputs),
     .min = 1,
     .max = MOST_COLUMNS,
     .unit = "columns",
     .help = "feature columns"},
    {.key = "outputs",
     .type = LKS_OPT_INT,
     .offset = offsetof(lks_synthetic_options, outputs),
     .fallback = "1",
     .min = 1,
     .max = MOST_COLUMNS,
     .unit = "columns",
     .help = "target columns"},
    {.key = "classes",
     .type = LKS_OPT_INT,
     .offset = offsetof(lks_synthetic_options, classes),
     .fallback = "0",
     .min = 0,
     .max = MOST_COLUMNS,
     .help = "targets are evenly drawn labels in [0, classes); 0: they are standard normal"},
    {0},
};

/* Data are compared by content when a run resumes, so a file may move. */
#define TABLE_ROWS(first_names)                                                                    \
  {.key = "file",                                                                                  \
   .type = LKS_OPT_PATH,                                                                           \
   .offset = offsetof(lks_table_options, file),                                                    \
   .fallback = "",                                                                                 \
   .flags = LKS_OPTION_RESUME,                                                                     \
   .help = "HDF5 file that holds the datasets"},                                                   \
      {.key = "features",                                                                          \
       .type = LKS_OPT_TEXTS,                                                                      \
       .offset = offsetof(lks_table_options, features),                                            \
       .fallback = "[]",                                                                           \
       .help =                                                                                     \
           "dataset of features, or a list of them joined column by column; none: " first_names    \
           "x, X, data, features or x_train"},                                                     \
      {.key = "targets",                                                                           \
       .type = LKS_OPT_TEXTS,                                                                      \
       .offset = offsetof(lks_table_options, targets),                                             \
       .fallback = "[]",                                                                           \
       .help = "dataset of targets, or a list of them; none: as the features are named (y_test "   \
               "for x_test), else y, label, labels, target, targets or y_train"},                  \
      {.key = "sample_weight", .type = LKS_OPT_LATER, .help = "dataset of a weight a row"}, {      \
    .key = "synthetic", .type = LKS_OPT_GROUP, .offset = offsetof(lks_table_options, synthetic),   \
    .flags = LKS_OPTION_OPTIONAL, .options = synthetic_rows,                                       \
    .help = "in place of a file: standard normal rows, made alike by every rank"                   \
  }

static const lks_option train_rows[] = {TABLE_ROWS(""), {0}};
static const lks_option test_rows[] = {TABLE_ROWS("x_test, "), {0}};

static const lks_option validation_rows[] = {
    TABLE_ROWS("x_val, x_validation, x_valid, "),
    {.key = "fraction",
     .type = LKS_OPT_REAL,
     .offset = offsetof(lks_table_options, fraction),
     .fallback = "0",
     .min = 0,
     .max = 1,
     .flags = LKS_OPTION_BELOW_MAX,
     .help = "share of the training table set apart; 0: a table of its own"},
    {.key = "rows",
     .type = LKS_OPT_WORD,
     .offset = offsetof(lks_table_options, rows),
     .fallback = "last",
     .words = fraction_words,
     .help = "which rows a fraction takes; stratified: each class in its proportion"},
    {0},
};

static const lks_option scaling_rows[] = {
    {.key = "features",
     .type = LKS_OPT_CHOICE,
     .offset = offsetof(lks_data_options, scaling.features) - offsetof(lks_data_options, scaling),
     .fallback = "none",
     .kinds = lks_scaling_kinds,
     .expand = expand_divide,
     .help = "of the features"},
    {.key = "targets",
     .type = LKS_OPT_CHOICE,
     .offset = offsetof(lks_data_options, scaling.targets) - offsetof(lks_data_options, scaling),
     .fallback = "none",
     .kinds = lks_scaling_kinds,
     .expand = expand_divide,
     .help = "of the targets; the same dataset as the features takes theirs"},
    {0},
};

const lks_option lks_data_option_rows[] = {
    {.key = "train",
     .type = LKS_OPT_GROUP,
     .offset = offsetof(lks_data_options, train),
     .options = train_rows,
     .help = "the rows to train on"},
    {.key = "validation",
     .type = LKS_OPT_GROUP,
     .offset = offsetof(lks_data_options, validation),
     .flags = LKS_OPTION_OPTIONAL,
     .options = validation_rows,
     .expand = expand_validation,
     .help = "a table, or a number: the share of the training rows to set apart"},
    {.key = "test",
     .type = LKS_OPT_GROUP,
     .offset = offsetof(lks_data_options, test),
     .flags = LKS_OPTION_OPTIONAL,
     .options = test_rows,
     .help = "a table for evaluate and predict"},
    {.key = "scaling",
     .type = LKS_OPT_GROUP,
     .offset = offsetof(lks_data_options, scaling),
     .fallback = "{}",
     .options = scaling_rows,
     .expand = expand_scaling,
     .help = "scaling of columns, fitted on the training rows; a bare word means the features"},
    {.key = "order",
     .type = LKS_OPT_WORD,
     .offset = offsetof(lks_data_options, order),
     .fallback = "auto",
     .words = order_words,
     .help = "what is shuffled: all rows, or windows and the rows within; auto: windows above "
             "4 GiB"},
    {.key = "window",
     .type = LKS_OPT_INT,
     .offset = offsetof(lks_data_options, window),
     .fallback = "65536",
     .min = 1,
     .max = MOST_ROWS,
     .unit = "rows",
     .help = "rows shuffled together under `windows`"},
    {.key = "memory_per_node",
     .type = LKS_OPT_BYTES,
     .offset = offsetof(lks_data_options, memory_per_node),
     .fallback = "0",
     .flags = LKS_OPTION_RESUME,
     .unit = "bytes",
     .help = "memory for rows; a larger set is streamed, with the same result; 0: half of what is "
             "free"},
    {0},
};
