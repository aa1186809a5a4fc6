/* One product, placed by name: the smallest proof that a device computes. */
#ifndef LKS_DEVICE_PRODUCT_H
#define LKS_DEVICE_PRODUCT_H

#include <stdint.h>

#include "device/place.h"

/* c [m, n] = a [m, k] b [k, n], row-major fp32 in host memory, on the device that was chosen.
 * LKS_DEVICE where it fails, as in
 * the functions below, with choice->class_ set. Local. */
lks_status lks_device_product(lks_device_choice *choice, int64_t m, int64_t n, int64_t k,
                              const float *a, const float *b, float *c,
                              lks_error *err) LKS_MUST_USE;

/* [[1, 2], [3, 4]] x [[5, 6], [7, 8]] into c[4], which must be [[19, 22], [43, 50]] to the bit, for
 * small whole numbers are exact in fp32. LKS_DEVICE where it is not. Local. */
lks_status lks_device_product_known(lks_device_choice *choice, float c[4],
                                    lks_error *err) LKS_MUST_USE;

/* A product of odd sizes against double precision on the host, element by element within
 * k u / (1 - k u) times the sum of |a||b|, u = 2^-24: what any order of fp32 sums keeps (Higham,
 * Accuracy and Stability of Numerical Algorithms, 2002, section 3.5). words: sizes and the worst
 * element, as a share of its bound. LKS_DEVICE where an element is outside. Local. */
lks_status lks_device_product_compare(lks_device_choice *choice, char *words, size_t size,
                                      lks_error *err) LKS_MUST_USE;

/* "gpu:0" or "cpu". */
const char *lks_device_label(const lks_device_choice *choice, char out[32]);

#endif
