/* The functions that -fsanitize=thread calls at each load and store of a kernel: ours instead of
 * libtsan's. Each library with kernels links a hidden copy, so that a program which runs under the
 * real one does not take them over. */
#include "sim_kernels.h"

#pragma GCC visibility push(hidden)

#define ACCESSES(size)                                                                             \
  void __tsan_read##size(void *p) {                                                                \
    sim::kernel_access(p, size, false);                                                            \
  }                                                                                                \
  void __tsan_write##size(void *p) {                                                               \
    sim::kernel_access(p, size, true);                                                             \
  }

#define UNALIGNED(size)                                                                            \
  void __tsan_unaligned_read##size(void *p) {                                                      \
    sim::kernel_access(p, size, false);                                                            \
  }                                                                                                \
  void __tsan_unaligned_write##size(void *p) {                                                     \
    sim::kernel_access(p, size, true);                                                             \
  }

extern "C" {

ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
UNALIGNED(2)
UNALIGNED(4)
UNALIGNED(8)
UNALIGNED(16)

void __tsan_read_range(void *p, size_t bytes) {
  sim::kernel_access(p, bytes, false);
}

void __tsan_write_range(void *p, size_t bytes) {
  sim::kernel_access(p, bytes, true);
}

void __tsan_init() {}

void __tsan_func_entry(void *) {}

void __tsan_func_exit() {}

} /* extern "C" */

#pragma GCC visibility pop
