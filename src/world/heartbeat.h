/* Heartbeats: every rank's watchdog tells two of them, twice a second, how its rank stands.
 *
 * The hubs are rank 0 and, should that one fail, the lowest rank of another node (of one node:
 * rank 1). Every rank has a stream to each, over a Unix socket within a node and TCP beyond, so a
 * rank's end is read at once and without a relay that could fail too. N ranks cost a hub N - 1
 * sockets and about 200 N bytes a second: 4096 ranks are 0.9 MB/s, and a tree would gain nothing.
 * Rank 0 judges; the other hub does when rank 0 is dead or silent; any other rank only when both
 * are lost. Whoever judges tells all, and alone prints.
 */
#ifndef LKS_WORLD_HEARTBEAT_H
#define LKS_WORLD_HEARTBEAT_H

#include "world/judge.h"
#include "world/link.h"
#include "world/world.h"

typedef struct lks_heart lks_heart;

/* ---- by the main threads, together */

/* How to reach the hubs, and where everybody is. */
typedef struct lks_meeting {
  int hubs[2]; /* ranks; -1: none, for the world has one rank */
  lks_book books[2];
  int listeners[2];  /* of this rank where it is a hub; else -1 */
  char (*hosts)[64]; /* [size] */
} lks_meeting;

/* Agrees on the above. A hub that cannot listen is no error: its book is empty. Collective. */
lks_status lks_meeting_hold(lks_world *world, lks_meeting *meeting, lks_error *err) LKS_MUST_USE;
void lks_meeting_free(lks_meeting *meeting);

/* Calls the hubs, whose hearts must beat meanwhile: links[i] is what hub i answered on, NULL where
 * there is none to call or it does not answer. missed: what failed and why; "" where nothing
 * did. Local. */
void lks_meeting_call(const lks_world *world, const lks_meeting *meeting, lks_link *links[2],
                      char *missed, size_t size);

/* ---- by the watchdog's thread alone */

typedef enum lks_ruling {
  LKS_RULING_NONE,
  LKS_RULING_OURS, /* this rank judged: it prints */
  LKS_RULING_TOLD  /* another did, and prints */
} lks_ruling;

/* Of a rank that hears of no other yet. */
lks_status lks_heart_make(const lks_world *world, lks_heart **heart, lks_error *err) LKS_MUST_USE;
void lks_heart_free(lks_heart **heart);

/* Takes over listeners, host names and hubs. */
void lks_heart_meet(lks_heart *heart, lks_meeting *meeting);

/* Takes over the stream to a hub. */
void lks_heart_join(lks_heart *heart, int hub, lks_link *link, double now);

/* One turn: waits at most `wait` seconds, less when something comes (on the descriptor `wake`
 * too), receives, sends what is due, and judges. met: count of waits that ended well. */
lks_ruling lks_heart_turn(lks_heart *heart, const lks_pulse *own, int64_t met, double now,
                          double timeout, double wait, int wake, lks_error *ruling);

/* This rank failed by itself: a hub shall print it, unless a death explains it. False: there is
 * no hub to tell. */
bool lks_heart_report(lks_heart *heart, const lks_error *error, double now);

/* Tells all: the ruling, or (NULL) farewell: this rank's work is done, and that it ends will mean
 * nothing. Waits a little until it is sent. */
void lks_heart_tell(lks_heart *heart, const lks_error *ruling);

/* True when the ruling was that a host is cut off. */
bool lks_heart_cut(const lks_heart *heart);

#endif
