/* Comparing replicas under mpirun, with a backend that says whatever hash it is told. */
#include "ranks_fixture.h"

#include "train/replicas.h"

typedef struct liar {
  uint64_t hash;
  lks_status status;
} liar;

static lks_status fingerprint(void *state, uint64_t *hash, lks_error *err) {
  const liar *l = state;
  *hash = l->hash;
  return l->status == LKS_OK ? LKS_OK : lks_fail(err, l->status, NULL, "the device is lost");
}

static const lks_backend_ops with = {.name = "liar", .fingerprint = fingerprint};
static const lks_backend_ops without = {.name = "liar"};

static void alike(ranks *at) {
  lks_error err;
  liar l = {.hash = 0xfedcba9876543210u};
  lks_backend backend = {&with, &l};
  CHECK_STATUS(at, lks_replicas_compare(&backend, at->world, 1000, &err), LKS_OK);
  l.hash = (uint64_t)at->world->rank; /* nobody asks */
  backend.ops = &without;
  CHECK_STATUS(at, lks_replicas_compare(&backend, at->world, 1000, &err), LKS_OK);
}

/* One rank in turn has another bit: all get the same words, which name it, a sound one, and both
 * hosts. Of two ranks nobody knows which is sound: rank 0 is taken for it. */
static void one_differs(ranks *at) {
  lks_error err;
  const int size = at->world->size;
  for (int odd = 0; odd < size && size > 1; ++odd) {
    liar l = {.hash = 0x1000u + (at->world->rank == odd)};
    const lks_backend backend = {&with, &l};
    char words[128];
    const int named = size == 2 ? 1 : odd, sound = named == 0 ? 1 : 0;
    CHECK_STATUS(at, lks_replicas_compare(&backend, at->world, 3000, &err), LKS_COMM);
    (void)snprintf(words, sizeof words, "after step 3000 rank %d on %s has other parameters than",
                   named, at->world->host);
    CHECK(at, mentions(&err, words));
    (void)snprintf(words, sizeof words, "than rank %d on %s (1 of %d ranks differ)", sound,
                   at->world->host, size);
    CHECK(at, mentions(&err, words));
    CHECK(at, mentions(&err, "continue from the last checkpoint without"));
  }
}

/* A hash that cannot be had on one rank is an error of all. */
static void one_fails(ranks *at) {
  lks_error err;
  liar l = {.status = at->world->rank == at->world->size - 1 ? LKS_DEVICE : LKS_OK};
  const lks_backend backend = {&with, &l};
  const lks_status expected = at->world->size > 1 ? LKS_DEVICE : LKS_OK;
  CHECK_STATUS(at, lks_replicas_compare(&backend, at->world, 1, &err), expected);
  CHECK(at, expected == LKS_OK || mentions(&err, "the device is lost"));
}

int main(void) {
  ranks at;
  if (ranks_open(&at) != 0) {
    return 1;
  }
  alike(&at);
  one_differs(&at);
  one_fails(&at);
  return ranks_close(&at);
}
