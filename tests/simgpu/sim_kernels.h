/* Running kernels on the host: the interface of libsimkernels.so.
 *
 * A kernel is the host build of the source that nvcc compiled, found by the name under which the
 * nvcc-built binary registers it. Every load and store it makes is instrumented and comes to
 * kernel_access. Device and pinned memory is the core's (bounds, freed, uninitialised, races with
 * other operations); races inside a launch, shared memory and barriers are checked here. */
#ifndef SIMGPU_SIM_KERNELS_H
#define SIMGPU_SIM_KERNELS_H

#include <cstddef>
#include <functional>

#include <driver_types.h>

namespace sim {

/* What is known of a kernel. */
struct KernelInfo {
  const char *name;
  void (*call)(const void *arguments); /* one thread's run, on the struct of arguments */
  size_t argument_bytes;
  int most_threads; /* __launch_bounds__ */
};

/* Called by static constructors of host-built kernels (LKS_KERNEL in kernel_host.h). */
void kernel_register(const KernelInfo &info);

/* Null: no host build has this name. */
const KernelInfo *kernel_find(const char *name);
inline bool kernel_known(const char *name) {
  return kernel_find(name) != nullptr;
}

/* Whether a device takes a grid of such blocks. */
bool kernel_fits(dim3 grid, dim3 block);

/* A launch of it with copies of the arguments (as cudaLaunchKernel takes them: one pointer a
 * parameter; our kernels have one). Empty: unknown. It may be run many times, each time inside an
 * operation and with memory open, and holds no state of one run. */
std::function<void()> kernel_call(const char *name, dim3 grid, dim3 block, void **arguments,
                                  size_t shared_bytes);

/* Queues a launch in the stream: what <<<>>> is in the host build. */
int kernel_launch(const char *name, dim3 grid, dim3 block, cudaStream_t stream,
                  const void *arguments);

/* A load or store of the thread that runs; ignored outside of kernels. */
void kernel_access(const void *pointer, size_t bytes, bool write, bool atomic = false);

} // namespace sim

#endif
