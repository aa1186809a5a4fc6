/* Preloaded into a program under test: how often its main thread takes memory from the heap.
 *
 * The count goes to the file $ALLOCATIONS, with the rank's number behind it, when the program ends.
 * glibc's own functions do the work, so nothing has to be looked up before the first call. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static long long count; /* written by the main thread alone */

static void note(void) {
  count += gettid() == getpid();
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

/* Whether this is the program itself: mpirun and the shell that starts a rank have it loaded too.
 */
static int is_meant(void) {
  const char *program = getenv("ALLOCATIONS_OF");
  char self[4096];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
  if (program == NULL || length <= 0) {
    return 0;
  }
  self[length] = '\0';
  return strcmp(self, program) == 0;
}

__attribute__((destructor)) static void tell(void) {
  const char *file = getenv("ALLOCATIONS"), *rank = getenv("OMPI_COMM_WORLD_RANK");
  char path[4096];
  if (file == NULL || !is_meant()) {
    return;
  }
  const long long found = count;
  (void)snprintf(path, sizeof path, "%s.%s", file, rank != NULL ? rank : "0");
  FILE *out = fopen(path, "w");
  if (out != NULL) {
    (void)fprintf(out, "%lld\n", found);
    (void)fclose(out);
  }
}
