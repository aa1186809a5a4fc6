// The collective that the program uses, a sum of fp32: an operation that posts, waits for its peers
// and takes. Sums are made in rank order.
//
// A call is numbered when the host issues it, so that replays of a graph count anew. All ranks must
// give the n-th call the same count: another is a finding (the real library hangs, or mixes data).
//
// As the real library does, a communicator takes device memory at its first sum, not when it is
// made.
//
// `collective` is the name under which SIMGPU_FAIL counts them as the device comes to them: a code
// becomes the communicator's asynchronous error and the collective never ends; `kill` is a rank
// that dies inside.
#include <algorithm>
#include <cstring>
#include <vector>

#include "nccl_sim.h"
#include "sim.h"

namespace {

struct Collective {
  ncclComm *comm;
  const void *send;
  void *receive;
  size_t count, bytes;
};

// ---- one collective on the board

bool all_took(const Collective &one, uint64_t number) {
  const board::Seat *seats = one.comm->shared->seats;
  return std::all_of(seats, seats + one.comm->size,
                     [number](const board::Seat &seat) { return seat.taken >= number; });
}

void post(const Collective &one, uint64_t number) {
  board::Board *shared = one.comm->shared;
  board::Seat &seat = shared->seats[one.comm->rank];
  seat.count = one.count;
  std::memcpy(shared->slot(one.comm->rank), one.send, one.bytes);
  seat.posted = number;
}

// Whether all have posted it, in accord.
bool all_posted(const Collective &one, uint64_t number) {
  for (int rank = 0; rank < one.comm->size; ++rank) {
    const board::Seat &seat = one.comm->shared->seats[rank];
    if (seat.posted < number) {
      if (seat.left != 0) {
        sim::finding(sim::Kind::collective,
                     "call %llu sums %zu elements, but rank %d never made it",
                     static_cast<unsigned long long>(number), one.count, rank);
      }
      return false;
    }
  }
  for (int rank = 0; rank < one.comm->size; ++rank) {
    const size_t count = one.comm->shared->seats[rank].count;
    if (count != one.count) {
      sim::finding(sim::Kind::collective, "call %llu sums %zu elements, but %zu on rank %d",
                   static_cast<unsigned long long>(number), one.count, count, rank);
    }
  }
  return true;
}

void sum(const Collective &one) {
  float *out = static_cast<float *>(one.receive);
  std::memcpy(out, one.comm->shared->slot(0), one.bytes);
  for (int rank = 1; rank < one.comm->size; ++rank) {
    const float *term = reinterpret_cast<const float *>(one.comm->shared->slot(rank));
    for (size_t i = 0; i < one.count; ++i) {
      out[i] += term[i];
    }
  }
}

// ---- as an operation

// One launch of what a group holds, each member in turn.
struct Launch {
  std::vector<Collective> members;
  std::vector<uint64_t> numbers;
  size_t at = 0;
  bool posted = false;
  bool stuck = false; // an injected failure: never ends, but by an abort
};

// Memory that is no longer there is found by the engine when the operation runs.
bool reachable(const Collective &one) {
  return sim::bytes_left(one.send) >= one.bytes && sim::bytes_left(one.receive) >= one.bytes;
}

bool advance(Launch *launch) {
  const sim::Open open;
  for (; launch->at < launch->members.size(); ++launch->at, launch->posted = false) {
    const Collective &one = launch->members[launch->at];
    const uint64_t number = launch->numbers[launch->at];
    if (one.comm->aborted || !reachable(one)) {
      return true;
    }
    if (launch->stuck) {
      return false;
    }
    if (!launch->posted) {
      if (!all_took(one, number - 1)) {
        return false;
      }
      const ncclResult_t failure = nccl::injected("collective");
      if (failure != ncclSuccess) {
        one.comm->async_error = failure;
        launch->stuck = true;
        return false;
      }
      post(one, number);
      launch->posted = true;
    }
    if (!all_posted(one, number)) {
      return false;
    }
    sum(one);
    one.comm->shared->seats[one.comm->rank].taken = number;
  }
  return true;
}

ncclResult_t enqueue(const std::vector<Collective> &members, cudaStream_t stream) {
  sim::Op op;
  op.name = members.size() == 1 ? "nccl collective" : "nccl group";
  std::shared_ptr<int> hold = members[0].comm->holds;
  for (const Collective &one : members) {
    op.spans.push_back({one.send, one.bytes, false});
    op.spans.push_back({one.receive, one.bytes, true});
  }
  op.issue = [members, hold](sim::Op &issued) {
    const auto launch = std::make_shared<Launch>();
    launch->members = members;
    for (const Collective &one : members) {
      launch->numbers.push_back(++one.comm->issued);
    }
    issued.ready = [launch] { return advance(launch.get()); };
    issued.run = [launch] {
      for (const Collective &one : launch->members) {
        ++one.comm->finished;
      }
    };
  };
  if (!sim::capturing(stream)) {
    sim::count(sim::Counter::collectives, static_cast<int64_t>(members.size()));
  }
  if (sim::enqueue(stream, op) != cudaSuccess) {
    return nccl::refuse(ncclUnhandledCudaError, "ncclAllReduce: the device or the stream refuses");
  }
  return ncclSuccess;
}

// A single rank: the real library copies, and does nothing where the result is in place.
ncclResult_t copy(const Collective &one, cudaStream_t stream) {
  if (one.send == one.receive) {
    return ncclSuccess;
  }
  sim::Op op;
  op.name = "nccl copy";
  op.spans = {{one.send, one.bytes, false}, {one.receive, one.bytes, true}};
  op.run = [one] { std::memcpy(one.receive, one.send, one.bytes); };
  return sim::enqueue(stream, op) == cudaSuccess
             ? ncclSuccess
             : nccl::refuse(ncclUnhandledCudaError, "ncclAllReduce: the stream refuses");
}

// ---- groups

struct Group {
  int depth = 0;
  cudaStream_t stream = nullptr;
  std::vector<Collective> members;
};

Group &group() {
  static Group one;
  return one;
}

ncclResult_t submit(const Collective &one, cudaStream_t stream) {
  if (one.comm == nullptr || one.receive == nullptr || one.send == nullptr) {
    return nccl::refuse(ncclInvalidArgument, "ncclAllReduce: a null pointer");
  }
  if (one.bytes > board::slot_bytes) {
    return nccl::refuse(ncclInternalError, "ncclAllReduce: the simulator carries %zu bytes at most",
                        board::slot_bytes);
  }
  if (one.comm->size == 1) {
    return copy(one, stream);
  }
  if (!one.comm->connected) {
    if (!sim::take_memory(nccl::buffer_bytes)) {
      return nccl::refuse(ncclUnhandledCudaError, "Cuda failure 2 'out of memory'");
    }
    one.comm->connected = true;
  }
  Group &pending = group();
  if (pending.depth == 0) {
    return enqueue({one}, stream);
  }
  if (!pending.members.empty() &&
      (pending.stream != stream || pending.members[0].comm != one.comm)) {
    return nccl::refuse(
        ncclInvalidUsage,
        "ncclAllReduce: the simulator has groups of one communicator and one stream");
  }
  pending.stream = stream;
  pending.members.push_back(one);
  return ncclSuccess;
}

} // namespace

ncclResult_t ncclAllReduce(const void *send, void *receive, size_t count, ncclDataType_t type,
                           ncclRedOp_t reduction, ncclComm_t comm, cudaStream_t stream) {
  const ncclResult_t result = nccl::injected("ncclAllReduce");
  if (result != ncclSuccess) {
    return result;
  }
  if (type != ncclFloat32 || reduction != ncclSum) {
    return nccl::refuse(ncclInvalidArgument, "ncclAllReduce: the simulator sums fp32 only");
  }
  return submit({comm, send, receive, count, count * sizeof(float)}, stream);
}

ncclResult_t ncclGroupStart() {
  ++group().depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  Group &pending = group();
  if (pending.depth == 0) {
    return nccl::refuse(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
  }
  if (--pending.depth > 0 || pending.members.empty()) {
    return ncclSuccess;
  }
  std::vector<Collective> members;
  members.swap(pending.members);
  return enqueue(members, pending.stream);
}
