/* The simulated GPU's core: what the substitute libraries (CUDA runtime, kernels, cuBLASLt, NCCL)
 * and the wrapped MPI calls share. Lives in libsimgpu.so; libsimkernels.so links it, the
 * substitutes link both.
 *
 * All of it runs in the thread that calls CUDA, one call at a time; other threads of the program
 * may only touch host memory. An operation runs to its end inside step(): nothing is preempted, so
 * what overlaps is decided by clocks, not by time.
 *
 * Clocks: every operation has an epoch (a lane and a time on it) and a vector clock of what
 * happened before it, fixed in program order when it is enqueued. Two accesses of one byte, one of
 * them a write, are a race unless one is in the other's past, whatever order the seed ran them in.
 * The host is a lane too; device memory is checked by 4-byte words. */
#ifndef SIMGPU_SIM_H
#define SIMGPU_SIM_H

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include <driver_types.h>

namespace sim {

/* ---- findings */

/* What is wrong with the program under test. */
enum class Kind {
  race,          /* two accesses without an order between them; host memory in flight */
  bounds,        /* outside of every block */
  freed,         /* in a block that was freed */
  uninitialised, /* read of memory that nothing wrote */
  host_access,   /* the host dereferenced a device pointer, or the device pageable memory */
  capture,       /* work unordered with a graph, use of captured work that the runtime allows */
  collective,    /* ranks disagree about a collective */
  barrier,       /* threads of a block at different barriers; a barrier that some never reach */
  handle,        /* a stream, event or graph that was destroyed or never was */
  deadlock,      /* nothing can run, and something is waited for */
  unmodelled,    /* the simulator does not know this; never guessed */
  internal,      /* the simulator itself is wrong */
};

constexpr int finding_exit = 99;

/* Prints `simgpu: KIND: rank R: ...` as one line on stderr and ends the process with finding_exit;
 * with SIMGPU_FINDINGS=count prints and counts (counter "findings"), and returns. */
void finding(Kind kind, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- faults injected by call count: SIMGPU_FAIL="cudaMalloc:3=2,ncclAllReduce@1:4=kill"
 *
 * name[@rank]:N=code: the N-th call of that name (1 is the first; "N+": that and all later ones)
 * answers the code; `kill` ends the process by SIGKILL, `hang` never returns. */

/* Counts a call; the code that it must answer without doing anything, 0 for none. Every entry
 * point of a substitute library begins with it. */
int injected(const char *call);

/* ---- counters, written as one JSON line to SIMGPU_COUNTERS (%r: the rank) at exit; by
 * `const char *simgpu_counters(void)` (the same line) and `long long simgpu_count(const char
 * *name)` (dlsym) at any moment. */
enum class Counter {
  kernels,     /* kernels enqueued by the host, not those inside graphs */
  products,    /* cuBLASLt matmuls, likewise */
  collectives, /* NCCL collectives, likewise */
  graph_launches,
  graph_nodes,    /* of the last graph instantiated */
  nodes_run,      /* nodes of graphs that ran */
  operations_run, /* everything that ran */
  host_syncs,     /* calls that block the host until the device got somewhere */
  queries,        /* cudaEventQuery, cudaStreamQuery */
  copies_to_device,
  copies_to_host,
  copies_on_device,
  bytes_to_device,
  bytes_to_host,
  bytes_on_device,
  fills,            /* memset */
  pageable_copies,  /* asynchronous ones that the driver would make synchronous */
  allocations,      /* of device memory */
  host_allocations, /* of pinned memory */
  frees,            /* of either */
  findings,
  count_ /* how many there are */
};
void count(Counter counter, int64_t by = 1);
int64_t counted(Counter counter);

/* ---- this process */

/* From the launcher's environment (OMPI_COMM_WORLD_RANK, PMI_RANK, SLURM_PROCID); 0 and 1 alone. */
int rank();
int ranks();

/* The next number of the seeded sequence (SIMGPU_SEED, rank and calls so far decide it). */
uint64_t random();

/* ---- memory */

enum class Memory { device, pinned, other };

/* Where a pointer lies: also true of freed blocks and of the gaps between blocks. */
Memory memory_of(const void *pointer);

/* The operation that runs now reads or writes these bytes. Called for each load and store of a
 * kernel, by row or span for library calls. Checks bounds, freed, uninitialised (reads) and races
 * with other operations and the host, and records. Memory::other is a finding: callers leave out
 * what is theirs (stacks, shared memory). `what` names the access in a finding: a static string
 * such as "lks_gather", "cublasLtMatmul B". Only inside an operation's run. */
void access(const void *pointer, size_t bytes, bool write, const char *what);

/* As access(write), but afterwards the bytes hold the NaN pattern and count as uninitialised: a
 * workspace of which nothing may be assumed later. */
void poison(void *pointer, size_t bytes, const char *what);

/* Memory of the current device that a library takes for itself, at addresses nobody sees; false
 * where there is not so much. */
bool take_memory(size_t bytes);
void give_memory(size_t bytes);

/* Bytes from pointer to the end of its live block; 0 where none holds it. */
size_t bytes_left(const void *pointer);

/* The linear place of a device or pinned byte in [0, 2^40), for shadows of one's own; false for
 * other memory. Places of freed blocks are never used again. */
bool place_of(const void *pointer, uint64_t *place);

/* Opens device and pinned memory for the calling thread's operation; nests. step() holds one while
 * an operation runs: only code that touches device memory outside of an operation needs it. */
class Open {
public:
  Open();
  ~Open();
  Open(const Open &) = delete;
  Open &operator=(const Open &) = delete;
};

/* ---- operations */

/* Bytes that an operation touches, known when it is enqueued. */
struct Span {
  const void *pointer;
  size_t bytes;
  bool write;
};

struct Op {
  const char *name = ""; /* static: "kernel lks_gather", "ncclAllReduce" */
  /* Does the work, with memory open, when all before it in its stream is done. May be called more
   * than once: each launch of a graph runs a copy of the captured operation. */
  std::function<void()> run;
  /* May it run yet? Called often while it waits; empty: always. For those that wait for peers: it
   * may make progress itself, but not touch the operation's memory. */
  std::function<bool()> ready;
  /* Called on a copy each time the operation is issued, in the order of issue: now, or at each
   * launch of the graph that holds it. May replace run, ready and spans, to have state of one
   * launch. */
  std::function<void(Op &)> issue;
  /* The engine calls access() for these before run (reads, then writes). Pinned memory must be
   * named here: it is guarded from the enqueue until the host knows that the operation is done. */
  std::vector<Span> spans;
  bool kernel = false; /* may touch mapped pinned memory without naming it */
};

/* Appends to the stream (NULL: the legacy default stream), or to the capture the stream is part
 * of. Answers what the runtime call must: success, or the code of a broken rule. */
cudaError_t enqueue(cudaStream_t stream, Op op);

/* Whether the stream is being captured. */
bool capturing(cudaStream_t stream);

/* The epoch of the operation that runs; 0 outside. Epochs differ between all operations of a
 * process. */
uint32_t current_epoch();

/* Runs one operation that is ready, chosen by the seed. False: none is. */
bool step();

/* Runs operations until done() is true. Waits for peers where operations do; a finding of deadlock
 * where nothing is left to run or wait for. */
void drive_until(const std::function<bool()> &done);

/* Called by entry points that do not wait: by the seed runs none, some or all that is ready; with
 * SIMGPU_LAZY=1 nothing. */
void maybe_progress();

/* Makes the device's error sticky: every later call answers it. For failures that come when an
 * operation runs (a launch that failed, ECC). */
void device_fails(cudaError_t error);

/* The sticky error, or cudaSuccess. */
cudaError_t device_error();

/* The ordinal of the current device, its distinct number on this host (for NCCL: two ranks on one
 * device), and its UUID. */
int current_device();
cudaUUID_t device_uuid(int ordinal);

} // namespace sim

#endif
