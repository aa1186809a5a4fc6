/* What the cases of test_runtime share: a small program's streams and memory, and operations of the
 * host that stand for kernels. */
#ifndef SIMGPU_TEST_RUNTIME_H
#define SIMGPU_TEST_RUNTIME_H

#include <cstdio>
#include <unistd.h>
#include <vector>

#include <cuda_runtime_api.h>

#include "sim.h"

struct Case {
  const char *name;
  void (*run)();
  const char *caught;      /* how the finding begins; null: none may be made */
  const char *environment; /* NAME=VALUE, separated by blanks */
  int code;                /* the process must end in it */
};

/* The first two must pass, the last be caught. */
extern const std::vector<Case> passing_cases, graph_cases, caught_cases;

/* Always on: the tests are nothing without it. */
#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                              \
      _exit(1);                                                                                    \
    }                                                                                              \
  } while (0)
#define OK(call) CHECK((call) == cudaSuccess)

constexpr size_t count = 1000, bytes = count * sizeof(float);

/* ---- small operations in place of kernels */

inline void add(cudaStream_t stream, float *values, float what, size_t number = count) {
  sim::Op op;
  op.name = "add";
  op.kernel = true;
  op.run = [=] {
    for (size_t i = 0; i < number; ++i) {
      sim::access(values + i, sizeof(float), false, "add");
      sim::access(values + i, sizeof(float), true, "add");
      values[i] += what;
    }
  };
  OK(sim::enqueue(stream, op));
}

inline void set(cudaStream_t stream, float *values, float what, size_t number = count) {
  sim::Op op;
  op.name = "set";
  op.kernel = true;
  op.run = [=] {
    sim::access(values, number * sizeof(float), true, "set");
    for (size_t i = 0; i < number; ++i)
      values[i] = what;
  };
  OK(sim::enqueue(stream, op));
}

inline cudaStream_t stream_new() {
  cudaStream_t stream;
  OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

inline cudaEvent_t event_new() {
  cudaEvent_t event;
  OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return event;
}

inline float *device_new() {
  void *got;
  OK(cudaMalloc(&got, bytes));
  return static_cast<float *>(got);
}

inline float *pinned_new(unsigned flags = cudaHostAllocDefault) {
  void *got;
  OK(cudaHostAlloc(&got, bytes, flags));
  return static_cast<float *>(got);
}

/* Two device arrays, a set to 1 and b as allocated, a pinned one, two streams, an event. */
struct Setting {
  float *a = device_new(), *b = device_new();
  float *host = pinned_new();
  cudaStream_t s = stream_new(), t = stream_new();
  cudaEvent_t e = event_new();
  Setting() {
    set(s, a, 1);
    OK(cudaStreamSynchronize(s));
  }
  void to_host(cudaStream_t stream) {
    OK(cudaMemcpyAsync(host, a, bytes, cudaMemcpyDeviceToHost, stream));
  }
  void hand_over() { /* from s to t */
    OK(cudaEventRecord(e, s));
    OK(cudaStreamWaitEvent(t, e, 0));
  }
  /* Forks t off s, both in a capture. */
  void fork() {
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    hand_over();
  }
  void join() {
    OK(cudaEventRecord(e, t));
    OK(cudaStreamWaitEvent(s, e, 0));
  }
  cudaGraphExec_t end() {
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    OK(cudaStreamEndCapture(s, &graph));
    OK(cudaGraphInstantiate(&executable, graph, cudaGraphInstantiateFlagUseNodePriority));
    OK(cudaGraphDestroy(graph));
    return executable;
  }
};

#endif
