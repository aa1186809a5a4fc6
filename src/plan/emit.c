/* One forward and one backward emitter a kind of layer. Adding a layer adds a row to `emitters`.
 *
 * The derivative of an activation is fused into the operation that makes its gradient wherever
 * that is a dense layer's backward product; else it stands alone. */
#include "plan/emit.h"

#include <math.h>

typedef struct layer_emitter {
  lks_needs (*needs)(const lks_layer *layer);
  void (*forward)(lks_emitter *emitter, int layer);
  void (*backward)(lks_emitter *emitter, int layer, bool lowest);
} layer_emitter;

bool lks_plan_is_few(int64_t rows, const lks_layer *layer) {
  return rows <= LKS_FEW_ROWS && layer->inputs * layer->outputs > LKS_LARGE_WEIGHTS;
}

static const lks_layer *layer_of(const lks_emitter *emitter, int layer) {
  return &emitter->plan->model->layers[layer];
}

static lks_op *append_to(lks_program *program, const lks_emitter *emitter, lks_op_kind kind,
                         int layer) {
  lks_op *op = &program->ops[program->count++];
  *op = (lks_op){.kind = kind, .layer = layer};
  if (layer >= 0) {
    op->inputs = layer_of(emitter, layer)->inputs;
    op->outputs = layer_of(emitter, layer)->outputs;
    op->few = lks_plan_is_few(emitter->most_rows, layer_of(emitter, layer));
  }
  return op;
}

static lks_op *append(lks_emitter *emitter, lks_op_kind kind, int layer) {
  return append_to(emitter->program, emitter, kind, layer);
}

/* The activation a layer applies in this program: none when it belongs to the loss. */
static const lks_activation *activation_of(const lks_emitter *emitter, int layer) {
  const lks_layer *l = layer_of(emitter, layer);
  const bool last = layer == emitter->plan->model->layer_count - 1;
  if (last && emitter->fused && emitter->mode != LKS_MODE_PREDICT) {
    return NULL;
  }
  return lks_activation_if_any(l->row->activation(l->options));
}

/* Multiplies the gradient at hand by f'. Joins the product that has just made it, if one has. */
static void emit_derivative(lks_emitter *emitter, int layer, size_t y, size_t z) {
  const lks_activation *activation = activation_of(emitter, layer);
  if (activation == NULL) {
    return;
  }
  lks_op *op =
      emitter->program->count > 0 ? &emitter->program->ops[emitter->program->count - 1] : NULL;
  const size_t gradient = emitter->gradient[emitter->turn];
  if (op == NULL || op->kind != LKS_OP_DENSE_BACKWARD_INPUT || op->activation != NULL) {
    op = append(emitter, LKS_OP_ACTIVATION_BACKWARD, layer);
    op->out = gradient;
  }
  op->activation = activation;
  op->y = y;
  op->z = z;
}

/* ---- dense */

static lks_needs dense_needs(const lks_layer *layer) {
  const lks_activation *activation = layer->row->activation(layer->options);
  const bool keeps_z = lks_activation_row_of(activation)->needs_input;
  return (lks_needs){.out = layer->outputs, .z = keeps_z ? layer->outputs : 0};
}

/* Offsets of kernel and bias; false without a bias. */
static bool parameter_places(const lks_emitter *emitter, int layer, size_t *weights, size_t *bias) {
  const lks_layer *l = layer_of(emitter, layer);
  const lks_parameter *parameters = emitter->plan->model->parameters + l->first_parameter;
  *weights = (size_t)parameters[0].offset;
  *bias = l->parameter_count > 1 ? (size_t)parameters[1].offset : 0;
  return l->parameter_count > 1;
}

static void dense_forward(lks_emitter *emitter, int layer) {
  lks_op *op = append(emitter, LKS_OP_DENSE_FORWARD, layer);
  op->has_bias = parameter_places(emitter, layer, &op->weights, &op->bias);
  op->activation = activation_of(emitter, layer);
  op->in = emitter->current;
  op->out = emitter->places[layer].out;
  op->aux = emitter->places[layer].z;
  if (op->activation == NULL) {
    op->aux = op->out;
  }
  emitter->current = op->out;
}

static void dense_backward(lks_emitter *emitter, int layer, bool lowest) {
  emit_derivative(emitter, layer, emitter->places[layer].out, emitter->places[layer].z);
  lks_op *op = append_to(emitter->weights, emitter, LKS_OP_DENSE_BACKWARD_WEIGHTS, layer);
  op->has_bias = parameter_places(emitter, layer, &op->weights, &op->bias);
  op->in = emitter->inputs[layer];
  op->out = emitter->gradient[emitter->turn];
  if (lowest) {
    return;
  }
  const size_t dz = op->out, weights = op->weights;
  op = append(emitter, LKS_OP_DENSE_BACKWARD_INPUT, layer);
  op->weights = weights;
  op->in = dz;
  emitter->turn = (emitter->turn + 1) % emitter->gradients;
  op->out = emitter->gradient[emitter->turn];
}

/* ---- activation */

static lks_needs width_needs(const lks_layer *layer) {
  return (lks_needs){.out = layer->outputs};
}

static void activation_forward(lks_emitter *emitter, int layer) {
  const lks_activation *activation = activation_of(emitter, layer);
  if (activation == NULL) {
    return;
  }
  lks_op *op = append(emitter, LKS_OP_ACTIVATION_FORWARD, layer);
  op->activation = activation;
  op->in = emitter->current;
  op->out = emitter->places[layer].out;
  emitter->current = op->out;
}

static void activation_backward(lks_emitter *emitter, int layer, bool lowest) {
  (void)lowest; /* the lowest has parameters */
  emit_derivative(emitter, layer, emitter->places[layer].out, emitter->inputs[layer]);
}

/* ---- dropout */

static lks_needs dropout_needs(const lks_layer *layer) {
  return (lks_needs){.out = layer->outputs, .mask = (layer->outputs + 3) / 4};
}

/* As a float, and below 1 there too: what is kept is divided by 1 - rate. */
static float rate_of(const lks_emitter *emitter, int layer) {
  const float rate = (float)layer_of(emitter, layer)->options->dropout.rate;
  return rate < 1.0f ? rate : nextafterf(1.0f, 0.0f);
}

static bool drops(const lks_emitter *emitter, int layer) {
  return emitter->mode == LKS_MODE_TRAIN && rate_of(emitter, layer) > 0.0f;
}

static void dropout_forward(lks_emitter *emitter, int layer) {
  if (!drops(emitter, layer)) {
    return;
  }
  lks_op *op = append(emitter, LKS_OP_DROPOUT_FORWARD, layer);
  op->rate = rate_of(emitter, layer);
  op->in = emitter->current;
  op->out = emitter->places[layer].out;
  op->aux = emitter->places[layer].mask;
  emitter->current = op->out;
}

static void dropout_backward(lks_emitter *emitter, int layer, bool lowest) {
  (void)lowest; /* the lowest has parameters */
  if (!drops(emitter, layer)) {
    return;
  }
  lks_op *op = append(emitter, LKS_OP_DROPOUT_BACKWARD, layer);
  op->rate = rate_of(emitter, layer);
  op->out = emitter->gradient[emitter->turn];
  op->aux = emitter->places[layer].mask;
}

static const layer_emitter emitters[] = {
    [LKS_LAYER_DENSE] = {dense_needs, dense_forward, dense_backward},
    [LKS_LAYER_ACTIVATION] = {width_needs, activation_forward, activation_backward},
    [LKS_LAYER_DROPOUT] = {dropout_needs, dropout_forward, dropout_backward},
};

lks_needs lks_layer_needs(const lks_model *model, int layer) {
  return emitters[model->layers[layer].row->id].needs(&model->layers[layer]);
}

void lks_emit_forward(lks_emitter *emitter, int layer) {
  emitter->inputs[layer] = emitter->current;
  emitters[layer_of(emitter, layer)->row->id].forward(emitter, layer);
}

void lks_emit_backward(lks_emitter *emitter, int layer, bool lowest) {
  emitters[layer_of(emitter, layer)->row->id].backward(emitter, layer, lowest);
}

void lks_emit_loss(lks_emitter *emitter) {
  const bool train = emitter->mode == LKS_MODE_TRAIN;
  lks_op *op = append(emitter, train ? LKS_OP_LOSS_GRADIENT : LKS_OP_LOSS, -1);
  op->inputs = emitter->plan->model->outputs;
  op->outputs = op->inputs;
  op->in = emitter->current;
  op->aux = emitter->targets;
  op->out = train ? emitter->gradient[emitter->turn] : 0;
}
