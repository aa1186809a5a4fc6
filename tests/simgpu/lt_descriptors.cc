// cuBLASLt's descriptors: creation, and attributes by table.
#include <cstring>
#include <new>

#include "lt.h"

namespace lt {

namespace {

struct Attribute {
  int id;
  size_t offset, size;
};

#define AT(id, type, member)                                                                       \
  { id, offsetof(type, member), sizeof(type::member) }

const Attribute layout_attributes[] = {
    AT(CUBLASLT_MATRIX_LAYOUT_TYPE, Layout, type),
    AT(CUBLASLT_MATRIX_LAYOUT_ORDER, Layout, order),
    AT(CUBLASLT_MATRIX_LAYOUT_ROWS, Layout, rows),
    AT(CUBLASLT_MATRIX_LAYOUT_COLS, Layout, cols),
    AT(CUBLASLT_MATRIX_LAYOUT_LD, Layout, ld),
    AT(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, Layout, batch_count),
    AT(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, Layout, batch_stride),
    AT(CUBLASLT_MATRIX_LAYOUT_PLANE_OFFSET, Layout, plane_offset),
    AT(CUBLASLT_MATRIX_LAYOUT_BATCH_MODE, Layout, batch_mode),
};

const Attribute desc_attributes[] = {
    AT(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, Desc, compute),
    AT(CUBLASLT_MATMUL_DESC_SCALE_TYPE, Desc, scale_type),
    AT(CUBLASLT_MATMUL_DESC_POINTER_MODE, Desc, pointer_mode),
    AT(CUBLASLT_MATMUL_DESC_TRANSA, Desc, transa),
    AT(CUBLASLT_MATMUL_DESC_TRANSB, Desc, transb),
    AT(CUBLASLT_MATMUL_DESC_TRANSC, Desc, transc),
    AT(CUBLASLT_MATMUL_DESC_FILL_MODE, Desc, fill),
    AT(CUBLASLT_MATMUL_DESC_EPILOGUE, Desc, epilogue),
    AT(CUBLASLT_MATMUL_DESC_BIAS_POINTER, Desc, bias),
    AT(CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, Desc, bias_stride),
    AT(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, Desc, aux),
    AT(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, Desc, aux_ld),
    AT(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, Desc, aux_stride),
    AT(CUBLASLT_MATMUL_DESC_ALPHA_VECTOR_BATCH_STRIDE, Desc, alpha_stride),
    AT(CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, Desc, sm_count_target),
    AT(16, Desc, reserved),
    AT(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, Desc, scales[0]),
    AT(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, Desc, scales[1]),
    AT(CUBLASLT_MATMUL_DESC_C_SCALE_POINTER, Desc, scales[2]),
    AT(CUBLASLT_MATMUL_DESC_D_SCALE_POINTER, Desc, scales[3]),
    AT(CUBLASLT_MATMUL_DESC_AMAX_D_POINTER, Desc, amax),
    AT(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, Desc, aux_type),
    AT(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_SCALE_POINTER, Desc, aux_scale),
    AT(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_AMAX_POINTER, Desc, aux_amax),
    {CUBLASLT_MATMUL_DESC_FAST_ACCUM, offsetof(Desc, fast_accumulation), 1},
    AT(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, Desc, bias_type),
    AT(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, Desc, scale_modes[0]),
    AT(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, Desc, scale_modes[1]),
    AT(CUBLASLT_MATMUL_DESC_C_SCALE_MODE, Desc, scale_modes[2]),
    AT(CUBLASLT_MATMUL_DESC_D_SCALE_MODE, Desc, scale_modes[3]),
    AT(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_SCALE_MODE, Desc, scale_modes[4]),
    AT(CUBLASLT_MATMUL_DESC_D_OUT_SCALE_POINTER, Desc, out_scale),
    AT(CUBLASLT_MATMUL_DESC_D_OUT_SCALE_MODE, Desc, out_scale_mode),
    AT(CUBLASLT_MATMUL_DESC_EMULATION_DESCRIPTOR, Desc, emulation),
};

const Attribute preference_attributes[] = {
    AT(CUBLASLT_MATMUL_PREF_SEARCH_MODE, Preference, search),
    AT(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, Preference, workspace),
    AT(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, Preference, reductions),
    AT(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, Preference, alignment[0]),
    AT(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, Preference, alignment[1]),
    AT(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, Preference, alignment[2]),
    AT(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, Preference, alignment[3]),
    AT(CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT, Preference, waves),
    AT(CUBLASLT_MATMUL_PREF_IMPL_MASK, Preference, implementations),
};

const Attribute algo_attributes[] = {
    AT(CUBLASLT_ALGO_CONFIG_ID, Algo, id),
    AT(CUBLASLT_ALGO_CONFIG_TILE_ID, Algo, tile),
    AT(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, Algo, split_k),
    AT(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, Algo, reduction),
    AT(CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, Algo, swizzle),
    AT(CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, Algo, custom),
    AT(CUBLASLT_ALGO_CONFIG_STAGES_ID, Algo, stages),
    AT(CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, Algo, inner),
    AT(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, Algo, cluster),
};

#undef AT

template <size_t N> const Attribute *find(const Attribute (&table)[N], int id) {
  for (const Attribute &row : table) {
    if (row.id == id) {
      return &row;
    }
  }
  return nullptr;
}

cublasStatus_t set(void *object, const Attribute *row, const void *value, size_t size) {
  if (object == nullptr || row == nullptr || value == nullptr || size != row->size) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  std::memcpy(static_cast<char *>(object) + row->offset, value, size);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t get(const void *object, const Attribute *row, void *value, size_t size,
                   size_t *written) {
  if (object == nullptr || row == nullptr || (size == 0 && written == nullptr) ||
      (size != 0 && (value == nullptr || size != row->size))) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (size != 0) {
    std::memcpy(value, static_cast<const char *>(object) + row->offset, size);
  }
  if (written != nullptr) {
    *written = row->size;
  }
  return CUBLAS_STATUS_SUCCESS;
}

// An object of type T at the start of the caller's opaque memory.
template <typename T, typename Opaque> cublasStatus_t create(Opaque **out, const T &value) {
  static_assert(sizeof(T) <= sizeof(Opaque), "the caller's memory holds it");
  if (out == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  *out = new (std::nothrow) Opaque();
  if (*out == nullptr) {
    return CUBLAS_STATUS_ALLOC_FAILED;
  }
  std::memcpy(*out, &value, sizeof value);
  return CUBLAS_STATUS_SUCCESS;
}

template <typename Opaque> cublasStatus_t destroy(Opaque *object) {
  delete object;
  return CUBLAS_STATUS_SUCCESS;
}

Layout layout(cudaDataType type, uint64_t rows, uint64_t cols, int64_t ld) {
  Layout made = {};
  made.type = static_cast<uint32_t>(type);
  made.rows = rows;
  made.cols = cols;
  made.ld = ld;
  made.batch_count = 1;
  return made;
}

Desc desc(cublasComputeType_t compute, cudaDataType_t scale) {
  Desc made = {};
  made.compute = compute;
  made.scale_type = scale;
  made.fill = CUBLAS_FILL_MODE_FULL;
  made.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  made.aux_type = -1;
  made.bias_type = -1;
  return made;
}

Preference preference() {
  Preference made = {};
  made.reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  for (uint32_t &bytes : made.alignment) {
    bytes = 256;
  }
  made.implementations = UINT64_MAX;
  return made;
}

} // namespace

const Layout *of(cublasLtMatrixLayout_t layout) {
  return reinterpret_cast<const Layout *>(layout);
}
const Desc *of(cublasLtMatmulDesc_t desc) {
  return reinterpret_cast<const Desc *>(desc);
}
const Preference *of(cublasLtMatmulPreference_t preference) {
  return reinterpret_cast<const Preference *>(preference);
}

} // namespace lt

using lt::find;

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld) {
  return lt::create(layout, lt::layout(type, rows, cols, ld));
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  return lt::destroy(layout);
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t size) {
  return lt::set(layout, find(lt::layout_attributes, attribute), value, size);
}

cublasStatus_t cublasLtMatrixLayoutGetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                void *value, size_t size, size_t *written) {
  return lt::get(layout, find(lt::layout_attributes, attribute), value, size, written);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  return lt::create(desc, lt::desc(compute, scale));
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  return lt::destroy(desc);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t size) {
  return lt::set(desc, find(lt::desc_attributes, attribute), value, size);
}

cublasStatus_t cublasLtMatmulDescGetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute, void *value,
                                              size_t size, size_t *written) {
  return lt::get(desc, find(lt::desc_attributes, attribute), value, size, written);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
  return lt::create(preference, lt::preference());
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return lt::destroy(preference);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t size) {
  return lt::set(preference, find(lt::preference_attributes, attribute), value, size);
}

cublasStatus_t cublasLtMatmulPreferenceGetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    void *value, size_t size, size_t *written) {
  return lt::get(preference, find(lt::preference_attributes, attribute), value, size, written);
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void *value, size_t size, size_t *written) {
  return lt::get(algo, find(lt::algo_attributes, attribute), value, size, written);
}
