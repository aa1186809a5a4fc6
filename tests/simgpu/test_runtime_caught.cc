/* Errors of a program that the simulated runtime must catch, under every seed. */
#include <cstring>
#include <thread>

#include "test_runtime.h"

static void missing_event_wait() {
  Setting x;
  add(x.s, x.a, 1);
  add(x.t, x.a, 1);
  OK(cudaDeviceSynchronize());
}

static void missing_wait_for_readers() {
  Setting x;
  x.to_host(x.s);
  set(x.t, x.a, 2);
  OK(cudaDeviceSynchronize());
}

static void wait_before_record() {
  Setting x;
  OK(cudaStreamWaitEvent(x.t, x.e, 0));
  add(x.s, x.a, 1);
  OK(cudaEventRecord(x.e, x.s));
  add(x.t, x.a, 1);
  OK(cudaDeviceSynchronize());
}

static void early_read_of_pinned() {
  Setting x;
  x.to_host(x.s);
  volatile float value = x.host[10];
  (void)value;
}

static void early_read_by_another_thread() {
  Setting x;
  x.to_host(x.s);
  std::thread([&] {
    volatile float value = x.host[10];
    (void)value;
  }).join();
}

static void sync_of_another_stream() {
  Setting x;
  x.to_host(x.s);
  OK(cudaStreamSynchronize(x.t));
  volatile float value = x.host[10];
  (void)value;
}

static void refill_in_flight() {
  Setting x;
  memset(x.host, 0, bytes);
  OK(cudaMemcpyAsync(x.a, x.host, bytes, cudaMemcpyHostToDevice, x.s));
  memset(x.host, 1, bytes);
}

static void early_read_of_mapped() {
  Setting x;
  float *control = pinned_new(cudaHostAllocMapped);
  set(x.s, control, 3, 10);
  volatile float value = control[4];
  (void)value;
  OK(cudaStreamSynchronize(x.s));
}

static void early_write_of_mapped() {
  Setting x;
  float *control = pinned_new(cudaHostAllocMapped);
  control[0] = 1;
  sim::Op op;
  op.name = "reads control";
  op.kernel = true;
  op.run = [=] { sim::access(control, sizeof(float), false, "reads control"); };
  OK(sim::enqueue(x.s, op));
  control[0] = 2;
  OK(cudaStreamSynchronize(x.s));
}

static void host_reads_device() {
  Setting x;
  volatile float value = x.a[0];
  (void)value;
}

static void device_reads_host() {
  Setting x;
  std::vector<float> pageable(count);
  add(x.s, pageable.data(), 1);
  OK(cudaStreamSynchronize(x.s));
}

static void one_past_the_end() {
  Setting x;
  set(x.s, x.a, 1, count + 1);
  OK(cudaStreamSynchronize(x.s));
}

static void uninitialised() {
  Setting x;
  add(x.s, x.b, 1);
  OK(cudaStreamSynchronize(x.s));
}

static void poisoned() {
  Setting x;
  sim::Op op;
  op.run = [=] { sim::poison(x.a, bytes, "workspace"); };
  OK(sim::enqueue(x.s, op));
  add(x.s, x.a, 1);
  OK(cudaStreamSynchronize(x.s));
}

static void use_after_free() {
  Setting x;
  OK(cudaFree(x.a));
  set(x.s, x.a, 1);
  OK(cudaStreamSynchronize(x.s));
}

static void pinned_after_free() {
  Setting x;
  OK(cudaFreeHost(x.host));
  x.host[0] = 1;
}

static void damaged_sentinel() {
  Setting x;
  sim::Op op; /* not instrumented */
  op.run = [=] { x.a[count] = 1; };
  OK(sim::enqueue(x.s, op));
  OK(cudaStreamSynchronize(x.s));
  OK(cudaFree(x.a));
}

static void graph_after_free() {
  Setting x;
  OK(cudaStreamBeginCapture(x.s, cudaStreamCaptureModeThreadLocal));
  set(x.s, x.a, 1);
  const cudaGraphExec_t executable = x.end();
  OK(cudaGraphLaunch(executable, x.s));
  OK(cudaFree(x.a));
  OK(cudaGraphLaunch(executable, x.s));
  OK(cudaStreamSynchronize(x.s));
}

static void unordered_with_graph() {
  Setting x;
  OK(cudaStreamBeginCapture(x.s, cudaStreamCaptureModeThreadLocal));
  add(x.s, x.a, 1);
  const cudaGraphExec_t executable = x.end();
  OK(cudaGraphLaunch(executable, x.s));
  x.to_host(x.t);
  OK(cudaDeviceSynchronize());
}

static void branches_race() {
  Setting x;
  x.fork();
  add(x.s, x.a, 1);
  add(x.t, x.a, 1);
  x.join();
  OK(cudaGraphLaunch(x.end(), x.s));
  OK(cudaStreamSynchronize(x.s));
}

/* By clocks: they run in the order of capture. */
static void branches_race_after_a_common_node() {
  Setting x;
  static bool first_ran;
  const auto write = [&](cudaStream_t stream, bool first) {
    sim::Op op;
    op.name = "write";
    op.run = [=] {
      first_ran = true;
      sim::access(x.a, bytes, true, "write");
    };
    op.ready = [=] { return first || first_ran; };
    OK(sim::enqueue(stream, op));
  };
  OK(cudaStreamBeginCapture(x.s, cudaStreamCaptureModeThreadLocal));
  add(x.s, x.a, 1);
  x.hand_over();
  write(x.s, true);
  write(x.t, false);
  x.join();
  OK(cudaGraphLaunch(x.end(), x.s));
  OK(cudaStreamSynchronize(x.s));
}

static void sync_of_a_blocking_stream() {
  Setting x;
  cudaStream_t blocking;
  OK(cudaStreamCreate(&blocking));
  add(blocking, x.a, 1);
  x.to_host(nullptr); /* after it, but not before the end of the wait below */
  OK(cudaStreamSynchronize(blocking));
  volatile float value = x.host[10];
  (void)value;
}

static void uninitialised_copied() {
  Setting x;
  OK(cudaMemcpyAsync(x.a, x.b, bytes, cudaMemcpyDeviceToDevice, x.s));
  add(x.s, x.a, 1);
  OK(cudaStreamSynchronize(x.s));
}

static void bytes_of_a_word() {
  Setting x;
  sim::Op op;
  op.name = "bytes";
  op.run = [=] {
    sim::access(x.b, 3, true, "bytes");
    sim::access(x.b, 4, false, "bytes");
  };
  OK(sim::enqueue(x.s, op));
  OK(cudaStreamSynchronize(x.s));
}

/* The copy comes from a graph: the slot must not be refilled before its event. */
static void refill_under_graph() {
  Setting x;
  memset(x.host, 0, bytes);
  OK(cudaStreamBeginCapture(x.s, cudaStreamCaptureModeThreadLocal));
  OK(cudaMemcpyAsync(x.a, x.host, bytes, cudaMemcpyHostToDevice, x.s));
  const cudaGraphExec_t executable = x.end();
  OK(cudaGraphLaunch(executable, x.s));
  x.host[0] = 1;
}

/* A copy from pageable memory is only staged when the call returns. */
static void pageable_copy_is_no_sync() {
  Setting x;
  std::vector<float> pageable(count);
  OK(cudaMemcpy(x.a, pageable.data(), bytes, cudaMemcpyHostToDevice));
  add(x.s, x.a, 1);
  OK(cudaDeviceSynchronize());
}

static void destroyed_stream() {
  Setting x;
  OK(cudaStreamDestroy(x.s));
  cudaStreamSynchronize(x.s);
}

static void second_thread() {
  Setting x;
  std::thread([&] { cudaStreamSynchronize(x.s); }).join();
}

/* The first bytes written are not in flight. */
static void refill_reaches_into_flight() {
  Setting x;
  memset(x.host, 0, bytes);
  OK(cudaMemcpyAsync(x.a, x.host + count / 2, bytes / 2, cudaMemcpyHostToDevice, x.s));
  memset(x.host, 1, bytes);
}

/* The event waited for is the one of the step before. */
static void lag_too_short() {
  Setting x;
  float *control = pinned_new(cudaHostAllocMapped);
  set(x.s, control, 1, 1);
  OK(cudaEventRecord(x.e, x.s));
  set(x.s, control + 1, 2, 1);
  OK(cudaEventSynchronize(x.e));
  CHECK(control[0] == 1);
  volatile float value = control[1];
  (void)value;
  OK(cudaStreamSynchronize(x.s));
}

static void unmapped_pinned_in_a_kernel() {
  Setting x;
  set(x.s, x.host, 1);
  OK(cudaStreamSynchronize(x.s));
}

static void nothing_left_to_wait_for() {
  Setting x;
  sim::drive_until([] { return false; });
}

static void two_captures() {
  Setting x;
  OK(cudaStreamBeginCapture(x.s, cudaStreamCaptureModeThreadLocal));
  cudaStreamBeginCapture(x.t, cudaStreamCaptureModeThreadLocal);
}

static void access_outside_of_operations() {
  Setting x;
  sim::access(x.a, bytes, false, "nobody");
}

#define CAUGHT(function, words)                                                                    \
  { #function, function, words, "", sim::finding_exit }
const std::vector<Case> caught_cases = {
    CAUGHT(missing_event_wait, "race: rank 0: add"),
    CAUGHT(missing_wait_for_readers, "race: rank 0: "),
    CAUGHT(wait_before_record, "race: rank 0: add"),
    CAUGHT(early_read_of_pinned, "race: rank 0: the host reads +40 of pinned block"),
    CAUGHT(early_read_by_another_thread, "race: rank 0: the host reads +40 of pinned block"),
    CAUGHT(sync_of_another_stream, "race: rank 0: the host reads +40 of pinned block"),
    CAUGHT(refill_in_flight, "race: rank 0: the host writes +"),
    CAUGHT(early_read_of_mapped, "race: rank 0: "),
    CAUGHT(early_write_of_mapped, "race: rank 0: "),
    CAUGHT(host_reads_device, "host_access: rank 0: the host read device memory at +0 of device"),
    CAUGHT(device_reads_host, "host_access: rank 0: add reads 4 bytes at"),
    CAUGHT(one_past_the_end, "bounds: rank 0: set writes 4004 bytes at +4000 of device block"),
    CAUGHT(uninitialised, "uninitialised: rank 0: add reads +0 of device block"),
    CAUGHT(poisoned, "uninitialised: rank 0: add reads +0 of device block"),
    CAUGHT(use_after_free, "freed: rank 0: set writes 4000 bytes at +0 of device block"),
    CAUGHT(pinned_after_free, "freed: rank 0: the host wrote pinned memory"),
    CAUGHT(damaged_sentinel, "bounds: rank 0: something wrote +4000 of device block"),
    CAUGHT(graph_after_free, "freed: rank 0: set writes"),
    CAUGHT(unordered_with_graph, "race: rank 0: "),
    CAUGHT(branches_race, "race: rank 0: add"),
    CAUGHT(branches_race_after_a_common_node, "race: rank 0: write writes +0"),
    CAUGHT(sync_of_a_blocking_stream, "race: rank 0: the host reads +40 of pinned block"),
    CAUGHT(uninitialised_copied, "uninitialised: rank 0: add reads +0 of device block"),
    CAUGHT(bytes_of_a_word, "uninitialised: rank 0: bytes reads +0 of device block"),
    CAUGHT(refill_under_graph, "race: rank 0: the host writes +0 of pinned block"),
    CAUGHT(pageable_copy_is_no_sync, "race: rank 0: "),
    CAUGHT(destroyed_stream, "handle: rank 0: "),
    CAUGHT(second_thread, "unmodelled: rank 0: CUDA is called from a second thread"),
    CAUGHT(refill_reaches_into_flight, "race: rank 0: the host writes +"),
    CAUGHT(lag_too_short, "race: rank 0: "),
    CAUGHT(unmapped_pinned_in_a_kernel, "unmodelled: rank 0: set writes +0 of pinned block"),
    CAUGHT(nothing_left_to_wait_for, "deadlock: rank 0: "),
    CAUGHT(two_captures, "unmodelled: rank 0: two captures"),
    CAUGHT(access_outside_of_operations, "internal: rank 0: nobody"),
    {"missing_event_wait", missing_event_wait, "race: rank 0: add", "SIMGPU_FINDINGS=count", 0},
};
