/* Runtime calls on streams and events. A record and a wait are operations of their streams; in a
 * capture they are dependencies between its nodes instead. */
#include <algorithm>
#include <set>

#include "cudart.h"

namespace sim {

struct Event {
  bool alive = true;
  bool timing = true;
  TaskPtr task;                 /* its last record outside of captures */
  uint64_t capture = 0;         /* the capture it was last recorded in; 0: none */
  std::vector<size_t> frontier; /* what was captured before it */
};

constexpr int greatest_priority = -5, least_priority = 0;

static std::set<Event *> &events() {
  static auto *const all = new std::set<Event *>;
  return *all;
}

static Event *event_of(cudaEvent_t handle) {
  auto *event = reinterpret_cast<Event *>(handle);
  if (events().count(event) && event->alive)
    return event;
  finding(Kind::handle, "%p is no event, or was destroyed", static_cast<void *>(handle));
  return nullptr;
}

static cudaError_t create_stream(cudaStream_t *stream, unsigned flags, int priority) {
  if (!stream || flags > cudaStreamNonBlocking)
    return cudaErrorInvalidValue;
  *stream = make_stream(flags == cudaStreamDefault,
                        std::min(std::max(priority, greatest_priority), least_priority));
  return cudaSuccess;
}

/* Waiting for or asking about a stream that is being captured is forbidden in every mode. */
static cudaError_t capture_forbids_stream(const Stream &stream) {
  if (!stream.capture)
    return capture_forbids();
  capture_breaks(*stream.capture);
  return cudaErrorStreamCaptureUnsupported;
}

static cudaError_t synchronize(cudaStream_t handle) {
  const Stream *stream = stream_of(handle);
  if (!stream)
    return cudaErrorInvalidResourceHandle;
  if (const cudaError_t code = capture_forbids_stream(*stream))
    return code;
  host_waits(*stream);
  return waited();
}

static cudaError_t query(cudaStream_t handle) {
  const Stream *stream = stream_of(handle);
  if (!stream)
    return cudaErrorInvalidResourceHandle;
  if (const cudaError_t code = capture_forbids_stream(*stream))
    return code;
  count(Counter::queries);
  query_progress();
  if (device_error() != cudaSuccess)
    return device_error();
  if (!stream->last)
    return cudaSuccess;
  if (!stream->last->done)
    return cudaErrorNotReady;
  host_joins(stream->last->clock);
  return cudaSuccess;
}

static cudaError_t destroy_stream(cudaStream_t handle) {
  Stream *stream = stream_of(handle);
  if (!stream || !handle)
    return cudaErrorInvalidResourceHandle;
  if (stream->capture) {
    capture_breaks(*stream->capture);
    return cudaErrorStreamCaptureUnsupported;
  }
  end_stream(*stream);
  return cudaSuccess;
}

static cudaError_t wait_captured(Stream &stream, const Event &event) {
  Capture *capture = capture_now();
  if (!capture || capture->id != event.capture) {
    if (stream.capture)
      capture_breaks(*stream.capture);
    return cudaErrorStreamCaptureIsolation;
  }
  if (!capture->valid)
    return cudaErrorStreamCaptureInvalidated;
  if (stream.lane == legacy_lane) {
    capture_breaks(*capture);
    return cudaErrorStreamCaptureImplicit;
  }
  capture_join(stream, *capture, event.frontier);
  return cudaSuccess;
}

static cudaError_t wait_event(cudaStream_t stream_handle, cudaEvent_t event_handle) {
  Stream *stream = stream_of(stream_handle);
  const Event *event = event_of(event_handle);
  if (!stream || !event)
    return cudaErrorInvalidResourceHandle;
  if (event->capture)
    return wait_captured(*stream, *event);
  if (!event->task)
    return cudaSuccess; /* never recorded */
  if (stream->capture) {
    capture_breaks(*stream->capture);
    return cudaErrorStreamCaptureIsolation;
  }
  if (const cudaError_t code = capture_crosses(*stream))
    return code;
  Op op;
  op.name = "wait for an event";
  issue_in(*stream, std::move(op), event->task);
  maybe_progress();
  return cudaSuccess;
}

static cudaError_t record(cudaEvent_t event_handle, cudaStream_t stream_handle) {
  Stream *stream = stream_of(stream_handle);
  Event *event = event_of(event_handle);
  if (!stream || !event)
    return cudaErrorInvalidResourceHandle;
  if (stream->capture) {
    if (!stream->capture->valid)
      return cudaErrorStreamCaptureInvalidated;
    event->capture = stream->capture->id;
    event->frontier = stream->frontier;
    return cudaSuccess;
  }
  if (const cudaError_t code = capture_crosses(*stream))
    return code;
  Op op;
  op.name = "record of an event";
  event->capture = 0;
  event->task = issue_in(*stream, std::move(op));
  maybe_progress();
  return cudaSuccess;
}

/* Of an event that the host asks about. */
static cudaError_t captured(const Event &event) {
  if (const cudaError_t code = capture_forbids())
    return code;
  if (!event.capture)
    return cudaSuccess;
  if (capture_now() && capture_now()->id == event.capture)
    capture_breaks(*capture_now());
  return cudaErrorCapturedEvent;
}

static cudaError_t wait_for(cudaEvent_t handle) {
  const Event *event = event_of(handle);
  if (!event)
    return cudaErrorInvalidResourceHandle;
  if (const cudaError_t code = captured(*event))
    return code;
  if (event->task) {
    drive_until([&] { return event->task->done; });
    if (event->task->done)
      host_joins(event->task->clock);
  }
  return waited();
}

static cudaError_t query(cudaEvent_t handle) {
  const Event *event = event_of(handle);
  if (!event)
    return cudaErrorInvalidResourceHandle;
  if (const cudaError_t code = captured(*event))
    return code;
  count(Counter::queries);
  query_progress();
  if (device_error() != cudaSuccess)
    return device_error();
  if (!event->task)
    return cudaSuccess;
  if (!event->task->done)
    return cudaErrorNotReady;
  host_joins(event->task->clock);
  return cudaSuccess;
}

static cudaError_t elapsed(float *milliseconds, const Event *start, const Event *end) {
  if (!start || !end || !start->timing || !end->timing || !start->task || !end->task ||
      start->capture || end->capture)
    return cudaErrorInvalidResourceHandle;
  if (!start->task->done || !end->task->done)
    return cudaErrorNotReady;
  *milliseconds = 0.01F; /* always the same: what is chosen by times must not depend on the seed */
  return cudaSuccess;
}

static cudaError_t create_event(cudaEvent_t *event, unsigned flags) {
  if (!event || flags > (cudaEventBlockingSync | cudaEventDisableTiming))
    return cudaErrorInvalidValue;
  auto *made = new Event; /* stays, so that a destroyed handle is known as one */
  made->timing = (flags & cudaEventDisableTiming) == 0;
  events().insert(made);
  *event = reinterpret_cast<cudaEvent_t>(made);
  return cudaSuccess;
}

} // namespace sim

using namespace sim;

extern "C" cudaError_t cudaStreamCreate(cudaStream_t *stream) {
  return call("cudaStreamCreate", [&] { return create_stream(stream, cudaStreamDefault, 0); });
}

extern "C" cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
  return call("cudaStreamCreateWithFlags", [&] { return create_stream(stream, flags, 0); });
}

extern "C" cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags,
                                                    int priority) {
  return call("cudaStreamCreateWithPriority",
              [&] { return create_stream(stream, flags, priority); });
}

extern "C" cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  return call("cudaDeviceGetStreamPriorityRange", [&] {
    if (least)
      *least = least_priority;
    if (greatest)
      *greatest = greatest_priority;
    return cudaSuccess;
  });
}

extern "C" cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return call("cudaStreamDestroy", [&] { return destroy_stream(stream); });
}

extern "C" cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return call("cudaStreamSynchronize", [&] { return synchronize(stream); });
}

extern "C" cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return call("cudaStreamQuery", [&] { return query(stream); });
}

extern "C" cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  return call("cudaStreamWaitEvent", [&] {
    return flags == cudaEventWaitDefault ? wait_event(stream, event) : cudaErrorInvalidValue;
  });
}

extern "C" cudaError_t cudaDeviceSynchronize() {
  return call("cudaDeviceSynchronize", [&] {
    if (capture_now()) {
      capture_breaks(*capture_now());
      return cudaErrorStreamCaptureUnsupported;
    }
    host_waits_for_all();
    return waited();
  });
}

extern "C" cudaError_t cudaEventCreate(cudaEvent_t *event) {
  return call("cudaEventCreate", [&] { return create_event(event, cudaEventDefault); });
}

extern "C" cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
  return call("cudaEventCreateWithFlags", [&] { return create_event(event, flags); });
}

extern "C" cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call("cudaEventRecord", [&] { return record(event, stream); });
}

extern "C" cudaError_t cudaEventQuery(cudaEvent_t event) {
  return call("cudaEventQuery", [&] { return query(event); });
}

extern "C" cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call("cudaEventSynchronize", [&] { return wait_for(event); });
}

extern "C" cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start,
                                            cudaEvent_t end) {
  return call("cudaEventElapsedTime",
              [&] { return elapsed(milliseconds, event_of(start), event_of(end)); });
}

extern "C" cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  return call("cudaEventDestroy", [&] {
    Event *event = event_of(handle);
    if (!event)
      return cudaErrorInvalidResourceHandle;
    event->alive = false;
    event->task = nullptr;
    return cudaSuccess;
  });
}
