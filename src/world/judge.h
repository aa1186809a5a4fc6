/* Who is to blame when a run stands still: a judgement on what ranks last told of themselves.
 *
 * Nothing here waits, sends or looks at a clock. Times are seconds of the judging rank's own clock,
 * which stands still while the process does. */
#ifndef LKS_WORLD_JUDGE_H
#define LKS_WORLD_JUDGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* What a rank tells of itself twice a second. Travels as it lies in memory. */
typedef struct lks_pulse {
  int64_t entered; /* waits of the whole world begun: whoever has fewest is behind */
  int64_t rounds;  /* barriers of its node begun: the same among ranks of one host */
  int64_t step;    /* update under way; 0: before the first */
  double idle;     /* s since its last progress */
  int32_t rank;
  int32_t waiting;   /* 1: inside a wait for other ranks */
  int32_t computing; /* 1: its main thread runs, if only to look whether the wait is over */
  char phase[24], doing[40];
} lks_pulse;

typedef enum lks_peer_state {
  LKS_PEER_UNHEARD, /* no heartbeats were to be had from it */
  LKS_PEER_HEARD,
  LKS_PEER_DEAD, /* its stream ended without a farewell */
  LKS_PEER_LEFT  /* its stream ended after one */
} lks_peer_state;

typedef struct lks_peer {
  lks_peer_state state;
  lks_pulse pulse;
  double heard;  /* when anything came of it; of a dead one: when it ended */
  bool leaving;  /* it said farewell: its work is done, and only MPI's end is left */
  bool confirms; /* its host's kernel confirms what is sent to it */
} lks_peer;

typedef struct lks_ward {
  int size, self;
  const char (*hosts)[64];
  lks_peer *peers; /* [size]; the entry of self is always fresh */
  double met;      /* when this rank last ended a wait for all: all were alive then */
  bool cut;        /* a verdict was that a host is cut off, or down */
} lks_ward;

/* True when the run must end, *verdict being the line that says why:
 *   a rank is dead;
 *   nothing was heard of a rank for longer than the timeout, nor did this one meet it elsewhere;
 *   no rank makes progress: each waits for others, or has shown none for longer than the timeout.
 * A rank that waits is not blamed while one is there that does not wait. timeout 0: deaths only. */
bool lks_ward_verdict(lks_ward *ward, double now, double timeout, lks_error *verdict);

/* The same for a rank that hears of no other: only whether it makes progress itself. */
bool lks_ward_verdict_alone(const lks_ward *ward, double timeout, lks_error *verdict);

/* True when nothing was heard of that rank for longer than the limit. */
bool lks_ward_silent(const lks_ward *ward, int rank, double now, double limit);

#endif
