/* The optimizers on the CPU, over any slice of the flat arenas. */
#ifndef LKS_BACKEND_CPU_UPDATE_H
#define LKS_BACKEND_CPU_UPDATE_H

#include <stddef.h>

#include "model/optimizer.h"

/* One update of count elements in place; g the summed gradient, slots as the optimizer counts
 * them (unused ones NULL). Elementwise: any division into slices gives the same bits. */
void lks_update_cpu(const lks_update *update, size_t count, const float *g, float *w,
                    float *const slots[LKS_MAX_SLOTS]);

#endif
