/* Inside libsimgpu.so: clocks, issued operations, streams, events, captures, blocks of memory.
 *
 * State of the simulator is process-wide, made on first use and never destroyed: code of the
 * program may still run when destructors do. */
#ifndef SIMGPU_CORE_H
#define SIMGPU_CORE_H

#include <memory>
#include <string>

#include "sim.h"

namespace sim {

/* ---- clocks */

/* lane << 24 | time; 0 is none. */
using Epoch = uint32_t;
constexpr unsigned time_bits = 24, lane_count = 256, host_lane = 1, legacy_lane = 2;
constexpr uint32_t time_mask = (1U << time_bits) - 1;

/* What happened before: for each lane the latest time that did. */
class Clock {
public:
  bool covers(Epoch epoch) const {
    const size_t lane = epoch >> time_bits;
    return lane < times_.size() && times_[lane] >= (epoch & time_mask);
  }
  void add(Epoch epoch);
  void join(const Clock &other);

private:
  std::vector<uint32_t> times_;
};

/* The next epoch of a lane, with the name that findings give it (static). */
Epoch tick(unsigned lane, const char *name);
/* The latest epoch of a lane; 0: none yet. */
Epoch latest(unsigned lane);
const char *name_of(Epoch epoch);
/* A lane is taken again only when the host knows of all that ran on it. */
unsigned take_lane();
void release_lane(unsigned lane);

/* What the host knows to be done. A join lets go of pinned memory that was in flight. */
const Clock &host_clock();
void host_joins(const Clock &clock);
void host_knows_all();
/* The host did something that operations enqueued from now on come after. */
void host_ticks();

/* ---- issued operations */

struct Task {
  Op op;
  Epoch epoch = 0;
  Clock clock; /* what is before it, and itself */
  bool done = false;
  int unfinished = 0; /* predecessors that are not done */
  std::vector<std::shared_ptr<Task>> followers;
};
using TaskPtr = std::shared_ptr<Task>;

/* Issues op on a lane, after the tasks given (which may be null or done) and the host. */
TaskPtr issue(Op op, unsigned lane, const std::vector<TaskPtr> &after);

/* The task that runs; null outside. */
Task *running();

/* Drops all that is queued (the device is reset). */
void drop_tasks();

/* For queries: as maybe_progress(), but in lazy mode too something runs at times, or a loop of
 * queries would not end. */
void query_progress();

/* Drives until nothing is left that was issued. */
void drive_all();

/* ---- streams, events, graphs */

struct Node {
  Op op;
  std::vector<size_t> after; /* earlier nodes */
  unsigned branch = 0;       /* nodes of a branch are ordered: they share a lane */
};

struct Graph {
  std::vector<Node> nodes;
  unsigned branches = 0;
};

struct Stream;

struct Capture {
  Stream *origin = nullptr;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  bool valid = true;
  std::vector<Stream *> streams; /* origin first */
  std::unique_ptr<Graph> graph;
  uint64_t id = 0;
};

struct Stream {
  unsigned lane = 0;
  TaskPtr last;
  bool blocking = true; /* ordered with the legacy stream */
  int priority = 0;
  bool alive = true;
  Capture *capture = nullptr;
  std::vector<size_t> frontier; /* nodes that the next captured one comes after */
};

/* The legacy default stream for NULL; null, after a finding, for what is no live stream. */
Stream *stream_of(cudaStream_t handle);

cudaStream_t make_stream(bool blocking, int priority);
void end_stream(Stream &stream);
/* All streams end (the device is reset). */
void reset_streams();

/* Issues op in a stream that is not being captured, after its last and `also`. */
TaskPtr issue_in(Stream &stream, Op op, const TaskPtr &also = nullptr);
/* What an operation in the stream comes after. */
std::vector<TaskPtr> before_in(const Stream &stream);

/* The host waits, and knows what it waited for; without effect once the device failed. */
void host_waits(const Stream &stream);
void host_waits_for_all();

/* The capture under way; null: none. */
Capture *capture_now();
/* A call was made that may not be while something is captured: 900, and the capture is invalid.
 * cudaSuccess where nothing is, or in relaxed mode. */
cudaError_t capture_forbids();
/* 906, and the capture is invalid, if work in the stream would be ordered with captured work. */
cudaError_t capture_crosses(const Stream &stream);
cudaError_t capture_begin(Stream &stream, cudaStreamCaptureMode mode);
/* Ends it whatever the answer, unless the stream is not its origin. */
cudaError_t capture_end(Stream &stream, std::unique_ptr<Graph> &graph);
void capture_drop();
cudaError_t capture_add(Stream &stream, Op op);
/* The stream's next node comes after these; it becomes part of the capture. */
void capture_join(Stream &stream, Capture &capture, const std::vector<size_t> &frontier);
void capture_breaks(Capture &capture);

/* ---- devices */

/* Physical ordinals of what this process sees. */
const std::vector<int> &visible_devices();
/* As CUDA encodes it; 0: there is none. */
int driver_version();
void set_device(int ordinal);
/* "GPU-xxxxxxxx-..." */
std::string uuid_text(const cudaUUID_t &uuid);

/* ---- memory */

/* Bytes of pinned memory that an operation uses, from when it is enqueued until the host knows it
 * is done. */
struct Flight {
  char *begin, *end;
  bool write;
  bool kernel; /* may touch any byte of a mapped block: shadow says which it did */
  Epoch epoch;
};

struct Block {
  char *base = nullptr;
  size_t bytes = 0;    /* asked for */
  size_t reserved = 0; /* with padding and the sentinel behind it */
  bool live = true;
  bool pinned = false;
  bool mapped = false; /* kernels may touch it */
  unsigned number = 0; /* in order of allocation */
  int device = 0;
  std::vector<Flight> flights;
  std::vector<int> protection; /* of each page, as now set */
};

constexpr unsigned char sentinel = 0xa5, nan_byte = 0xff;
constexpr size_t word = 4; /* granule of the shadow */

/* The last accesses of a word. Of readers only those that are concurrent with one another count;
 * with more than three the oldest is forgotten. */
struct Cell {
  Epoch writer;
  Epoch readers[3];
};

/* Addresses of an arena; its pages are opened and closed by the piece, if it holds a live block. */
constexpr size_t arena_bytes = size_t{1} << 36, piece_bytes = size_t{16} << 20;
constexpr int max_devices = 15;

/* One reservation of addresses: pinned memory, or one device's. Never reused. */
struct Arena {
  char *base = nullptr;
  char *park = nullptr;     /* where its pages lie while it is closed (devices) */
  size_t used = 0;          /* addresses given out */
  uint8_t *state = nullptr; /* [word]: low bits: byte is in a live block; high bits: written */
  Cell *cells = nullptr;    /* [word] */
  int live[arena_bytes / piece_bytes] = {}; /* live blocks in each piece */
};

/* Null where the pointer lies in none. */
Arena *arena_of(const void *pointer);
/* Blocks by address, the freed too; null where none began below and reaches it (sentinel
 * included). */
Block *block_of(const void *pointer);
/* "+16 of device block 3 (4096 bytes)" */
const char *describe(const void *pointer);

/* Null: out of memory. */
void *allocate_device(size_t bytes);
/* Never null. */
void *allocate_pinned(size_t bytes, bool mapped);
/* False: not the start of a live block of that kind. */
bool release(void *pointer, bool pinned);
void release_all();
/* Of the current device. */
size_t memory_total();
size_t memory_used();

/* All live pinned blocks. */
std::vector<Block *> &pinned_blocks();

/* As access(), for a copy's source: what is not initialised is carried along by copy_state(). */
void access_source(const void *pointer, size_t bytes, const char *what);
/* A device-to-device copy carries along what is not initialised. */
void copy_state(void *to, const void *from, size_t bytes);
/* Marks a block's bytes: live and written, or neither. */
void set_state(const Block &block, bool live, bool written);

/* ---- host accesses to guarded memory */

void guard_add(const Op &op, Epoch epoch);
/* Protects what is in flight, lets go of what no longer is. */
void guard_sweep();
void guard_open();
void guard_close();
/* Installs the signal handlers, unless they are still ours. */
void guard_install();
/* Pages of blocks, flights and cells change only under this lock: a fault in another thread looks
 * at them. */
void guard_lock();
void guard_unlock();
/* The host touched a guarded word of pinned memory. */
void host_touches(const void *pointer, bool write);

class GuardLock {
public:
  GuardLock() {
    guard_lock();
  }
  ~GuardLock() {
    guard_unlock();
  }
  GuardLock(const GuardLock &) = delete;
  GuardLock &operator=(const GuardLock &) = delete;
};

/* A whole number from the environment; bytes may end in K, M or G. */
uint64_t setting(const char *name, uint64_t otherwise);

} // namespace sim

#endif
