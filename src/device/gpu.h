/* What a GPU is and how one fails, as plain data: shared by the program and its modules. Needs
 * neither CUDA nor MPI. */
#ifndef LKS_DEVICE_GPU_H
#define LKS_DEVICE_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lockstep/status.h"

/* Whose code a failure carries. */
typedef enum lks_library { LKS_LIB_CUDA, LKS_LIB_CUBLAS, LKS_LIB_NCCL, LKS_LIB_NVML } lks_library;

/* A call that failed, as the library told it. device/errors.c turns it into class, exit code, words
 * and advice: nothing else does. */
typedef struct lks_gpu_failure {
  lks_library library;
  int code;             /* the library's own; 0: none failed */
  char name[64];        /* "cudaErrorMemoryAllocation"; may be empty */
  char text[256];       /* the library's own words */
  char more[512];       /* ncclGetLastError, or what was asked for: "1.2 GB of activations" */
  char expression[128]; /* the call */
  const char *file;     /* static storage */
  int line;
  int ordinal;      /* of the device; -1: none yet */
  char device[128]; /* "NVIDIA H100 80GB HBM3, GPU-1b6f..."; may be empty */
} lks_gpu_failure;

/* A device, as the CUDA runtime describes it. */
typedef struct lks_gpu {
  int ordinal; /* among those that this process sees */
  char name[256];
  char uuid[48];                     /* "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" */
  char pci_bus_id[32];               /* "0000:3b:00.0" */
  int major, minor;                  /* compute capability */
  int64_t memory_total, memory_free; /* bytes; free: -1 where it was not asked */
  int sm_count;
  int64_t clock_hz, memory_clock_hz; /* peak; 0: not told */
  bool ecc;
} lks_gpu;

typedef struct lks_gpu_versions {
  int driver;  /* as CUDA encodes it: 13000 is 13.0; 0: no driver */
  int runtime; /* running with */
  int cublas, nccl;
  int built_runtime, built_cublas, built_nccl; /* compiled with */
} lks_gpu_versions;

/* What a module can be asked about devices. All are local and return 0, or another number with
 * *failure filled; none touches a device other than the one named. */
typedef struct lks_gpu_ops {
  int (*versions)(lks_gpu_versions *versions, lks_gpu_failure *failure);
  int (*count)(int *count, lks_gpu_failure *failure);
  /* All but memory_free, and opens no context: a rank looks at all devices, but lives on one. */
  int (*identify)(int ordinal, lks_gpu *gpu, lks_gpu_failure *failure);
  /* With memory_free; the device becomes the current one and gets a context. */
  int (*describe)(int ordinal, lks_gpu *gpu, lks_gpu_failure *failure);
  /* Runs an empty kernel: the module has code for this device, and it works. */
  int (*launch)(int ordinal, lks_gpu_failure *failure);
  /* c [m, n] = a [m, k] b [k, n], row-major fp32, host memory: the product is made on the device
   * by cuBLASLt. */
  int (*product)(int ordinal, int64_t m, int64_t n, int64_t k, const float *a, const float *b,
                 float *c, lks_gpu_failure *failure);
  int (*peer)(int from, int to, bool *access, lks_gpu_failure *failure);
  /* ncclGetUniqueId into id[128]. */
  int (*collective_id)(void *id, lks_gpu_failure *failure);
  /* Every rank with the same id: a communicator, `repeats` allreduces of `count` floats (each rank
   * gives rank + 1), checked for exact values (*right), *seconds an allreduce (the fastest).
   * Collective over the ranks of the communicator. */
  int (*collective)(int ordinal, const void *id, int rank, int size, int64_t count, int repeats,
                    bool *right, double *seconds, lks_gpu_failure *failure);
} lks_gpu_ops;

#endif
