/* Links: messages whole and in order through a stream cut anywhere, ends told apart, and calls that
 * find the one who listens among those who do not. */
#include "scratch.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>

#include "world/link.h"

static lks_error err;

typedef struct pair {
  lks_link *a;
  int b; /* the other end, raw */
} pair;

static pair make_pair(void) {
  int ends[2];
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  pair made = {.a = malloc(sizeof(lks_link)), .b = ends[1]};
  assert_non_null(made.a);
  lks_link_open(made.a, ends[0]);
  return made;
}

static void free_pair(pair *p) {
  lks_link_close(p->a);
  lks_link_close(p->a); /* closed: nothing to do */
  free(p->a);
  if (p->b >= 0) {
    assert_int_equal(close(p->b), 0);
  }
}

static bool take(lks_link *link, uint32_t *kind, char text[64]) {
  size_t bytes = 0;
  memset(text, 0, 64);
  return lks_link_take(link, kind, text, 63, &bytes);
}

/* Sent byte by byte: no message is taken before it is whole. */
static void test_cut_anywhere(void **state) {
  (void)state;
  pair from = make_pair(), to = make_pair();
  unsigned char bytes[256];
  char text[64];
  uint32_t kind = 0;
  assert_true(lks_link_put(from.a, 7, "first", 5));
  assert_true(lks_link_put(from.a, 8, NULL, 0));
  assert_true(lks_link_put(from.a, 9, "third", 5));
  lks_link_flush(from.a);
  const ssize_t all = read(from.b, bytes, sizeof bytes);
  assert_int_equal(all, 3 * LKS_LINK_HEADER + 10);
  uint32_t kinds[3] = {0};
  char texts[3][64];
  int count = 0;
  for (ssize_t i = 0; i < all; ++i) {
    assert_int_equal(write(to.b, bytes + i, 1), 1);
    assert_true(lks_link_fill(to.a));
    while (take(to.a, &kind, text)) {
      assert_in_range(count, 0, 2);
      kinds[count] = kind;
      memcpy(texts[count++], text, sizeof text);
    }
  }
  assert_int_equal(count, 3);
  assert_true(kinds[0] == 7 && kinds[1] == 8 && kinds[2] == 9);
  assert_string_equal(texts[0], "first");
  assert_string_equal(texts[1], "");
  assert_string_equal(texts[2], "third");
  free_pair(&from);
  free_pair(&to);
}

/* What came before the end is still to be had. */
static void test_end(void **state) {
  (void)state;
  pair p = make_pair();
  const unsigned char message[] = {3, 0, 0, 0, 2, 0, 0, 0, 'h', 'i'};
  char text[64];
  uint32_t kind = 0;
  assert_false(lks_link_fill(p.a));
  assert_int_equal(p.a->state, LKS_LINK_OPEN);
  assert_int_equal(write(p.b, message, sizeof message), sizeof message);
  assert_int_equal(close(p.b), 0);
  p.b = -1;
  assert_true(lks_link_put(p.a, 1, "x", 1));
  lks_link_flush(p.a); /* refused by the other end: what it said is still to be read */
  assert_true(lks_link_fill(p.a));
  assert_false(lks_link_fill(p.a));
  assert_int_equal(p.a->state, LKS_LINK_ENDED);
  assert_true(take(p.a, &kind, text));
  assert_int_equal(kind, 3);
  assert_string_equal(text, "hi");
  assert_false(lks_link_put(p.a, 1, "x", 1));
  free_pair(&p);
}

static void test_nonsense(void **state) {
  (void)state;
  pair p = make_pair();
  const unsigned char nonsense[] = "GET / HTTP/1.1\r\n";
  char text[64];
  uint32_t kind = 0;
  assert_int_equal(write(p.b, nonsense, sizeof nonsense), sizeof nonsense);
  assert_true(lks_link_fill(p.a));
  assert_false(take(p.a, &kind, text));
  assert_int_equal(p.a->state, LKS_LINK_BROKEN);
  free_pair(&p);
}

/* Who does not read for long loses messages, never a part of one, and holds nobody up. */
static void test_full(void **state) {
  (void)state;
  pair p = make_pair();
  unsigned char body[1000] = {0}, got[4096];
  long put = 0, bytes = 0;
  for (int refused = 0; refused < 10;) {
    const bool fine = lks_link_put(p.a, 5, body, sizeof body);
    put += fine;
    refused += !fine;
    lks_link_flush(p.a);
  }
  assert_int_equal(p.a->state, LKS_LINK_OPEN);
  assert_false(lks_link_put(p.a, 5, got, LKS_LINK_ROOM));
  const long all = put * (long)(LKS_LINK_HEADER + sizeof body);
  while (bytes < all) {
    const ssize_t more = read(p.b, got, sizeof got);
    assert_true(more > 0);
    bytes += more;
    lks_link_flush(p.a);
  }
  assert_int_equal(bytes, all);
  free_pair(&p);
}

/* ---- calling */

enum { HELLO = 11, WELCOME = 12 };

typedef struct host {
  int listeners[2];
  lks_book book;
  int answered; /* which listener */
  uint32_t answer;
} host;

/* Answers one hello. */
static void *answer_one(void *user) {
  host *h = user;
  lks_link *link = malloc(sizeof *link);
  h->answered = -1;
  for (int looks = 0; link != NULL && looks < 500; ++looks) {
    const struct timespec pause = {0, 10 * 1000 * 1000};
    for (int i = 0; i < 2; ++i) {
      const int fd = h->listeners[i] >= 0 ? accept(h->listeners[i], NULL, NULL) : -1;
      if (fd < 0) {
        continue;
      }
      char text[64];
      uint32_t kind = 0;
      lks_link_open(link, fd);
      while (link->state == LKS_LINK_OPEN && !take(link, &kind, text)) {
        (void)lks_link_fill(link);
      }
      h->answered = i;
      if (kind == HELLO && strcmp(text, "it is me") == 0) {
        (void)lks_link_put(link, h->answer, NULL, 0);
        lks_link_flush(link);
      }
      lks_link_close(link);
      free(link);
      return NULL;
    }
    (void)nanosleep(&pause, NULL);
  }
  free(link);
  return NULL;
}

static host make_host(void) {
  host h = {.answer = WELCOME};
  assert_ok(lks_listen(h.listeners, &h.book, &err));
  assert_true(h.listeners[0] >= 0 && h.listeners[1] >= 0 && h.book.port > 0);
  return h;
}

static void free_host(host *h) {
  for (int i = 0; i < 2; ++i) {
    if (h->listeners[i] >= 0) {
      assert_int_equal(close(h->listeners[i]), 0);
    }
  }
}

static bool call(const lks_book *book, bool near, char tried[256]) {
  lks_link *link = malloc(sizeof *link);
  assert_non_null(link);
  const bool found = lks_dial(book, near, HELLO, "it is me", 8, WELCOME, 0.5, link, tried, 256);
  if (found) {
    lks_link_close(link);
  }
  free(link);
  return found;
}

/* An address where this machine certainly listens: the loopback's, as if it were the network's. */
static void use_loopback(lks_book *book, int at) {
  book->addresses[at] = (lks_address){.family = AF_INET, .bytes = {127, 0, 0, 1}};
  book->count = at + 1;
}

static void test_call(void **state) {
  (void)state;
  for (int way = 0; way < 3; ++way) {
    host h = make_host();
    pthread_t thread;
    char tried[256];
    use_loopback(&h.book, 0);
    if (way == 1) {
      h.book.local[0] = '\0';
    }
    assert_int_equal(pthread_create(&thread, NULL, answer_one, &h), 0);
    assert_true(call(&h.book, way != 2, tried));
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(h.answered, way == 0 ? 0 : 1); /* near: by the Unix socket if there is one */
    free_host(&h);
  }
}

/* Nobody there; somebody who does not answer; somebody with another answer: each is told, and the
 * next address tried. */
static void test_call_in_vain(void **state) {
  (void)state;
  host h = make_host();
  pthread_t thread;
  char tried[256];
  use_loopback(&h.book, 0);
  assert_false(call(&h.book, false, tried)); /* nobody accepts, and so nobody answers */
  assert_non_null(strstr(tried, "127.0.0.1: Connection timed out"));
  free_host(&h);
  h = make_host();
  use_loopback(&h.book, 0);
  h.answer = HELLO;
  assert_int_equal(pthread_create(&thread, NULL, answer_one, &h), 0);
  assert_false(call(&h.book, false, tried));
  assert_int_equal(pthread_join(thread, NULL), 0);
  assert_non_null(strstr(tried, "127.0.0.1: Protocol error"));
  free_host(&h);
  assert_false(call(&h.book, true, tried));
  assert_non_null(strstr(tried, "Unix socket: Connection refused"));
  assert_non_null(strstr(tried, "127.0.0.1: Connection refused"));
  const lks_book empty = {.count = 0};
  assert_false(call(&empty, true, tried));
  assert_string_equal(tried, "");
}

static void test_books_differ(void **state) {
  (void)state;
  host a = make_host(), b = make_host();
  assert_memory_not_equal(a.book.token, b.book.token, LKS_TOKEN);
  assert_string_not_equal(a.book.local, b.book.local);
  assert_int_not_equal(a.book.port, b.book.port);
  for (int i = 0; i < a.book.count; ++i) {
    const lks_address *one = &a.book.addresses[i];
    assert_true(one->family == AF_INET || one->family == AF_INET6);
    assert_false(one->family == AF_INET && one->bytes[0] == 127);
  }
  free_host(&a);
  free_host(&b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_cut_anywhere), cmocka_unit_test(test_end),
      cmocka_unit_test(test_nonsense),     cmocka_unit_test(test_full),
      cmocka_unit_test(test_call),         cmocka_unit_test(test_call_in_vain),
      cmocka_unit_test(test_books_differ),
  };
  return cmocka_run_group_tests_name("link", tests, NULL, NULL);
}
