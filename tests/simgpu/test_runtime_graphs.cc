/* What the simulated runtime must let pass, and answer: captures and graphs. */
#include <functional>

#include "test_runtime.h"

static void graph_forks_and_joins() {
  Setting x;
  set(x.s, x.b, 1);
  x.fork();
  add(x.s, x.a, 1);
  add(x.t, x.b, 2);
  x.join();
  x.to_host(x.s);
  cudaGraph_t graph;
  OK(cudaStreamEndCapture(x.s, &graph));
  size_t nodes = 0;
  OK(cudaGraphGetNodes(graph, nullptr, &nodes));
  CHECK(nodes == 3);
  cudaGraphExec_t executable;
  OK(cudaGraphInstantiate(&executable, graph, 0));
  for (int i = 0; i < 4; ++i)
    OK(cudaGraphLaunch(executable, i % 2 ? x.t : x.s)); /* never overlaps itself */
  OK(cudaStreamSynchronize(x.t));
  CHECK(x.host[0] == 5);
  CHECK(sim::counted(sim::Counter::graph_launches) == 4);
  CHECK(sim::counted(sim::Counter::nodes_run) == 12);
  CHECK(sim::counted(sim::Counter::copies_to_host) == 4);
  OK(cudaGraphExecDestroy(executable));
}

static void graph_issues_anew() {
  Setting x;
  static int issued, ran;
  sim::Op op;
  op.issue = [](sim::Op &self) {
    const int number = ++issued;
    self.run = [number] { ran = number; };
  };
  OK(cudaStreamBeginCapture(x.s, cudaStreamCaptureModeThreadLocal));
  OK(sim::enqueue(x.s, op));
  const cudaGraphExec_t executable = x.end();
  CHECK(issued == 0);
  OK(cudaGraphLaunch(executable, x.s));
  OK(cudaGraphLaunch(executable, x.s));
  OK(cudaStreamSynchronize(x.s));
  CHECK(issued == 2 && ran == 2);
}

static void expect_broken(const Setting &x, cudaError_t got, cudaError_t expected,
                          cudaError_t at_end = cudaErrorStreamCaptureInvalidated) {
  CHECK(got == expected);
  cudaGraph_t graph;
  CHECK(cudaStreamEndCapture(x.s, &graph) == at_end);
  CHECK(graph == nullptr);
  CHECK(cudaGetLastError() == at_end);
  cudaStreamCaptureStatus status;
  OK(cudaStreamIsCapturing(x.s, &status));
  CHECK(status == cudaStreamCaptureStatusNone);
}

static void forbidden_in_capture() {
  Setting x;
  OK(cudaEventRecord(x.e, x.t));
  const std::vector<std::function<cudaError_t()>> calls = {
      [] {
        void *p;
        return cudaMalloc(&p, 8);
      },
      [&] { return cudaFree(x.b); },
      [] {
        void *p;
        return cudaHostAlloc(&p, 8, 0);
      },
      [] {
        void *p;
        return cudaMallocHost(&p, 8);
      },
      [&] { return cudaFreeHost(x.host); },
      [&] { return cudaStreamSynchronize(x.s); },
      [&] { return cudaStreamSynchronize(x.t); },
      [&] { return cudaStreamQuery(x.s); },
      [&] { return cudaEventSynchronize(x.e); },
      [&] { return cudaEventQuery(x.e); },
      [] { return cudaDeviceSynchronize(); },
      [&] { return cudaMemcpy(x.host, x.a, 8, cudaMemcpyDeviceToHost); },
      [&] { return cudaMemset(x.a, 0, 8); },
      [&] {
        float p[2];
        return cudaMemcpyAsync(p, x.a, 8, cudaMemcpyDeviceToHost, x.s);
      },
      [&] { return cudaStreamDestroy(x.s); },
  };
  for (const auto &call : calls) {
    OK(cudaStreamBeginCapture(x.s, cudaStreamCaptureModeThreadLocal));
    expect_broken(x, call(), cudaErrorStreamCaptureUnsupported);
  }
  CHECK(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal) ==
        cudaErrorStreamCaptureUnsupported);
}

static void capture_boundaries() {
  Setting x;
  OK(cudaEventRecord(x.e, x.t));
  OK(cudaStreamBeginCapture(x.s, cudaStreamCaptureModeThreadLocal));
  expect_broken(x, cudaStreamWaitEvent(x.s, x.e, 0), cudaErrorStreamCaptureIsolation);
  OK(cudaStreamBeginCapture(x.s, cudaStreamCaptureModeRelaxed));
  OK(cudaEventRecord(x.e, x.s));
  expect_broken(x, cudaEventQuery(x.e), cudaErrorCapturedEvent);
  CHECK(cudaStreamWaitEvent(x.t, x.e, 0) == cudaErrorStreamCaptureIsolation);
  x.fork();
  add(x.t, x.b, 1);
  expect_broken(x, cudaSuccess, cudaSuccess, cudaErrorStreamCaptureUnjoined);
  x.fork();
  cudaGraph_t graph;
  CHECK(cudaStreamEndCapture(x.t, &graph) == cudaErrorStreamCaptureUnmatched);
  expect_broken(x, cudaSuccess, cudaSuccess);
  CHECK(cudaStreamEndCapture(x.s, &graph) == cudaErrorIllegalState);
  OK(cudaStreamCreate(&x.s)); /* blocking: the legacy stream would be ordered with it */
  OK(cudaStreamBeginCapture(x.s, cudaStreamCaptureModeThreadLocal));
  expect_broken(x, cudaMemsetAsync(x.a, 0, 8, nullptr), cudaErrorStreamCaptureImplicit);
  OK(cudaStreamBeginCapture(x.s, cudaStreamCaptureModeRelaxed));
  void *memory;
  OK(cudaMalloc(&memory, 8)); /* relaxed */
  x.end();
}

/* A stored lane may serve another stream once the host knows all that ran on it. */
static void lanes_are_taken_again() {
  Setting x;
  for (int i = 0; i < 300; ++i) {
    OK(cudaStreamDestroy(x.t));
    x.t = stream_new();
    x.fork();
    add(x.s, x.a, 1);
    set(x.t, x.b, 1);
    x.join();
    const cudaGraphExec_t executable = x.end();
    OK(cudaGraphLaunch(executable, x.s));
    OK(cudaGraphExecDestroy(executable)); /* while it runs */
    OK(cudaStreamSynchronize(x.s));
  }
  x.to_host(x.s);
  OK(cudaStreamSynchronize(x.s));
  CHECK(x.host[0] == 301);
}

/* As a training loop does: two staging slots, replays, a control value a step that the host reads
 * two steps later. */
static void lagged_loop() {
  Setting x;
  constexpr int slots = 2, lag = 2, steps = 20;
  float *control = pinned_new(cudaHostAllocMapped), *staging[slots];
  cudaGraphExec_t graphs[slots];
  cudaEvent_t copied[slots], done[lag + 1];
  const cudaStream_t copies = stream_new();
  float *inputs[slots] = {x.a, x.b};
  for (int i = 0; i < slots; ++i) {
    staging[i] = pinned_new();
    copied[i] = event_new();
    OK(cudaStreamBeginCapture(x.s, cudaStreamCaptureModeThreadLocal));
    add(x.s, inputs[i], 1, 10);
    graphs[i] = x.end();
  }
  for (cudaEvent_t &event : done)
    event = event_new();
  for (int k = 0; k < steps; ++k) {
    const int slot = k % slots;
    if (k >= lag) {
      OK(cudaEventSynchronize(done[k % (lag + 1)]));
      CHECK(control[k % (lag + 1)] == static_cast<float>(k - lag - 1) || k == lag);
    }
    if (k >= slots)
      OK(cudaEventSynchronize(copied[slot]));
    for (size_t i = 0; i < 10; ++i)
      staging[slot][i] = static_cast<float>(k);
    if (k >= slots) /* the replay that used this slot */
      OK(cudaStreamWaitEvent(copies, done[(k - slots) % (lag + 1)], 0));
    OK(cudaMemcpyAsync(inputs[slot], staging[slot], 40, cudaMemcpyHostToDevice, copies));
    OK(cudaEventRecord(copied[slot], copies));
    OK(cudaStreamWaitEvent(x.s, copied[slot], 0));
    OK(cudaGraphLaunch(graphs[slot], x.s));
    set(x.s, control + k % (lag + 1), static_cast<float>(k), 1);
    OK(cudaEventRecord(done[k % (lag + 1)], x.s));
  }
  OK(cudaStreamSynchronize(x.s));
  CHECK(control[(steps - 1) % (lag + 1)] == steps - 1);
}

#define PASSES(function)                                                                           \
  { #function, function, nullptr, "", 0 }
const std::vector<Case> graph_cases = {
    PASSES(graph_forks_and_joins), PASSES(graph_issues_anew),     PASSES(forbidden_in_capture),
    PASSES(capture_boundaries),    PASSES(lanes_are_taken_again), PASSES(lagged_loop),
};
