// cuBLASLt's products with the epilogues of a dense layer against plain loops, and what it refuses.
// Written against CUDA alone: on a machine with a GPU it runs on that.
#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

namespace {

int failures = 0;

#define CHECK(condition, ...)                                                                      \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      std::printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);                                  \
      std::printf(__VA_ARGS__);                                                                    \
      std::printf("\n");                                                                           \
      ++failures;                                                                                  \
    }                                                                                              \
  } while (0)

using Floats = std::vector<float>;
constexpr double epsilon = 6e-8; // of fp32
constexpr size_t workspace_bytes = 1 << 20;

Floats random_floats(size_t count) {
  static std::mt19937 generator(7);
  std::normal_distribution<float> normal;
  Floats values(count);
  for (float &value : values) {
    value = normal(generator);
  }
  return values;
}

class Device {
public:
  explicit Device(size_t bytes) : bytes_(bytes) {
    CHECK(cudaMalloc(&pointer_, bytes) == cudaSuccess, "%zu bytes", bytes);
  }
  explicit Device(const Floats &values) : Device(values.size() * sizeof(float)) {
    CHECK(cudaMemcpy(pointer_, values.data(), bytes_, cudaMemcpyHostToDevice) == cudaSuccess,
          "copy in");
  }
  ~Device() {
    cudaFree(pointer_);
  }
  Device(const Device &) = delete;
  Device &operator=(const Device &) = delete;

  void *get() const {
    return pointer_;
  }
  Floats read() const {
    Floats values(bytes_ / sizeof(float));
    CHECK(cudaMemcpy(values.data(), pointer_, bytes_, cudaMemcpyDeviceToHost) == cudaSuccess,
          "copy out");
    return values;
  }

private:
  void *pointer_ = nullptr;
  size_t bytes_;
};

// A product as it is asked for; every member may be bent for a refusal.
struct Asked {
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  bool transa = false, transb = false;
  int m = 24, n = 12, k = 20;
  int pad = 0; // of D's leading dimension
  float beta = 0.0f;
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  cudaDataType_t type = CUDA_R_32F;
  const void *bias = nullptr;
  void *aux = nullptr;
  int64_t aux_ld = 0;
  int aux_type = -1;
  int order = CUBLASLT_ORDER_COL;
  size_t workspace = workspace_bytes;
};

class Product {
public:
  explicit Product(const Asked &asked) : asked_(asked) {
    cublasLtCreate(&handle_);
    cublasLtMatmulDescCreate(&desc_, asked.compute, CUDA_R_32F);
    const cublasOperation_t a = asked.transa ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t b = asked.transb ? CUBLAS_OP_T : CUBLAS_OP_N;
    set(CUBLASLT_MATMUL_DESC_TRANSA, a);
    set(CUBLASLT_MATMUL_DESC_TRANSB, b);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, asked.epilogue);
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, asked.bias);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, asked.aux);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, asked.aux_ld);
    if (asked.aux_type != -1) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, asked.aux_type);
    }
    layout(&a_, asked.transa ? asked.k : asked.m, asked.transa ? asked.m : asked.k, 0);
    layout(&b_, asked.transb ? asked.n : asked.k, asked.transb ? asked.k : asked.n, 0);
    layout(&d_, asked.m, asked.n, asked.pad);
    cublasLtMatrixLayoutSetAttribute(d_, CUBLASLT_MATRIX_LAYOUT_ORDER, &asked.order,
                                     sizeof asked.order);
    cublasLtMatmulPreferenceCreate(&preference_);
    cublasLtMatmulPreferenceSetAttribute(preference_, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                         &asked.workspace, sizeof asked.workspace);
  }
  ~Product() {
    cublasLtMatmulPreferenceDestroy(preference_);
    cublasLtMatrixLayoutDestroy(a_);
    cublasLtMatrixLayoutDestroy(b_);
    cublasLtMatrixLayoutDestroy(d_);
    cublasLtMatmulDescDestroy(desc_);
    cublasLtDestroy(handle_);
  }
  Product(const Product &) = delete;
  Product &operator=(const Product &) = delete;

  cublasStatus_t choose(int wanted, int *found, cublasLtMatmulHeuristicResult_t *results) {
    return cublasLtMatmulAlgoGetHeuristic(handle_, desc_, a_, b_, d_, d_, preference_, wanted,
                                          results, found);
  }

  cublasStatus_t run(const cublasLtMatmulAlgo_t &algo, const void *a, const void *b, void *d,
                     void *workspace, size_t bytes) {
    const float alpha = 1.0f;
    return cublasLtMatmul(handle_, desc_, &alpha, a, a_, b, b_, &asked_.beta, d, d_, d, d_, &algo,
                          workspace, bytes, nullptr);
  }

private:
  template <typename T> void set(cublasLtMatmulDescAttributes_t attribute, const T &value) {
    CHECK(cublasLtMatmulDescSetAttribute(desc_, attribute, &value, sizeof value) ==
              CUBLAS_STATUS_SUCCESS,
          "attribute %d", attribute);
  }
  void layout(cublasLtMatrixLayout_t *made, int rows, int cols, int pad) {
    cublasLtMatrixLayoutCreate(made, asked_.type, static_cast<uint64_t>(rows),
                               static_cast<uint64_t>(cols), rows + pad);
  }

  Asked asked_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t desc_ = nullptr;
  cublasLtMatrixLayout_t a_ = nullptr, b_ = nullptr, d_ = nullptr;
  cublasLtMatmulPreference_t preference_ = nullptr;
};

// By every algorithm that is found, one after the other; by the best alone where D is read too.
void multiply(const Asked &asked, const Device &a, const Device &b, const Device &d) {
  Product product(asked);
  cublasLtMatmulHeuristicResult_t results[8];
  int found = 0;
  const cublasStatus_t status = product.choose(8, &found, results);
  CHECK(status == CUBLAS_STATUS_SUCCESS && found > 0, "epilogue %d: %d", asked.epilogue, status);
  const Device workspace(workspace_bytes);
  for (int i = 0; i < found; ++i) {
    CHECK(product.run(results[i].algo, a.get(), b.get(), d.get(), workspace.get(),
                      workspace_bytes) == CUBLAS_STATUS_SUCCESS,
          "epilogue %d, algorithm %d", asked.epilogue, i);
    CHECK(cudaDeviceSynchronize() == cudaSuccess, "synchronize");
    if (asked.beta != 0.0f) {
      return;
    }
  }
}

// ---- plain loops

double element(const Floats &values, bool transposed, int rows, int cols, int i, int j) {
  return values[static_cast<size_t>(transposed ? i * cols + j : j * rows + i)];
}

// op(A) op(B) and the sum of its absolute terms, by which rounding is judged.
void plain(const Asked &asked, const Floats &a, const Floats &b, int i, int j, double *value,
           double *weight) {
  *value = *weight = 0.0;
  for (int l = 0; l < asked.k; ++l) {
    const double term = element(a, asked.transa, asked.m, asked.k, i, l) *
                        element(b, asked.transb, asked.k, asked.n, l, j);
    *value += term;
    *weight += std::fabs(term);
  }
}

void expect(const char *what, double value, double expected, double weight, int terms) {
  const double bound = epsilon * (terms + 2) * (weight + std::fabs(expected));
  CHECK(std::fabs(value - expected) <= bound, "%s: %.9g, not %.9g", what, value, expected);
}

double gelu(double x) {
  return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
}

size_t mask_bytes(const Asked &asked) {
  return static_cast<size_t>(asked.aux_ld / 8 * asked.n);
}

// ---- what a dense layer does

void test_forward(cublasLtEpilogue_t epilogue, int m, int n, int k) {
  Asked asked;
  asked.epilogue = epilogue;
  asked.m = m;
  asked.n = n;
  asked.k = k;
  const Floats w = random_floats(static_cast<size_t>(m * k));
  const Floats x = random_floats(static_cast<size_t>(k * n));
  const Floats bias = random_floats(static_cast<size_t>(m));
  const Device a(w), b(x), c(bias), d(static_cast<size_t>(m * n) * sizeof(float));
  asked.bias = c.get();
  asked.aux_ld = (m + 127) / 128 * 128;
  const Device aux(static_cast<size_t>(asked.aux_ld * n) * sizeof(float));
  asked.aux = aux.get();
  multiply(asked, a, b, d);
  const Floats y = d.read();
  const unsigned bits = epilogue;
  for (int j = 0; j < n; ++j) {
    for (int i = 0; i < m; ++i) {
      double expected, weight;
      plain(asked, w, x, i, j, &expected, &weight);
      if ((bits & CUBLASLT_EPILOGUE_BIAS) != 0) {
        expected += bias[static_cast<size_t>(i)];
      }
      if ((bits & CUBLASLT_EPILOGUE_RELU) != 0) {
        expected = expected > 0.0 ? expected : 0.0;
      }
      if ((bits & CUBLASLT_EPILOGUE_GELU) != 0) {
        expected = gelu(expected);
      }
      expect("forward", y[static_cast<size_t>(j * m + i)], expected, 2.0 * weight + 2.0, k);
    }
  }
}

// Forward with ReLU and its mask, then the gradient masked by it, with the sum of its rows.
void test_relu(int m, int n, int k, bool bias_grad) {
  Asked asked;
  asked.epilogue = CUBLASLT_EPILOGUE_RELU_AUX_BIAS;
  asked.m = m;
  asked.n = n;
  asked.k = k;
  asked.aux_ld = (m + 127) / 128 * 128;
  const Floats w = random_floats(static_cast<size_t>(m * k));
  const Floats x = random_floats(static_cast<size_t>(k * n));
  const Device a(w), b(x), c(random_floats(static_cast<size_t>(m)));
  const Device y(static_cast<size_t>(m * n) * sizeof(float)), mask(mask_bytes(asked));
  asked.bias = c.get();
  asked.aux = mask.get();
  multiply(asked, a, b, y);
  const Device grad(static_cast<size_t>(m) * sizeof(float));
  const Device dz(static_cast<size_t>(m * n) * sizeof(float));
  Asked back = asked;
  back.epilogue = bias_grad ? CUBLASLT_EPILOGUE_DRELU_BGRAD : CUBLASLT_EPILOGUE_DRELU;
  back.bias = grad.get();
  back.transa = true;
  const Floats v = random_floats(static_cast<size_t>(k * m)); // [k, m], transposed
  const Device va(v);
  multiply(back, va, b, dz);
  const Floats forward = y.read(), backward = dz.read();
  for (int i = 0; i < m; ++i) {
    double sum = 0.0, weights = 0.0;
    for (int j = 0; j < n; ++j) {
      double expected, weight;
      plain(back, v, x, i, j, &expected, &weight);
      const size_t at = static_cast<size_t>(j * m + i);
      expected = forward[at] > 0.0f ? expected : 0.0;
      expect("DRELU", backward[at], expected, weight, k);
      sum += expected;
      weights += weight;
    }
    if (bias_grad) {
      expect("DRELU_BGRAD", grad.read()[static_cast<size_t>(i)], sum, weights, k + n);
    }
  }
}

void test_gelu(int m, int n, int k) {
  Asked asked;
  asked.epilogue = CUBLASLT_EPILOGUE_DGELU_BGRAD;
  asked.m = m;
  asked.n = n;
  asked.k = k;
  asked.aux_ld = (m + 7) / 8 * 8;
  const Floats w = random_floats(static_cast<size_t>(m * k));
  const Floats x = random_floats(static_cast<size_t>(k * n));
  const Floats z = random_floats(static_cast<size_t>(asked.aux_ld * n));
  const Device a(w), b(x), aux(z), d(static_cast<size_t>(m * n) * sizeof(float));
  const Device grad(static_cast<size_t>(m) * sizeof(float));
  asked.aux = aux.get();
  asked.bias = grad.get();
  multiply(asked, a, b, d);
  const Floats y = d.read(), sums = grad.read();
  for (int i = 0; i < m; ++i) {
    double sum = 0.0, weights = 0.0;
    for (int j = 0; j < n; ++j) {
      double expected, weight;
      plain(asked, w, x, i, j, &expected, &weight);
      const double at = z[static_cast<size_t>(j * asked.aux_ld + i)], h = 1e-5;
      const double slope = (gelu(at + h) - gelu(at - h)) / (2.0 * h); // to 1e-10
      expect("DGELU", y[static_cast<size_t>(j * m + i)], expected * slope, 2.0 * weight, k);
      sum += expected * slope;
      weights += 2.0 * weight;
    }
    expect("DGELU_BGRAD", sums[static_cast<size_t>(i)], sum, weights, k + n);
  }
}

// dW, with the bias gradient from A or from B.
void test_weights(cublasLtEpilogue_t epilogue, int m, int n, int k, float beta) {
  Asked asked;
  asked.epilogue = epilogue;
  asked.transb = true;
  asked.beta = beta;
  asked.m = m;
  asked.n = n;
  asked.k = k;
  const bool from_a = epilogue == CUBLASLT_EPILOGUE_BGRADA;
  const Floats dy = random_floats(static_cast<size_t>(m * k));
  const Floats x = random_floats(static_cast<size_t>(n * k));
  const Floats before = random_floats(static_cast<size_t>(m * n));
  const Device a(dy), b(x), d(before);
  const Device grad(static_cast<size_t>(from_a ? m : n) * sizeof(float));
  asked.bias = grad.get();
  multiply(asked, a, b, d);
  const Floats y = d.read(), sums = grad.read();
  for (int j = 0; j < n; ++j) {
    for (int i = 0; i < m; ++i) {
      double expected, weight;
      plain(asked, dy, x, i, j, &expected, &weight);
      const size_t at = static_cast<size_t>(j * m + i);
      expect("dW", y[at], expected + static_cast<double>(beta) * before[at], weight + 4.0, k);
    }
  }
  for (size_t i = 0; i < sums.size(); ++i) {
    double sum = 0.0, weight = 0.0;
    for (int l = 0; l < k; ++l) {
      const Floats &from = from_a ? dy : x;
      const double term = from[static_cast<size_t>(l) * sums.size() + i];
      sum += term;
      weight += std::fabs(term);
    }
    expect("bias gradient", sums[i], sum, weight, k);
  }
}

// The reduced precisions are asked for, or not there.
void test_precision() {
  const Floats w = random_floats(24 * 20), x = random_floats(20 * 12);
  const Device a(w), b(x), d(24 * 12 * sizeof(float));
  const cublasComputeType_t types[] = {CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32,
                                       CUBLAS_COMPUTE_32F_FAST_16BF};
  const double least[] = {0.0, 2e-5, 2e-4}, most[] = {2e-7, 1.1e-3, 9e-3}; // of the weights
  for (int i = 0; i < 3; ++i) {
    Asked asked;
    asked.compute = types[i];
    multiply(asked, a, b, d);
    const Floats y = d.read();
    double worst = 0.0;
    for (int col = 0; col < asked.n; ++col) {
      for (int row = 0; row < asked.m; ++row) {
        double expected, weight;
        plain(asked, w, x, row, col, &expected, &weight);
        worst = std::fmax(worst, std::fabs(y[static_cast<size_t>(col * asked.m + row)] - expected) /
                                     weight);
      }
    }
    CHECK(worst >= least[i] && worst <= most[i], "compute type %d: %g", types[i], worst);
  }
}

// ---- what is refused

cublasStatus_t asked_for(const Asked &asked, int *found) {
  Product product(asked);
  cublasLtMatmulHeuristicResult_t results[8];
  return product.choose(8, found, results);
}

void refuse(const char *what, const Asked &asked, cublasStatus_t expected) {
  int found = 0;
  const cublasStatus_t status = asked_for(asked, &found);
  CHECK(status == expected && found == 0, "%s: %d, %d found", what, status, found);
}

void test_refused() {
  Asked asked;
  asked.epilogue = static_cast<cublasLtEpilogue_t>(3);
  refuse("nonsense epilogue", asked, CUBLAS_STATUS_INVALID_VALUE);
  asked = Asked();
  asked.pad = -1;
  refuse("ld < rows", asked, CUBLAS_STATUS_INVALID_VALUE);
  for (const bool one_output : {true, false}) {
    asked = Asked();
    asked.epilogue = CUBLASLT_EPILOGUE_BIAS;
    (one_output ? asked.m : asked.k) = 1;
    refuse("a dimension of one", asked, CUBLAS_STATUS_INVALID_VALUE);
  }
  asked = Asked();
  asked.epilogue = CUBLASLT_EPILOGUE_RELU_AUX_BIAS;
  asked.aux_ld = 64;
  refuse("mask ld", asked, CUBLAS_STATUS_INVALID_VALUE);
  asked.aux_ld = 128;
  asked.aux_type = CUDA_R_32F;
  refuse("a mask with a type", asked, CUBLAS_STATUS_NOT_SUPPORTED);
  asked.aux_type = -1;
  asked.aux = reinterpret_cast<void *>(8);
  refuse("misaligned mask", asked, CUBLAS_STATUS_NOT_SUPPORTED);
  asked = Asked();
  asked.type = CUDA_R_64F;
  refuse("fp64", asked, CUBLAS_STATUS_NOT_SUPPORTED);
  asked = Asked();
  asked.compute = CUBLAS_COMPUTE_16F;
  refuse("fp16", asked, CUBLAS_STATUS_NOT_SUPPORTED);
  asked = Asked();
  asked.order = CUBLASLT_ORDER_ROW;
  refuse("row order", asked, CUBLAS_STATUS_NOT_SUPPORTED);
  asked = Asked();
  asked.epilogue = CUBLASLT_EPILOGUE_BGRADA;
  asked.transa = true;
  refuse("BGRADA of a transposed A", asked, CUBLAS_STATUS_NOT_SUPPORTED);
}

void test_selection() {
  Asked asked;
  int all = 0, small = 0, odd = 0;
  CHECK(asked_for(asked, &all) == CUBLAS_STATUS_SUCCESS && all >= 2, "%d found", all);
  asked.workspace = 0;
  CHECK(asked_for(asked, &small) == CUBLAS_STATUS_SUCCESS && small < all, "without workspace");
  asked.m = 23;
  CHECK(asked_for(asked, &odd) == CUBLAS_STATUS_SUCCESS && odd < small, "odd leading dimension");
}

// A plan used for what it was not made for.
void test_misused() {
  Asked asked;
  Product product(asked);
  cublasLtMatmulHeuristicResult_t results[8];
  int found = 0;
  CHECK(product.choose(8, &found, results) == CUBLAS_STATUS_SUCCESS && found > 0, "choose");
  const Device a(random_floats(24 * 20 + 1)), b(random_floats(20 * 12)), d(random_floats(24 * 12));
  const Device workspace(workspace_bytes);
  const cublasLtMatmulAlgo_t &best = results[0].algo;
  CHECK(product.run(best, a.get(), b.get(), d.get(), workspace.get(), 0) ==
            CUBLAS_STATUS_INVALID_VALUE,
        "workspace too small");
  CHECK(product.run(best, static_cast<char *>(a.get()) + 4, b.get(), d.get(), workspace.get(),
                    workspace_bytes) == CUBLAS_STATUS_INVALID_VALUE,
        "A is not aligned");
  CHECK(product.run(best, nullptr, b.get(), d.get(), workspace.get(), workspace_bytes) ==
            CUBLAS_STATUS_INVALID_VALUE,
        "no A");
  asked.k = 10;
  CHECK(Product(asked).run(best, a.get(), b.get(), d.get(), workspace.get(), workspace_bytes) ==
            CUBLAS_STATUS_INVALID_VALUE,
        "another product's algorithm");
}

} // namespace

int main() {
  const cublasLtEpilogue_t forward[] = {
      CUBLASLT_EPILOGUE_DEFAULT,      CUBLASLT_EPILOGUE_BIAS,      CUBLASLT_EPILOGUE_RELU,
      CUBLASLT_EPILOGUE_RELU_BIAS,    CUBLASLT_EPILOGUE_RELU_AUX,  CUBLASLT_EPILOGUE_RELU_AUX_BIAS,
      CUBLASLT_EPILOGUE_GELU,         CUBLASLT_EPILOGUE_GELU_BIAS, CUBLASLT_EPILOGUE_GELU_AUX,
      CUBLASLT_EPILOGUE_GELU_AUX_BIAS};
  for (const cublasLtEpilogue_t epilogue : forward) {
    test_forward(epilogue, 24, 12, 20);
    test_forward(epilogue, 135, 7, 31);
  }
  for (const bool bias_grad : {false, true}) {
    test_relu(24, 12, 20, bias_grad);
    test_relu(135, 7, 31, bias_grad);
  }
  test_gelu(24, 12, 20);
  test_gelu(19, 7, 31);
  for (const float beta : {0.0f, 0.5f}) {
    test_weights(CUBLASLT_EPILOGUE_BGRADA, 24, 12, 20, beta);
    test_weights(CUBLASLT_EPILOGUE_BGRADB, 9, 13, 31, beta);
  }
  test_precision();
  test_refused();
  test_selection();
  test_misused();
  std::printf("%d failed\n", failures);
  return failures == 0 ? 0 : 1;
}
