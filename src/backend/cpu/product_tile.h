/* The register tile of product.c for one vector width: c (+)= a b over MR rows and NV vectors of
 * columns. Included once for each level of x86-64 with
 *
 *   LKS_LANES   floats in a vector
 *   LKS_TARGET  attributes of a function of that level
 *
 * Sums stay in registers for all of k. Multiply and add may fuse here, as they do inside any BLAS:
 * so products, like BLAS', may differ in the last bit between levels. */
#define LKS_PASTE_(a, b) a##b
#define LKS_PASTE(a, b) LKS_PASTE_(a, b)
#define LKS_LEVEL(name) LKS_PASTE(name##_, LKS_LANES)

typedef float LKS_LEVEL(lanes) __attribute__((vector_size(LKS_LANES * sizeof(float))));
typedef float LKS_LEVEL(loose)
    __attribute__((vector_size(LKS_LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

typedef int LKS_LEVEL(lane_numbers) __attribute__((vector_size(LKS_LANES * sizeof(int))));

/* Sums in an array stay in registers only where the loops over it are gone early: without this, GCC
 * keeps the array on the stack beside them, which costs up to a tenth at a depth of 64. */
#define LKS_UNROLL _Pragma("GCC unroll 16")

/* a (m, k) = a[m * am + k * ak]; b (k, n) = b[k * ldb + n]; c (m, n) = c[m * ldc + n]. */
#define LKS_TILE(MR, NV)                                                                           \
  LKS_TARGET static void LKS_LEVEL(tile_##MR##_##NV)(                                              \
      int64_t depth, const float *restrict a, int64_t am, int64_t ak, const float *restrict b,     \
      int64_t ldb, float *restrict c, int64_t ldc, bool add) {                                     \
    const LKS_LEVEL(loose) zero = {0};                                                             \
    LKS_LEVEL(lanes) sum[MR][NV];                                                                  \
    LKS_UNROLL for (int i = 0; i < (MR); ++i) {                                                    \
      LKS_UNROLL for (int j = 0; j < (NV); ++j) {                                                  \
        sum[i][j] = (LKS_LEVEL(lanes)){0};                                                         \
      }                                                                                            \
    }                                                                                              \
    _Pragma("GCC unroll 2") for (int64_t k = 0; k < depth; ++k) {                                  \
      LKS_LEVEL(lanes) row[NV];                                                                    \
      for (int j = 0; j < (NV); ++j) {                                                             \
        row[j] = *(const LKS_LEVEL(loose) *)(b + k * ldb + j * LKS_LANES);                         \
      }                                                                                            \
      LKS_UNROLL for (int i = 0; i < (MR); ++i) {                                                  \
        const float x = a[i * am + k * ak];                                                        \
        for (int j = 0; j < (NV); ++j) {                                                           \
          sum[i][j] += x * row[j];                                                                 \
        }                                                                                          \
      }                                                                                            \
    }                                                                                              \
    LKS_UNROLL for (int i = 0; i < (MR); ++i) {                                                    \
      LKS_UNROLL for (int j = 0; j < (NV); ++j) {                                                  \
        LKS_LEVEL(loose) *const place = (LKS_LEVEL(loose) *)(c + i * ldc + j * LKS_LANES);         \
        *place = sum[i][j] + (add ? *place : zero);                                                \
      }                                                                                            \
    }                                                                                              \
  }

/* Six rows of two vectors fill twelve of sixteen registers; AVX-512 has twice as many, and twelve
 * rows read b half as often (64x300x300 1.2 times faster, 128x784x128 1.05, its gradient of weights
 * 1.1). Columns fewer than two vectors take one, and twice the rows keep as many sums in flight.
 * The other tiles are for what rows are left. */
#if LKS_LANES == 16
LKS_TILE(12, 2)
LKS_TILE(9, 2)
#endif
LKS_TILE(6, 2)
LKS_TILE(5, 2)
LKS_TILE(4, 2)
LKS_TILE(3, 2)
LKS_TILE(2, 2)
LKS_TILE(1, 2)
LKS_TILE(12, 1)
LKS_TILE(8, 1)
LKS_TILE(4, 1)
LKS_TILE(2, 1)
LKS_TILE(1, 1)

static const sized_tile LKS_LEVEL(double_tiles)[] = {
#if LKS_LANES == 16
    {12, LKS_LEVEL(tile_12_2)}, {9, LKS_LEVEL(tile_9_2)},
#endif
    {6, LKS_LEVEL(tile_6_2)},   {5, LKS_LEVEL(tile_5_2)}, {4, LKS_LEVEL(tile_4_2)},
    {3, LKS_LEVEL(tile_3_2)},   {2, LKS_LEVEL(tile_2_2)}, {1, LKS_LEVEL(tile_1_2)}};
static const sized_tile LKS_LEVEL(single_tiles)[] = {{12, LKS_LEVEL(tile_12_1)},
                                                     {8, LKS_LEVEL(tile_8_1)},
                                                     {4, LKS_LEVEL(tile_4_1)},
                                                     {2, LKS_LEVEL(tile_2_1)},
                                                     {1, LKS_LEVEL(tile_1_1)}};

/* Sum over k of x[k] y[k]: four vectors of partial sums, added in a fixed order. */
LKS_TARGET static float LKS_LEVEL(dot)(int64_t depth, const float *restrict x,
                                       const float *restrict y) {
  LKS_LEVEL(lanes) sum[4] = {{0}};
  int64_t k = 0;
  for (; k + 4 * LKS_LANES <= depth; k += 4 * LKS_LANES) {
    for (int j = 0; j < 4; ++j) {
      sum[j] += *(const LKS_LEVEL(loose) *)(x + k + j * LKS_LANES) *
                *(const LKS_LEVEL(loose) *)(y + k + j * LKS_LANES);
    }
  }
  for (; k + LKS_LANES <= depth; k += LKS_LANES) {
    sum[0] += *(const LKS_LEVEL(loose) *)(x + k) * *(const LKS_LEVEL(loose) *)(y + k);
  }
  const LKS_LEVEL(lanes) all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  float total = 0.0f;
  for (int j = 0; j < LKS_LANES; ++j) {
    total += all[j];
  }
  for (; k < depth; ++k) {
    total += x[k] * y[k];
  }
  return total;
}

/* Which lanes of two vectors the lower and the upper half take in turn. */
#if LKS_LANES == 16
#define LKS_LOWER                                                                                  \
  { 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23 }
#define LKS_UPPER                                                                                  \
  { 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31 }
#else
#define LKS_LOWER                                                                                  \
  { 0, 8, 1, 9, 2, 10, 3, 11 }
#define LKS_UPPER                                                                                  \
  { 4, 12, 5, 13, 6, 14, 7, 15 }
#endif

/* to[k * width + n] = from[n * stride + k] for n < count, 0 for the other lanes; count is at most
 * LKS_LANES. By squares: a stage interleaves the first half of the vectors with the second, so that
 * each element's number, row and lane together, turns by one bit. After as many stages as a lane's
 * number has bits, rows and lanes have changed places. */
LKS_TARGET static void LKS_LEVEL(turn)(const float *restrict from, int64_t stride, int64_t count,
                                       int64_t depth, float *restrict to, int64_t width) {
  const LKS_LEVEL(lane_numbers) lower = LKS_LOWER, upper = LKS_UPPER;
  int64_t k = 0;
  for (; k + LKS_LANES <= depth; k += LKS_LANES) {
    LKS_LEVEL(lanes) x[LKS_LANES], y[LKS_LANES];
    LKS_UNROLL for (int n = 0; n < LKS_LANES; ++n) {
      x[n] = (LKS_LEVEL(lanes)){0};
      if (n < count) {
        x[n] = *(const LKS_LEVEL(loose) *)(from + n * stride + k);
      }
    }
    LKS_UNROLL for (int stage = 1; stage < LKS_LANES; stage *= 2) {
      LKS_UNROLL for (int n = 0; n < LKS_LANES / 2; ++n) {
        y[2 * n] = __builtin_shuffle(x[n], x[n + LKS_LANES / 2], lower);
        y[2 * n + 1] = __builtin_shuffle(x[n], x[n + LKS_LANES / 2], upper);
      }
      LKS_UNROLL for (int n = 0; n < LKS_LANES; ++n) {
        x[n] = y[n];
      }
    }
    LKS_UNROLL for (int n = 0; n < LKS_LANES; ++n) {
      *(LKS_LEVEL(loose) *)(to + (k + n) * width) = x[n];
    }
  }
  for (; k < depth; ++k) {
    for (int64_t n = 0; n < LKS_LANES; ++n) {
      to[k * width + n] = n < count ? from[n * stride + k] : 0.0f;
    }
  }
}

#undef LKS_LOWER
#undef LKS_UPPER
#undef LKS_TILE
#undef LKS_UNROLL
#undef LKS_LEVEL
#undef LKS_PASTE
#undef LKS_PASTE_
#undef LKS_LANES
#undef LKS_TARGET
