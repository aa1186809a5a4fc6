/* Parameters and optimizer slots in Keras' two layouts, which are also the checkpoint's own. */
#ifndef LKS_STORE_WEIGHTS_H
#define LKS_STORE_WEIGHTS_H

#include "store/checkpoint.h"

typedef enum lks_layout {
  LKS_LAYOUT_NONE,
  LKS_LAYOUT_V3,     /* /layers/<class>/vars/<i>, /optimizer/vars/<i> */
  LKS_LAYOUT_LEGACY, /* [/model_weights]/<layer>/<weight>, named by attributes */
} lks_layout;

/* Which layout a file has. LKS_STORAGE where it has neither. */
lks_status lks_weights_layout(lks_h5 *file, lks_layout *layout, lks_error *err) LKS_MUST_USE;

/* A zeroed array of the model's arena_floats, aligned to 64 bytes; NULL when memory is out. */
float *lks_weights_alloc(const lks_model *model, lks_arena *arena);

/* Reads one parameter into its place in base. LKS_STORAGE naming layer and shapes. */
lks_status lks_weights_one(lks_h5 *file, const char *name, const lks_model *model, int parameter,
                           float *base, lks_error *err) LKS_MUST_USE;

/* All parameters, and those slots and the step that the file holds (v3 only), into *out. */
lks_status lks_weights_read(lks_h5 *file, lks_layout layout, const lks_model *model,
                            lks_arena *arena, lks_checkpoint *out, lks_error *err) LKS_MUST_USE;

#endif
