/* See exchange.h for the invariants. */
#include "backend/cpu/exchange.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/update.h"
#include "base/pages.h"

/* Elements summed and updated together: a few stay in the first cache with their slots. */
enum { CHUNK = 2048 };

/* Node sums up to this many floats go whole to every node (one latency); larger ones in pieces,
 * each added up by one node (twice the latency, 2 (n - 1) / n of the bytes). */
enum { WHOLE_FLOATS = 16384 };

static size_t round_floats(size_t floats) {
  return (floats + LKS_TENSOR_ALIGN - 1) / LKS_TENSOR_ALIGN * LKS_TENSOR_ALIGN;
}

/* Order in memory: parameters, slots, the node's control block, gradients by rank, flags. So there
 * is always something readable behind the parameters, for vectors that reach past them. */
size_t lks_exchange_bytes(const lks_exchange_layout *layout) {
  const size_t p = round_floats(layout->parameter_floats);
  const size_t floats = p * (size_t)(1 + layout->slots) + LKS_TENSOR_ALIGN +
                        (size_t)layout->local_size * round_floats(layout->gradient_floats);
  return floats * sizeof(float) + (size_t)layout->local_size * sizeof(lks_barrier_flag);
}

/* Slices are multiples of a cache line, so that owners never share one. */
static void place_slice(lks_exchange *exchange, int slices) {
  const size_t p = exchange->layout.parameter_floats;
  const size_t slice = round_floats((p + (size_t)slices - 1) / (size_t)slices);
  const size_t first = (size_t)exchange->local_rank * slice;
  exchange->first = first < p ? first : p;
  const size_t rest = p - exchange->first;
  exchange->count = exchange->local_rank >= slices ? 0 : rest < slice ? rest : slice;
}

void lks_exchange_place(lks_exchange *exchange, const lks_exchange_layout *layout, void *memory,
                        int local_rank, int slices, double timeout) {
  const size_t p = round_floats(layout->parameter_floats);
  const size_t g = round_floats(layout->gradient_floats);
  float *next = memory;
  *exchange = (lks_exchange){.layout = *layout,
                             .local_rank = local_rank,
                             .slice = MPI_COMM_NULL,
                             .everyone = MPI_COMM_NULL,
                             .nodes = 1,
                             .shared = {.window = MPI_WIN_NULL}};
  exchange->values.w = next;
  next += p;
  for (int s = 0; s < layout->slots; ++s) {
    exchange->values.slots[s] = next;
    next += p;
  }
  exchange->node_control = next;
  next += LKS_TENSOR_ALIGN;
  exchange->peers = next;
  exchange->gradients = next + (size_t)local_rank * g;
  next += (size_t)layout->local_size * g;
  exchange->barrier =
      lks_barrier_make((lks_barrier_flag *)(void *)next, local_rank, layout->local_size, timeout);
  place_slice(exchange, slices);
}

bool lks_exchange_fits(size_t floats, int nodes) {
  const size_t n = (size_t)nodes;
  return floats <= WHOLE_FLOATS || (floats + n - 1) / n <= INT_MAX;
}

/* What the owners of a slice on several nodes need to add their sums. */
static lks_status open_nodes(lks_exchange *exchange, lks_world *world, lks_error *err) {
  lks_status st = LKS_OK;
  exchange->nodes = world->nodes;
  exchange->node_index = world->node_index;
  exchange->slice = world->slice;
  if (world->nodes == 1 || world->slice == MPI_COMM_NULL) {
    goto cleanup;
  }
  const size_t message = exchange->count + LKS_CONTROL_FLOATS;
  const size_t padded = message + (size_t)world->nodes;
  if (!lks_exchange_fits(message, world->nodes)) {
    FAIL(LKS_COMM, "use more ranks a node: each exchanges its own slice",
         "a slice of %zu values is more than MPI's messages among %d nodes hold", message,
         world->nodes);
  }
  exchange->sum = calloc(padded, sizeof(float));
  exchange->received =
      calloc(message <= WHOLE_FLOATS ? message * (size_t)world->nodes : padded, sizeof(float));
  TRY_ALLOC(exchange->sum);
  TRY_ALLOC(exchange->received);
cleanup:
  return st;
}

static lks_status open_alone(lks_exchange *exchange, size_t parameter_floats,
                             size_t gradient_floats, int slots, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_exchange_layout layout = {.parameter_floats = parameter_floats,
                                      .gradient_floats = gradient_floats,
                                      .slots = slots,
                                      .local_size = 1};
  const size_t bytes = lks_exchange_bytes(&layout);
  void *memory = lks_pages_alloc(bytes);
  TRY_ALLOC(memory);
  lks_exchange_place(exchange, &layout, memory, 0, 1, 0.0);
  exchange->private_memory = memory;
cleanup:
  return st;
}

/* Ranks without shared memory: each has all to itself. */
static lks_status open_private(lks_exchange *exchange, lks_world *world,
                               const lks_exchange_layout *layout, lks_error *err) {
  lks_status st = LKS_OK;
  TRY(open_alone(exchange, layout->parameter_floats, layout->gradient_floats, layout->slots, err));
  lks_barrier_join(&exchange->barrier, world);
  exchange->everyone = world->comm;
  if (layout->gradient_floats > INT_MAX) {
    FAIL(LKS_COMM, "give the node a larger /dev/shm",
         "%zu gradients are more than one MPI message holds", layout->gradient_floats);
  }
cleanup:
  return st;
}

lks_status lks_exchange_open(lks_exchange *exchange, lks_world *world, size_t parameter_floats,
                             size_t gradient_floats, int slots, double timeout, const char **note,
                             lks_error *err) {
  lks_status st = LKS_OK;
  const lks_exchange_layout layout = {.parameter_floats = parameter_floats,
                                      .gradient_floats = gradient_floats,
                                      .slots = slots,
                                      .local_size = world->local_size};
  lks_shared shared = {.window = MPI_WIN_NULL};
  memset(exchange, 0, sizeof *exchange);
  exchange->slice = exchange->everyone = MPI_COMM_NULL;
  exchange->shared.window = MPI_WIN_NULL;
  if (world->size == 1) {
    TRY(open_alone(exchange, parameter_floats, gradient_floats, slots, err));
    goto cleanup;
  }
  lks_status opened = lks_shared_open(world, lks_exchange_bytes(&layout), &shared, err);
  if (lks_agree(world, opened, err) == LKS_OK) {
    lks_exchange_place(exchange, &layout, shared.base, world->local_rank, world->slices, timeout);
    lks_barrier_join(&exchange->barrier, world);
    exchange->shared = shared;
    shared.window = MPI_WIN_NULL;
    opened = open_nodes(exchange, world, err);
    TRY(lks_agree(world, opened, err));
  } else {
    *note = "a node has too little shared memory: every rank keeps its own parameters, and "
            "gradients are summed by MPI_Allreduce (slower); a larger /dev/shm mends it";
    lks_shared_close(&shared);
    opened = open_private(exchange, world, &layout, err);
    TRY(lks_agree(world, opened, err));
  }
cleanup:
  return st;
}

void lks_exchange_close(lks_exchange *exchange) {
  free(exchange->sum);
  free(exchange->received);
  free(exchange->private_memory);
  lks_shared_close(&exchange->shared);
  *exchange = (lks_exchange){
      .slice = MPI_COMM_NULL, .everyone = MPI_COMM_NULL, .shared = {.window = MPI_WIN_NULL}};
}

static const float *peer_of(const lks_exchange *exchange, int rank) {
  return exchange->peers + (size_t)rank * round_floats(exchange->layout.gradient_floats);
}

LKS_HOT static void add_into(float *restrict into, const float *restrict from, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    into[i] += from[i];
  }
}

/* into = sum over the node's ranks, in rank order, of elements [first, first + count). */
static void sum_peers(const lks_exchange *exchange, size_t first, size_t count, float *into) {
  memcpy(into, peer_of(exchange, 0) + first, count * sizeof *into);
  for (int rank = 1; rank < exchange->layout.local_size; ++rank) {
    add_into(into, peer_of(exchange, rank) + first, count);
  }
}

void lks_exchange_update(lks_exchange *exchange, const lks_update *update, size_t first,
                         size_t count, const float *g) {
  lks_values slice = {.w = exchange->values.w + first};
  const double began = exchange->profile ? lks_now() : 0.0;
  for (int s = 0; s < exchange->layout.slots; ++s) {
    slice.slots[s] = exchange->values.slots[s] + first;
  }
  lks_update_cpu(update, count, g, &slice);
  if (exchange->profile) {
    exchange->updated += lks_now() - began;
  }
}

bool lks_exchange_may_update(const lks_control *control) {
  return control->failed == 0 && control->not_finite == 0;
}

void lks_exchange_sum_control(const lks_exchange *exchange, lks_control *control) {
  float sum[LKS_CONTROL_FLOATS];
  sum_peers(exchange, exchange->layout.parameter_floats, LKS_CONTROL_FLOATS, sum);
  lks_control_decode(sum, control);
}

/* One node: every rank adds the few control blocks itself, then sums and updates its slice chunk
 * by chunk, gradients still in the cache. */
static void run_node(lks_exchange *exchange, const lks_update *update, lks_control *control) {
  float sum[CHUNK];
  lks_exchange_sum_control(exchange, control);
  if (!lks_exchange_may_update(control)) {
    return;
  }
  const size_t end = exchange->first + exchange->count;
  for (size_t at = exchange->first; at < end; at += CHUNK) {
    const size_t count = end - at < CHUNK ? end - at : CHUNK;
    if (exchange->layout.local_size == 1) {
      lks_exchange_update(exchange, update, at, count, exchange->gradients + at);
    } else {
      sum_peers(exchange, at, count, sum);
      lks_exchange_update(exchange, update, at, count, sum);
    }
  }
}

lks_status lks_exchange_meet(lks_exchange *exchange, lks_error *err) {
  if (exchange->layout.local_size == 1) {
    return LKS_OK;
  }
  const double began = lks_now_coarse();
  const lks_status st = lks_barrier_wait(&exchange->barrier, err);
  exchange->waited += lks_now_coarse() - began;
  return st;
}

void lks_exchange_own(lks_exchange *exchange, size_t first, size_t count) {
  exchange->first = first;
  exchange->count = count;
}

void lks_exchange_update_own(lks_exchange *exchange, const lks_update *update) {
  lks_exchange_update(exchange, update, exchange->first, exchange->count,
                      exchange->gradients + exchange->first);
}

enum { TIMES = 2 };

/* Behind the control block, which peers may still be reading; then times. */
static size_t verdict_at(const lks_exchange *exchange, lks_verdict verdict) {
  _Static_assert(LKS_CONTROL_FLOATS + LKS_VERDICTS + TIMES <= LKS_TENSOR_ALIGN, "all fits there");
  return exchange->layout.parameter_floats + LKS_CONTROL_FLOATS + (size_t)verdict;
}

void lks_exchange_set_verdict(lks_exchange *exchange, lks_verdict verdict, bool set) {
  exchange->gradients[verdict_at(exchange, verdict)] = set ? 1.0f : 0.0f;
}

int lks_exchange_count_verdicts(const lks_exchange *exchange, lks_verdict verdict) {
  int ranks = 0;
  for (int rank = 0; rank < exchange->layout.local_size; ++rank) {
    ranks += peer_of(exchange, rank)[verdict_at(exchange, verdict)] != 0.0f ? 1 : 0;
  }
  return ranks;
}

/* Two places in turn: when a rank tells its next time but one, all have heard this one. */
static size_t time_at(const lks_exchange *exchange, uint64_t round) {
  return verdict_at(exchange, LKS_VERDICT_BAD) + LKS_VERDICTS + round % TIMES;
}

void lks_exchange_tell_time(lks_exchange *exchange, double seconds) {
  exchange->gradients[time_at(exchange, exchange->barrier.round + 1)] = (float)seconds;
}

void lks_exchange_hear_times(const lks_exchange *exchange, float *took) {
  for (int rank = 0; rank < exchange->layout.local_size; ++rank) {
    took[rank] = peer_of(exchange, rank)[time_at(exchange, exchange->barrier.round)];
  }
}

/* sum[count] = sum over nodes in node order; the same bits on all of them. */
static lks_status add_nodes(lks_exchange *exchange, size_t count, lks_error *err) {
  lks_status st = LKS_OK;
  float *sum = exchange->sum, *received = exchange->received;
  const size_t nodes = (size_t)exchange->nodes;
  if (count <= WHOLE_FLOATS) {
    TRY_MPI(MPI_Allgather(sum, (int)count, MPI_FLOAT, received, (int)count, MPI_FLOAT,
                          exchange->slice));
    memcpy(sum, received, count * sizeof *sum);
    for (size_t node = 1; node < nodes; ++node) {
      add_into(sum, received + node * count, count);
    }
    goto cleanup;
  }
  const size_t piece = (count + nodes - 1) / nodes; /* the buffers are padded to nodes * piece */
  TRY_MPI(
      MPI_Alltoall(sum, (int)piece, MPI_FLOAT, received, (int)piece, MPI_FLOAT, exchange->slice));
  float *mine = sum + (size_t)exchange->node_index * piece;
  memcpy(mine, received, piece * sizeof *mine);
  for (size_t node = 1; node < nodes; ++node) {
    add_into(mine, received + node * piece, piece);
  }
  TRY_MPI(MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, sum, (int)piece, MPI_FLOAT,
                        exchange->slice));
cleanup:
  return st;
}

/* Several nodes: the slice's sum and the control block travel in one message. */
static lks_status run_nodes(lks_exchange *exchange, const lks_update *update, lks_control *control,
                            lks_error *err) {
  lks_status st = LKS_OK;
  const size_t count = exchange->count;
  if (exchange->slice != MPI_COMM_NULL) {
    sum_peers(exchange, exchange->first, count, exchange->sum);
    sum_peers(exchange, exchange->layout.parameter_floats, LKS_CONTROL_FLOATS,
              exchange->sum + count);
    const double began = lks_now_coarse();
    lks_world_waits(exchange->barrier.world);
    TRY(add_nodes(exchange, count + LKS_CONTROL_FLOATS, err));
    lks_world_wait_end(exchange->barrier.world);
    exchange->waited += lks_now_coarse() - began;
    lks_control_decode(exchange->sum + count, control);
    if (exchange->local_rank == 0) {
      memcpy(exchange->node_control, exchange->sum + count, LKS_CONTROL_FLOATS * sizeof(float));
    }
    if (lks_exchange_may_update(control)) {
      lks_exchange_update(exchange, update, exchange->first, count, exchange->sum);
    }
  }
cleanup:
  return st;
}

static lks_status run_everyone(lks_exchange *exchange, const lks_update *update,
                               lks_control *control, lks_error *err) {
  lks_status st = LKS_OK;
  const size_t p = exchange->layout.parameter_floats;
  const double began = lks_now_coarse();
  TRY_MPI_WAIT(exchange->barrier.world,
               MPI_Allreduce(MPI_IN_PLACE, exchange->gradients, (int)(p + LKS_CONTROL_FLOATS),
                             MPI_FLOAT, MPI_SUM, exchange->everyone));
  exchange->waited += lks_now_coarse() - began;
  lks_control_decode(exchange->gradients + p, control);
  if (lks_exchange_may_update(control)) {
    lks_exchange_update(exchange, update, 0, p, exchange->gradients);
  }
cleanup:
  return st;
}

lks_status lks_exchange_run(lks_exchange *exchange, const lks_update *update, lks_control *control,
                            lks_error *err) {
  lks_status st = LKS_OK;
  if (exchange->everyone != MPI_COMM_NULL) {
    return run_everyone(exchange, update, control, err);
  }
  TRY(lks_exchange_meet(exchange, err)); /* gradients complete */
  if (exchange->nodes == 1) {
    run_node(exchange, update, control);
  } else {
    TRY(run_nodes(exchange, update, control, err));
  }
  TRY(lks_exchange_meet(exchange, err)); /* parameters complete */
  if (exchange->nodes > 1 && exchange->slice == MPI_COMM_NULL) {
    lks_control_decode(exchange->node_control, control);
  }
cleanup:
  return st;
}
