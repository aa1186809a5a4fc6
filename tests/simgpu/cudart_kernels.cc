/* What nvcc's objects call: registration of kernels, launches. The kernels themselves are in
 * libsimkernels.so, found by the names under which they are registered here. */
#include <cstring>
#include <map>
#include <set>
#include <string>

#include "cudart.h"
#include "sim_kernels.h"

namespace sim {

/* A kernel of the program. Its address is the cudaKernel_t. */
struct Function {
  const char *name;  /* mangled */
  const char *shown; /* "kernel NAME" */
};

struct Launch {
  dim3 grid, block;
  size_t shared_bytes;
  cudaStream_t stream;
};

static std::map<const void *, Function> &functions() {
  static auto *const all = new std::map<const void *, Function>;
  return *all;
}

/* Set by <<<>>>, taken by the stub that it calls. */
static std::vector<Launch> &pushed() {
  static auto *const stack = new std::vector<Launch>;
  return *stack;
}

/* Lives as long as the process: modules may be unloaded, names in findings stay. */
static const char *kept(const std::string &text) {
  static auto *const all = new std::set<std::string>;
  return all->insert(text).first->c_str();
}

static cudaError_t launch(const Function *function, dim3 grid, dim3 block, void **arguments,
                          size_t shared_bytes, cudaStream_t stream) {
  constexpr size_t most_shared = 48 << 10; /* more must be asked for, by a call not modelled */
  if (!function)
    return cudaErrorInvalidDeviceFunction;
  if (!kernel_fits(grid, block))
    return cudaErrorInvalidConfiguration;
  if (shared_bytes > most_shared)
    return cudaErrorInvalidValue;
  Op op;
  op.name = function->shown;
  op.kernel = true;
  op.run = kernel_call(function->name, grid, block, arguments, shared_bytes);
  if (!op.run) {
    finding(Kind::unmodelled, "no host build of kernel %s", function->name);
    return cudaErrorInvalidDeviceFunction;
  }
  if (!capturing(stream))
    count(Counter::kernels);
  return enqueue(stream, std::move(op));
}

static const Function *function_of(const void *entry) {
  const auto found = functions().find(entry);
  return found == functions().end() ? nullptr : &found->second;
}

} // namespace sim

using namespace sim;

extern "C" {

/* Declared by nvcc's own headers only while it compiles. */
void **__cudaRegisterFatBinary(void *image);
void __cudaRegisterFatBinaryEnd(void **handle);
void __cudaUnregisterFatBinary(void **handle);
char __cudaInitModule(void **handle);
void __cudaRegisterFunction(void **handle, const char *entry, char *device_entry, const char *name,
                            int thread_limit, uint3 *thread, uint3 *block, dim3 *block_size,
                            dim3 *grid_size, int *warp_size);
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *entry);
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments,
                               size_t shared_bytes, cudaStream_t stream);
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes,
                                     CUstream_st *stream);
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared_bytes, void *stream);

void **__cudaRegisterFatBinary(void *image) {
  return new void *(image);
}

void __cudaRegisterFatBinaryEnd(void **) {}

void __cudaUnregisterFatBinary(void **handle) {
  delete handle;
}

char __cudaInitModule(void **) {
  return 1;
}

void __cudaRegisterFunction(void **, const char *entry, char *, const char *name, int, uint3 *,
                            uint3 *, dim3 *, dim3 *, int *) {
  functions()[entry] = {kept(name), kept(std::string("kernel ") + name)};
}

cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *entry) {
  const Function *function = function_of(entry);
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<Function *>(function));
  return function ? cudaSuccess : cudaErrorInvalidDeviceFunction;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments,
                               size_t shared_bytes, cudaStream_t stream) {
  return call_async("cudaLaunchKernel", stream, [&] {
    return launch(reinterpret_cast<const Function *>(kernel), grid, block, arguments, shared_bytes,
                  stream);
  });
}

cudaError_t cudaLaunchKernel(const void *entry, dim3 grid, dim3 block, void **arguments,
                             size_t shared_bytes, cudaStream_t stream) {
  return call_async("cudaLaunchKernel", stream, [&] {
    return launch(function_of(entry), grid, block, arguments, shared_bytes, stream);
  });
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes,
                                     CUstream_st *stream) {
  pushed().push_back({grid, block, shared_bytes, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared_bytes,
                                       void *stream) {
  if (pushed().empty())
    return cudaErrorMissingConfiguration;
  const Launch &top = pushed().back();
  *grid = top.grid;
  *block = top.block;
  *shared_bytes = top.shared_bytes;
  *static_cast<cudaStream_t *>(stream) = top.stream;
  pushed().pop_back();
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *entry) {
  return call("cudaFuncGetAttributes", [&] {
    const Function *function = function_of(entry);
    const KernelInfo *info = function ? kernel_find(function->name) : nullptr;
    if (!info)
      return cudaErrorInvalidDeviceFunction;
    cudaDeviceProp device;
    if (const cudaError_t code = cudaGetDeviceProperties(&device, current_device()))
      return code;
    memset(attributes, 0, sizeof *attributes);
    attributes->maxThreadsPerBlock = info->most_threads;
    attributes->maxDynamicSharedSizeBytes = 48 << 10;
    attributes->binaryVersion = attributes->ptxVersion = 10 * device.major + device.minor;
    return cudaSuccess;
  });
}

} /* extern "C" */
