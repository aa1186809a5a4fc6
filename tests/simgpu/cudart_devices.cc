/* Runtime calls on devices and versions. */
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cudart.h"

namespace sim {

constexpr int sms = 8, warp = 32, block_threads = 1024, sm_threads = 2048, sm_blocks = 32;
constexpr int shared_block = 48 << 10, shared_most = 227 << 10, shared_reserved = 1 << 10;
constexpr int block_x = 1024, block_y = 1024, block_z = 64, grid_x = 0x7fffffff, grid_y = 65535;
constexpr int registers = 65536, cache = 4 << 20, bus_bits = 256, kilohertz = 1000000;

static bool valid(int ordinal) {
  return ordinal >= 0 && ordinal < static_cast<int>(visible_devices().size());
}

static int capability(bool major) {
  const char *text = getenv("SIMGPU_CC");
  int high = 9, low = 0;
  if (text && sscanf(text, "%d.%d", &high, &low) != 2)
    finding(Kind::internal, "SIMGPU_CC=%s is not like 9.0", text);
  return major ? high : low;
}

static int bus_of(int ordinal) {
  return 0x10 + visible_devices()[static_cast<size_t>(ordinal)];
}

static void fill(cudaDeviceProp &p, int ordinal) {
  memset(&p, 0, sizeof p);
  const char *name = getenv("SIMGPU_NAME");
  snprintf(p.name, sizeof p.name, "%s", name ? name : "Simulated GPU");
  p.uuid = device_uuid(ordinal);
  p.totalGlobalMem = memory_total();
  p.sharedMemPerBlock = shared_block;
  p.sharedMemPerBlockOptin = shared_most;
  p.sharedMemPerMultiprocessor = shared_most + shared_reserved;
  p.reservedSharedMemPerBlock = shared_reserved;
  p.regsPerBlock = p.regsPerMultiprocessor = registers;
  p.warpSize = warp;
  p.maxThreadsPerBlock = block_threads;
  p.maxThreadsDim[0] = block_x;
  p.maxThreadsDim[1] = block_y;
  p.maxThreadsDim[2] = block_z;
  p.maxGridSize[0] = grid_x;
  p.maxGridSize[1] = p.maxGridSize[2] = grid_y;
  p.major = capability(true);
  p.minor = capability(false);
  p.multiProcessorCount = sms;
  p.maxThreadsPerMultiProcessor = sm_threads;
  p.maxBlocksPerMultiProcessor = sm_blocks;
  p.canMapHostMemory = p.concurrentKernels = p.unifiedAddressing = 1;
  p.streamPrioritiesSupported = 1;
  p.ECCEnabled = 1;
  p.asyncEngineCount = 2;
  p.pciBusID = bus_of(ordinal);
  p.memoryBusWidth = bus_bits;
  p.l2CacheSize = cache;
}

static cudaError_t attribute(int *value, cudaDeviceAttr which, int ordinal) {
  switch (which) {
  case cudaDevAttrMaxThreadsPerBlock:
    *value = block_threads;
    break;
  case cudaDevAttrMaxBlockDimX:
    *value = block_x;
    break;
  case cudaDevAttrMaxBlockDimY:
    *value = block_y;
    break;
  case cudaDevAttrMaxBlockDimZ:
    *value = block_z;
    break;
  case cudaDevAttrMaxGridDimX:
    *value = grid_x;
    break;
  case cudaDevAttrMaxGridDimY:
  case cudaDevAttrMaxGridDimZ:
    *value = grid_y;
    break;
  case cudaDevAttrMaxSharedMemoryPerBlock:
    *value = shared_block;
    break;
  case cudaDevAttrMaxSharedMemoryPerBlockOptin:
    *value = shared_most;
    break;
  case cudaDevAttrWarpSize:
    *value = warp;
    break;
  case cudaDevAttrClockRate:
  case cudaDevAttrMemoryClockRate:
    *value = kilohertz;
    break;
  case cudaDevAttrMultiProcessorCount:
    *value = sms;
    break;
  case cudaDevAttrMaxThreadsPerMultiProcessor:
    *value = sm_threads;
    break;
  case cudaDevAttrMaxBlocksPerMultiprocessor:
    *value = sm_blocks;
    break;
  case cudaDevAttrKernelExecTimeout:
  case cudaDevAttrIntegrated:
  case cudaDevAttrPciDeviceId:
  case cudaDevAttrPciDomainId:
    *value = 0;
    break;
  case cudaDevAttrComputeMode:
    *value = cudaComputeModeDefault;
    break;
  case cudaDevAttrCanMapHostMemory:
  case cudaDevAttrConcurrentKernels:
  case cudaDevAttrUnifiedAddressing:
  case cudaDevAttrStreamPrioritiesSupported:
  case cudaDevAttrEccEnabled:
    *value = 1;
    break;
  case cudaDevAttrAsyncEngineCount:
    *value = 2;
    break;
  case cudaDevAttrPciBusId:
    *value = bus_of(ordinal);
    break;
  case cudaDevAttrGlobalMemoryBusWidth:
    *value = bus_bits;
    break;
  case cudaDevAttrL2CacheSize:
    *value = cache;
    break;
  case cudaDevAttrComputeCapabilityMajor:
  case cudaDevAttrComputeCapabilityMinor:
    *value = capability(which == cudaDevAttrComputeCapabilityMajor);
    break;
  default:
    finding(Kind::unmodelled, "device attribute %d", which);
    return cudaErrorNotSupported;
  }
  return cudaSuccess;
}

static cudaError_t reset() {
  capture_drop();
  drop_tasks();
  reset_streams();
  release_all();
  return cudaSuccess;
}

} // namespace sim

using namespace sim;

extern "C" cudaError_t cudaDriverGetVersion(int *version) {
  return call("cudaDriverGetVersion", Need::nothing, [&] {
    *version = driver_version();
    return cudaSuccess;
  });
}

extern "C" cudaError_t cudaRuntimeGetVersion(int *version) {
  return call("cudaRuntimeGetVersion", Need::nothing, [&] {
    *version = CUDART_VERSION;
    return cudaSuccess;
  });
}

extern "C" cudaError_t cudaGetDeviceCount(int *number) {
  return call("cudaGetDeviceCount", Need::driver, [&] {
    *number = static_cast<int>(visible_devices().size());
    return *number ? cudaSuccess : cudaErrorNoDevice;
  });
}

extern "C" cudaError_t cudaSetDevice(int ordinal) {
  return call("cudaSetDevice", [&] {
    if (!valid(ordinal))
      return cudaErrorInvalidDevice;
    set_device(ordinal);
    return cudaSuccess;
  });
}

extern "C" cudaError_t cudaGetDevice(int *ordinal) {
  return call("cudaGetDevice", [&] {
    *ordinal = current_device();
    return cudaSuccess;
  });
}

extern "C" cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int ordinal) {
  return call("cudaGetDeviceProperties", [&] {
    if (!valid(ordinal))
      return cudaErrorInvalidDevice;
    fill(*properties, ordinal);
    return cudaSuccess;
  });
}

extern "C" cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr which, int ordinal) {
  return call("cudaDeviceGetAttribute", [&] {
    return valid(ordinal) ? attribute(value, which, ordinal) : cudaErrorInvalidDevice;
  });
}

extern "C" cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int ordinal) {
  return call("cudaDeviceGetPCIBusId", [&] {
    if (!valid(ordinal))
      return cudaErrorInvalidDevice;
    if (!text || length < 13)
      return cudaErrorInvalidValue;
    snprintf(text, static_cast<size_t>(length), "0000:%02X:00.0",
             static_cast<unsigned>(bus_of(ordinal)));
    return cudaSuccess;
  });
}

extern "C" cudaError_t cudaDeviceCanAccessPeer(int *can, int ordinal, int peer) {
  return call("cudaDeviceCanAccessPeer", [&] {
    if (!valid(ordinal) || !valid(peer))
      return cudaErrorInvalidDevice;
    *can = ordinal != peer;
    return cudaSuccess;
  });
}

extern "C" cudaError_t cudaDeviceReset() {
  return call("cudaDeviceReset", Need::driver, reset);
}
