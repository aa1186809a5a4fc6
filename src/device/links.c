/* Pairs of ranks in rounds, each rank with at most one partner at a time. */
#include "device/links.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/listing.h"
#include "device/module.h"

enum { ALL_PAIRS = 8, MESSAGE = 1 << 20, REPEATS = 5, TAG = 77 };

/* ---- who meets whom */

static int count_rounds(int size) {
  if (size < 2) {
    return 0;
  }
  if (size <= ALL_PAIRS) {
    return size % 2 == 0 ? size - 1 : size;
  }
  return 2 + size % 2;
}

/* Partner in a round; -1: none. All pairs: the players of a round-robin sit around a table, one
 * seat is fixed, the others move on. Neighbours: even pairs, odd pairs, and the last odd one. */
static int partner(int rank, int size, int round) {
  if (size > ALL_PAIRS) {
    const int even = size - size % 2;
    if (round == 2) {
      return rank == 0 ? size - 1 : rank == size - 1 ? 0 : -1;
    }
    if (round == 0) {
      return rank < even ? rank ^ 1 : -1;
    }
    if (size % 2 == 1) {
      return rank == 0 ? -1 : rank % 2 == 1 ? rank + 1 : rank - 1;
    }
    return rank % 2 == 1 ? (rank + 1) % size : (rank + size - 1) % size;
  }
  const int seats = size + size % 2, moving = seats - 1;
  int other = -1;
  if (rank == seats - 1) {
    other = round % moving;
  } else {
    other = (2 * round - rank % moving + 2 * moving) % moving;
    other = other == rank ? seats - 1 : other;
  }
  return other < size ? other : -1;
}

/* ---- one pair */

/* Half of the fastest time to and fro. */
static lks_status ping(lks_world *world, int other, char *message, double *seconds,
                       lks_error *err) {
  lks_status st = LKS_OK;
  *seconds = INFINITY;
  for (int i = 0; i < REPEATS; ++i) {
    const double began = lks_now();
    if (world->rank < other) {
      TRY_MPI(MPI_Send(message, MESSAGE, MPI_BYTE, other, TAG, world->comm));
      TRY_MPI(MPI_Recv(message, MESSAGE, MPI_BYTE, other, TAG, world->comm, MPI_STATUS_IGNORE));
    } else {
      TRY_MPI(MPI_Recv(message, MESSAGE, MPI_BYTE, other, TAG, world->comm, MPI_STATUS_IGNORE));
      TRY_MPI(MPI_Send(message, MESSAGE, MPI_BYTE, other, TAG, world->comm));
    }
    *seconds = fmin(*seconds, (lks_now() - began) / 2.0);
  }
cleanup:
  return st;
}

/* Of two GPUs an allreduce moves each byte once each way. The lower rank makes the id; a first byte
 * of 0 tells the other that it could not. */
static lks_status sum_pair(lks_world *world, const lks_device_choice *choice, int other,
                           lks_link_row *link, lks_error *err) {
  lks_status st = LKS_OK;
  unsigned char id[129] = {0};
  bool right = false;
  double seconds = 0.0;
  lks_gpu_failure failure = {.ordinal = choice->ordinal};
  const lks_gpu_ops *ops = lks_module_find(choice->backend)->module->gpu;
  const bool low = world->rank < other;
  const bool large = choice->gpu.memory_total >= (int64_t)8 << 30;
  const int64_t floats = (large ? 64 : 1) * (int64_t)MESSAGE / (int64_t)sizeof(float);
  if (low) {
    id[0] = ops->collective_id(id + 1, &failure) == 0;
    TRY_MPI(MPI_Send(id, sizeof id, MPI_BYTE, other, TAG, world->comm));
  } else {
    TRY_MPI(MPI_Recv(id, sizeof id, MPI_BYTE, other, TAG, world->comm, MPI_STATUS_IGNORE));
  }
  if (id[0] != 0 &&
      ops->collective(choice->ordinal, id + 1, low ? 0 : 1, 2, floats, REPEATS, &right, &seconds,
                      &failure) == 0 &&
      right && seconds > 0.0) {
    link->message = floats * (int64_t)sizeof(float);
    link->bandwidth = (double)link->message / seconds;
  }
cleanup:
  return st;
}

/* The other's device as this process sees it, if it does. */
static int peer_access(const lks_device_choice *choice, const char *uuid) {
  int count = 0;
  bool access = false;
  lks_gpu gpu;
  lks_gpu_failure failure = {.ordinal = choice->ordinal};
  const lks_gpu_ops *ops = lks_module_find(choice->backend)->module->gpu;
  if (ops->count(&count, &failure) != 0) {
    return -1;
  }
  for (int i = 0; i < count; ++i) {
    if (i != choice->ordinal && ops->identify(i, &gpu, &failure) == 0 &&
        strcmp(gpu.uuid, uuid) == 0) {
      return ops->peer(choice->ordinal, i, &access, &failure) == 0 ? (int)access : -1;
    }
  }
  return -1;
}

typedef struct seat {
  int node, ordinal;
  char uuid[48];
} seat;

static lks_status measure(lks_world *world, const lks_device_choice *choice, bool measure_gpus,
                          const seat *seats, int other, char *message, lks_link_row *link,
                          lks_error *err) {
  lks_status st = LKS_OK;
  const seat *mine = &seats[world->rank], *theirs = &seats[other];
  const bool node = mine->node == theirs->node;
  double seconds = 0.0;
  *link =
      (lks_link_row){.from = world->rank, .to = other, .peer_access = -1, .bandwidth = (double)NAN};
  if (choice->ordinal >= 0) {
    (void)snprintf(link->way, sizeof link->way, "gpu");
    link->peer_access = node ? peer_access(choice, theirs->uuid) : -1;
    if (measure_gpus) {
      TRY(sum_pair(world, choice, other, link, err));
    }
  } else {
    (void)snprintf(link->way, sizeof link->way, node ? "memory" : "network");
    TRY(ping(world, other, message, &seconds, err));
    link->message = MESSAGE;
    link->bandwidth = seconds > 0.0 ? MESSAGE / seconds : (double)NAN;
  }
cleanup:
  return st;
}

lks_status lks_links_measure(lks_world *world, const lks_device_choice *choice, bool measure_gpus,
                             lks_link_row **links, int64_t *count, lks_error *err) {
  lks_status st = LKS_OK;
  int64_t own = 0;
  void *all = NULL;
  lks_link_row link, rows[ALL_PAIRS] = {{0}};
  char *message = calloc(1, MESSAGE);
  seat mine = {.node = world->node_index, .ordinal = choice->ordinal};
  seat *seats = malloc((size_t)world->size * sizeof *seats);
  *links = NULL;
  *count = 0;
  memcpy(mine.uuid, choice->gpu.uuid, sizeof mine.uuid);
  if (message == NULL || seats == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for the links of %d ranks", world->size);
  }
  TRY(lks_agree(world, st, err));
  TRY(lks_world_gather(world, &mine, sizeof mine, seats, err));
  for (int round = 0; round < count_rounds(world->size); ++round) {
    const int other = partner(world->rank, world->size, round);
    st = other >= 0 ? measure(world, choice, measure_gpus, seats, other, message, &link, err)
                    : LKS_OK;
    if (st == LKS_OK && other > world->rank) {
      rows[own++] = link;
    }
    TRY(lks_agree(world, st, err));
  }
  TRY(lks_listing_gather(world, rows, own, sizeof *rows, &all, count, err));
  *links = all;
cleanup:
  free(message);
  free(seats);
  return st;
}
