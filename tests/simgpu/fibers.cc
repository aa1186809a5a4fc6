/* Switching stacks. On x86-64 by hand: swapcontext makes a system call each time, and a sanitizer
 * of the program under test would intercept it. */
#include "fibers.h"

#include <deque>
#include <sys/mman.h>
#include <unistd.h>

#include "sim.h"

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace sim {

struct Fiber {
  char *stack = nullptr; /* lowest usable address */
  void (*job)(void *) = nullptr;
  void *argument = nullptr;
  bool done = true;
#ifdef __x86_64__
  void *saved = nullptr; /* its stack pointer while it does not run */
#else
  ucontext_t saved;
#endif
};

static Fiber *running_fiber;

#ifdef __x86_64__

static void *scheduler_saved;

/* Saves what a function must keep, swaps stack pointers, restores. */
extern "C" void simgpu_switch(void **save, void *to);
asm(".text\n"
    ".type simgpu_switch, @function\n"
    "simgpu_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size simgpu_switch, . - simgpu_switch\n");

static void to_fiber(Fiber *fiber) {
  simgpu_switch(&scheduler_saved, fiber->saved);
}

static void to_scheduler(Fiber *fiber) {
  simgpu_switch(&fiber->saved, scheduler_saved);
}

#else

static ucontext_t scheduler_saved;

static void to_fiber(Fiber *fiber) {
  swapcontext(&scheduler_saved, &fiber->saved);
}

static void to_scheduler(Fiber *fiber) {
  swapcontext(&fiber->saved, &scheduler_saved);
}

#endif

/* Where every fiber begins; it never returns. */
static void fiber_main() {
  for (;;) {
    Fiber *fiber = running_fiber;
    fiber->job(fiber->argument);
    fiber->done = true;
    to_scheduler(fiber);
  }
}

/* Makes the first switch enter fiber_main, with the stack as a call leaves it. */
static void prepare(Fiber *fiber) {
#ifdef __x86_64__
  void **top = reinterpret_cast<void **>(fiber->stack + fiber_stack_bytes);
  *--top = nullptr; /* where fiber_main would return to */
  *--top = reinterpret_cast<void *>(fiber_main);
  for (int i = 0; i < 6; ++i)
    *--top = nullptr;
  fiber->saved = top;
#else
  getcontext(&fiber->saved);
  fiber->saved.uc_stack.ss_sp = fiber->stack;
  fiber->saved.uc_stack.ss_size = fiber_stack_bytes;
  fiber->saved.uc_link = nullptr;
  makecontext(&fiber->saved, fiber_main, 0);
#endif
}

Fiber *fiber_at(size_t index) {
  static std::deque<Fiber> &pool = *new std::deque<Fiber>;
  while (pool.size() <= index) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void *memory = mmap(nullptr, page + fiber_stack_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0)
      finding(Kind::internal, "no memory for a fiber's stack");
    pool.emplace_back();
    pool.back().stack = static_cast<char *>(memory) + page;
    prepare(&pool.back());
  }
  return &pool[index];
}

void fiber_start(Fiber *fiber, void (*job)(void *), void *argument) {
  if (!fiber->done)
    prepare(fiber); /* given up in the middle: after a finding that was only counted */
  fiber->job = job;
  fiber->argument = argument;
  fiber->done = false;
}

bool fiber_resume(Fiber *fiber) {
  running_fiber = fiber;
  to_fiber(fiber);
  running_fiber = nullptr;
  return fiber->done;
}

void fiber_pause() {
  to_scheduler(running_fiber);
}

bool fiber_owns(const void *pointer) {
  const char *at = static_cast<const char *>(pointer);
  return running_fiber && at >= running_fiber->stack &&
         at < running_fiber->stack + fiber_stack_bytes;
}

} // namespace sim
