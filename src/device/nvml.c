/* NVML by dlopen, with prototypes of our own: building needs no header of it, and running no
 * library. Names and layouts are those that NVML has kept since driver 450. */
#include "device/nvml.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "device/loader.h"

typedef int result; /* nvmlReturn_t */
typedef void *device;

typedef struct process_info { /* nvmlProcessInfo_t since driver 510 */
  unsigned pid;
  unsigned long long bytes; /* all ones: not told */
  unsigned gpu_instance, compute_instance;
} process_info;

typedef struct memory_info { /* nvmlMemory_t */
  unsigned long long total, free, used;
} memory_info;

enum { NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, FUNCTION_NOT_FOUND = 13 };

typedef struct nvml {
  void *handle;
  result (*init)(void);
  result (*shutdown)(void);
  const char *(*error)(result);
  result (*by_uuid)(const char *, device *);
  result (*by_pci)(const char *, device *);
  result (*memory)(device, memory_info *);
  result (*ecc)(device, int, int, unsigned long long *);
  result (*retired)(device, int *);
  result (*remapped)(device, unsigned *, unsigned *, unsigned *, unsigned *);
  result (*mig_mode)(device, unsigned *, unsigned *);
  result (*parent)(device, device *);
  result (*uuid)(device, char *, unsigned);
  result (*processes)(device, unsigned *, process_info *);
} nvml;

/* A function by name; NULL where this NVML has none. ISO C has no cast from data to code. */
#define FIND(api, member, name)                                                                    \
  do {                                                                                             \
    void *symbol_ = dlsym((api)->handle, name);                                                    \
    memcpy(&(api)->member, &symbol_, sizeof symbol_);                                              \
  } while (0)

static bool open_nvml(nvml *api, lks_health *health) {
  char path[4096];
  *api = (nvml){0};
  if (!lks_loader_find("libnvidia-ml.so.1", false, path, sizeof path, health->words,
                       sizeof health->words)) {
    return false;
  }
  api->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (api->handle == NULL) {
    (void)snprintf(health->words, sizeof health->words, "%s", dlerror());
    return false;
  }
  FIND(api, init, "nvmlInit_v2");
  FIND(api, shutdown, "nvmlShutdown");
  FIND(api, error, "nvmlErrorString");
  FIND(api, by_uuid, "nvmlDeviceGetHandleByUUID");
  FIND(api, by_pci, "nvmlDeviceGetHandleByPciBusId_v2");
  FIND(api, memory, "nvmlDeviceGetMemoryInfo");
  FIND(api, ecc, "nvmlDeviceGetTotalEccErrors");
  FIND(api, retired, "nvmlDeviceGetRetiredPagesPendingStatus");
  FIND(api, remapped, "nvmlDeviceGetRemappedRows");
  FIND(api, mig_mode, "nvmlDeviceGetMigMode");
  FIND(api, parent, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle");
  FIND(api, uuid, "nvmlDeviceGetUUID");
  FIND(api, processes, "nvmlDeviceGetComputeRunningProcesses_v3");
  if (api->init == NULL || api->shutdown == NULL || api->by_uuid == NULL || api->by_pci == NULL) {
    (void)snprintf(health->words, sizeof health->words, "%.180s: it lacks the functions of NVML",
                   path);
    return false;
  }
  return true;
}

static void fail(const nvml *api, result code, const char *call, lks_health *health) {
  lks_gpu_failure *failure = &health->failure;
  *failure = (lks_gpu_failure){.library = LKS_LIB_NVML, .code = code, .ordinal = -1};
  (void)snprintf(failure->expression, sizeof failure->expression, "%s", call);
  if (api->error != NULL) {
    (void)snprintf(failure->text, sizeof failure->text, "%s", api->error(code));
  }
}

/* Errors that a device has when it is asked anything: lost, or in need of a reset. What it merely
 * does not tell is no failure. */
static bool went_well(const nvml *api, result code, const char *call, lks_health *health) {
  if (code != 0 && code != NOT_SUPPORTED && code != FUNCTION_NOT_FOUND && code != NOT_FOUND &&
      health->failure.code == 0) {
    fail(api, code, call, health);
  }
  return code == 0;
}

static void look_at_memory(const nvml *api, device gpu, lks_health *health) {
  enum { UNCORRECTED = 1, SINCE_LOADED = 0 };
  unsigned long long errors = 0;
  memory_info memory = {0};
  unsigned corrected = 0, uncorrected = 0, waiting = 0, failed = 0;
  int retired = 0;
  if (api->memory != NULL &&
      went_well(api, api->memory(gpu, &memory), "nvmlDeviceGetMemoryInfo", health)) {
    health->memory_free = (int64_t)memory.free;
  }
  if (api->ecc != NULL && went_well(api, api->ecc(gpu, UNCORRECTED, SINCE_LOADED, &errors),
                                    "nvmlDeviceGetTotalEccErrors", health)) {
    health->uncorrected = (int64_t)errors;
  }
  if (api->retired != NULL && went_well(api, api->retired(gpu, &retired),
                                        "nvmlDeviceGetRetiredPagesPendingStatus", health)) {
    health->pending = retired != 0;
  }
  if (api->remapped != NULL &&
      went_well(api, api->remapped(gpu, &corrected, &uncorrected, &waiting, &failed),
                "nvmlDeviceGetRemappedRows", health)) {
    health->pending = health->pending || waiting != 0;
    health->remap_failed = failed != 0;
  }
}

static void look_at_slices(const nvml *api, device gpu, lks_health *health) {
  unsigned now = 0, later = 0;
  device whole = NULL;
  if (api->mig_mode != NULL &&
      went_well(api, api->mig_mode(gpu, &now, &later), "nvmlDeviceGetMigMode", health)) {
    health->mig = now != 0;
  }
  /* A whole device is no slice: NVML says invalid argument. */
  if (api->parent != NULL && api->uuid != NULL && api->parent(gpu, &whole) == 0) {
    health->mig = true;
    (void)went_well(api, api->uuid(whole, health->parent, sizeof health->parent),
                    "nvmlDeviceGetUUID", health);
  }
}

static void look_at_processes(const nvml *api, device gpu, lks_health *health) {
  process_info all[64];
  unsigned count = sizeof all / sizeof *all;
  if (api->processes == NULL) {
    return;
  }
  const result code = api->processes(gpu, &count, all);
  if (code == INSUFFICIENT_SIZE) {
    health->process_count = (int)count;
    return;
  }
  if (!went_well(api, code, "nvmlDeviceGetComputeRunningProcesses_v3", health)) {
    return;
  }
  for (unsigned i = 0; i < count && i < sizeof all / sizeof *all; ++i) {
    if (all[i].pid != (unsigned)getpid()) {
      if (health->process_count < LKS_HEALTH_PROCESSES) {
        health->processes[health->process_count].pid = (int)all[i].pid;
        health->processes[health->process_count].bytes =
            all[i].bytes == ~0ULL ? -1 : (int64_t)all[i].bytes;
      }
      health->process_count += 1;
    }
  }
}

void lks_nvml_look(const lks_gpu *gpu, lks_health *health) {
  nvml api;
  device handle = NULL;
  bool begun = false;
  *health = (lks_health){.uncorrected = -1, .memory_free = -1};
  if (!open_nvml(&api, health)) {
    goto cleanup;
  }
  result code = api.init();
  if (code != 0) {
    fail(&api, code, "nvmlInit_v2", health);
    goto cleanup;
  }
  begun = true;
  code = api.by_uuid(gpu->uuid, &handle);
  if (code != 0) {
    code = api.by_pci(gpu->pci_bus_id, &handle);
  }
  if (code != 0) {
    fail(&api, code, "nvmlDeviceGetHandleByPciBusId_v2", health);
    goto cleanup;
  }
  health->told = true;
  look_at_memory(&api, handle, health);
  look_at_slices(&api, handle, health);
  look_at_processes(&api, handle, health);
cleanup:
  if (begun) {
    (void)api.shutdown();
  }
  if (api.handle != NULL) {
    (void)dlclose(api.handle);
  }
}
