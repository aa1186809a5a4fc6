/* Writing a checkpoint: a skeleton by HDF5 with room for the arrays, the arrays by pwrite (outside
 * HDF5's lock, so that reading data goes on), the seal, sync, read back, rename.
 *
 * The hash in the seal is of what was meant: arrays are hashed from memory, not from the file. So
 * the check of the seal on what was read back compares every byte with memory. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_STATIC_LINKING_ONLY /* the state lies on the stack: nothing to allocate */
#include <xxhash.h>

#include "store/checkpoint.h"
#include "store/files.h"
#include "store/seal.h"
#include "store/state.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "arrays are written as they lie in memory, and checkpoints are little-endian");

/* An array and its place in the file. */
typedef struct extent {
  int64_t offset, bytes;
  const void *data;
} extent;

typedef struct skeleton {
  extent *extents; /* room for every array */
  int count;
} skeleton;

/* ---- the skeleton */

/* Lays out one parameter-shaped array. base: the arena that it is a part of. */
static lks_status reserve(lks_h5 *file, const char *name, const lks_parameter *parameter,
                          const float *base, skeleton *plan, lks_error *err) {
  extent *next = &plan->extents[plan->count];
  next->data = base + parameter->offset;
  next->bytes = parameter->count * (int64_t)sizeof(float);
  const lks_status st =
      lks_h5_reserve(file, name, LKS_H5_F32, parameter->rank, parameter->shape, &next->offset, err);
  plan->count += st == LKS_OK ? 1 : 0;
  return st;
}

/* /layers/<group>/vars/<i>: what Keras 3 reads of a `.weights.h5`. */
static lks_status lay_layers(lks_h5 *file, const lks_model *model, const float *parameters,
                             skeleton *plan, lks_error *err) {
  lks_status st = LKS_OK;
  char group[64], name[128];
  TRY(lks_h5_group(file, "/vars", err)); /* empty; Keras up to 3.3 wants it */
  for (int i = 0; i < model->layer_count; ++i) {
    const lks_layer *layer = &model->layers[i];
    lks_model_keras_group(model, i, group);
    (void)snprintf(name, sizeof(name), "/layers/%s/vars", group);
    TRY(lks_h5_group(file, name, err));
    for (int k = 0; k < layer->parameter_count; ++k) {
      lks_state_variable(group, k, name);
      TRY(reserve(file, name, &model->parameters[layer->first_parameter + k], parameters, plan,
                  err));
    }
  }
cleanup:
  return st;
}

/* /optimizer/vars/<i>: iteration, learning rate, then each parameter's slots in turn. */
static lks_status lay_optimizer(lks_h5 *file, const lks_model *model,
                                const lks_checkpoint *checkpoint, skeleton *plan, lks_error *err) {
  lks_status st = LKS_OK;
  char name[64];
  const int slots = lks_optimizer_slots(&model->optimizer);
  const float rate = (float)model->optimizer.learning_rate;
  int variable = 2;
  for (int s = 0; s < slots; ++s) {
    if (checkpoint->slots[s] == NULL) {
      goto cleanup; /* Keras takes a file without an optimizer, not one with a part of it */
    }
  }
  TRY(lks_h5_write(file, "/optimizer/vars/0", LKS_H5_I64, 0, NULL, &checkpoint->progress.step,
                   err));
  TRY(lks_h5_write(file, "/optimizer/vars/1", LKS_H5_F32, 0, NULL, &rate, err));
  for (int p = 0; p < model->parameter_count; ++p) {
    for (int s = 0; s < slots; ++s) {
      (void)snprintf(name, sizeof(name), "/optimizer/vars/%d", variable++);
      TRY(reserve(file, name, &model->parameters[p], checkpoint->slots[s], plan, err));
    }
  }
cleanup:
  return st;
}

/* One layer of Keras' legacy layout: other names of the same data. */
static lks_status link_layer(lks_h5 *file, const lks_model *model, int i, lks_error *err) {
  lks_status st = LKS_OK;
  lks_arena arena = {0};
  char group[64], target[128];
  const lks_layer *layer = &model->layers[i];
  const char **weights =
      lks_arena_alloc(&arena, ((size_t)layer->parameter_count + 1) * sizeof(*weights));
  const char *folder = lks_arena_print(&arena, "/model_weights/%s", layer->name);
  TRY_ALLOC(weights);
  TRY_ALLOC(folder);
  lks_model_keras_group(model, i, group);
  TRY(lks_h5_group(file, folder, err));
  for (int k = 0; k < layer->parameter_count; ++k) {
    const char *kind = model->parameters[layer->first_parameter + k].name;
    weights[k] = lks_arena_print(&arena, "%s/%s:0", layer->name, kind);
    const char *link = lks_arena_print(&arena, "%s/%s", folder, weights[k]);
    TRY_ALLOC(weights[k]);
    TRY_ALLOC(link);
    lks_state_variable(group, k, target);
    TRY(lks_h5_link(file, target, link, err));
  }
  TRY(lks_h5_attr_texts(file, folder, "weight_names", weights, layer->parameter_count, err));
cleanup:
  lks_arena_free(&arena);
  return st;
}

/* What Keras' load_model reads of an `.h5`. The layout is that of Keras 2, and readers only look
 * whether the version begins with 1: so the last 2 is the truth. `tensorflow` says that kernels
 * are [in, out]. */
static lks_status lay_legacy(lks_h5 *file, const lks_model *model, const lks_checkpoint *checkpoint,
                             lks_error *err) {
  static const char version[] = "2.15.0", backend[] = "tensorflow";
  lks_status st = LKS_OK;
  char *made_model = NULL, *made_training = NULL;
  const char **names = calloc((size_t)model->layer_count + 1, sizeof(*names));
  TRY_ALLOC(names);
  TRY(lks_h5_group(file, "/model_weights", err));
  for (int i = 0; i < model->layer_count; ++i) {
    names[i] = model->layers[i].name;
    TRY(link_layer(file, model, i, err));
  }
  TRY(lks_h5_attr_texts(file, "/model_weights", "layer_names", names, model->layer_count, err));
  TRY(lks_h5_attr_text(file, "/model_weights", "backend", backend, err));
  TRY(lks_h5_attr_text(file, "/model_weights", "keras_version", version, err));
  if (checkpoint->model_config == NULL) {
    made_model = lks_model_keras_config(model);
    TRY_ALLOC(made_model);
  }
  if (checkpoint->training_config == NULL) {
    made_training = lks_model_keras_training(model);
    TRY_ALLOC(made_training);
  }
  TRY(lks_h5_attr_text(file, "/", "model_config",
                       made_model != NULL ? made_model : checkpoint->model_config, err));
  TRY(lks_h5_attr_text(file, "/", "training_config",
                       made_training != NULL ? made_training : checkpoint->training_config, err));
  TRY(lks_h5_attr_text(file, "/", "backend", backend, err));
  TRY(lks_h5_attr_text(file, "/", "keras_version", version, err));
cleanup:
  free(names);
  free(made_model);
  free(made_training);
  return st;
}

static lks_status lay_out(const char *aside, const char *path, const lks_model *model,
                          const lks_checkpoint *checkpoint, skeleton *plan, lks_error *err) {
  lks_status st = LKS_OK;
  char name[64];
  lks_error second;
  lks_h5 *file = NULL;
  TRY(lks_h5_create_aside(aside, path, &file, err));
  TRY(lay_layers(file, model, checkpoint->parameters, plan, err));
  TRY(lay_optimizer(file, model, checkpoint, plan, err));
  TRY(lay_legacy(file, model, checkpoint, err));
  TRY(lks_state_store(checkpoint, file, err));
  for (int p = 0; checkpoint->best_parameters != NULL && p < model->parameter_count; ++p) {
    (void)snprintf(name, sizeof(name), "/lockstep/best/%d", p);
    TRY(reserve(file, name, &model->parameters[p], checkpoint->best_parameters, plan, err));
  }
  TRY(lks_h5_close(&file, err));
cleanup:
  if (lks_h5_close(&file, &second) != LKS_OK) {
    file = NULL; /* the first failure is the one to tell */
  }
  return st;
}

/* ---- filling it */

static int by_offset(const void *a, const void *b) {
  const int64_t left = ((const extent *)a)->offset, right = ((const extent *)b)->offset;
  return (left > right) - (left < right);
}

/* Writes an array and adds it to the hash, unless NULL. Piece by piece, so that it is read from
 * memory once; and synced part by part where there are several: the watchdog sees that a slow disk
 * makes progress, and the last sync has little left to do. */
static lks_status write_all(int fd, const void *data, int64_t bytes, int64_t offset,
                            XXH64_state_t *state, const char *path, lks_error *err) {
  enum { PIECE = 1 << 20, PART = 16 << 20 };
  const char *from = data;
  int64_t unsynced = 0;
  while (bytes > 0) {
    const ssize_t wrote = pwrite(fd, from, (size_t)(bytes < PIECE ? bytes : PIECE), offset);
    if (wrote < 0 && errno == EINTR) {
      continue;
    }
    unsynced += wrote;
    const bool due = unsynced >= PART && wrote < bytes;
    if (wrote <= 0 || (due && fdatasync(fd) != 0)) {
      return lks_fail_write(err, path, wrote == 0 ? EIO : errno);
    }
    if (state != NULL) {
      (void)XXH64_update(state, from, (size_t)wrote);
    }
    unsynced = due ? 0 : unsynced;
    from += wrote;
    offset += wrote;
    bytes -= wrote;
  }
  return LKS_OK;
}

/* Adds bytes [from, to) of the file, which HDF5 wrote, to the hash. */
static lks_status hash_file_part(int fd, int64_t from, int64_t to, XXH64_state_t *state,
                                 const char *path, lks_error *err) {
  unsigned char block[8192];
  while (from < to) {
    const int64_t left = to - from;
    const size_t wanted = left < (int64_t)sizeof(block) ? (size_t)left : sizeof(block);
    const ssize_t got = pread(fd, block, wanted, from);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      return lks_fail_write(err, path, got < 0 ? errno : EIO);
    }
    (void)XXH64_update(state, block, (size_t)got);
    from += got;
  }
  return LKS_OK;
}

/* Writes arrays and seal into the file aside, and syncs it. */
static lks_status fill(const char *aside, const char *path, skeleton *plan, lks_error *err) {
  lks_status st = LKS_OK;
  int64_t at = 0;
  struct stat about;
  XXH64_state_t state;
  unsigned char seal[LKS_SEAL_BYTES];
  (void)XXH64_reset(&state, 0);
  qsort(plan->extents, (size_t)plan->count, sizeof(extent), by_offset);
  const int fd = open(aside, O_RDWR | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &about) != 0) {
    TRY(lks_fail_write(err, path, errno));
  }
  for (int i = 0; i < plan->count; ++i) {
    const extent *next = &plan->extents[i];
    TRY(hash_file_part(fd, at, next->offset, &state, path, err));
    TRY(write_all(fd, next->data, next->bytes, next->offset, &state, path, err));
    at = next->offset + next->bytes;
  }
  TRY(hash_file_part(fd, at, (int64_t)about.st_size, &state, path, err));
  lks_seal_make((int64_t)about.st_size, XXH64_digest(&state), seal);
  TRY(write_all(fd, seal, LKS_SEAL_BYTES, (int64_t)about.st_size, NULL, path, err));
  if (fsync(fd) != 0) {
    TRY(lks_fail_write(err, path, errno));
  }
  /* So that what is read back comes from the disk, where the system follows this advice. */
  (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
cleanup:
  if (fd >= 0) {
    (void)close(fd);
  }
  return st;
}

/* Reads the file aside back. Its seal states what was meant. */
static lks_status read_back(const char *aside, const char *path, lks_error *err) {
  bool sealed = false;
  lks_error found;
  const lks_status st = lks_seal_check(aside, &sealed, &found);
  if (st == LKS_NO_MEMORY) {
    *err = found;
    return st;
  }
  if (st != LKS_OK && access(aside, F_OK) != 0) { /* its folder was moved or removed */
    return lks_fail_write(err, path, errno);
  }
  if (st != LKS_OK || !sealed) {
    return lks_fail(err, LKS_STORAGE, "do not trust this disk; write to another",
                    "cannot write %s: what was read back differs from what was written", path);
  }
  return LKS_OK;
}

lks_status lks_checkpoint_write(const char *path, const lks_model *model,
                                const lks_checkpoint *checkpoint, lks_error *err) {
  lks_status st = LKS_OK;
  lks_arena arena = {0};
  lks_checkpoint content = *checkpoint;
  skeleton plan = {0};
  const char *aside = lks_aside_path(&arena, path);
  TRY_ALLOC(aside);
  content.weights_hash = lks_model_hash(model, checkpoint->parameters);
  plan.extents = lks_arena_alloc(&arena, (size_t)model->parameter_count * (LKS_MAX_SLOTS + 2) *
                                             sizeof(extent));
  TRY_ALLOC(plan.extents);
  TRY(lay_out(aside, path, model, &content, &plan, err));
  TRY(fill(aside, path, &plan, err));
  TRY(read_back(aside, path, err));
  TRY(lks_file_publish(aside, path, err));
cleanup:
  if (st != LKS_OK && aside != NULL) {
    (void)unlink(aside);
  }
  lks_arena_free(&arena);
  return st;
}
