/* The one table of device errors: what each code of CUDA, cuBLAS, NCCL and NVML means for a user.
 * Nothing else classifies a code or words advice about one. */
#ifndef LKS_DEVICE_ERRORS_H
#define LKS_DEVICE_ERRORS_H

#include "base/error.h"
#include "device/gpu.h"

typedef enum lks_device_class {
  LKS_CLASS_NOT_FOUND,
  LKS_CLASS_BUSY,
  LKS_CLASS_MEMORY,
  LKS_CLASS_DRIVER,
  LKS_CLASS_CODE, /* no machine code for this device */
  LKS_CLASS_HARDWARE,
  LKS_CLASS_COMMUNICATION,
  LKS_CLASS_INTERNAL,
} lks_device_class;

typedef struct lks_device_error {
  lks_library library;
  int code;
  lks_device_class class_;
  lks_status status;  /* its exit code is the class's: LKS_DEVICE or LKS_COMM */
  const char *advice; /* what to do, one line */
} lks_device_error;

/* The row of a code; for an unknown one a row of class internal whose advice says to report it.
 * Never NULL. */
const lks_device_error *lks_device_error_of(lks_library library, int code);
/* All rows, for tests and docs/devices.md. */
const lks_device_error *lks_device_errors(int *count);
const char *lks_device_class_name(lks_device_class class_); /* "out of memory" */
const char *lks_library_name(lks_library library);          /* "CUDA" */

/* Fills *err with class, the library's own name and words, expression, file and line, device, and
 * advice; returns the row's status. */
lks_status lks_device_fail(const lks_gpu_failure *failure, lks_error *err) LKS_MUST_USE;

#endif
