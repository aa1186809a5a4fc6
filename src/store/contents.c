/* Telling files apart, and walking through them. */
#include "store/contents.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_STATIC_LINKING_ONLY /* the state lies on the stack: nothing to allocate */
#include <xxhash.h>

#include "store/checkpoint.h"
#include "store/seal.h"

/* ---- what a file is */

/* Whether a seal can be looked for at all; *begun: whether the file begins as HDF5 does, so that
 * what HDF5 then refuses is a damaged file and not one of another kind. */
static bool look_at(const char *path, bool *begun) {
  static const unsigned char signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
  unsigned char first[8];
  struct stat about;
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  const bool there =
      fd >= 0 && fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && about.st_size > 0;
  *begun = there && pread(fd, first, sizeof(first), 0) == (ssize_t)sizeof(first) &&
           memcmp(first, signature, sizeof(first)) == 0;
  if (fd >= 0) {
    (void)close(fd);
  }
  return there;
}

/* Whether an attribute holds any text. */
static bool has_texts(lks_h5 *file, const char *object, const char *key) {
  lks_error ignored;
  lks_arena arena = {0};
  lks_texts texts = {0};
  const bool has = lks_h5_exists(file, object) &&
                   lks_h5_attr_read_texts(file, object, key, &arena, &texts, &ignored) == LKS_OK &&
                   texts.count > 0;
  lks_arena_free(&arena);
  return has;
}

/* Layers of Keras' v3 layout have their variables in a group `vars`; a network within a network
 * has `layers` again. */
static bool is_keras_v3(lks_h5 *file) {
  lks_error ignored;
  lks_arena arena = {0};
  lks_texts layers = {0};
  char name[512];
  bool found = false;
  if (lks_h5_members(file, "/layers", &arena, &layers, &ignored) == LKS_OK) {
    for (int i = 0; !found && i < layers.count; ++i) {
      (void)snprintf(name, sizeof(name), "/layers/%s/vars", layers.items[i]);
      found = lks_h5_exists(file, name);
      (void)snprintf(name, sizeof(name), "/layers/%s/layers", layers.items[i]);
      found = found || lks_h5_exists(file, name);
    }
  }
  lks_arena_free(&arena);
  return found;
}

static bool is_keras_legacy(lks_h5 *file) {
  const char *root = lks_h5_exists(file, "/model_weights") ? "/model_weights" : "/";
  /* A long list of names is split over attributes layer_names0, layer_names1, ... */
  return has_texts(file, root, "layer_names") || has_texts(file, root, "layer_names0");
}

/* A dataset may be called like a group of ours: `convert epoch.csv` makes one, with `columns`. */
static bool is_group(lks_h5 *file, const char *name) {
  lks_error ignored;
  lks_arena arena = {0};
  lks_texts members = {0};
  const bool is =
      lks_h5_exists(file, name) && lks_h5_members(file, name, &arena, &members, &ignored) == LKS_OK;
  lks_arena_free(&arena);
  return is;
}

static lks_contents recognise(lks_h5 *file) {
  if (is_group(file, "/lockstep")) {
    return LKS_CONTENTS_CHECKPOINT;
  }
  if (is_group(file, "/epoch") && has_texts(file, "/epoch", "columns")) {
    return LKS_CONTENTS_HISTORY;
  }
  if (has_texts(file, "/predictions", "weights_hash")) {
    return LKS_CONTENTS_PREDICTIONS;
  }
  if (has_texts(file, "/", "report") && lks_h5_exists(file, "/ranks")) {
    return LKS_CONTENTS_DEVICES;
  }
  if (is_keras_v3(file)) {
    return LKS_CONTENTS_KERAS_V3;
  }
  return is_keras_legacy(file) ? LKS_CONTENTS_KERAS_LEGACY : LKS_CONTENTS_OTHER;
}

static lks_status check_checkpoint(lks_h5 *file, bool sealed, lks_error *err) {
  lks_status st = LKS_OK;
  int64_t format = 0;
  if (!sealed) {
    FAIL(LKS_STORAGE, "use another checkpoint, or copy the file again",
         "%s: truncated or changed: its seal is missing", lks_h5_path(file));
  }
  TRY(lks_h5_attr_read_int64(file, "/lockstep", "format", &format, err));
  if (format > LKS_CHECKPOINT_FORMAT) {
    FAIL(LKS_STORAGE, "use a newer version of Lockstep",
         "%s: checkpoint format %" PRId64 " is newer than this version, which reads up to %d",
         lks_h5_path(file), format, LKS_CHECKPOINT_FORMAT);
  }
cleanup:
  return st;
}

lks_status lks_contents_open(const char *path, lks_h5 **file, lks_contents *contents,
                             lks_error *err) {
  lks_status st = LKS_OK;
  bool sealed = false, begun = false;
  *file = NULL;
  *contents = LKS_CONTENTS_OTHER;
  if (look_at(path, &begun)) {
    TRY(lks_seal_check(path, &sealed, err));
  }
  st = lks_h5_open(path, file, err);
  if (st != LKS_OK) {
    /* Without a seal, only its name tells a checkpoint from data. */
    err->status = st == LKS_DATA && begun && lks_ends_with(path, ".weights.h5") ? LKS_STORAGE : st;
    TRY(err->status);
  }
  *contents = recognise(*file);
  if (*contents == LKS_CONTENTS_CHECKPOINT) {
    TRY(check_checkpoint(*file, sealed, err));
  }
cleanup:
  return st;
}

/* ---- datasets */

/* A listing of more helps nobody, and links may go round in circles, whose paths are slow to
 * follow: HDF5 looks every part of a path up again. */
enum { MOST_DEPTH = 12, MOST_LINKS = 10000 };

static lks_status add_item(lks_contents_list *list, lks_arena *arena, const char *name,
                           const lks_h5_info *info, lks_error *err) {
  lks_status st = LKS_OK;
  if (list->count == list->capacity) {
    const int capacity = list->capacity > 0 ? 2 * list->capacity : 16;
    lks_contents_item *items = lks_arena_alloc(arena, (size_t)capacity * sizeof(*items));
    TRY_ALLOC(items);
    if (list->count > 0) {
      memcpy(items, list->items, (size_t)list->count * sizeof(*items));
    }
    list->items = items;
    list->capacity = capacity;
  }
  lks_contents_item *item = &list->items[list->count];
  *item = (lks_contents_item){.name = lks_arena_copy(arena, name), .readable = info != NULL};
  TRY_ALLOC(item->name);
  if (info != NULL) {
    item->info = *info;
  }
  list->count += 1;
cleanup:
  return st;
}

/* root: where the walk began; path: the group to look into, root itself or below it. */
static lks_status walk(lks_h5 *file, const char *root, const char *path, int depth,
                       lks_arena *arena, lks_contents_list *out, lks_error *err) {
  lks_status st = LKS_OK;
  lks_error not_this;
  lks_texts members = {0}, inner = {0};
  TRY(lks_h5_members(file, path[0] != '\0' ? path : "/", arena, &members, err));
  for (int i = 0; i < members.count && out->visited < MOST_LINKS; ++i) {
    lks_h5_dataset *dataset = NULL;
    const char *name = lks_arena_print(arena, "%s/%s", path, members.items[i]);
    TRY_ALLOC(name);
    const char *shown = name + strlen(root) + 1;
    out->visited += 1;
    out->cut = out->cut || out->visited == MOST_LINKS || depth == MOST_DEPTH;
    if (depth == MOST_DEPTH) {
      goto cleanup;
    }
    if (!lks_h5_exists(file, name)) {
      TRY(add_item(out, arena, shown, NULL, err)); /* a link to nothing */
    } else if (lks_h5_members(file, name, arena, &inner, &not_this) == LKS_OK) {
      TRY(walk(file, root, name, depth + 1, arena, out, err));
    } else if (lks_h5_dataset_open(file, name, &dataset, &not_this) == LKS_OK) {
      st = add_item(out, arena, shown, lks_h5_dataset_info(dataset), err);
      lks_h5_dataset_close(&dataset);
      TRY(st);
    } else {
      TRY(add_item(out, arena, shown, NULL, err));
    }
  }
cleanup:
  return st;
}

lks_status lks_contents_walk(lks_h5 *file, const char *group, lks_arena *arena,
                             lks_contents_list *out, lks_error *err) {
  *out = (lks_contents_list){0};
  return walk(file, group, group, 0, arena, out, err);
}

/* ---- layers of a checkpoint */

/* Adds a variable's values to the hash, a piece at a time. */
static lks_status hash_values(lks_h5_dataset *dataset, XXH64_state_t *state, lks_error *err) {
  enum { PIECE = 1 << 18 };
  lks_status st = LKS_OK;
  const lks_h5_info *info = lks_h5_dataset_info(dataset);
  int64_t width = 1;
  for (int d = 1; d < info->rank; ++d) {
    width *= info->shape[d];
  }
  const int64_t rows = info->rank > 0 ? info->shape[0] : 1;
  const int64_t step = width < PIECE ? PIECE / (width > 0 ? width : 1) : 1;
  float *piece = malloc((size_t)((step < rows ? step : rows) * width + 1) * sizeof(*piece));
  TRY_ALLOC(piece);
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = rows - first < step ? rows - first : step;
    TRY(lks_h5_read_rows_float(dataset, first, count, piece, err));
    (void)XXH64_update(state, piece, (size_t)(count * width) * sizeof(*piece));
  }
cleanup:
  free(piece);
  return st;
}

/* weight: "dense/kernel:0" as Keras' legacy layout names it. */
static lks_status read_variable(lks_h5 *file, const char *folder, const char *weight,
                                lks_arena *arena, lks_contents_item *out, int64_t *values,
                                XXH64_state_t *state, lks_error *err) {
  lks_status st = LKS_OK;
  lks_h5_dataset *dataset = NULL;
  const char *path = lks_arena_print(arena, "%s/%s", folder, weight);
  const char *slash = strrchr(weight, '/');
  const char *name = slash != NULL ? slash + 1 : weight;
  TRY_ALLOC(path);
  out->name = lks_arena_copy_n(arena, name, strcspn(name, ":"));
  TRY_ALLOC(out->name);
  TRY(lks_h5_dataset_open(file, path, &dataset, err));
  out->readable = true;
  out->info = *lks_h5_dataset_info(dataset);
  int64_t count = 1;
  for (int d = 0; d < out->info.rank; ++d) {
    count *= out->info.shape[d];
  }
  *values += count;
  TRY(hash_values(dataset, state, err));
cleanup:
  lks_h5_dataset_close(&dataset);
  return st;
}

static lks_status read_layer(lks_h5 *file, lks_arena *arena, lks_contents_layer *layer,
                             XXH64_state_t *state, lks_error *err) {
  lks_status st = LKS_OK;
  lks_texts weights = {0};
  const char *folder = lks_arena_print(arena, "/model_weights/%s", layer->name);
  TRY_ALLOC(folder);
  TRY(lks_h5_attr_read_texts(file, folder, "weight_names", arena, &weights, err));
  layer->variables =
      lks_arena_alloc(arena, ((size_t)weights.count + 1) * sizeof(*layer->variables));
  TRY_ALLOC(layer->variables);
  for (int i = 0; i < weights.count; ++i) {
    TRY(read_variable(file, folder, weights.items[i], arena, &layer->variables[i], &layer->values,
                      state, err));
    layer->count = i + 1;
  }
cleanup:
  return st;
}

lks_status lks_contents_layers(lks_h5 *file, lks_arena *arena, lks_contents_layer **layers,
                               int *count, uint64_t *hash, lks_error *err) {
  lks_status st = LKS_OK;
  lks_texts names = {0};
  XXH64_state_t state;
  (void)XXH64_reset(&state, 0);
  *count = 0;
  /* Of the two layouts in a checkpoint this is the one that states an order. */
  TRY(lks_h5_attr_read_texts(file, "/model_weights", "layer_names", arena, &names, err));
  *layers = lks_arena_alloc(arena, ((size_t)names.count + 1) * sizeof(**layers));
  TRY_ALLOC(*layers);
  for (int i = 0; i < names.count; ++i) {
    (*layers)[i].name = names.items[i];
    TRY(read_layer(file, arena, &(*layers)[i], &state, err));
    *count = i + 1;
  }
  *hash = XXH64_digest(&state);
cleanup:
  return st;
}
