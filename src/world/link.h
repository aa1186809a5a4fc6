/* Messages between watchdogs: framed, over stream sockets that never block.
 *
 * Within a node they go through a Unix socket, across nodes over TCP; MPI has no part in them, so
 * they tell of a rank while MPI waits for it. When a process ends, however it does, its kernel ends
 * its streams: the other side reads that at once. A link belongs to one thread at a time. */
#ifndef LKS_WORLD_LINK_H
#define LKS_WORLD_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { LKS_LINK_ROOM = 4096, LKS_LINK_HEADER = 8 };

typedef enum lks_link_state {
  LKS_LINK_OPEN,
  LKS_LINK_ENDED, /* by the other process' end, or its closing the socket */
  LKS_LINK_BROKEN /* by the network, or what came was no message */
} lks_link_state;

typedef struct lks_link {
  int fd; /* -1: closed */
  lks_link_state state;
  size_t got, queued; /* bytes in the buffers */
  unsigned char in[LKS_LINK_ROOM], out[LKS_LINK_ROOM];
} lks_link;

/* Takes over a connected socket. */
void lks_link_open(lks_link *link, int fd);
void lks_link_close(lks_link *link);

/* Queues a message of at most LKS_LINK_ROOM - LKS_LINK_HEADER bytes. False: dropped, for the other
 * side has not read for long. */
bool lks_link_put(lks_link *link, uint32_t kind, const void *body, size_t bytes);

/* Sends what is queued and can be sent now. */
void lks_link_flush(lks_link *link);

/* Reads what has come; true when there was something. After the end of the stream, messages that
 * came before it are still to be taken. */
bool lks_link_fill(lks_link *link);

/* The next whole message, at most `room` bytes of it into body; false: none yet. */
bool lks_link_take(lks_link *link, uint32_t *kind, void *body, size_t room, size_t *bytes);

/* Bytes sent over TCP that the other host's kernel has not confirmed. It confirms for a stopped
 * process too, but not from behind a cut network. */
int lks_link_unconfirmed(const lks_link *link);

/* ---- where to call */

enum { LKS_ADDRESSES = 8, LKS_TOKEN = 16 };

typedef struct lks_address {
  int family; /* AF_INET, AF_INET6 */
  unsigned char bytes[16];
} lks_address;

/* Where a rank listens. Sent to all by MPI; the token keeps strangers out. */
typedef struct lks_book {
  unsigned char token[LKS_TOKEN];
  int port;       /* 0: no TCP */
  char local[48]; /* name of the Unix socket; empty: none */
  int count;
  lks_address addresses[LKS_ADDRESSES];
} lks_book;

/* Listens on all interfaces and on a Unix socket without a file; what can't be had is -1.
 * LKS_COMM when neither can. */
lks_status lks_listen(int listeners[2], lks_book *book, lks_error *err) LKS_MUST_USE;

/* Tries the book's addresses one after the other, at most `patience` seconds each: sends hello and
 * waits for any answer of kind `welcome`. False: none, and `tried` says which and why. */
bool lks_dial(const lks_book *book, bool same_node, uint32_t hello, const void *body, size_t bytes,
              uint32_t welcome, double patience, lks_link *link, char *tried, size_t size);

#endif
