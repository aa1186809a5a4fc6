/* Random numbers: Philox' known answers, the permutation as a bijection and as a shuffle. */
#include "scratch.h"

#include <math.h>

#include "base/random.h"

/* Largest chi-square of d degrees of freedom that fair draws exceed with probability under 1e-8
 * (Laurent and Massart 2000: P(X > d + 2 sqrt(d x) + 2 x) <= exp(-x)). */
static double chi_bound(double d) {
  const double x = 18.5;
  return d + 2.0 * sqrt(d * x) + 2.0 * x;
}

static double chi_square(const int *counts, int cells, double expected) {
  double sum = 0.0;
  for (int i = 0; i < cells; ++i) {
    sum += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  return sum;
}

/* From the kat_vectors of Random123. */
static void test_philox_known_answers(void **state) {
  (void)state;
  static const uint32_t cases[][10] = {
      {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
      {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d,
       0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
      {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
       0x94fdcceb, 0x5001e420, 0x24126ea1}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    const uint32_t *c = cases[i];
    const lks_random4 got = lks_philox(c[0], c[1], c[2], c[3], c[4], c[5]);
    assert_memory_equal(got.v, c + 6, sizeof got.v);
  }
}

static void test_keys_differ(void **state) {
  (void)state;
  uint64_t keys[4 * 5 * 4];
  int count = 0;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    for (uint32_t purpose = 1; purpose <= 5; ++purpose) {
      for (uint64_t more = 0; more < 4; ++more) {
        const uint64_t high = more << 32; /* the upper words count too */
        keys[count++] =
            lks_random_key(seed << (seed < 2 ? 0 : 31), purpose, more < 2 ? more : high);
      }
    }
  }
  for (int i = 0; i < count; ++i) {
    for (int k = 0; k < i; ++k) {
      assert_true(keys[i] != keys[k]);
    }
  }
}

static void test_uniform_is_open(void **state) {
  (void)state;
  double sum = 0.0;
  assert_true(lks_uniform(0) > 0.0f);
  assert_true(lks_uniform(0xffffffffu) < 1.0f);
  enum { DRAWS = 40000, CELLS = 64 };
  int counts[CELLS] = {0};
  for (uint32_t i = 0; i < DRAWS; ++i) {
    const float u = lks_uniform(lks_philox(i, 0, 0, 0, 1, 2).v[0]);
    assert_true(u > 0.0f && u < 1.0f);
    sum += (double)u;
    ++counts[(int)(u * CELLS)];
  }
  /* Six standard deviations of a mean of uniforms: 6 sqrt(1 / 12 / n). */
  assert_true(fabs(sum / DRAWS - 0.5) < 6.0 * sqrt(1.0 / 12.0 / DRAWS));
  assert_true(chi_square(counts, CELLS, (double)DRAWS / CELLS) < chi_bound(CELLS - 1));
}

static void check_bijection(uint64_t n, uint64_t key) {
  const lks_permutation p = lks_permutation_make(n, key);
  unsigned char *seen = calloc(n, 1);
  assert_non_null(seen);
  for (uint64_t i = 0; i < n; ++i) {
    const uint64_t image = lks_permute(&p, i);
    assert_true(image < n);
    assert_int_equal(seen[image], 0);
    seen[image] = 1;
  }
  free(seen);
}

static void test_bijection(void **state) {
  (void)state;
  for (uint64_t n = 1; n <= 400; ++n) {
    check_bijection(n, n * 0x9E3779B97F4A7C15u);
    check_bijection(n, 0);
  }
  check_bijection(65535, 1);
  check_bijection(65536, 2);
  check_bijection(65537, 3);
  check_bijection(99991, UINT64_MAX);
}

/* The domain is as small as the header says: a the root rounded up, b what is left. */
static void check_domain(uint64_t n) {
  const lks_permutation p = lks_permutation_make(n, 5);
  assert_true(p.a * p.a >= n && (p.a - 1) * (p.a - 1) < n);
  assert_true(p.a * p.b >= n && (p.b - 1) * p.a < n);
  assert_true((double)(p.a * p.b) <= (double)n + 2.0 * sqrt((double)n) + 1.0);
  assert_true(n <= 5 || p.a * p.b < 2 * n);
  for (uint64_t i = 0; i < 100; ++i) {
    assert_true(lks_permute(&p, i % n) < n);
    assert_true(lks_permute(&p, n - 1 - i % n) < n);
  }
}

static void test_domain(void **state) {
  (void)state;
  for (uint64_t n = 1; n < 5000; ++n) {
    check_domain(n);
  }
  for (int bits = 13; bits < 62; ++bits) {
    check_domain(((uint64_t)1 << bits) - 1);
    check_domain((uint64_t)1 << bits);
    check_domain(((uint64_t)1 << bits) + 1);
  }
}

/* Under random keys each place's image is uniform. */
static void test_images_are_uniform(void **state) {
  (void)state;
  enum { N = 61, KEYS = 61 * 200 };
  static const uint64_t places[] = {0, 1, 30, 60};
  for (size_t k = 0; k < sizeof places / sizeof *places; ++k) {
    int counts[N] = {0};
    for (uint64_t epoch = 0; epoch < KEYS; ++epoch) {
      const lks_permutation p =
          lks_permutation_make(N, lks_random_key(7, LKS_PURPOSE_ORDER, epoch));
      ++counts[lks_permute(&p, places[k])];
    }
    assert_true(chi_square(counts, N, (double)KEYS / N) < chi_bound(N - 1));
  }
}

/* Neighbours' images are uniform over all pairs of different rows: a shift or a stride that only
 * looks shuffled place by place fails here. */
static void test_pairs_are_uniform(void **state) {
  (void)state;
  enum { N = 23, PAIRS = N * (N - 1), KEYS = PAIRS * 40 };
  int counts[N * N] = {0}, kept[PAIRS], count = 0;
  for (uint64_t epoch = 0; epoch < KEYS; ++epoch) {
    const lks_permutation p = lks_permutation_make(N, lks_random_key(3, LKS_PURPOSE_ORDER, epoch));
    ++counts[lks_permute(&p, 10) * N + lks_permute(&p, 11)];
  }
  for (int i = 0; i < N * N; ++i) {
    if (i / N != i % N) {
      kept[count++] = counts[i];
    }
  }
  assert_true(chi_square(kept, PAIRS, (double)KEYS / PAIRS) < chi_bound(PAIRS - 1));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_philox_known_answers),
      cmocka_unit_test(test_keys_differ),
      cmocka_unit_test(test_uniform_is_open),
      cmocka_unit_test(test_bijection),
      cmocka_unit_test(test_domain),
      cmocka_unit_test(test_images_are_uniform),
      cmocka_unit_test(test_pairs_are_uniform),
  };
  return cmocka_run_group_tests_name("random", tests, NULL, NULL);
}
