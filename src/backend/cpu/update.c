/* Formulas as in Keras 3 (keras/src/optimizers): see lks_update for the scalars. */
#include "backend/cpu/update.h"

#include <math.h>

#include "backend/cpu/cpu.h"

/* In each loop an element depends on those of its own index alone: what is written may be what is
 * read, and the compiler need not look whether it is. */

LKS_HOT static void sgd(size_t count, float rate, const float *g, const lks_values *from,
                        const lks_values *into) {
  const float *w = from->w;
  float *new_w = into->w;
  LKS_INDEPENDENT
  for (size_t i = 0; i < count; ++i) {
    new_w[i] = w[i] - rate * g[i];
  }
}

LKS_HOT static void momentum(size_t count, const lks_update *update, const float *g,
                             const lks_values *from, const lks_values *into) {
  const float rate = update->learning_rate, mu = update->momentum;
  const float *w = from->w, *m = from->slots[0];
  float *new_w = into->w, *new_m = into->slots[0];
  if (update->nesterov) {
    LKS_INDEPENDENT
    for (size_t i = 0; i < count; ++i) {
      const float step = rate * g[i];
      const float velocity = mu * m[i] - step;
      new_m[i] = velocity;
      new_w[i] = w[i] + (mu * velocity - step);
    }
  } else {
    LKS_INDEPENDENT
    for (size_t i = 0; i < count; ++i) {
      const float velocity = mu * m[i] - rate * g[i];
      new_m[i] = velocity;
      new_w[i] = w[i] + velocity;
    }
  }
}

LKS_HOT static void adam(size_t count, const lks_update *update, const float *g,
                         const lks_values *from, const lks_values *into) {
  const float alpha = update->alpha, epsilon = update->epsilon, decay = update->decay;
  const float a = update->one_minus_beta_1, b = update->one_minus_beta_2;
  const float *w = from->w, *m = from->slots[0], *v = from->slots[1];
  float *new_w = into->w, *new_m = into->slots[0], *new_v = into->slots[1];
  LKS_INDEPENDENT
  for (size_t i = 0; i < count; ++i) {
    const float mean = m[i] + (g[i] - m[i]) * a;
    const float square = v[i] + (g[i] * g[i] - v[i]) * b;
    new_m[i] = mean;
    new_v[i] = square;
    new_w[i] = (w[i] - w[i] * decay) - alpha * mean / (sqrtf(square) + epsilon);
  }
}

void lks_update_cpu(const lks_update *update, size_t count, const float *g, const lks_values *from,
                    const lks_values *into) {
  switch (update->id) {
  case LKS_OPTIMIZER_SGD:
    if (from->slots[0] == NULL) {
      sgd(count, update->learning_rate, g, from, into);
    } else {
      momentum(count, update, g, from, into);
    }
    break;
  case LKS_OPTIMIZER_ADAM:
  case LKS_OPTIMIZER_ADAMW: /* plain Adam has decay 0: w - w * 0 is w */
    adam(count, update, g, from, into);
    break;
  case LKS_OPTIMIZER_COUNT:
    break;
  }
}
