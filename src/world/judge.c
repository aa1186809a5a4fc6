/* See judge.h. */
#include "world/judge.h"

#include <stdio.h>
#include <string.h>

/* Seconds beyond the timeout in which a rank whose heartbeats are not to be had may speak up. */
#define UNHEARD_DELAY 5.0

/* Seconds for which a pulse says how a rank stands now. */
#define FRESH 3.0

static const char again[] = "run again to continue from the last checkpoint";

/* "rank 2 on n2" */
static const char *name_of(const lks_ward *ward, int rank, char out[96]) {
  (void)snprintf(out, 96, "rank %d on %s", rank, ward->hosts[rank]);
  return out;
}

/* "at step 120 (epoch 3), reading rows" */
static const char *place_of(const lks_pulse *pulse, char out[160]) {
  char step[64];
  if (pulse->step > 0 && strncmp(pulse->phase, "step", 4) != 0) {
    (void)snprintf(step, sizeof step, "at step %lld (%s)", (long long)pulse->step, pulse->phase);
  } else {
    (void)snprintf(step, sizeof step, "%s %s", pulse->step > 0 ? "at" : "in",
                   pulse->phase[0] != '\0' ? pulse->phase : "starting");
  }
  const char *doing = pulse->waiting ? "waiting for other ranks" : pulse->doing;
  (void)snprintf(out, 160, "%s%s%s", step, doing[0] != '\0' ? ", " : "", doing);
  return out;
}

/* ---- dead */

static bool find_dead(const lks_ward *ward, lks_error *verdict) {
  int first = -1;
  for (int rank = 0; rank < ward->size; ++rank) {
    const lks_peer *peer = &ward->peers[rank];
    if (peer->state == LKS_PEER_DEAD && (first < 0 || peer->heard < ward->peers[first].heard)) {
      first = rank;
    }
  }
  if (first < 0) {
    return false;
  }
  char name[96], place[160];
  verdict->status = lks_fail(
      verdict, LKS_COMM, "", "%s died, last seen %s: it was killed, crashed, or ended by itself",
      name_of(ward, first, name), place_of(&ward->peers[first].pulse, place));
  lks_advise(verdict, "look for messages of that rank and for an out-of-memory kill on %s; %s",
             ward->hosts[first], again);
  return true;
}

/* ---- silent */

bool lks_ward_silent(const lks_ward *ward, int rank, double now, double limit) {
  const lks_peer *peer = &ward->peers[rank];
  const double last = peer->heard > ward->met ? peer->heard : ward->met;
  return peer->state == LKS_PEER_HEARD && rank != ward->self && now - last > limit;
}

static bool same_host(const lks_ward *ward, int a, int b) {
  return strcmp(ward->hosts[a], ward->hosts[b]) == 0;
}

/* Of the ranks on that host, how many are silent; *all: every one that was heard. */
static int count_silent(const lks_ward *ward, int rank, double now, double limit, bool *all) {
  int count = 0;
  *all = true;
  for (int other = 0; other < ward->size; ++other) {
    if (!same_host(ward, rank, other) || ward->peers[other].state != LKS_PEER_HEARD) {
      continue;
    }
    /* A moment less: ranks of one host fall silent together, but not within one look. */
    const bool silent = lks_ward_silent(ward, other, now, limit > 2.0 ? limit - 2.0 : limit / 2.0);
    count += silent;
    *all = *all && silent;
  }
  return count;
}

static bool find_silent(lks_ward *ward, double now, double timeout, lks_error *verdict) {
  int rank = 0;
  while (rank < ward->size && !lks_ward_silent(ward, rank, now, timeout)) {
    ++rank;
  }
  if (rank == ward->size) {
    return false;
  }
  bool all = false;
  const int count = count_silent(ward, rank, now, timeout, &all);
  const lks_peer *peer = &ward->peers[rank];
  ward->cut = all && !peer->confirms && !same_host(ward, rank, ward->self);
  char name[96], place[160], more[48] = "";
  if (count > 1) {
    (void)snprintf(more, sizeof more, " and %d more there", count - 1);
  }
  verdict->status = lks_fail(
      verdict, LKS_COMM, "", "%s%s %s silent for %.0f s, last seen %s: %s",
      name_of(ward, rank, name), more, count > 1 ? "are" : "is",
      now - (peer->heard > ward->met ? peer->heard : ward->met), place_of(&peer->pulse, place),
      ward->cut ? "cut off from the network, or the host is down"
                : "the process is stopped (SIGSTOP, a debugger), or the host is swapping");
  lks_advise(verdict, "look at %s; %s, or raise run.timeout", ward->hosts[rank], again);
  return true;
}

/* ---- standing still */

static double idle_of(const lks_ward *ward, int rank, double now) {
  const lks_peer *peer = &ward->peers[rank];
  return peer->pulse.idle + (rank == ward->self ? 0.0 : now - peer->heard);
}

/* Whether a has begun fewer waits than b, in so far as they are comparable. */
static bool came_less_far(const lks_ward *ward, int a, int b) {
  const lks_pulse *left = &ward->peers[a].pulse, *right = &ward->peers[b].pulse;
  if (left->entered != right->entered) {
    return left->entered < right->entered;
  }
  if (left->step != right->step) {
    return left->step < right->step;
  }
  return same_host(ward, a, b) && left->rounds < right->rounds;
}

/* All are in the wait that this one is in: none has gone on to a later one. */
static bool all_there(const lks_ward *ward, int rank) {
  for (int other = 0; other < ward->size; ++other) {
    if (ward->peers[other].state == LKS_PEER_HEARD && came_less_far(ward, rank, other)) {
      return false;
    }
  }
  return true;
}

/* It waits without looking whether the wait is over, while others look. */
static bool is_asleep(const lks_ward *ward, int rank) {
  bool others = false;
  for (int other = 0; other < ward->size; ++other) {
    others = others || (ward->peers[other].state == LKS_PEER_HEARD &&
                        ward->peers[other].pulse.computing && other != rank);
  }
  return others && !ward->peers[rank].pulse.computing;
}

/* Whether a is to be named rather than b. */
static bool is_behind(const lks_ward *ward, int a, int b, double now) {
  const lks_pulse *left = &ward->peers[a].pulse, *right = &ward->peers[b].pulse;
  if (left->waiting != right->waiting) {
    return !left->waiting;
  }
  if (came_less_far(ward, a, b) || came_less_far(ward, b, a)) {
    return came_less_far(ward, a, b);
  }
  if (all_there(ward, a) != all_there(ward, b)) {
    return !all_there(ward, a); /* its own host's ranks have gone on without it */
  }
  if (is_asleep(ward, a) != is_asleep(ward, b)) {
    return is_asleep(ward, a);
  }
  return idle_of(ward, a, now) > idle_of(ward, b, now);
}

static void blame(const lks_ward *ward, int rank, double seconds, bool alone, lks_error *verdict) {
  const lks_pulse *pulse = &ward->peers[rank].pulse;
  char name[96], place[160];
  (void)name_of(ward, rank, name);
  (void)place_of(pulse, place);
  if (!pulse->waiting || !all_there(ward, rank) || is_asleep(ward, rank)) {
    verdict->status = lks_fail(verdict, LKS_COMM, "",
                               "no progress for %.0f s of %s, %s: stuck in a call (a file "
                               "system, a device, a library)",
                               seconds, name, place);
  } else if (alone) {
    verdict->status = lks_fail(verdict, LKS_COMM, "",
                               "no progress for %.0f s of %s, %s: another rank is stuck or gone",
                               seconds, name, place);
  } else {
    verdict->status = lks_fail(verdict, LKS_COMM, "",
                               "no progress for %.0f s of any rank: all wait for each other, %s "
                               "furthest behind, %s: MPI's messages do not arrive",
                               seconds, name, place);
  }
  lks_advise(verdict, "look at %s and its network; %s, or raise run.timeout", ward->hosts[rank],
             again);
}

/* All wait, and for a rank that no heartbeat comes from. */
static void blame_unheard(const lks_ward *ward, int rank, double seconds, lks_error *verdict) {
  char name[96];
  verdict->status = lks_fail(verdict, LKS_COMM, "",
                             "no progress for %.0f s: all wait for %s, whose heartbeats cannot be "
                             "had",
                             seconds, name_of(ward, rank, name));
  lks_advise(verdict, "look at that process on %s; %s, or raise run.timeout", ward->hosts[rank],
             again);
}

static bool find_still(const lks_ward *ward, double now, double timeout, lks_error *verdict) {
  int behind = -1, unheard = -1;
  bool just_waiting = false;
  for (int rank = 0; rank < ward->size; ++rank) {
    const lks_peer *peer = &ward->peers[rank];
    unheard = peer->state == LKS_PEER_UNHEARD && unheard < 0 ? rank : unheard;
    if (peer->state != LKS_PEER_HEARD) {
      continue;
    }
    if (rank != ward->self && now - peer->heard > FRESH) {
      return false; /* it may be anywhere by now; whether it is silent is judged elsewhere */
    }
    if (idle_of(ward, rank, now) > timeout) {
      behind = behind < 0 || is_behind(ward, rank, behind, now) ? rank : behind;
    } else if (peer->pulse.waiting) {
      just_waiting = true;
    } else {
      return false; /* it makes progress */
    }
  }
  if (behind < 0 || (just_waiting && ward->peers[behind].pulse.waiting)) {
    return false;
  }
  const double seconds = idle_of(ward, behind, now);
  if (unheard >= 0 && ward->peers[behind].pulse.waiting) {
    if (seconds <= timeout + UNHEARD_DELAY) {
      return false;
    }
    blame_unheard(ward, unheard, seconds, verdict);
  } else {
    blame(ward, behind, seconds, false, verdict);
  }
  return true;
}

bool lks_ward_verdict(lks_ward *ward, double now, double timeout, lks_error *verdict) {
  return find_dead(ward, verdict) || (timeout > 0.0 && (find_silent(ward, now, timeout, verdict) ||
                                                        find_still(ward, now, timeout, verdict)));
}

bool lks_ward_verdict_alone(const lks_ward *ward, double timeout, lks_error *verdict) {
  const double idle = ward->peers[ward->self].pulse.idle;
  if (timeout <= 0.0 || idle <= timeout) {
    return false;
  }
  blame(ward, ward->self, idle, true, verdict);
  return true;
}
