/* One question of many numbers. */
#ifndef LKS_BASE_FINITE_H
#define LKS_BASE_FINITE_H

#include <stdbool.h>
#include <stddef.h>

/* Whether none of the values [count] is infinite or NaN. Looks at no other. */
bool lks_all_finite(const float *values, size_t count);

#endif
