/* Launches: the registry of host-built kernels, and running one: a block after another in random
 * order, its threads as fibers in random order that change at barriers and shuffles. */
#include <cstdint>
#include <cstring>
#include <link.h>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fibers.h"
#include "kernel_shadow.h"
#include "sim.h"
#include "sim_kernels.h"

/* What kernel_host.h shows to kernels as constants. */
uint3 threadIdx, blockIdx, blockDim, gridDim;

extern "C" void *__tls_get_addr(void *); /* of the C library */

namespace sim {

/* ---- registry */

static std::unordered_map<std::string, KernelInfo> &registry() {
  static std::unordered_map<std::string, KernelInfo> &kernels =
      *new std::unordered_map<std::string, KernelInfo>;
  return kernels;
}

void kernel_register(const KernelInfo &info) {
  registry()[info.name] = info;
}

const KernelInfo *kernel_find(const char *name) {
  const auto found = registry().find(name);
  return found == registry().end() ? nullptr : &found->second;
}

/* ---- shared memory: the TLS block of the library that a kernel is in */

struct TlsSearch {
  uintptr_t code;
  void *data;
  size_t bytes;
};

static int find_tls(dl_phdr_info *info, size_t, void *argument) {
  TlsSearch *search = static_cast<TlsSearch *>(argument);
  bool holds = false;
  const ElfW(Phdr) *tls = nullptr;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) &header = info->dlpi_phdr[i];
    const uintptr_t begin = info->dlpi_addr + header.p_vaddr;
    if (header.p_type == PT_LOAD && search->code >= begin && search->code - begin < header.p_memsz)
      holds = true;
    if (header.p_type == PT_TLS)
      tls = &header;
  }
  if (!holds || !tls)
    return holds;
  unsigned long index[2] = {info->dlpi_tls_modid, 0}; /* module, offset */
  search->data = __tls_get_addr(index); /* makes the block, if this thread has none yet */
  search->bytes = tls->p_memsz;
  return 1;
}

/* ---- the block that runs */

namespace {

enum class State { ready, at_barrier, at_exchange, done };

struct Thread {
  Fiber *fiber = nullptr;
  uint3 index = {0, 0, 0};
  unsigned number = 0;
  State state = State::ready;
  int line = 0;        /* where it waits */
  unsigned turn = 0;   /* exchanges so far */
  bool fenced = false; /* since its last atomic */
};

struct Warp {
  /* Two turns: a lane may be one exchange ahead of one that has not taken its value yet. */
  uint64_t values[2][32];
  unsigned arrived = 0, mask = 0;
  int line = 0;
};

struct Run {
  const KernelInfo *info;
  const void *arguments;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<unsigned> ready;
  unsigned block = 0;
  uint16_t epoch = 0;
  unsigned waiting = 0, finished = 0;
  Thread *current = nullptr;
  uint64_t random = 1;
};

Run *running; /* null outside of kernels */

uint64_t next_random(Run &run, uint64_t below) {
  run.random ^= run.random << 13; /* xorshift64: Marsaglia 2003 */
  run.random ^= run.random >> 7;
  run.random ^= run.random << 17;
  return run.random % below;
}

Who who(const Run &run) {
  return {run.block, static_cast<uint16_t>(run.current->number), run.epoch};
}

void pause_as(Thread &thread, State state, int line) {
  thread.state = state;
  thread.line = line;
  fiber_pause();
}

void make_ready(Run &run, Thread &thread) {
  thread.state = State::ready;
  run.ready.push_back(thread.number);
}

/* All threads wait at the same barrier: they go on. False: some never come. */
bool pass_barrier(Run &run) {
  int line = 0;
  for (const Thread &thread : run.threads) {
    if (thread.state != State::at_barrier) {
      finding(Kind::barrier,
              "%s: block %u: %u of %zu threads wait at a barrier (line %d) or shuffle that thread "
              "%u, %s, does not reach",
              run.info->name, run.block, run.waiting, run.threads.size(), run.threads[0].line,
              thread.number, thread.state == State::done ? "which has ended" : "elsewhere");
      return false;
    }
    if (line && line != thread.line)
      finding(Kind::barrier, "%s: block %u: threads wait at different barriers (lines %d, %d)",
              run.info->name, run.block, line, thread.line);
    line = thread.line;
  }
  run.waiting = 0;
  ++run.epoch;
  for (Thread &thread : run.threads)
    make_ready(run, thread);
  return true;
}

void thread_main(void *argument) {
  Run &run = *static_cast<Run *>(argument);
  run.info->call(run.arguments);
}

void run_block(Run &run) {
  run.epoch = 0;
  run.waiting = run.finished = 0;
  run.ready.clear();
  run.warps.assign((run.threads.size() + 31) / 32, Warp());
  for (Thread &thread : run.threads) {
    thread.turn = 0;
    thread.fenced = false;
    fiber_start(thread.fiber, thread_main, &run);
    make_ready(run, thread);
  }
  while (run.finished < run.threads.size()) {
    if (run.ready.empty() && !pass_barrier(run))
      return;
    std::swap(run.ready[next_random(run, run.ready.size())], run.ready.back());
    run.current = &run.threads[run.ready.back()];
    run.ready.pop_back();
    threadIdx = run.current->index;
    if (fiber_resume(run.current->fiber)) {
      run.current->state = State::done;
      ++run.finished;
    }
  }
}

std::vector<Thread> make_threads(dim3 block) {
  std::vector<Thread> threads(size_t{block.x} * block.y * block.z);
  for (unsigned i = 0; i < threads.size(); ++i) {
    threads[i].fiber = fiber_at(i);
    threads[i].number = i;
    threads[i].index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
  }
  return threads;
}

void run_kernel(const KernelInfo &info, dim3 grid, dim3 block, const void *arguments) {
  Run run = {};
  run.info = &info;
  run.arguments = arguments;
  run.random = random() | 1;
  run.threads = make_threads(block);
  TlsSearch shared = {reinterpret_cast<uintptr_t>(info.call), nullptr, 0};
  dl_iterate_phdr(find_tls, &shared);
  std::vector<unsigned> blocks(size_t{grid.x} * grid.y * grid.z);
  shadow_launch(info.name);
  for (unsigned i = 0; i < blocks.size(); ++i) {
    const uint64_t at = next_random(run, i + 1);
    blocks[i] = blocks[at];
    blocks[at] = i;
  }
  running = &run;
  blockDim = {block.x, block.y, block.z};
  gridDim = {grid.x, grid.y, grid.z};
  for (const unsigned number : blocks) {
    run.block = number;
    blockIdx = {number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y};
    shadow_block(shared.data, shared.bytes);
    run_block(run);
  }
  running = nullptr;
}

} // namespace

/* ---- launching */

bool kernel_fits(dim3 grid, dim3 block) {
  constexpr unsigned most_threads = 1024, most_z = 64, most_grid = 65535;
  const bool filled = grid.x && grid.y && grid.z && block.x && block.y && block.z;
  return filled && block.x <= most_threads && block.y <= most_threads && block.z <= most_z &&
         static_cast<uint64_t>(block.x) * block.y * block.z <= most_threads &&
         grid.x <= 0x7fffffffU && grid.y <= most_grid && grid.z <= most_grid;
}

std::function<void()> kernel_call(const char *name, dim3 grid, dim3 block, void **arguments,
                                  size_t shared_bytes) {
  const KernelInfo *info = kernel_find(name);
  if (!info)
    return nullptr;
  const size_t threads = size_t{block.x} * block.y * block.z;
  if (threads > static_cast<size_t>(info->most_threads))
    finding(Kind::unmodelled, "%s: %zu threads a block where its launch bounds allow %d", name,
            threads, info->most_threads);
  if (shared_bytes > 0)
    finding(Kind::unmodelled, "%s: dynamic shared memory", name);
  const char *from = static_cast<const char *>(arguments[0]);
  auto copy = std::make_shared<std::vector<char>>(from, from + info->argument_bytes);
  return [info, grid, block, copy] { run_kernel(*info, grid, block, copy->data()); };
}

int kernel_launch(const char *name, dim3 grid, dim3 block, cudaStream_t stream,
                  const void *arguments) {
  if (!kernel_fits(grid, block))
    return cudaErrorInvalidConfiguration;
  void *list[] = {const_cast<void *>(arguments)};
  Op op;
  op.name = kernel_find(name)->name;
  op.kernel = true;
  op.run = kernel_call(name, grid, block, list, 0);
  return enqueue(stream, std::move(op));
}

/* ---- what threads do */

void kernel_access(const void *pointer, size_t bytes, bool write, bool atomic) {
  if (!running || fiber_owns(pointer))
    return;
  if (!shadow_shares(pointer)) {
    if (atomic)
      access(pointer, bytes, false, running->info->name);
    access(pointer, bytes, write, running->info->name);
  }
  shadow_access(who(*running), pointer, bytes, write, atomic);
}

void barrier(int line) {
  Run &run = *running;
  ++run.waiting;
  pause_as(*run.current, State::at_barrier, line);
}

void fence() {
  running->current->fenced = true;
  shadow_fence();
}

unsigned lane() {
  return running->current->number % 32;
}

/* The lanes of a warp that the block has. */
static unsigned lanes_of(const Run &run, unsigned warp) {
  const size_t rest = run.threads.size() - size_t{warp} * 32;
  return rest >= 32 ? 0xffffffffU : (1U << rest) - 1U;
}

uint64_t exchange(unsigned mask, uint64_t bits, unsigned source, int line) {
  Run &run = *running;
  Thread &thread = *run.current;
  const unsigned number = thread.number / 32, me = thread.number % 32;
  Warp &warp = run.warps[number];
  mask &= lanes_of(run, number);
  if (!(mask >> me & 1) || !(mask >> source & 1))
    finding(Kind::barrier, "%s: a shuffle's mask %08x lacks lane %u, or %u that it reads (line %d)",
            run.info->name, mask, me, source, line);
  if (!warp.arrived) {
    warp.mask = mask;
    warp.line = line;
  } else if (warp.mask != mask || warp.line != line) {
    finding(Kind::barrier, "%s: lanes of a warp are at different shuffles (lines %d, %d)",
            run.info->name, warp.line, line);
  }
  const unsigned turn = thread.turn++ & 1;
  warp.values[turn][me] = bits;
  warp.arrived |= 1U << me;
  if (warp.arrived != mask) {
    pause_as(thread, State::at_exchange, line);
    return warp.values[turn][source];
  }
  warp.arrived = 0;
  for (unsigned i = 0; i < 32; ++i) {
    if ((mask >> i & 1) && i != me)
      make_ready(run, run.threads[number * 32 + i]);
  }
  return warp.values[turn][source];
}

/* An atomic by the running thread: an access, then its order. */
template <typename T> static T *atomically(T *at) {
  kernel_access(at, sizeof *at, true, true);
  shadow_atomic(who(*running), at, running->current->fenced);
  running->current->fenced = false;
  return at;
}

} // namespace sim

int atomicOr(int *at, int bits) {
  const int old = *sim::atomically(at);
  *at = old | bits;
  return old;
}

int atomicExch(int *at, int value) {
  const int old = *sim::atomically(at);
  *at = value;
  return old;
}

unsigned atomicInc(unsigned *at, unsigned most) {
  const unsigned old = *sim::atomically(at);
  *at = old >= most ? 0 : old + 1;
  return old;
}

unsigned long long atomicAdd(unsigned long long *at, unsigned long long value) {
  const unsigned long long old = *sim::atomically(at);
  *at = old + value;
  return old;
}
