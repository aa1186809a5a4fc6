/* See stragglers.h. */
#include "train/stragglers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/trainer.h"

#define LEAST_RATIO 1.2
#define LEAST_SHARE 0.05
#define LEAST_SECONDS 2.0

enum { EPOCHS_FOR_ADVICE = 3 };

static double busy(const lks_pace *pace) {
  return pace->seconds - pace->wait;
}

/* The rank in the middle by busy time; of an even number the faster one of the two, so that of two
 * ranks the slower one is compared with the other. */
static int median_rank(const lks_pace *paces, int size) {
  for (int rank = 0; rank < size; ++rank) {
    int below = 0, equal = 0;
    for (int other = 0; other < size; ++other) {
      below += busy(&paces[other]) < busy(&paces[rank]);
      equal += busy(&paces[other]) == busy(&paces[rank]);
    }
    if (below <= (size - 1) / 2 && (size - 1) / 2 < below + equal) {
      return rank;
    }
  }
  return 0;
}

static int slowest_rank(const lks_pace *paces, int size) {
  int slowest = 0;
  for (int rank = 1; rank < size; ++rank) {
    slowest = busy(&paces[rank]) > busy(&paces[slowest]) ? rank : slowest;
  }
  return slowest;
}

bool lks_straggler_judge(const lks_pace *paces, int size, int64_t epoch, lks_straggler *straggler,
                         char *out, size_t capacity) {
  const int slowest = slowest_rank(paces, size);
  const lks_pace *slow = &paces[slowest], *usual = &paces[median_rank(paces, size)];
  const double more = busy(slow) - busy(usual);
  if (size < 2 || slow->seconds < LEAST_SECONDS || more < LEAST_SHARE * slow->seconds ||
      busy(slow) < LEAST_RATIO * busy(usual)) {
    *straggler = (lks_straggler){.rank = -1};
    return false;
  }
  const bool again = strcmp(straggler->host, slow->host) == 0;
  straggler->rank = slowest;
  straggler->epochs = again ? straggler->epochs + 1 : 1;
  (void)snprintf(straggler->host, sizeof straggler->host, "%s", slow->host);
  const double input = slow->input - usual->input;
  const int length = snprintf(
      out, capacity,
      "rank %d on %s held the others up in epoch %lld: busy for %.1f of %.1f s, the median "
      "rank for %.1f s; slow in %s",
      slowest, slow->host, (long long)epoch, busy(slow), slow->seconds, busy(usual),
      input > more - input ? "reading rows" : "computing");
  if (straggler->epochs == EPOCHS_FOR_ADVICE && length > 0 && (size_t)length < capacity) {
    (void)snprintf(
        out + length, capacity - (size_t)length,
        "; %s was slow in %d epochs in a row: see what else runs there, or go on without "
        "it (--exclude-host %s, or Slurm's --exclude=%s)",
        slow->host, EPOCHS_FOR_ADVICE, slow->host, slow->host);
  }
  return true;
}

/* How this rank spent the steps since the epoch, or its continuation, was begun. */
static lks_pace pace_of(lks_trainer *trainer) {
  const lks_steps *queue = &trainer->queue;
  lks_timing timing = {0};
  trainer->run.backend.ops->timing(trainer->run.backend.state, &timing);
  lks_pace pace = {.seconds = queue->now - queue->began,
                   .input = queue->input,
                   .wait = timing.wait - trainer->waited};
  memcpy(pace.host, trainer->world->host, sizeof pace.host);
  trainer->waited = timing.wait;
  return pace;
}

lks_status lks_trainer_pace(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  lks_world *world = trainer->world;
  lks_pace *paces = NULL;
  char line[1024];
  if (world->size == 1 || trainer->run.backend.ops->timing == NULL) {
    goto cleanup;
  }
  const lks_pace mine = pace_of(trainer);
  paces = malloc((size_t)world->size * sizeof *paces);
  if (paces == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for %d ranks", world->size);
  }
  TRY(lks_agree(world, st, err));
  TRY(lks_world_gather(world, &mine, sizeof mine, paces, err));
  if (world->rank == 0 && lks_straggler_judge(paces, world->size, trainer->progress.epoch + 1,
                                              &trainer->straggler, line, sizeof line)) {
    (void)fprintf(stderr, "lockstep: warning: %s\n", line);
  }
cleanup:
  free(paces);
  return st;
}
