/* See stored.h. */
#include "train/stored.h"

#include <jansson.h>
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

static lks_status look(const lks_settings *settings, bool of_run, lks_stored *stored,
                       lks_arena *arena, lks_error *err) {
  lks_status st = LKS_OK;
  lks_checkpoint checkpoint = {0};
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
cleanup:
  return st;
}
