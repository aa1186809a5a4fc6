/* Refusing hosts, and the command that does without them. */
#include "device/exclude.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct seat {
  char host[64];
} seat;

static bool same_host(const char *name, size_t length, const char *host) {
  return length > 0 && strncmp(name, host, length) == 0 &&
         (host[length] == '\0' || (host[length] == '.' && memchr(name, '.', length) == NULL));
}

static bool excluded(const char *hosts, const char *host) {
  for (const char *at = hosts; *at != '\0';) {
    const size_t length = strcspn(at, ", ");
    if (same_host(at, length, host)) {
      return true;
    }
    at += length;
    at += strspn(at, ", ");
  }
  return false;
}

/* "n1:4,n2:4" of the hosts that are left, and how many ranks they have. */
static int list_left(const seat *seats, int size, const char *hosts, lks_text *out) {
  int left = 0;
  for (int i = 0; i < size;) {
    int next = i;
    while (next < size && strcmp(seats[next].host, seats[i].host) == 0) {
      ++next;
    }
    if (!excluded(hosts, seats[i].host)) {
      lks_text_add(out, "%s%s:%d", left > 0 ? "," : "", seats[i].host, next - i);
      left += next - i;
    }
    i = next;
  }
  return left;
}

static void advise(const seat *seats, int size, const char *hosts, lks_error *err) {
  lks_text left = {0};
  const int ranks = list_left(seats, size, hosts, &left);
  const bool by_mpirun = getenv("OMPI_COMM_WORLD_SIZE") != NULL;
  const bool slurm = getenv("SLURM_JOB_ID") != NULL;
  if (slurm && !by_mpirun) {
    lks_advise(err, "submit it again with sbatch --exclude=%s (srun --exclude=%s in this job)",
               hosts, hosts);
  } else if (ranks > 0 && left.data != NULL) {
    lks_advise(err, "start it with mpirun -n %d --host %.300s%s%.60s", ranks, left.data,
               slurm ? "; for the next job: sbatch --exclude=" : "", slurm ? hosts : "");
  } else {
    lks_advise(err, "start it on another host (mpirun --host NAME, sbatch --exclude=%s)", hosts);
  }
  lks_text_free(&left);
}

lks_status lks_exclude_hosts(lks_world *world, const char *hosts, lks_error *err) {
  lks_status st = LKS_OK;
  seat mine = {{0}}, *seats = NULL;
  int first = -1, ranks = 0;
  if (hosts == NULL) {
    return LKS_OK;
  }
  seats = malloc((size_t)world->size * sizeof *seats);
  if (seats == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for %d ranks", world->size);
  }
  TRY(lks_agree(world, st, err));
  memcpy(mine.host, world->host, sizeof mine.host);
  TRY(lks_world_gather(world, &mine, sizeof mine, seats, err));
  for (int rank = 0; rank < world->size; ++rank) {
    if (excluded(hosts, seats[rank].host)) {
      first = first < 0 ? rank : first;
      ranks += 1;
    }
  }
  if (first >= 0) {
    st = lks_fail(err, LKS_DEVICE, NULL,
                  "--exclude-host %s: %d of %d rank%s run%s there, the first is rank %d on %s",
                  hosts, ranks, world->size, world->size == 1 ? "" : "s", ranks == 1 ? "s" : "",
                  first, seats[first].host);
    advise(seats, world->size, hosts, err);
  }
  TRY(lks_agree(world, st, err));
cleanup:
  free(seats);
  return st;
}
