// cuBLASLt's handle, versions and words, and its heuristic: which algorithms make a product.
//
// Three algorithms stand for the real library's hundreds: a fast one with a workspace, a fast one
// without, both for pointers and leading dimensions of 16 bytes, and one that takes any.
#include <algorithm>
#include <cstring>

#include "lt.h"
#include "sim.h"

struct cublasLtContext {};

namespace {

constexpr lt::Algo algorithms[] = {
    {67, CUBLASLT_MATMUL_TILE_128x64, 4, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 0, 0,
     CUBLASLT_MATMUL_STAGES_32x4, 0, CUBLASLT_CLUSTER_SHAPE_1x1x1, 16, 0, 4096, 0},
    {66, CUBLASLT_MATMUL_TILE_128x128, 1, CUBLASLT_REDUCTION_SCHEME_NONE, 0, 0,
     CUBLASLT_MATMUL_STAGES_32x3, 0, CUBLASLT_CLUSTER_SHAPE_2x1x1, 16, 0, 0, 0},
    {20, CUBLASLT_MATMUL_TILE_64x64, 1, CUBLASLT_REDUCTION_SCHEME_NONE, 0, 0,
     CUBLASLT_MATMUL_STAGES_8x4, 0, CUBLASLT_CLUSTER_SHAPE_1x1x1, 1, 0, 0, 0},
};

bool plain(const lt::Preference &preference) {
  return preference.search == CUBLASLT_SEARCH_BEST_FIT && preference.waves <= 0.0f &&
         preference.implementations == UINT64_MAX;
}

bool serves(const lt::Algo &algo, const lt::Preference &preference, uint32_t alignment) {
  for (const uint32_t least : preference.alignment) {
    alignment = std::min(alignment, least);
  }
  return algo.alignment <= alignment && algo.workspace <= preference.workspace &&
         (algo.reduction == 0 || (algo.reduction & preference.reductions) != 0);
}

struct Words {
  cublasStatus_t status;
  const char *name, *text;
};

const Words words[] = {
    {CUBLAS_STATUS_SUCCESS, "CUBLAS_STATUS_SUCCESS", "success"},
    {CUBLAS_STATUS_NOT_INITIALIZED, "CUBLAS_STATUS_NOT_INITIALIZED",
     "the library was not initialized"},
    {CUBLAS_STATUS_ALLOC_FAILED, "CUBLAS_STATUS_ALLOC_FAILED", "the resource allocation failed"},
    {CUBLAS_STATUS_INVALID_VALUE, "CUBLAS_STATUS_INVALID_VALUE",
     "an unsupported value or parameter was passed to the function"},
    {CUBLAS_STATUS_ARCH_MISMATCH, "CUBLAS_STATUS_ARCH_MISMATCH",
     "the function requires an architectural feature absent from the device"},
    {CUBLAS_STATUS_MAPPING_ERROR, "CUBLAS_STATUS_MAPPING_ERROR",
     "an access to GPU memory space failed"},
    {CUBLAS_STATUS_EXECUTION_FAILED, "CUBLAS_STATUS_EXECUTION_FAILED",
     "the function failed to launch on the GPU"},
    {CUBLAS_STATUS_INTERNAL_ERROR, "CUBLAS_STATUS_INTERNAL_ERROR", "an internal operation failed"},
    {CUBLAS_STATUS_NOT_SUPPORTED, "CUBLAS_STATUS_NOT_SUPPORTED",
     "the requested functionality is not supported"},
    {CUBLAS_STATUS_LICENSE_ERROR, "CUBLAS_STATUS_LICENSE_ERROR", "the license check failed"},
};

const Words *find(cublasStatus_t status) {
  for (const Words &row : words) {
    if (row.status == status) {
      return &row;
    }
  }
  return nullptr;
}

} // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
  if (const int code = sim::injected("cublasLtCreate")) {
    return static_cast<cublasStatus_t>(code);
  }
  if (handle == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (sim::device_error() != cudaSuccess) {
    return CUBLAS_STATUS_NOT_INITIALIZED;
  }
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  if (handle == nullptr) {
    return CUBLAS_STATUS_NOT_INITIALIZED;
  }
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

const char *cublasLtGetStatusName(cublasStatus_t status) {
  const Words *row = find(status);
  return row != nullptr ? row->name : "unrecognized status";
}

const char *cublasLtGetStatusString(cublasStatus_t status) {
  const Words *row = find(status);
  return row != nullptr ? row->text : "unrecognized status";
}

size_t cublasLtGetVersion() {
  return CUBLAS_VERSION;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int capacity,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int *found) {
  if (const int code = sim::injected("cublasLtMatmulAlgoGetHeuristic")) {
    return static_cast<cublasStatus_t>(code);
  }
  if (handle == nullptr) {
    return CUBLAS_STATUS_NOT_INITIALIZED;
  }
  if (preference == nullptr || capacity <= 0 || results == nullptr || found == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  *found = 0;
  lt::Product product;
  const cublasStatus_t status =
      lt::check(lt::of(desc), lt::of(a), lt::of(b), lt::of(c), lt::of(d), &product);
  if (status != CUBLAS_STATUS_SUCCESS) {
    return status;
  }
  if (!plain(*lt::of(preference))) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  const uint32_t alignment = lt::alignment_of(product, *lt::of(desc));
  for (const lt::Algo &candidate : algorithms) {
    if (*found < capacity && serves(candidate, *lt::of(preference), alignment)) {
      lt::Algo algo = candidate;
      algo.product = product.hash;
      cublasLtMatmulHeuristicResult_t *result = &results[(*found)++];
      *result = {};
      std::memcpy(&result->algo, &algo, sizeof algo);
      result->workspaceSize = algo.workspace;
      result->state = CUBLAS_STATUS_SUCCESS;
      result->wavesCount = 1.0f;
    }
  }
  return *found > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}
