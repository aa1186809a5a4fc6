// The substitute for NCCL, inside: communicators of processes on this machine.
#ifndef SIMGPU_NCCL_SIM_H
#define SIMGPU_NCCL_SIM_H

#include <nccl.h>

#include <cstdint>
#include <memory>

#include "nccl_board.h"

struct ncclComm {
  board::Board *shared;
  int rank, size;
  uint64_t issued;            // collectives, in the order the host issued them
  uint64_t finished;          // of those, by the device
  bool connected;             // has made a sum, and holds `buffer_bytes` of the device
  bool aborted;               // what is in flight ends without a result
  ncclResult_t async_error;   // sticky
  std::shared_ptr<int> holds; // copies are in the hands of captured collectives
};

namespace nccl {

constexpr size_t buffer_bytes = 4 << 20;

// Keeps the words for ncclGetLastError and returns the code.
ncclResult_t refuse(ncclResult_t code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
const char *last_words();

// The result for an injected code, with words; success for 0.
ncclResult_t injected(const char *call);

} // namespace nccl

#endif
