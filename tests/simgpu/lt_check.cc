// Which products cuBLASLt makes, as far as its documentation says so for certain.
//
// Refused with INVALID_VALUE: parts that contradict each other. With NOT_SUPPORTED: all that is
// known not to work, and all that is not known.
#include <cstring>

#include "lt.h"

namespace lt {

namespace {

bool known_epilogue(uint32_t epilogue) {
  switch (epilogue) {
  case CUBLASLT_EPILOGUE_DEFAULT:
  case CUBLASLT_EPILOGUE_RELU:
  case CUBLASLT_EPILOGUE_RELU_AUX:
  case CUBLASLT_EPILOGUE_BIAS:
  case CUBLASLT_EPILOGUE_RELU_BIAS:
  case CUBLASLT_EPILOGUE_RELU_AUX_BIAS:
  case CUBLASLT_EPILOGUE_DRELU:
  case CUBLASLT_EPILOGUE_DRELU_BGRAD:
  case CUBLASLT_EPILOGUE_GELU:
  case CUBLASLT_EPILOGUE_GELU_AUX:
  case CUBLASLT_EPILOGUE_GELU_BIAS:
  case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
  case CUBLASLT_EPILOGUE_DGELU:
  case CUBLASLT_EPILOGUE_DGELU_BGRAD:
  case CUBLASLT_EPILOGUE_BGRADA:
  case CUBLASLT_EPILOGUE_BGRADB:
    return true;
  default:
    return false;
  }
}

// Everything in a descriptor that this library gives no meaning to must be as it was created.
bool only_known_parts(const Desc &desc) {
  Desc rest = desc;
  rest.compute = rest.scale_type = rest.transa = rest.transb = 0;
  rest.epilogue = 0;
  rest.sm_count_target = 0;
  rest.aux_type = rest.bias_type = 0;
  rest.bias = rest.aux = 0;
  rest.aux_ld = 0;
  Desc plain = {};
  plain.fill = CUBLAS_FILL_MODE_FULL;
  return std::memcmp(&rest, &plain, sizeof rest) == 0;
}

cublasStatus_t check_layout(const Layout &layout) {
  if (layout.rows == 0 || layout.cols == 0 || layout.rows > INT32_MAX || layout.cols > INT32_MAX ||
      layout.ld < static_cast<int64_t>(layout.rows)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const bool plain = layout.order == CUBLASLT_ORDER_COL && layout.batch_count == 1 &&
                     layout.batch_mode == CUBLASLT_BATCH_MODE_STRIDED && layout.plane_offset == 0;
  return plain ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

// fp32 in memory throughout; the compute type says what inputs are rounded to.
cublasStatus_t check_types(const Desc &desc, const Layout &a, const Layout &b, const Layout &d,
                           Product *product) {
  switch (desc.compute) {
  case CUBLAS_COMPUTE_32F:
  case CUBLAS_COMPUTE_32F_PEDANTIC:
    product->rounding = Rounding::none;
    break;
  case CUBLAS_COMPUTE_32F_FAST_TF32:
    product->rounding = Rounding::tf32;
    break;
  case CUBLAS_COMPUTE_32F_FAST_16BF:
    product->rounding = Rounding::bf16;
    break;
  default:
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  const bool fp32 = a.type == CUDA_R_32F && b.type == CUDA_R_32F && d.type == CUDA_R_32F &&
                    desc.scale_type == CUDA_R_32F;
  return fp32 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t check_shapes(const Layout &a, const Layout &b, const Layout &c, const Layout &d,
                            Product *product) {
  const uint64_t m = product->transa ? a.cols : a.rows, ka = product->transa ? a.rows : a.cols;
  const uint64_t n = product->transb ? b.rows : b.cols, kb = product->transb ? b.cols : b.rows;
  if (ka != kb || d.rows != m || d.cols != n || c.rows != m || c.cols != n || c.type != d.type) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  product->m = static_cast<int64_t>(m);
  product->n = static_cast<int64_t>(n);
  product->k = static_cast<int64_t>(ka);
  product->lda = a.ld;
  product->ldb = b.ld;
  product->ldc = c.ld;
  product->ldd = d.ld;
  return CUBLAS_STATUS_SUCCESS;
}

// A type that was never stated, or the output's.
bool is_fp32(int32_t type) {
  return type == -1 || type == CUDA_R_32F;
}

cublasStatus_t check_aux(const Desc &desc, Product *product) {
  if (!has_aux(desc.epilogue)) {
    return CUBLAS_STATUS_SUCCESS;
  }
  const int64_t unit = is_relu(desc.epilogue) ? 128 : 8;
  if (desc.aux_ld % unit != 0 || desc.aux_ld < product->m) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const bool typed = is_relu(desc.epilogue) ? desc.aux_type == -1 : is_fp32(desc.aux_type);
  if (!typed || desc.aux % 16 != 0) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  product->aux_ld = desc.aux_ld;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_epilogue(const Desc &desc, Product *product) {
  if (!known_epilogue(desc.epilogue)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  // The heuristic's answer where fused work meets a dimension of one.
  const bool thin = product->m == 1 || product->n == 1 || product->k == 1;
  if (thin && desc.epilogue != CUBLASLT_EPILOGUE_DEFAULT) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  // Those two of the dense layer's gradient are known to work; of the other transposes nothing is.
  if ((desc.epilogue == CUBLASLT_EPILOGUE_BGRADA && product->transa) ||
      (desc.epilogue == CUBLASLT_EPILOGUE_BGRADB && !product->transb)) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  product->epilogue = desc.epilogue;
  return is_fp32(desc.bias_type) ? check_aux(desc, product) : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t check_transposes(const Desc &desc, Product *product) {
  const int32_t both[] = {desc.transa, desc.transb};
  for (const int32_t transpose : both) {
    if (transpose != CUBLAS_OP_N && transpose != CUBLAS_OP_T) {
      return CUBLAS_STATUS_NOT_SUPPORTED;
    }
  }
  product->transa = desc.transa == CUBLAS_OP_T;
  product->transb = desc.transb == CUBLAS_OP_T;
  return CUBLAS_STATUS_SUCCESS;
}

uint64_t hash_of(const Product &product) {
  const uint64_t parts[] = {static_cast<uint64_t>(product.m),
                            static_cast<uint64_t>(product.n),
                            static_cast<uint64_t>(product.k),
                            static_cast<uint64_t>(product.lda),
                            static_cast<uint64_t>(product.ldb),
                            static_cast<uint64_t>(product.ldc),
                            static_cast<uint64_t>(product.ldd),
                            static_cast<uint64_t>(product.aux_ld),
                            static_cast<uint64_t>(product.rounding),
                            product.transa,
                            product.transb,
                            product.epilogue};
  uint64_t hash = 14695981039346656037u; // FNV-1a
  for (const uint64_t part : parts) {
    hash = (hash ^ part) * 1099511628211u;
    hash ^= hash >> 29;
  }
  return hash;
}

} // namespace

bool has_bias(uint32_t epilogue) {
  return (epilogue & CUBLASLT_EPILOGUE_BIAS) != 0;
}

bool has_bias_grad(uint32_t epilogue) {
  return epilogue == CUBLASLT_EPILOGUE_BGRADA || epilogue == CUBLASLT_EPILOGUE_BGRADB ||
         epilogue == CUBLASLT_EPILOGUE_DRELU_BGRAD || epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD;
}

bool has_aux(uint32_t epilogue) {
  return (epilogue & 128) != 0;
}

bool is_relu(uint32_t epilogue) {
  return (epilogue & (CUBLASLT_EPILOGUE_RELU | 8)) != 0;
}

bool is_gradient(uint32_t epilogue) {
  return (epilogue & (8 | 64)) != 0;
}

size_t mask_bytes(int64_t m) {
  return static_cast<size_t>((m + 127) / 128 * 16);
}

cublasStatus_t check(const Desc *desc, const Layout *a, const Layout *b, const Layout *c,
                     const Layout *d, Product *product) {
  if (desc == nullptr || a == nullptr || b == nullptr || c == nullptr || d == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  *product = Product{};
  for (const Layout *layout : {a, b, c, d}) {
    const cublasStatus_t status = check_layout(*layout);
    if (status != CUBLAS_STATUS_SUCCESS) {
      return status;
    }
  }
  cublasStatus_t status =
      only_known_parts(*desc) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
  if (status == CUBLAS_STATUS_SUCCESS) {
    status = check_transposes(*desc, product);
  }
  if (status == CUBLAS_STATUS_SUCCESS) {
    status = check_types(*desc, *a, *b, *d, product);
  }
  if (status == CUBLAS_STATUS_SUCCESS) {
    status = check_shapes(*a, *b, *c, *d, product);
  }
  if (status == CUBLAS_STATUS_SUCCESS) {
    status = check_epilogue(*desc, product);
  }
  product->hash = hash_of(*product);
  return status;
}

uint32_t alignment_of(const Product &product, const Desc &desc) {
  uint64_t bits = 256;
  for (const int64_t ld : {product.lda, product.ldb, product.ldc, product.ldd}) {
    bits |= static_cast<uint64_t>(ld) * sizeof(float);
  }
  if (has_bias(product.epilogue) || has_bias_grad(product.epilogue)) {
    bits |= desc.bias;
  }
  if (has_aux(product.epilogue)) {
    bits |= desc.aux;
  }
  return static_cast<uint32_t>(bits & (~bits + 1));
}

} // namespace lt
