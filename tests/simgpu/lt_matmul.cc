// cublasLtMatmul: the product in double precision, rounded once, with its epilogue.
//
// The ReLU mask is opaque to callers, so its bits lie inverted and in an order of their own. What
// it says of an input of exactly 0 nothing documents: SIMGPU_RELU_AT_ZERO=1 lets the gradient pass
// there. The workspace is left full of NaN.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core.h"
#include "lt.h"
#include "sim.h"

namespace {

struct Call {
  lt::Product product;
  float alpha, beta;
  const float *a, *b, *c;
  float *d, *bias; // the bias or its gradient
  void *aux;       // mask, or what GELU was applied to
  void *workspace;
  uint64_t workspace_bytes; // what the algorithm takes of it
};

// ---- reading and writing

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

float value_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Leaves out the last `bits` bits of the fraction, to nearest and even: hardware may round
// otherwise, but never to more.
float without_last(unsigned bits, float value) {
  if (!std::isfinite(value)) {
    return value;
  }
  const uint32_t whole = bits_of(value);
  const uint32_t half = (1u << (bits - 1)) - 1 + (whole >> bits & 1);
  return value_of((whole + half) & ~((1u << bits) - 1));
}

float rounded(lt::Rounding rounding, float value) {
  switch (rounding) {
  case lt::Rounding::tf32:
    return without_last(13, value);
  case lt::Rounding::bf16:
    return without_last(16, value);
  default:
    return value;
  }
}

// Tells the simulator of a column-major matrix, column by column where they are apart.
void touch(const float *base, int64_t rows, int64_t cols, int64_t ld, bool write,
           const char *what) {
  if (ld == rows) {
    sim::access(base, static_cast<size_t>(rows * cols) * sizeof *base, write, what);
    return;
  }
  for (int64_t j = 0; j < cols; ++j) {
    sim::access(base + j * ld, static_cast<size_t>(rows) * sizeof *base, write, what);
  }
}

// op(matrix) as rows of k: [outer, k].
std::vector<double> gather(const lt::Product &p, const float *base, int64_t outer, int64_t ld,
                           bool k_is_contiguous, const char *what) {
  touch(base, k_is_contiguous ? p.k : outer, k_is_contiguous ? outer : p.k, ld, false, what);
  std::vector<double> rows(static_cast<size_t>(outer * p.k));
  for (int64_t i = 0; i < outer; ++i) {
    for (int64_t l = 0; l < p.k; ++l) {
      const float value = base[k_is_contiguous ? i * ld + l : l * ld + i];
      rows[static_cast<size_t>(i * p.k + l)] = static_cast<double>(rounded(p.rounding, value));
    }
  }
  return rows;
}

// ---- the ReLU mask

// Where the bit of row i lies in its column's bits: a permutation, since the factor is a prime
// larger than any width.
int64_t mask_bit(const lt::Product &p, int64_t i) {
  const int64_t width = static_cast<int64_t>(lt::mask_bytes(p.m)) * 8;
  return (i * 2147483647 + 77) % width;
}

void mask_set(const Call &call, int64_t i, int64_t j, bool positive) {
  const int64_t bit = mask_bit(call.product, i);
  unsigned char *byte =
      static_cast<unsigned char *>(call.aux) + j * (call.product.aux_ld / 8) + bit / 8;
  const unsigned value = 1u << (bit % 8);
  *byte = static_cast<unsigned char>(positive ? *byte & ~value : *byte | value);
}

bool mask_get(const Call &call, int64_t i, int64_t j) {
  const int64_t bit = mask_bit(call.product, i);
  const unsigned char byte =
      static_cast<const unsigned char *>(call.aux)[j * (call.product.aux_ld / 8) + bit / 8];
  return (byte >> (bit % 8) & 1) == 0;
}

void touch_aux(const Call &call, bool write) {
  const lt::Product &p = call.product;
  if (!lt::is_relu(p.epilogue)) {
    touch(static_cast<const float *>(call.aux), p.m, p.n, p.aux_ld, write, "cublasLtMatmul aux");
    return;
  }
  for (int64_t j = 0; j < p.n; ++j) {
    sim::access(static_cast<char *>(call.aux) + j * (p.aux_ld / 8), lt::mask_bytes(p.m), write,
                "cublasLtMatmul mask");
  }
}

// ---- epilogues

constexpr double gelu_root = 0.79788456080286535588; // sqrt(2 / pi)
constexpr double gelu_cubic = 0.044715;

double gelu(double x) {
  return 0.5 * x * (1.0 + std::tanh(gelu_root * (x + gelu_cubic * x * x * x)));
}

double gelu_derivative(double x) {
  const double t = std::tanh(gelu_root * (x + gelu_cubic * x * x * x));
  return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * gelu_root * (1.0 + 3.0 * gelu_cubic * x * x);
}

// What becomes of one element of the product; value is alpha AB + beta C, with its bias.
double finish(const Call &call, int64_t i, int64_t j, double value) {
  const lt::Product &p = call.product;
  const int64_t aux_at = j * p.aux_ld + i;
  if (lt::is_gradient(p.epilogue)) {
    if (lt::is_relu(p.epilogue)) {
      return mask_get(call, i, j) ? value : 0.0;
    }
    return value * gelu_derivative(static_cast<const float *>(call.aux)[aux_at]);
  }
  if (lt::is_relu(p.epilogue)) {
    const bool positive = value > 0.0; // not so for NaN: as in the real library it becomes 0
    if (lt::has_aux(p.epilogue)) {
      static const bool at_zero = sim::setting("SIMGPU_RELU_AT_ZERO", 0) != 0;
      mask_set(call, i, j, positive || (at_zero && value == 0.0));
    }
    return positive ? value : 0.0;
  }
  if ((p.epilogue & CUBLASLT_EPILOGUE_GELU) != 0) {
    if (lt::has_aux(p.epilogue)) {
      static_cast<float *>(call.aux)[aux_at] = static_cast<float>(value);
    }
    return gelu(value);
  }
  return value;
}

double dot(const double *x, const double *y, int64_t count) {
  double sum = 0.0;
  for (int64_t l = 0; l < count; ++l) {
    sum += x[l] * y[l];
  }
  return sum;
}

// Sums of the k elements of each row.
std::vector<double> row_sums(const std::vector<double> &rows, int64_t outer, int64_t k) {
  std::vector<double> sums(static_cast<size_t>(outer), 0.0);
  for (int64_t i = 0; i < outer; ++i) {
    for (int64_t l = 0; l < k; ++l) {
      sums[static_cast<size_t>(i)] += rows[static_cast<size_t>(i * k + l)];
    }
  }
  return sums;
}

void write_bias_grad(const Call &call, const std::vector<double> &sums) {
  sim::access(call.bias, sums.size() * sizeof(float), true, "cublasLtMatmul bias gradient");
  for (size_t i = 0; i < sums.size(); ++i) {
    call.bias[i] = static_cast<float>(sums[i]);
  }
}

void touch_inputs(const Call &call) {
  const lt::Product &p = call.product;
  if (call.beta != 0.0f) {
    touch(call.c, p.m, p.n, p.ldc, false, "cublasLtMatmul C");
  }
  if (lt::has_bias(p.epilogue)) {
    sim::access(call.bias, static_cast<size_t>(p.m) * sizeof(float), false, "cublasLtMatmul bias");
  }
  if (lt::has_aux(p.epilogue)) {
    touch_aux(call, !lt::is_gradient(p.epilogue));
  }
  if (call.workspace_bytes > 0) {
    sim::access(call.workspace, call.workspace_bytes, true, "cublasLtMatmul workspace");
    sim::poison(call.workspace, call.workspace_bytes, "cublasLtMatmul workspace");
  }
}

void multiply(const Call &call) {
  const lt::Product &p = call.product;
  const std::vector<double> a = gather(p, call.a, p.m, p.lda, p.transa, "cublasLtMatmul A");
  const std::vector<double> b = gather(p, call.b, p.n, p.ldb, !p.transb, "cublasLtMatmul B");
  touch_inputs(call);
  touch(call.d, p.m, p.n, p.ldd, true, "cublasLtMatmul D");
  std::vector<double> sums(static_cast<size_t>(p.m), 0.0); // of D's rows
  for (int64_t j = 0; j < p.n; ++j) {
    for (int64_t i = 0; i < p.m; ++i) {
      double value = static_cast<double>(call.alpha) *
                     dot(&a[static_cast<size_t>(i * p.k)], &b[static_cast<size_t>(j * p.k)], p.k);
      if (call.beta != 0.0f) {
        value += static_cast<double>(call.beta) * call.c[j * p.ldc + i];
      }
      if (lt::has_bias(p.epilogue)) {
        value += call.bias[i];
      }
      value = finish(call, i, j, value);
      call.d[j * p.ldd + i] = static_cast<float>(value);
      sums[static_cast<size_t>(i)] += value;
    }
  }
  if (p.epilogue == CUBLASLT_EPILOGUE_BGRADA) {
    write_bias_grad(call, row_sums(a, p.m, p.k));
  } else if (p.epilogue == CUBLASLT_EPILOGUE_BGRADB) {
    write_bias_grad(call, row_sums(b, p.n, p.k));
  } else if (lt::has_bias_grad(p.epilogue)) {
    write_bias_grad(call, sums);
  }
}

// ---- what the call itself can be refused for

bool overlap(const void *x, int64_t x_bytes, const void *y, int64_t y_bytes) {
  const char *p = static_cast<const char *>(x), *q = static_cast<const char *>(y);
  return p < q + y_bytes && q < p + x_bytes;
}

int64_t extent(int64_t cols, int64_t ld) {
  return cols * ld * static_cast<int64_t>(sizeof(float));
}

bool aligned(const void *pointer, uint64_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

cublasStatus_t check_pointers(const Call &call, const lt::Algo &algo) {
  const lt::Product &p = call.product;
  const void *needed[] = {call.a, call.b, call.c, call.d};
  for (const void *pointer : needed) {
    if (pointer == nullptr ||
        !aligned(pointer, std::max<uint64_t>(algo.alignment, sizeof(float)))) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
  }
  const bool bias = lt::has_bias(p.epilogue) || lt::has_bias_grad(p.epilogue);
  if ((bias && (call.bias == nullptr || !aligned(call.bias, algo.alignment))) ||
      (lt::has_aux(p.epilogue) && (call.aux == nullptr || !aligned(call.aux, 16)))) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (algo.workspace > 0 && (call.workspace == nullptr || !aligned(call.workspace, 256))) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (call.c == call.d && p.ldc != p.ldd) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  // What beta does to a gradient that is masked is not documented.
  return call.beta != 0.0f && lt::is_gradient(p.epilogue) ? CUBLAS_STATUS_NOT_SUPPORTED
                                                          : CUBLAS_STATUS_SUCCESS;
}

void find_overlap(const Call &call) {
  const lt::Product &p = call.product;
  const int64_t d = extent(p.n, p.ldd);
  if (overlap(call.d, d, call.a, extent(p.transa ? p.m : p.k, p.lda)) ||
      overlap(call.d, d, call.b, extent(p.transb ? p.k : p.n, p.ldb))) {
    sim::finding(sim::Kind::race, "cublasLtMatmul writes D over one of its own inputs");
  }
}

} // namespace

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream) {
  if (const int code = sim::injected("cublasLtMatmul")) {
    return static_cast<cublasStatus_t>(code);
  }
  if (handle == nullptr) {
    return CUBLAS_STATUS_NOT_INITIALIZED;
  }
  if (alpha == nullptr || beta == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (algo == nullptr) { // a heuristic of the library's own, at every call
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  Call call = {};
  cublasStatus_t status = lt::check(lt::of(desc), lt::of(a_layout), lt::of(b_layout),
                                    lt::of(c_layout), lt::of(d_layout), &call.product);
  if (status != CUBLAS_STATUS_SUCCESS) {
    return status;
  }
  lt::Algo chosen;
  std::memcpy(&chosen, algo, sizeof chosen);
  if (chosen.product != call.product.hash || workspace_bytes < chosen.workspace) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  std::memcpy(&call.alpha, alpha, sizeof call.alpha);
  std::memcpy(&call.beta, beta, sizeof call.beta);
  call.a = static_cast<const float *>(a);
  call.b = static_cast<const float *>(b);
  call.c = static_cast<const float *>(c);
  call.d = static_cast<float *>(d);
  call.bias = reinterpret_cast<float *>(lt::of(desc)->bias);
  call.aux = reinterpret_cast<void *>(lt::of(desc)->aux);
  call.workspace = workspace;
  call.workspace_bytes = chosen.workspace;
  status = check_pointers(call, chosen);
  if (status != CUBLAS_STATUS_SUCCESS) {
    return status;
  }
  find_overlap(call);
  if (!sim::capturing(stream)) {
    sim::count(sim::Counter::products);
  }
  sim::Op op;
  op.name = "cublasLtMatmul";
  op.run = [call] { multiply(call); };
  return sim::enqueue(stream, op) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                 : CUBLAS_STATUS_EXECUTION_FAILED;
}
