/* Asking the CUDA module what there is, and putting in words why there is nothing: the one place
 * that tells a device which is not there from one that fails. Local; touches no device. */
#ifndef LKS_DEVICE_PROBE_H
#define LKS_DEVICE_PROBE_H

#include <stdbool.h>

#include "device/errors.h"
#include "device/module.h"

typedef struct lks_probe {
  const lks_module_found *found;
  const lks_gpu_ops *ops; /* NULL where no module is loaded */
  lks_gpu_versions versions;
  int count;               /* devices that this process sees */
  lks_device_class class_; /* of a failure */
} lks_probe;

/* Fills *probe. LKS_DEVICE where there is no device to use: class LKS_CLASS_NOT_FOUND when nothing
 * is there (no module, no driver, no device), another one when something is and fails. */
lks_status lks_probe_gpus(lks_probe *probe, lks_error *err) LKS_MUST_USE;

/* Why a module is not loaded, with the library that is missing and where it lies. */
lks_status lks_probe_module(const lks_module_found *found, lks_device_class *class_,
                            lks_error *err) LKS_MUST_USE;

/* Identifies a device. LKS_DEVICE by the error table, with probe->class_ set. */
lks_status lks_probe_device(lks_probe *probe, int ordinal, lks_gpu *gpu,
                            lks_error *err) LKS_MUST_USE;

/* "13.0" of CUDA's 13000, "13.1.0" of cuBLAS' 130100, "2.28.9" of NCCL's 22809; "" for 0. */
const char *lks_cuda_version(int code, char out[16]);
const char *lks_library_version(int code, char out[16]);

/* The oldest kernel driver that serves a CUDA runtime: 580 for 13.x, 525 for 12.x, 450 for 11.x
 * (CUDA release notes, minor version compatibility); 0: not known. */
int lks_driver_needed(int runtime);

#endif
