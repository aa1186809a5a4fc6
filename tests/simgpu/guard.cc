/* Pinned memory in flight is closed to the host. A touch of it faults: the handler checks the byte,
 * opens the page for one instruction (trap flag) and closes it again. A touch of device memory by
 * the host ends in the same handler.
 *
 * x86-64 only: the fault's kind and the trap flag are read and set in the saved registers. */
#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstring>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "core.h"

namespace sim {

constexpr size_t page = 4096;
constexpr greg_t error_is_write = 2, trap_flag = 0x100;

static std::atomic_flag locked = ATOMIC_FLAG_INIT;
static std::atomic<bool> opened;
static pthread_t opener; /* valid while opened */
static struct sigaction before_fault, before_trap;

/* Pages that this thread's next instruction may touch. */
static thread_local char *stepping[4] __attribute__((tls_model("initial-exec")));
static thread_local unsigned steps __attribute__((tls_model("initial-exec")));

void guard_lock() {
  while (locked.test_and_set(std::memory_order_acquire))
    sched_yield();
}

void guard_unlock() {
  locked.clear(std::memory_order_release);
}

/* ---- protection of pages; all under the lock */

static void set_protection(Block &block, size_t first, size_t end, int value) {
  if (mprotect(block.base + first * page, (end - first) * page, value))
    finding(Kind::internal, "cannot change the protection of pinned memory");
  for (size_t i = first; i < end; ++i)
    block.protection[i] = value;
}

/* What each page must be now: closed if a flight writes it, else read-only if one reads it. */
static std::vector<int> wanted(const Block &block) {
  std::vector<int> pages(block.protection.size(), PROT_READ | PROT_WRITE);
  for (const Flight &flight : block.flights) {
    const int value = flight.write || flight.kernel ? PROT_NONE : PROT_READ;
    const auto first = static_cast<size_t>(flight.begin - block.base) / page;
    const auto last = static_cast<size_t>(flight.end - 1 - block.base) / page;
    for (size_t i = first; i <= last; ++i)
      pages[i] = std::min(pages[i], value);
  }
  return pages;
}

static void apply(Block &block) {
  if (opened)
    return;
  const std::vector<int> pages = wanted(block);
  for (size_t i = 0; i < pages.size();) {
    size_t end = i + 1;
    while (end < pages.size() && pages[end] == pages[i])
      ++end;
    const auto begin = block.protection.begin();
    if (!std::equal(pages.begin() + static_cast<ptrdiff_t>(i),
                    pages.begin() + static_cast<ptrdiff_t>(end), begin + static_cast<ptrdiff_t>(i)))
      set_protection(block, i, end, pages[i]);
    i = end;
  }
}

/* ---- flights */

static void add_flight(Block &block, const Flight &flight) {
  for (Flight &other : block.flights)
    if (flight.kernel && other.kernel && other.epoch >> time_bits == flight.epoch >> time_bits) {
      other.epoch = flight.epoch; /* whoever knows this one done knows the earlier */
      return;
    }
  block.flights.push_back(flight);
  apply(block);
}

void guard_add(const Op &op, Epoch epoch) {
  GuardLock lock;
  for (const Span &span : op.spans) {
    Block *block = span.bytes ? block_of(span.pointer) : nullptr;
    if (!block || !block->live || !block->pinned || bytes_left(span.pointer) < span.bytes)
      continue;
    char *begin = block->base + (static_cast<const char *>(span.pointer) - block->base);
    add_flight(*block, {begin, begin + span.bytes, span.write, false, epoch});
  }
  if (!op.kernel)
    return;
  for (Block *block : pinned_blocks())
    if (block->mapped)
      add_flight(*block, {block->base, block->base + block->bytes, true, true, epoch});
}

void guard_sweep() {
  GuardLock lock;
  const Clock &host = host_clock();
  for (Block *block : pinned_blocks()) {
    std::vector<Flight> &flights = block->flights;
    const auto end = std::remove_if(flights.begin(), flights.end(), [&](const Flight &flight) {
      return host.covers(flight.epoch);
    });
    if (end == flights.end())
      continue;
    flights.erase(end, flights.end());
    apply(*block);
  }
}

void guard_open() {
  GuardLock lock;
  opener = pthread_self();
  opened = true;
  for (Block *block : pinned_blocks())
    if (!block->flights.empty())
      set_protection(*block, 0, block->protection.size(), PROT_READ | PROT_WRITE);
}

void guard_close() {
  GuardLock lock;
  opened = false;
  for (Block *block : pinned_blocks())
    if (!block->flights.empty())
      apply(*block);
}

/* ---- faults */

/* Gives the signal to whoever had it before us: the instruction is repeated under their handler. */
static void pass_on(int signal, const struct sigaction &before) {
  sigaction(signal, &before, nullptr);
}

/* The handler can't go on after these, whatever SIMGPU_FINDINGS says. */
static void fatal(Kind kind, const char *words, bool write, const char *address) {
  finding(kind, words, write ? "wrote" : "read", describe(address));
  _exit(finding_exit);
}

static void on_fault(int signal, siginfo_t *info, void *context) {
  auto *address = static_cast<char *>(info->si_addr);
  auto &registers = static_cast<ucontext_t *>(context)->uc_mcontext.gregs;
  const bool write = (registers[REG_ERR] & error_is_write) != 0;
  if (!arena_of(address)) {
    pass_on(signal, before_fault);
    return;
  }
  GuardLock lock;
  const bool operating = opened && pthread_equal(opener, pthread_self());
  Block *block = block_of(address);
  if (operating && !(block && block->live))
    fatal(Kind::bounds, "an operation %s %s", write, address);
  if (memory_of(address) == Memory::device)
    fatal(Kind::host_access, "the host %s device memory at %s", write, address);
  if (!block || !block->live)
    fatal(block ? Kind::freed : Kind::bounds, "the host %s pinned memory that is not its own: %s",
          write, address);
  const auto number = static_cast<size_t>(address - block->base) / page;
  if (number >= block->protection.size() || steps == 4)
    fatal(Kind::bounds, "the host %s %s", write, address);
  if (!operating)
    host_touches(address, write);
  set_protection(*block, number, number + 1, PROT_READ | PROT_WRITE);
  if (operating)
    return;
  stepping[steps++] = block->base + number * page;
  registers[REG_EFL] |= trap_flag;
}

static void on_trap(int signal, siginfo_t *, void *context) {
  if (steps == 0) {
    pass_on(signal, before_trap);
    return;
  }
  GuardLock lock;
  for (; steps > 0; --steps) {
    Block *block = block_of(stepping[steps - 1]);
    if (block && block->live)
      apply(*block);
  }
  static_cast<ucontext_t *>(context)->uc_mcontext.gregs[REG_EFL] &= ~trap_flag;
}

static void install(int signal, void (*handler)(int, siginfo_t *, void *), struct sigaction &old) {
  struct sigaction now;
  sigaction(signal, nullptr, &now);
  if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == handler)
    return;
  old = now;
  struct sigaction ours;
  memset(&ours, 0, sizeof ours);
  ours.sa_sigaction = handler;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(signal, &ours, nullptr);
}

void guard_install() {
  install(SIGSEGV, on_fault, before_fault);
  install(SIGTRAP, on_trap, before_trap);
}

} // namespace sim
