/* Preloaded into a program under test: how often its main thread communicates by MPI, and how many
 * bytes it has to send for that to other ranks. The profiling interface does the work.
 *
 * $PRETEND_NODES splits the machine: so many equal groups of ranks then take each other for ranks
 * of other nodes. What communicates and is not here is not counted: the test looks for that. */
#include <mpi.h>

#include "counts.h"

static long long counts[2]; /* calls, bytes; written by the main thread alone */

static void note(long long bytes) {
  if (is_main_thread()) {
    counts[0] += 1;
    counts[1] += bytes;
  }
}

static long long bytes_of(int count, MPI_Datatype type) {
  int size = 0;
  if (type != MPI_DATATYPE_NULL) {
    (void)PMPI_Type_size(type, &size);
  }
  return (long long)count * size;
}

static int size_of(MPI_Comm comm) {
  int size = 1;
  (void)PMPI_Comm_size(comm, &size);
  return size;
}

int MPI_Comm_split_type(MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm *out) {
  const char *text = getenv("PRETEND_NODES");
  const int nodes = text != NULL ? atoi(text) : 0;
  int rank = 0;
  if (nodes <= 0) {
    return PMPI_Comm_split_type(comm, type, key, info, out);
  }
  (void)PMPI_Comm_rank(comm, &rank);
  return PMPI_Comm_split(comm, rank * nodes / size_of(comm), key, out);
}

/* A rank's part goes to all others. */
int MPI_Allgather(const void *in, int in_count, MPI_Datatype in_type, void *out, int out_count,
                  MPI_Datatype out_type, MPI_Comm comm) {
  note((size_of(comm) - 1) * bytes_of(out_count, out_type));
  return PMPI_Allgather(in, in_count, in_type, out, out_count, out_type, comm);
}

/* Another part goes to each of the others. */
int MPI_Alltoall(const void *in, int in_count, MPI_Datatype in_type, void *out, int out_count,
                 MPI_Datatype out_type, MPI_Comm comm) {
  note((size_of(comm) - 1) * bytes_of(out_count, out_type));
  return PMPI_Alltoall(in, in_count, in_type, out, out_count, out_type, comm);
}

/* The least there is: pieces to their owners, and sums of pieces to all. */
int MPI_Allreduce(const void *in, void *out, int count, MPI_Datatype type, MPI_Op op,
                  MPI_Comm comm) {
  const int size = size_of(comm);
  note(2 * (size - 1) * bytes_of(count, type) / size);
  return PMPI_Allreduce(in, out, count, type, op, comm);
}

int MPI_Bcast(void *data, int count, MPI_Datatype type, int root, MPI_Comm comm) {
  int rank = 0;
  (void)PMPI_Comm_rank(comm, &rank);
  note(rank == root ? (size_of(comm) - 1) * bytes_of(count, type) : 0);
  return PMPI_Bcast(data, count, type, root, comm);
}

int MPI_Send(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm) {
  note(bytes_of(count, type));
  return PMPI_Send(data, count, type, to, tag, comm);
}

int MPI_Recv(void *data, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm,
             MPI_Status *status) {
  note(0);
  return PMPI_Recv(data, count, type, from, tag, comm, status);
}

int MPI_Sendrecv(const void *data, int count, MPI_Datatype type, int to, int tag, void *received,
                 int received_count, MPI_Datatype received_type, int from, int received_tag,
                 MPI_Comm comm, MPI_Status *status) {
  note(bytes_of(count, type));
  return PMPI_Sendrecv(data, count, type, to, tag, received, received_count, received_type, from,
                       received_tag, comm, status);
}

int MPI_Barrier(MPI_Comm comm) {
  note(0);
  return PMPI_Barrier(comm);
}

int MPI_Ibarrier(MPI_Comm comm, MPI_Request *request) {
  note(0);
  return PMPI_Ibarrier(comm, request);
}

__attribute__((destructor)) static void tell(void) {
  tell_counts(counts, 2);
}
