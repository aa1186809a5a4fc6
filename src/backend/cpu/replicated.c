/* A step that every rank of a node does whole: where a step is less work than to tell the others of
 * it. Parameters, slots and gradients are each rank's own and the same bits on all; what goes
 * around is a ballot: what a rank votes for, and its loss, so that replicas that part are found.
 *
 * Nobody waits for a ballot on its way from one core to another:
 *
 *   step k   1. Forward and backward of all rows; the ballot of step k is cast.
 *            2. The ballots of step k - 1 are read: they mostly lie there already.
 *            3. Update k, unless a ballot of k - 1 forbids it.
 *
 * So the block that comes back is a step old (a lag of one), and a rank is at most a step ahead of
 * another. Update k - 1 was made before its ballots were known, into memory of its own; where they
 * forbid it, the values from before it are taken back, and nothing is updated any more.
 *
 * A wrong result in an update shows in the loss of the next step, or later, or never where no
 * output depends on it: run.compare_every looks at all parameters.
 *
 * Invariant: a rank casts ballot k only after it has read those of k - 2, so all have cast k - 2
 * then, and so have read those of k - 4: of four places a rank, the one for k is free. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"

enum { PLACES = 4 };

enum { STOP = 1, SAVE = 2, FAILED = 4, NOT_FINITE = 8 };

typedef struct ballot {
  uint32_t loss[2]; /* the bits of a double: of the whole batch */
  uint32_t votes;
} ballot;

_Static_assert(PLACES * sizeof(ballot) <= sizeof((lks_barrier_flag *)NULL)->words,
               "a rank's ballots and its flag are one cache line");

/* A step whose ballots were not read yet. */
typedef struct pending {
  lks_control control; /* this rank's; step 0: there is none */
  bool updated;
} pending;

struct lks_replica {
  lks_shared board; /* the barrier's flags, with the ballots; base NULL: MPI carries them */
  ballot *read;     /* [size] those of one step */
  lks_barrier barrier;
  pending last;
  float *memory;    /* of `other` */
  lks_values other; /* where the next update goes; as they were before the last one */
  bool ended;       /* a ballot forbade an update: there are no more */
};

/* ---- opening */

static lks_status open_board(lks_cpu *cpu, double timeout, lks_error *err) {
  lks_status st = LKS_OK;
  lks_replica *replica = cpu->replica;
  lks_world *world = cpu->world;
  const size_t size = (size_t)world->size;
  const lks_status opened =
      lks_shared_open(world, size * sizeof(lks_barrier_flag), &replica->board, err);
  if (lks_agree(world, opened, err) != LKS_OK) {
    if (world->rank == 0) {
      (void)fprintf(stderr, "lockstep: warning: a node has too little shared memory: ranks hear of "
                            "each other by MPI_Allgather (slower); a larger /dev/shm mends it\n");
    }
    lks_shared_close(&replica->board);
    goto cleanup;
  }
  replica->barrier = (lks_barrier){.flags = replica->board.base,
                                   .rank = world->rank,
                                   .size = world->size,
                                   .timeout = timeout,
                                   .world = world};
cleanup:
  return st;
}

lks_status lks_replica_open(lks_cpu *cpu, double timeout, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_plan *plan = cpu->plan;
  /* Both begin on a page, with something readable behind each. */
  const size_t p = (plan->parameter_floats + LKS_TENSOR_ALIGN) * sizeof(float);
  const size_t bytes = (p * (size_t)(1 + plan->slots) + 4095) / 4096 * 4096;
  lks_replica *replica = cpu->replica = calloc(1, sizeof *replica);
  if (replica != NULL) {
    replica->board.window = MPI_WIN_NULL;
    replica->read = calloc((size_t)cpu->world->size, sizeof(ballot));
    replica->memory = aligned_alloc(4096, bytes);
  }
  st = lks_exchange_open_alone(&cpu->exchange, plan->parameter_floats, plan->gradient_floats,
                               plan->slots, err);
  if (st == LKS_OK && (replica == NULL || replica->read == NULL || replica->memory == NULL)) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for %zu bytes of parameters", bytes);
  }
  TRY(lks_agree(cpu->world, st, err));
  memset(replica->memory, 0, bytes);
  replica->other.w = replica->memory;
  for (int s = 0; s < plan->slots; ++s) {
    replica->other.slots[s] = replica->memory + (size_t)(1 + s) * (p / sizeof(float));
  }
  TRY(open_board(cpu, timeout, err));
cleanup:
  return st;
}

void lks_replica_close(lks_cpu *cpu) {
  if (cpu->replica != NULL) {
    lks_shared_close(&cpu->replica->board);
    free(cpu->replica->read);
    free(cpu->replica->memory);
    free(cpu->replica);
    cpu->replica = NULL;
  }
}

void lks_replica_forget(lks_cpu *cpu) {
  if (cpu->replica != NULL) {
    cpu->replica->last = (pending){0};
    cpu->replica->ended = false;
  }
}

/* ---- ballots */

static ballot ballot_of(const lks_control *control) {
  ballot mine = {.votes = (control->stop > 0 ? STOP : 0) | (control->save > 0 ? SAVE : 0) |
                          (control->failed > 0 ? FAILED : 0) |
                          (control->not_finite > 0 ? NOT_FINITE : 0)};
  memcpy(mine.loss, &control->loss, sizeof mine.loss);
  return mine;
}

static unsigned char *place_of(const lks_barrier_flag *flags, int rank, uint64_t round) {
  return (unsigned char *)flags[rank].words + round % PLACES * sizeof(ballot);
}

static void cast(lks_replica *replica, const lks_control *control) {
  lks_barrier *barrier = &replica->barrier;
  if (replica->board.base != NULL) {
    const ballot mine = ballot_of(control);
    memcpy(place_of(barrier->flags, barrier->rank, barrier->round + 1), &mine, sizeof mine);
    lks_barrier_arrive(barrier);
  }
}

/* All ranks' ballots of the last step, into replica->read. newer: ballots this rank has cast since.
 */
static lks_status collect(lks_cpu *cpu, uint64_t newer, lks_error *err) {
  lks_status st = LKS_OK;
  lks_replica *replica = cpu->replica;
  const lks_barrier *barrier = &replica->barrier;
  const double began = lks_now_coarse();
  if (replica->board.base != NULL) {
    const uint64_t round = barrier->round - newer;
    TRY(lks_barrier_await(&replica->barrier, round, err));
    for (int rank = 0; rank < cpu->world->size; ++rank) {
      memcpy(&replica->read[rank], place_of(barrier->flags, rank, round), sizeof(ballot));
    }
  } else {
    const ballot mine = ballot_of(&replica->last.control);
    TRY_MPI_WAIT(cpu->world, MPI_Allgather(&mine, sizeof mine, MPI_BYTE, replica->read, sizeof mine,
                                           MPI_BYTE, cpu->world->comm));
  }
  cpu->exchange.waited += lks_now_coarse() - began;
cleanup:
  return st;
}

static double loss_of(const ballot *of) {
  double loss;
  memcpy(&loss, of->loss, sizeof loss);
  return loss;
}

/* Counts the votes. Where no rank failed, all have the same loss; else the sums of the step are
 * each rank's own, and nobody reads them. */
static lks_status count(lks_cpu *cpu, lks_control *control, lks_error *err) {
  lks_status st = LKS_OK;
  const ballot *all = cpu->replica->read;
  int odd = -1;
  control->stop = control->save = control->failed = control->not_finite = 0;
  for (int rank = 0; rank < cpu->world->size; ++rank) {
    const uint32_t votes = all[rank].votes;
    control->stop += (votes & STOP) != 0;
    control->save += (votes & SAVE) != 0;
    control->failed += (votes & FAILED) != 0;
    control->not_finite += (votes & NOT_FINITE) != 0;
    /* Bits, not values: a loss beyond all numbers is no odd one where all have it. */
    const bool same = memcmp(all[rank].loss, all[0].loss, sizeof all->loss) == 0;
    odd = odd < 0 && !same ? rank : odd;
  }
  if (odd >= 0 && lks_exchange_may_update(control) && !cpu->replica->ended) {
    st = lks_fail(err, LKS_COMM, "continue from the last checkpoint without that host",
                  "at step %lld the loss of rank %d, %.9g, is not that of rank 0, %.9g, on the "
                  "same rows: a processor or its memory gives wrong results on %s",
                  (long long)control->step, odd, loss_of(&all[odd]), loss_of(&all[0]),
                  cpu->world->host);
    st = lks_agree(cpu->world, st, err);
  }
  return st;
}

/* ---- a step */

static void swap_values(lks_cpu *cpu) {
  const lks_values values = cpu->exchange.values;
  cpu->exchange.values = cpu->replica->other;
  cpu->replica->other = values;
}

static void update_all(lks_cpu *cpu, const lks_update *update) {
  const double began = cpu->profile ? lks_now() : 0.0;
  lks_update_cpu(update, cpu->plan->parameter_floats, cpu->exchange.gradients,
                 &cpu->exchange.values, &cpu->replica->other);
  swap_values(cpu);
  cpu->exchange.updated += cpu->profile ? lks_now() - began : 0.0;
}

/* Reads the ballots of the last step and obeys them. */
static lks_status settle(lks_cpu *cpu, uint64_t newer, lks_control *control, lks_error *err) {
  lks_status st = LKS_OK;
  lks_replica *replica = cpu->replica;
  *control = replica->last.control;
  if (control->step == 0) {
    goto cleanup;
  }
  TRY(collect(cpu, newer, err));
  TRY(count(cpu, control, err));
  if (!lks_exchange_may_update(control) && !replica->ended) {
    replica->ended = true;
    if (replica->last.updated) {
      swap_values(cpu);
    }
  }
  replica->last.control.step = 0;
cleanup:
  return st;
}

lks_status lks_replica_step(void *state, const lks_step *step, lks_control *control,
                            lks_error *err) {
  lks_status st = LKS_OK;
  lks_cpu *cpu = state;
  lks_replica *replica = cpu->replica;
  const lks_update update = lks_optimizer_update(&cpu->plan->model->optimizer, step->step);
  lks_cpu_block b;
  pending now = {0};
  const double began = cpu->profile ? lks_now() : 0.0;
  const bool finite = lks_make_gradients_cpu(cpu, step, &b);
  lks_control_decode(cpu->exchange.gradients + cpu->plan->parameter_floats, &now.control);
  now.control.step = step->step;
  now.control.not_finite_here = !finite;
  cast(replica, &now.control);
  const double computed = cpu->profile ? lks_now() : 0.0;
  TRY(settle(cpu, 1, control, err));
  if (!replica->ended && lks_exchange_may_update(&now.control)) {
    update_all(cpu, &update);
    now.updated = true;
  }
  replica->last = now;
  if (cpu->profile) {
    cpu->compute += computed - began;
    cpu->exchanged += lks_now() - computed;
  }
cleanup:
  return st;
}

lks_status lks_replica_drain(void *state, lks_control *control, lks_error *err) {
  return settle(state, 0, control, err);
}
