/* Formulas as in Keras 3 (keras/src/optimizers): see lks_update for the scalars. */
#include "backend/cpu/update.h"

#include <math.h>

#include "backend/cpu/cpu.h"

LKS_HOT static void sgd(size_t count, float rate, const float *restrict g, float *restrict w) {
  for (size_t i = 0; i < count; ++i) {
    w[i] -= rate * g[i];
  }
}

LKS_HOT static void momentum(size_t count, float rate, float mu, bool nesterov,
                             const float *restrict g, float *restrict w, float *restrict m) {
  if (nesterov) {
    for (size_t i = 0; i < count; ++i) {
      const float step = rate * g[i];
      const float velocity = mu * m[i] - step;
      m[i] = velocity;
      w[i] += mu * velocity - step;
    }
  } else {
    for (size_t i = 0; i < count; ++i) {
      const float velocity = mu * m[i] - rate * g[i];
      m[i] = velocity;
      w[i] += velocity;
    }
  }
}

LKS_HOT static void adam(size_t count, const lks_update *update, const float *restrict g,
                         float *restrict w, float *restrict m, float *restrict v) {
  const float alpha = update->alpha, epsilon = update->epsilon, decay = update->decay;
  const float a = update->one_minus_beta_1, b = update->one_minus_beta_2;
  for (size_t i = 0; i < count; ++i) {
    const float mean = m[i] + (g[i] - m[i]) * a;
    const float square = v[i] + (g[i] * g[i] - v[i]) * b;
    m[i] = mean;
    v[i] = square;
    w[i] = (w[i] - w[i] * decay) - alpha * mean / (sqrtf(square) + epsilon);
  }
}

void lks_update_cpu(const lks_update *update, size_t count, const float *g,
                    const lks_values *values) {
  float *w = values->w, *const *slots = values->slots;
  switch (update->id) {
  case LKS_OPTIMIZER_SGD:
    if (slots[0] == NULL) {
      sgd(count, update->learning_rate, g, w);
    } else {
      momentum(count, update->learning_rate, update->momentum, update->nesterov, g, w, slots[0]);
    }
    break;
  case LKS_OPTIMIZER_ADAM:
  case LKS_OPTIMIZER_ADAMW: /* plain Adam has decay 0: w - w * 0 is w */
    adam(count, update, g, w, slots[0], slots[1]);
    break;
  case LKS_OPTIMIZER_COUNT:
    break;
  }
}
