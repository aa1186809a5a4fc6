/* See reference.h. Formulas: keras/src/activations, keras/src/losses, keras/src/optimizers. */
#include "backend/reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"

static void activate(const lks_activation *activation, double *v, int64_t n) {
  const double a = activation->parameter;
  const double selu_scale = 1.05070098735548049342, selu_alpha = 1.67326324235437728482;
  double top = v[0], sum = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    top = v[i] > top ? v[i] : top;
  }
  for (int64_t i = 0; i < n; ++i) {
    sum += exp(v[i] - top);
  }
  for (int64_t i = 0; i < n; ++i) {
    const double z = v[i];
    switch (lks_activation_row_of(activation)->id) {
    case LKS_ACT_LINEAR:
    case LKS_ACT_COUNT:
      break;
    case LKS_ACT_RELU:
      v[i] = z > 0.0 ? z : 0.0;
      break;
    case LKS_ACT_SIGMOID:
      v[i] = 1.0 / (1.0 + exp(-z));
      break;
    case LKS_ACT_TANH:
      v[i] = tanh(z);
      break;
    case LKS_ACT_SOFTMAX:
      v[i] = exp(z - top) / sum;
      break;
    case LKS_ACT_SOFTPLUS:
      v[i] = log1p(exp(z));
      break;
    case LKS_ACT_ELU:
      v[i] = z > 0.0 ? z : a * (exp(z) - 1.0);
      break;
    case LKS_ACT_SELU:
      v[i] = selu_scale * (z > 0.0 ? z : selu_alpha * (exp(z) - 1.0));
      break;
    case LKS_ACT_GELU:
      v[i] = 0.5 * z * (1.0 + erf(z / sqrt(2.0)));
      break;
    case LKS_ACT_SILU:
      v[i] = z / (1.0 + exp(-z));
      break;
    case LKS_ACT_LEAKY_RELU:
      v[i] = z > 0.0 ? z : a * z;
      break;
    case LKS_ACT_EXPONENTIAL:
      v[i] = exp(z);
      break;
    }
  }
}

static void dense(const lks_model *model, const lks_layer *layer, const double *parameters,
                  const double *in, double *out) {
  const lks_parameter *p = model->parameters + layer->first_parameter;
  const double *w = parameters + p[0].offset;
  for (int64_t j = 0; j < layer->outputs; ++j) {
    out[j] = layer->parameter_count > 1 ? parameters[p[1].offset + j] : 0.0;
    for (int64_t i = 0; i < layer->inputs; ++i) {
      out[j] += in[i] * w[i * layer->outputs + j];
    }
  }
}

static void drop(const lks_reference_batch *batch, int layer, double rate, int64_t row, double *v,
                 int64_t n) {
  const uint64_t key = lks_random_key(batch->seed, LKS_PURPOSE_DROPOUT, (uint64_t)layer);
  const uint64_t id = (uint64_t)batch->row_ids[row], step = (uint64_t)batch->step;
  for (int64_t u = 0; u < n; ++u) {
    const lks_random4 words = lks_philox((uint32_t)(u / 4), (uint32_t)id, (uint32_t)step,
                                         (uint32_t)(id >> 32) ^ (uint32_t)(step >> 32) << 16,
                                         (uint32_t)key, (uint32_t)(key >> 32));
    const bool kept = (double)words.v[u % 4] >= floor((double)(float)rate * 4294967296.0);
    v[u] = kept ? v[u] / (1.0 - rate) : 0.0;
  }
}

static double row_loss(const lks_model *model, const double *y, const double *t) {
  const int64_t n = model->outputs;
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    switch (model->loss->id) {
    case LKS_LOSS_MEAN_SQUARED_ERROR:
      sum += (y[i] - t[i]) * (y[i] - t[i]) / (double)n;
      break;
    case LKS_LOSS_MEAN_ABSOLUTE_ERROR:
      sum += fabs(y[i] - t[i]) / (double)n;
      break;
    case LKS_LOSS_BINARY_CROSSENTROPY:
      sum -= (t[i] * log(y[i]) + (1.0 - t[i]) * log(1.0 - y[i])) / (double)n;
      break;
    case LKS_LOSS_CATEGORICAL_CROSSENTROPY:
      sum -= t[i] * log(y[i]);
      break;
    case LKS_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY:
      sum -= i == (int64_t)t[0] ? log(y[i]) : 0.0;
      break;
    case LKS_LOSS_COUNT:
      break;
    }
  }
  return sum;
}

static int64_t largest(const double *v, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; ++i) {
    best = v[i] > v[best] ? i : best;
  }
  return best;
}

/* y: the model's outputs (logits where it ends in them); p: after the link. */
static double row_metric(const lks_model *model, lks_metric_id id, const double *y, const double *p,
                         const double *t) {
  const int64_t n = model->outputs;
  double sum = 0.0;
  switch (id) {
  case LKS_METRIC_MAE:
    for (int64_t i = 0; i < n; ++i) {
      sum += fabs(y[i] - t[i]) / (double)n;
    }
    break;
  case LKS_METRIC_MSE:
    for (int64_t i = 0; i < n; ++i) {
      sum += (y[i] - t[i]) * (y[i] - t[i]) / (double)n;
    }
    break;
  case LKS_METRIC_BINARY_ACCURACY:
    for (int64_t i = 0; i < n; ++i) {
      sum += (p[i] > 0.5) == (t[i] > 0.5) ? 1.0 / (double)n : 0.0;
    }
    break;
  case LKS_METRIC_CATEGORICAL_ACCURACY:
    sum = largest(p, n) == largest(t, n) ? 1.0 : 0.0;
    break;
  case LKS_METRIC_SPARSE_CATEGORICAL_ACCURACY:
    sum = largest(p, n) == (int64_t)t[0] ? 1.0 : 0.0;
    break;
  case LKS_METRIC_BY_SHAPE:
  case LKS_METRIC_COUNT:
    break;
  }
  return sum;
}

/* One row through all layers; the result is in v[0]. */
static void forward(const lks_model *model, const double *parameters,
                    const lks_reference_batch *batch, int64_t row, double *v[2]) {
  memcpy(v[0], batch->x + row * model->inputs, (size_t)model->inputs * sizeof(double));
  for (int i = 0; i < model->layer_count; ++i) {
    const lks_layer *layer = &model->layers[i];
    if (layer->row->id == LKS_LAYER_DENSE) {
      dense(model, layer, parameters, v[0], v[1]);
      double *swap = v[0];
      v[0] = v[1];
      v[1] = swap;
    } else if (layer->row->id == LKS_LAYER_DROPOUT && batch->training) {
      drop(batch, i, layer->options->dropout.rate, row, v[0], layer->outputs);
    }
    if (layer->row->activation != NULL) {
      activate(layer->row->activation(layer->options), v[0], layer->outputs);
    }
  }
}

static int64_t widest(const lks_model *model) {
  int64_t width = model->inputs;
  for (int i = 0; i < model->layer_count; ++i) {
    width = model->layers[i].outputs > width ? model->layers[i].outputs : width;
  }
  return width;
}

static void apply_link(const lks_model *model, double *v) {
  static const lks_activation_id ids[] = {[LKS_LINK_NONE] = LKS_ACT_LINEAR,
                                          [LKS_LINK_SIGMOID] = LKS_ACT_SIGMOID,
                                          [LKS_LINK_SOFTMAX] = LKS_ACT_SOFTMAX};
  for (const lks_kind *const *kind = lks_activation_kinds; *kind != NULL; ++kind) {
    const lks_activation activation = {.kind = *kind};
    if (lks_activation_row_of(&activation)->id == ids[model->link]) {
      activate(&activation, v, model->outputs);
    }
  }
}

lks_status lks_reference_run(const lks_model *model, const double *parameters,
                             const lks_reference_batch *batch, lks_reference_result *result,
                             lks_error *err) {
  lks_status st = LKS_OK;
  const size_t width = (size_t)widest(model), n = (size_t)model->outputs;
  const int64_t targets = model->loss->labels ? 1 : model->outputs;
  double *memory = malloc((2 * width + n) * sizeof(double));
  TRY_ALLOC(memory);
  double *p = memory + 2 * width;
  result->loss = 0.0;
  memset(result->metrics, 0, sizeof result->metrics);
  for (int64_t row = 0; row < batch->rows; ++row) {
    double *v[2] = {memory, memory + width};
    const double *t = batch->t + row * targets;
    forward(model, parameters, batch, row, v);
    memcpy(p, v[0], n * sizeof(double));
    if (model->logits) {
      apply_link(model, p);
    }
    result->loss += row_loss(model, p, t);
    for (int i = 0; i < model->metric_count; ++i) {
      result->metrics[i] += row_metric(model, model->metrics[i]->id, v[0], p, t);
    }
    if (result->outputs != NULL) {
      memcpy(result->outputs + row * model->outputs, v[0], n * sizeof(double));
    }
  }
cleanup:
  free(memory);
  return st;
}

lks_status lks_reference_gradient(const lks_model *model, double *parameters,
                                  const lks_reference_batch *batch, double h, double *gradient,
                                  lks_error *err) {
  lks_status st = LKS_OK;
  memset(gradient, 0, (size_t)model->arena_floats * sizeof *gradient);
  for (int k = 0; k < model->parameter_count; ++k) {
    const lks_parameter *parameter = &model->parameters[k];
    for (int64_t i = parameter->offset; i < parameter->offset + parameter->count; ++i) {
      lks_reference_result above = {0}, below = {0};
      const double value = parameters[i];
      parameters[i] = value + h;
      TRY(lks_reference_run(model, parameters, batch, &above, err));
      parameters[i] = value - h;
      TRY(lks_reference_run(model, parameters, batch, &below, err));
      parameters[i] = value;
      gradient[i] = (above.loss - below.loss) / (2.0 * h) / (double)batch->rows;
    }
  }
cleanup:
  return st;
}

void lks_reference_update(const lks_model *model, int64_t t, const double *gradient,
                          double *parameters, double *const *slots) {
  const lks_optimizer *o = &model->optimizer;
  const double rate = o->learning_rate;
  const double alpha =
      rate * sqrt(1.0 - pow(o->beta_2, (double)t)) / (1.0 - pow(o->beta_1, (double)t));
  for (int64_t i = 0; i < model->arena_floats; ++i) {
    const double g = gradient[i];
    if (lks_optimizer_row_of(o)->id == LKS_OPTIMIZER_SGD) {
      const double m = (slots[0] != NULL ? o->momentum * slots[0][i] : 0.0) - rate * g;
      if (slots[0] != NULL) {
        slots[0][i] = m;
      }
      parameters[i] += o->nesterov && slots[0] != NULL ? o->momentum * m - rate * g : m;
      continue;
    }
    parameters[i] -= parameters[i] * o->weight_decay * rate;
    slots[0][i] += (g - slots[0][i]) * (1.0 - o->beta_1);
    slots[1][i] += (g * g - slots[1][i]) * (1.0 - o->beta_2);
    parameters[i] -= alpha * slots[0][i] / (sqrt(slots[1][i]) + o->epsilon);
  }
}
