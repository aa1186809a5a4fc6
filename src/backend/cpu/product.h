/* Matrix products: BLAS, or register tiles of our own for weights so small, or rows so few, that
 * BLAS' copying and checking cost much beside the arithmetic. */
#ifndef LKS_BACKEND_CPU_PRODUCT_H
#define LKS_BACKEND_CPU_PRODUCT_H

#include <stdbool.h>
#include <stdint.h>

enum { LKS_PRODUCT_SLACK = 32 }; /* floats */

/* c (+)= a b. Element (i, k) of a is a[i * a_row + k * a_depth], element (k, j) of b is
 * b[k * b_depth + j * b_column], element (i, j) of c is c[i * c_row + j]; one stride of a and of b
 * is 1. c overlaps neither. a and b can be read for LKS_PRODUCT_SLACK floats past their ends: what
 * is there changes nothing, but vectors reach over it. */
typedef struct lks_product {
  int64_t rows, columns, depth;
  const float *a;
  int64_t a_row, a_depth;
  const float *b;
  int64_t b_depth, b_column;
  float *c;
  int64_t c_row;
  bool add; /* to what c holds; else c is overwritten, and need not be initialised */
  /* These two and the strides decide who computes it: never `rows`, so that no sum's order depends
   * on how many a batch happens to have. */
  int64_t weights; /* inputs times outputs of the layer */
  bool few;        /* as the plan says of its operation */
} lks_product;

/* Allocates nothing. */
void lks_product_cpu(const lks_product *product);

/* Whether parts of such a product, of its rows or its columns, at least `least` each, have the same
 * bits as in the whole. Those of our own do: a tile adds in the order of depth, whatever its size.
 * BLAS is tried, on products of its own that are as large as tells: OpenBLAS' kernels for AVX-512
 * do from some million multiplications on, those for AVX2 never. Pointers are not used. Allocates.
 */
bool lks_product_divides(const lks_product *whole, bool by_rows, int64_t least);

/* Asks the cache for an operand of a product of so many weights that another core wrote: `rows`
 * rows of `width` floats, `stride` apart. Our own tiles read across rows, where the processor
 * foresees little and each line would be waited for; BLAS copies its operands in order, so then it
 * is left alone. */
void lks_product_fetch(const float *operand, int64_t rows, int64_t width, int64_t stride,
                       int64_t weights);

/* Whether such a product is our own here, for tests. */
bool lks_product_is_own(const lks_product *product);

#endif
