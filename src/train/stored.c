/* See stored.h. */
#include "train/stored.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* One scaling from rank 0 to all. */
static lks_status tell_scaling(lks_world *world, lks_scaling *scaling, lks_arena *arena,
                               lks_error *err) {
  lks_status st = LKS_OK;
  TRY(lks_world_broadcast(world, &scaling->columns, sizeof scaling->columns, 0, err));
  if (scaling->columns == 0) {
    goto cleanup;
  }
  const size_t bytes = (size_t)scaling->columns * sizeof(double);
  if (world->rank != 0) {
    scaling->shift = lks_arena_alloc(arena, bytes);
    scaling->factor = lks_arena_alloc(arena, bytes);
    if (scaling->shift == NULL || scaling->factor == NULL) {
      st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for scaling");
    }
  }
  TRY(lks_agree(world, st, err));
  TRY(lks_world_broadcast(world, scaling->shift, bytes, 0, err));
  TRY(lks_world_broadcast(world, scaling->factor, bytes, 0, err));
cleanup:
  return st;
}

/* A list of names from rank 0 to all. */
static lks_status tell_names(lks_world *world, lks_texts *names, lks_arena *arena, lks_error *err) {
  lks_status st = LKS_OK;
  int64_t told[2] = {names->count, 0}; /* how many, and bytes of all with their ends */
  for (int i = 0; i < names->count; ++i) {
    told[1] += (int64_t)strlen(names->items[i]) + 1;
  }
  TRY(lks_world_broadcast(world, told, sizeof told, 0, err));
  char *all = lks_arena_alloc(arena, (size_t)told[1] + 1);
  const char **items = lks_arena_alloc(arena, ((size_t)told[0] + 1) * sizeof *items);
  if (all == NULL || items == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for names of datasets");
  }
  TRY(lks_agree(world, st, err));
  size_t at = 0;
  for (int i = 0; i < names->count; ++i) {
    const size_t size = strlen(names->items[i]) + 1;
    memcpy(all + at, names->items[i], size);
    at += size;
  }
  TRY(lks_world_broadcast(world, all, (size_t)told[1], 0, err));
  at = 0;
  for (int i = 0; i < (int)told[0]; ++i) {
    items[i] = all + at;
    at += strlen(items[i]) + 1;
  }
  *names = (lks_texts){items, (int)told[0]};
cleanup:
  return st;
}

/* Columns of the input layer in Keras' model_config; 0 where it does not say. */
static int64_t input_columns(const char *model_config) {
  json_int_t columns = 0;
  json_t *root = model_config != NULL ? json_loads(model_config, 0, NULL) : NULL;
  const json_t *layers = json_object_get(json_object_get(root, "config"), "layers");
  const json_t *shape =
      json_object_get(json_object_get(json_array_get(layers, 0), "config"), "batch_input_shape");
  columns = json_integer_value(json_array_get(shape, 1));
  json_decref(root);
  return (int64_t)columns;
}

/* Names of datasets into the arena. */
static lks_status copy_names(const lks_texts *from, lks_arena *arena, lks_texts *names,
                             lks_error *err) {
  lks_status st = LKS_OK;
  names->items = lks_arena_alloc(arena, ((size_t)from->count + 1) * sizeof *names->items);
  TRY_ALLOC(names->items);
  for (int i = 0; i < from->count; ++i) {
    names->items[i] = lks_arena_copy(arena, from->items[i]);
    TRY_ALLOC(names->items[i]);
    names->count = i + 1;
  }
cleanup:
  return st;
}

static bool starts_with(const char *text, const char *start) {
  return strncmp(text, start, strlen(start)) == 0;
}

/* Warns of layers and scaling that are not those of the training. Other layers that the parameters
 * fit are taken as the configuration has them; the scaling is the file's. */
static lks_status compare_model(const lks_settings *old, const lks_settings *present,
                                const char *path, lks_error *err) {
  lks_status st = LKS_OK;
  lks_arena arena = {0};
  lks_text text = {0};
  lks_difference *differences = NULL;
  int count = 0;
  TRY(lks_settings_compare(old, present, &arena, &differences, &count, err));
  for (int i = 0; i < count; ++i) {
    const bool scaling = starts_with(differences[i].key, "data.scaling");
    if (scaling || starts_with(differences[i].key, "model")) {
      lks_text_add(&text, "%s%s was %s and is %s%s", text.length > 0 ? "; " : "",
                   differences[i].key, differences[i].old_value, differences[i].new_value,
                   scaling ? " now, which is not used: scaling is the file's" : " now");
    }
  }
  if (text.length > 0) {
    (void)fprintf(stderr, "lockstep: warning: %s was trained with other settings: %s\n", path,
                  text.data);
  }
cleanup:
  lks_text_free(&text);
  lks_arena_free(&arena);
  return st;
}

/* What the stored configuration says; nothing where another version wrote what this one cannot
 * read. */
static lks_status look_at_config(const char *config, const lks_settings *settings,
                                 lks_stored *stored, lks_arena *arena, lks_error *err) {
  lks_status st = LKS_OK;
  lks_error ignored;
  lks_settings *old = NULL;
  if (config == NULL ||
      lks_settings_parse(config, "the stored configuration", NULL, 0, &old, &ignored) != LKS_OK) {
    goto cleanup;
  }
  TRY(copy_names(&old->data.train.features, arena, &stored->feature_names, err));
  TRY(compare_model(old, settings, stored->path, err));
cleanup:
  lks_settings_free(&old);
  return st;
}

static lks_status look(const lks_settings *settings, bool of_run, lks_stored *stored,
                       lks_arena *arena, lks_error *err) {
  lks_status st = LKS_OK;
  lks_checkpoint checkpoint = {0};
  const char *kept = lks_arena_print(arena, "%s/checkpoints", settings->run.folder);
  TRY_ALLOC(kept);
  if (of_run && access(stored->path, F_OK) != 0 && access(kept, F_OK) != 0) {
    FAIL(LKS_STORAGE, "train first, or name another run.folder, or a file by --checkpoint",
         "%s: there is no such file: no run was begun in this folder", stored->path);
  }
  if (of_run && access(stored->path, F_OK) != 0) {
    st = lks_fail(err, LKS_STORAGE, NULL, "%s: there is no such file: the run is not complete",
                  stored->path);
    lks_advise(err, "train to the end, or use --checkpoint %s/checkpoints/latest.weights.h5",
               settings->run.folder);
    goto cleanup;
  }
  TRY(lks_checkpoint_peek(stored->path, arena, &checkpoint, err));
  stored->known = checkpoint.config != NULL;
  stored->inputs = input_columns(checkpoint.model_config);
  stored->features = checkpoint.features;
  stored->targets = checkpoint.targets;
  TRY(look_at_config(checkpoint.config, settings, stored, arena, err));
cleanup:
  return st;
}

lks_status lks_stored_read(lks_world *world, const lks_settings *settings, const char *path,
                           lks_arena *arena, lks_stored *stored, lks_error *err) {
  lks_status st = LKS_OK;
  *stored = (lks_stored){.path = path};
  lks_world_phase(world, "checkpoint");
  if (path == NULL) {
    stored->path = lks_arena_print(arena, "%s/model.weights.h5", settings->run.folder);
    if (stored->path == NULL) {
      st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for a path");
    }
  }
  if (st == LKS_OK && world->rank == 0) {
    st = look(settings, path == NULL, stored, arena, err);
  }
  TRY(lks_agree(world, st, err));
  TRY(lks_world_broadcast(world, &stored->known, sizeof stored->known, 0, err));
  TRY(lks_world_broadcast(world, &stored->inputs, sizeof stored->inputs, 0, err));
  TRY(tell_scaling(world, &stored->features, arena, err));
  TRY(tell_scaling(world, &stored->targets, arena, err));
  TRY(tell_names(world, &stored->feature_names, arena, err));
cleanup:
  return st;
}
