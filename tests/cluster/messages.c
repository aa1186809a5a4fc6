/* What summing a gradient over ranks costs: in one message with the numbers of the control block
 * behind it, or in one for each tensor and three for loss, count and votes.
 *
 *   mpirun -n 2 messages FLOATS...     sizes of the tensors; prints microseconds of both */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#define CONTROL 24
#define ROUNDS 31

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Median, in microseconds. */
static double sum_parts(float *data, const int *parts, int count) {
  double seconds[ROUNDS];
  for (int round = 0; round < ROUNDS; ++round) {
    float *at = data;
    (void)MPI_Barrier(MPI_COMM_WORLD);
    const double begun = MPI_Wtime();
    for (int i = 0; i < count; ++i) {
      (void)MPI_Allreduce(MPI_IN_PLACE, at, parts[i], MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      at += parts[i];
    }
    seconds[round] = MPI_Wtime() - begun;
  }
  qsort(seconds, ROUNDS, sizeof *seconds, compare);
  return 1e6 * seconds[ROUNDS / 2];
}

int main(int argc, char **argv) {
  (void)MPI_Init(&argc, &argv);
  const int tensors = argc - 1;
  int rank = 0, total = 0, all = CONTROL;
  int *parts = calloc((size_t)tensors + 3, sizeof *parts);
  for (int i = 0; parts != NULL && i < tensors; ++i) {
    parts[i] = (int)strtol(argv[i + 1], NULL, 10);
    total += parts[i];
  }
  all += total;
  float *data = calloc((size_t)all, sizeof *data);
  if (parts == NULL || data == NULL) {
    (void)MPI_Abort(MPI_COMM_WORLD, 1);
    return 1;
  }
  parts[tensors] = parts[tensors + 1] = 2;
  parts[tensors + 2] = 4;
  (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const double one = sum_parts(data, &all, 1);
  const double many = sum_parts(data, parts, tensors + 3);
  if (rank == 0) {
    (void)printf("%.1f %.1f\n", one, many);
  }
  free(data);
  free(parts);
  (void)MPI_Finalize();
  return 0;
}
