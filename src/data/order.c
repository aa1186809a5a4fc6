/* Row i of epoch e, by keyed bijections. Keys: the epoch's from (seed, epoch); the order of windows
 * under it; the rows of window w from (epoch's key, 1 + w). */
#include "data/order.h"

#include <stdlib.h>
#include <string.h>

#include "base/hot.h"

lks_status lks_order_open(int64_t rows, bool shuffle, uint64_t seed, int64_t windows,
                          const int64_t *starts, lks_order *order, lks_error *err) {
  lks_status st = LKS_OK;
  *order = (lks_order){.rows = rows,
                       .shuffle = shuffle,
                       .seed = seed,
                       .windows = windows,
                       .epoch = -1,
                       .current = -1};
  if (windows > 0) {
    const size_t bytes = ((size_t)windows + 1) * sizeof *starts;
    int64_t *copy = malloc(bytes);
    order->starts = copy;
    TRY_ALLOC(order->starts);
    memcpy(copy, starts, bytes);
    order->sequence = malloc(bytes);
    TRY_ALLOC(order->sequence);
    order->offsets = malloc(bytes);
    TRY_ALLOC(order->offsets);
  }
cleanup:
  if (st != LKS_OK) {
    lks_order_close(order);
  }
  return st;
}

void lks_order_close(lks_order *order) {
  free((void *)order->starts);
  free(order->sequence);
  free(order->offsets);
  *order = (lks_order){.epoch = -1, .current = -1};
}

static uint64_t epoch_key(const lks_order *order) {
  return lks_random_key(order->seed, LKS_PURPOSE_ORDER, (uint64_t)order->epoch);
}

void lks_order_begin(lks_order *order, int64_t epoch) {
  order->epoch = epoch;
  order->current = -1;
  const uint64_t key = epoch_key(order);
  if (order->windows == 0) {
    order->all = lks_permutation_make((uint64_t)order->rows, key);
    return;
  }
  const lks_permutation among = lks_permutation_make((uint64_t)order->windows, key);
  int64_t offset = 0;
  for (int64_t k = 0; k < order->windows; ++k) {
    const int64_t w = order->shuffle ? (int64_t)lks_permute(&among, (uint64_t)k) : k;
    order->sequence[k] = w;
    order->offsets[k] = offset;
    offset += order->starts[w + 1] - order->starts[w];
  }
  order->offsets[order->windows] = offset;
}

int64_t lks_order_widest(const lks_order *order) {
  int64_t widest = 0;
  for (int64_t w = 0; w < order->windows; ++w) {
    const int64_t rows = order->starts[w + 1] - order->starts[w];
    widest = rows > widest ? rows : widest;
  }
  return widest;
}

int64_t lks_order_window(const lks_order *order, int64_t i) {
  int64_t low = 0;
  int64_t high = order->windows;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (order->offsets[middle] <= i) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

/* Places that are permuted together: some vectors of 32 bits. */
enum { TOGETHER = 32 };

/* lks_permute's first walk of so many consecutive places, in vectors: 47 ns a row became 7 on a
 * Xeon of the fifth generation. Where an image is not below n, the walk is not at its end. n <
 * 2^32, TOGETHER <= b. */
LKS_HOT static void permute_together(const lks_permutation *p, uint64_t first, uint64_t *out) {
  const uint32_t a = (uint32_t)p->a, b = (uint32_t)p->b;
  const uint32_t row = (uint32_t)(first / p->b), column = (uint32_t)(first % p->b);
  uint32_t left[TOGETHER], right[TOGETHER];
  for (uint32_t j = 0; j < TOGETHER; ++j) {
    const bool next = column + j >= b;
    left[j] = row + next;
    right[j] = column + j - (next ? b : 0);
  }
  for (uint32_t round = 0; round < LKS_FEISTEL_ROUNDS; round += 2) {
    for (uint32_t j = 0; j < TOGETHER; ++j) {
      left[j] += (uint32_t)lks_scale_word(lks_feistel_mix(right[j], round, p->key), a);
      left[j] -= left[j] >= a ? a : 0;
    }
    for (uint32_t j = 0; j < TOGETHER; ++j) {
      right[j] += (uint32_t)lks_scale_word(lks_feistel_mix(left[j], round + 1u, p->key), b);
      right[j] -= right[j] >= b ? b : 0;
    }
  }
  for (uint32_t j = 0; j < TOGETHER; ++j) {
    out[j] = (uint64_t)left[j] * b + right[j];
  }
}

/* out[j] = the image of place from + j. */
static void permute_range(const lks_permutation *p, uint64_t from, int64_t count, int64_t *out) {
  const bool narrow = p->n <= UINT32_MAX && p->b >= TOGETHER;
  int64_t j = 0;
  for (; narrow && j + TOGETHER <= count; j += TOGETHER) {
    uint64_t images[TOGETHER];
    permute_together(p, from + (uint64_t)j, images);
    for (int k = 0; k < TOGETHER; ++k) {
      out[j + k] = (int64_t)(images[k] < p->n ? images[k] : lks_permute(p, images[k]));
    }
  }
  for (; j < count; ++j) {
    out[j] = (int64_t)lks_permute(p, from + (uint64_t)j);
  }
}

static void map_range(const lks_permutation *permutation, bool shuffle, int64_t from, int64_t count,
                      int64_t base, int64_t *out) {
  if (shuffle) {
    permute_range(permutation, (uint64_t)from, count, out);
  }
  for (int64_t j = 0; j < count; ++j) {
    out[j] = base + (shuffle ? out[j] : from + j);
  }
}

void lks_order_map(lks_order *order, int64_t first, int64_t count, int64_t *out) {
  if (order->windows == 0) {
    map_range(&order->all, order->shuffle, first, count, 0, out);
    return;
  }
  for (int64_t k = lks_order_window(order, first); count > 0; ++k) {
    const int64_t w = order->sequence[k];
    if (order->current != k) {
      const uint64_t key = lks_random_key(epoch_key(order), LKS_PURPOSE_ORDER, 1 + (uint64_t)w);
      const int64_t length = order->starts[w + 1] - order->starts[w];
      order->within = lks_permutation_make((uint64_t)length, key);
      order->current = k;
    }
    const int64_t left = order->offsets[k + 1] - first;
    const int64_t n = left < count ? left : count;
    map_range(&order->within, order->shuffle, first - order->offsets[k], n, order->starts[w], out);
    out += n;
    first += n;
    count -= n;
  }
}
