/* What the simulated runtime must let pass, and answer: streams, memory, devices, errors. */
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <sys/wait.h>
#include <thread>

#include "test_runtime.h"

static void streams_and_events() {
  Setting x;
  add(x.s, x.a, 1);
  x.hand_over();
  add(x.t, x.a, 1);
  OK(cudaEventRecord(x.e, x.t));
  x.to_host(x.t);
  OK(cudaStreamSynchronize(x.t));
  CHECK(x.host[0] == 3 && x.host[count - 1] == 3);
  int ends[2];
  CHECK(pipe(ends) == 0);
  CHECK(write(ends[1], x.host, 8) == 8); /* the system may read it too: its page is open again */
  OK(cudaEventSynchronize(x.e));
  OK(cudaEventQuery(x.e));
  OK(cudaStreamDestroy(x.t));
  OK(cudaEventDestroy(x.e));
  OK(cudaFree(x.a));
  OK(cudaFreeHost(x.host));
}

/* A wait is an operation: c after b's record is after a's work. */
static void waits_chain() {
  Setting x;
  const cudaStream_t c = stream_new();
  const cudaEvent_t e2 = event_new();
  add(x.s, x.a, 1);
  x.hand_over();
  OK(cudaEventRecord(e2, x.t));
  OK(cudaStreamWaitEvent(c, e2, 0));
  add(c, x.a, 1);
  x.to_host(c);
  OK(cudaStreamSynchronize(c));
  CHECK(x.host[7] == 3);
}

static void queries_end() {
  Setting x;
  add(x.s, x.a, 1);
  x.to_host(x.s);
  OK(cudaEventRecord(x.e, x.s));
  for (cudaError_t code = cudaErrorNotReady; code != cudaSuccess; code = cudaEventQuery(x.e))
    CHECK(code == cudaErrorNotReady);
  CHECK(x.host[0] == 2);
  OK(cudaStreamQuery(x.s));
}

static void legacy_stream_orders_blocking_ones() {
  Setting x;
  cudaStream_t blocking;
  OK(cudaStreamCreateWithFlags(&blocking, cudaStreamDefault));
  add(blocking, x.a, 1);
  add(nullptr, x.a, 1);
  add(blocking, x.a, 1);
  OK(cudaMemcpy(x.host, x.a, bytes, cudaMemcpyDeviceToHost));
  CHECK(x.host[0] == 4);
}

static void copies_of_all_kinds() {
  Setting x;
  std::vector<float> pageable(count, 5);
  OK(cudaMemcpyAsync(x.b, pageable.data(), bytes, cudaMemcpyHostToDevice, x.s));
  pageable.assign(count, 0); /* staged: the device gets 5 */
  OK(cudaMemcpyAsync(x.a, x.b, bytes, cudaMemcpyDeviceToDevice, x.s));
  OK(cudaMemcpyAsync(pageable.data(), x.a, bytes, cudaMemcpyDeviceToHost, x.s));
  CHECK(pageable[0] == 5);
  OK(cudaMemsetAsync(x.a, 0, bytes, x.s));
  x.to_host(x.s);
  OK(cudaStreamSynchronize(x.s));
  CHECK(x.host[count - 1] == 0);
  CHECK(cudaMemcpyAsync(x.a, x.host, bytes, cudaMemcpyDeviceToHost, x.s) == cudaErrorInvalidValue);
}

static void fresh_memory_is_nan_and_copies_carry_it() {
  Setting x;
  float *fresh = device_new(), *copy = device_new();
  OK(cudaMemcpyAsync(copy, fresh, bytes, cudaMemcpyDeviceToDevice, x.s));
  sim::Op op;
  op.run = [=] { CHECK(std::isnan(copy[3])); };
  OK(sim::enqueue(x.s, op));
  OK(cudaDeviceSynchronize());
}

static void pinned_neighbours() {
  Setting x;
  OK(cudaMemcpyAsync(x.host, x.a, bytes / 2, cudaMemcpyDeviceToHost, x.s));
  for (size_t i = count / 2; i < count; ++i)
    x.host[i] = 9; /* the same page, other bytes */
  CHECK(x.host[count - 1] == 9);
  OK(cudaStreamSynchronize(x.s));
  CHECK(x.host[0] == 1 && x.host[count / 2] == 9);
}

static void pinned_source_may_be_read() {
  Setting x;
  x.host[0] = 4;
  OK(cudaMemcpyAsync(x.a, x.host, bytes, cudaMemcpyHostToDevice, x.s));
  CHECK(x.host[0] == 4);
  std::thread([&] { CHECK(x.host[0] == 4); }).join();
}

static void mapped_memory() {
  Setting x;
  float *control = pinned_new(cudaHostAllocMapped);
  void *seen;
  OK(cudaHostGetDevicePointer(&seen, control, 0));
  set(x.s, static_cast<float *>(seen), 3, 10);
  OK(cudaEventRecord(x.e, x.s));
  set(x.s, static_cast<float *>(seen) + 10, 4, 10);
  OK(cudaEventSynchronize(x.e));
  CHECK(control[9] == 3); /* while the second is in flight */
  OK(cudaStreamSynchronize(x.s));
  CHECK(control[19] == 4);
  control[0] = 0;
  add(x.s, static_cast<float *>(seen), 1, 1);
  OK(cudaStreamSynchronize(x.s));
  CHECK(control[0] == 1);
}

static void operations_wait_until_ready() {
  Setting x;
  static int asked;
  sim::Op op;
  op.ready = [] { return ++asked > 50; };
  OK(sim::enqueue(x.s, op));
  add(x.s, x.a, 1);
  OK(cudaStreamSynchronize(x.s));
  CHECK(asked == 51);
}

/* ---- errors, devices */

static void memory_runs_out() {
  size_t available, total;
  OK(cudaMemGetInfo(&available, &total));
  CHECK(total == 1 << 20 && available == total);
  void *half, *rest;
  OK(cudaMalloc(&half, total / 2));
  CHECK(cudaMalloc(&rest, total / 2 + 1) == cudaErrorMemoryAllocation);
  OK(cudaMemGetInfo(&available, &total));
  CHECK(available == total / 2);
  OK(cudaFree(half));
  CHECK(cudaFree(half) == cudaErrorInvalidValue);
  OK(cudaMalloc(&rest, total));
  CHECK(rest != half); /* addresses are never used again */
}

static void faults_by_count() {
  void *memory;
  OK(cudaMalloc(&memory, 8));
  CHECK(cudaMalloc(&memory, 8) == cudaErrorMemoryAllocation);
  OK(cudaMalloc(&memory, 8));
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
  OK(cudaGetLastError());
  OK(cudaMemsetAsync(memory, 0, 8, nullptr)); /* fails when it runs */
  CHECK(cudaDeviceSynchronize() == cudaErrorLaunchFailure);
  CHECK(cudaGetLastError() == cudaErrorLaunchFailure);
  CHECK(cudaGetLastError() == cudaErrorLaunchFailure); /* sticky */
  CHECK(cudaMalloc(&memory, 8) == cudaErrorLaunchFailure);
  CHECK(strcmp(cudaGetErrorName(cudaErrorLaunchFailure), "cudaErrorLaunchFailure") == 0);
  CHECK(strcmp(cudaGetErrorString(cudaErrorLaunchFailure), "unspecified launch failure") == 0);
}

static void devices_seen() {
  int number, version;
  OK(cudaGetDeviceCount(&number));
  CHECK(number == 2);
  cudaDeviceProp a, b;
  OK(cudaGetDeviceProperties(&a, 0));
  OK(cudaGetDeviceProperties(&b, 1));
  CHECK(strcmp(a.name, "Simulated GPU") == 0 && a.major == 8 && a.minor == 6);
  CHECK(memcmp(&a.uuid, &b.uuid, sizeof a.uuid) != 0);
  char bus[16];
  OK(cudaDeviceGetPCIBusId(bus, 16, 0));
  CHECK(strcmp(bus, "0000:12:00.0") == 0); /* CUDA_VISIBLE_DEVICES=2,0 */
  CHECK(cudaSetDevice(2) == cudaErrorInvalidDevice);
  OK(cudaSetDevice(1));
  OK(cudaDriverGetVersion(&version));
  CHECK(version == 13000);
}

static void no_device() {
  int number;
  CHECK(cudaGetDeviceCount(&number) == cudaErrorNoDevice && number == 0);
  CHECK(cudaSetDevice(0) == cudaErrorNoDevice);
}

static void no_driver() {
  int number, version = -1;
  OK(cudaDriverGetVersion(&version));
  CHECK(version == 0);
  OK(cudaRuntimeGetVersion(&version));
  CHECK(version == CUDART_VERSION);
  CHECK(cudaGetDeviceCount(&number) == cudaErrorInsufficientDriver);
}

static void reset_device() {
  Setting x;
  add(x.s, x.a, 1);
  OK(cudaDeviceReset());
  size_t available, total;
  OK(cudaMemGetInfo(&available, &total));
  CHECK(available == total);
  Setting again;
}

static void lanes_wait_for_the_host() {
  Setting x;
  uint32_t epochs[2] = {};
  const auto look = [](cudaStream_t stream, uint32_t *epoch) {
    sim::Op op;
    op.run = [=] { *epoch = sim::current_epoch(); };
    OK(sim::enqueue(stream, op));
  };
  look(x.t, &epochs[0]);
  OK(cudaStreamSynchronize(x.t));
  set(x.t, x.b, 1); /* not waited for */
  OK(cudaStreamDestroy(x.t));
  for (int i = 0; i < 600; ++i) {
    x.t = stream_new();
    look(x.t, &epochs[1]);
    OK(cudaStreamSynchronize(x.t));
    CHECK(epochs[0] >> 24 != epochs[1] >> 24);
    OK(cudaStreamDestroy(x.t));
  }
}

static void bytes_of_a_word_are_apart() {
  Setting x;
  void *six;
  OK(cudaMalloc(&six, 6));
  sim::Op op;
  op.name = "bytes";
  op.run = [=] {
    auto *p = static_cast<char *>(six);
    sim::access(p, 1, true, "bytes");
    sim::access(p + 2, 4, true, "bytes");
    sim::access(p + 2, 4, false, "bytes");
    sim::access(p, 1, false, "bytes");
  };
  OK(sim::enqueue(x.s, op));
  OK(cudaStreamSynchronize(x.s));
}

static void sync_may_fail() {
  Setting x;
  add(x.s, x.a, 1);
  CHECK(cudaStreamSynchronize(x.s) == cudaErrorECCUncorrectable);
  CHECK(cudaEventQuery(x.e) == cudaErrorECCUncorrectable);
  CHECK(cudaPeekAtLastError() == cudaErrorECCUncorrectable);
  OK(cudaDeviceReset());
  void *memory;
  OK(cudaMalloc(&memory, 8));
}

static void counters_are_written() {
  char folder[] = "/tmp/simgpu-XXXXXX";
  CHECK(mkdtemp(folder));
  setenv("SIMGPU_COUNTERS", (std::string(folder) + "/%r.json").c_str(), 1);
  const pid_t child = fork();
  if (child == 0) {
    device_new();
    exit(0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  unsetenv("SIMGPU_COUNTERS");
  const std::string path = std::string(folder) + "/3.json";
  std::ifstream file(path);
  std::string line;
  CHECK(std::getline(file, line));
  CHECK(line.find("{\"rank\": 3, \"kernels\": 0,") == 0);
  CHECK(line.find("\"allocations\": 1, ") != std::string::npos);
  CHECK(unlink(path.c_str()) == 0 && rmdir(folder) == 0);
}

extern "C" long long simgpu_count(const char *name);

static void counts_what_is_done() {
  Setting x;
  OK(cudaMemcpyAsync(x.a, x.host, 40, cudaMemcpyHostToDevice, x.s));
  OK(cudaMemsetAsync(x.a, 0, 8, x.s));
  OK(cudaDeviceSynchronize());
  CHECK(simgpu_count("allocations") == 2 && simgpu_count("host_allocations") == 1);
  CHECK(simgpu_count("copies_to_device") == 1 && simgpu_count("bytes_to_device") == 40);
  CHECK(simgpu_count("fills") == 1 && simgpu_count("host_syncs") == 2);
  CHECK(simgpu_count("findings") == 0 && simgpu_count("nonsense") == -1);
}

static void killed_by_count() {
  void *memory;
  OK(cudaMalloc(&memory, 8));
  cudaMalloc(&memory, 8);
}

#define PASSES(function)                                                                           \
  { #function, function, nullptr, "", 0 }
const std::vector<Case> passing_cases = {
    PASSES(streams_and_events),
    PASSES(waits_chain),
    PASSES(queries_end),
    PASSES(legacy_stream_orders_blocking_ones),
    PASSES(copies_of_all_kinds),
    PASSES(fresh_memory_is_nan_and_copies_carry_it),
    PASSES(pinned_neighbours),
    PASSES(pinned_source_may_be_read),
    PASSES(mapped_memory),
    PASSES(operations_wait_until_ready),
    PASSES(reset_device),
    PASSES(lanes_wait_for_the_host),
    PASSES(bytes_of_a_word_are_apart),
    PASSES(counts_what_is_done),
    {"counters_are_written", counters_are_written, nullptr, "PMI_RANK=3", 0},
    {"sync_may_fail", sync_may_fail, nullptr, "SIMGPU_FAIL=cudaStreamSynchronize:2=214", 0},
    {"killed_by_count", killed_by_count, nullptr, "SIMGPU_FAIL=cudaMalloc@0:2=kill", 128 + SIGKILL},
    {"memory_runs_out", memory_runs_out, nullptr, "SIMGPU_MEMORY=1M", 0},
    {"faults_by_count", faults_by_count, nullptr,
     "SIMGPU_FAIL=cudaMalloc:2=2,cudaMemsetAsync:1=719,cudaMalloc@7:1=2", 0},
    {"devices_seen", devices_seen, nullptr,
     "SIMGPU_DEVICES=3 SIMGPU_CC=8.6 CUDA_VISIBLE_DEVICES=2,0", 0},
    {"no_device", no_device, nullptr, "CUDA_VISIBLE_DEVICES=", 0},
    {"no_device", no_device, nullptr, "CUDA_VISIBLE_DEVICES=GPU-none", 0},
    {"no_device", no_device, nullptr, "CUDA_VISIBLE_DEVICES=0,0", 0},
    {"no_driver", no_driver, nullptr, "SIMGPU_DRIVER=0", 0},
};
