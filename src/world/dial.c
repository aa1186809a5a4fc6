/* Listening and calling. Names are never resolved: on many clusters nodes can't resolve their own.
 * A rank tells the addresses of all its interfaces, and the caller tries them: those of a network
 * that it is on itself first, its own last (a container bridge has the same address on every host).
 * Who answers is known by its welcome, for which the token had to be right. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/text.h"
#include "world/link.h"

typedef union place {
  struct sockaddr any;
  struct sockaddr_in four;
  struct sockaddr_in6 six;
  struct sockaddr_un local;
} place;

static size_t address_bytes(int family) {
  return family == AF_INET6 ? sizeof(struct in6_addr) : sizeof(struct in_addr);
}

/* The bytes of an interface's address or mask; NULL: neither IPv4 nor IPv6. */
static const unsigned char *bytes_of(const struct sockaddr *address) {
  if (address == NULL) {
    return NULL;
  }
  const void *at = address;
  if (address->sa_family == AF_INET) {
    return (const unsigned char *)&((const struct sockaddr_in *)at)->sin_addr;
  }
  if (address->sa_family == AF_INET6) {
    return (const unsigned char *)&((const struct sockaddr_in6 *)at)->sin6_addr;
  }
  return NULL;
}

static bool is_link_local(const unsigned char *bytes, int family) {
  return family == AF_INET6 && bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80;
}

/* Addresses of this host's interfaces, IPv4 first: IPv6 ones vanish while a link is down. */
static void list_addresses(const struct ifaddrs *all, lks_book *book) {
  static const int families[] = {AF_INET, AF_INET6};
  for (int f = 0; f < 2; ++f) {
    for (const struct ifaddrs *one = all; one != NULL; one = one->ifa_next) {
      const unsigned char *bytes = bytes_of(one->ifa_addr);
      if (bytes == NULL || one->ifa_addr->sa_family != families[f] ||
          (one->ifa_flags & IFF_UP) == 0 || (one->ifa_flags & IFF_LOOPBACK) != 0 ||
          is_link_local(bytes, families[f]) || book->count == LKS_ADDRESSES) {
        continue;
      }
      lks_address *next = &book->addresses[book->count++];
      next->family = families[f];
      memcpy(next->bytes, bytes, address_bytes(families[f]));
    }
  }
}

static int listen_at(const place *at, socklen_t length, bool both) {
  const int off = 0;
  const int fd = socket(at->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    return -1;
  }
  if ((both && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0) ||
      bind(fd, &at->any, length) != 0 || listen(fd, SOMAXCONN) != 0) {
    (void)close(fd);
    return -1;
  }
  return fd;
}

/* On a port that the system chooses; IPv6 and IPv4 by one socket where there are both. */
static int listen_tcp(int *port) {
  place at;
  memset(&at, 0, sizeof at);
  at.six.sin6_family = AF_INET6;
  int fd = listen_at(&at, sizeof at.six, true);
  if (fd < 0) {
    memset(&at, 0, sizeof at);
    at.four.sin_family = AF_INET;
    fd = listen_at(&at, sizeof at.four, false);
  }
  socklen_t length = sizeof at;
  if (fd >= 0 && getsockname(fd, &at.any, &length) == 0) {
    *port = ntohs(at.any.sa_family == AF_INET6 ? at.six.sin6_port : at.four.sin_port);
  }
  return fd;
}

/* A name that begins with a zero byte has no file, and ends with its socket. */
static socklen_t local_place(const char *name, place *at) {
  memset(at, 0, sizeof *at);
  at->local.sun_family = AF_UNIX;
  const size_t length = strlen(name);
  memcpy(at->local.sun_path + 1, name, length);
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
}

lks_status lks_listen(int listeners[2], lks_book *book, lks_error *err) {
  lks_status st = LKS_OK;
  struct ifaddrs *all = NULL;
  place at;
  memset(book, 0, sizeof *book);
  listeners[0] = listeners[1] = -1;
  if (getrandom(book->token, sizeof book->token, 0) != (ssize_t)sizeof book->token) {
    FAIL(LKS_COMM, NULL, "no random numbers for the heartbeats: %s", strerror(errno));
  }
  uint64_t unique = 0;
  memcpy(&unique, book->token + LKS_TOKEN - sizeof unique, sizeof unique);
  (void)snprintf(book->local, sizeof book->local, "lockstep-%ld-%016llx", (long)getpid(),
                 (unsigned long long)unique);
  const socklen_t length = local_place(book->local, &at);
  listeners[0] = listen_at(&at, length, false);
  if (listeners[0] < 0) {
    book->local[0] = '\0';
  }
  listeners[1] = listen_tcp(&book->port);
  if (getifaddrs(&all) == 0) {
    list_addresses(all, book);
    freeifaddrs(all);
  }
  if (listeners[0] < 0 && listeners[1] < 0) {
    FAIL(LKS_COMM, NULL, "cannot listen for heartbeats: %s", strerror(errno));
  }
cleanup:
  return st;
}

/* ---- calling */

/* Waits until the socket is ready for `events`, or the deadline has passed. */
static bool ready(int fd, short events, double deadline) {
  for (double left = deadline - lks_now(); left > 0.0; left = deadline - lks_now()) {
    struct pollfd one = {.fd = fd, .events = events};
    const int count = poll(&one, 1, (int)(left * 1e3) + 1);
    if (count > 0) {
      return true;
    }
    if (count < 0 && errno != EINTR) {
      return false;
    }
  }
  errno = ETIMEDOUT;
  return false;
}

/* Says hello and waits for the welcome. errno says why not. */
static bool greet(lks_link *link, uint32_t hello, const void *body, size_t bytes, uint32_t welcome,
                  double deadline) {
  unsigned char answer[LKS_LINK_ROOM];
  uint32_t kind = 0;
  size_t length = 0;
  if (!lks_link_put(link, hello, body, bytes)) {
    errno = EMSGSIZE;
    return false;
  }
  while (link->state == LKS_LINK_OPEN) {
    lks_link_flush(link);
    if (!ready(link->fd, POLLIN, deadline)) {
      return false;
    }
    (void)lks_link_fill(link);
    if (lks_link_take(link, &kind, answer, sizeof answer, &length)) {
      errno = EPROTO;
      return kind == welcome;
    }
  }
  errno = ECONNREFUSED;
  return false;
}

/* A connected socket, or -1 and errno. */
static int connect_to(const place *to, socklen_t length, double deadline) {
  const int fd = socket(to->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    return -1;
  }
  int code = connect(fd, &to->any, length) == 0 ? 0 : errno;
  if (code == EINPROGRESS) {
    socklen_t size = sizeof code;
    if (!ready(fd, POLLOUT, deadline)) {
      code = errno;
    } else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) != 0) {
      code = errno;
    }
  }
  if (code != 0) {
    (void)close(fd);
    errno = code;
    return -1;
  }
  return fd;
}

typedef struct call {
  uint32_t hello, welcome;
  const void *body;
  size_t bytes;
  double patience;
  lks_link *link;
  char *tried;
  size_t size;
} call;

static bool try_one(const call *c, const place *to, socklen_t length, const char *name) {
  const double deadline = lks_now() + c->patience;
  const int fd = connect_to(to, length, deadline);
  if (fd >= 0) {
    lks_link_open(c->link, fd);
    if (greet(c->link, c->hello, c->body, c->bytes, c->welcome, deadline)) {
      return true;
    }
    const int code = errno;
    lks_link_close(c->link);
    errno = code;
  }
  const size_t used = strlen(c->tried);
  (void)snprintf(c->tried + used, c->size - used, "%s%s: %s", used > 0 ? ", " : "", name,
                 strerror(errno));
  return false;
}

static bool try_address(const call *c, const lks_address *address, int port) {
  place to;
  char name[INET6_ADDRSTRLEN] = "?";
  memset(&to, 0, sizeof to);
  (void)inet_ntop(address->family, address->bytes, name, sizeof name);
  if (address->family == AF_INET6) {
    to.six.sin6_family = AF_INET6;
    to.six.sin6_port = htons((uint16_t)port);
    memcpy(&to.six.sin6_addr, address->bytes, sizeof to.six.sin6_addr);
    return try_one(c, &to, sizeof to.six, name);
  }
  to.four.sin_family = AF_INET;
  to.four.sin_port = htons((uint16_t)port);
  memcpy(&to.four.sin_addr, address->bytes, sizeof to.four.sin_addr);
  return try_one(c, &to, sizeof to.four, name);
}

/* 0: on a network of this host; 1: behind a router; 2: an address of this host itself. */
static int distance(const struct ifaddrs *all, const lks_address *address) {
  int nearest = 1;
  for (const struct ifaddrs *one = all; one != NULL; one = one->ifa_next) {
    const unsigned char *own = bytes_of(one->ifa_addr), *mask = bytes_of(one->ifa_netmask);
    if (own == NULL || mask == NULL || one->ifa_addr->sa_family != address->family) {
      continue;
    }
    bool same_net = true, same = true;
    for (size_t i = 0; i < address_bytes(address->family); ++i) {
      same_net = same_net && ((own[i] ^ address->bytes[i]) & mask[i]) == 0;
      same = same && own[i] == address->bytes[i];
    }
    if (same) {
      return 2;
    }
    nearest = same_net ? 0 : nearest;
  }
  return nearest;
}

bool lks_dial(const lks_book *book, bool same_node, uint32_t hello, const void *body, size_t bytes,
              uint32_t welcome, double patience, lks_link *link, char *tried, size_t size) {
  static const lks_address loopback = {.family = AF_INET, .bytes = {127, 0, 0, 1}};
  const call c = {hello, welcome, body, bytes, patience, link, tried, size};
  bool found = false;
  tried[0] = '\0';
  if (same_node && book->local[0] != '\0') {
    place to;
    const socklen_t length = local_place(book->local, &to);
    found = try_one(&c, &to, length, "Unix socket");
  }
  if (same_node && !found && book->port != 0) {
    found = try_address(&c, &loopback, book->port);
  }
  struct ifaddrs *all = NULL;
  if (getifaddrs(&all) != 0) {
    all = NULL;
  }
  for (int wanted = 0; wanted < 3; ++wanted) {
    for (int i = 0; i < book->count && !found && book->port != 0; ++i) {
      found = distance(all, &book->addresses[i]) == wanted &&
              try_address(&c, &book->addresses[i], book->port);
    }
  }
  freeifaddrs(all);
  return found;
}
