#include "base/pages.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, HUGE_PAGE = 2 << 20 };

static size_t round_up(size_t value, size_t unit) {
  return (value + unit - 1) / unit * unit;
}

void lks_pages_advise(void *base, size_t bytes) {
#ifdef MADV_HUGEPAGE
  const size_t skip = round_up((uintptr_t)base, HUGE_PAGE) - (uintptr_t)base;
  const size_t whole = bytes > skip ? (bytes - skip) / HUGE_PAGE * HUGE_PAGE : 0;
  if (whole > 0) {
    (void)madvise((char *)base + skip, whole, MADV_HUGEPAGE);
  }
#else
  (void)base;
  (void)bytes;
#endif
}

void *lks_pages_alloc(size_t bytes) {
  const size_t unit = bytes < HUGE_PAGE ? PAGE : HUGE_PAGE;
  const size_t rounded = round_up(bytes > 0 ? bytes : 1, PAGE);
  void *memory = NULL;
  if (rounded < bytes || posix_memalign(&memory, unit, rounded) != 0) {
    return NULL;
  }
  lks_pages_advise(memory, rounded);
  memset(memory, 0, rounded);
  return memory;
}
