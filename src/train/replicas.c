/* See replicas.h. */
#include "train/replicas.h"

#include <stdlib.h>
#include <string.h>

typedef struct replica {
  uint64_t hash;
  char host[64];
} replica;

/* The rank whose hash most ranks have; the lowest of them. Ranks are few thousand at most, and
 * almost always all alike: then the first pass is the only one. */
static int most_common(const replica *all, int size) {
  int best = 0, best_count = 0;
  for (int rank = 0; rank < size && best_count <= size / 2; ++rank) {
    int count = 0;
    for (int other = 0; other < size; ++other) {
      count += all[other].hash == all[rank].hash;
    }
    if (count > best_count) {
      best = rank;
      best_count = count;
    }
  }
  return best;
}

static lks_status judge(const replica *all, int size, int64_t step, lks_error *err) {
  lks_status st = LKS_OK;
  const int sound = most_common(all, size);
  int others = 0, odd = -1;
  for (int rank = size - 1; rank >= 0; --rank) {
    if (all[rank].hash != all[sound].hash) {
      odd = rank;
      ++others;
    }
  }
  if (odd >= 0) {
    st = lks_fail(err, LKS_COMM, NULL,
                  "after step %lld rank %d on %s has other parameters than rank %d on %s (%d of %d "
                  "ranks differ): a device, its memory or a link gives wrong results",
                  (long long)step, odd, all[odd].host, sound, all[sound].host, others, size);
    lks_advise(err, "continue from the last checkpoint without %s (--exclude-host %s)",
               all[odd].host, all[odd].host);
  }
  return st;
}

lks_status lks_replicas_compare(const lks_backend *backend, lks_world *world, int64_t step,
                                lks_error *err) {
  lks_status st = LKS_OK;
  replica mine = {0}, *all = NULL;
  if (world->size == 1 || backend->ops->fingerprint == NULL) {
    goto cleanup;
  }
  memcpy(mine.host, world->host, sizeof mine.host);
  st = backend->ops->fingerprint(backend->state, &mine.hash, err);
  all = malloc((size_t)world->size * sizeof *all);
  if (st == LKS_OK && all == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for %d ranks", world->size);
  }
  TRY(lks_agree(world, st, err));
  TRY(lks_world_gather(world, &mine, sizeof mine, all, err));
  st = judge(all, world->size, step, err);
  TRY(lks_agree(world, st, err));
cleanup:
  free(all);
  return st;
}
