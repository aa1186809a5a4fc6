/* Preloaded into a program under test: how often its main thread takes memory from the heap.
 *
 * glibc's own functions do the work, so nothing has to be looked up before the first call. */
#include <errno.h>

#include "counts.h"

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static long long count; /* written by the main thread alone */

static void note(void) {
  count += is_main_thread();
}

void *malloc(size_t size) {
  note();
  return __libc_malloc(size);
}

void *calloc(size_t n, size_t size) {
  note();
  return __libc_calloc(n, size);
}

void *realloc(void *old, size_t size) {
  note();
  return __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size) {
  note();
  return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
  return memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
  void *found = memalign(alignment, size);
  if (found == NULL) {
    return ENOMEM;
  }
  *memory = found;
  return 0;
}

__attribute__((destructor)) static void tell(void) {
  const long long found = count;
  tell_counts(&found, 1);
}
