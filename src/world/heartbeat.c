/* See heartbeat.h. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "world/heartbeat_internal.h"

/* Seconds: between two pulses; a stranger may take to say hello; MPI's own complaint about a peer
 * waits for the news of that peer's death; a send at the end may take. */
#define PULSE_PERIOD 0.5
#define STRANGER_PATIENCE 10.0
#define FAILURE_PATIENCE 1.0
#define LAST_WORDS 0.3

/* Seconds beyond the timeout before a rank takes over from hubs that are silent, each after those
 * that can judge better. */
#define SECOND_HUB_DELAY 1.5
#define ORPHAN_DELAY 4.0
#define ALONE_DELAY 3.0

enum { STRANGERS = 64 };

/* Strangers have rank -1 until they say hello. */
typedef struct connection {
  lks_link *link;
  int rank;
  double since;
} connection;

struct lks_heart {
  lks_ward ward;
  char (*hosts)[64];
  int hubs[2];
  int listeners[2];
  unsigned char token[LKS_TOKEN]; /* of this hub */
  connection *connections;
  struct pollfd *polls; /* as many, and LOOKS more */
  int count, room;
  double sent; /* the last pulse, and the phase in it; < 0: one is due */
  char phase[sizeof(((lks_pulse *)NULL)->phase)];
  int64_t met;
  double orphaned;   /* when both hubs were lost; < 0: they are not */
  lks_error failure; /* some rank's own; LKS_OK: none */
  double failed;     /* when it was told */
  lks_error told;    /* a ruling that came; LKS_OK: none */
};

/* Descriptors beside connections: listeners and the wake. */
enum { LOOKS = 3 };

static bool is_hub(const lks_heart *heart, int rank) {
  return rank == heart->hubs[0] || rank == heart->hubs[1];
}

lks_status lks_heart_make(const lks_world *world, lks_heart **out, lks_error *err) {
  lks_status st = LKS_OK;
  const size_t size = world->size > 0 ? (size_t)world->size : 1;
  *out = NULL;
  lks_heart *heart = calloc(1, sizeof *heart);
  TRY_ALLOC(heart);
  heart->hubs[0] = heart->hubs[1] = -1;
  heart->listeners[0] = heart->listeners[1] = -1;
  heart->orphaned = -1.0;
  lks_error_clear(&heart->failure);
  lks_error_clear(&heart->told);
  heart->hosts = calloc(size, sizeof *heart->hosts);
  TRY_ALLOC(heart->hosts);
  heart->ward = (lks_ward){.size = (int)size, .self = world->rank};
  heart->ward.peers = calloc(size, sizeof *heart->ward.peers);
  TRY_ALLOC(heart->ward.peers);
  heart->polls = calloc(LOOKS, sizeof *heart->polls);
  TRY_ALLOC(heart->polls);
  if (world->rank >= heart->ward.size) {
    FAIL(LKS_INTERNAL, NULL, "rank %d of %d", world->rank, heart->ward.size);
  }
  memcpy(heart->hosts[world->rank], world->host, sizeof world->host);
  heart->ward.hosts = (const char(*)[64])heart->hosts;
  heart->ward.peers[world->rank].state = LKS_PEER_HEARD;
  *out = heart;
  heart = NULL;
cleanup:
  lks_heart_free(&heart);
  return st;
}

static void drop(lks_heart *heart, int i) {
  lks_link_close(heart->connections[i].link);
  free(heart->connections[i].link);
  heart->connections[i] = heart->connections[--heart->count];
}

void lks_heart_free(lks_heart **out) {
  lks_heart *heart = *out;
  if (heart == NULL) {
    return;
  }
  *out = NULL;
  while (heart->count > 0) {
    drop(heart, heart->count - 1);
  }
  for (int i = 0; i < 2; ++i) {
    if (heart->listeners[i] >= 0) {
      (void)close(heart->listeners[i]);
    }
  }
  free(heart->connections);
  free(heart->polls);
  free(heart->ward.peers);
  free(heart->hosts);
  free(heart);
}

void lks_heart_meet(lks_heart *heart, lks_meeting *meeting) {
  for (int i = 0; i < 2; ++i) {
    heart->hubs[i] = meeting->hubs[i];
    heart->listeners[i] = meeting->listeners[i];
    meeting->listeners[i] = -1;
    if (meeting->hubs[i] == heart->ward.self) {
      memcpy(heart->token, meeting->books[i].token, sizeof heart->token);
    }
  }
  memcpy(heart->hosts, meeting->hosts, (size_t)heart->ward.size * sizeof *heart->hosts);
}

/* Takes the link over; false: no memory for it, and it is closed. */
static bool add(lks_heart *heart, lks_link *link, int rank, double now) {
  if (heart->count == heart->room) {
    const int room = heart->room > 0 ? 2 * heart->room : 8;
    connection *more = realloc(heart->connections, (size_t)room * sizeof *more);
    heart->connections = more != NULL ? more : heart->connections;
    struct pollfd *polls = realloc(heart->polls, (size_t)(room + LOOKS) * sizeof *polls);
    heart->polls = polls != NULL ? polls : heart->polls;
    if (more == NULL || polls == NULL) {
      lks_link_close(link);
      free(link);
      return false;
    }
    heart->room = room;
  }
  heart->connections[heart->count++] = (connection){.link = link, .rank = rank, .since = now};
  return true;
}

static void first_heard(lks_heart *heart, int rank, double now) {
  lks_peer *peer = &heart->ward.peers[rank];
  if (peer->state == LKS_PEER_UNHEARD) {
    *peer = (lks_peer){.state = LKS_PEER_HEARD, .confirms = true, .pulse = {.rank = rank}};
  }
  peer->heard = now;
}

void lks_heart_join(lks_heart *heart, int hub, lks_link *link, double now) {
  if (add(heart, link, hub, now)) {
    first_heard(heart, hub, now);
    heart->sent = -1.0;
  }
}

/* ---- receiving */

static void accept_all(lks_heart *heart, double now) {
  for (int i = 0; i < 2; ++i) {
    while (heart->listeners[i] >= 0 && heart->count < heart->ward.size + STRANGERS) {
      const int fd = accept4(heart->listeners[i], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (fd < 0) {
        break;
      }
      lks_link *link = malloc(sizeof *link);
      if (link == NULL) {
        (void)close(fd);
        break;
      }
      lks_link_open(link, fd);
      (void)add(heart, link, -1, now);
    }
  }
}

static void greet(lks_heart *heart, connection *c, const void *body, size_t bytes, double now) {
  lks_hello hello;
  if (bytes == sizeof hello) {
    memcpy(&hello, body, sizeof hello);
    if (memcmp(hello.token, heart->token, sizeof hello.token) == 0 && hello.rank >= 0 &&
        hello.rank < heart->ward.size && hello.rank != heart->ward.self) {
      c->rank = hello.rank;
      first_heard(heart, c->rank, now);
      (void)lks_link_put(c->link, LKS_MESSAGE_WELCOME, NULL, 0);
      lks_link_flush(c->link);
      return;
    }
  }
  c->link->state = LKS_LINK_BROKEN;
}

static void take_error(lks_error *into, const void *body, size_t bytes) {
  if (bytes == sizeof *into && into->status == LKS_OK) {
    memcpy(into, body, sizeof *into);
    into->host[sizeof into->host - 1] = into->phase[sizeof into->phase - 1] = '\0';
    into->what[sizeof into->what - 1] = into->remedy[sizeof into->remedy - 1] = '\0';
    into->trace[sizeof into->trace - 1] = '\0';
  }
}

static void handle(lks_heart *heart, connection *c, uint32_t kind, const void *body, size_t bytes,
                   double now) {
  lks_peer *peer = &heart->ward.peers[c->rank];
  peer->heard = now;
  switch (kind) {
  case LKS_MESSAGE_PULSE:
    if (bytes == sizeof peer->pulse) {
      memcpy(&peer->pulse, body, sizeof peer->pulse);
      peer->pulse.phase[sizeof peer->pulse.phase - 1] = '\0';
      peer->pulse.doing[sizeof peer->pulse.doing - 1] = '\0';
    }
    break;
  case LKS_MESSAGE_FAILURE:
    if (heart->failure.status == LKS_OK) { /* the first is the one to tell */
      heart->failed = now;
      take_error(&heart->failure, body, bytes);
      heart->failure.rank = c->rank;
    }
    break;
  case LKS_MESSAGE_RULING:
  case LKS_MESSAGE_RULING_CUT:
    heart->ward.cut = kind == LKS_MESSAGE_RULING_CUT;
    take_error(&heart->told, body, bytes);
    break;
  case LKS_MESSAGE_FAREWELL:
    peer->leaving = true;
    break;
  default: /* a later message of this same build: there is none */
    c->link->state = LKS_LINK_BROKEN;
    break;
  }
}

static void receive(lks_heart *heart, connection *c, double now) {
  unsigned char body[LKS_LINK_ROOM];
  bool more = true;
  while (more) {
    uint32_t kind = 0;
    size_t bytes = 0;
    more = lks_link_fill(c->link);
    while (lks_link_take(c->link, &kind, body, sizeof body, &bytes)) {
      if (c->rank >= 0) {
        handle(heart, c, kind, body, bytes, now);
      } else if (kind == LKS_MESSAGE_HELLO) {
        greet(heart, c, body, bytes, now);
      } else {
        c->link->state = LKS_LINK_BROKEN;
      }
    }
  }
}

static void receive_all(lks_heart *heart, double now) {
  for (int i = heart->count - 1; i >= 0; --i) {
    connection *c = &heart->connections[i];
    receive(heart, c, now);
    const bool gone = c->link->state != LKS_LINK_OPEN;
    if (gone && c->rank >= 0) {
      lks_peer *peer = &heart->ward.peers[c->rank];
      if (c->link->state == LKS_LINK_ENDED && peer->state == LKS_PEER_HEARD) {
        /* One that told its own failure has said why it ends. */
        const bool told = heart->failure.status != LKS_OK && heart->failure.rank == c->rank;
        peer->state = told || peer->leaving ? LKS_PEER_LEFT : LKS_PEER_DEAD;
        peer->heard = now;
      }
      peer->confirms = peer->confirms && c->link->state == LKS_LINK_ENDED;
    }
    if (gone || (c->rank < 0 && now - c->since > STRANGER_PATIENCE)) {
      drop(heart, i);
    }
  }
}

/* ---- sending */

static void send_pulse(lks_heart *heart, const lks_pulse *own, double now) {
  const bool settled = now - heart->sent >= PULSE_PERIOD;
  for (int i = 0; i < heart->count; ++i) {
    const connection *c = &heart->connections[i];
    if (c->rank < 0) {
      continue;
    }
    /* What was sent half a second ago has been confirmed, if there is anybody to do it. */
    if (settled && strcmp(heart->hosts[c->rank], heart->hosts[heart->ward.self]) != 0) {
      heart->ward.peers[c->rank].confirms = lks_link_unconfirmed(c->link) == 0;
    }
    (void)lks_link_put(c->link, LKS_MESSAGE_PULSE, own, sizeof *own);
    lks_link_flush(c->link);
  }
  heart->sent = now;
}

bool lks_heart_report(lks_heart *heart, const lks_error *error, double now) {
  bool reached = false;
  if (heart->failure.status == LKS_OK) {
    heart->failure = *error;
    heart->failed = now;
  }
  for (int i = 0; i < heart->count; ++i) {
    const connection *c = &heart->connections[i];
    if (c->rank >= 0 && is_hub(heart, c->rank) &&
        lks_link_put(c->link, LKS_MESSAGE_FAILURE, error, sizeof *error)) {
      lks_link_flush(c->link);
      reached = reached || c->link->state == LKS_LINK_OPEN;
    }
  }
  return reached || (is_hub(heart, heart->ward.self) && heart->count > 0);
}

void lks_heart_tell(lks_heart *heart, const lks_error *ruling) {
  const uint32_t kind = ruling == NULL    ? LKS_MESSAGE_FAREWELL
                        : heart->ward.cut ? LKS_MESSAGE_RULING_CUT
                                          : LKS_MESSAGE_RULING;
  for (int i = 0; i < heart->count; ++i) {
    (void)lks_link_put(heart->connections[i].link, kind, ruling,
                       ruling != NULL ? sizeof *ruling : 0);
  }
  const double deadline = lks_now() + LAST_WORDS;
  bool left = true;
  for (bool first = true; left && (first || lks_now() < deadline); first = false) {
    left = false;
    for (int i = 0; i < heart->count; ++i) {
      lks_link *link = heart->connections[i].link;
      lks_link_flush(link);
      left = left || (link->state == LKS_LINK_OPEN && link->queued > 0);
    }
    if (left) {
      (void)poll(NULL, 0, 10);
    }
  }
}

bool lks_heart_cut(const lks_heart *heart) {
  return heart->ward.cut;
}

/* ---- judging */

static bool is_lost(const lks_heart *heart, int rank, double now, double timeout, double delay) {
  const lks_peer_state state = heart->ward.peers[rank].state;
  return state == LKS_PEER_DEAD ||
         (timeout > 0.0 && lks_ward_silent(&heart->ward, rank, now, timeout + delay));
}

/* Hubs that this rank hears, or did until they were lost. */
static int known_hubs(const lks_heart *heart) {
  int known = 0;
  for (int i = 0; i < 2; ++i) {
    const int hub = heart->hubs[i];
    const lks_peer_state state = hub >= 0 ? heart->ward.peers[hub].state : LKS_PEER_UNHEARD;
    known += hub != heart->ward.self && (state == LKS_PEER_HEARD || state == LKS_PEER_DEAD);
  }
  return known;
}

/* Neither hub: only when all that it hears are lost, and lower ranks have had their moment. */
static bool orphan_in_charge(lks_heart *heart, double now, double timeout) {
  for (int i = 0; i < 2; ++i) {
    const int hub = heart->hubs[i];
    if (heart->ward.peers[hub].state == LKS_PEER_HEARD &&
        !is_lost(heart, hub, now, timeout, ORPHAN_DELAY)) {
      heart->orphaned = -1.0;
      return false;
    }
  }
  if (heart->orphaned < 0.0) {
    heart->orphaned = now;
  }
  const double moment = 0.25 * heart->ward.self;
  return now - heart->orphaned >= (moment < 3.0 ? moment : 3.0);
}

static bool in_charge(lks_heart *heart, double now, double timeout) {
  if (heart->ward.self == heart->hubs[0]) {
    return true;
  }
  if (heart->ward.self == heart->hubs[1]) {
    return is_lost(heart, heart->hubs[0], now, timeout, SECOND_HUB_DELAY);
  }
  return orphan_in_charge(heart, now, timeout);
}

/* A rank's own failure is told at once, but MPI's complaints about peers only when no death comes
 * to explain them. */
static bool failure_ripe(const lks_heart *heart, double now) {
  const lks_error *failure = &heart->failure;
  return failure->status != LKS_OK &&
         (failure->status != LKS_COMM || now - heart->failed >= FAILURE_PATIENCE ||
          heart->ward.peers[failure->rank].state == LKS_PEER_LEFT);
}

static bool rule(lks_heart *heart, double now, double timeout, lks_error *ruling) {
  const bool ripe = failure_ripe(heart, now);
  if ((ripe && heart->failure.status != LKS_COMM) ||
      (!lks_ward_verdict(&heart->ward, now, timeout, ruling) && ripe)) {
    *ruling = heart->failure;
  }
  return ruling->status != LKS_OK;
}

static lks_ruling judge(lks_heart *heart, double now, double timeout, lks_error *ruling) {
  lks_error_clear(ruling);
  if (heart->told.status != LKS_OK) {
    *ruling = heart->told;
    if (is_hub(heart, heart->ward.self)) {
      lks_heart_tell(heart, ruling); /* some may hear of this hub alone */
    }
    return LKS_RULING_TOLD;
  }
  const bool first = heart->ward.self == heart->hubs[0];
  if (!first && known_hubs(heart) == 0) {
    const double limit = heart->ward.size > 1 ? timeout + ALONE_DELAY : timeout;
    return timeout > 0.0 && lks_ward_verdict_alone(&heart->ward, limit, ruling) ? LKS_RULING_OURS
                                                                                : LKS_RULING_NONE;
  }
  if (!in_charge(heart, now, timeout)) {
    return LKS_RULING_NONE;
  }
  return rule(heart, now, timeout, ruling) ? LKS_RULING_OURS : LKS_RULING_NONE;
}

/* ---- a turn */

static void wait_for_news(lks_heart *heart, double wait, int wake) {
  int count = 0;
  heart->polls[count++] = (struct pollfd){.fd = wake, .events = POLLIN};
  for (int i = 0; i < 2; ++i) {
    heart->polls[count++] = (struct pollfd){.fd = heart->listeners[i], .events = POLLIN};
  }
  for (int i = 0; i < heart->count; ++i) {
    heart->polls[count++] = (struct pollfd){.fd = heart->connections[i].link->fd, .events = POLLIN};
  }
  (void)poll(heart->polls, (nfds_t)count, (int)(wait * 1e3));
}

lks_ruling lks_heart_turn(lks_heart *heart, const lks_pulse *own, int64_t met, double now,
                          double timeout, double wait, int wake, lks_error *ruling) {
  lks_peer *self = &heart->ward.peers[heart->ward.self];
  self->pulse = *own;
  self->heard = now;
  if (met != heart->met) {
    heart->met = met;
    heart->ward.met = now;
  }
  /* A new phase is told at once: a rank that dies soon after is then known to have come to it. */
  if (heart->sent < 0.0 || now - heart->sent >= PULSE_PERIOD ||
      strcmp(own->phase, heart->phase) != 0) {
    memcpy(heart->phase, own->phase, sizeof heart->phase);
    send_pulse(heart, own, now);
  }
  wait_for_news(heart, wait, wake);
  accept_all(heart, now);
  receive_all(heart, now);
  return judge(heart, now, timeout, ruling);
}
