/* exp, expm1, log1p, tanh and the normal distribution of floats, without branches or tables, so
 * that loops over them vectorise (libm takes one value at a time). They are made of single IEEE
 * operations in a fixed order: an element has the same bits in a vector of any length, alone, and
 * on every level of LKS_HOT.
 *
 * Errors, in units in the last place of the exact result, are the largest over all floats where
 * both are normal: exp 1.1, expm1 1.8, log1p 2.0, tanh 2.6, sigmoid 2.5, gauss 1.7, normal 4.6
 * (tests/unit/test_elementary.c looks at a sample). NaN comes through. Coefficients: polynomials of
 * least relative error for the interval, by reweighted least squares at Chebyshev nodes, rounded to
 * floats. Range reduction after Cody and Waite, Software Manual for the Elementary Functions. */
#ifndef LKS_BACKEND_CPU_ELEMENTARY_H
#define LKS_BACKEND_CPU_ELEMENTARY_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t lks_float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float lks_float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* yes ? a : b, told so that the compiler makes no branch of it, which it would then follow with
 * what comes after, twice. */
static inline float lks_choose(bool yes, float a, float b) {
  const uint32_t mask = 0u - (uint32_t)yes;
  return lks_float_of_bits((lks_float_bits(a) & mask) | (lks_float_bits(b) & ~mask));
}

/* 2^n, n of [-126, 127]; any bits for another n. */
static inline float lks_power_of_two(int32_t n) {
  return lks_float_of_bits((uint32_t)(n + 127) << 23);
}

/* x + rest = n ln 2 + r with |r| <= 0.35 + |rest|: returns e^r - 1. The polynomial is for 0.35; at
 * 0.41, which gauss comes to, its error is small enough still. |x| is below 2^15. */
static inline float lks_reduced_expm1(float x, float rest, int32_t *n) {
  const float ln2_high = 0x1.63p-1f, ln2_low = -0x1.bd0106p-13f; /* the first times n is exact */
  const float whole = 0x1.8p23f; /* added to a float it rounds it, and shows it in its last bits */
  const float shifted = x * 0x1.715476p+0f + whole;
  const float count = shifted - whole;
  const float r = ((x - count * ln2_high) - count * ln2_low) + rest;
  *n = (int32_t)(lks_float_bits(shifted) - lks_float_bits(whole));
  float p = 0x1.6da0bap-10f;
  p = p * r + 0x1.122d8ep-7f;
  p = p * r + 0x1.55547ep-5f;
  p = p * r + 0x1.5554a8p-3f;
  p = p * r + 0.5f;
  return r + r * r * p;
}

/* e^(x + rest): see above; 0 and infinity where no float holds it. */
static inline float lks_exp_sum(float x, float rest) {
  int32_t n;
  x = lks_choose(x < -104.0f, -104.0f, x);
  x = lks_choose(x > 89.0f, 89.0f, x);
  const float e = 1.0f + lks_reduced_expm1(x, rest, &n);
  const int32_t half = n / 2; /* 2^n itself may be no normal float */
  return e * lks_power_of_two(half) * lks_power_of_two(n - half);
}

static inline float lks_exp(float x) {
  return lks_exp_sum(x, 0.0f);
}

/* e^x - 1 for x up to 20, and at 20 beyond. */
static inline float lks_expm1(float x) {
  int32_t n;
  x = lks_choose(x < -25.0f, -25.0f, x);
  x = lks_choose(x > 20.0f, 20.0f, x);
  const float q = lks_reduced_expm1(x, 0.0f, &n);
  const float scale = lks_power_of_two(n);
  return scale * q + (scale - 1.0f);
}

/* log(1 + x) for x of [0, 1], by 2 artanh(x / (2 + x)). */
static inline float lks_log1p(float x) {
  const float s = x / (2.0f + x);
  const float w = s * s;
  float p = 0x1.1efa3ep-3f;
  p = p * w + 0x1.1eb5bap-3f;
  p = p * w + 0x1.99d28p-3f;
  p = p * w + 0x1.5555p-2f;
  return 2.0f * s + 2.0f * s * (w * p);
}

static inline float lks_tanh(float x) {
  float size = fabsf(x);
  size = lks_choose(size > 9.1f, 9.1f, size); /* where it is 1 */
  const float m = lks_expm1(2.0f * size);
  return copysignf(m / (m + 2.0f), x);
}

/* 1 / (1 + e^-x) */
static inline float lks_sigmoid(float x) {
  const float e = lks_exp(-fabsf(x)); /* never overflows */
  return lks_choose(x >= 0.0f, 1.0f, e) / (1.0f + e);
}

/* e^(-x^2 / 2) */
static inline float lks_gauss(float x) {
  const float size = lks_choose(fabsf(x) > 15.0f, 15.0f, fabsf(x)); /* where it is 0 */
  const float high =
      lks_float_of_bits(lks_float_bits(size) & 0xfffff000u); /* its square is exact */
  return lks_exp_sum(-0.5f * high * high, -0.5f * (size - high) * (size + high));
}

/* The normal distribution below x, where gauss is lks_gauss(x). With t = |x|, the tail times
 * (1 + t) e^(t^2 / 2) is nearly a polynomial of (t - 4) / (t + 4), the mapping of Shepherd and
 * Laframboise, Chebyshev approximation of (1 + 2 x) exp(x^2) erfc x. */
static inline float lks_normal(float x, float gauss) {
  const float t = lks_choose(fabsf(x) > 15.0f, 15.0f, fabsf(x));
  const float y = (t - 4.0f) / (t + 4.0f);
  float p = -0x1.2c5ccep-14f;
  p = p * y + -0x1.fbffacp-15f;
  p = p * y + 0x1.6b41fp-11f;
  p = p * y + -0x1.3e83c8p-12f;
  p = p * y + -0x1.47f79ap-8f;
  p = p * y + 0x1.25eeaap-6f;
  p = p * y + -0x1.07c292p-5f;
  p = p * y + 0x1.d49504p-6f;
  p = p * y + 0x1.cabd2p-7f;
  p = p * y + -0x1.8c18fp-4f;
  p = p * y + 0x1.e361eap-2f;
  const float tail = gauss * p / (1.0f + t);
  return lks_choose(x < 0.0f, tail, 1.0f - tail);
}

#endif
