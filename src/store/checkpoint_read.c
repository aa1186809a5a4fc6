/* Reading checkpoints. HDF5 sees a file with a seal only after its checksum was found right; one
 * without a seal must be Keras' own, for ours says inside that it was sealed. */
#include <stdio.h>
#include <string.h>

#include "store/checkpoint.h"
#include "store/seal.h"
#include "store/state.h"
#include "store/steps.h"
#include "store/weights.h"

/* Opens a verified file and tells ours from Keras'. */
static lks_status open_verified(const char *path, lks_h5 **file, bool *ours, lks_error *err) {
  lks_status st = LKS_OK;
  bool sealed = false;
  int64_t format = 0;
  TRY(lks_seal_check(path, &sealed, err));
  TRY(lks_h5_open(path, file, err));
  *ours = lks_h5_exists(*file, "/lockstep");
  if (!*ours) {
    goto cleanup;
  }
  if (!sealed) {
    FAIL(LKS_STORAGE, "use another checkpoint, or copy the file again",
         "%s: truncated or changed: its seal is missing", path);
  }
  TRY(lks_h5_attr_read_int64(*file, "/lockstep", "format", &format, err));
  if (format > LKS_CHECKPOINT_FORMAT) {
    FAIL(LKS_STORAGE, "use a newer version of Lockstep",
         "%s: checkpoint format %lld is newer than this version, which reads up to %d", path,
         (long long)format, LKS_CHECKPOINT_FORMAT);
  }
cleanup:
  return st;
}

/* Ends a read: what base/h5 calls bad data is, in a checkpoint, damaged storage. */
static lks_status finish(lks_h5 **file, lks_status st, lks_error *err) {
  lks_error second;
  if (st == LKS_DATA) {
    err->status = st = LKS_STORAGE;
    lks_advise(err, "use another checkpoint, or copy the file again");
  }
  if (lks_h5_close(file, &second) != LKS_OK) {
    *file = NULL; /* a file that was only read loses nothing */
  }
  return st;
}

lks_status lks_checkpoint_peek(const char *path, lks_arena *arena, lks_checkpoint *out,
                               lks_error *err) {
  lks_status st = LKS_OK;
  bool ours = false;
  lks_layout layout;
  lks_h5 *file = NULL;
  memset(out, 0, sizeof(*out));
  TRY(open_verified(path, &file, &ours, err));
  TRY(lks_weights_layout(file, &layout, err));
  if (ours) {
    TRY(lks_state_load(file, arena, out, err));
  }
cleanup:
  return finish(&file, st, err);
}

/* The history, moved into the arena. */
static lks_status read_history(lks_h5 *file, lks_arena *arena, lks_checkpoint *out,
                               lks_error *err) {
  lks_status st = LKS_OK;
  lks_history table = {0};
  if (!lks_h5_exists(file, "/lockstep/history")) {
    goto cleanup;
  }
  TRY(lks_history_load(file, "/lockstep/history", &table, err));
  const size_t bytes = (size_t)table.epochs * (size_t)table.columns * sizeof(double);
  lks_history *kept = lks_arena_alloc(arena, sizeof(*kept));
  TRY_ALLOC(kept);
  *kept = table;
  kept->values = lks_arena_alloc(arena, bytes + 1);
  TRY_ALLOC(kept->values);
  if (bytes > 0) {
    memcpy(kept->values, table.values, bytes);
  }
  kept->capacity = table.epochs;
  out->history = kept;
cleanup:
  lks_history_free(&table);
  return st;
}

static lks_status read_best(lks_h5 *file, const lks_model *model, lks_arena *arena,
                            lks_checkpoint *out, lks_error *err) {
  lks_status st = LKS_OK;
  char name[64];
  if (!lks_h5_exists(file, "/lockstep/best")) {
    goto cleanup;
  }
  float *best = lks_weights_alloc(model, arena);
  TRY_ALLOC(best);
  for (int p = 0; p < model->parameter_count; ++p) {
    (void)snprintf(name, sizeof(name), "/lockstep/best/%d", p);
    TRY(lks_weights_one(file, name, model, p, best, err));
  }
  out->best_parameters = best;
cleanup:
  return st;
}

/* Keras counts updates in its optimizer's first variable. */
static void read_iteration(lks_h5 *file, lks_checkpoint *out) {
  lks_error ignored;
  int64_t step = 0;
  if (lks_h5_exists(file, "/optimizer/vars/0") &&
      lks_h5_read_int64(file, "/optimizer/vars/0", &step, &ignored) == LKS_OK) {
    out->progress.step = step;
  }
}

lks_status lks_checkpoint_read(const char *path, const lks_model *model, lks_arena *arena,
                               lks_checkpoint *out, lks_error *err) {
  lks_status st = LKS_OK;
  bool ours = false;
  lks_layout layout;
  lks_h5 *file = NULL;
  memset(out, 0, sizeof(*out));
  TRY(open_verified(path, &file, &ours, err));
  TRY(lks_weights_layout(file, &layout, err));
  if (ours) {
    TRY(lks_state_load(file, arena, out, err));
    TRY(read_history(file, arena, out, err));
  } else {
    read_iteration(file, out);
  }
  TRY(lks_weights_read(file, layout, model, arena, out, err)); /* says how the models differ */
  if (ours) {
    TRY(read_best(file, model, arena, out, err));
  }
  const uint64_t hash = lks_model_hash(model, out->parameters);
  if (ours && hash != out->weights_hash) {
    FAIL(LKS_STORAGE, "use another checkpoint", "%s: damaged: its weights have another hash", path);
  }
  out->weights_hash = hash;
cleanup:
  return finish(&file, st, err);
}

lks_status lks_checkpoint_newest(const char *run_folder, lks_arena *arena, char **path,
                                 char **passed, lks_error *err) {
  lks_status st = LKS_OK;
  lks_steps steps = {0};
  lks_text list = {0};
  lks_error cause;
  *path = NULL;
  *passed = NULL;
  TRY(lks_steps_scan(run_folder, arena, &steps, err));
  for (int i = 0; i < steps.count && *path == NULL; ++i) {
    lks_checkpoint about;
    lks_arena scratch = {0};
    const char *name = steps.items[i].name;
    char *whole = lks_arena_print(arena, "%s/checkpoints/%s", run_folder, name);
    TRY_ALLOC(whole);
    const lks_status found = lks_checkpoint_peek(whole, &scratch, &about, &cause);
    const bool foreign = found == LKS_OK && about.config == NULL;
    lks_arena_free(&scratch);
    if (found != LKS_OK && found != LKS_STORAGE) {
      *err = cause;
      st = found;
      goto cleanup;
    }
    if (found == LKS_OK && !foreign) {
      *path = whole;
      continue;
    }
    /* The cause begins with the path: the name is enough. */
    const size_t prefix = strlen(whole);
    const char *why = foreign ? "not a checkpoint of a run" : cause.what;
    if (strncmp(why, whole, prefix) == 0 && why[prefix] == ':') {
      why += prefix + 1 + strspn(why + prefix + 1, " ");
    }
    lks_text_add(&list, "%s%s: %s", list.length > 0 ? "; " : "", name, why);
  }
  if (list.length > 0 || list.failed) {
    *passed = list.failed ? NULL : lks_arena_copy(arena, list.data);
    TRY_ALLOC(*passed);
  }
cleanup:
  lks_text_free(&list);
  return st;
}
