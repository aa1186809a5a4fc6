/* See product.h. Columns go in panels of one or two vectors, turned first where they don't lie
 * that way; rows go in register tiles (product_tile.h). */
#include "backend/cpu/product.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "plan/plan.h"

/* Weights up to LKS_LARGE_WEIGHTS are ours: what a second cache holds beside a block's activations.
 * Measured on one core of a Zen 3 against OpenBLAS 0.3.21, which copies both operands on each call:
 * 32x100x10 1.6 times faster, 64x64x64 1.4, 1024x8x64 1.9, 512x64x1 3; 8x784x128 1.3 forward and
 * 2.4 for the weights' gradient; 64x784x128 1.1 for both.
 *
 * Beyond SMALL, gradients of weights are ours only where a's columns, read across its rows, don't
 * lie a multiple of LKS_ALIASED_FLOATS apart: those fall on few sets of the first cache, so with
 * 256 inputs and 256 rows BLAS, which copies them, is 1.15 times faster. */
enum { SMALL = 8192 };

enum { MOST_LANES = 16, DEPTH = 512 }; /* a panel of DEPTH rows is copied to the stack */
enum { LINE = 16 };                    /* floats of a cache line */
enum { NARROW = 12 };                  /* columns that one or two tiles hold as rows */

/* Few rows by large weights are ours too. BLAS copies all weights to multiply by them; on one core
 * of a Xeon of the fifth generation it takes, against this, times as long (forward, gradient of
 * inputs, of weights):
 *
 *   rows        1              8              16             32             48
 *   4096x4096   2.2, 1.6, 1.6  1.9, 1.4, 1.6  1.7, 1.3, 1.5  1.3, 1.2, 1.3  1.2, 1.1, 1.1
 *   1024x1024   2.1, 2.0, 1.8  1.8, 1.7, 1.9  1.6, 1.5, 1.7  1.4, 1.4, 1.3  1.2, 1.2, 1.1 */
enum { FEW = LKS_FEW_ROWS, FEW_DEPTH = 32, TURNED_DEPTH = 256 };

typedef void (*tile_function)(int64_t depth, const float *restrict a, int64_t am, int64_t ak,
                              const float *restrict b, int64_t ldb, float *restrict c, int64_t ldc,
                              bool add);
typedef struct sized_tile {
  int rows;
  tile_function run;
} sized_tile;

/* What one level of x86-64 brings. */
typedef struct cpu_level {
  int lanes;
  const sized_tile *single, *twice; /* tiles of one and of two vectors, largest first */
  float (*dot)(int64_t depth, const float *restrict x, const float *restrict y);
  void (*turn)(const float *restrict from, int64_t stride, int64_t count, int64_t depth,
               float *restrict to, int64_t width);
} cpu_level; /* the functions: see product_tile.h */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define LKS_LANES 8
#define LKS_TARGET __attribute__((target("avx2,fma")))
#include "backend/cpu/product_tile.h"
#define LKS_LANES 16
#define LKS_TARGET __attribute__((target("avx2,fma,avx512f")))
#include "backend/cpu/product_tile.h"

static const cpu_level levels[] = {
    {.lanes = 8, .single = single_tiles_8, .twice = double_tiles_8, .dot = dot_8, .turn = turn_8},
    {.lanes = 16,
     .single = single_tiles_16,
     .twice = double_tiles_16,
     .dot = dot_16,
     .turn = turn_16}};

/* NULL: neither, so BLAS does everything. LKS_NO_AVX512: a test of the lower level where there is
 * the higher. */
static const cpu_level *find_level(void) {
  const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#ifndef LKS_NO_AVX512
  if (fma && __builtin_cpu_supports("avx512f")) {
    return &levels[1];
  }
#endif
  return fma ? &levels[0] : NULL;
}
#else
static const cpu_level *find_level(void) {
  return NULL;
}
#endif

/* BLAS wants a leading dimension of at least a row's length, also where there is one row alone,
 * whose stride means nothing: of a layer with one input or one output all strides may be 1. */
static int leading(int64_t stride, int64_t length) {
  return (int)(stride > length ? stride : length);
}

static void by_blas(const lks_product *p) {
  const bool a_turned = p->a_depth != 1, b_turned = p->b_column != 1;
  cblas_sgemm(CblasRowMajor, a_turned ? CblasTrans : CblasNoTrans,
              b_turned ? CblasTrans : CblasNoTrans, (int)p->rows, (int)p->columns, (int)p->depth,
              1.0f, p->a, a_turned ? leading(p->a_depth, p->rows) : leading(p->a_row, p->depth),
              p->b, b_turned ? leading(p->b_column, p->depth) : leading(p->b_depth, p->columns),
              p->add ? 1.0f : 0.0f, p->c, (int)p->c_row);
}

/* Rows of `width` floats: columns of b from `column` on, turned; those past the end 0. In vectors:
 * element by element this took so long that with AVX-512 the gradient of the inputs as a whole took
 * 1.6 to 2 times as long for 64 to 128 rows of 784-128, 1.3 for 256 of 64-64, 1.2 of 300-300; with
 * AVX2 1.0 to 1.2. */
static void turn_panel(const lks_product *p, const cpu_level *level, int64_t first, int64_t depth,
                       int64_t column, int64_t width, float *panel) {
  for (int64_t lane = 0; lane < width; lane += level->lanes) {
    const int64_t left = p->columns - column - lane;
    const float *b = p->b + first * p->b_depth + (column + lane) * p->b_column;
    level->turn(b, p->b_column, left < level->lanes ? left : level->lanes, depth, panel + lane,
                width);
  }
}

/* The live columns of a tile that was computed aside. */
static void copy_corner(const float *corner, int64_t width, int rows, int64_t count, bool add,
                        float *c, int64_t ldc) {
  for (int i = 0; i < rows; ++i) {
    if (!add) {
      memcpy(c + i * ldc, corner + i * width, (size_t)count * sizeof *c);
      continue;
    }
    for (int64_t n = 0; n < count; ++n) {
      c[i * ldc + n] += corner[i * width + n];
    }
  }
}

/* The largest tile of at most `left` rows; where that would leave a sliver of one or two rows, too
 * few sums to hide an addition's latency, two even parts. */
static const sized_tile *choose_tile(const sized_tile *tiles, int64_t left) {
  while (tiles->rows > left) {
    ++tiles;
  }
  const int64_t rest = left - tiles->rows;
  if (rest > 0 && rest < 3) {
    while (tiles->rows > (left + 1) / 2) {
      ++tiles;
    }
  }
  return tiles;
}

/* A tile's vectors may reach past the last column. What they then read of b is multiplied into sums
 * that nobody keeps; what they write of c is the beginning of rows that are computed next. Only
 * where that would be beyond c, or where the next rows' sums are already there, is a tile computed
 * aside. */
static bool may_spill(const lks_product *p, bool add, int64_t row_end, int64_t width) {
  return !add && p->columns <= width && p->c_row == p->columns &&
         (row_end - 1) * p->columns + width <= p->rows * p->columns;
}

/* All rows of one panel: depth [first, first + depth), columns from `column` on. copy: b is far
 * from any cache. */
static void run_panel(const lks_product *p, const cpu_level *level, int64_t first, int64_t depth,
                      int64_t column, int64_t width, bool copy) {
  float panel[DEPTH * 2 * MOST_LANES], corner[12 * 2 * MOST_LANES];
  const sized_tile *tiles = width > level->lanes ? level->twice : level->single;
  const int64_t count = p->columns - column < width ? p->columns - column : width;
  const float *b = p->b + first * p->b_depth + column;
  int64_t ldb = p->b_depth;
  if (p->b_column != 1) {
    turn_panel(p, level, first, depth, column, width, panel);
    b = panel;
    ldb = width;
  } else if (copy) {
    for (int64_t k = 0; k < depth; ++k) {
      memcpy(panel + k * width, b + k * ldb, (size_t)width * sizeof *panel);
    }
    b = panel;
    ldb = width;
  }
  const bool add = p->add || first > 0;
  for (int64_t row = 0; row < p->rows;) {
    const sized_tile *tile = choose_tile(tiles, p->rows - row);
    const float *a = p->a + row * p->a_row + first * p->a_depth;
    float *c = p->c + row * p->c_row + column;
    if (count == width || may_spill(p, add, row + tile->rows, width)) {
      tile->run(depth, a, p->a_row, p->a_depth, b, ldb, c, p->c_row, add);
    } else {
      tile->run(depth, a, p->a_row, p->a_depth, b, ldb, corner, width, false);
      copy_corner(corner, width, tile->rows, count, add, c, p->c_row);
    }
    row += tile->rows;
  }
}

/* strip [rows, depth] = a, rows from `row` and depth from `first` on. */
static void pack_strip(const lks_product *p, int64_t row, int64_t rows, int64_t first,
                       int64_t depth, float *strip) {
  const float *a = p->a + row * p->a_row + first * p->a_depth;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < depth; ++k) {
      strip[i * depth + k] = a[i * p->a_row + k * p->a_depth];
    }
  }
}

static void run_panels(const lks_product *p, const cpu_level *level, bool copy) {
  for (int64_t first = 0; first < p->depth; first += DEPTH) {
    const int64_t depth = p->depth - first < DEPTH ? p->depth - first : DEPTH;
    for (int64_t column = 0; column < p->columns;) {
      const int64_t width = p->columns - column > level->lanes ? 2 * level->lanes : level->lanes;
      run_panel(p, level, first, depth, column, width, copy);
      column += width;
    }
  }
}

/* Few rows by weights that no cache holds. Weights are read in order and once, FEW_DEPTH of their
 * rows at a time (or, turned, TURNED_DEPTH of their columns), and written strip by strip; what is
 * read more than once is copied together first, for rows of large layers lie so far apart, often by
 * a power of two, that they would push each other out of the first cache. */
static void run_few(const lks_product *p, const cpu_level *level) {
  float strip[FEW * TURNED_DEPTH];
  const int64_t block = p->b_column == 1 && p->a_row != 1 ? FEW_DEPTH : TURNED_DEPTH;
  for (int64_t row = 0; row < p->rows; row += FEW) {
    lks_product part = *p;
    part.rows = p->rows - row < FEW ? p->rows - row : FEW;
    part.a = strip;
    part.a_depth = 1;
    part.c = p->c + row * p->c_row;
    for (int64_t first = 0; first < p->depth; first += block) {
      part.depth = part.a_row = p->depth - first < block ? p->depth - first : block;
      part.b = p->b + first * p->b_depth;
      part.add = p->add || first > 0;
      pack_strip(p, row, part.rows, first, part.depth, strip);
      run_panels(&part, level, true);
    }
  }
}

/* One column of contiguous rows: a dot product each. */
static void run_dots(const lks_product *p, const cpu_level *level) {
  for (int64_t row = 0; row < p->rows; ++row) {
    const float sum = level->dot(p->depth, p->a + row * p->a_row, p->b);
    p->c[row] = p->add ? p->c[row] + sum : sum;
  }
}

/* A few columns, a read across its rows: the gradient of few outputs' weights. Turned round, it
 * fills vectors: c's rows are a tile's lanes, its columns the tile's rows. With AVX-512, 256x256x10
 * takes 2.1 times less, 64x784x10 2.2, 1024x64x5 3.1, 32x100x10 1.2. */
static bool is_narrow(const lks_product *p, const cpu_level *level) {
  const int64_t most = level->lanes < NARROW ? level->lanes : NARROW;
  return p->columns <= most && p->a_row == 1 && p->rows >= 2 * level->lanes;
}

/* c [count, columns] (+)= what a tile made of it, [columns, width]. Whole vectors reach past the
 * last column into rows that come next; where there are none left, or sums are there, by element.
 */
static void turn_back(const lks_product *p, const cpu_level *level, const float *made,
                      int64_t width, int64_t row, int64_t count, bool add) {
  float *c = p->c + row * p->columns;
  const int64_t reached = (row + count - 1) * p->columns + level->lanes;
  if (!add && reached <= p->rows * p->columns) {
    level->turn(made, width, p->columns, count, c, p->columns);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = 0; j < p->columns; ++j) {
      c[i * p->columns + j] = made[j * width + i] + (add ? c[i * p->columns + j] : 0.0f);
    }
  }
}

static void run_narrow(const lks_product *p, const cpu_level *level) {
  float made[NARROW * 2 * MOST_LANES];
  const int64_t width = 2 * level->lanes;
  for (int64_t first = 0; first < p->depth; first += DEPTH) {
    const int64_t depth = p->depth - first < DEPTH ? p->depth - first : DEPTH;
    for (int64_t row = 0; row < p->rows; row += width) {
      const float *a = p->a + first * p->a_depth + row;
      for (int64_t column = 0; column < p->columns;) {
        const sized_tile *tile = choose_tile(level->twice, p->columns - column);
        const float *b = p->b + first * p->b_depth + column * p->b_column;
        tile->run(depth, b, p->b_column, p->b_depth, a, p->a_depth, made + column * width, width,
                  false);
        column += tile->rows;
      }
      const int64_t count = p->rows - row < width ? p->rows - row : width;
      turn_back(p, level, made, width, row, count, p->add || first > 0);
    }
  }
}

bool lks_product_is_own(const lks_product *p) {
  const bool aliased = p->a_depth != 1 && p->a_depth % LKS_ALIASED_FLOATS == 0;
  return find_level() != NULL && (p->few || p->weights <= (aliased ? SMALL : LKS_LARGE_WEIGHTS));
}

void lks_product_fetch(const float *operand, int64_t rows, int64_t width, int64_t stride,
                       int64_t weights) {
  if (weights > LKS_LARGE_WEIGHTS || find_level() == NULL) {
    return;
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t at = 0; at < width; at += LINE) {
      __builtin_prefetch(operand + row * stride + at);
    }
  }
}

void lks_product_cpu(const lks_product *product) {
  const cpu_level *level = lks_product_is_own(product) ? find_level() : NULL;
  if (level == NULL || product->rows == 0) {
    by_blas(product);
  } else if (product->columns > 1 && is_narrow(product, level)) {
    run_narrow(product, level);
  } else if (product->columns > 1 && product->few) {
    run_few(product, level);
  } else if (product->columns > 1) {
    run_panels(product, level, false);
  } else if (product->a_depth == 1 && product->b_depth == 1) {
    run_dots(product, level);
  } else { /* one column: the same numbers as one row, which fills vectors */
    const lks_product turned = {.rows = 1,
                                .columns = product->rows,
                                .depth = product->depth,
                                .a = product->b,
                                .a_row = 1,
                                .a_depth = product->b_depth,
                                .b = product->a,
                                .b_depth = product->a_depth,
                                .b_column = product->a_row,
                                .c = product->c,
                                .c_row = product->rows,
                                .add = product->add};
    run_panels(&turned, level, false);
  }
}

/* ---- whether BLAS may be given a product in parts */

static void fill(float *values, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    values[i] = lks_uniform(lks_philox((uint32_t)i, 0, 0, 0, 0, 0).v[0]) - 0.5f;
  }
}

static int64_t least_of(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* The product, small enough to be tried: as many rows (or columns) as parts of `least` and whole
 * tiles need; of the rest as much as makes BLAS take the ways that it takes for large ones. */
static lks_product shrink(const lks_product *whole, bool by_rows, int64_t least) {
  enum { TILES = 131, ROWS = 64, COLUMNS = 512, DEPTH_TRIED = 1024 };
  lks_product p = *whole;
  const int64_t divided = 2 * least + TILES;
  p.rows = least_of(p.rows, by_rows ? divided : ROWS);
  p.columns = least_of(p.columns, by_rows ? COLUMNS : divided);
  p.depth = least_of(p.depth, DEPTH_TRIED);
  *(p.a_depth == 1 ? &p.a_row : &p.a_depth) = p.a_depth == 1 ? p.depth : p.rows;
  *(p.b_column == 1 ? &p.b_depth : &p.b_column) = p.b_column == 1 ? p.columns : p.depth;
  p.c_row = p.columns;
  p.add = false;
  return p;
}

static void run_part(const lks_product *p, bool by_rows, int64_t first, int64_t count) {
  lks_product part = *p;
  if (by_rows) {
    part.rows = count;
    part.a += first * p->a_row;
    part.c += first * p->c_row;
  } else {
    part.columns = count;
    part.b += first * p->b_column;
    part.c += first;
  }
  by_blas(&part);
}

bool lks_product_divides(const lks_product *whole, bool by_rows, int64_t least) {
  enum { MOST = 128 };
  if (lks_product_is_own(whole)) {
    return true;
  }
  least = least_of(least, MOST);
  lks_product p = shrink(whole, by_rows, least);
  const int64_t size = by_rows ? p.rows : p.columns;
  const size_t a = (size_t)(p.rows * p.depth), b = (size_t)(p.depth * p.columns);
  const size_t c = (size_t)(p.rows * p.columns);
  float *memory = malloc((a + b + 2 * c) * sizeof *memory);
  if (memory == NULL) {
    return false;
  }
  fill(memory, a + b);
  float *expected = memory + a + b, *made = expected + c;
  p.a = memory;
  p.b = memory + a;
  p.c = expected;
  by_blas(&p);
  p.c = made;
  const int64_t cuts[] = {least, least + 5, size / 2, size - least};
  bool same = true;
  for (size_t i = 0; same && i < sizeof cuts / sizeof *cuts; ++i) {
    if (cuts[i] >= least && cuts[i] <= size - least) {
      run_part(&p, by_rows, 0, cuts[i]);
      run_part(&p, by_rows, cuts[i], size - cuts[i]);
      same = memcmp(made, expected, c * sizeof *made) == 0;
    }
  }
  free(memory);
  return same;
}
