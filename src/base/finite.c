/* See finite.h. */
#include "base/finite.h"

#include <stdint.h>
#include <string.h>

#include "base/hot.h"

#define EXPONENT UINT32_C(0x7f800000)

/* An exponent of all ones is infinity or NaN. Integers and no way out of the loop: so it vectorises
 * without -ffast-math. */
LKS_HOT static uint32_t worst_exponent(const float *values, size_t count) {
  uint32_t worst = 0;
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits;
    memcpy(&bits, values + i, sizeof bits);
    bits &= EXPONENT;
    worst = bits > worst ? bits : worst;
  }
  return worst;
}

int lks_worst_exponent(const float *values, size_t count) {
  return (int)(worst_exponent(values, count) >> 23);
}

bool lks_all_finite(const float *values, size_t count) {
  return worst_exponent(values, count) != EXPONENT;
}
