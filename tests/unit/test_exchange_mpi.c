/* The exchange and shared windows under mpirun, at any number of ranks of one node, and without
 * shared memory. Several nodes: test_nodes.c. */
#include "ranks_fixture.h"

#include "backend/cpu/exchange.h"
#include "model/model.h"

/* ---- windows */

static void windows(ranks *at) {
  static const size_t sizes[] = {1, 4096, 100001, 3 << 20};
  lks_error err;
  lks_world *w = at->world;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
    lks_shared shared;
    CHECK_STATUS(at, lks_shared_open(w, sizes[i], &shared, &err), LKS_OK);
    unsigned char *bytes = shared.base;
    CHECK(at, bytes != NULL && (uintptr_t)bytes % 4096 == 0 && shared.bytes == sizes[i]);
    bool zero = true;
    for (size_t k = 0; k < sizes[i]; ++k) {
      zero = zero && bytes[k] == 0;
    }
    CHECK(at, zero);
    (void)MPI_Barrier(w->comm);
    for (size_t k = (size_t)w->rank; k < sizes[i]; k += (size_t)w->size) {
      bytes[k] = (unsigned char)(w->rank + 1); /* each rank every size-th byte */
    }
    (void)MPI_Barrier(w->comm);
    bool same = true;
    for (size_t k = 0; k < sizes[i]; ++k) {
      same = same && bytes[k] == (unsigned char)(k % (size_t)w->size + 1);
    }
    CHECK(at, same);
    (void)MPI_Barrier(w->comm);
    lks_shared_close(&shared);
    CHECK(at, shared.base == NULL && shared.window == MPI_WIN_NULL);
  }
}

/* More than there is: refused on all ranks alike, and nothing is broken afterwards. */
static void too_large(ranks *at) {
  lks_error err;
  lks_shared shared;
  if (at->world->size > 1) {
    CHECK_STATUS(at, lks_shared_open(at->world, (size_t)1 << 50, &shared, &err), LKS_NO_MEMORY);
    CHECK(at, mentions(&err, "shared memory: 1.0 PiB wanted") || mentions(&err, "1024.0 TiB"));
    CHECK(at, mentions(&err, "free in /dev/shm") && mentions(&err, "enlarge /dev/shm"));
    CHECK(at, shared.base == NULL && shared.window == MPI_WIN_NULL);
  }
  windows(at);
}

/* ---- the exchange */

/* Small whole numbers: every sum of them is exact, in any order. */
static float gradient_of(int rank, int round, size_t i) {
  return (float)((int)((i * 7 + (size_t)(rank * 13 + round * 5)) % 31) - 15);
}

enum { ROUNDS = 5, LOST_ROUND = 3 };

/* This rank's part. In LOST_ROUND the last rank votes that it failed. */
static void contribute(lks_exchange *e, int rank, int size, int round) {
  const size_t floats = e->layout.parameter_floats;
  float *control = e->gradients + floats;
  for (size_t i = 0; i < floats; ++i) {
    e->gradients[i] = gradient_of(rank, round, i);
  }
  memset(control, 0, LKS_CONTROL_FLOATS * sizeof *control);
  lks_control_put_count(control + LKS_CONTROL_ROWS, 5000 * rank + round);
  control[LKS_CONTROL_FAILED] = round == LOST_ROUND && rank == size - 1 ? 1.0f : 0.0f;
}

/* Learning rate 1: the parameters become minus the sum of all gradients. */
static void check_rounds(ranks *at, lks_exchange *e, size_t floats) {
  lks_error err;
  const int size = at->world->size, rank = at->world->rank;
  const lks_optimizer sgd = {.kind = lks_optimizer_kinds[2], .learning_rate = 1.0};
  CHECK(at, lks_optimizer_row_of(&sgd)->id == LKS_OPTIMIZER_SGD);
  float *expected = calloc(floats, sizeof *expected);
  CHECK(at, expected != NULL && e->layout.parameter_floats == floats);
  for (int round = 0; expected != NULL && round < ROUNDS; ++round) {
    const lks_update update = lks_optimizer_update(&sgd, round + 1);
    lks_control control = {0};
    contribute(e, rank, size, round);
    CHECK_STATUS(at, lks_exchange_run(e, &update, &control, &err), LKS_OK);
    CHECK(at, control.rows == 5000 * (size * (size - 1) / 2) + (int64_t)round * size);
    CHECK(at, control.failed == (round == LOST_ROUND));
    bool same = true;
    for (size_t i = 0; i < floats; ++i) {
      for (int peer = 0; round != LOST_ROUND && peer < size; ++peer) {
        expected[i] -= gradient_of(peer, round, i);
      }
      same = same && e->values.w[i] == expected[i];
    }
    CHECK(at, same);
  }
  free(expected);
}

static void exchange(ranks *at, lks_world *world, size_t floats, int slots) {
  lks_error err;
  lks_exchange e;
  const char *note = NULL;
  CHECK_STATUS(
      at, lks_exchange_open(&e, world, floats, floats + LKS_TENSOR_ALIGN, slots, 60.0, &note, &err),
      LKS_OK);
  CHECK(at, note == NULL && e.everyone == MPI_COMM_NULL);
  for (int s = 0; s < slots; ++s) {
    CHECK(at, e.values.slots[s] != NULL);
  }
  check_rounds(at, &e, floats);
  (void)MPI_Barrier(world->comm);
  lks_exchange_close(&e);
}

/* Small, uneven, and beyond what nodes send whole. */
static void all_sizes(ranks *at, lks_world *world) {
  static const size_t floats[] = {1, 100, 5003, 70001};
  for (size_t i = 0; i < sizeof floats / sizeof *floats; ++i) {
    exchange(at, world, floats[i], (int)(i % 3));
  }
}

/* Where shared memory can't be had each rank keeps its own, and MPI sums. */
static void without_shared_memory(ranks *at) {
  enum { FLOATS = 5003 };
  const lks_exchange_layout alone = {
      .parameter_floats = FLOATS, .gradient_floats = FLOATS + LKS_TENSOR_ALIGN, .local_size = 1};
  const size_t bytes = (lks_exchange_bytes(&alone) + 63) / 64 * 64;
  lks_exchange e;
  void *memory = aligned_alloc(64, bytes);
  CHECK(at, memory != NULL);
  memset(memory, 0, bytes);
  lks_exchange_place(&e, &alone, memory, 0, 1, 60.0);
  e.private_memory = memory;
  e.everyone = at->world->comm;
  check_rounds(at, &e, FLOATS);
  lks_exchange_close(&e);
}

int main(void) {
  ranks at;
  if (ranks_open(&at) != 0) {
    return 1;
  }
  windows(&at);
  too_large(&at);
  all_sizes(&at, at.world);
  without_shared_memory(&at);
  return ranks_close(&at);
}
