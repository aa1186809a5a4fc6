/* What the program may ask about devices: see lks_gpu_ops. Only the device that is asked about is
 * ever made current. A failure that is told is cleared, so that no later call finds it again. */
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.h"

static const lks_site nowhere = {.ordinal = -1};

/* "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", as NVIDIA's tools print it. */
static void uuid_text(const struct cudaDeviceProp *properties, char *out, size_t size) {
  unsigned char b[16];
  memcpy(b, properties->uuid.bytes, sizeof b);
  (void)snprintf(out, size,
                 "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
                 b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
                 b[14], b[15]);
}

void lks_device_text(const struct cudaDeviceProp *properties, char *out, size_t size) {
  char uuid[48];
  uuid_text(properties, uuid, sizeof uuid);
  (void)snprintf(out, size, "%.64s, %s", properties->name, uuid);
}

static int versions_of(lks_gpu_versions *versions, lks_gpu_failure *failure) {
  int failed = 0;
  const lks_site *site = &nowhere;
  *versions = (lks_gpu_versions){.cublas = (int)cublasLtGetVersion(),
                                 .built_runtime = CUDART_VERSION,
                                 .built_cublas = CUBLAS_VERSION,
                                 .built_nccl = NCCL_VERSION_CODE};
  ASK_CUDA(cudaRuntimeGetVersion(&versions->runtime));
  ASK_CUDA(cudaDriverGetVersion(&versions->driver));
  ASK_NCCL(ncclGetVersion(&versions->nccl));
cleanup:
  return failed;
}

static int count_devices(int *count, lks_gpu_failure *failure) {
  int failed = 0;
  const lks_site *site = &nowhere;
  *count = 0;
  ASK_CUDA(cudaGetDeviceCount(count));
cleanup:
  (void)cudaGetLastError();
  return failed;
}

/* Hertz of a clock attribute, which is in kHz; 0 where the device does not tell. */
static int64_t clock_of(enum cudaDeviceAttr attribute, int ordinal) {
  int khz = 0;
  return cudaDeviceGetAttribute(&khz, attribute, ordinal) == cudaSuccess ? (int64_t)khz * 1000 : 0;
}

static int identify_device(int ordinal, lks_gpu *gpu, lks_gpu_failure *failure) {
  int failed = 0;
  lks_site here = {.ordinal = ordinal};
  const lks_site *site = &here;
  struct cudaDeviceProp properties;
  *gpu = (lks_gpu){.ordinal = ordinal, .memory_free = -1};
  ASK_CUDA(cudaGetDeviceProperties(&properties, ordinal));
  lks_device_text(&properties, here.device, sizeof here.device);
  (void)snprintf(gpu->name, sizeof gpu->name, "%s", properties.name);
  uuid_text(&properties, gpu->uuid, sizeof gpu->uuid);
  ASK_CUDA(cudaDeviceGetPCIBusId(gpu->pci_bus_id, (int)sizeof gpu->pci_bus_id, ordinal));
  gpu->major = properties.major;
  gpu->minor = properties.minor;
  gpu->sm_count = properties.multiProcessorCount;
  gpu->ecc = properties.ECCEnabled != 0;
  gpu->clock_hz = clock_of(cudaDevAttrClockRate, ordinal);
  gpu->memory_clock_hz = clock_of(cudaDevAttrMemoryClockRate, ordinal);
  gpu->memory_total = (int64_t)properties.totalGlobalMem;
cleanup:
  (void)cudaGetLastError();
  return failed;
}

/* Makes a device current, and names it for what may fail on it. */
static int enter(int ordinal, lks_site *here, lks_gpu_failure *failure) {
  int failed = 0;
  const lks_site *site = here;
  struct cudaDeviceProp properties;
  *here = (lks_site){.ordinal = ordinal};
  ASK_CUDA(cudaGetDeviceProperties(&properties, ordinal));
  lks_device_text(&properties, here->device, sizeof here->device);
  ASK_CUDA(cudaSetDevice(ordinal));
cleanup:
  (void)cudaGetLastError();
  return failed;
}

static int describe_device(int ordinal, lks_gpu *gpu, lks_gpu_failure *failure) {
  int failed = 0;
  lks_site here;
  const lks_site *site = &here;
  size_t free_bytes = 0, total = 0;
  if (identify_device(ordinal, gpu, failure) != 0 || enter(ordinal, &here, failure) != 0) {
    return 1;
  }
  ASK_CUDA(cudaMemGetInfo(&free_bytes, &total));
  gpu->memory_free = (int64_t)free_bytes;
cleanup:
  (void)cudaGetLastError();
  return failed;
}

static int launch_nothing(int ordinal, lks_gpu_failure *failure) {
  int failed = 0;
  lks_site here;
  const lks_site *site = &here;
  cudaStream_t stream = NULL;
  if (enter(ordinal, &here, failure) != 0) {
    return 1;
  }
  ASK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  ASK_CUDA(lks_nothing_cuda(stream));
  ASK_CUDA(cudaStreamSynchronize(stream));
cleanup:
  if (stream != NULL) {
    (void)cudaStreamDestroy(stream);
  }
  (void)cudaGetLastError();
  return failed;
}

/* ---- a product, with descriptors of its own: nothing of a backend needs to be open */

typedef struct bench {
  cudaStream_t stream;
  cublasLtHandle_t handle;
  cublasLtMatmulDesc_t description;
  cublasLtMatrixLayout_t a, b, c; /* column-major: c [n, m] = b [n, k] a [k, m] */
  cublasLtMatmulPreference_t preference;
  float *device; /* a, b, c behind each other, each on a multiple of 64 floats */
} bench;

static void close_bench(bench *t) {
  const cublasLtMatrixLayout_t layouts[] = {t->a, t->b, t->c};
  if (t->preference != NULL) {
    (void)cublasLtMatmulPreferenceDestroy(t->preference);
  }
  for (int i = 0; i < 3; ++i) {
    if (layouts[i] != NULL) {
      (void)cublasLtMatrixLayoutDestroy(layouts[i]);
    }
  }
  if (t->description != NULL) {
    (void)cublasLtMatmulDescDestroy(t->description);
  }
  if (t->handle != NULL) {
    (void)cublasLtDestroy(t->handle);
  }
  if (t->device != NULL) {
    (void)cudaFree(t->device);
  }
  if (t->stream != NULL) {
    (void)cudaStreamDestroy(t->stream);
  }
}

static int open_bench(bench *t, const lks_site *site, int64_t m, int64_t n, int64_t k,
                      size_t floats, lks_gpu_failure *failure) {
  int failed = 0;
  void *device = NULL;
  const uint64_t um = (uint64_t)m, un = (uint64_t)n, uk = (uint64_t)k;
  ASK_CUDA(cudaStreamCreateWithFlags(&t->stream, cudaStreamNonBlocking));
  ASK_CUDA(cudaMalloc(&device, floats * sizeof(float)));
  t->device = device;
  ASK_LT(cublasLtCreate(&t->handle));
  ASK_LT(cublasLtMatmulDescCreate(&t->description, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  ASK_LT(cublasLtMatrixLayoutCreate(&t->b, CUDA_R_32F, un, uk, n));
  ASK_LT(cublasLtMatrixLayoutCreate(&t->a, CUDA_R_32F, uk, um, k));
  ASK_LT(cublasLtMatrixLayoutCreate(&t->c, CUDA_R_32F, un, um, n));
  ASK_LT(cublasLtMatmulPreferenceCreate(&t->preference));
cleanup:
  return failed;
}

static int multiply(int ordinal, int64_t m, int64_t n, int64_t k, const float *a, const float *b,
                    float *c, lks_gpu_failure *failure) {
  static const float one = 1.0f, zero = 0.0f;
  int failed = 0;
  lks_site here;
  const lks_site *site = &here;
  bench t = {0};
  cublasLtMatmulHeuristicResult_t found;
  int count = 0;
  const size_t a_floats = ((size_t)(m * k) + 63) / 64 * 64;
  const size_t b_floats = ((size_t)(k * n) + 63) / 64 * 64;
  const size_t c_bytes = (size_t)(m * n) * sizeof *c;
  if (enter(ordinal, &here, failure) != 0) {
    return 1;
  }
  failed = open_bench(&t, site, m, n, k, a_floats + b_floats + (size_t)(m * n), failure);
  if (failed) {
    goto cleanup;
  }
  float *da = t.device, *db = da + a_floats, *dc = db + b_floats;
  ASK_CUDA(cudaMemcpyAsync(da, a, (size_t)(m * k) * sizeof *a, cudaMemcpyHostToDevice, t.stream));
  ASK_CUDA(cudaMemcpyAsync(db, b, (size_t)(k * n) * sizeof *b, cudaMemcpyHostToDevice, t.stream));
  ASK_LT(cublasLtMatmulAlgoGetHeuristic(t.handle, t.description, t.b, t.a, t.c, t.c, t.preference,
                                        1, &found, &count));
  if (count == 0) {
    ASK_CODE(LKS_LIB_CUBLAS, CUBLAS_STATUS_NOT_SUPPORTED, "cublasLtMatmulAlgoGetHeuristic(...)");
  }
  ASK_LT(cublasLtMatmul(t.handle, t.description, &one, db, t.b, da, t.a, &zero, dc, t.c, dc, t.c,
                        &found.algo, NULL, 0, t.stream));
  ASK_CUDA(cudaMemcpyAsync(c, dc, c_bytes, cudaMemcpyDeviceToHost, t.stream));
  ASK_CUDA(cudaStreamSynchronize(t.stream));
cleanup:
  close_bench(&t);
  (void)cudaGetLastError();
  return failed;
}

static int peer_access(int from, int to, bool *access, lks_gpu_failure *failure) {
  int failed = 0, can = 0;
  const lks_site here = {.ordinal = from};
  const lks_site *site = &here;
  ASK_CUDA(cudaDeviceCanAccessPeer(&can, from, to));
cleanup:
  *access = can != 0;
  return failed;
}

/* ---- a sum over ranks */

static int make_id(void *id, lks_gpu_failure *failure) {
  int failed = 0;
  const lks_site *site = &nowhere;
  ncclUniqueId made;
  ASK_NCCL(ncclGetUniqueId(&made));
  memcpy(id, &made, sizeof made);
cleanup:
  return failed;
}

typedef struct ring {
  cudaStream_t stream;
  cudaEvent_t begin, end;
  ncclComm_t comm;
  float *device; /* what goes in, and behind it what comes out: [count] each */
  float *host;   /* [count] */
} ring;

static void close_ring(ring *r, bool failed) {
  if (r->comm != NULL) {
    (void)(failed ? ncclCommAbort(r->comm) : ncclCommDestroy(r->comm));
  }
  if (r->begin != NULL) {
    (void)cudaEventDestroy(r->begin);
  }
  if (r->end != NULL) {
    (void)cudaEventDestroy(r->end);
  }
  if (r->device != NULL) {
    (void)cudaFree(r->device);
  }
  if (r->stream != NULL) {
    (void)cudaStreamDestroy(r->stream);
  }
  free(r->host);
}

static int open_ring(ring *r, const lks_site *site, const void *id, int rank, int size,
                     int64_t count, lks_gpu_failure *failure) {
  int failed = 0;
  void *device = NULL;
  ncclUniqueId given;
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 1;
  memcpy(&given, id, sizeof given);
  ASK_CUDA(cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking));
  ASK_CUDA(cudaEventCreateWithFlags(&r->begin, cudaEventDefault));
  ASK_CUDA(cudaEventCreateWithFlags(&r->end, cudaEventDefault));
  ASK_CUDA(cudaMalloc(&device, 2 * (size_t)count * sizeof(float)));
  r->device = device;
  ASK_NCCL(ncclCommInitRankConfig(&r->comm, size, given, rank, &config));
cleanup:
  return failed;
}

static int sum_over_ranks(int ordinal, const void *id, int rank, int size, int64_t count,
                          int repeats, bool *right, double *seconds, lks_gpu_failure *failure) {
  int failed = 0;
  lks_site here;
  const lks_site *site = &here;
  ring r = {.host = malloc((size_t)count * sizeof(float))};
  const size_t bytes = (size_t)count * sizeof(float);
  *right = false;
  *seconds = 0.0;
  if (enter(ordinal, &here, failure) != 0) {
    free(r.host);
    return 1;
  }
  if (r.host == NULL) {
    ASK_CODE(LKS_LIB_CUDA, cudaErrorMemoryAllocation, "malloc of the values to sum");
  }
  failed = open_ring(&r, site, id, rank, size, count, failure);
  if (failed) {
    goto cleanup;
  }
  for (int64_t i = 0; i < count; ++i) {
    r.host[i] = (float)(rank + 1);
  }
  ASK_CUDA(cudaMemcpyAsync(r.device, r.host, bytes, cudaMemcpyHostToDevice, r.stream));
  for (int i = 0; i < repeats; ++i) {
    float milliseconds = 0.0f;
    ASK_CUDA(cudaEventRecord(r.begin, r.stream));
    ASK_NCCL(ncclAllReduce(r.device, r.device + count, (size_t)count, ncclFloat32, ncclSum, r.comm,
                           r.stream));
    ASK_CUDA(cudaEventRecord(r.end, r.stream));
    ASK_CUDA(cudaStreamSynchronize(r.stream));
    ASK_CUDA(cudaEventElapsedTime(&milliseconds, r.begin, r.end));
    *seconds = i == 0 || milliseconds / 1e3 < *seconds ? milliseconds / 1e3 : *seconds;
  }
  ASK_CUDA(cudaMemcpyAsync(r.host, r.device + count, bytes, cudaMemcpyDeviceToHost, r.stream));
  ASK_CUDA(cudaStreamSynchronize(r.stream));
  *right = true;
  const float expected = (float)((int64_t)size * (size + 1) / 2);
  for (int64_t i = 0; i < count; ++i) {
    *right = *right && r.host[i] == expected;
  }
cleanup:
  close_ring(&r, failed != 0);
  (void)cudaGetLastError();
  return failed;
}

const lks_gpu_ops lks_gpu_cuda = {.versions = versions_of,
                                  .count = count_devices,
                                  .identify = identify_device,
                                  .describe = describe_device,
                                  .launch = launch_nothing,
                                  .product = multiply,
                                  .peer = peer_access,
                                  .collective_id = make_id,
                                  .collective = sum_over_ranks};
