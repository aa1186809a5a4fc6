/* Where each rank sits: host, processor, memory. Gathered once, for the summary and for the
 * checkpoints' provenance. */
#ifndef LKS_TRAIN_SEATS_H
#define LKS_TRAIN_SEATS_H

#include "train/run.h"

typedef struct lks_seat {
  char host[64];
  int threads, cores;
  int ordinal; /* of its GPU; -1: it runs on the CPU */
  int visible; /* GPUs that it sees */
  char gpu[128], uuid[48];
  bool planned; /* the backend tells where memory goes */
  lks_memory_plan memory;
} lks_seat;

/* All ranks' seats, [world->size], malloc'ed, on every rank; the backend is open. Collective. */
lks_status lks_seats_gather(const lks_run *run, lks_seat **seats, lks_error *err) LKS_MUST_USE;

/* "n1 x 2, n2 x 2" in rank order. */
void lks_seats_hosts(const lks_seat *seats, int count, lks_text *out);

/* "GPU-..., GPU-..." in rank order; nothing on the CPU. */
void lks_seats_uuids(const lks_seat *seats, int count, lks_text *out);

/* "2 on n1, 1 on n2": GPUs that a host's ranks see and none of them uses; nothing where all work.
 * Where each rank is shown one GPU alone, what lies beside it is not known. */
void lks_seats_idle(const lks_seat *seats, int count, lks_text *out);

/* Prints GPUs, idle ones and memory, rank by rank; nothing on the CPU. */
void lks_seats_print(const lks_seat *seats, int count);

#endif
