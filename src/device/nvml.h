/* Health of a GPU and who else uses it, as NVML tells. NVML belongs to the driver and is opened at
 * run time; where there is none, or it does not tell, the rest of the diagnosis goes on without.
 * NVML keeps no history of Xid errors: a lost device (Xid 79) or one that needs a reset shows as
 * NVML's own codes, others are in the kernel's log alone. */
#ifndef LKS_DEVICE_NVML_H
#define LKS_DEVICE_NVML_H

#include <stdbool.h>
#include <stdint.h>

#include "device/gpu.h"

enum { LKS_HEALTH_PROCESSES = 8 };

typedef struct lks_health {
  bool told;               /* NVML knows this device; else `failure` or `words` say why not */
  lks_gpu_failure failure; /* code 0: none */
  char words[256];         /* the loader's, where NVML itself is not there */
  int64_t uncorrected;     /* memory errors since the driver was loaded; -1: not told */
  int64_t memory_free;     /* bytes; -1: not told */
  bool pending;            /* rows or pages wait for a reset to be replaced */
  bool remap_failed;       /* no spare rows are left: the device must be replaced */
  bool mig;                /* the device is cut into MIG slices */
  char parent[80];         /* of a MIG slice: the whole device's UUID */
  int process_count; /* others that hold memory on it; at most LKS_HEALTH_PROCESSES are kept */
  struct {
    int pid;
    int64_t bytes; /* -1: not told */
  } processes[LKS_HEALTH_PROCESSES];
} lks_health;

/* Asks NVML about a device by its UUID, or PCI address. Local; touches no CUDA context. */
void lks_nvml_look(const lks_gpu *gpu, lks_health *health);

#endif
