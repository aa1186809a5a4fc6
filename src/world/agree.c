/* How ranks agree: on the worst status, on one text, and small exchanges of bytes. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "world/world.h"

lks_status lks_agree(lks_world *world, lks_status mine, lks_error *err) {
  lks_status st = LKS_OK;
  struct {
    int status, rank;
  } worst = {(int)mine, world->rank}, here = worst;
  if (mine != LKS_OK && err->rank < 0) {
    err->rank = world->rank;
    (void)snprintf(err->host, sizeof err->host, "%s", world->host);
    (void)snprintf(err->phase, sizeof err->phase, "%s", world->phase);
  }
  TRY_MPI_WAIT(world, MPI_Allreduce(&here, &worst, 1, MPI_2INT, MPI_MAXLOC, world->comm));
  world->agreed = false;
  if (worst.status != LKS_OK) {
    TRY(lks_world_broadcast(world, err, sizeof *err, worst.rank, err));
    world->agreed = true;
  }
  st = (lks_status)worst.status;
cleanup:
  return st;
}

typedef struct fingerprint {
  uint64_t hash;
  char host[64];
} fingerprint;

lks_status lks_world_same(lks_world *world, const char *what, const char *text, lks_error *err) {
  lks_status st = LKS_OK;
  fingerprint mine = {.hash = XXH64(text, strlen(text), 0)};
  memcpy(mine.host, world->host, sizeof mine.host);
  fingerprint *all = malloc((size_t)world->size * sizeof *all);
  if (all == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for %d ranks", world->size);
  }
  TRY(lks_agree(world, st, err));
  TRY(lks_world_gather(world, &mine, sizeof mine, all, err));
  for (int rank = 1; rank < world->size && st == LKS_OK; ++rank) {
    if (all[rank].hash != all[0].hash) {
      st = lks_fail(err, LKS_COMM, "start the same program with the same arguments on every rank",
                    "rank %d on %s has another %s than rank 0 on %s", rank, all[rank].host, what,
                    all[0].host);
    }
  }
  TRY(lks_agree(world, st, err));
cleanup:
  free(all);
  return st;
}

lks_status lks_world_broadcast(lks_world *world, void *data, size_t bytes, int root,
                               lks_error *err) {
  lks_status st = LKS_OK;
  char *next = data;
  while (bytes > 0) {
    const size_t part = bytes < (1u << 30) ? bytes : (1u << 30);
    TRY_MPI_WAIT(world, MPI_Bcast(next, (int)part, MPI_BYTE, root, world->comm));
    next += part;
    bytes -= part;
  }
cleanup:
  return st;
}

lks_status lks_world_gather(lks_world *world, const void *mine, size_t bytes, void *out,
                            lks_error *err) {
  lks_status st = LKS_OK;
  if (bytes > INT_MAX) {
    FAIL(LKS_INTERNAL, NULL, "%zu bytes a rank are too many to gather", bytes);
  }
  TRY_MPI_WAIT(world,
               MPI_Allgather(mine, (int)bytes, MPI_BYTE, out, (int)bytes, MPI_BYTE, world->comm));
cleanup:
  return st;
}

lks_status lks_fail_mpi(lks_error *err, int code, const char *expression) {
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) {
    (void)snprintf(text, sizeof text, "MPI error %d", code);
  }
  return lks_fail(err, LKS_COMM, "run again to continue from the last checkpoint",
                  "MPI failed in %.60s: %s", expression, text);
}
