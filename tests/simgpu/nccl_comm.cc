// The life of a communicator, and words.
//
// Modelled: blocking communicators of one process a rank. Destroying one that a graph still holds
// is a finding, for the real library waits for the graph's end. A rank that ends leaves its peers
// waiting, as one on the same machine does.
#include "nccl_sim.h"

#include <sched.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "sim.h"

namespace nccl {

namespace {
char words[512];
} // namespace

ncclResult_t refuse(ncclResult_t code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(words, sizeof words, format, arguments);
  va_end(arguments);
  return code;
}

const char *last_words() {
  return words;
}

ncclResult_t injected(const char *call) {
  const int code = sim::injected(call);
  return code == 0 ? ncclSuccess
                   : refuse(static_cast<ncclResult_t>(code), "%s: injected failure", call);
}

namespace {

using board::Board;
using board::Seat;

void sit_down(ncclComm *comm) {
  Seat &seat = comm->shared->seats[comm->rank];
  const cudaUUID_t device = sim::device_uuid(sim::current_device());
  std::memcpy(seat.device, device.bytes, sizeof seat.device);
  comm->shared->arrived.fetch_add(1);
}

// Two ranks on one device are refused on all.
ncclResult_t check_devices(const ncclComm *comm) {
  const Seat *seats = comm->shared->seats;
  for (int i = 0; i < comm->size; ++i) {
    for (int j = 0; j < i; ++j) {
      if (std::memcmp(seats[i].device, seats[j].device, sizeof seats[i].device) == 0) {
        return refuse(ncclInvalidUsage,
                      "Duplicate GPU detected : rank %d and rank %d both on one CUDA device", j, i);
      }
    }
  }
  return ncclSuccess;
}

// Waits for all ranks while the device goes on.
ncclResult_t meet(ncclComm *comm) {
  int size = 0;
  if (!comm->shared->size.compare_exchange_strong(size, comm->size) && size != comm->size) {
    return refuse(ncclInvalidArgument, "rank %d says %d ranks, another %d", comm->rank, comm->size,
                  size);
  }
  sit_down(comm);
  while (comm->shared->arrived < comm->size) {
    if (!sim::step()) {
      sched_yield();
    }
  }
  return check_devices(comm);
}

ncclResult_t init(ncclComm_t *out, int size, const ncclUniqueId &id, int rank) {
  if (out == nullptr || size < 1 || size > board::max_ranks || rank < 0 || rank >= size) {
    return refuse(ncclInvalidArgument, "ncclCommInitRankConfig: rank %d of %d", rank, size);
  }
  if (sim::device_error() != cudaSuccess) {
    return refuse(ncclUnhandledCudaError, "ncclCommInitRankConfig: the device has failed");
  }
  Board *shared = board::open(id);
  if (shared == nullptr) {
    return refuse(ncclInvalidArgument, "ncclCommInitRankConfig: no such unique id");
  }
  ncclComm *comm =
      new ncclComm{shared, rank, size, 0, 0, false, false, ncclSuccess, std::make_shared<int>(0)};
  const ncclResult_t result = meet(comm);
  if (result != ncclSuccess) {
    board::close(shared);
    delete comm;
    return result;
  }
  *out = comm;
  return ncclSuccess;
}

void drain(ncclComm *comm) {
  sim::drive_until([comm] { return comm->finished == comm->issued || comm->aborted; });
}

void end(ncclComm *comm, const char *call) {
  if (comm->holds.use_count() > 1) {
    sim::finding(sim::Kind::handle,
                 "%s while a graph holds collectives of the communicator: destroy the executable "
                 "graph and the graph first",
                 call);
  }
  comm->shared->seats[comm->rank].left = 1;
  if (comm->connected) {
    sim::give_memory(buffer_bytes);
  }
  board::close(comm->shared);
  delete comm;
}

} // namespace

} // namespace nccl

ncclResult_t ncclGetVersion(int *version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
  const ncclResult_t result = nccl::injected("ncclGetUniqueId");
  if (result != ncclSuccess) {
    return result;
  }
  return board::make(id) ? ncclSuccess
                         : nccl::refuse(ncclSystemError, "ncclGetUniqueId: no memory file");
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config) {
  const ncclResult_t result = nccl::injected("ncclCommInitRankConfig");
  if (result != ncclSuccess) {
    return result;
  }
  if (config != nullptr && config->blocking == 0) {
    return nccl::refuse(ncclInvalidUsage, "the simulator has blocking communicators only");
  }
  return nccl::init(comm, size, id, rank);
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  const ncclResult_t result = nccl::injected("ncclCommFinalize");
  if (result == ncclSuccess) {
    nccl::drain(comm);
  }
  return result;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  const ncclResult_t result = nccl::injected("ncclCommDestroy");
  if (result == ncclSuccess && comm != nullptr) {
    nccl::drain(comm);
    nccl::end(comm, "ncclCommDestroy");
  }
  return result;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  const ncclResult_t result = nccl::injected("ncclCommAbort");
  if (result == ncclSuccess && comm != nullptr) {
    comm->aborted = true;
    sim::drive_until([comm] { return comm->finished == comm->issued; });
    nccl::end(comm, "ncclCommAbort");
  }
  return result;
}

// An injected code is what is reported of the communicator, from then on.
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error) {
  const ncclResult_t result = nccl::injected("ncclCommGetAsyncError");
  if (result != ncclSuccess) {
    comm->async_error = result;
  }
  *error = comm->async_error;
  return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
  switch (result) {
  case ncclSuccess:
    return "no error";
  case ncclUnhandledCudaError:
    return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
  case ncclSystemError:
    return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
  case ncclInternalError:
    return "internal error - please report this issue to the NCCL developers";
  case ncclInvalidArgument:
    return "invalid argument (run with NCCL_DEBUG=WARN for details)";
  case ncclInvalidUsage:
    return "invalid usage (run with NCCL_DEBUG=WARN for details)";
  case ncclRemoteError:
    return "remote process exited or there was a network error";
  case ncclInProgress:
    return "NCCL operation in progress";
  default:
    return "unknown result code";
  }
}

const char *ncclGetLastError(ncclComm_t) {
  return nccl::last_words();
}
