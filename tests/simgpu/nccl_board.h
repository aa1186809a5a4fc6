// What the ranks of one simulated communicator share: a memory file that rank 0 makes for the
// unique id and the others open through /proc, so that nothing is left behind however a rank ends.
//
// A rank posts its call and its data in a slot of its own and takes the sum of all slots when every
// rank has posted the same number. It posts the next call only when all have taken the last.
#ifndef SIMGPU_NCCL_BOARD_H
#define SIMGPU_NCCL_BOARD_H

#include <nccl.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace board {

constexpr int max_ranks = 64;
constexpr size_t slot_bytes = size_t{256} << 20; // address space: only what is written takes memory

struct Seat {
  alignas(64) std::atomic<uint64_t> posted; // calls posted
  std::atomic<uint64_t> taken;              // calls whose results this rank has
  std::atomic<int> left;                    // the rank has destroyed its communicator
  size_t count;                             // elements of the latest one posted
  unsigned char device[16];                 // UUID
};

struct Board {
  std::atomic<int> size; // ranks; 0 until the first arrives
  std::atomic<int> arrived;
  Seat seats[max_ranks];

  unsigned char *slot(int rank);
};

// Makes the memory and writes into the id where to find it. False: the system refuses.
bool make(ncclUniqueId *id);

// Maps it; NULL where the id tells of none that still is.
Board *open(const ncclUniqueId &id);
void close(Board *board);

} // namespace board

#endif
