/* The exchange across nodes, on one machine: the world's node and slice communicators are split
 * anew, so that ranks of one host stand for several nodes. Run under mpirun; integers make every
 * sum exact. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/exchange.h"
#include "model/model.h"
#include "plan/control.h"
#include "world/world.h"

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      (void)fprintf(stderr, "rank %d: %s:%d: %s\n", world->rank, __FILE__, __LINE__, #condition);  \
      (void)MPI_Abort(MPI_COMM_WORLD, 1);                                                          \
      abort();                                                                                     \
    }                                                                                              \
  } while (0)

/* Node of a rank when `nodes` nodes share size ranks, the first ones getting more. */
static int node_of(int rank, int size, int nodes) {
  const int most = (size + nodes - 1) / nodes;
  return rank / most;
}

/* Splits the world as lks_world_open would on that many hosts. */
static void pretend_nodes(lks_world *world, int nodes) {
  const int color = node_of(world->rank, world->size, nodes);
  (void)MPI_Comm_free(&world->node);
  if (world->slice != MPI_COMM_NULL) {
    (void)MPI_Comm_free(&world->slice);
  }
  (void)MPI_Comm_split(world->comm, color, world->rank, &world->node);
  (void)MPI_Comm_rank(world->node, &world->local_rank);
  (void)MPI_Comm_size(world->node, &world->local_size);
  world->node_index = color;
  world->nodes = node_of(world->size - 1, world->size, nodes) + 1;
  (void)MPI_Allreduce(&world->local_size, &world->slices, 1, MPI_INT, MPI_MIN, world->comm);
  (void)MPI_Comm_split(world->comm,
                       world->local_rank < world->slices ? world->local_rank : MPI_UNDEFINED,
                       world->node_index, &world->slice);
}

static float value(int rank, size_t i, int round) {
  return (float)((rank + 1) * (int)(i % 13 + 1) + round);
}

/* One round: sgd of rate 1 takes the summed gradient off every parameter. */
static void run_round(lks_world *world, lks_exchange *exchange, size_t count, int round,
                      const lks_votes *votes, lks_control *control) {
  lks_error err;
  float *control_block = exchange->gradients + count;
  for (size_t i = 0; i < count; ++i) {
    exchange->gradients[i] = value(world->rank, i, round);
  }
  memset(control_block, 0, LKS_CONTROL_FLOATS * sizeof(float));
  lks_control_put_real(control_block + LKS_CONTROL_LOSS, 0.25 * (world->rank + 1));
  lks_control_put_count(control_block + LKS_CONTROL_ROWS, 5000 + world->rank);
  control_block[LKS_CONTROL_STOP] = votes->stop ? 1.0f : 0.0f;
  control_block[LKS_CONTROL_FAILED] = votes->failed ? 1.0f : 0.0f;
  const lks_update update = {.id = LKS_OPTIMIZER_SGD, .learning_rate = 1.0f};
  CHECK(lks_exchange_run(exchange, &update, control, &err) == LKS_OK);
}

static void try_exchange(lks_world *world, size_t count) {
  enum { ROUNDS = 3 };
  lks_error err;
  lks_exchange exchange;
  const char *note = NULL;
  const int size = world->size;
  CHECK(lks_exchange_open(&exchange, world, count, count + LKS_TENSOR_ALIGN, 0, 30.0, &note,
                          &err) == LKS_OK);
  CHECK(note == NULL);
  for (int round = 0; round < ROUNDS; ++round) {
    const lks_votes votes = {.stop = world->rank == size - 1 && round == 1,
                             .failed = world->rank == 0 && round == 2};
    lks_control control = {0};
    run_round(world, &exchange, count, round, &votes, &control);
    CHECK(control.loss == 0.25 * size * (size + 1) / 2);
    CHECK(control.rows == (int64_t)5000 * size + size * (size - 1) / 2);
    CHECK(control.stop == (round == 1 ? 1 : 0));
    CHECK(control.failed == (round == 2 ? 1 : 0));
  }
  /* the failed third round updated nothing */
  for (size_t i = 0; i < count; ++i) {
    double expected = 0.0;
    for (int round = 0; round < ROUNDS - 1; ++round) {
      for (int rank = 0; rank < size; ++rank) {
        expected -= (double)value(rank, i, round);
      }
    }
    CHECK((double)exchange.values.w[i] == expected);
  }
  (void)MPI_Barrier(world->comm); /* nobody still reads */
  lks_exchange_close(&exchange);
}

int main(void) {
  static const size_t counts[] = {64, 1024, 100032};
  lks_error err;
  lks_world *world = NULL;
  if (lks_world_open(MPI_COMM_WORLD, &world, &err) != LKS_OK) {
    return 1;
  }
  for (int nodes = 1; nodes <= world->size; ++nodes) {
    pretend_nodes(world, nodes);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; ++i) {
      try_exchange(world, counts[i]);
    }
  }
  lks_world_close(&world);
  return 0;
}
