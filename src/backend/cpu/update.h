/* The optimizers on the CPU, over any slice of the flat arenas. */
#ifndef LKS_BACKEND_CPU_UPDATE_H
#define LKS_BACKEND_CPU_UPDATE_H

#include <stddef.h>

#include "model/optimizer.h"

/* What an update changes, or a slice of it: parameters, and slots as the optimizer counts them
 * (unused ones NULL). */
typedef struct lks_values {
  float *w;
  float *slots[LKS_MAX_SLOTS];
} lks_values;

/* One update of count elements in place; g the summed gradient. Elementwise: any division into
 * slices gives the same bits. */
void lks_update_cpu(const lks_update *update, size_t count, const float *g,
                    const lks_values *values);

#endif
