/* The shadow: which bytes are in a block and written, and who touched each word last. */
#include <cstring>

#include "core.h"

namespace sim {

static const char *verb(bool write) {
  return write ? "writes" : "reads";
}

/* The bits of a word's bytes that lie in [offset, end). */
static unsigned byte_mask(size_t at, size_t offset, size_t end) {
  unsigned mask = 0xf;
  if (at < offset)
    mask &= 0xfU << (offset - at);
  if (end < at + word)
    mask &= 0xfU >> (at + word - end);
  return mask;
}

void set_state(const Block &block, bool live, bool written) {
  const Arena &arena = *arena_of(block.base);
  const auto offset = static_cast<size_t>(block.base - arena.base);
  const unsigned bits = live ? (written ? 0x11U : 0x01U) : 0;
  uint8_t *state = arena.state + offset / word;
  memset(state, static_cast<int>(bits * 0xf), block.bytes / word);
  const size_t tail = block.bytes % word;
  if (tail)
    state[block.bytes / word] = static_cast<uint8_t>(bits * ((1U << tail) - 1));
}

static void report_outside(const char *pointer, size_t bytes, bool write, const char *what) {
  const Block *block = block_of(pointer);
  if (block && !block->live)
    finding(Kind::freed, "%s %s %zu bytes at %s, which was freed", what, verb(write), bytes,
            describe(pointer));
  else if (block)
    finding(Kind::bounds, "%s %s %zu bytes at %s", what, verb(write), bytes, describe(pointer));
  else
    finding(Kind::bounds, "%s %s %zu bytes at %p, in no block", what, verb(write), bytes,
            static_cast<const void *>(pointer));
}

static void report_race(const char *what, bool write, const char *pointer, Epoch other,
                        bool wrote) {
  finding(Kind::race, "%s %s %s, which '%s' %s: neither is ordered after the other", what,
          verb(write), describe(pointer), name_of(other), wrote ? "writes" : "reads");
}

/* The epoch that is unordered with an access under `clock`; 0: none. */
static Epoch conflict(const Cell &cell, const Clock &clock, Epoch me, bool write, bool *wrote) {
  *wrote = true;
  if (cell.writer && cell.writer != me && !clock.covers(cell.writer))
    return cell.writer;
  *wrote = false;
  if (write)
    for (const Epoch reader : cell.readers)
      if (reader && reader != me && !clock.covers(reader))
        return reader;
  return 0;
}

static void record(Cell &cell, const Clock &clock, Epoch me, bool write) {
  if (write) {
    cell = {me, {0, 0, 0}};
    return;
  }
  for (Epoch &reader : cell.readers)
    if (reader == me || reader == 0 || clock.covers(reader)) {
      reader = me;
      return;
    }
  cell.readers[0] = cell.readers[1];
  cell.readers[1] = cell.readers[2];
  cell.readers[2] = me;
}

/* Finds and records; false: a finding was made. */
static bool check_word(Cell &cell, const Task &task, bool write, const char *what,
                       const char *pointer) {
  bool wrote;
  const Epoch other = conflict(cell, task.clock, task.epoch, write, &wrote);
  record(cell, task.clock, task.epoch, write);
  if (!other)
    return true;
  report_race(what, write, pointer, other, wrote);
  return false;
}

/* What may not be accessed at all by the running operation. */
static bool refused(const Arena *arena, const char *pointer, size_t bytes, bool write,
                    const char *what) {
  if (!running()) {
    finding(Kind::internal, "%s: access outside of an operation", what);
    return true;
  }
  if (!arena) {
    finding(Kind::host_access, "%s %s %zu bytes at %p, which is no device or pinned memory", what,
            verb(write), bytes, static_cast<const void *>(pointer));
    return true;
  }
  if (!running()->op.kernel || memory_of(pointer) != Memory::pinned)
    return false;
  const Block *block = block_of(pointer);
  if (!block || !block->live || block->mapped)
    return false;
  finding(Kind::unmodelled, "%s %s %s, which was not allocated as mapped", what, verb(write),
          describe(pointer));
  return true;
}

static void touch(const void *pointer, size_t bytes, bool write, bool check_written,
                  const char *what) {
  const auto *first = static_cast<const char *>(pointer);
  Arena *arena = arena_of(pointer);
  if (bytes == 0 || refused(arena, first, bytes, write, what))
    return;
  const Task &task = *running();
  const auto offset = static_cast<size_t>(first - arena->base);
  const size_t end = offset + bytes;
  for (size_t at = offset / word * word; at < end; at += word) {
    const unsigned mask = byte_mask(at, offset, end);
    uint8_t &state = arena->state[at / word];
    if ((state & mask) != mask) {
      report_outside(at < offset ? first : arena->base + at, bytes, write, what);
      return;
    }
    if (write)
      state = static_cast<uint8_t>(state | mask << 4);
    else if (check_written && (state >> 4 & mask) != mask) {
      finding(Kind::uninitialised, "%s reads %s, which nothing wrote", what,
              describe(arena->base + at));
      return;
    }
    if (!check_word(arena->cells[at / word], task, write, what, arena->base + at))
      return;
  }
}

void access(const void *pointer, size_t bytes, bool write, const char *what) {
  touch(pointer, bytes, write, true, what);
}

void access_source(const void *pointer, size_t bytes, const char *what) {
  touch(pointer, bytes, false, false, what);
}

void poison(void *pointer, size_t bytes, const char *what) {
  access(pointer, bytes, true, what);
  if (bytes_left(pointer) < bytes)
    return;
  Block part;
  part.base = static_cast<char *>(pointer);
  part.bytes = bytes;
  set_state(part, true, false);
  memset(pointer, nan_byte, bytes);
}

void copy_state(void *to, const void *from, size_t bytes) {
  const Arena &source = *arena_of(from), &target = *arena_of(to);
  const auto a = static_cast<size_t>(static_cast<const char *>(from) - source.base);
  const auto b = static_cast<size_t>(static_cast<char *>(to) - target.base);
  for (size_t i = 0; i < bytes; ++i) {
    const unsigned written = source.state[(a + i) / word] >> (4 + (a + i) % word) & 1;
    uint8_t &state = target.state[(b + i) / word];
    const unsigned bit = 0x10U << ((b + i) % word);
    state = static_cast<uint8_t>(written ? state | bit : state & ~bit);
  }
}

void host_touches(const void *pointer, bool write) {
  Block *block = block_of(pointer);
  const auto *address = static_cast<const char *>(pointer);
  const Clock &clock = host_clock();
  for (const Flight &flight : block->flights)
    if (!flight.kernel && (flight.write || write) && flight.begin <= address &&
        address < flight.end && !clock.covers(flight.epoch)) {
      report_race("the host", write, address, flight.epoch, flight.write);
      return;
    }
  const Arena &arena = *arena_of(pointer);
  Cell &cell = arena.cells[static_cast<size_t>(address - arena.base) / word];
  const Epoch me = latest(host_lane);
  bool wrote;
  const Epoch other = conflict(cell, clock, me, write, &wrote);
  record(cell, clock, me, write);
  if (other)
    report_race("the host", write, address, other, wrote);
}

} // namespace sim
