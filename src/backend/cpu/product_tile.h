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

#undef LKS_TILE
#undef LKS_UNROLL
#undef LKS_LEVEL
#undef LKS_PASTE
#undef LKS_PASTE_
#undef LKS_LANES
#undef LKS_TARGET
