/* The data of a run, put together: sources, split, scaling, fingerprint, tables and their place.
 *
 * Every step that may fail on one rank alone ends in lks_agree, so all ranks take the same way. */
#include "data/data.h"

#include <stdlib.h>
#include <string.h>

#include "data/fit.h"
#include "data/place.h"
#include "data/source.h"
#include "data/split.h"
#include "data/table.h"
#include "model/model.h"

/* What lks_data owns beside what it shows. */
typedef struct data_state {
  lks_data data;                         /* first: lks_data_close casts back */
  lks_source *train, *validation, *test; /* NULL: not opened */
} data_state;

/* ---- sources */

static bool needs_fit(const lks_data_request *request) {
  const lks_data_options *options = request->options;
  return (request->feature_scaling == NULL && lks_scaling_needs_fit(&options->scaling.features)) ||
         (request->target_scaling == NULL && !request->features_only &&
          lks_scaling_needs_fit(&options->scaling.targets));
}

static bool is_scaled(const lks_scaling_choice *choice) {
  return lks_scaling_of(choice->kind) != LKS_SCALING_NONE;
}

/* Whether predictions are undone by a scaling that only the training table can tell: no checkpoint
 * has stored it, as when the weights are Keras'. Targets that are as wide as the features may be
 * the same dataset, under whatever name, and then take their scaling. */
static bool recovers_targets(const lks_data_request *request, const lks_source *test) {
  const lks_data_options *options = request->options;
  const int64_t width = request->model_outputs;
  const bool autoencoder =
      test != NULL && (width <= 0 || width == lks_source_describe(test)->inputs);
  return request->features_only && request->target_scaling == NULL && request->label_classes == 0 &&
         (is_scaled(&options->scaling.targets) ||
          (is_scaled(&options->scaling.features) && autoencoder));
}

static lks_status open_source(const lks_table_options *options, const char *key, bool targets,
                              const lks_data_request *request, lks_source **source,
                              lks_error *err) {
  lks_table_options wanted = *options;
  if (!targets) {
    wanted.targets = (lks_texts){0};
  }
  return lks_source_open(&wanted, key, targets, request->seed, source, err);
}

static lks_status check_options(const lks_data_request *request, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_data_options *options = request->options;
  const lks_table_options *validation = &options->validation;
  const bool has_table = (validation->file != NULL && validation->file[0] != '\0') ||
                         validation->synthetic.present || validation->features.count > 0 ||
                         validation->targets.count > 0;
  if (validation->present && validation->fraction > 0 && has_table) {
    FAIL(LKS_CONFIG, "keep data.validation.fraction, or the table's keys",
         "data.validation has both a fraction of the training rows and a table of its own");
  }
  if (validation->present && validation->fraction <= 0 && validation->rows != LKS_ROWS_LAST) {
    FAIL(LKS_CONFIG, "set data.validation.fraction, or remove data.validation.rows",
         "data.validation.rows says which rows a fraction takes, but there is no fraction");
  }
  if (request->need_validation && validation->present && validation->fraction <= 0 && !has_table) {
    FAIL(
        LKS_CONFIG, "remove data.validation, or give it a fraction or a file",
        "data.validation has neither a fraction above 0 nor a table: there is nothing to validate");
  }
  if (request->labels && lks_scaling_of(options->scaling.targets.kind) != LKS_SCALING_NONE) {
    FAIL(LKS_CONFIG, "set data.scaling.targets: none",
         "data.scaling.targets scales the targets, but this loss takes them as class labels or "
         "numbers from 0 to 1");
  }
cleanup:
  return st;
}

static bool is_fraction(const lks_data_request *request) {
  return request->options->validation.present && request->options->validation.fraction > 0;
}

/* A table whose datasets were guessed is not the training table once more. In evaluation that is
 * not open; what does not let it open then is no matter here. */
static lks_status check_apart(const data_state *state, const lks_source *source,
                              const lks_table_options *options, const char *key,
                              const lks_data_request *request, lks_error *err) {
  lks_status st = LKS_OK;
  lks_error ignored;
  lks_source *opened = NULL;
  const lks_table_options *train = &request->options->train;
  const lks_source *other = state->train;
  if (options->features.count > 0 || options->synthetic.present) {
    return LKS_OK;
  }
  if (other == NULL && train->file != NULL && strcmp(train->file, options->file) == 0 &&
      open_source(train, "data.train", true, request, &opened, &ignored) == LKS_OK) {
    other = opened;
  }
  if (other != NULL && lks_source_same(other, source)) {
    const lks_source_info *info = lks_source_describe(source);
    st = lks_fail(err, LKS_CONFIG, NULL,
                  "%s names no features, and those found in %s (%s) are the rows of data.train",
                  key, info->name, info->feature_names);
    lks_advise(err, "set %s.features and %s.targets, or another %s.file", key, key, key);
    goto cleanup;
  }
cleanup:
  lks_source_close(&opened);
  return st;
}

static lks_status open_sources(data_state *state, const lks_data_request *request, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_data_options *options = request->options;
  const bool targets = !request->features_only;
  TRY(check_options(request, err));
  if (request->need_test && options->test.present) {
    TRY(open_source(&options->test, targets ? "data.test" : "--in", targets, request, &state->test,
                    err));
  }
  const bool recovers = recovers_targets(request, state->test);
  if (request->need_train || needs_fit(request) || recovers ||
      (request->need_validation && is_fraction(request))) {
    TRY(open_source(&options->train, "data.train", targets || recovers, request, &state->train,
                    err));
  }
  if (request->need_validation && options->validation.present && !is_fraction(request)) {
    TRY(open_source(&options->validation, "data.validation", targets, request, &state->validation,
                    err));
    TRY(check_apart(state, state->validation, &options->validation, "data.validation", request,
                    err));
  }
  if (state->test != NULL && targets) {
    TRY(check_apart(state, state->test, &options->test, "data.test", request, err));
  }
cleanup:
  return st;
}

/* ---- columns */

static lks_status check_same_columns(const lks_source *first, const char *first_key,
                                     const lks_source *other, const char *other_key, bool targets,
                                     lks_error *err) {
  lks_status st = LKS_OK;
  const lks_source_info *a = lks_source_describe(first);
  const lks_source_info *b = lks_source_describe(other);
  if (a->inputs != b->inputs || (targets && a->outputs != b->outputs)) {
    const bool inputs_differ = a->inputs != b->inputs;
    st = lks_fail(err, LKS_DATA, NULL, "%s (%s) has %lld %s columns, but %s (%s) has %lld", b->name,
                  other_key, (long long)(inputs_differ ? b->inputs : b->outputs),
                  inputs_differ ? "feature" : "target", a->name, first_key,
                  (long long)(inputs_differ ? a->inputs : a->outputs));
    lks_advise(err, "set %s.%s", other_key, inputs_differ ? "features" : "targets");
    goto cleanup;
  }
cleanup:
  return st;
}

static lks_status check_given(const lks_scaling *given, const char *what, int64_t columns,
                              lks_error *err) {
  lks_status st = LKS_OK;
  if (given != NULL && given->columns != 0 && given->columns != columns) {
    FAIL(LKS_DATA, "use data of the same columns as the model was trained on",
         "the stored scaling is of %lld %s columns, but the data has %lld",
         (long long)given->columns, what, (long long)columns);
  }
cleanup:
  return st;
}

static lks_status check_columns(data_state *state, const lks_data_request *request,
                                lks_error *err) {
  static const char *const keys[] = {"data.train", "data.validation", "data.test"};
  lks_status st = LKS_OK;
  const lks_source *sources[] = {state->train, state->validation, state->test};
  lks_data *data = &state->data;
  int first = -1;
  for (int s = 0; s < 3; ++s) {
    if (sources[s] == NULL) {
      continue;
    }
    if (first < 0) {
      first = s;
      data->inputs = lks_source_describe(sources[s])->inputs;
      data->outputs = request->features_only ? 0 : lks_source_describe(sources[s])->outputs;
    }
    TRY(check_same_columns(sources[first], keys[first], sources[s], keys[s],
                           !request->features_only, err));
  }
  if (first >= 0 && request->label_classes > 0 && !request->features_only && data->outputs != 1) {
    FAIL(LKS_DATA, "name one target column, or choose categorical_crossentropy for one-hot targets",
         "%s: class labels are one column, but '%s' has %lld",
         lks_source_describe(sources[first])->name,
         lks_source_describe(sources[first])->target_names, (long long)data->outputs);
  }
  if (first >= 0 && request->loss != NULL && !request->features_only) {
    const int64_t outputs = request->model_outputs > 0 ? request->model_outputs : data->inputs;
    TRY(lks_model_check_targets(request->loss, outputs, data->outputs, err));
  }
  if (first >= 0) {
    TRY(check_given(request->feature_scaling, "feature", data->inputs, err));
    if (!request->features_only) {
      TRY(check_given(request->target_scaling, "target", data->outputs, err));
    }
  }
cleanup:
  return st;
}

/* ---- scaling */

/* Any source that was opened; all have the same columns. NULL: none. */
static const lks_source *any_source(const data_state *state) {
  return state->train != NULL        ? state->train
         : state->validation != NULL ? state->validation
                                     : state->test;
}

/* A copy of a given scaling, in the data's arena. */
static lks_status copy_scaling(const lks_scaling *given, lks_arena *arena, lks_scaling *out,
                               lks_error *err) {
  lks_status st = LKS_OK;
  *out = (lks_scaling){.columns = given->columns};
  if (given->columns > 0) {
    const size_t bytes = (size_t)given->columns * sizeof(double);
    out->shift = lks_arena_alloc(arena, bytes);
    TRY_ALLOC(out->shift);
    out->factor = lks_arena_alloc(arena, bytes);
    TRY_ALLOC(out->factor);
    memcpy(out->shift, given->shift, bytes);
    memcpy(out->factor, given->factor, bytes);
  }
cleanup:
  return st;
}

static lks_status make_scaling(const lks_scaling *given, const lks_scaling_choice *choice,
                               const lks_moments *moments, int64_t columns, lks_arena *arena,
                               lks_scaling *out, lks_error *err) {
  lks_status st = LKS_OK;
  if (given != NULL) {
    TRY(copy_scaling(given, arena, out, err));
  } else if (!lks_scaling_fit(out, choice, moments, columns, arena)) {
    FAIL(LKS_NO_MEMORY, NULL, "out of memory for scaling");
  }
cleanup:
  return st;
}

static lks_status set_scaling(lks_world *world, data_state *state, const lks_data_request *request,
                              const lks_rows *train, lks_error *err) {
  lks_status st = LKS_OK;
  lks_data *data = &state->data;
  const lks_scaling_choice *features = &request->options->scaling.features;
  const lks_scaling_choice *targets = &request->options->scaling.targets;
  lks_moments *feature_moments = NULL;
  lks_moments *target_moments = NULL;
  const lks_source *any = any_source(state);
  const int64_t outputs = any != NULL ? lks_source_describe(any)->outputs : 0;
  const bool fit_features =
      request->feature_scaling == NULL && lks_scaling_needs_fit(features) && state->train != NULL;
  const bool fit_targets = request->target_scaling == NULL && lks_scaling_needs_fit(targets) &&
                           state->train != NULL && outputs > 0;
  if (fit_features) {
    feature_moments = calloc((size_t)data->inputs, sizeof *feature_moments);
  }
  if (fit_targets) {
    target_moments = calloc((size_t)outputs, sizeof *target_moments);
  }
  const bool ready =
      (!fit_features || feature_moments != NULL) && (!fit_targets || target_moments != NULL);
  TRY(lks_agree(world,
                ready ? LKS_OK : lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for scaling"),
                err));
  if (fit_features || fit_targets) {
    TRY(lks_fit_moments(world, state->train, train, feature_moments, target_moments, err));
  }
  TRY(make_scaling(request->feature_scaling, features, feature_moments, data->inputs, &data->arena,
                   &data->features, err));
  /* An autoencoder's targets are its features, scaled alike unless something else is named. Labels
   * stay what they are. */
  const bool alike = request->target_scaling == NULL && request->label_classes == 0 &&
                     !is_scaled(targets) && outputs > 0 &&
                     lks_source_describe(any)->targets_are_features;
  TRY(make_scaling(alike ? &data->features : request->target_scaling, targets, target_moments,
                   outputs, &data->arena, &data->targets, err));
cleanup:
  free(feature_moments);
  free(target_moments);
  return st;
}

/* ---- tables */

static lks_status make_tables(lks_world *world, data_state *state, const lks_data_request *request,
                              const lks_rows *train, const lks_rows *validation, lks_error *err) {
  lks_status st = LKS_OK;
  lks_data *data = &state->data;
  if (request->need_train) {
    TRY(lks_table_make(world, state->train, train, data, request, &data->train, err));
  }
  if (request->need_validation && is_fraction(request)) {
    TRY(lks_table_make(world, state->train, validation, data, request, &data->validation, err));
  } else if (state->validation != NULL) {
    const lks_rows all = {.count = lks_source_describe(state->validation)->rows};
    TRY(lks_table_make(world, state->validation, &all, data, request, &data->validation, err));
  }
  if (state->test != NULL) {
    const lks_rows all = {.count = lks_source_describe(state->test)->rows};
    TRY(lks_table_make(world, state->test, &all, data, request, &data->test, err));
  }
cleanup:
  return st;
}

/* Which rows of the training source train, and which validate. */
static lks_status set_rows(data_state *state, const lks_data_request *request, lks_rows *train,
                           lks_rows *validation, lks_error *err) {
  lks_status st = LKS_OK;
  if (state->train == NULL) {
    return LKS_OK;
  }
  if (is_fraction(request)) {
    TRY(lks_split(state->train, request, &state->data.arena, train, validation, err));
  } else {
    *train = (lks_rows){.count = lks_source_describe(state->train)->rows};
  }
cleanup:
  return st;
}

lks_status lks_data_open(lks_world *world, const lks_data_request *request, lks_data **data,
                         lks_error *err) {
  lks_status st = LKS_OK;
  lks_rows train = {0};
  lks_rows validation = {0};
  data_state *state = calloc(1, sizeof *state);
  *data = state != NULL ? &state->data : NULL;
  TRY(lks_agree(world,
                state != NULL ? LKS_OK
                              : lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for the data"),
                err));
  TRY(lks_agree(world, open_sources(state, request, err), err));
  TRY(lks_agree(world, check_columns(state, request, err), err));
  TRY(lks_agree(world, set_rows(state, request, &train, &validation, err), err));
  TRY(lks_agree(world, set_scaling(world, state, request, &train, err), err));
  if (request->need_train) {
    TRY(lks_source_fingerprint(state->train, world, &state->data.fingerprint, err));
  }
  if (request->need_train && state->validation != NULL) {
    TRY(lks_source_fingerprint(state->validation, world, &state->data.validation_fingerprint, err));
  }
  TRY(lks_agree(world, make_tables(world, state, request, &train, &validation, err), err));
  TRY(lks_data_place(world, request, &state->data, err));
cleanup:
  if (st != LKS_OK) {
    lks_data_close(data);
  }
  return st;
}

static lks_status keep_list(const lks_texts *found, lks_arena *arena, lks_texts *names, bool *taken,
                            lks_error *err) {
  lks_status st = LKS_OK;
  if (names->count > 0 || found->count == 0) {
    goto cleanup;
  }
  names->items = lks_arena_alloc(arena, (size_t)found->count * sizeof *names->items);
  TRY_ALLOC(names->items);
  for (int i = 0; i < found->count; ++i) {
    names->items[i] = lks_arena_copy(arena, found->items[i]);
    TRY_ALLOC(names->items[i]);
  }
  names->count = found->count;
  *taken = true;
cleanup:
  return st;
}

static lks_status keep_names(const lks_source *source, lks_table_options *table, lks_arena *arena,
                             lks_error *err) {
  lks_status st = LKS_OK;
  if (source != NULL) { /* a fraction of another table has none */
    const lks_source_info *info = lks_source_describe(source);
    TRY(keep_list(&info->features, arena, &table->features, &table->found_features, err));
    TRY(keep_list(&info->targets, arena, &table->targets, &table->found_targets, err));
  }
cleanup:
  return st;
}

lks_status lks_data_keep_names(const lks_data *data, lks_data_options *options, lks_arena *arena,
                               lks_error *err) {
  lks_status st = LKS_OK;
  const data_state *state = (const data_state *)(const void *)data;
  TRY(keep_names(state->train, &options->train, arena, err));
  TRY(keep_names(state->validation, &options->validation, arena, err));
cleanup:
  return st;
}

void lks_data_close(lks_data **data) {
  data_state *state = (data_state *)(void *)*data;
  if (state == NULL) {
    return;
  }
  lks_table_free(&state->data.train);
  lks_table_free(&state->data.validation);
  lks_table_free(&state->data.test);
  lks_source_close(&state->train);
  lks_source_close(&state->validation);
  lks_source_close(&state->test);
  lks_arena_free(&state->data.arena);
  free(state);
  *data = NULL;
}
