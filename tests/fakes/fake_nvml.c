/* An NVML of one state, which the environment sets. The prototypes are those that the library has
 * in public since driver 450.
 *
 *   FAKE_NVML=init=18,ecc=15   codes that calls answer: init, handle, ecc
 *   FAKE_NVML_ECC=3            uncorrectable errors
 *   FAKE_NVML_PENDING=1 FAKE_NVML_NO_ROWS=1 FAKE_NVML_MIG=1
 *   FAKE_NVML_PROCESSES=2      others on the device, a GiB each */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct process_info {
  unsigned pid;
  unsigned long long bytes;
  unsigned gpu_instance, compute_instance;
} process_info;

typedef struct memory_info {
  unsigned long long total, free, used;
} memory_info;

int nvmlInit_v2(void);
int nvmlShutdown(void);
const char *nvmlErrorString(int code);
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device);
int nvmlDeviceGetHandleByPciBusId_v2(const char *address, void **device);
int nvmlDeviceGetMemoryInfo(void *device, memory_info *memory);
int nvmlDeviceGetTotalEccErrors(void *device, int type, int counter, unsigned long long *errors);
int nvmlDeviceGetRetiredPagesPendingStatus(void *device, int *pending);
int nvmlDeviceGetRemappedRows(void *device, unsigned *corrected, unsigned *uncorrected,
                              unsigned *pending, unsigned *failed);
int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *later);
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *slice, void **device);
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned size);
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_info *out);

static unsigned number(const char *name) {
  const char *text = getenv(name);
  return text != NULL ? (unsigned)strtoul(text, NULL, 10) : 0;
}

static int code_of(const char *call) {
  const char *script = getenv("FAKE_NVML");
  const char *at = script != NULL ? strstr(script, call) : NULL;
  return at != NULL && at[strlen(call)] == '=' ? (int)strtol(at + strlen(call) + 1, NULL, 10) : 0;
}

static char device_itself, parent;

int nvmlInit_v2(void) {
  return code_of("init");
}

int nvmlShutdown(void) {
  return 0;
}

const char *nvmlErrorString(int code) {
  static char words[64];
  (void)snprintf(words, sizeof words, "NVML's words for %d", code);
  return words;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
  *device = &device_itself;
  return strncmp(uuid, "GPU-", 4) == 0 ? code_of("handle") : 2;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *address, void **device) {
  *device = &device_itself;
  return address[0] == '0' ? code_of("handle") : 2;
}

int nvmlDeviceGetMemoryInfo(void *device, memory_info *memory) {
  *memory = (memory_info){.total = 1ULL << 30, .free = 1ULL << 29, .used = 1ULL << 29};
  return device == &device_itself ? code_of("memory") : 2;
}

int nvmlDeviceGetTotalEccErrors(void *device, int type, int counter, unsigned long long *errors) {
  *errors = number("FAKE_NVML_ECC");
  return device == &device_itself && type == 1 && counter == 0 ? code_of("ecc") : 2;
}

int nvmlDeviceGetRetiredPagesPendingStatus(void *device, int *pending) {
  *pending = 0;
  return device == &device_itself ? 3 : 2; /* not supported: a device that remaps rows */
}

int nvmlDeviceGetRemappedRows(void *device, unsigned *corrected, unsigned *uncorrected,
                              unsigned *pending, unsigned *failed) {
  *corrected = *uncorrected = 0;
  *pending = number("FAKE_NVML_PENDING");
  *failed = number("FAKE_NVML_NO_ROWS");
  return device == &device_itself ? 0 : 2;
}

int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *later) {
  *now = *later = 0;
  return device == &device_itself ? 0 : 2;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *slice, void **device) {
  *device = &parent;
  return slice == &device_itself && number("FAKE_NVML_MIG") == 1 ? 0 : 2;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned size) {
  (void)snprintf(uuid, size, "GPU-whole");
  return device == &parent ? 0 : 2;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_info *out) {
  const unsigned others = number("FAKE_NVML_PROCESSES");
  if (*count < others) {
    *count = others;
    return 7;
  }
  for (unsigned i = 0; i < others; ++i) {
    out[i] = (process_info){.pid = 4000000 + i, .bytes = 1ULL << 30};
  }
  *count = others;
  return device == &device_itself ? 0 : 2;
}
