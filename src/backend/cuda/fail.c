/* See fail.h. */
#include "backend/cuda/fail.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <nccl.h>
#include <stdio.h>
#include <string.h>

static void copy(char *out, size_t size, const char *text) {
  (void)snprintf(out, size, "%s", text != NULL ? text : "");
}

/* NCCL has words for a code, but no name. */
static const char *nccl_name(int code) {
  static const char *const names[] = {
      [ncclUnhandledCudaError] = "ncclUnhandledCudaError",
      [ncclSystemError] = "ncclSystemError",
      [ncclInternalError] = "ncclInternalError",
      [ncclInvalidArgument] = "ncclInvalidArgument",
      [ncclInvalidUsage] = "ncclInvalidUsage",
      [ncclRemoteError] = "ncclRemoteError",
      [ncclInProgress] = "ncclInProgress",
  };
  const size_t index = (size_t)code;
  return index < sizeof names / sizeof *names ? names[index] : NULL;
}

void lks_failure_fill(lks_gpu_failure *failure, const lks_site *site, lks_library library, int code,
                      const char *expression, const char *file, int line) {
  *failure = (lks_gpu_failure){
      .library = library, .code = code, .file = file, .line = line, .ordinal = site->ordinal};
  copy(failure->expression, sizeof failure->expression, expression);
  copy(failure->device, sizeof failure->device, site->device);
  switch (library) {
  case LKS_LIB_CUDA:
    copy(failure->name, sizeof failure->name, cudaGetErrorName((cudaError_t)code));
    copy(failure->text, sizeof failure->text, cudaGetErrorString((cudaError_t)code));
    break;
  case LKS_LIB_CUBLAS:
    copy(failure->name, sizeof failure->name, cublasLtGetStatusName((cublasStatus_t)code));
    copy(failure->text, sizeof failure->text, cublasLtGetStatusString((cublasStatus_t)code));
    break;
  case LKS_LIB_NCCL:
    copy(failure->name, sizeof failure->name, nccl_name(code));
    copy(failure->text, sizeof failure->text, ncclGetErrorString((ncclResult_t)code));
    copy(failure->more, sizeof failure->more, ncclGetLastError(NULL));
    break;
  case LKS_LIB_NVML: /* not called here */
    break;
  }
}

lks_status lks_failure_report(const lks_site *site, lks_library library, int code,
                              const char *expression, const char *file, int line, const char *more,
                              lks_error *err) {
  lks_gpu_failure failure;
  lks_failure_fill(&failure, site, library, code, expression, file, line);
  if (more != NULL) {
    copy(failure.more, sizeof failure.more, more);
  }
  return lks_cuda_services->fail(&failure, err);
}
