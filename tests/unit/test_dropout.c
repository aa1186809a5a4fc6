/* Dropout on the CPU: masks know seed, layer, step, row and unit, and nothing of how rows are
 * divided; rates; and the same mask going back. */
#include "model_fixture.h"

#include "backend/cpu/cpu.h"

enum { ROWS = 60, WIDTH = 101, COUNT = ROWS * WIDTH };

static int64_t ids[ROWS]; /* positions in some larger set, in no order */

static int make_ids(void **state) {
  (void)state;
  for (int i = 0; i < ROWS; ++i) {
    ids[i] = (i * 7919 + 13) % 100003;
  }
  return 0;
}

static lks_mask_key key_of(uint64_t seed, int layer, int64_t step) {
  return (lks_mask_key){.seed = seed, .layer = layer, .step = step, .row_ids = ids};
}

static void mask_of(lks_mask_key key, float rate, int first, int rows, unsigned char *mask) {
  static float in[COUNT], out[COUNT];
  key.row_ids += first;
  lks_dropout_cpu(&key, rate, in, out, mask, rows, WIDTH);
}

/* Any division of the rows gives the same mask. */
static void test_division(void **state) {
  (void)state;
  static unsigned char whole[COUNT], parts[COUNT];
  mask_of(key_of(1, 2, 3), 0.4f, 0, ROWS, whole);
  for (int piece = 1; piece < ROWS; piece += 6) {
    memset(parts, 7, sizeof parts);
    for (int first = 0; first < ROWS; first += piece) {
      const int rows = ROWS - first < piece ? ROWS - first : piece;
      mask_of(key_of(1, 2, 3), 0.4f, first, rows, parts + first * WIDTH);
    }
    assert_memory_equal(whole, parts, sizeof whole);
  }
}

/* Units that two independent masks of that rate treat alike: within six standard deviations. */
static void check_different(const unsigned char *a, const unsigned char *b, int count,
                            double rate) {
  const double alike = rate * rate + (1 - rate) * (1 - rate);
  int same = 0;
  for (int i = 0; i < count; ++i) {
    same += a[i] == b[i];
  }
  assert_near((double)same / count, alike, 6 * sqrt(alike * (1 - alike) / count), "masks");
}

static void test_keys(void **state) {
  (void)state;
  static unsigned char one[COUNT], other[COUNT];
  const lks_mask_key keys[] = {key_of(2, 2, 3), key_of(1 + ((uint64_t)1 << 40), 2, 3),
                               key_of(1, 3, 3), key_of(1, 2, 4),
                               key_of(1, 2, 3 + ((int64_t)1 << 33))};
  mask_of(key_of(1, 2, 3), 0.3f, 0, ROWS, one);
  for (size_t i = 0; i < sizeof keys / sizeof *keys; ++i) {
    mask_of(keys[i], 0.3f, 0, ROWS, other);
    check_different(one, other, COUNT, 0.3);
  }
  check_different(one, one + WIDTH, COUNT - WIDTH, 0.3); /* the next row */
  for (int lag = 1; lag <= 8; ++lag) {                   /* other units */
    check_different(one, one + lag, COUNT - lag, 0.3);
  }
  static int64_t far[ROWS];
  for (int i = 0; i < ROWS; ++i) {
    far[i] = ids[i] + ((int64_t)1 << 32);
  }
  lks_mask_key high = key_of(1, 2, 3);
  high.row_ids = far;
  mask_of(high, 0.3f, 0, ROWS, other);
  check_different(one, other, COUNT, 0.3);
}

static void test_rates(void **state) {
  (void)state;
  static const float rates[] = {0.0f, 0.01f, 0.1f, 0.5f, 0.75f, 0.99f};
  static unsigned char mask[COUNT];
  for (size_t i = 0; i < sizeof rates / sizeof *rates; ++i) {
    const double rate = (double)rates[i];
    int dropped = 0;
    mask_of(key_of(5, 0, (int64_t)i), rates[i], 0, ROWS, mask);
    for (int k = 0; k < COUNT; ++k) {
      assert_true(mask[k] <= 1);
      dropped += mask[k] == 0;
    }
    /* Six standard deviations of a binomial; 1e-9 for rate 0, where there is none. */
    assert_near((double)dropped / COUNT, rate, 6 * sqrt(rate * (1 - rate) / COUNT) + 1e-9, "rate");
  }
}

/* out = in / (1 - rate) where kept, else 0; going back likewise; nothing beside is written. */
static void check_values(int64_t width) {
  enum { GUARD = 8 };
  const float rate = 0.25f;
  const size_t count = (size_t)(3 * width);
  const lks_mask_key key = key_of(3, 1, 9);
  float *in = malloc(count * sizeof *in), *out = malloc((count + GUARD) * sizeof *out);
  unsigned char *mask = malloc(count + GUARD);
  assert_true(in != NULL && out != NULL && mask != NULL);
  for (size_t i = 0; i < count + GUARD; ++i) {
    out[i] = -9.0f;
    mask[i] = 99;
  }
  for (uint32_t i = 0; i < count; ++i) {
    in[i] = test_number(1, i, 0.5f, 2.0f);
  }
  lks_dropout_cpu(&key, rate, in, out, mask, 3, width);
  for (size_t i = 0; i < count; ++i) { /* two roundings: the scale's and the product's */
    assert_near((double)out[i], mask[i] ? (double)in[i] / 0.75 : 0.0, 3 * HALF_ULP * (double)in[i],
                "dropped out");
    assert_true(mask[i] <= 1);
  }
  float *back = in; /* gradient: the inputs serve as one */
  lks_dropout_backward_cpu(rate, mask, back, 3, width);
  assert_memory_equal(back, out, count * sizeof *out);
  for (size_t i = count; i < count + GUARD; ++i) {
    assert_true(out[i] == -9.0f && mask[i] == 99);
  }
  free(in);
  free(out);
  free(mask);
}

static void test_values(void **state) {
  (void)state;
  for (int64_t width = 1; width < 70; ++width) {
    check_values(width);
  }
}

/* Word by word, of one block for four units. */
static void test_words(void **state) {
  (void)state;
  enum { WIDEST = 200 };
  const float rate = 0.3f;
  const lks_mask_key key = key_of(3, 1, 9);
  const uint64_t stream = lks_random_key(key.seed, LKS_PURPOSE_DROPOUT, (uint64_t)key.layer);
  float in[2 * WIDEST] = {0}, out[2 * WIDEST];
  unsigned char mask[2 * WIDEST];
  for (int64_t width = 1; width <= WIDEST; ++width) {
    lks_dropout_cpu(&key, rate, in, out, mask, 2, width);
    for (int64_t i = 0; i < 2 * width; ++i) {
      const uint64_t row = (uint64_t)key.row_ids[i / width], step = (uint64_t)key.step;
      const uint32_t high = (uint32_t)(row >> 32) ^ (uint32_t)(step >> 32) << 16;
      const lks_random4 words = lks_philox((uint32_t)(i % width / 4), (uint32_t)row, (uint32_t)step,
                                           high, (uint32_t)stream, (uint32_t)(stream >> 32));
      assert_int_equal(mask[i], words.v[i % width % 4] >= (uint32_t)((double)rate * 0x1p32));
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_division), cmocka_unit_test(test_keys),  cmocka_unit_test(test_rates),
      cmocka_unit_test(test_values),   cmocka_unit_test(test_words),
  };
  return cmocka_run_group_tests_name("dropout", tests, make_ids, NULL);
}
