// Sums over ranks: eager, in groups, in replayed graphs; and hosts that wait for each other in MPI
// or in shared memory while their devices do. One device a rank; written against CUDA, NCCL and MPI
// alone.
#include <cuda_runtime_api.h>
#include <mpi.h>
#include <nccl.h>
#include <sched.h>

#include <atomic>
#include <cstdio>
#include <vector>

namespace {

int rank, size, failures;
ncclComm_t comm;
cudaStream_t stream;

#define CHECK(condition, ...)                                                                      \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      std::printf("%s:%d: rank %d: %s: ", __FILE__, __LINE__, rank, #condition);                   \
      std::printf(__VA_ARGS__);                                                                    \
      std::printf("\n");                                                                           \
      ++failures;                                                                                  \
    }                                                                                              \
  } while (0)
#define CUDA(call) CHECK((call) == cudaSuccess, "%s", cudaGetErrorString(cudaGetLastError()))
#define NCCL(call) CHECK((call) == ncclSuccess, "%s", ncclGetLastError(nullptr))

float *device_floats(size_t count) {
  void *pointer = nullptr;
  CUDA(cudaMalloc(&pointer, count * sizeof(float)));
  return static_cast<float *>(pointer);
}

// Small whole numbers: every order of summing gives the same.
std::vector<float> mine(size_t count, int turn) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = static_cast<float>((static_cast<int>(i % 100) + turn) * (rank + 1));
  }
  return values;
}

void expect_sum(const float *device, size_t count, int turn, int times) {
  std::vector<float> values(count);
  CUDA(cudaStreamSynchronize(stream));
  CUDA(cudaMemcpy(values.data(), device, count * sizeof(float), cudaMemcpyDeviceToHost));
  size_t wrong = 0;
  for (size_t i = 0; i < count; ++i) {
    const int each = (static_cast<int>(i % 100) + turn) * times;
    wrong += values[i] != static_cast<float>(each * (size * (size + 1) / 2));
  }
  CHECK(wrong == 0, "%zu of %zu, turn %d", wrong, count, turn);
}

void put(float *device, size_t count, int turn) {
  const std::vector<float> values = mine(count, turn);
  CUDA(cudaMemcpyAsync(device, values.data(), count * sizeof(float), cudaMemcpyHostToDevice,
                       stream));
}

void sum(const float *send, float *receive, size_t count) {
  NCCL(ncclAllReduce(send, receive, count, ncclFloat32, ncclSum, comm, stream));
}

void test_eager() {
  const size_t counts[] = {1, 7, 1000, 70001};
  float *a = device_floats(70001), *b = device_floats(70001);
  int turn = 0;
  for (const size_t count : counts) {
    put(a, count, ++turn);
    sum(a, b, count);
    expect_sum(b, count, turn, 1);
    sum(a, a, count); // in place
    expect_sum(a, count, turn, 1);
  }
  CUDA(cudaFree(a));
  CUDA(cudaFree(b));
}

void test_group() {
  float *a = device_floats(300), *b = device_floats(20);
  put(a, 300, 3);
  put(b, 20, 5);
  NCCL(ncclGroupStart());
  sum(a, a, 300);
  sum(b, b, 20);
  NCCL(ncclGroupEnd());
  expect_sum(a, 300, 3, 1);
  expect_sum(b, 20, 5, 1);
  CUDA(cudaFree(a));
  CUDA(cudaFree(b));
}

void test_graph() {
  const size_t count = 500;
  float *in = device_floats(count), *out = device_floats(count);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  CUDA(cudaMemcpyAsync(out, in, count * sizeof(float), cudaMemcpyDeviceToDevice, stream));
  sum(out, out, count);
  CUDA(cudaStreamEndCapture(stream, &graph));
  CUDA(cudaGraphInstantiate(&replay, graph, 0));
  for (int turn = 0; turn < 10; ++turn) {
    put(in, count, turn);
    CUDA(cudaGraphLaunch(replay, stream));
    if (turn % 3 == 0) {
      expect_sum(out, count, turn, 1);
    }
  }
  expect_sum(out, count, 9, 1);
  CUDA(cudaGraphExecDestroy(replay));
  CUDA(cudaGraphDestroy(graph));
  CUDA(cudaFree(in));
  CUDA(cudaFree(out));
}

// Rank 0 waits on the host for rank 1, which waits for its device, which needs that of rank 0.
void test_waits_in_mpi() {
  float *a = device_floats(100);
  for (int turn = 1; turn <= 5; ++turn) {
    put(a, 100, turn);
    sum(a, a, 100);
    int token = turn;
    if (rank == 0) {
      for (int peer = 1; peer < size; ++peer) {
        MPI_Recv(&token, 1, MPI_INT, peer, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
      }
    } else {
      CUDA(cudaStreamSynchronize(stream));
      MPI_Send(&token, 1, MPI_INT, 0, 0, MPI_COMM_WORLD);
    }
    int all = 0;
    MPI_Allreduce(&token, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    expect_sum(a, 100, turn, 1);
  }
  CUDA(cudaFree(a));
}

// The same with a flag in shared memory.
void test_waits_in_memory() {
  MPI_Win window;
  void *base = nullptr;
  MPI_Aint bytes = 0;
  int unit = 0;
  MPI_Win_allocate_shared(rank == 0 ? 64 : 0, 1, MPI_INFO_NULL, MPI_COMM_WORLD, &base, &window);
  MPI_Win_shared_query(window, 0, &bytes, &unit, &base);
  std::atomic<int> *finished = static_cast<std::atomic<int> *>(base);
  if (rank == 0) {
    *finished = 0;
  }
  MPI_Barrier(MPI_COMM_WORLD);
  float *a = device_floats(100);
  put(a, 100, 2);
  sum(a, a, 100);
  if (rank != 0) {
    CUDA(cudaStreamSynchronize(stream));
    ++*finished;
  }
  while (*finished < size - 1) {
    sched_yield();
  }
  expect_sum(a, 100, 2, 1);
  CUDA(cudaFree(a));
  MPI_Barrier(MPI_COMM_WORLD);
  MPI_Win_free(&window);
}

void share_id(ncclUniqueId *id) {
  if (rank == 0) {
    NCCL(ncclGetUniqueId(id));
  }
  MPI_Bcast(id, sizeof *id, MPI_BYTE, 0, MPI_COMM_WORLD);
}

void test_one_device() {
  ncclUniqueId id;
  share_id(&id);
  CUDA(cudaSetDevice(0));
  ncclComm_t none = nullptr;
  const ncclResult_t result = ncclCommInitRankConfig(&none, size, id, rank, nullptr);
  CHECK(result == (size > 1 ? ncclInvalidUsage : ncclSuccess), "%d", result);
  if (result == ncclSuccess) {
    NCCL(ncclCommDestroy(none));
  }
  CUDA(cudaSetDevice(rank));
}

void test_errors() {
  float *a = device_floats(4);
  CHECK(ncclAllReduce(a, a, 4, ncclFloat32, ncclSum, nullptr, stream) == ncclInvalidArgument,
        "no communicator");
  CHECK(ncclAllReduce(nullptr, a, 4, ncclFloat32, ncclSum, comm, stream) == ncclInvalidArgument,
        "no buffer");
  CHECK(ncclGroupEnd() == ncclInvalidUsage, "no group");
  ncclUniqueId nonsense = {};
  ncclComm_t none = nullptr;
  CHECK(ncclCommInitRankConfig(&none, size, nonsense, rank, nullptr) != ncclSuccess, "no id");
  CHECK(ncclCommInitRankConfig(&none, 2, nonsense, 2, nullptr) == ncclInvalidArgument,
        "rank 2 of 2");
  ncclResult_t met = ncclInternalError;
  NCCL(ncclCommGetAsyncError(comm, &met));
  CHECK(met == ncclSuccess, "%d", met);
  CUDA(cudaFree(a));
}

} // namespace

int main() {
  MPI_Init(nullptr, nullptr);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  CUDA(cudaSetDevice(rank));
  CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  ncclUniqueId id;
  share_id(&id);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 1;
  NCCL(ncclCommInitRankConfig(&comm, size, id, rank, &config));
  if (failures == 0) {
    test_eager();
    test_group();
    test_graph();
    test_waits_in_mpi();
    test_waits_in_memory();
    test_errors();
    NCCL(ncclCommFinalize(comm));
    NCCL(ncclCommDestroy(comm));
    CUDA(cudaStreamDestroy(stream));
    test_one_device();
  }
  int all = 0;
  MPI_Allreduce(&failures, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Finalize();
  return all == 0 ? 0 : 1;
}
