/* Counter-based random numbers, the same on every rank, thread and device.
 *
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3",
 * SC 2011): four 32-bit words from a 128-bit counter and a 64-bit key. The key is
 * (seed, purpose), the counter says which number: there is no state to exchange or to save.
 * nvcc reads this header too. */
#ifndef LKS_BASE_RANDOM_H
#define LKS_BASE_RANDOM_H

#include <stdint.h>

#ifdef __CUDACC__
#define LKS_HOST_DEVICE __host__ __device__
#else
#define LKS_HOST_DEVICE
#endif

/* What numbers are for: each purpose is a stream of its own under one seed. */
typedef enum lks_purpose {
  LKS_PURPOSE_INITIAL_VALUE = 1,
  LKS_PURPOSE_ORDER = 2,
  LKS_PURPOSE_SPLIT = 3,
  LKS_PURPOSE_DROPOUT = 4,
  LKS_PURPOSE_SYNTHETIC = 5,
} lks_purpose;

typedef struct lks_random4 {
  uint32_t v[4];
} lks_random4;

/* One Philox4x32-10 block of counter (c0..c3, least significant first) under key (k0, k1). */
static inline LKS_HOST_DEVICE lks_random4 lks_philox(uint32_t c0, uint32_t c1, uint32_t c2,
                                                     uint32_t c3, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = (uint64_t)0xD2511F53u * c0;
    const uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
    const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    const uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1;
    c3 = (uint32_t)p0;
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const lks_random4 r = {{c0, c1, c2, c3}};
  return r;
}

/* Mixes a 64-bit seed and a purpose into a 64-bit key (one Philox block of them). */
static inline LKS_HOST_DEVICE uint64_t lks_random_key(uint64_t seed, uint32_t purpose,
                                                      uint64_t more) {
  const lks_random4 r = lks_philox((uint32_t)more, (uint32_t)(more >> 32), purpose, 0x4c4b5321u,
                                   (uint32_t)seed, (uint32_t)(seed >> 32));
  return (uint64_t)r.v[0] | (uint64_t)r.v[1] << 32;
}

/* Uniform in the open interval (0, 1): ((w >> 9) + 1/2) / 2^23. One bit more would round to 1. */
static inline LKS_HOST_DEVICE float lks_uniform(uint32_t word) {
  return ((float)(word >> 9) + 0.5f) * 1.1920928955078125e-7f;
}

/* A keyed bijection on [0, n): an unbalanced Feistel network on the smallest split domain
 * a x b >= n (a, b about the root of n, so the domain is under n + 2 sqrt(n) + 1 < 2n for n > 5),
 * walked until the value falls below n (Black and Rogaway, "Ciphers with arbitrary finite
 * domains", CT-RSA 2002). Needs no table; row i of an epoch is arithmetic. */
typedef struct lks_permutation {
  uint64_t n;
  uint64_t a, b; /* domain a * b >= n; left half in [0, a), right half in [0, b) */
  uint32_t key[2];
} lks_permutation;

#define LKS_FEISTEL_ROUNDS 6

static inline LKS_HOST_DEVICE lks_permutation lks_permutation_make(uint64_t n, uint64_t key) {
  lks_permutation p;
  uint64_t a = 1;
  while (a < 0xffffffffu && a * a < n) { /* integer root by doubling, then by steps of halves */
    a *= 2;
  }
  for (uint64_t step = a / 2; step > 0; step /= 2) {
    if (a > step && (a - step) * (a - step) >= n) {
      a -= step;
    }
  }
  p.n = n;
  p.a = a > 0 ? a : 1;
  p.b = n > 0 ? (n + p.a - 1) / p.a : 1;
  p.key[0] = (uint32_t)key;
  p.key[1] = (uint32_t)(key >> 32);
  return p;
}

/* 32 well-mixed bits of (value, round) under the key: the finaliser of MurmurHash3 (Appleby),
 * twice keyed. Not cryptographic; six rounds of it shuffle well (see the tests). */
static inline LKS_HOST_DEVICE uint32_t lks_feistel_mix(uint32_t value, uint32_t round,
                                                       const uint32_t key[2]) {
  uint32_t h = value ^ key[round & 1];
  h += 0x9E3779B9u * (round + 1u);
  h ^= h >> 16;
  h *= 0x85EBCA6Bu;
  h ^= key[(round + 1u) & 1];
  h ^= h >> 13;
  h *= 0xC2B2AE35u;
  h ^= h >> 16;
  return h;
}

/* A word scaled into [0, range): Lemire's multiply-shift. */
static inline LKS_HOST_DEVICE uint64_t lks_scale_word(uint32_t word, uint64_t range) {
  return ((uint64_t)word * range) >> 32;
}

/* The image of i (0 <= i < n). Both halves are below 2^32, so n is below 2^64. */
static inline LKS_HOST_DEVICE uint64_t lks_permute(const lks_permutation *p, uint64_t i) {
  do {
    uint64_t left = i / p->b;
    uint64_t right = i - left * p->b;
    for (uint32_t round = 0; round < LKS_FEISTEL_ROUNDS; round += 2) {
      left += lks_scale_word(lks_feistel_mix((uint32_t)right, round, p->key), p->a);
      left -= left >= p->a ? p->a : 0;
      right += lks_scale_word(lks_feistel_mix((uint32_t)left, round + 1u, p->key), p->b);
      right -= right >= p->b ? p->b : 0;
    }
    i = left * p->b + right;
  } while (i >= p->n);
  return i;
}

#endif
