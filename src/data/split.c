/* The split: last rows as Keras takes them, keyed random rows, or keyed rows of each class. */
#include "data/split.h"

#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "data/check.h"
#include "data/rows.h"

/* Turns marks [rows] into two ascending lists. */
static lks_status list_rows(const bool *marked, int64_t rows, int64_t validating, lks_arena *arena,
                            lks_rows *train, lks_rows *validation, lks_error *err) {
  lks_status st = LKS_OK;
  const int64_t training = rows - validating;
  int64_t *train_list = lks_arena_alloc(arena, (size_t)training * sizeof *train_list);
  TRY_ALLOC(train_list);
  int64_t *validation_list = lks_arena_alloc(arena, (size_t)validating * sizeof *validation_list);
  TRY_ALLOC(validation_list);
  *train = (lks_rows){.count = training, .list = train_list};
  *validation = (lks_rows){.count = validating, .list = validation_list};
  for (int64_t r = 0; r < rows; ++r) {
    if (marked[r]) {
      *validation_list++ = r;
    } else {
      *train_list++ = r;
    }
  }
cleanup:
  return st;
}

/* ---- stratified */

/* The class of a row of targets: its label; 0 or 1 of a single number; else the largest's place,
 * the first of equals (one-hot). */
static int64_t class_of(const double *targets, int64_t outputs, int64_t label_classes) {
  if (label_classes > 0) {
    return (int64_t)targets[0];
  }
  if (outputs == 1) {
    return targets[0] > 0.5;
  }
  int64_t largest = 0;
  for (int64_t c = 1; c < outputs; ++c) {
    largest = targets[c] > targets[largest] ? c : largest;
  }
  return largest;
}

static lks_status read_classes(lks_source *source, const lks_data_request *request,
                               int64_t *classes, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_source_info *info = lks_source_describe(source);
  const lks_rows all = {.count = info->rows};
  lks_scratch scratch = {0};
  TRY(lks_scratch_open(source, LKS_NOT_READ, LKS_AS_DOUBLES, &scratch, err));
  int64_t got = 0;
  for (int64_t row = 0; row < info->rows; row += got) {
    TRY(lks_rows_read(source, &all, row, info->rows, scratch.capacity, &scratch.raw, &got, err));
    if (request->label_classes > 0) {
      TRY(lks_check_labels(source, &all, row, got, scratch.raw.targets, request->label_classes,
                           err));
    }
    for (int64_t k = 0; k < got; ++k) {
      classes[row + k] =
          class_of(scratch.raw.targets + k * info->outputs, info->outputs, request->label_classes);
    }
  }
cleanup:
  lks_scratch_close(&scratch);
  return st;
}

/* One class's share of the validation rows. */
typedef struct class_share {
  int64_t rows;  /* of the class */
  int64_t taken; /* for validation */
  int64_t rest;  /* remainder of rows * validating / all rows */
  int64_t first; /* of its members in the list ordered by class */
  int64_t id;
} class_share;

static int by_rest(const void *a, const void *b) {
  const class_share *x = a;
  const class_share *y = b;
  return x->rest != y->rest ? (x->rest < y->rest ? 1 : -1) : (x->id > y->id) - (x->id < y->id);
}

/* Largest remainders; products stay in 64 bits since lists of 2^31 rows and more are refused. */
static void share_out(class_share *shares, int64_t classes, int64_t rows, int64_t validating) {
  int64_t taken = 0;
  int64_t first = 0;
  for (int64_t c = 0; c < classes; ++c) {
    class_share *share = shares + c;
    share->id = c;
    share->first = first;
    first += share->rows;
    share->taken = share->rows * validating / rows;
    share->rest = share->rows * validating % rows;
    taken += share->taken;
  }
  qsort(shares, (size_t)classes, sizeof *shares, by_rest);
  for (int64_t c = 0; taken < validating; ++c, ++taken) {
    ++shares[c].taken;
  }
}

static lks_status mark_stratified(lks_source *source, const lks_data_request *request,
                                  int64_t validating, bool *marked, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_source_info *info = lks_source_describe(source);
  const int64_t classes = request->label_classes > 0 ? request->label_classes
                          : info->outputs == 1       ? 2
                                                     : info->outputs;
  int64_t *class_ids = malloc((size_t)info->rows * sizeof *class_ids);
  int64_t *members = NULL;
  int64_t *next = NULL;
  class_share *shares = NULL;
  TRY_ALLOC(class_ids);
  members = malloc((size_t)info->rows * sizeof *members);
  TRY_ALLOC(members);
  next = malloc((size_t)classes * sizeof *next);
  TRY_ALLOC(next);
  shares = calloc((size_t)classes, sizeof *shares);
  TRY_ALLOC(shares);
  TRY(read_classes(source, request, class_ids, err));
  for (int64_t r = 0; r < info->rows; ++r) {
    ++shares[class_ids[r]].rows;
  }
  share_out(shares, classes, info->rows, validating);
  for (int64_t c = 0; c < classes; ++c) {
    next[shares[c].id] = shares[c].first;
  }
  for (int64_t r = 0; r < info->rows; ++r) {
    members[next[class_ids[r]]++] = r;
  }
  for (int64_t c = 0; c < classes; ++c) {
    const class_share *share = shares + c;
    const uint64_t key = lks_random_key(request->seed, LKS_PURPOSE_SPLIT, 1 + (uint64_t)share->id);
    const lks_permutation permutation = lks_permutation_make((uint64_t)share->rows, key);
    for (int64_t k = 0; k < share->taken; ++k) {
      marked[members[share->first + (int64_t)lks_permute(&permutation, (uint64_t)k)]] = true;
    }
  }
cleanup:
  free(class_ids);
  free(members);
  free(next);
  free(shares);
  return st;
}

/* ---- all three */

static lks_status check_parts(const lks_source_info *info, const lks_data_request *request,
                              int64_t training, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_table_options *options = &request->options->validation;
  const int64_t validating = info->rows - training;
  if (training == 0 || validating == 0) {
    FAIL(LKS_CONFIG, "change data.validation.fraction, or give data.validation a table of its own",
         "data.validation.fraction %g of %lld rows leaves %lld to train and %lld to validate",
         options->fraction, (long long)info->rows, (long long)training, (long long)validating);
  }
  if (options->rows == LKS_ROWS_STRATIFIED &&
      (info->outputs == 0 || (request->label_classes == 0 && !request->labels))) {
    FAIL(LKS_CONFIG, "set data.validation.rows: random",
         "data.validation.rows: stratified needs class labels, but the targets are numbers");
  }
  if (options->rows == LKS_ROWS_STRATIFIED && info->rows >= INT64_C(1) << 31) {
    FAIL(LKS_CONFIG, "set data.validation.rows: random or last",
         "data.validation.rows: stratified takes tables of fewer than 2^31 rows, %s has %lld",
         info->name, (long long)info->rows);
  }
cleanup:
  return st;
}

lks_status lks_split(lks_source *source, const lks_data_request *request, lks_arena *arena,
                     lks_rows *train, lks_rows *validation, lks_error *err) {
  lks_status st = LKS_OK;
  bool *marked = NULL;
  const lks_source_info *info = lks_source_describe(source);
  const lks_table_options *options = &request->options->validation;
  /* Keras' validation_split: floor(rows * (1 - fraction)), in doubles. */
  const int64_t training = (int64_t)((double)info->rows * (1.0 - options->fraction));
  const int64_t validating = info->rows - training;
  TRY(check_parts(info, request, training, err));
  if (options->rows == LKS_ROWS_LAST) {
    *train = (lks_rows){.count = training};
    *validation = (lks_rows){.count = validating, .first = training};
    return LKS_OK;
  }
  marked = calloc((size_t)info->rows, sizeof *marked);
  TRY_ALLOC(marked);
  if (options->rows == LKS_ROWS_STRATIFIED) {
    TRY(mark_stratified(source, request, validating, marked, err));
  } else {
    const lks_permutation permutation = lks_permutation_make(
        (uint64_t)info->rows, lks_random_key(request->seed, LKS_PURPOSE_SPLIT, 0));
    for (int64_t k = 0; k < validating; ++k) {
      marked[lks_permute(&permutation, (uint64_t)k)] = true;
    }
  }
  TRY(list_rows(marked, info->rows, validating, arena, train, validation, err));
cleanup:
  free(marked);
  return st;
}
