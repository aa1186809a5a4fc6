/* Runtime calls on memory: allocation, copies, fills. */
#include <cstring>
#include <memory>

#include "cudart.h"

namespace sim {

enum class Direction { to_device, to_host, on_device, refused };

static Direction direction_of(const void *to, const void *from, cudaMemcpyKind kind) {
  const bool to_device = memory_of(to) == Memory::device;
  const bool from_device = memory_of(from) == Memory::device;
  if (to_device && from_device)
    return kind == cudaMemcpyDeviceToDevice || kind == cudaMemcpyDefault ? Direction::on_device
                                                                         : Direction::refused;
  if (to_device)
    return kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDefault ? Direction::to_device
                                                                       : Direction::refused;
  if (from_device)
    return kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDefault ? Direction::to_host
                                                                       : Direction::refused;
  finding(Kind::unmodelled, "a copy from host to host");
  return Direction::refused;
}

static void count_copy(Direction direction, size_t bytes) {
  const auto amount = static_cast<int64_t>(bytes);
  switch (direction) {
  case Direction::to_device:
    count(Counter::copies_to_device);
    count(Counter::bytes_to_device, amount);
    break;
  case Direction::to_host:
    count(Counter::copies_to_host);
    count(Counter::bytes_to_host, amount);
    break;
  case Direction::on_device:
    count(Counter::copies_on_device);
    count(Counter::bytes_on_device, amount);
    break;
  case Direction::refused:
    break;
  }
}

/* The host's copy of a source that the driver stages. */
using Staged = std::shared_ptr<std::vector<char>>;

static Op copy_op(Direction direction, void *to, const void *from, size_t bytes,
                  const Staged &staged) {
  Op op;
  if (direction == Direction::to_device) {
    op.name = "copy to the device";
    op.spans.push_back({to, bytes, true});
    if (!staged)
      op.spans.push_back({from, bytes, false});
    op.run = [=] { memcpy(to, staged ? staged->data() : from, bytes); };
  } else if (direction == Direction::to_host) {
    op.name = "copy to the host";
    op.spans.push_back({from, bytes, false});
    if (memory_of(to) == Memory::pinned)
      op.spans.push_back({to, bytes, true});
    op.run = [=] { memcpy(to, from, bytes); };
  } else {
    op.name = "copy on the device";
    op.spans.push_back({to, bytes, true});
    op.run = [=] {
      access_source(from, bytes, "copy on the device");
      memmove(to, from, bytes);
      copy_state(to, from, bytes);
    };
  }
  /* A graph's copies are counted each time they run. */
  op.issue = [=](Op &) { count_copy(direction, bytes); };
  return op;
}

static const void *host_side(Direction direction, const void *to, const void *from) {
  return direction == Direction::to_device ? from : to;
}

static bool pageable(Direction direction, const void *to, const void *from) {
  return direction != Direction::on_device &&
         memory_of(host_side(direction, to, from)) == Memory::other;
}

static Staged stage(const void *from, size_t bytes) {
  const auto *first = static_cast<const char *>(from);
  return std::make_shared<std::vector<char>>(first, first + bytes);
}

static cudaError_t wait_for(cudaStream_t handle) {
  const Stream *stream = stream_of(handle);
  if (!stream)
    return cudaErrorInvalidResourceHandle;
  host_waits(*stream);
  return waited();
}

static cudaError_t copy_async(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  if (bytes == 0)
    return cudaSuccess;
  const Direction direction = direction_of(to, from, kind);
  if (direction == Direction::refused)
    return cudaErrorInvalidValue;
  if (!pageable(direction, to, from))
    return enqueue(stream, copy_op(direction, to, from, bytes, nullptr));
  if (capturing(stream)) {
    capture_breaks(*capture_now());
    return cudaErrorStreamCaptureUnsupported;
  }
  count(Counter::pageable_copies);
  const bool staged = direction == Direction::to_device;
  const cudaError_t code =
      enqueue(stream, copy_op(direction, to, from, bytes, staged ? stage(from, bytes) : nullptr));
  return code != cudaSuccess || staged ? code : wait_for(stream);
}

/* Blocks the host, but for copies on the device and from pageable memory: those are only staged
 * when the call returns. */
static cudaError_t copy_sync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  if (const cudaError_t code = capture_forbids())
    return code;
  if (bytes == 0)
    return cudaSuccess;
  const Direction direction = direction_of(to, from, kind);
  if (direction == Direction::refused)
    return cudaErrorInvalidValue;
  const bool staged = direction == Direction::to_device && pageable(direction, to, from);
  const cudaError_t code =
      enqueue(nullptr, copy_op(direction, to, from, bytes, staged ? stage(from, bytes) : nullptr));
  if (code != cudaSuccess || staged || direction == Direction::on_device)
    return code;
  return wait_for(nullptr);
}

static cudaError_t fill(void *to, int value, size_t bytes, cudaStream_t stream) {
  if (bytes == 0)
    return cudaSuccess;
  if (memory_of(to) != Memory::device)
    return cudaErrorInvalidValue;
  Op op;
  op.name = "fill";
  op.spans.push_back({to, bytes, true});
  op.run = [=] { memset(to, value, bytes); };
  op.issue = [](Op &) { count(Counter::fills); };
  return enqueue(stream, std::move(op));
}

static cudaError_t free_block(void *pointer, bool pinned) {
  if (const cudaError_t code = capture_forbids())
    return code;
  if (!pointer)
    return cudaSuccess;
  drive_all();
  if (device_error() != cudaSuccess)
    return waited();
  if (!release(pointer, pinned))
    return cudaErrorInvalidValue;
  count(Counter::frees);
  return waited();
}

static cudaError_t take_pinned(void **pointer, size_t bytes, unsigned flags) {
  if (!pointer)
    return cudaErrorInvalidValue;
  if (const cudaError_t code = capture_forbids())
    return code;
  *pointer = bytes ? allocate_pinned(bytes, (flags & cudaHostAllocMapped) != 0) : nullptr;
  count(Counter::host_allocations);
  return cudaSuccess;
}

} // namespace sim

using namespace sim;

extern "C" cudaError_t cudaMalloc(void **pointer, size_t bytes) {
  return call("cudaMalloc", [&] {
    if (!pointer)
      return cudaErrorInvalidValue;
    if (const cudaError_t code = capture_forbids())
      return code;
    *pointer = bytes ? allocate_device(bytes) : nullptr;
    if (bytes && !*pointer)
      return cudaErrorMemoryAllocation;
    count(Counter::allocations);
    return cudaSuccess;
  });
}

extern "C" cudaError_t cudaFree(void *pointer) {
  return call("cudaFree", [&] { return free_block(pointer, false); });
}

extern "C" cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags) {
  return call("cudaHostAlloc", [&] { return take_pinned(pointer, bytes, flags); });
}

extern "C" cudaError_t cudaMallocHost(void **pointer, size_t bytes) {
  return call("cudaMallocHost", [&] { return take_pinned(pointer, bytes, 0); });
}

extern "C" cudaError_t cudaFreeHost(void *pointer) {
  return call("cudaFreeHost", [&] { return free_block(pointer, true); });
}

extern "C" cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned flags) {
  return call("cudaHostGetDevicePointer", [&] {
    Block *block = block_of(host);
    if (!device || flags || !block || !block->live || !block->pinned)
      return cudaErrorInvalidValue;
    const GuardLock lock;
    block->mapped = true;
    *device = host;
    return cudaSuccess;
  });
}

extern "C" cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
  return call("cudaMemGetInfo", [&] {
    if (!available || !total)
      return cudaErrorInvalidValue;
    *total = memory_total();
    *available = *total - memory_used();
    return cudaSuccess;
  });
}

extern "C" cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes,
                                       cudaMemcpyKind kind, cudaStream_t stream) {
  return call_async("cudaMemcpyAsync", stream,
                    [&] { return copy_async(to, from, bytes, kind, stream); });
}

extern "C" cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  return call("cudaMemcpy", [&] { return copy_sync(to, from, bytes, kind); });
}

extern "C" cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
  return call_async("cudaMemsetAsync", stream, [&] { return fill(to, value, bytes, stream); });
}

extern "C" cudaError_t cudaMemset(void *to, int value, size_t bytes) {
  return call("cudaMemset", [&] {
    if (const cudaError_t code = capture_forbids())
      return code;
    return fill(to, value, bytes, nullptr);
  });
}
