// Programs that use cuBLASLt or NCCL wrongly, each in one way that the simulated GPU must find.
//
//   sabotage list | CASE right|wrong
//
// Each case has its right form too, in which nothing may be found. test_sabotage.py knows what the
// wrong ones are found by; test_runtime.cc does the same for the runtime alone.
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <mpi.h>
#include <nccl.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr size_t count = 1000, bytes = count * sizeof(float);
int rank, ranks;

// Codes are 0 for success in all three libraries.
void must_be_zero(int code, const char *call, int line) {
  if (code != 0) {
    std::fprintf(stderr, "line %d: %s answers %d\n", line, call, code);
    std::exit(1);
  }
}
#define MUST(call) must_be_zero(call, #call, __LINE__)

float *device_floats(size_t number) {
  void *pointer = nullptr;
  MUST(cudaMalloc(&pointer, number * sizeof(float)));
  MUST(cudaMemset(pointer, 0, number * sizeof(float)));
  return static_cast<float *>(pointer);
}

// Two streams that do not know of each other, and zeros.
struct Bench {
  cudaStream_t first = nullptr, second = nullptr;
  cudaEvent_t event = nullptr;
  float *a, *b;

  Bench() {
    MUST(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
    MUST(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    MUST(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    a = device_floats(count);
    b = device_floats(count);
    MUST(cudaDeviceSynchronize());
  }
  void hand_over() const {
    MUST(cudaEventRecord(event, first));
    MUST(cudaStreamWaitEvent(second, event, 0));
  }
};

// ---- NCCL

struct Ranks {
  ncclComm_t comm = nullptr;

  Ranks() {
    ncclUniqueId id;
    if (rank == 0) {
      MUST(ncclGetUniqueId(&id));
    }
    MUST(MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD));
    MUST(ncclCommInitRankConfig(&comm, ranks, id, rank, nullptr));
  }
  void sum(float *values, size_t number, cudaStream_t stream) const {
    MUST(ncclAllReduce(values, values, number, ncclFloat32, ncclSum, comm, stream));
  }
};

void collective_count(bool wrong) {
  const Bench bench;
  const Ranks all;
  all.sum(bench.a, wrong && rank == 1 ? count - 1 : count, bench.first);
  MUST(cudaDeviceSynchronize());
}

void collective_order(bool wrong) {
  const Bench bench;
  const Ranks all;
  const bool swapped = wrong && rank == 1;
  all.sum(swapped ? bench.b : bench.a, swapped ? 10 : count, bench.first);
  all.sum(swapped ? bench.a : bench.b, swapped ? count : 10, bench.first);
  MUST(cudaDeviceSynchronize());
}

// One rank makes one sum less, and leaves.
void collective_missing(bool wrong) {
  const Bench bench;
  const Ranks all;
  all.sum(bench.a, count, bench.first);
  if (!wrong || rank == 0) {
    all.sum(bench.b, count, bench.first);
  }
  MUST(ncclCommDestroy(all.comm));
}

// Summed before the stream that makes it is done.
void collective_early(bool wrong) {
  const Bench bench;
  const Ranks all;
  MUST(cudaMemcpyAsync(bench.b, bench.a, bytes, cudaMemcpyDeviceToDevice, bench.first));
  if (!wrong) {
    bench.hand_over();
  }
  all.sum(bench.b, count, bench.second);
  MUST(cudaDeviceSynchronize());
}

// Used before the sum is done.
void collective_late(bool wrong) {
  const Bench bench;
  const Ranks all;
  all.sum(bench.b, count, bench.first);
  if (!wrong) {
    bench.hand_over();
  }
  MUST(cudaMemcpyAsync(bench.a, bench.b, bytes, cudaMemcpyDeviceToDevice, bench.second));
  MUST(cudaDeviceSynchronize());
}

// The sum reaches one past the end.
void collective_bounds(bool wrong) {
  const Bench bench;
  const Ranks all;
  all.sum(bench.a, wrong ? count + 1 : count, bench.first);
  MUST(cudaDeviceSynchronize());
}

// The communicator goes before the graph that holds its collectives.
void communicator_first(bool wrong) {
  const Bench bench;
  const Ranks all;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  MUST(cudaStreamBeginCapture(bench.first, cudaStreamCaptureModeThreadLocal));
  all.sum(bench.a, count, bench.first);
  MUST(cudaStreamEndCapture(bench.first, &graph));
  MUST(cudaGraphInstantiate(&replay, graph, 0));
  MUST(cudaGraphLaunch(replay, bench.first));
  MUST(cudaDeviceSynchronize());
  MUST(cudaGraphDestroy(graph));
  if (!wrong) {
    MUST(cudaGraphExecDestroy(replay));
  }
  MUST(ncclCommDestroy(all.comm));
}

// ---- cuBLASLt: D[16, 8] = A[16, 32] B[32, 8], all of them parts of one block

struct Product {
  enum { m = 16, n = 8, k = 32 };
  const size_t workspace_bytes = 1 << 16;
  float *a, *b, *d, *bias;
  void *mask, *workspace;
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t a_layout = nullptr, b_layout = nullptr, d_layout = nullptr;
  cublasLtMatmulHeuristicResult_t best;

  explicit Product(cublasLtEpilogue_t epilogue)
      : a(device_floats(m * k)), b(device_floats(k * n)), d(device_floats(m * n)),
        bias(device_floats(m)), mask(device_floats(16 * n / 4)),
        workspace(device_floats(workspace_bytes / 4)) {
    const int64_t bits = 128;
    MUST(cublasLtCreate(&handle));
    MUST(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, mask);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, bits);
    MUST(cublasLtMatrixLayoutCreate(&a_layout, CUDA_R_32F, m, k, m));
    MUST(cublasLtMatrixLayoutCreate(&b_layout, CUDA_R_32F, k, n, k));
    MUST(cublasLtMatrixLayoutCreate(&d_layout, CUDA_R_32F, m, n, m));
    cublasLtMatmulPreference_t preference = nullptr;
    int found = 0;
    MUST(cublasLtMatmulPreferenceCreate(&preference));
    MUST(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                              &workspace_bytes, sizeof workspace_bytes));
    MUST(cublasLtMatmulAlgoGetHeuristic(handle, desc, a_layout, b_layout, d_layout, d_layout,
                                        preference, 1, &best, &found));
    MUST(cudaDeviceSynchronize());
  }
  template <typename T> void set(cublasLtMatmulDescAttributes_t attribute, const T &value) {
    MUST(cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof value));
  }
  void run(float *to, cudaStream_t stream) const {
    const float one = 1.0f, zero = 0.0f;
    MUST(cublasLtMatmul(handle, desc, &one, a, a_layout, b, b_layout, &zero, to, d_layout, to,
                        d_layout, &best.algo, workspace, workspace_bytes, stream));
  }
};

// The bias is still being written by another stream.
void product_early(bool wrong) {
  const Bench bench;
  const Product product(CUBLASLT_EPILOGUE_BIAS);
  MUST(cudaMemsetAsync(product.bias, 0, Product::m * sizeof(float), bench.first));
  if (!wrong) {
    bench.hand_over();
  }
  product.run(product.d, bench.second);
  MUST(cudaDeviceSynchronize());
}

// Two streams that share a workspace, and nothing else that either writes.
void workspace_shared(bool wrong) {
  const Bench bench;
  float *other = device_floats(Product::m * Product::n);
  const Product product(CUBLASLT_EPILOGUE_DEFAULT);
  product.run(product.d, bench.first);
  if (!wrong) {
    bench.hand_over();
  }
  product.run(other, bench.second);
  MUST(cudaDeviceSynchronize());
}

void workspace_read(bool wrong) {
  const Bench bench;
  const Product product(CUBLASLT_EPILOGUE_DEFAULT);
  product.run(product.d, bench.first);
  MUST(cudaStreamSynchronize(bench.first));
  float value;
  MUST(cudaMemcpy(&value, wrong ? product.workspace : product.d, sizeof value,
                  cudaMemcpyDeviceToHost));
}

// The mask of a forward product that never ran.
void mask_unwritten(bool wrong) {
  const Bench bench;
  Product product(CUBLASLT_EPILOGUE_DRELU);
  void *fresh = nullptr;
  MUST(cudaMalloc(&fresh, 16 * Product::n));
  product.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, wrong ? fresh : product.mask);
  product.run(product.d, bench.first);
  MUST(cudaDeviceSynchronize());
}

// The mask's rows are taken to be shorter than they are.
void mask_bounds(bool wrong) {
  const Bench bench;
  Product product(CUBLASLT_EPILOGUE_RELU_AUX);
  void *small = nullptr;
  MUST(cudaMalloc(&small, 16 * Product::n - 2));
  product.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, wrong ? small : product.mask);
  product.run(product.d, bench.first);
  MUST(cudaDeviceSynchronize());
}

void product_in_place(bool wrong) {
  const Bench bench;
  const Product product(CUBLASLT_EPILOGUE_DEFAULT);
  product.run(wrong ? product.b : product.d, bench.first);
  MUST(cudaDeviceSynchronize());
}

struct Case {
  const char *name;
  void (*run)(bool);
  bool many; // of several ranks
};

const Case cases[] = {
    {"collective_count", collective_count, true},
    {"collective_order", collective_order, true},
    {"collective_missing", collective_missing, true},
    {"collective_early", collective_early, true},
    {"collective_late", collective_late, true},
    {"collective_bounds", collective_bounds, true},
    {"communicator_first", communicator_first, true},
    {"product_early", product_early, false},
    {"workspace_shared", workspace_shared, false},
    {"workspace_read", workspace_read, false},
    {"mask_unwritten", mask_unwritten, false},
    {"mask_bounds", mask_bounds, false},
    {"product_in_place", product_in_place, false},
};

int run(const Case &one, bool wrong) {
  if (one.many) {
    MUST(MPI_Init(nullptr, nullptr));
    MUST(MPI_Comm_rank(MPI_COMM_WORLD, &rank));
    MUST(MPI_Comm_size(MPI_COMM_WORLD, &ranks));
    MUST(cudaSetDevice(rank));
  }
  one.run(wrong);
  return one.many ? MPI_Finalize() : 0;
}

} // namespace

int main(int words, char **word) {
  for (const Case &one : cases) {
    if (words == 2 && std::strcmp(word[1], "list") == 0) {
      std::printf("%s %s\n", one.name, one.many ? "ranks" : "alone");
    } else if (words == 3 && std::strcmp(word[1], one.name) == 0) {
      return run(one, std::strcmp(word[2], "wrong") == 0);
    }
  }
  return words == 2 ? 0 : 2;
}
