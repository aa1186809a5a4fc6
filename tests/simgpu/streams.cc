/* Streams: order of enqueue, the legacy stream's order with all blocking ones. */
#include <set>

#include "core.h"

namespace sim {

static std::set<Stream *> &streams() {
  static auto *const all = new std::set<Stream *>;
  return *all;
}

static Stream &legacy() {
  static Stream *const stream = [] {
    auto *made = new Stream;
    made->lane = legacy_lane;
    return made;
  }();
  return *stream;
}

static Stream *look_up(cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy)
    return &legacy();
  auto *stream = reinterpret_cast<Stream *>(handle);
  return streams().count(stream) && stream->alive ? stream : nullptr;
}

Stream *stream_of(cudaStream_t handle) {
  if (handle == cudaStreamPerThread)
    finding(Kind::unmodelled, "the per-thread default stream");
  Stream *stream = look_up(handle);
  if (!stream)
    finding(Kind::handle, "%p is no stream, or was destroyed", static_cast<void *>(handle));
  return stream;
}

cudaStream_t make_stream(bool blocking, int priority) {
  auto *stream = new Stream; /* stays, so that a destroyed handle is known as one */
  stream->lane = take_lane();
  stream->blocking = blocking;
  stream->priority = priority;
  streams().insert(stream);
  return reinterpret_cast<cudaStream_t>(stream);
}

void end_stream(Stream &stream) {
  stream.alive = false;
  stream.last = nullptr;
  release_lane(stream.lane);
}

void reset_streams() {
  for (Stream *stream : streams())
    if (stream->alive)
      end_stream(*stream);
  legacy().last = nullptr;
}

std::vector<TaskPtr> before_in(const Stream &stream) {
  std::vector<TaskPtr> before = {stream.last};
  if (&stream != &legacy()) {
    if (stream.blocking)
      before.push_back(legacy().last);
    return before;
  }
  for (const Stream *other : streams())
    if (other->alive && other->blocking)
      before.push_back(other->last);
  return before;
}

TaskPtr issue_in(Stream &stream, Op op, const TaskPtr &also) {
  std::vector<TaskPtr> before = before_in(stream);
  before.push_back(also);
  stream.last = issue(std::move(op), stream.lane, before);
  return stream.last;
}

void host_waits(const Stream &stream) {
  const bool all_blocking = &stream == &legacy();
  const std::vector<TaskPtr> before =
      all_blocking ? before_in(stream) : std::vector<TaskPtr>{stream.last};
  drive_until([&before] {
    for (const TaskPtr &task : before)
      if (task && !task->done)
        return false;
    return true;
  });
  if (device_error() == cudaSuccess)
    for (const TaskPtr &task : before)
      if (task)
        host_joins(task->clock);
}

void host_waits_for_all() {
  drive_all();
  if (device_error() == cudaSuccess)
    host_knows_all();
}

bool capturing(cudaStream_t handle) {
  const Stream *stream = look_up(handle);
  return stream && stream->capture;
}

cudaError_t enqueue(cudaStream_t handle, Op op) {
  Stream *stream = stream_of(handle);
  if (!stream)
    return cudaErrorInvalidResourceHandle;
  if (stream->capture)
    return capture_add(*stream, std::move(op));
  if (const cudaError_t code = capture_crosses(*stream))
    return code;
  issue_in(*stream, std::move(op));
  maybe_progress();
  return cudaSuccess;
}

} // namespace sim
