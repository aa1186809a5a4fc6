/* Emission: how each kind of layer becomes operations. Internal to the plan. */
#ifndef LKS_PLAN_EMIT_H
#define LKS_PLAN_EMIT_H

#include "plan/plan.h"

/* Where a layer's tensors lie, as offsets into the work arena. */
typedef struct lks_layer_places {
  size_t out;  /* f(z), or the dropped-out inputs */
  size_t z;    /* pre-activation, where the derivative needs it; else = out */
  size_t mask; /* dropout: a byte a unit, in floats' space */
} lks_layer_places;

typedef enum lks_mode { LKS_MODE_TRAIN, LKS_MODE_EVALUATE, LKS_MODE_PREDICT } lks_mode;

/* A program under construction. */
typedef struct lks_emitter {
  lks_plan *plan;
  const lks_layer_places *places; /* [layer_count] */
  lks_mode mode;
  lks_program *program; /* room for every operation of the model */
  lks_program *weights; /* where products that make gradients of weights go; may be `program` */
  size_t current;       /* forward: where the rows are now */
  size_t targets;       /* of the loss */
  size_t *inputs;       /* [layer_count]: where each layer's input lies, set going forward */
  size_t *gradient;     /* [gradients]: tensors of gradients, used in turn */
  int gradients, turn;  /* how many there are; which holds the gradient now */
  int64_t most_rows;    /* that an operation works on at once */
  bool fused;           /* the last activation belongs to the loss */
} lks_emitter;

/* The most operations one layer can emit in one program. */
#define LKS_LAYER_MAX_OPS 4

/* Work tensors a layer needs, as floats a row; 0: none. */
typedef struct lks_needs {
  int64_t out, z, mask;
} lks_needs;
/* Whether products of so many rows with a layer's weights are `few`: see plan.h. */
bool lks_plan_is_few(int64_t rows, const lks_layer *layer);

lks_needs lks_layer_needs(const lks_model *model, int layer);

void lks_emit_forward(lks_emitter *emitter, int layer);
/* Emits what turns the gradient of the layer's output into that of its parameters and, unless
 * `lowest`, of its input. */
void lks_emit_backward(lks_emitter *emitter, int layer, bool lowest);
void lks_emit_loss(lks_emitter *emitter);

#endif
