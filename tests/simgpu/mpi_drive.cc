// Keeps the simulated device going while the host waits. Programs of several ranks are linked with
// this library in front of MPI.
//
// A GPU works on while its host is blocked in MPI; the simulated one works only in calls. Without
// this a rank that waits in MPI for a peer, whose device waits for this rank's part of a
// collective, waits for ever. So each blocking MPI call becomes its non-blocking form and a loop of
// tests and steps; where there is no such form, all ranks first meet in a barrier of that kind. The
// yields and naps of loops that wait on shared memory drive the device too.
#include <mpi.h>

#include <ctime>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sim.h"

namespace {

// The simulator belongs to the thread that calls CUDA, which is the program's main one.
bool in_main_thread() {
  static thread_local const bool main_thread = syscall(SYS_gettid) == getpid();
  return main_thread;
}

// True: something ran.
bool drive() {
  return in_main_thread() && sim::step();
}

void real_nap(long nanoseconds) {
  const timespec time = {0, nanoseconds};
  syscall(SYS_nanosleep, &time, nullptr);
}

// Rarely idle for long: yields first, naps later.
int finish(MPI_Request *request, MPI_Status *status) {
  for (unsigned idle = 0;; ++idle) {
    int done = 0;
    const int code = PMPI_Test(request, &done, status);
    if (code != MPI_SUCCESS || done != 0) {
      return code;
    }
    if (drive()) {
      idle = 0;
    } else if (idle < 200) {
      syscall(SYS_sched_yield);
    } else {
      real_nap(50000);
    }
  }
}

int finish_if(int code, MPI_Request *request) {
  return code == MPI_SUCCESS ? finish(request, MPI_STATUS_IGNORE) : code;
}

// Before a call that has no non-blocking form: after it no peer is late.
int meet(MPI_Comm comm) {
  MPI_Request request;
  return finish_if(PMPI_Ibarrier(comm, &request), &request);
}

} // namespace

extern "C" {

int MPI_Barrier(MPI_Comm comm) {
  return meet(comm);
}

int MPI_Bcast(void *data, int count, MPI_Datatype type, int root, MPI_Comm comm) {
  MPI_Request request;
  return finish_if(PMPI_Ibcast(data, count, type, root, comm, &request), &request);
}

int MPI_Allreduce(const void *send, void *receive, int count, MPI_Datatype type, MPI_Op op,
                  MPI_Comm comm) {
  MPI_Request request;
  return finish_if(PMPI_Iallreduce(send, receive, count, type, op, comm, &request), &request);
}

int MPI_Allgather(const void *send, int send_count, MPI_Datatype send_type, void *receive,
                  int receive_count, MPI_Datatype receive_type, MPI_Comm comm) {
  MPI_Request request;
  return finish_if(PMPI_Iallgather(send, send_count, send_type, receive, receive_count,
                                   receive_type, comm, &request),
                   &request);
}

int MPI_Alltoall(const void *send, int send_count, MPI_Datatype send_type, void *receive,
                 int receive_count, MPI_Datatype receive_type, MPI_Comm comm) {
  MPI_Request request;
  return finish_if(PMPI_Ialltoall(send, send_count, send_type, receive, receive_count, receive_type,
                                  comm, &request),
                   &request);
}

int MPI_Send(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm) {
  MPI_Request request;
  return finish_if(PMPI_Isend(data, count, type, to, tag, comm, &request), &request);
}

int MPI_Recv(void *data, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm,
             MPI_Status *status) {
  MPI_Request request;
  const int code = PMPI_Irecv(data, count, type, from, tag, comm, &request);
  return code == MPI_SUCCESS ? finish(&request, status) : code;
}

int MPI_Sendrecv(const void *send, int send_count, MPI_Datatype send_type, int to, int send_tag,
                 void *receive, int receive_count, MPI_Datatype receive_type, int from,
                 int receive_tag, MPI_Comm comm, MPI_Status *status) {
  MPI_Request sent;
  const int code = PMPI_Isend(send, send_count, send_type, to, send_tag, comm, &sent);
  if (code != MPI_SUCCESS) {
    return code;
  }
  const int received =
      MPI_Recv(receive, receive_count, receive_type, from, receive_tag, comm, status);
  return received == MPI_SUCCESS ? finish(&sent, MPI_STATUS_IGNORE) : received;
}

int MPI_Comm_dup(MPI_Comm comm, MPI_Comm *made) {
  const int code = meet(comm);
  return code == MPI_SUCCESS ? PMPI_Comm_dup(comm, made) : code;
}

int MPI_Comm_split(MPI_Comm comm, int color, int key, MPI_Comm *made) {
  const int code = meet(comm);
  return code == MPI_SUCCESS ? PMPI_Comm_split(comm, color, key, made) : code;
}

int MPI_Comm_split_type(MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm *made) {
  const int code = meet(comm);
  return code == MPI_SUCCESS ? PMPI_Comm_split_type(comm, type, key, info, made) : code;
}

int MPI_Comm_free(MPI_Comm *comm) {
  const int code = meet(*comm);
  return code == MPI_SUCCESS ? PMPI_Comm_free(comm) : code;
}

int MPI_Win_allocate_shared(MPI_Aint bytes, int unit, MPI_Info info, MPI_Comm comm, void *base,
                            MPI_Win *window) {
  const int code = meet(comm);
  return code == MPI_SUCCESS ? PMPI_Win_allocate_shared(bytes, unit, info, comm, base, window)
                             : code;
}

int MPI_Finalize() {
  const int code = meet(MPI_COMM_WORLD);
  return code == MPI_SUCCESS ? PMPI_Finalize() : code;
}

int sched_yield() noexcept {
  return drive() ? 0 : static_cast<int>(syscall(SYS_sched_yield));
}

int nanosleep(const timespec *time, timespec *left) {
  return drive() ? 0 : static_cast<int>(syscall(SYS_nanosleep, time, left));
}

} // extern "C"
