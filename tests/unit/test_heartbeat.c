/* Heartbeats between ranks that are threads of this process: who rules when one dies, falls silent,
 * leaves or fails, and that strangers change nothing. The hearts know no MPI. */
#include "scratch.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>

#include "world/heartbeat_internal.h"

static lks_error err;

enum { MOST = 5 };

/* Seconds; long enough for a busy machine to beat a few times. */
#define TIMEOUT 2.5

typedef enum act { BEAT, FREEZE, DIE, LEAVE } act;

typedef struct member {
  lks_world world;
  lks_meeting meeting; /* the thread's; `known` is the main thread's copy */
  lks_meeting known;
  pthread_t thread;
  atomic_int act;
  atomic_bool waiting, failing, joined, frozen, ended;
  atomic_bool later; /* in its next phase */
  atomic_int turns;
  pthread_mutex_t mutex;
  lks_link *links[2]; /* under the mutex; taken over once */
  atomic_int ruling;  /* lks_ruling */
  lks_error error;    /* once there is a ruling */
} member;

typedef struct team {
  int size;
  member *members;
  char hosts[MOST][64];
  lks_book books[2];
} team;

static void sleep_a_little(void) {
  const struct timespec pause = {0, 10 * 1000 * 1000};
  (void)nanosleep(&pause, NULL);
}

static void take_links(member *m, lks_heart *heart, double now) {
  (void)pthread_mutex_lock(&m->mutex);
  for (int i = 0; i < 2; ++i) {
    if (m->links[i] != NULL) {
      lks_heart_join(heart, m->meeting.hubs[i], m->links[i], now);
      m->links[i] = NULL;
      atomic_store(&m->joined, true);
    }
  }
  (void)pthread_mutex_unlock(&m->mutex);
}

static void *live(void *user) {
  member *m = user;
  lks_heart *heart = NULL;
  const double born = lks_now();
  bool failed = false;
  lks_error made, error;
  if (lks_heart_make(&m->world, &heart, &made) != LKS_OK) {
    return NULL;
  }
  lks_heart_meet(heart, &m->meeting);
  while (atomic_load(&m->act) != DIE && atomic_load(&m->act) != LEAVE) {
    const double now = lks_now() - born;
    if (atomic_load(&m->act) == FREEZE) {
      atomic_store(&m->frozen, true);
      sleep_a_little();
      continue;
    }
    take_links(m, heart, now);
    if (atomic_load(&m->failing) && !failed) {
      failed = true;
      made.status = lks_fail(&made, LKS_STORAGE, "look", "the disk of %d is full", m->world.rank);
      made.rank = m->world.rank;
      (void)lks_heart_report(heart, &made, now);
    }
    lks_pulse pulse = {.rank = m->world.rank,
                       .step = 7,
                       .waiting = atomic_load(&m->waiting),
                       .idle = atomic_load(&m->waiting) ? 100.0 : 0.0,
                       .phase = "epoch 1",
                       .doing = "computing"};
    if (atomic_load(&m->later)) {
      (void)snprintf(pulse.phase, sizeof pulse.phase, "validation");
    }
    const lks_ruling ruling = lks_heart_turn(heart, &pulse, 0, now, TIMEOUT, 0.02, -1, &error);
    atomic_fetch_add(&m->turns, 1);
    if (ruling != LKS_RULING_NONE) {
      if (ruling == LKS_RULING_OURS) {
        lks_heart_tell(heart, &error);
      }
      m->error = error;
      atomic_store(&m->ruling, (int)ruling);
      break;
    }
  }
  if (atomic_load(&m->act) == LEAVE) {
    lks_heart_tell(heart, NULL);
  }
  lks_heart_free(&heart);
  atomic_store(&m->ended, true);
  return NULL;
}

/* Ranks 0 and 1 are hubs; reach[rank] says which of them it may call (bits 1 and 2). */
static team *start_team(int size, const int *reach) {
  team *t = calloc(1, sizeof *t);
  assert_non_null(t);
  t->size = size;
  t->members = calloc((size_t)size, sizeof *t->members);
  assert_non_null(t->members);
  for (int rank = 0; rank < size; ++rank) {
    member *m = &t->members[rank];
    m->world.rank = rank;
    m->world.size = size;
    (void)snprintf(m->world.host, sizeof m->world.host, "n%d", rank);
    memcpy(t->hosts[rank], m->world.host, sizeof t->hosts[rank]);
    m->meeting = (lks_meeting){.hubs = {0, 1}, .listeners = {-1, -1}, .hosts = t->hosts};
    if (rank < 2) {
      assert_ok(lks_listen(m->meeting.listeners, &t->books[rank], &err));
      t->books[rank].addresses[0] = (lks_address){.family = AF_INET, .bytes = {127, 0, 0, 1}};
      t->books[rank].count = 1;
    }
    (void)pthread_mutex_init(&m->mutex, NULL);
  }
  for (int rank = 0; rank < size; ++rank) {
    member *m = &t->members[rank];
    memcpy(m->meeting.books, t->books, sizeof t->books);
    m->known = m->meeting;
    assert_int_equal(pthread_create(&m->thread, NULL, live, m), 0);
  }
  for (int rank = 0; rank < size; ++rank) {
    member *m = &t->members[rank];
    lks_meeting meeting = m->known;
    lks_link *links[2];
    char missed[512];
    for (int i = 0; i < 2; ++i) {
      meeting.hubs[i] = reach == NULL || (reach[rank] & 1 << i) != 0 ? i : -1;
    }
    lks_meeting_call(&m->world, &meeting, links, missed, sizeof missed);
    assert_string_equal(missed, "");
    (void)pthread_mutex_lock(&m->mutex);
    memcpy(m->links, links, sizeof links);
    (void)pthread_mutex_unlock(&m->mutex);
    while ((links[0] != NULL || links[1] != NULL) && !atomic_load(&m->joined)) {
      sleep_a_little();
    }
  }
  return t;
}

static void end_team(team *t) {
  for (int rank = 0; rank < t->size; ++rank) {
    atomic_store(&t->members[rank].act, LEAVE);
  }
  for (int rank = 0; rank < t->size; ++rank) {
    assert_int_equal(pthread_join(t->members[rank].thread, NULL), 0);
    (void)pthread_mutex_destroy(&t->members[rank].mutex);
  }
  free(t->members);
  free(t);
}

static void rest(double seconds) {
  for (const double until = lks_now() + seconds; lks_now() < until;) {
    sleep_a_little();
  }
}

/* Until the rank does nothing more. */
static void freeze(team *t, int rank) {
  atomic_store(&t->members[rank].act, FREEZE);
  while (!atomic_load(&t->members[rank].frozen)) {
    sleep_a_little();
  }
}

/* Until its connections are closed. */
static void die(team *t, int rank) {
  atomic_store(&t->members[rank].act, DIE);
  while (!atomic_load(&t->members[rank].ended)) {
    sleep_a_little();
  }
}

/* Waits until all but `absent` have a ruling: that of `judge`, with these words. */
static void assert_rules(team *t, int judge, int absent, const char *words) {
  for (int rank = 0; rank < t->size; ++rank) {
    member *m = &t->members[rank];
    if (rank == absent) {
      continue;
    }
    while (atomic_load(&m->ruling) == LKS_RULING_NONE) {
      assert_false(atomic_load(&m->ended));
      sleep_a_little();
    }
    assert_int_equal(atomic_load(&m->ruling), rank == judge ? LKS_RULING_OURS : LKS_RULING_TOLD);
    scratch_words(&m->error, words, (const char *)NULL);
  }
}

static void test_death(void **state) {
  (void)state;
  for (int victim = 0; victim < 4; ++victim) {
    team *t = start_team(4, NULL);
    char words[96];
    rest(1.5); /* a pulse of each */
    atomic_store(&t->members[victim].act, DIE);
    (void)snprintf(words, sizeof words, "rank %d on n%d died, last seen at step 7 (epoch 1)",
                   victim, victim);
    assert_rules(t, victim == 0 ? 1 : 0, victim, words);
    end_team(t);
  }
}

/* A new phase does not wait for the next regular pulse. */
static void test_death_in_a_new_phase(void **state) {
  (void)state;
  for (int phases = 0; phases < 3; ++phases) {
    team *t = start_team(3, NULL);
    rest(1.1 + 0.2 * phases); /* anywhere between two pulses */
    atomic_store(&t->members[2].later, true);
    for (const int turn = atomic_load(&t->members[2].turns);
         atomic_load(&t->members[2].turns) < turn + 2;) {
      sleep_a_little();
    }
    die(t, 2);
    assert_rules(t, 0, 2, "rank 2 on n2 died, last seen at step 7 (validation)");
    end_team(t);
  }
}

static void test_silence(void **state) {
  (void)state;
  for (int victim = 0; victim < 3; victim += 2) {
    team *t = start_team(3, NULL);
    char words[96];
    atomic_store(&t->members[victim].act, FREEZE);
    (void)snprintf(words, sizeof words, "rank %d on n%d is silent for", victim, victim);
    assert_rules(t, victim == 0 ? 1 : 0, victim, words);
    end_team(t);
  }
}

/* Both hubs at once: the next rank takes over. All three stand still first, so that however slow
 * the machine is, the third finds both dead at its next turn and no hub has told it of the other.
 */
static void test_both_hubs_die(void **state) {
  (void)state;
  team *t = start_team(3, NULL);
  for (int rank = 0; rank < 3; ++rank) { /* who has the least patience last */
    freeze(t, rank);
  }
  die(t, 1);
  die(t, 0);
  atomic_store(&t->members[2].act, BEAT);
  while (atomic_load(&t->members[2].ruling) == LKS_RULING_NONE) {
    sleep_a_little();
  }
  assert_int_equal(atomic_load(&t->members[2].ruling), LKS_RULING_OURS);
  scratch_words(&t->members[2].error, "died", (const char *)NULL);
  end_team(t);
}

static void test_farewell(void **state) {
  (void)state;
  team *t = start_team(4, NULL);
  atomic_store(&t->members[2].act, LEAVE);
  atomic_store(&t->members[0].act, LEAVE);
  rest(TIMEOUT + 1.0);
  for (int rank = 0; rank < t->size; ++rank) {
    assert_int_equal(atomic_load(&t->members[rank].ruling), LKS_RULING_NONE);
  }
  end_team(t);
}

/* A rank that failed by itself is quoted; that it then ends is no news. */
static void test_failure(void **state) {
  (void)state;
  for (int rank = 0; rank < 3; ++rank) {
    team *t = start_team(3, NULL);
    char words[96];
    atomic_store(&t->members[rank].failing, true);
    (void)snprintf(words, sizeof words, "the disk of %d is full", rank);
    assert_rules(t, 0, -1, words);
    for (int other = 0; other < 3; ++other) {
      assert_int_equal(t->members[other].error.status, LKS_STORAGE);
    }
    end_team(t);
  }
}

/* A rank that can reach no hub is alone; the hub that waits for it says so, but not at once. */
static void test_unreached(void **state) {
  (void)state;
  const int reach[3] = {2, 1, 0};
  team *t = start_team(3, reach);
  for (int rank = 0; rank < 2; ++rank) {
    atomic_store(&t->members[rank].waiting, true);
  }
  assert_rules(t, 0, 2, "all wait for rank 2 on n2, whose heartbeats cannot be had");
  assert_int_equal(atomic_load(&t->members[2].ruling), LKS_RULING_NONE);
  end_team(t);
}

/* With one hub out of reach, the other is enough. */
static void test_one_hub_reached(void **state) {
  (void)state;
  const int reach[4] = {2, 1, 2, 1};
  team *t = start_team(4, reach);
  rest(1.5);
  atomic_store(&t->members[3].act, DIE);
  assert_rules(t, 0, 3, "rank 3 on n3 died");
  end_team(t);
}

static void test_strangers(void **state) {
  (void)state;
  team *t = start_team(3, NULL);
  int fds[20];
  for (int i = 0; i < 20; ++i) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)t->books[0].port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fds[i] = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fds[i] >= 0);
    assert_int_equal(connect(fds[i], (const struct sockaddr *)&to, sizeof to), 0);
    const struct {
      uint32_t header[2];
      lks_hello hello;
    } wrong = {{LKS_MESSAGE_HELLO, sizeof(lks_hello)}, {.rank = 2}};
    if (i % 3 == 0) {
      assert_int_equal(send(fds[i], "SSH-2.0-scan\r\n", 14, MSG_NOSIGNAL), 14);
    } else if (i % 3 == 1) { /* the wrong token */
      assert_int_equal(send(fds[i], &wrong, sizeof wrong, MSG_NOSIGNAL), sizeof wrong);
    }
  }
  rest(0.5);
  for (int i = 0; i < 20; ++i) {
    (void)close(fds[i]);
  }
  rest(TIMEOUT);
  for (int rank = 0; rank < t->size; ++rank) {
    assert_int_equal(atomic_load(&t->members[rank].ruling), LKS_RULING_NONE);
  }
  atomic_store(&t->members[2].act, DIE);
  assert_rules(t, 0, 2, "rank 2 on n2 died");
  end_team(t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_death),
      cmocka_unit_test(test_silence),
      cmocka_unit_test(test_death_in_a_new_phase),
      cmocka_unit_test(test_both_hubs_die),
      cmocka_unit_test(test_farewell),
      cmocka_unit_test(test_failure),
      cmocka_unit_test(test_unreached),
      cmocka_unit_test(test_one_hub_reached),
      cmocka_unit_test(test_strangers),
  };
  return cmocka_run_group_tests_name("heartbeat", tests, NULL, NULL);
}
