/* How ranks learn where their hubs listen, and call them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "world/heartbeat_internal.h"

/* Seconds a hub may take to answer on one address. */
#define PATIENCE 2.0

/* Files that a hub has open beside its sockets. */
enum { OTHER_FILES = 256 };

typedef struct card {
  char host[64];
  int node;
} card;

/* A hub has a socket for every rank: where the soft limit is lower, it is raised. */
static void make_room(int size) {
  struct rlimit limit;
  const rlim_t wanted = (rlim_t)size + OTHER_FILES;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < wanted) {
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
  }
}

/* The lowest rank of the second node; on one node, rank 1. */
static int second_hub(const card *cards, int size) {
  for (int rank = 1; rank < size; ++rank) {
    if (cards[rank].node != cards[0].node) {
      return rank;
    }
  }
  return size > 1 ? 1 : -1;
}

lks_status lks_meeting_hold(lks_world *world, lks_meeting *meeting, lks_error *err) {
  lks_status st = LKS_OK;
  card mine = {.node = world->node_index};
  card *cards = calloc((size_t)world->size, sizeof *cards);
  *meeting = (lks_meeting){.hubs = {-1, -1}, .listeners = {-1, -1}};
  meeting->hosts = calloc((size_t)world->size, sizeof *meeting->hosts);
  memcpy(mine.host, world->host, sizeof mine.host);
  if (cards == NULL || meeting->hosts == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for %d ranks", world->size);
  }
  TRY(lks_agree(world, st, err));
  TRY(lks_world_gather(world, &mine, sizeof mine, cards, err));
  for (int rank = 0; rank < world->size; ++rank) {
    memcpy(meeting->hosts[rank], cards[rank].host, sizeof cards[rank].host);
  }
  meeting->hubs[1] = second_hub(cards, world->size);
  meeting->hubs[0] = meeting->hubs[1] >= 0 ? 0 : -1;
  for (int i = 0; i < 2 && meeting->hubs[i] >= 0; ++i) {
    if (world->rank == meeting->hubs[i]) {
      lks_error ignored; /* an empty book says it */
      make_room(world->size);
      if (lks_listen(meeting->listeners, &meeting->books[i], &ignored) != LKS_OK) {
        meeting->books[i] = (lks_book){.count = 0};
      }
    }
    TRY(lks_world_broadcast(world, &meeting->books[i], sizeof meeting->books[i], meeting->hubs[i],
                            err));
  }
cleanup:
  free(cards);
  if (st != LKS_OK) {
    lks_meeting_free(meeting);
  }
  return st;
}

void lks_meeting_free(lks_meeting *meeting) {
  for (int i = 0; i < 2; ++i) {
    if (meeting->listeners[i] >= 0) {
      (void)close(meeting->listeners[i]);
      meeting->listeners[i] = -1;
    }
  }
  free(meeting->hosts);
  meeting->hosts = NULL;
}

void lks_meeting_call(const lks_world *world, const lks_meeting *meeting, lks_link *links[2],
                      char *missed, size_t size) {
  missed[0] = '\0';
  for (int i = 0; i < 2; ++i) {
    const int hub = meeting->hubs[i];
    const lks_book *book = &meeting->books[i];
    char tried[256] = "out of memory";
    links[i] = NULL;
    if (hub < 0 || hub == world->rank) {
      continue;
    }
    lks_hello hello = {.rank = world->rank};
    memcpy(hello.token, book->token, sizeof hello.token);
    lks_link *link = malloc(sizeof *link);
    /* Hosts of one name are one node to this end: it only saves the network. */
    const bool near = strcmp(meeting->hosts[hub], world->host) == 0;
    if (link != NULL && lks_dial(book, near, LKS_MESSAGE_HELLO, &hello, sizeof hello,
                                 LKS_MESSAGE_WELCOME, PATIENCE, link, tried, sizeof tried)) {
      links[i] = link;
      continue;
    }
    free(link);
    if (missed[0] == '\0') {
      (void)snprintf(missed, size, "rank %d on %s cannot reach rank %d on %s (%s)", world->rank,
                     world->host, hub, meeting->hosts[hub],
                     tried[0] != '\0' ? tried : "it does not listen");
    }
  }
}
