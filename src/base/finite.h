/* Questions of many numbers. */
#ifndef LKS_BASE_FINITE_H
#define LKS_BASE_FINITE_H

#include <stdbool.h>
#include <stddef.h>

/* The largest exponent of the values [count] as an IEEE single holds it: all are below
 * 2^(it - 126) in size; 255 where one is infinite or NaN. */
int lks_worst_exponent(const float *values, size_t count);

/* Whether none of the values [count] is infinite or NaN. Looks at no other. */
bool lks_all_finite(const float *values, size_t count);

#endif
