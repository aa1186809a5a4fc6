/* Sources: choosing the kind, and what all kinds do alike. */
#include "data/source.h"

#include <stdio.h>
#include <stdlib.h>

lks_status lks_source_open(const lks_table_options *options, const char *key, bool need_targets,
                           uint64_t seed, lks_source **source, lks_error *err) {
  lks_status st = LKS_OK;
  const bool has_file = options->file != NULL && options->file[0] != '\0';
  *source = calloc(1, sizeof **source);
  TRY_ALLOC(*source);
  if (has_file == options->synthetic.present) {
    st = lks_fail(err, LKS_CONFIG, NULL, "%s has %s file %s synthetic", key,
                  has_file ? "both" : "neither", has_file ? "and" : "nor");
    lks_advise(err, "set %s.file, or %s.synthetic: {rows: N, inputs: N}", key, key);
    goto cleanup;
  }
  if (has_file) {
    TRY(lks_source_open_h5(options, key, need_targets, *source, err));
  } else {
    TRY(lks_source_open_synthetic(&options->synthetic, key, seed, *source, err));
  }
cleanup:
  if (st != LKS_OK) {
    lks_source_close(source);
  }
  return st;
}

void lks_source_close(lks_source **source) {
  if (*source == NULL) {
    return;
  }
  if ((*source)->ops != NULL && (*source)->ops->close != NULL) {
    (*source)->ops->close(*source);
  }
  lks_arena_free(&(*source)->arena);
  free(*source);
  *source = NULL;
}

const lks_source_info *lks_source_describe(const lks_source *source) {
  return &source->info;
}

lks_status lks_source_fetch(lks_source *source, int64_t first, int64_t count, const lks_raw *out,
                            lks_error *err) {
  lks_status st = LKS_OK;
  if (first < 0 || count < 0 || first > source->info.rows - count) {
    FAIL(LKS_INTERNAL, NULL, "%s: rows %lld to %lld asked of %lld", source->info.name,
         (long long)first, (long long)(first + count), (long long)source->info.rows);
  }
  if (count > 0) {
    TRY(source->ops->read(source, first, count, out, err));
    atomic_fetch_add_explicit(&source->rows_read, count, memory_order_relaxed);
  }
cleanup:
  return st;
}

lks_status lks_source_read(lks_source *source, int64_t first, int64_t count, double *features,
                           double *targets, lks_error *err) {
  const lks_raw out = {.features = features, .targets = targets};
  return lks_source_fetch(source, first, count, &out, err);
}

void lks_source_place(const lks_source *source, bool target, int64_t row, int64_t column, char *out,
                      size_t size) {
  char inner[512];
  source->ops->place(source, target, row, column, inner, sizeof inner);
  (void)snprintf(out, size, "%s: %s", source->info.name, inner);
}

int64_t lks_source_rows_read(const lks_source *source) {
  return atomic_load_explicit(&source->rows_read, memory_order_relaxed);
}
