/* Fibers: the threads of a simulated block. Each has a stack of its own and is resumed by the
 * scheduler, in one thread of the process; nothing runs unless it is resumed. */
#ifndef SIMGPU_FIBERS_H
#define SIMGPU_FIBERS_H

#include <cstddef>

namespace sim {

/* Bytes of a fiber's stack. Below it lies a page that nobody may touch. */
constexpr size_t fiber_stack_bytes = 64 * 1024;

struct Fiber;

/* Fiber `index` of a pool that grows as it is asked for; never freed. */
Fiber *fiber_at(size_t index);

/* What the fiber does when it is resumed next. It must have finished what it did before. */
void fiber_start(Fiber *fiber, void (*job)(void *), void *argument);

/* Runs it until it pauses or its job returns. True: the job has returned. From the scheduler. */
bool fiber_resume(Fiber *fiber);

/* Back to the scheduler; returns when resumed. From within a fiber. */
void fiber_pause();

/* Whether the address is in the stack of the fiber that runs. False outside of fibers. */
bool fiber_owns(const void *pointer);

} // namespace sim

#endif
