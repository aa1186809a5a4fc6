/* Reading parameters and slots, whoever wrote the file: layers are matched in order, and the first
 * difference from the model is the message. */
#include "store/weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "store/state.h"

static const char remedy_model[] =
    "use the model that this file was trained with, or another checkpoint";

static const char legacy_group[] = "/model_weights";

/* Keras splits a long list of names over attributes key0, key1, ... */
static lks_status read_names(lks_h5 *file, const char *object, const char *key, lks_arena *arena,
                             lks_texts *out, lks_error *err) {
  lks_status st = LKS_OK;
  char part[64];
  lks_texts more;
  TRY(lks_h5_attr_read_texts(file, object, key, arena, out, err));
  for (int n = 0; out->count == 0 || n > 0; ++n) {
    (void)snprintf(part, sizeof(part), "%s%d", key, n);
    TRY(lks_h5_attr_read_texts(file, object, part, arena, &more, err));
    if (more.count == 0) {
      break;
    }
    const size_t old = (size_t)out->count, added = (size_t)more.count;
    const char **items = lks_arena_alloc(arena, (old + added) * sizeof(*items));
    TRY_ALLOC(items);
    if (old > 0) {
      memcpy(items, out->items, old * sizeof(*items));
    }
    memcpy(items + old, more.items, added * sizeof(*items));
    out->items = items;
    out->count = (int)(old + added);
  }
cleanup:
  return st;
}

lks_status lks_weights_layout(lks_h5 *file, lks_layout *layout, lks_error *err) {
  lks_status st = LKS_OK;
  lks_arena arena = {0};
  lks_texts names;
  *layout = LKS_LAYOUT_NONE;
  if (lks_h5_exists(file, "/layers")) {
    *layout = LKS_LAYOUT_V3;
    goto cleanup;
  }
  TRY(read_names(file, lks_h5_exists(file, legacy_group) ? legacy_group : "/", "layer_names",
                 &arena, &names, err));
  if (names.count > 0) {
    *layout = LKS_LAYOUT_LEGACY;
    goto cleanup;
  }
  const char *list = lks_h5_list(file, "/", 8, &arena);
  TRY_ALLOC(list);
  FAIL(LKS_STORAGE, "name a checkpoint, or weights that Keras saved",
       "%s: holds no model that Lockstep or Keras wrote (has %s)", lks_h5_path(file),
       list[0] != '\0' ? list : "no datasets");
cleanup:
  lks_arena_free(&arena);
  return st;
}

float *lks_weights_alloc(const lks_model *model, lks_arena *arena) {
  const size_t align = 64;
  char *memory = lks_arena_alloc(arena, (size_t)model->arena_floats * sizeof(float) + align);
  if (memory == NULL) {
    return NULL;
  }
  const size_t over = (uintptr_t)memory % align;
  return (float *)(void *)(memory + (over == 0 ? 0 : align - over));
}

/* "[784, 128]" */
static void print_shape(int rank, const int64_t *shape, char out[96]) {
  size_t used = 0;
  out[0] = '\0';
  for (int i = 0; i < rank && used < 64; ++i) {
    used += (size_t)snprintf(out + used, 96 - used, "%s%" PRId64, i > 0 ? ", " : "[", shape[i]);
  }
  (void)snprintf(out + used, 96 - used, "%s", rank > 0 ? "]" : "a scalar");
}

static bool same_shape(const lks_h5_info *info, const lks_parameter *parameter) {
  bool same = info->rank == parameter->rank;
  for (int i = 0; same && i < info->rank; ++i) {
    same = info->shape[i] == parameter->shape[i];
  }
  return same;
}

lks_status lks_weights_one(lks_h5 *file, const char *name, const lks_model *model, int parameter,
                           float *base, lks_error *err) {
  lks_status st = LKS_OK;
  lks_h5_dataset *dataset = NULL;
  const lks_parameter *wanted = &model->parameters[parameter];
  TRY(lks_h5_dataset_open(file, name, &dataset, err));
  const lks_h5_info *info = lks_h5_dataset_info(dataset);
  if (!same_shape(info, wanted)) {
    char found[96], needed[96];
    print_shape(info->rank, info->shape, found);
    print_shape(wanted->rank, wanted->shape, needed);
    FAIL(LKS_STORAGE, remedy_model, "layer %d (%s): %s is %s in %s, the model has %s",
         wanted->layer + 1, model->layers[wanted->layer].name, wanted->name, found,
         lks_h5_path(file), needed);
  }
  TRY(lks_h5_read_rows_float(dataset, 0, wanted->shape[0], base + wanted->offset, err));
cleanup:
  lks_h5_dataset_close(&dataset);
  return st;
}

/* The file lacks a layer, or has it with another number of variables. */
static lks_status check_count(const lks_h5 *file, const lks_model *model, int layer, int found,
                              lks_error *err) {
  const lks_layer *wanted = &model->layers[layer];
  if (found == wanted->parameter_count) {
    return LKS_OK;
  }
  return lks_fail(err, LKS_STORAGE, remedy_model,
                  "layer %d (%s): %d variable%s in %s, the model has %d", layer + 1, wanted->name,
                  found, found == 1 ? "" : "s", lks_h5_path(file), wanted->parameter_count);
}

static lks_status fail_extra(const lks_h5 *file, const char *layer, lks_error *err) {
  return lks_fail(err, LKS_STORAGE, remedy_model,
                  "%s has weights of a layer '%s' that the model does not have", lks_h5_path(file),
                  layer);
}

/* ---- v3 */

/* Refuses layers with variables that no layer of the model is named after. */
static lks_status check_extra(lks_h5 *file, const lks_model *model, lks_arena *arena,
                              lks_error *err) {
  lks_status st = LKS_OK;
  char folder[512];
  char(*groups)[64] = lks_arena_alloc(arena, (size_t)model->layer_count * sizeof *groups);
  lks_texts layers, variables;
  TRY_ALLOC(groups);
  for (int k = 0; k < model->layer_count; ++k) {
    lks_model_keras_group(model, k, groups[k]);
  }
  TRY(lks_h5_members(file, "/layers", arena, &layers, err));
  for (int i = 0; i < layers.count; ++i) {
    bool known = false;
    for (int k = 0; !known && k < model->layer_count; ++k) {
      known = strcmp(groups[k], layers.items[i]) == 0;
    }
    (void)snprintf(folder, sizeof(folder), "/layers/%s/vars", layers.items[i]);
    TRY(lks_h5_members(file, folder, arena, &variables, err));
    if (!known && variables.count > 0) {
      TRY(fail_extra(file, layers.items[i], err));
    }
  }
cleanup:
  return st;
}

static lks_status read_v3(lks_h5 *file, const lks_model *model, lks_arena *arena, float *parameters,
                          lks_error *err) {
  lks_status st = LKS_OK;
  char group[64], name[128];
  lks_texts variables;
  for (int i = 0; i < model->layer_count; ++i) {
    lks_model_keras_group(model, i, group);
    (void)snprintf(name, sizeof(name), "/layers/%s/vars", group);
    TRY(lks_h5_members(file, name, arena, &variables, err));
    TRY(check_count(file, model, i, variables.count, err));
    for (int k = 0; k < variables.count; ++k) {
      lks_state_variable(group, k, name);
      TRY(lks_weights_one(file, name, model, model->layers[i].first_parameter + k, parameters,
                          err));
    }
  }
  TRY(check_extra(file, model, arena, err));
cleanup:
  return st;
}

/* True when the file's optimizer variables are this optimizer's; first: where slots begin, behind
 * iteration and, unless it follows a schedule, learning rate. */
static bool slots_fit(lks_h5 *file, const lks_model *model, int variables, int *first) {
  lks_error ignored;
  char name[64];
  const int slots = lks_optimizer_slots(&model->optimizer);
  *first = variables - slots * model->parameter_count;
  bool fit = slots > 0 && (*first == 1 || *first == 2);
  for (int i = 0; fit && i < slots * model->parameter_count; ++i) {
    lks_h5_dataset *dataset = NULL;
    (void)snprintf(name, sizeof(name), "/optimizer/vars/%d", *first + i);
    fit = lks_h5_dataset_open(file, name, &dataset, &ignored) == LKS_OK &&
          same_shape(lks_h5_dataset_info(dataset), &model->parameters[i / slots]);
    lks_h5_dataset_close(&dataset);
  }
  return fit;
}

/* Slots only where they fit: a file of another optimizer still gives its parameters. */
static lks_status read_slots(lks_h5 *file, const lks_model *model, lks_arena *arena,
                             lks_checkpoint *out, lks_error *err) {
  lks_status st = LKS_OK;
  char name[64];
  int first = 0;
  lks_texts variables;
  float *into[LKS_MAX_SLOTS] = {NULL};
  const int slots = lks_optimizer_slots(&model->optimizer);
  TRY(lks_h5_members(file, "/optimizer/vars", arena, &variables, err));
  if (!slots_fit(file, model, variables.count, &first)) {
    goto cleanup;
  }
  for (int s = 0; s < slots; ++s) {
    into[s] = lks_weights_alloc(model, arena);
    TRY_ALLOC(into[s]);
    out->slots[s] = into[s];
  }
  for (int i = 0; i < slots * model->parameter_count; ++i) {
    (void)snprintf(name, sizeof(name), "/optimizer/vars/%d", first + i);
    TRY(lks_weights_one(file, name, model, i / slots, into[i % slots], err));
  }
cleanup:
  return st;
}

/* ---- legacy */

/* The weights of one layer of the file into the model's next layer that has any. */
static lks_status read_legacy_layer(lks_h5 *file, const char *folder, const lks_texts *weights,
                                    const lks_model *model, int layer, float *parameters,
                                    lks_error *err) {
  lks_status st = LKS_OK;
  lks_arena arena = {0};
  TRY(check_count(file, model, layer, weights->count, err));
  for (int k = 0; k < weights->count; ++k) {
    const char *name = lks_arena_print(&arena, "%s/%s", folder, weights->items[k]);
    TRY_ALLOC(name);
    TRY(lks_weights_one(file, name, model, model->layers[layer].first_parameter + k, parameters,
                        err));
  }
cleanup:
  lks_arena_free(&arena);
  return st;
}

/* The next layer with parameters from `layer` on; layer_count where there is none. */
static int next_layer(const lks_model *model, int layer) {
  while (layer < model->layer_count && model->layers[layer].parameter_count == 0) {
    ++layer;
  }
  return layer;
}

static lks_status read_legacy(lks_h5 *file, const lks_model *model, lks_arena *arena,
                              float *parameters, lks_error *err) {
  lks_status st = LKS_OK;
  lks_texts layers, weights;
  const char *root = lks_h5_exists(file, legacy_group) ? legacy_group : "";
  int layer = next_layer(model, 0);
  TRY(read_names(file, root[0] != '\0' ? root : "/", "layer_names", arena, &layers, err));
  for (int i = 0; i < layers.count; ++i) {
    const char *folder = lks_arena_print(arena, "%s/%s", root, layers.items[i]);
    TRY_ALLOC(folder);
    TRY(read_names(file, folder, "weight_names", arena, &weights, err));
    if (weights.count == 0) {
      continue;
    }
    if (layer == model->layer_count) {
      TRY(fail_extra(file, layers.items[i], err));
    }
    TRY(read_legacy_layer(file, folder, &weights, model, layer, parameters, err));
    layer = next_layer(model, layer + 1);
  }
  if (layer < model->layer_count) {
    TRY(check_count(file, model, layer, 0, err));
  }
cleanup:
  return st;
}

lks_status lks_weights_read(lks_h5 *file, lks_layout layout, const lks_model *model,
                            lks_arena *arena, lks_checkpoint *out, lks_error *err) {
  lks_status st = LKS_OK;
  float *parameters = lks_weights_alloc(model, arena);
  TRY_ALLOC(parameters);
  if (layout == LKS_LAYOUT_V3) {
    TRY(read_v3(file, model, arena, parameters, err));
    TRY(read_slots(file, model, arena, out, err));
  } else {
    TRY(read_legacy(file, model, arena, parameters, err));
  }
  out->parameters = parameters;
cleanup:
  return st;
}
