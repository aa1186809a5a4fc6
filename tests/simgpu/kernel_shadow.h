/* What the threads of one launch did to each word of memory: races inside a launch, and reads of
 * shared memory that nothing wrote.
 *
 * Two accesses of a byte, one of them a write and not both atomic, are a race unless ordered: the
 * same thread; the same block with a barrier between them; different blocks where the earlier one
 * was released and then acquired. An atomic releases, where its thread has made a fence since its
 * last one, what that thread did and what others of its block did before the last barrier. A fence
 * after an atomic acquires, for the whole block, what was released at the same address. Blocks run
 * one after another, so only the running one's knowledge of the others is kept. */
#ifndef SIMGPU_KERNEL_SHADOW_H
#define SIMGPU_KERNEL_SHADOW_H

#include <cstddef>
#include <cstdint>

namespace sim {

/* Who makes an access. epoch: barriers that the block has passed. */
struct Who {
  uint32_t block;
  uint16_t thread, epoch;
};

/* A launch begins; name: static, for findings. */
void shadow_launch(const char *name);

/* A block begins: its shared memory, forgotten and filled with NaN. */
void shadow_block(void *shared, size_t bytes);

/* Whether the address is in the running block's shared memory. */
bool shadow_shares(const void *pointer);

/* Device, pinned or shared memory. */
void shadow_access(const Who &who, const void *pointer, size_t bytes, bool write, bool atomic);

/* A fence, and an atomic at the address; fenced: since the thread's last atomic. */
void shadow_fence();
void shadow_atomic(const Who &who, const void *pointer, bool fenced);

} // namespace sim

#endif
