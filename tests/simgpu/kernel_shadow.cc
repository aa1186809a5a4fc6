/* See kernel_shadow.h. A cell is a 4-byte word: its last write, its last read, and the last ones by
 * another thread and by another block. Older accesses are forgotten, so a race may be missed, never
 * invented; seeds vary who comes last. */
#include "kernel_shadow.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <unordered_map>
#include <vector>

#include "sim.h"

namespace sim {

namespace {

struct Trace {
  uint32_t block = 0;
  uint16_t thread = 0, epoch = 0;
  uint16_t era = 0;  /* of the block: releases before it, from 1 */
  uint8_t bytes = 0; /* of the word, a bit each; 0: no access */
  bool atomic = false;
};

struct Cell {
  uint32_t stamp = 0;  /* launch (or block, in shared memory) that the rest belongs to */
  uint8_t written = 0; /* bytes, in shared memory */
  Trace write, last, other_thread, other_block; /* the latter three: reads */
};

constexpr unsigned word = 4, page_words = 1024;

struct Page {
  uint64_t number = 0;
  std::unique_ptr<Cell[]> cells;
};

/* What of a block is before something: all up to a barrier, and a thread's up to a release. */
struct Known {
  uint16_t epoch = 0;                          /* accesses of earlier epochs */
  std::unordered_map<uint16_t, uint16_t> eras; /* by thread */
};

using Knowledge = std::unordered_map<uint32_t, Known>; /* by block */

void join(Knowledge &to, const Knowledge &from) {
  for (const auto &block : from) {
    Known &known = to[block.first];
    known.epoch = std::max(known.epoch, block.second.epoch);
    for (const auto &thread : block.second.eras) {
      uint16_t &era = known.eras[thread.first];
      era = std::max(era, thread.second);
    }
  }
}

struct Shadow {
  const char *name = "";
  uint32_t stamps = 0, launch_stamp = 0, block_stamp = 0;
  char *shared = nullptr;
  size_t shared_bytes = 0;
  std::vector<Cell> shared_cells;
  std::unordered_map<uint64_t, Page> pages;
  Page *recent[16] = {}; /* of pages, by the low bits of their number */
  /* of the running block: what is before it; what will be, once it makes a fence; its era */
  Knowledge known, pending;
  uint16_t era = 1;
  std::unordered_map<const void *, Knowledge> released; /* by address of the atomic */
};

Shadow &shadow() {
  static Shadow &state = *new Shadow;
  return state;
}

Cell *cell_of(Shadow &s, const char *pointer) {
  if (shadow_shares(pointer))
    return &s.shared_cells[static_cast<size_t>(pointer - s.shared) / word];
  uint64_t place;
  if (!place_of(pointer, &place))
    return nullptr; /* access() has said so */
  const uint64_t number = place / word / page_words;
  Page *&recent = s.recent[number % 16];
  if (!recent || recent->number != number) {
    Page &page = s.pages[number];
    if (!page.cells) {
      page.number = number;
      page.cells.reset(new Cell[page_words]);
    }
    recent = &page;
  }
  return &recent->cells[place / word % page_words];
}

bool ordered(const Shadow &s, const Trace &before, const Trace &now) {
  if (!(before.bytes & now.bytes) || (before.atomic && now.atomic))
    return true;
  if (before.block == now.block)
    return before.thread == now.thread || before.epoch < now.epoch;
  const auto block = s.known.find(before.block);
  if (block == s.known.end())
    return false;
  const auto thread = block->second.eras.find(before.thread);
  return before.epoch < block->second.epoch ||
         (thread != block->second.eras.end() && before.era <= thread->second);
}

void check(const Shadow &s, const Trace &before, bool wrote, const Trace &now, bool write,
           const char *pointer) {
  if (ordered(s, before, now))
    return;
  const bool shared = shadow_shares(pointer);
  finding(Kind::race,
          "%s: thread %u of block %u %s what thread %u of block %u %s, with no %s between: %s %zu",
          s.name, now.thread, now.block, write ? "writes" : "reads", before.thread, before.block,
          wrote ? "wrote" : "read", before.block == now.block ? "barrier" : "release and acquire",
          shared ? "byte of shared memory" : "bytes from the block's end",
          shared ? static_cast<size_t>(pointer - s.shared) : bytes_left(pointer));
}

void remember_read(Cell &cell, const Trace &now) {
  if (cell.last.bytes && cell.last.block != now.block) {
    cell.other_block = cell.last;
    cell.other_thread = Trace();
  } else if (cell.last.bytes && cell.last.thread != now.thread) {
    cell.other_thread = cell.last;
  }
  cell.last = now;
}

void access_word(Shadow &s, const Trace &now, const char *pointer, bool write) {
  Cell *cell = cell_of(s, pointer);
  if (!cell)
    return;
  const bool shared = shadow_shares(pointer);
  const uint32_t stamp = shared ? s.block_stamp : s.launch_stamp;
  if (cell->stamp != stamp) {
    *cell = Cell();
    cell->stamp = stamp;
  }
  if (shared && !write && (now.bytes & ~cell->written))
    finding(Kind::uninitialised,
            "%s: thread %u of block %u reads byte %zu of shared memory, which no thread wrote",
            s.name, now.thread, now.block, static_cast<size_t>(pointer - s.shared));
  check(s, cell->write, true, now, write, pointer);
  if (!write) {
    remember_read(*cell, now);
    return;
  }
  for (const Trace *read : {&cell->last, &cell->other_thread, &cell->other_block})
    check(s, *read, false, now, write, pointer);
  cell->written |= now.bytes;
  const bool again = cell->write.block == now.block && cell->write.thread == now.thread &&
                     cell->write.epoch == now.epoch && cell->write.era == now.era;
  const uint8_t kept = again ? cell->write.bytes : 0;
  cell->write = now;
  cell->write.bytes |= kept;
}

} // namespace

void shadow_launch(const char *name) {
  Shadow &s = shadow();
  s.name = name;
  s.launch_stamp = ++s.stamps;
  s.released.clear();
}

void shadow_block(void *shared, size_t bytes) {
  Shadow &s = shadow();
  s.shared = static_cast<char *>(shared);
  s.shared_bytes = bytes;
  s.shared_cells.resize(bytes / word + 1);
  s.block_stamp = ++s.stamps;
  s.known.clear();
  s.pending.clear();
  s.era = 1;
  memset(shared, 0xff, bytes);
}

bool shadow_shares(const void *pointer) {
  const Shadow &s = shadow();
  const char *at = static_cast<const char *>(pointer);
  return at >= s.shared && at < s.shared + s.shared_bytes;
}

void shadow_access(const Who &who, const void *pointer, size_t bytes, bool write, bool atomic) {
  Shadow &s = shadow();
  Trace now;
  now.block = who.block;
  now.thread = who.thread;
  now.epoch = who.epoch;
  now.era = s.era;
  now.atomic = atomic;
  const char *at = static_cast<const char *>(pointer);
  while (bytes > 0) {
    const unsigned skip = reinterpret_cast<uintptr_t>(at) % word;
    const unsigned here = static_cast<unsigned>(std::min<size_t>(bytes, word - skip));
    now.bytes = static_cast<uint8_t>(((1U << here) - 1U) << skip);
    access_word(s, now, at, write);
    at += here;
    bytes -= here;
  }
}

void shadow_fence() {
  Shadow &s = shadow();
  join(s.known, s.pending);
  s.pending.clear();
}

void shadow_atomic(const Who &who, const void *pointer, bool fenced) {
  Shadow &s = shadow();
  Knowledge &released = s.released[pointer];
  join(s.pending, released);
  if (!fenced)
    return;
  join(released, s.known);
  Known &mine = released[who.block];
  mine.epoch = std::max(mine.epoch, who.epoch);
  mine.eras[who.thread] = s.era++;
}

} // namespace sim
