/* What an HDF5 file is, told by what it holds and not by its name; and its parts, for listing. */
#ifndef LKS_STORE_CONTENTS_H
#define LKS_STORE_CONTENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/h5.h"

typedef enum lks_contents {
  LKS_CONTENTS_OTHER,        /* none of those below */
  LKS_CONTENTS_CHECKPOINT,   /* group /lockstep, and a sound seal */
  LKS_CONTENTS_KERAS_V3,     /* /layers/<layer>/vars: weights that Keras saved */
  LKS_CONTENTS_KERAS_LEGACY, /* the attribute layer_names: the same, or a whole model */
  LKS_CONTENTS_HISTORY,      /* /epoch with the attribute `columns` */
  LKS_CONTENTS_PREDICTIONS,  /* /predictions with the attribute `weights_hash` */
  LKS_CONTENTS_DEVICES,      /* the root's attribute `report`: what ranks ran on */
} lks_contents;

/* Verifies the seal, where there is one, before HDF5 sees the file; then opens it and tells what
 * it is. Errors: LKS_DATA where there is no HDF5 file of that name, or one that cannot be opened;
 * LKS_STORAGE where that is a checkpoint, by its seal, its name or what it holds, or one of a newer
 * format. Not collective. */
lks_status lks_contents_open(const char *path, lks_h5 **file, lks_contents *contents,
                             lks_error *err) LKS_MUST_USE;

/* One dataset. */
typedef struct lks_contents_item {
  const char *name; /* relative to where the walk began: "dense/vars/0" */
  bool readable;    /* false: not a dataset with a shape, and info is unset */
  lks_h5_info info;
} lks_contents_item;

typedef struct lks_contents_list {
  lks_contents_item *items; /* in the arena */
  int count;
  int capacity;
  int visited; /* links followed */
  bool cut;    /* there is more than the walk was ready to follow */
} lks_contents_list;

/* All datasets below a group ("" for the root), in name order. An object with several names is
 * listed under each; links that go round in circles are cut off. Not collective. */
lks_status lks_contents_walk(lks_h5 *file, const char *group, lks_arena *arena,
                             lks_contents_list *out, lks_error *err) LKS_MUST_USE;

/* One layer of a checkpoint, in the model's order. */
typedef struct lks_contents_layer {
  const char *name;
  lks_contents_item *variables; /* [count]; name: "kernel" */
  int count;
  int64_t values; /* parameters of the layer */
} lks_contents_layer;

/* The layers of a checkpoint and the XXH64 of their values in that order, which is what its
 * weights_hash states. Not collective. */
lks_status lks_contents_layers(lks_h5 *file, lks_arena *arena, lks_contents_layer **layers,
                               int *count, uint64_t *hash, lks_error *err) LKS_MUST_USE;

#endif
