/* The way in and out of each runtime call, and its errors. */
#include <pthread.h>

#include "cudart.h"

namespace sim {

static cudaError_t last_error;

static void check_thread() {
  static const pthread_t caller = pthread_self();
  if (!pthread_equal(caller, pthread_self()))
    finding(Kind::unmodelled, "CUDA is called from a second thread");
}

bool sticky(cudaError_t code) {
  switch (code) {
  case cudaErrorDevicesUnavailable:
  case cudaErrorECCUncorrectable:
  case cudaErrorNvlinkUncorrectable:
  case cudaErrorIllegalAddress:
  case cudaErrorLaunchTimeout:
  case cudaErrorAssert:
  case cudaErrorHardwareStackError:
  case cudaErrorIllegalInstruction:
  case cudaErrorMisalignedAddress:
  case cudaErrorInvalidAddressSpace:
  case cudaErrorInvalidPc:
  case cudaErrorLaunchFailure:
    return true;
  default:
    return false;
  }
}

cudaError_t enter(const char *name, Need need) {
  check_thread();
  guard_install(); /* MPI_Init may have taken the signals since */
  const auto code = static_cast<cudaError_t>(injected(name));
  if (code != cudaSuccess || need == Need::nothing)
    return code;
  if (driver_version() / 1000 < CUDART_VERSION / 1000)
    return cudaErrorInsufficientDriver;
  if (need == Need::driver)
    return cudaSuccess;
  if (visible_devices().empty())
    return cudaErrorNoDevice;
  return device_error();
}

cudaError_t leave(cudaError_t code) {
  if (code != cudaSuccess)
    last_error = code;
  return code;
}

struct ErrorText {
  cudaError_t code;
  const char *name, *text;
};

#define ERROR(code, text)                                                                          \
  { code, #code, text }
static const ErrorText error_texts[] = {
    ERROR(cudaSuccess, "no error"),
    ERROR(cudaErrorInvalidValue, "invalid argument"),
    ERROR(cudaErrorMemoryAllocation, "out of memory"),
    ERROR(cudaErrorInitializationError, "initialization error"),
    ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    ERROR(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    ERROR(cudaErrorStubLibrary, "CUDA driver is a stub library"),
    ERROR(cudaErrorInsufficientDriver,
          "CUDA driver version is insufficient for CUDA runtime version"),
    ERROR(cudaErrorDevicesUnavailable, "CUDA-capable device(s) is/are busy or unavailable"),
    ERROR(cudaErrorInvalidDeviceFunction, "invalid device function"),
    ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    ERROR(cudaErrorInvalidKernelImage, "device kernel image is invalid"),
    ERROR(cudaErrorNoKernelImageForDevice,
          "no kernel image is available for execution on the device"),
    ERROR(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered"),
    ERROR(cudaErrorNvlinkUncorrectable, "uncorrectable NVLink error detected during the execution"),
    ERROR(cudaErrorUnsupportedPtxVersion,
          "the provided PTX was compiled with an unsupported toolchain."),
    ERROR(cudaErrorOperatingSystem, "OS call failed or operation not supported on this OS"),
    ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    ERROR(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    ERROR(cudaErrorNotReady, "device not ready"),
    ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    ERROR(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    ERROR(cudaErrorLaunchTimeout, "the launch timed out and was terminated"),
    ERROR(cudaErrorAssert, "device-side assert triggered"),
    ERROR(cudaErrorHardwareStackError, "hardware stack error"),
    ERROR(cudaErrorIllegalInstruction, "an illegal instruction was encountered"),
    ERROR(cudaErrorMisalignedAddress, "misaligned address"),
    ERROR(cudaErrorInvalidAddressSpace, "operation not supported on global/shared address space"),
    ERROR(cudaErrorInvalidPc, "invalid program counter"),
    ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
    ERROR(cudaErrorNotPermitted, "operation not permitted"),
    ERROR(cudaErrorNotSupported, "operation not supported"),
    ERROR(cudaErrorSystemNotReady, "system not yet initialized"),
    ERROR(cudaErrorSystemDriverMismatch,
          "system has unsupported display driver / cuda driver combination"),
    ERROR(cudaErrorCompatNotSupportedOnDevice,
          "forward compatibility was attempted on non supported HW"),
    ERROR(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    ERROR(cudaErrorStreamCaptureInvalidated,
          "operation failed due to a previous error during capture"),
    ERROR(cudaErrorStreamCaptureMerge,
          "operation would result in a merge of separate capture sequences"),
    ERROR(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    ERROR(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    ERROR(cudaErrorStreamCaptureIsolation,
          "dependency created on uncaptured work in another stream"),
    ERROR(cudaErrorStreamCaptureImplicit,
          "operation would make the legacy stream depend on a capturing blocking stream"),
    ERROR(cudaErrorCapturedEvent,
          "operation not permitted on an event last recorded in a capturing stream"),
    ERROR(cudaErrorStreamCaptureWrongThread,
          "attempt to terminate a thread-local capture sequence from another thread"),
    ERROR(cudaErrorUnknown, "unknown error"),
};
#undef ERROR

static const ErrorText *text_of(cudaError_t code) {
  for (const ErrorText &row : error_texts)
    if (row.code == code)
      return &row;
  return nullptr;
}

} // namespace sim

extern "C" const char *cudaGetErrorName(cudaError_t code) {
  const sim::ErrorText *row = sim::text_of(code);
  return row ? row->name : "unrecognized error code";
}

extern "C" const char *cudaGetErrorString(cudaError_t code) {
  const sim::ErrorText *row = sim::text_of(code);
  return row ? row->text : "unrecognized error code";
}

extern "C" cudaError_t cudaPeekAtLastError() {
  return sim::device_error() != cudaSuccess ? sim::device_error() : sim::last_error;
}

extern "C" cudaError_t cudaGetLastError() {
  const cudaError_t code = cudaPeekAtLastError();
  sim::last_error = cudaSuccess;
  return code;
}
