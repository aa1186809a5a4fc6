/* Progress, sums, scaling and provenance in HDF5, by tables of fields. */
#include "store/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum field_type { FIELD_INT, FIELD_REAL, FIELD_BOOL } field_type;

typedef struct field {
  const char *name;
  field_type type;
  size_t offset;
} field;

#define PROGRESS(type, member)                                                                     \
  { "/lockstep/progress/" #member, type, offsetof(lks_progress, member) }

static const field progress_fields[] = {
    PROGRESS(FIELD_INT, step),
    PROGRESS(FIELD_INT, epoch),
    PROGRESS(FIELD_INT, epoch_row),
    PROGRESS(FIELD_REAL, epoch_seconds),
    PROGRESS(FIELD_INT, epoch_steps),
    PROGRESS(FIELD_BOOL, complete),
    PROGRESS(FIELD_BOOL, stopped_early),
    PROGRESS(FIELD_REAL, best),
    PROGRESS(FIELD_INT, best_epoch),
    PROGRESS(FIELD_REAL, stop_best),
    PROGRESS(FIELD_INT, stop_wait),
    PROGRESS(FIELD_INT, stop_epoch),
    {"/lockstep/sums/loss", FIELD_REAL, offsetof(lks_progress, sums.loss)},
    {"/lockstep/sums/rows", FIELD_INT, offsetof(lks_progress, sums.rows)},
};

typedef struct text_field {
  const char *name;
  size_t offset; /* of a const char * in lks_provenance; NULL: not stored */
} text_field;

#define TEXT(member)                                                                               \
  { #member, offsetof(lks_provenance, member) }

static const text_field provenance_texts[] = {TEXT(command), TEXT(hosts),     TEXT(versions),
                                              TEXT(started), TEXT(build),     TEXT(backend),
                                              TEXT(devices), TEXT(data_file), TEXT(data_modified)};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static const char sums_metrics[] = "/lockstep/sums/metrics";
static const char order_chunk_rows[] = "/lockstep/order/chunk_rows";
static const char provenance_group[] = "/lockstep/provenance";

void lks_state_variable(const char *group, int i, char out[128]) {
  (void)snprintf(out, 128, "/layers/%s/vars/%d", group, i);
}

/* ---- storing */

static lks_status store_progress(const lks_progress *progress, lks_h5 *file, lks_error *err) {
  lks_status st = LKS_OK;
  const int64_t metrics = LKS_MAX_METRICS;
  for (size_t i = 0; i < COUNT(progress_fields); ++i) {
    const field *one = &progress_fields[i];
    const char *at = (const char *)progress + one->offset;
    if (one->type == FIELD_BOOL) {
      const uint8_t flag = *(const bool *)at ? 1 : 0;
      TRY(lks_h5_write(file, one->name, LKS_H5_U8, 0, NULL, &flag, err));
    } else {
      TRY(lks_h5_write(file, one->name, one->type == FIELD_INT ? LKS_H5_I64 : LKS_H5_F64, 0, NULL,
                       at, err));
    }
  }
  TRY(lks_h5_write(file, sums_metrics, LKS_H5_F64, 1, &metrics, progress->sums.metrics, err));
cleanup:
  return st;
}

static lks_status store_scaling(const lks_scaling *scaling, const char *of, lks_h5 *file,
                                lks_error *err) {
  lks_status st = LKS_OK;
  char name[64];
  if (scaling->columns > 0) {
    (void)snprintf(name, sizeof(name), "/lockstep/scaling/%s/shift", of);
    TRY(lks_h5_write(file, name, LKS_H5_F64, 1, &scaling->columns, scaling->shift, err));
    (void)snprintf(name, sizeof(name), "/lockstep/scaling/%s/factor", of);
    TRY(lks_h5_write(file, name, LKS_H5_F64, 1, &scaling->columns, scaling->factor, err));
  }
cleanup:
  return st;
}

static lks_status store_provenance(const lks_provenance *provenance, lks_h5 *file, lks_error *err) {
  lks_status st = LKS_OK;
  char hash[24], validation[24];
  TRY(lks_h5_group(file, provenance_group, err));
  for (size_t i = 0; i < COUNT(provenance_texts); ++i) {
    const text_field *one = &provenance_texts[i];
    const char *text = NULL;
    memcpy(&text, (const char *)provenance + one->offset, sizeof(text));
    if (text != NULL) {
      TRY(lks_h5_attr_text(file, provenance_group, one->name, text, err));
    }
  }
  (void)snprintf(hash, sizeof(hash), "%016" PRIx64, provenance->data_hash);
  (void)snprintf(validation, sizeof(validation), "%016" PRIx64, provenance->validation_hash);
  TRY(lks_h5_attr_int64(file, provenance_group, "ranks", provenance->ranks, err));
  TRY(lks_h5_attr_int64(file, provenance_group, "data_bytes", provenance->data_bytes, err));
  TRY(lks_h5_attr_text(file, provenance_group, "data_hash", hash, err));
  TRY(lks_h5_attr_text(file, provenance_group, "validation_hash", validation, err));
cleanup:
  return st;
}

lks_status lks_state_store(const lks_checkpoint *checkpoint, lks_h5 *file, lks_error *err) {
  lks_status st = LKS_OK;
  char hash[24], seed[24];
  (void)snprintf(hash, sizeof(hash), "%016" PRIx64, checkpoint->weights_hash);
  (void)snprintf(seed, sizeof(seed), "%" PRIu64, checkpoint->seed);
  TRY(lks_h5_group(file, "/lockstep", err));
  TRY(lks_h5_attr_int64(file, "/lockstep", "format", LKS_CHECKPOINT_FORMAT, err));
  TRY(lks_h5_attr_int64(file, "/lockstep", "sealed", 1, err));
  TRY(lks_h5_attr_text(file, "/lockstep", "weights_hash", hash, err));
  TRY(lks_h5_attr_text(file, "/lockstep", "seed", seed, err));
  TRY(store_progress(&checkpoint->progress, file, err));
  if (checkpoint->order_chunk_rows > 0) {
    TRY(lks_h5_write(file, order_chunk_rows, LKS_H5_I64, 0, NULL, &checkpoint->order_chunk_rows,
                     err));
  }
  TRY(store_scaling(&checkpoint->features, "features", file, err));
  TRY(store_scaling(&checkpoint->targets, "targets", file, err));
  TRY(store_provenance(&checkpoint->provenance, file, err));
  if (checkpoint->config != NULL) {
    TRY(lks_h5_write_text(file, "/lockstep/config", checkpoint->config, err));
  }
  if (checkpoint->history != NULL) {
    TRY(lks_history_store(checkpoint->history, file, "/lockstep/history", err));
  }
cleanup:
  return st;
}

/* ---- loading */

static lks_status load_vector(lks_h5 *file, const char *name, int64_t count, double *out,
                              lks_error *err) {
  lks_status st = LKS_OK;
  lks_h5_dataset *dataset = NULL;
  TRY(lks_h5_dataset_open(file, name, &dataset, err));
  const lks_h5_info *info = lks_h5_dataset_info(dataset);
  if (info->rank != 1 || info->shape[0] != count) {
    FAIL(LKS_STORAGE, "use another checkpoint", "%s: '%s' does not hold %lld numbers",
         lks_h5_path(file), name, (long long)count);
  }
  TRY(lks_h5_read_rows(dataset, 0, count, out, err));
cleanup:
  lks_h5_dataset_close(&dataset);
  return st;
}

static lks_status load_progress(lks_h5 *file, lks_progress *progress, lks_error *err) {
  lks_status st = LKS_OK;
  for (size_t i = 0; i < COUNT(progress_fields); ++i) {
    const field *one = &progress_fields[i];
    char *at = (char *)progress + one->offset;
    int64_t whole = 0;
    if (one->type == FIELD_REAL) {
      double real = 0.0;
      TRY(lks_h5_read_real(file, one->name, &real, err));
      memcpy(at, &real, sizeof(real));
      continue;
    }
    TRY(lks_h5_read_int64(file, one->name, &whole, err));
    if (one->type == FIELD_BOOL) {
      const bool flag = whole != 0;
      memcpy(at, &flag, sizeof(flag));
    } else {
      memcpy(at, &whole, sizeof(whole));
    }
  }
  TRY(load_vector(file, sums_metrics, LKS_MAX_METRICS, progress->sums.metrics, err));
cleanup:
  return st;
}

static lks_status load_scaling(lks_h5 *file, const char *of, lks_arena *arena, lks_scaling *scaling,
                               lks_error *err) {
  lks_status st = LKS_OK;
  char name[64];
  lks_h5_dataset *dataset = NULL;
  (void)snprintf(name, sizeof(name), "/lockstep/scaling/%s/shift", of);
  if (!lks_h5_exists(file, name)) {
    goto cleanup; /* not scaled */
  }
  TRY(lks_h5_dataset_open(file, name, &dataset, err));
  const lks_h5_info *info = lks_h5_dataset_info(dataset);
  const int64_t columns = info->rank == 1 ? info->shape[0] : 1;
  scaling->shift = lks_arena_alloc(arena, (size_t)columns * sizeof(double));
  scaling->factor = lks_arena_alloc(arena, (size_t)columns * sizeof(double));
  TRY_ALLOC(scaling->shift);
  TRY_ALLOC(scaling->factor);
  TRY(lks_h5_read_rows(dataset, 0, columns, scaling->shift, err));
  (void)snprintf(name, sizeof(name), "/lockstep/scaling/%s/factor", of);
  TRY(load_vector(file, name, columns, scaling->factor, err));
  scaling->columns = columns;
cleanup:
  lks_h5_dataset_close(&dataset);
  return st;
}

/* An attribute that holds an unsigned number as text; 0 where it holds none. */
static lks_status load_number(lks_h5 *file, const char *object, const char *key, int base,
                              uint64_t *out, lks_arena *arena, lks_error *err) {
  lks_status st = LKS_OK;
  char *text = NULL;
  TRY(lks_h5_attr_read_text(file, object, key, arena, &text, err));
  *out = text != NULL ? strtoull(text, NULL, base) : 0;
cleanup:
  return st;
}

static lks_status load_provenance(lks_h5 *file, lks_arena *arena, lks_provenance *provenance,
                                  lks_error *err) {
  lks_status st = LKS_OK;
  for (size_t i = 0; i < COUNT(provenance_texts); ++i) {
    const text_field *one = &provenance_texts[i];
    char *text = NULL;
    TRY(lks_h5_attr_read_text(file, provenance_group, one->name, arena, &text, err));
    memcpy((char *)provenance + one->offset, &text, sizeof(text));
  }
  TRY(lks_h5_attr_read_int64(file, provenance_group, "ranks", &provenance->ranks, err));
  TRY(lks_h5_attr_read_int64(file, provenance_group, "data_bytes", &provenance->data_bytes, err));
  TRY(load_number(file, provenance_group, "data_hash", 16, &provenance->data_hash, arena, err));
  TRY(load_number(file, provenance_group, "validation_hash", 16, &provenance->validation_hash,
                  arena, err));
cleanup:
  return st;
}

lks_status lks_state_load(lks_h5 *file, lks_arena *arena, lks_checkpoint *out, lks_error *err) {
  lks_status st = LKS_OK;
  char *text = NULL;
  TRY(load_number(file, "/lockstep", "weights_hash", 16, &out->weights_hash, arena, err));
  TRY(load_number(file, "/lockstep", "seed", 10, &out->seed, arena, err));
  TRY(load_progress(file, &out->progress, err));
  if (lks_h5_exists(file, order_chunk_rows)) { /* not in files of older versions */
    TRY(lks_h5_read_int64(file, order_chunk_rows, &out->order_chunk_rows, err));
  }
  TRY(load_scaling(file, "features", arena, &out->features, err));
  TRY(load_scaling(file, "targets", arena, &out->targets, err));
  TRY(load_provenance(file, arena, &out->provenance, err));
  if (lks_h5_exists(file, "/lockstep/config")) {
    TRY(lks_h5_read_text(file, "/lockstep/config", arena, &text, err));
    out->config = text;
  }
  TRY(lks_h5_attr_read_text(file, "/", "model_config", arena, &text, err));
  out->model_config = text;
  TRY(lks_h5_attr_read_text(file, "/", "training_config", arena, &text, err));
  out->training_config = text;
cleanup:
  return st;
}
