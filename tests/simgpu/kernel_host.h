/* Forced in before a .cu file that is compiled as plain C++: the words of CUDA that our kernels
 * use.
 *
 * A kernel becomes a function of one thread, run as a fiber; what the words do is in kernels.cc,
 * which is not instrumented. Shared memory is thread_local: the TLS block of the library that holds
 * the kernels is the block's shared memory, filled anew before each block. */
#ifndef SIMGPU_KERNEL_HOST_H
#define SIMGPU_KERNEL_HOST_H

#include <cmath>
#include <cstdint>
#include <cstring>

#include "sim_kernels.h"

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __launch_bounds__
#undef __grid_constant__
#define __global__
#define __device__
#define __host__
#define __shared__ thread_local
#define __launch_bounds__(...)
#define __grid_constant__

/* Variables of kernels.cc, set before a fiber goes on. Constant to whom they are shown: no thread
 * sees its own change, and reads of constants are not instrumented (of dim3 they would be: it has
 * constructors). */
extern const uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace sim {

/* One of the argument struct's type, on the fiber's own stack. */
template <typename A, void (*kernel)(A)> void call_kernel(const void *arguments) {
  kernel(*static_cast<const A *>(arguments));
}

struct Registered {
  explicit Registered(const KernelInfo &info) {
    kernel_register(info);
  }
};

void barrier(int line);
void fence();
/* The bits that lane `source` of the warp gives; all lanes in the mask give theirs. */
uint64_t exchange(unsigned mask, uint64_t bits, unsigned source, int line);
unsigned lane();

template <typename T> T shuffle(unsigned mask, T value, unsigned source, int line) {
  static_assert(sizeof value <= sizeof(uint64_t), "a shuffle moves at most eight bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = exchange(mask, bits, source, line);
  memcpy(&value, &bits, sizeof value);
  return value;
}

} // namespace sim

#define LKS_KERNEL(name, type)                                                                     \
  extern "C" void name(const type a);                                                              \
  static const sim::Registered name##_registered(                                                  \
      {#name, sim::call_kernel<const type, name>, sizeof(type), LKS_BLOCK_THREADS});               \
  extern "C" void name(const type a)
#define LKS_LAUNCH(kernel, grid, block, stream, args)                                              \
  sim::kernel_launch(#kernel, grid, block, stream, &(args))

/* ---- threads of a block and lanes of a warp */

inline void __syncthreads(int line = __builtin_LINE()) {
  sim::barrier(line);
}

inline void __threadfence() {
  sim::fence();
}

inline void __threadfence_system() {
  sim::fence();
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int other, int width = 32, int line = __builtin_LINE()) {
  const unsigned me = sim::lane(), source = me ^ static_cast<unsigned>(other);
  const unsigned group = ~(static_cast<unsigned>(width) - 1U);
  return sim::shuffle(mask, value, (source & group) == (me & group) ? source : me, line);
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32, int line = __builtin_LINE()) {
  const unsigned w = static_cast<unsigned>(width);
  const unsigned source = (sim::lane() & ~(w - 1U)) | (static_cast<unsigned>(from) & (w - 1U));
  return sim::shuffle(mask, value, source, line);
}

/* ---- atomics: each answers the old value */

int atomicOr(int *at, int bits);
int atomicExch(int *at, int value);
unsigned atomicInc(unsigned *at, unsigned most);
unsigned long long atomicAdd(unsigned long long *at, unsigned long long value);

inline unsigned __float_as_uint(float value) {
  unsigned bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

#endif
