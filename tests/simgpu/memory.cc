/* Memory: arenas of addresses that are given out once, and the blocks in them.
 *
 * Device memory is closed to the host (PROT_NONE) but while an operation runs. Its pages lie parked
 * at another address then, and are moved back by mremap, which moves page tables: changing the
 * protection of each page would take a hundred times as long. A block ends in a
 * sentinel, which code that is not instrumented would damage; everything else is seen by access().
 * Freed blocks stay known, their pages and shadow go back to the system. */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>

#include "core.h"

namespace sim {

constexpr size_t page = 4096, device_align = 512;

struct Blocks {
  Arena arenas[max_devices + 1]; /* pinned memory, then the devices */
  std::map<const char *, Block> all;
  std::vector<Block *> pinned;
  size_t device_used[max_devices] = {};
  unsigned open = 0;
};

static Blocks &blocks() {
  static Blocks *const one = new Blocks;
  return *one;
}

static size_t round_up(size_t bytes, size_t to) {
  return (bytes + to - 1) / to * to;
}

/* ---- arenas */

static char *reserve(size_t bytes, int protection) {
  void *got = mmap(nullptr, bytes + piece_bytes, protection,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (got == MAP_FAILED)
    finding(Kind::internal, "cannot reserve %zu GiB of addresses", bytes >> 30);
  madvise(got, bytes + piece_bytes, MADV_DONTDUMP);
  return reinterpret_cast<char *>(round_up(reinterpret_cast<uintptr_t>(got), piece_bytes));
}

static Arena &arena(size_t slot) {
  Arena &one = blocks().arenas[slot];
  if (one.base)
    return one;
  constexpr int open = PROT_READ | PROT_WRITE;
  one.state = reinterpret_cast<uint8_t *>(reserve(arena_bytes / word, open));
  one.cells = reinterpret_cast<Cell *>(reserve(arena_bytes / word * sizeof(Cell), open));
  if (slot > 0)
    one.park = reserve(arena_bytes, open);
  one.base = reserve(arena_bytes, PROT_NONE);
  guard_install();
  return one;
}

Arena *arena_of(const void *pointer) {
  static Arena *const arenas = blocks().arenas;
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  for (int i = 0; i <= max_devices; ++i) {
    const auto base = reinterpret_cast<uintptr_t>(arenas[i].base);
    if (base && address - base < arena_bytes)
      return &arenas[i];
  }
  return nullptr;
}

Memory memory_of(const void *pointer) {
  const Arena *one = arena_of(pointer);
  if (!one)
    return Memory::other;
  return one == blocks().arenas ? Memory::pinned : Memory::device;
}

bool place_of(const void *pointer, uint64_t *place) {
  const Arena *one = arena_of(pointer);
  if (!one)
    return false;
  const auto slot = static_cast<uint64_t>(one - blocks().arenas);
  *place =
      slot * arena_bytes + static_cast<uint64_t>(static_cast<const char *>(pointer) - one->base);
  return true;
}

/* ---- opening */

static void move_pages(char *from, char *to) {
  if (mremap(from, piece_bytes, piece_bytes, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
             to) != to)
    finding(Kind::internal, "cannot move the pages of device memory (Linux 5.7 can)");
}

static void move_devices(bool open) {
  for (int i = 1; i <= max_devices; ++i) {
    const Arena &one = blocks().arenas[i];
    for (size_t at = 0; at < one.used; at += piece_bytes) {
      if (one.live[at / piece_bytes] == 0)
        continue;
      if (open) {
        move_pages(one.park + at, one.base + at);
        continue;
      }
      move_pages(one.base + at, one.park + at);
      if (mprotect(one.base + at, piece_bytes, PROT_NONE))
        finding(Kind::internal, "cannot close device memory");
    }
  }
}

Open::Open() {
  if (blocks().open++ > 0)
    return;
  move_devices(true);
  guard_open();
}

Open::~Open() {
  if (--blocks().open > 0)
    return;
  guard_close();
  move_devices(false);
}

/* ---- blocks */

Block *block_of(const void *pointer) {
  const auto *address = static_cast<const char *>(pointer);
  std::map<const char *, Block> &all = blocks().all;
  auto after = all.upper_bound(address);
  if (after == all.begin())
    return nullptr;
  Block &block = std::prev(after)->second;
  return address < block.base + block.reserved ? &block : nullptr;
}

size_t bytes_left(const void *pointer) {
  const Block *block = block_of(pointer);
  if (!block || !block->live)
    return 0;
  const auto offset = static_cast<size_t>(static_cast<const char *>(pointer) - block->base);
  return offset < block->bytes ? block->bytes - offset : 0;
}

const char *describe(const void *pointer) {
  static thread_local char texts[4][96];
  static thread_local unsigned next;
  char *text = texts[next++ % 4];
  const Block *block = block_of(pointer);
  if (!block)
    snprintf(text, sizeof texts[0], "%p", pointer);
  else
    snprintf(text, sizeof texts[0], "+%zd of %s block %u (%zu bytes)",
             static_cast<const char *>(pointer) - block->base, block->pinned ? "pinned" : "device",
             block->number, block->bytes);
  return text;
}

std::vector<Block *> &pinned_blocks() {
  return blocks().pinned;
}

size_t memory_total() {
  static const size_t bytes = setting("SIMGPU_MEMORY", size_t{64} << 20);
  return bytes;
}

size_t memory_used() {
  return blocks().device_used[current_device()];
}

static void count_pieces(Arena &where, const Block &block, int by) {
  const auto first = static_cast<size_t>(block.base - where.base);
  for (size_t i = first / piece_bytes; i <= (first + block.reserved - 1) / piece_bytes; ++i)
    where.live[i] += by;
}

/* Takes addresses for a block, `reserved` bytes of them. */
static Block &place(Arena &where, size_t bytes, size_t reserved) {
  static unsigned made;
  if (where.used + reserved > arena_bytes)
    finding(Kind::unmodelled, "all of %zu GiB of addresses are used up", arena_bytes >> 30);
  GuardLock lock;
  Block block;
  block.base = where.base + where.used;
  block.bytes = bytes;
  block.reserved = reserved;
  block.number = ++made;
  count_pieces(where, block, 1);
  where.used += reserved;
  return blocks().all[block.base] = block;
}

static void fill(const Block &block) {
  memset(block.base, nan_byte, block.bytes);
  memset(block.base + block.bytes, sentinel, block.reserved - block.bytes);
}

bool take_memory(size_t bytes) {
  size_t &used = blocks().device_used[current_device()];
  if (bytes > memory_total() - used)
    return false;
  used += bytes;
  return true;
}

void give_memory(size_t bytes) {
  blocks().device_used[current_device()] -= bytes;
}

void *allocate_device(size_t bytes) {
  size_t &used = blocks().device_used[current_device()];
  const size_t rounded = round_up(bytes, device_align);
  if (rounded < bytes || rounded > memory_total() - used)
    return nullptr;
  Arena &where = arena(static_cast<size_t>(current_device()) + 1);
  Block &block = place(where, bytes, rounded + device_align);
  block.device = current_device();
  used += rounded;
  const Open open;
  fill(block);
  set_state(block, true, false);
  return block.base;
}

/* On pages of its own, with a closed one behind. */
void *allocate_pinned(size_t bytes, bool mapped) {
  Block &block = place(arena(0), bytes, round_up(bytes, page) + page);
  const size_t pages = round_up(bytes, page);
  if (mprotect(block.base, pages, PROT_READ | PROT_WRITE))
    finding(Kind::internal, "cannot open %zu bytes of pinned memory", bytes);
  memset(block.base, nan_byte, bytes);
  memset(block.base + bytes, sentinel, pages - bytes);
  set_state(block, true, true);
  GuardLock lock;
  block.pinned = true;
  block.mapped = mapped;
  block.protection.assign(pages / page, PROT_READ | PROT_WRITE);
  blocks().pinned.push_back(&block);
  return block.base;
}

static void check_sentinel(const Block &block) {
  const size_t end = block.pinned ? block.reserved - page : block.reserved;
  for (size_t i = block.bytes; i < end; ++i)
    if (static_cast<unsigned char>(block.base[i]) != sentinel) {
      finding(Kind::bounds, "something wrote %s, behind its end", describe(block.base + i));
      return;
    }
}

/* Whole pages inside [begin, begin + bytes) go back to the system. */
static void give_back(void *begin, size_t bytes) {
  const auto start = round_up(reinterpret_cast<uintptr_t>(begin), page);
  const auto end = (reinterpret_cast<uintptr_t>(begin) + bytes) / page * page;
  if (end > start)
    madvise(reinterpret_cast<void *>(start), end - start, MADV_DONTNEED);
}

static void let_go(Block &block) {
  {
    const Open open;
    check_sentinel(block);
    give_back(block.base, block.bytes);
  }
  set_state(block, false, false);
  Arena &where = *arena_of(block.base);
  const auto first = static_cast<size_t>(block.base - where.base) / word;
  give_back(&where.cells[first], block.bytes / word * sizeof(Cell));
  count_pieces(where, block, -1);
  GuardLock lock;
  block.live = false;
  block.flights.clear();
  if (!block.pinned) {
    blocks().device_used[block.device] -= round_up(block.bytes, device_align);
    return;
  }
  std::vector<Block *> &pinned = blocks().pinned;
  for (size_t i = 0; i < pinned.size(); ++i)
    if (pinned[i] == &block)
      pinned.erase(pinned.begin() + static_cast<ptrdiff_t>(i));
  mprotect(block.base, block.reserved, PROT_NONE);
}

bool release(void *pointer, bool pinned) {
  Block *block = block_of(pointer);
  if (!block || !block->live || block->base != pointer || block->pinned != pinned)
    return false;
  let_go(*block);
  return true;
}

void release_all() {
  for (auto &entry : blocks().all)
    if (entry.second.live)
      let_go(entry.second);
}

/* Damage by code that is not instrumented shows at the latest here. */
static void check_at_exit() {
  if (blocks().all.empty())
    return;
  const Open open;
  for (const auto &entry : blocks().all)
    if (entry.second.live)
      check_sentinel(entry.second);
}
[[maybe_unused]] static const int at_exit = atexit(check_at_exit);

} // namespace sim
