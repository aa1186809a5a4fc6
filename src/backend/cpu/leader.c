/* A step with gradients by the leader: where a step is less work than to share it, one rank of the
 * node does the whole of it, and the others, who follow, read what came of it.
 *
 *   leader                                     followers
 *   1. Forward and backward of all rows.       Ask for what they vote.
 *   2. Reads what others ask for.
 *   3. Updates, unless a vote forbids it.
 *   4. Puts the step's block on record.        Read the record of the step before.
 *
 * The leader waits for nobody, but where followers are so far behind that it would write over a
 * record they have not read, and in the first step after a drain: until then they may be reading
 * parameters. So its step is that of a single rank, to the bit and in time, even where another rank
 * lost its core for a moment. A follower's vote is counted once, in the block of its step or, where
 * the leader was further, in a later one before the next drain. The first step after a drain hears
 * all; what comes too late before one is to be cast again.
 *
 * The block that comes back is a step old (a lag of one). So steps end in a drain before anybody
 * looks at parameters, and the leader knows of it.
 *
 * Rounds are the steps since the backend was opened. Invariants: parameters, slots and records are
 * written by the leader alone; `done` rounds of it are complete. A follower that has begun a round
 * has read the record of the last but one, and looks at parameters no more. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"

/* Most rounds that the leader is ahead: some milliseconds of the smallest steps, in which a
 * follower may be without a core. */
enum { RECORDS = 1024 };

enum { STOP = 1, SAVE = 2, FAILED = 4, VOTES = 8 };

/* Two cache lines a rank: the leader looks at the first in every round, and has it in its cache as
 * long as nobody asks for anything. */
typedef struct follower {
  _Alignas(64) atomic_uint_fast64_t asked; /* VOTES * round + votes, of the last that it cast */
  _Alignas(64) atomic_uint_fast64_t begun; /* rounds */
} follower;

typedef struct record {
  _Alignas(64) float block[LKS_CONTROL_FLOATS];
} record;

typedef struct board {
  _Alignas(64) atomic_uint_fast64_t done; /* rounds */
  record records[RECORDS];                /* of round r, in place r % RECORDS */
  follower followers[];                   /* [size]; the leader's own is not used */
} board;

struct lks_lead {
  lks_shared shared;
  board *board;     /* in it; NULL: no memory to share, so steps go by rows, all shares but the
                       leader's being empty */
  uint64_t round;   /* begun by this rank */
  lks_control last; /* block of the last round, not given back yet; of a follower's only the step
                       is known. step 0: there is none */
  uint64_t seen;    /* done, when this rank looked last */
  /* of the leader */
  uint64_t *heard; /* [size] round in which a rank's vote was counted last */
  uint64_t room;   /* last round for which there is a record to write over */
  bool drained;    /* since the last round */
};

static bool leads(const lks_cpu *cpu) {
  return cpu->world->rank == lks_plan_leader(cpu->plan, cpu->world->size);
}

/* ---- opening */

static lks_status open_board(lks_cpu *cpu, lks_error *err) {
  lks_status st = LKS_OK;
  lks_lead *lead = cpu->lead;
  lks_world *world = cpu->world;
  const size_t bytes = sizeof(board) + (size_t)world->size * sizeof(follower);
  const bool sharing = cpu->exchange.everyone == MPI_COMM_NULL;
  const lks_status opened =
      sharing ? lks_shared_open(world, bytes, &lead->shared, err) : LKS_NO_MEMORY;
  if (lks_agree(world, opened, err) == LKS_OK) {
    lead->board = lead->shared.base;
    lks_exchange_own(&cpu->exchange, 0, leads(cpu) ? cpu->plan->parameter_floats : 0);
    goto cleanup;
  }
  if (sharing && world->rank == 0) {
    (void)fprintf(stderr,
                  "lockstep: warning: the node has too little shared memory for %zu bytes: "
                  "ranks wait for each other in every step (slower); a larger /dev/shm "
                  "mends it\n",
                  bytes);
  }
  lks_shared_close(&lead->shared);
cleanup:
  return st;
}

lks_status lks_lead_open(lks_cpu *cpu, lks_error *err) {
  lks_status st = LKS_OK;
  lks_lead *lead = cpu->lead = calloc(1, sizeof *lead);
  if (lead != NULL) {
    lead->shared.window = MPI_WIN_NULL;
    lead->heard = calloc((size_t)cpu->world->size, sizeof *lead->heard);
  }
  if (lead == NULL || lead->heard == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for %d ranks", cpu->world->size);
  }
  TRY(lks_agree(cpu->world, st, err));
  TRY(open_board(cpu, err));
cleanup:
  return st;
}

void lks_lead_close(lks_cpu *cpu) {
  if (cpu->lead != NULL) {
    lks_shared_close(&cpu->lead->shared);
    free(cpu->lead->heard);
    free(cpu->lead);
    cpu->lead = NULL;
  }
}

void lks_lead_forget(lks_cpu *cpu) {
  lks_lead *lead = cpu->lead;
  if (lead != NULL) {
    lead->last.step = 0;
    lead->drained = true;
    if (lead->board != NULL) {
      atomic_store(&lead->board->followers[cpu->world->rank].asked, 0);
    }
  }
}

/* ---- the leader */

/* Waits until all others have begun a round. */
static lks_status await_followers(lks_cpu *cpu, uint64_t round, lks_error *err) {
  lks_status st = LKS_OK;
  for (int rank = 0; rank < cpu->world->size; ++rank) {
    if (rank != cpu->world->rank) {
      TRY(lks_barrier_await(&cpu->exchange.barrier, &cpu->lead->board->followers[rank].begun, round,
                            false, rank, err));
    }
  }
cleanup:
  return st;
}

/* Waits for followers where it must: see the invariants. */
static lks_status make_room(lks_cpu *cpu, lks_error *err) {
  lks_status st = LKS_OK;
  lks_lead *lead = cpu->lead;
  if (lead->drained || lead->round > lead->room) {
    /* Half of the records at once, so that their lines are read seldom. */
    const uint64_t begun = lead->drained               ? lead->round
                           : lead->round > RECORDS / 2 ? lead->round - RECORDS / 2
                                                       : 0;
    TRY(await_followers(cpu, begun, err));
    lead->room = begun + RECORDS - 2;
    lead->drained = false;
  }
cleanup:
  return st;
}

/* What others ask for, added to the block. One that is a round ahead is heard in the next. */
static void add_votes(lks_cpu *cpu, float *block) {
  lks_lead *lead = cpu->lead;
  for (int rank = 0; rank < cpu->world->size; ++rank) {
    const uint64_t asked =
        atomic_load_explicit(&lead->board->followers[rank].asked, memory_order_acquire);
    const uint64_t round = asked / VOTES;
    if (round > lead->heard[rank] && round <= lead->round) {
      block[LKS_CONTROL_STOP] += (asked & STOP) != 0 ? 1.0f : 0.0f;
      block[LKS_CONTROL_SAVE] += (asked & SAVE) != 0 ? 1.0f : 0.0f;
      block[LKS_CONTROL_FAILED] += (asked & FAILED) != 0 ? 1.0f : 0.0f;
      lead->heard[rank] = lead->round;
    }
  }
}

static lks_status do_step(lks_cpu *cpu, const lks_step *step, lks_control *control,
                          lks_error *err) {
  lks_status st = LKS_OK;
  lks_lead *lead = cpu->lead;
  float *block = cpu->exchange.gradients + cpu->plan->parameter_floats;
  const lks_update update = lks_optimizer_update(&cpu->plan->model->optimizer, step->step);
  lks_cpu_block b;
  const double began = cpu->profile ? lks_now() : 0.0;
  const bool finite = lks_make_gradients_cpu(cpu, step, &b);
  const double computed = cpu->profile ? lks_now() : 0.0;
  TRY(make_room(cpu, err));
  add_votes(cpu, block);
  lks_control_decode(block, control);
  control->not_finite_here = !finite;
  cpu->ended = cpu->ended || !lks_exchange_may_update(control);
  if (!cpu->ended) {
    lks_exchange_update_own(&cpu->exchange, &update);
  }
  memcpy(lead->board->records[lead->round % RECORDS].block, block,
         LKS_CONTROL_FLOATS * sizeof *block);
  atomic_store_explicit(&lead->board->done, lead->round, memory_order_release);
  lks_count_up(&cpu->world->standing.rounds);
  if (cpu->profile) {
    cpu->compute += computed - began;
    cpu->exchanged += lks_now() - computed;
  }
cleanup:
  return st;
}

/* ---- a follower */

static void ask(lks_cpu *cpu, const lks_votes *votes) {
  const uint64_t asked =
      (votes->stop ? STOP : 0U) | (votes->save ? SAVE : 0U) | (votes->failed ? FAILED : 0U);
  follower *self = &cpu->lead->board->followers[cpu->world->rank];
  if (asked != 0) {
    atomic_store_explicit(&self->asked, VOTES * cpu->lead->round + asked, memory_order_release);
  }
  atomic_store_explicit(&self->begun, cpu->lead->round, memory_order_release);
}

/* What was asked for before its answer was read is not to be heard a second time. */
static void forget_answered(lks_cpu *cpu, const lks_control *control) {
  follower *self = &cpu->lead->board->followers[cpu->world->rank];
  const uint64_t asked = atomic_load_explicit(&self->asked, memory_order_relaxed) % VOTES;
  const uint64_t answered = (control->stop > 0 ? STOP : 0U) | (control->save > 0 ? SAVE : 0U) |
                            (control->failed > 0 ? FAILED : 0U);
  if (asked != 0 && (asked & ~answered) == 0) {
    atomic_store_explicit(&self->asked, 0, memory_order_release);
  }
}

/* The record of a round. Waiting for it is not counted: no other rank is slow. */
static lks_status read_record(lks_cpu *cpu, uint64_t round, lks_control *control, lks_error *err) {
  lks_status st = LKS_OK;
  board *shared = cpu->lead->board;
  lks_count_up(&cpu->world->standing.rounds);
  if (cpu->lead->seen < round) {
    TRY(lks_barrier_await(&cpu->exchange.barrier, &shared->done, round, true,
                          lks_plan_leader(cpu->plan, cpu->world->size), err));
    cpu->lead->seen = atomic_load_explicit(&shared->done, memory_order_acquire);
  }
  lks_control_decode(shared->records[round % RECORDS].block, control);
  control->not_finite_here = false;
  forget_answered(cpu, control);
cleanup:
  return st;
}

/* ---- the contract */

/* The block of the last round but `newer`. */
static lks_status settle(lks_cpu *cpu, uint64_t newer, lks_control *control, lks_error *err) {
  lks_status st = LKS_OK;
  lks_lead *lead = cpu->lead;
  *control = lead->last;
  if (control->step != 0 && lead->board != NULL && !leads(cpu)) {
    TRY(read_record(cpu, lead->round - newer, control, err));
  }
  lead->last.step = 0;
cleanup:
  return st;
}

lks_status lks_lead_step(void *state, const lks_step *step, lks_control *control, lks_error *err) {
  lks_status st = LKS_OK;
  lks_cpu *cpu = state;
  lks_lead *lead = cpu->lead;
  lks_control now = {0};
  lead->round += 1;
  if (lead->board != NULL && !leads(cpu)) {
    ask(cpu, &step->votes);
  }
  TRY(settle(cpu, 1, control, err));
  if (lead->board == NULL) {
    TRY(lks_step_together(cpu, step, &now, err)); /* no memory is shared */
  } else if (leads(cpu)) {
    TRY(do_step(cpu, step, &now, err));
  }
  lead->last = now;
  lead->last.step = step->step;
cleanup:
  return st;
}

lks_status lks_lead_drain(void *state, lks_control *control, lks_error *err) {
  lks_status st = LKS_OK;
  lks_cpu *cpu = state;
  lks_lead *lead = cpu->lead;
  lead->drained = true;
  TRY(settle(cpu, 0, control, err));
  if (lead->board != NULL && !leads(cpu)) {
    /* What was asked for too late to be heard is asked for anew in the next step, if it still is:
     * an epoch's end may have saved meanwhile. That step the leader does not begin before. */
    atomic_store_explicit(&lead->board->followers[cpu->world->rank].asked, 0, memory_order_release);
  }
cleanup:
  return st;
}
