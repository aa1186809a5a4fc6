/* Rows of an HDF5 file: lists of datasets, each flattened to columns and joined.
 *
 * The file stays open for reading; base/h5 holds HDF5's lock, and all else here is constant after
 * opening, so threads may read at once. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/finite.h"
#include "base/h5.h"
#include "data/check.h"
#include "data/guess.h"
#include "data/source.h"

typedef struct h5_column_set {
  const char *role; /* "features", "targets" */
  int count;
  const char **names;
  lks_h5_dataset **datasets;
  int64_t *widths; /* columns of each */
  int64_t columns; /* of all */
  int64_t widest;
} h5_column_set;

typedef struct h5_state {
  lks_h5 *file;
  h5_column_set features, targets;
} h5_state;

/* ---- reading */

static lks_status check_finite(const lks_source *source, const char *name, bool floats,
                               const void *values, int64_t first, int64_t rows, int64_t columns,
                               lks_error *err) {
  if (floats && lks_all_finite(values, (size_t)(rows * columns))) {
    return LKS_OK;
  }
  for (int64_t i = 0; i < rows * columns; ++i) {
    const double value = floats ? (double)((const float *)values)[i] : ((const double *)values)[i];
    if (!isfinite(value)) {
      return lks_fail(err, LKS_DATA,
                      "replace the value or leave the row out (rows and columns count from 0)",
                      "%s: dataset '%s' holds %s at row %lld, column %lld", source->info.name, name,
                      isnan(value) ? "NaN" : "an infinity", (long long)(first + i / columns),
                      (long long)(i % columns));
    }
  }
  return LKS_OK;
}

/* Rows of one set into out [count, set->columns], floats or doubles. A single dataset has that
 * layout already. */
static lks_status read_set(lks_source *source, const h5_column_set *set, int64_t first,
                           int64_t count, bool floats, void *out, lks_error *err) {
  lks_status st = LKS_OK;
  const size_t size = floats ? sizeof(float) : sizeof(double);
  char *joined = NULL;
  if (set->count > 1) {
    joined = malloc((size_t)count * (size_t)set->widest * size);
    TRY_ALLOC(joined);
  }
  char *column = out; /* of the first row */
  for (int d = 0; d < set->count; ++d) {
    const size_t width = (size_t)set->widths[d] * size;
    void *to = joined != NULL ? joined : out;
    TRY(floats ? lks_h5_read_rows_float(set->datasets[d], first, count, to, err)
               : lks_h5_read_rows(set->datasets[d], first, count, to, err));
    TRY(check_finite(source, set->names[d], floats, to, first, count, set->widths[d], err));
    for (int64_t r = 0; joined != NULL && r < count; ++r) {
      memcpy(column + (size_t)(r * set->columns) * size, joined + (size_t)r * width, width);
    }
    column += width;
  }
cleanup:
  free(joined);
  return st;
}

static lks_status read_h5(lks_source *source, int64_t first, int64_t count, const lks_raw *out,
                          lks_error *err) {
  lks_status st = LKS_OK;
  const h5_state *state = source->state;
  const bool float_features = out->float_features != NULL;
  const bool float_targets = out->float_targets != NULL;
  void *features = float_features ? (void *)out->float_features : (void *)out->features;
  void *targets = float_targets ? (void *)out->float_targets : (void *)out->targets;
  if (features != NULL) {
    TRY(read_set(source, &state->features, first, count, float_features, features, err));
  }
  if (targets != NULL && features != NULL && source->info.targets_are_features &&
      float_targets == float_features) {
    memcpy(targets, features,
           (size_t)count * (size_t)state->features.columns *
               (float_targets ? sizeof(float) : sizeof(double)));
  } else if (targets != NULL) {
    TRY(read_set(source, &state->targets, first, count, float_targets, targets, err));
  }
cleanup:
  return st;
}

static void place_h5(const lks_source *source, bool target, int64_t row, int64_t column, char *out,
                     size_t size) {
  const h5_state *state = source->state;
  const h5_column_set *set = target ? &state->targets : &state->features;
  int d = 0;
  while (d + 1 < set->count && column >= set->widths[d]) {
    column -= set->widths[d++];
  }
  (void)snprintf(out, size, "dataset '%s', row %lld, column %lld", set->names[d], (long long)row,
                 (long long)column);
}

static void close_set(h5_column_set *set) {
  for (int d = 0; set->datasets != NULL && d < set->count; ++d) {
    lks_h5_dataset_close(&set->datasets[d]);
  }
}

static void close_h5(lks_source *source) {
  h5_state *state = source->state;
  lks_error ignored;
  close_set(&state->features);
  close_set(&state->targets);
  /* A file that was only read has nothing to flush that could fail. */
  const lks_status st = lks_h5_close(&state->file, &ignored);
  (void)st;
}

/* ---- opening */

/* What remedies call the option that names datasets of a role. */
static const char *option_of(const char *key, const char *role, char out[64]) {
  if (key[0] == '-') {
    (void)snprintf(out, 64, "--%s", role);
  } else {
    (void)snprintf(out, 64, "%s.%s", key, role);
  }
  return out;
}

/* The first guess that the file holds, as a list of one; refused where there is none. */
static lks_status guess_name(lks_source *source, lks_h5 *file, const char *key, const char *role,
                             const lks_guesses *guesses, const char **out, lks_error *err) {
  lks_status st = LKS_OK;
  lks_text tried = {0};
  char option[64];
  for (int i = 0; guesses->names[i] != NULL; ++i) {
    const char *name = guesses->names[i];
    /* Opened, not only looked up: a group of that name is no dataset. */
    lks_h5_dataset *dataset = NULL;
    st = lks_h5_dataset_open(file, name, &dataset, err);
    lks_h5_dataset_close(&dataset);
    if (st == LKS_OK || !lks_h5_misnamed(file, name)) {
      *out = name;
      goto cleanup;
    }
    lks_text_add(&tried, "%s%s", i > 0 ? ", " : "", name);
  }
  const char *there = lks_h5_list(file, "/", 16, &source->arena);
  st = lks_fail(err, LKS_DATA, NULL, "%s: no dataset of %s under a usual name (%s); it has %s",
                lks_h5_path(file), role, tried.data != NULL ? tried.data : "",
                there != NULL && there[0] != '\0' ? there : "none");
  lks_advise(err, "set %s", option_of(key, role, option));
cleanup:
  lks_text_free(&tried);
  return st;
}

/* Numbers in rows, and how many columns. */
static lks_status check_dataset(const lks_source *source, const char *key, const char *role,
                                const char *name, const lks_h5_info *info, int64_t *width,
                                lks_error *err) {
  lks_status st = LKS_OK;
  char option[64];
  if (info->kind != LKS_H5_INTEGER && info->kind != LKS_H5_FLOAT) {
    st = lks_fail(err, LKS_DATA, NULL, "%s: dataset '%s' holds values of type %s, not numbers",
                  source->info.name, name, info->type_name);
    lks_advise(err, "set %s to a dataset of numbers", option_of(key, role, option));
    goto cleanup;
  }
  if (info->rank == 0) {
    st = lks_fail(err, LKS_DATA, NULL, "%s: dataset '%s' is a single number, not rows",
                  source->info.name, name);
    lks_advise(err, "set %s to a dataset with a first dimension of rows",
               option_of(key, role, option));
    goto cleanup;
  }
  if (info->shape[0] == 0) {
    FAIL(LKS_DATA, "name a file with at least one row", "%s: dataset '%s' has no rows",
         source->info.name, name);
  }
  *width = 1;
  for (int d = 1; d < info->rank; ++d) {
    if (info->shape[d] == 0 || *width > INT32_MAX / info->shape[d]) {
      FAIL(LKS_DATA, "a row must hold at least one number and fewer than 2^31",
           "%s: a row of dataset '%s' holds %s", source->info.name, name,
           info->shape[d] == 0 ? "nothing" : "too many numbers");
    }
    *width *= info->shape[d];
  }
cleanup:
  return st;
}

static lks_status open_dataset(lks_source *source, lks_h5 *file, const char *key,
                               h5_column_set *set, int d, lks_error *err) {
  char option[64], other[64];
  lks_status st = lks_h5_dataset_open(file, set->names[d], &set->datasets[d], err);
  if (st != LKS_OK && lks_h5_misnamed(file, set->names[d])) {
    lks_advise(err, "set %s", option_of(key, set->role, option));
  }
  TRY(st);
  const lks_h5_info *info = lks_h5_dataset_info(set->datasets[d]);
  TRY(check_dataset(source, key, set->role, set->names[d], info, &set->widths[d], err));
  TRY(lks_h5_check_storage(set->datasets[d], err));
  if (source->info.rows == 0) {
    source->info.rows = info->shape[0];
  }
  if (info->shape[0] != source->info.rows) {
    const h5_state *state = source->state;
    st = lks_fail(err, LKS_DATA, NULL, "%s: dataset '%s' has %lld rows, but '%s' has %lld",
                  source->info.name, set->names[d], (long long)info->shape[0],
                  state->features.names[0], (long long)source->info.rows);
    const bool alone = state->targets.count == 0; /* features beside features */
    lks_advise(err, "every dataset of a table has one row a sample: set %s%s%s",
               option_of(key, "features", option), alone ? "" : " and ",
               alone ? "" : option_of(key, "targets", other));
    goto cleanup;
  }
  set->columns += set->widths[d];
  set->widest = set->widths[d] > set->widest ? set->widths[d] : set->widest;
cleanup:
  return st;
}

static lks_status open_set(lks_source *source, lks_h5 *file, const char *key,
                           const lks_texts *named, const lks_guesses *guesses, h5_column_set *set,
                           lks_error *err) {
  lks_status st = LKS_OK;
  const int count = named->count > 0 ? named->count : 1;
  set->names = lks_arena_alloc(&source->arena, (size_t)count * sizeof *set->names);
  TRY_ALLOC(set->names);
  set->datasets = lks_arena_alloc(&source->arena, (size_t)count * sizeof *set->datasets);
  TRY_ALLOC(set->datasets);
  set->widths = lks_arena_alloc(&source->arena, (size_t)count * sizeof *set->widths);
  TRY_ALLOC(set->widths);
  set->count = count;
  if (named->count == 0) {
    TRY(guess_name(source, file, key, set->role, guesses, &set->names[0], err));
  }
  for (int d = 0; d < named->count; ++d) {
    set->names[d] = lks_arena_copy(&source->arena, named->items[d]);
    TRY_ALLOC(set->names[d]);
  }
  for (int d = 0; d < count; ++d) {
    TRY(open_dataset(source, file, key, set, d, err));
  }
cleanup:
  return st;
}

/* ---- describing */

static bool same_sets(const h5_column_set *a, const h5_column_set *b) {
  bool same = a->count == b->count;
  for (int d = 0; same && d < a->count; ++d) {
    /* "/x" and "x" are one dataset, and so may be "x" and "y". */
    same = lks_h5_same_dataset(a->datasets[d], b->datasets[d]);
  }
  return same;
}

static const char *join_names(const h5_column_set *set, lks_arena *arena) {
  lks_text names = {0};
  for (int d = 0; d < set->count; ++d) {
    lks_text_add(&names, "%s%s", d > 0 ? ", " : "", set->names[d]);
  }
  const char *copy = names.failed ? NULL : lks_arena_copy(arena, set->count > 0 ? names.data : "");
  lks_text_free(&names);
  return copy;
}

static void sign_set(const h5_column_set *set, lks_text *out) {
  lks_text_add(out, "%s:", set->role);
  for (int d = 0; d < set->count; ++d) {
    const lks_h5_info *info = lks_h5_dataset_info(set->datasets[d]);
    lks_text_add(out, " %s[", info->type_name);
    for (int k = 0; k < info->rank; ++k) {
      lks_text_add(out, "%s%lld", k > 0 ? ", " : "", (long long)info->shape[k]);
    }
    lks_text_add(out, "]");
  }
  lks_text_add(out, "\n");
}

/* The chunks that matter are those of the dataset with the widest rows: reading it is the cost. */
static int64_t rows_of_chunk(const h5_state *state) {
  const h5_column_set *sets[] = {&state->features, &state->targets};
  size_t most_bytes = 0;
  int64_t rows = 1;
  for (int s = 0; s < 2; ++s) {
    for (int d = 0; d < sets[s]->count; ++d) {
      const lks_h5_info *info = lks_h5_dataset_info(sets[s]->datasets[d]);
      const size_t bytes = info->element_bytes * (size_t)sets[s]->widths[d];
      if (bytes > most_bytes) {
        most_bytes = bytes;
        rows = info->chunk_rows;
      }
    }
  }
  return rows;
}

static bool fits_floats(const h5_column_set *set) {
  bool fits = true;
  for (int d = 0; d < set->count; ++d) {
    fits = fits && lks_h5_dataset_info(set->datasets[d])->fits_float;
  }
  return fits;
}

static lks_status describe(lks_source *source, h5_state *state, lks_error *err) {
  lks_status st = LKS_OK;
  lks_text signature = {0};
  sign_set(&state->features, &signature);
  sign_set(&state->targets, &signature);
  source->signature = signature.failed ? NULL : lks_arena_copy(&source->arena, signature.data);
  TRY_ALLOC(source->signature);
  const int64_t rows = rows_of_chunk(state);
  lks_source_info *info = &source->info;
  info->chunk_rows = rows < 1 ? 1 : rows < info->rows ? rows : info->rows;
  info->inputs = state->features.columns;
  info->outputs = state->targets.columns;
  info->float_features = fits_floats(&state->features);
  info->float_targets = fits_floats(&state->targets);
  info->targets_are_features = same_sets(&state->features, &state->targets);
  info->features = (lks_texts){state->features.names, state->features.count};
  info->targets = (lks_texts){state->targets.names, state->targets.count};
  info->feature_names = join_names(&state->features, &source->arena);
  TRY_ALLOC(info->feature_names);
  info->target_names = join_names(&state->targets, &source->arena);
  TRY_ALLOC(info->target_names);
cleanup:
  lks_text_free(&signature);
  return st;
}

/* Whether every named target is there; with none named there are none. */
static bool all_there(lks_h5 *file, const lks_texts *named) {
  bool there = named->count > 0;
  for (int d = 0; there && d < named->count; ++d) {
    there = lks_h5_exists(file, named->items[d]);
  }
  return there;
}

static const lks_source_ops ops = {read_h5, place_h5, close_h5};

bool lks_source_same(const lks_source *a, const lks_source *b) {
  if (a->ops != &ops || b->ops != &ops) {
    return false;
  }
  const h5_state *first = a->state;
  const h5_state *second = b->state;
  return same_sets(&first->features, &second->features) &&
         same_sets(&first->targets, &second->targets);
}

lks_status lks_source_open_h5(const lks_table_options *options, const char *key, bool need_targets,
                              lks_source *source, lks_error *err) {
  const lks_guesses feature_guesses = lks_guess_features(key);
  lks_status st = LKS_OK;
  h5_state *state = lks_arena_alloc(&source->arena, sizeof *state);
  TRY_ALLOC(state);
  state->features.role = "features";
  state->targets.role = "targets";
  source->state = state;
  source->ops = &ops;
  source->info.name = lks_arena_copy(&source->arena, options->file);
  TRY_ALLOC(source->info.name);
  st = lks_h5_open(options->file, &state->file, err);
  if (st != LKS_OK) {
    if (err->remedy[0] == '\0') {
      lks_advise(err, "set %s%s", key, key[0] == '-' ? "" : ".file");
    }
    goto cleanup;
  }
  TRY(open_set(source, state->file, key, &options->features, &feature_guesses, &state->features,
               err));
  if (need_targets || all_there(state->file, &options->targets)) {
    const lks_guesses target_guesses = lks_guess_targets(state->features.names[0], &source->arena);
    TRY(open_set(source, state->file, key, &options->targets, &target_guesses, &state->targets,
                 err));
  }
  TRY(describe(source, state, err));
cleanup:
  return st;
}
