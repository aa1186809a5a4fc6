/* A CUDA module without CUDA: devices and failures as the environment scripts them. Its backend
 * cannot train; all that asks about devices works.
 *
 *   FAKE_GPUS=2             devices on the node
 *   FAKE_SEES=all,own,first which of them a rank sees, by rank: all, that of its local rank, the
 *                           first
 *   FAKE_BUS=one            all have the first one's PCI address, as slices of one GPU do
 *   FAKE_FAIL=launch=209    CALL=[LIBRARY:]CODE[@RANK][*DEVICE], joined by commas
 *   FAKE_SILENT=1           failures carry no name and no words
 *   FAKE_DRIVER=13000       what the driver serves; 0: there is none
 *   FAKE_NCCL=22809,22703   by rank
 *   FAKE_MEMORY=total,free  in MiB
 *   FAKE_PRODUCT=wrong|tf32
 *   FAKE_SUM=wrong
 *   FAKE_LOG=file           a line "RANK CALL DEVICE" for each call that gives a device a context
 *   FAKE_HANDSHAKE=refuse|magic|abi|size|version|plan */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "device/module.h"

static long number(const char *name, long fallback) {
  const char *text = getenv(name);
  return text != NULL ? strtol(text, NULL, 10) : fallback;
}

static bool is(const char *name, const char *value) {
  const char *text = getenv(name);
  return text != NULL && strcmp(text, value) == 0;
}

static long rank_of(void) {
  return number("OMPI_COMM_WORLD_RANK", 0);
}

/* The item of a list that belongs to this rank; the last one goes for all further ranks. */
static const char *item_of(const char *name) {
  const char *text = getenv(name);
  for (long i = 0; text != NULL && i < rank_of() && strchr(text, ',') != NULL; ++i) {
    text = strchr(text, ',') + 1;
  }
  return text != NULL ? text : "";
}

static bool sees(const char *which) {
  const char *text = item_of("FAKE_SEES");
  const size_t length = strlen(which);
  return strncmp(text, which, length) == 0 && (text[length] == '\0' || text[length] == ',');
}

/* ---- failures */

static lks_library library_of(const char *text, const char **rest) {
  static const char *const names[] = {"cuda:", "cublas:", "nccl:", "nvml:"};
  for (int i = 0; i < 4; ++i) {
    if (strncmp(text, names[i], strlen(names[i])) == 0) {
      *rest = text + strlen(names[i]);
      return (lks_library)i;
    }
  }
  *rest = text;
  return LKS_LIB_CUDA;
}

/* Code that a call is to fail with, 0: it works. device: which it is about, -1: none. */
static int scripted(const char *call, int device, lks_gpu_failure *failure) {
  char copy[512], *rest = copy, *item = NULL;
  const char *script = getenv("FAKE_FAIL"), *code_text = NULL;
  (void)snprintf(copy, sizeof copy, "%s", script != NULL ? script : "");
  while ((item = strtok_r(rest, ",", &rest)) != NULL) {
    const size_t length = strlen(call);
    if (strncmp(item, call, length) != 0 || item[length] != '=') {
      continue;
    }
    const lks_library library = library_of(item + length + 1, &code_text);
    const char *rank = strchr(code_text, '@'), *only = strchr(code_text, '*');
    if ((rank != NULL && strtol(rank + 1, NULL, 10) != rank_of()) ||
        (only != NULL && strtol(only + 1, NULL, 10) != device)) {
      continue;
    }
    failure->library = library;
    failure->code = (int)strtol(code_text, NULL, 10);
    failure->file = "fake.c";
    failure->line = 1;
    (void)snprintf(failure->expression, sizeof failure->expression, "fake_%s()", call);
    if (!is("FAKE_SILENT", "1")) {
      (void)snprintf(failure->name, sizeof failure->name, "fakeError%d", failure->code);
      (void)snprintf(failure->text, sizeof failure->text, "words of the library");
    }
    return failure->code;
  }
  return 0;
}

/* ---- devices */

static int all_devices(void) {
  return (int)number("FAKE_GPUS", 1);
}

static bool one_only(void) {
  return sees("own") || sees("first");
}

static int device_of(int ordinal) {
  return sees("own") ? (int)number("OMPI_COMM_WORLD_LOCAL_RANK", 0) : ordinal;
}

/* Such a call; what a real runtime would have to do for it takes memory on that device. */
static void touch(const char *call, int device) {
  const char *path = getenv("FAKE_LOG");
  FILE *log = path != NULL ? fopen(path, "a") : NULL;
  if (log != NULL) {
    (void)fprintf(log, "%ld %s %d\n", rank_of(), call, device);
    (void)fclose(log);
  }
}

static int versions(lks_gpu_versions *out, lks_gpu_failure *failure) {
  const int nccl = (int)strtol(item_of("FAKE_NCCL"), NULL, 10);
  *out = (lks_gpu_versions){.driver = (int)number("FAKE_DRIVER", 13000),
                            .runtime = 13000,
                            .cublas = 130100,
                            .nccl = nccl > 0 ? nccl : 22809,
                            .built_runtime = 13000,
                            .built_cublas = 130100,
                            .built_nccl = 22809};
  return scripted("versions", -1, failure);
}

static int count(int *out, lks_gpu_failure *failure) {
  *out = one_only() && all_devices() > 0 ? 1 : all_devices();
  return scripted("count", -1, failure);
}

static int identify(int ordinal, lks_gpu *gpu, lks_gpu_failure *failure) {
  const int device = device_of(ordinal);
  const char *memory = getenv("FAKE_MEMORY");
  *gpu = (lks_gpu){.ordinal = ordinal,
                   .major = 9,
                   .memory_total = (memory != NULL ? strtol(memory, NULL, 10) : 1024) << 20,
                   .memory_free = -1,
                   .sm_count = 132,
                   .clock_hz = 1980000000,
                   .memory_clock_hz = 2619000000,
                   .ecc = true};
  (void)snprintf(gpu->name, sizeof gpu->name, "Fake GPU");
  (void)snprintf(gpu->uuid, sizeof gpu->uuid, "GPU-00000000-0000-0000-0000-00000000000%d", device);
  (void)snprintf(gpu->pci_bus_id, sizeof gpu->pci_bus_id, "0000:0%d:00.0",
                 is("FAKE_BUS", "one") ? 1 : device + 1);
  return scripted("identify", device, failure);
}

static int describe(int ordinal, lks_gpu *gpu, lks_gpu_failure *failure) {
  const char *memory = getenv("FAKE_MEMORY");
  const char *left = memory != NULL ? strchr(memory, ',') : NULL;
  touch("describe", device_of(ordinal));
  if (identify(ordinal, gpu, failure) != 0) {
    return failure->code;
  }
  gpu->memory_free = (left != NULL ? strtol(left + 1, NULL, 10) : 1000) << 20;
  return scripted("describe", device_of(ordinal), failure);
}

static int launch(int ordinal, lks_gpu_failure *failure) {
  touch("launch", device_of(ordinal));
  return scripted("launch", device_of(ordinal), failure);
}

/* The nearest value with TF32's ten bits of fraction. */
static float to_tf32(float value) {
  int exponent = 0;
  const float fraction = frexpf(value, &exponent);
  return ldexpf(roundf(ldexpf(fraction, 11)), exponent - 11);
}

static int product(int ordinal, int64_t m, int64_t n, int64_t k, const float *a, const float *b,
                   float *c, lks_gpu_failure *failure) {
  const bool rounded = is("FAKE_PRODUCT", "tf32");
  touch("product", device_of(ordinal));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float sum = is("FAKE_PRODUCT", "wrong") ? 1.0f : 0.0f;
      for (int64_t p = 0; p < k; ++p) {
        const float x = a[i * k + p], y = b[p * n + j];
        sum += rounded ? to_tf32(x) * to_tf32(y) : x * y;
      }
      c[i * n + j] = sum;
    }
  }
  return scripted("product", device_of(ordinal), failure);
}

static int peer(int from, int to, bool *access, lks_gpu_failure *failure) {
  *access = from != to;
  return scripted("peer", device_of(from), failure);
}

static int collective_id(void *id, lks_gpu_failure *failure) {
  memset(id, 7, 128);
  return scripted("collective_id", -1, failure);
}

static int collective(int ordinal, const void *id, int rank, int size, int64_t floats, int repeats,
                      bool *right, double *seconds, lks_gpu_failure *failure) {
  (void)rank;
  (void)size;
  (void)repeats;
  *right = !is("FAKE_SUM", "wrong") && ((const unsigned char *)id)[127] == 7;
  *seconds = (double)floats * sizeof(float) / 1e9;
  return scripted("collective", device_of(ordinal), failure);
}

/* ---- the handshake */

static const lks_gpu_ops gpu = {.versions = versions,
                                .count = count,
                                .identify = identify,
                                .describe = describe,
                                .launch = launch,
                                .product = product,
                                .peer = peer,
                                .collective_id = collective_id,
                                .collective = collective};

static const lks_backend_ops backend = {.name = "cuda", .abi = LKS_BACKEND_ABI};

lks_module_open lks_module_entry;

const lks_module *lks_module_entry(const lks_services *services) {
  static lks_module module = {.magic = LKS_MODULE_MAGIC,
                              .abi = LKS_MODULE_ABI,
                              .size = sizeof(lks_module),
                              .backend_size = sizeof(lks_backend_ops),
                              .plan_size = sizeof(lks_plan),
                              .model_size = sizeof(lks_model),
                              .gpu_size = sizeof(lks_gpu_ops),
                              .version = LKS_VERSION,
                              .architectures = "80 90",
                              .backend = &backend,
                              .gpu = &gpu};
  module.magic += is("FAKE_HANDSHAKE", "magic");
  module.abi += is("FAKE_HANDSHAKE", "abi");
  module.size += is("FAKE_HANDSHAKE", "size");
  module.plan_size += is("FAKE_HANDSHAKE", "plan");
  module.version = is("FAKE_HANDSHAKE", "version") ? "0.0.0" : LKS_VERSION;
  return is("FAKE_HANDSHAKE", "refuse") || services->magic != LKS_MODULE_MAGIC ? NULL : &module;
}
