#include "nccl_board.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace board {

namespace {

constexpr char id_words[] = "simgpu nccl";
constexpr size_t page = 4096;

size_t head_bytes() {
  return (sizeof(Board) + page - 1) / page * page;
}

size_t file_bytes() {
  return head_bytes() + max_ranks * slot_bytes;
}

} // namespace

unsigned char *Board::slot(int rank) {
  return reinterpret_cast<unsigned char *>(this) + head_bytes() +
         static_cast<size_t>(rank) * slot_bytes;
}

bool make(ncclUniqueId *id) {
  const int file = memfd_create(id_words, MFD_CLOEXEC); // stays open: the id may yet be used
  if (file < 0 || ftruncate(file, static_cast<off_t>(file_bytes())) != 0) {
    return false;
  }
  std::memset(id, 0, sizeof *id);
  std::snprintf(id->internal, sizeof id->internal, "%s /proc/%ld/fd/%d", id_words,
                static_cast<long>(getpid()), file);
  return true;
}

Board *open(const ncclUniqueId &id) {
  char text[sizeof id.internal + 1] = {};
  std::memcpy(text, id.internal, sizeof id.internal);
  const size_t words = sizeof id_words - 1;
  if (std::strncmp(text, id_words, words) != 0 || text[words] != ' ') {
    return nullptr;
  }
  const int file = ::open(text + words + 1, O_RDWR | O_CLOEXEC);
  if (file < 0) {
    return nullptr;
  }
  void *memory =
      mmap(nullptr, file_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
  ::close(file);
  return memory == MAP_FAILED ? nullptr : static_cast<Board *>(memory);
}

void close(Board *board) {
  munmap(board, file_bytes());
}

} // namespace board
