/* Framing. A message is 4 bytes of kind, 4 of length, the body; ranks are of one build, so structs
 * travel as they lie in memory. */
#include "world/link.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

void lks_link_open(lks_link *link, int fd) {
  const int flags = fcntl(fd, F_GETFL);
  (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  link->fd = fd;
  link->state = LKS_LINK_OPEN;
  link->got = link->queued = 0;
}

void lks_link_close(lks_link *link) {
  if (link->fd >= 0) {
    (void)close(link->fd);
    link->fd = -1;
  }
}

bool lks_link_put(lks_link *link, uint32_t kind, const void *body, size_t bytes) {
  const uint32_t header[2] = {kind, (uint32_t)bytes};
  _Static_assert(sizeof header == LKS_LINK_HEADER, "the header's length");
  if (link->state != LKS_LINK_OPEN || bytes > LKS_LINK_ROOM - LKS_LINK_HEADER ||
      link->queued + LKS_LINK_HEADER + bytes > LKS_LINK_ROOM) {
    return false;
  }
  memcpy(link->out + link->queued, header, sizeof header);
  if (bytes > 0) {
    memcpy(link->out + link->queued + sizeof header, body, bytes);
  }
  link->queued += sizeof header + bytes;
  return true;
}

static bool for_later(int code) {
  return code == EAGAIN || code == EWOULDBLOCK || code == EINTR;
}

static void fail(lks_link *link, int code) {
  if (link->state == LKS_LINK_OPEN) {
    link->state = code == EPIPE || code == ECONNRESET ? LKS_LINK_ENDED : LKS_LINK_BROKEN;
  }
}

void lks_link_flush(lks_link *link) {
  while (link->state == LKS_LINK_OPEN && link->queued > 0) {
    const ssize_t sent = send(link->fd, link->out, link->queued, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && for_later(errno)) {
      return;
    }
    if (sent < 0) {
      /* What the other side said last may still be there to read: the end is found by fill. */
      if (errno != EPIPE && errno != ECONNRESET) {
        fail(link, errno);
      }
      link->queued = 0;
      return;
    }
    link->queued -= (size_t)sent;
    memmove(link->out, link->out + sent, link->queued);
  }
}

bool lks_link_fill(lks_link *link) {
  if (link->state != LKS_LINK_OPEN || link->got == LKS_LINK_ROOM) {
    return false;
  }
  const ssize_t got = recv(link->fd, link->in + link->got, LKS_LINK_ROOM - link->got, MSG_DONTWAIT);
  if (got > 0) {
    link->got += (size_t)got;
    return true;
  }
  if (got == 0) {
    link->state = LKS_LINK_ENDED;
  } else if (!for_later(errno)) {
    fail(link, errno);
  }
  return false;
}

bool lks_link_take(lks_link *link, uint32_t *kind, void *body, size_t room, size_t *bytes) {
  uint32_t header[2];
  if (link->got < sizeof header) {
    return false;
  }
  memcpy(header, link->in, sizeof header);
  if (header[1] > LKS_LINK_ROOM - sizeof header) {
    link->state = LKS_LINK_BROKEN;
    link->got = 0;
    return false;
  }
  const size_t whole = sizeof header + header[1];
  if (link->got < whole) {
    return false;
  }
  *kind = header[0];
  *bytes = header[1] < room ? header[1] : room;
  memcpy(body, link->in + sizeof header, *bytes);
  link->got -= whole;
  memmove(link->in, link->in + whole, link->got);
  return true;
}

int lks_link_unconfirmed(const lks_link *link) {
  int bytes = 0;
  return link->fd >= 0 && ioctl(link->fd, SIOCOUTQ, &bytes) == 0 ? bytes : 0;
}
