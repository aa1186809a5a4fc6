// The substitute for cuBLASLt, inside: its descriptors, and a product that has been checked.
//
// Descriptors are plain structs in the header's opaque ones. The real library looks at an
// attribute's number and size and at nothing else when one is set, and so does this one
// (compare_lt.cc holds them together); all meaning is checked where a product is asked for. What
// this library does not know for certain it answers with NOT_SUPPORTED.
#ifndef SIMGPU_LT_H
#define SIMGPU_LT_H

#include <cublasLt.h>

#include <cstddef>
#include <cstdint>

namespace lt {

struct Layout {
  uint32_t type;
  int32_t order;
  int32_t batch_count;
  uint32_t batch_mode;
  uint64_t rows, cols;
  int64_t ld;
  int64_t batch_stride;
  int64_t plane_offset;
};

struct Desc {
  int32_t compute, scale_type, pointer_mode, transa, transb, transc, fill;
  uint32_t epilogue;
  int32_t sm_count_target;
  int32_t reserved; // attribute 16: the real library takes it, the header does not name it
  int32_t aux_type, bias_type;
  int32_t scale_modes[5]; // A, B, C, D, aux
  int32_t out_scale_mode;
  int32_t fast_accumulation; // one byte of it is the attribute
  int32_t unused;
  uint64_t bias; // device address
  int64_t bias_stride;
  uint64_t aux; // device address
  int64_t aux_ld, aux_stride, alpha_stride;
  uint64_t scales[4]; // A, B, C, D
  uint64_t amax, aux_scale, aux_amax, out_scale, emulation;
};

struct Preference {
  uint32_t search, reductions;
  uint32_t alignment[4]; // A, B, C, D
  float waves;
  uint32_t unused;
  uint64_t workspace;
  uint64_t implementations;
};

// What a heuristic returns: one way to make one product.
struct Algo {
  int32_t id;
  uint32_t tile;
  int32_t split_k;
  uint32_t reduction, swizzle, custom, stages;
  uint16_t inner, cluster;
  uint32_t alignment; // bytes, of every pointer and leading dimension
  uint32_t unused;
  uint64_t workspace; // bytes it needs
  uint64_t product;   // hash of what it was chosen for
};

static_assert(sizeof(Algo) <= sizeof(cublasLtMatmulAlgo_t), "");

const Layout *of(cublasLtMatrixLayout_t layout);
const Desc *of(cublasLtMatmulDesc_t desc);
const Preference *of(cublasLtMatmulPreference_t preference);

// What inputs are rounded to before they are multiplied.
enum class Rounding : uint32_t { none, tf32, bf16 };

// D = epilogue(alpha op(A) op(B) + beta C), column-major and all of it fp32: op(A) is [m, k], op(B)
// [k, n], D [m, n].
struct Product {
  int64_t m, n, k;
  int64_t lda, ldb, ldc, ldd;
  bool transa, transb;
  Rounding rounding;
  uint32_t epilogue;
  int64_t aux_ld;
  uint64_t hash; // of all above
};

bool has_bias(uint32_t epilogue);      // reads a bias
bool has_bias_grad(uint32_t epilogue); // writes a bias gradient
bool is_relu(uint32_t epilogue);       // RELU or DRELU
bool has_aux(uint32_t epilogue);       // reads or writes the auxiliary buffer
bool is_gradient(uint32_t epilogue);   // DRELU, DGELU: reads the auxiliary buffer

// Bytes of a column of the ReLU mask that are written and read.
size_t mask_bytes(int64_t m);

// Whether this product can be made at all, and its shape; pointers are not looked at, but for the
// alignment of bias and aux.
cublasStatus_t check(const Desc *desc, const Layout *a, const Layout *b, const Layout *c,
                     const Layout *d, Product *product);

// The largest power of two, at most 256, that divides all leading dimensions in bytes and the
// addresses of bias and aux.
uint32_t alignment_of(const Product &product, const Desc &desc);

} // namespace lt

#endif
