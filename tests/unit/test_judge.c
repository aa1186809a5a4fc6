/* Judgements on a run that stands still: who is named, with what cause, and when nobody is. */
#include "scratch.h"

#include "world/judge.h"

static lks_error err;

enum { RANKS = 4 };

/* Ranks 0 and 1 on n1, 2 and 3 on n2; judged by rank 0 at second 100, all well. */
typedef struct bench {
  lks_peer peers[RANKS];
  lks_ward ward;
} bench;

static const char hosts[RANKS][64] = {"n1", "n1", "n2", "n2"};

static bench all_well(void) {
  bench b = {.ward = {.size = RANKS, .self = 0, .hosts = hosts, .met = 99.0}};
  for (int rank = 0; rank < RANKS; ++rank) {
    b.peers[rank] = (lks_peer){.state = LKS_PEER_HEARD,
                               .heard = 99.8,
                               .confirms = true,
                               .pulse = {.entered = 5,
                                         .rounds = 240,
                                         .step = 120,
                                         .idle = 0.1,
                                         .rank = rank,
                                         .phase = "epoch 3",
                                         .doing = "computing"}};
  }
  return b;
}

static bool judged(bench *b, double timeout) {
  b->ward.peers = b->peers;
  lks_error_clear(&err);
  return lks_ward_verdict(&b->ward, 100.0, timeout, &err);
}

#define assert_ruled(b, ...)                                                                       \
  do {                                                                                             \
    assert_true(judged(b, 10.0));                                                                  \
    assert_int_equal(err.status, LKS_COMM);                                                        \
    scratch_words(&err, __VA_ARGS__, (const char *)NULL);                                          \
    assert_non_null(strstr(err.remedy, "run again to continue from the last checkpoint"));         \
  } while (0)

static void wait_since(bench *b, int rank, double seconds) {
  b->peers[rank].pulse.waiting = 1;
  b->peers[rank].pulse.idle = seconds;
}

static void test_all_well(void **state) {
  (void)state;
  bench b = all_well();
  assert_false(judged(&b, 10.0));
  for (int rank = 0; rank < RANKS; ++rank) {
    wait_since(&b, rank, 1.0);
  }
  assert_false(judged(&b, 10.0));
}

/* ---- dead */

static void test_dead(void **state) {
  (void)state;
  for (int rank = 1; rank < RANKS; ++rank) {
    bench b = all_well();
    char name[96];
    b.peers[rank].state = LKS_PEER_DEAD;
    b.peers[rank].pulse.step = 119;
    (void)snprintf(name, sizeof name, "rank %d on %s died", rank, hosts[rank]);
    assert_ruled(&b, name, "at step 119 (epoch 3), computing", "killed");
    assert_true(judged(&b, 0.0)); /* no timeout: a death ends the run all the same */
  }
}

/* Others die of the first death. */
static void test_first_dead(void **state) {
  (void)state;
  bench b = all_well();
  b.peers[1].state = b.peers[3].state = LKS_PEER_DEAD;
  b.peers[1].heard = 99.9;
  b.peers[3].heard = 99.2;
  assert_ruled(&b, "rank 3 on n2 died");
}

static void test_left(void **state) {
  (void)state;
  bench b = all_well();
  for (int rank = 1; rank < RANKS; ++rank) {
    b.peers[rank].state = LKS_PEER_LEFT;
    b.peers[rank].heard = 0.0;
    b.peers[rank].pulse.idle = 1000.0;
  }
  b.ward.met = 0.0;
  assert_false(judged(&b, 10.0));
}

/* ---- silent */

static void test_silent(void **state) {
  (void)state;
  bench b = all_well();
  b.ward.met = 88.0;
  b.peers[1].heard = 89.0;
  for (int rank = 0; rank < RANKS; ++rank) {
    wait_since(&b, rank, 11.0);
  }
  b.peers[1].pulse.waiting = 0;
  assert_ruled(&b, "rank 1 on n1 is silent for 11 s", "at step 120 (epoch 3), computing",
               "stopped");
  assert_false(judged(&b, 12.0));
  assert_false(judged(&b, 0.0));
}

/* While the ranks meet, whatever became of the heartbeats, all are alive. */
static void test_silent_but_met(void **state) {
  (void)state;
  bench b = all_well();
  b.peers[1].heard = b.peers[2].heard = 10.0;
  assert_false(judged(&b, 10.0));
}

static void test_cut_off(void **state) {
  (void)state;
  bench b = all_well();
  b.ward.met = 88.0;
  b.peers[2].heard = 89.0;
  b.peers[3].heard = 90.5; /* they were not heard of at the same moment */
  b.peers[2].confirms = b.peers[3].confirms = false;
  assert_ruled(&b, "rank 2 on n2 and 1 more there are silent for 11 s", "cut off");
  /* The other rank of that host is heard: the network is well. */
  b.peers[3].heard = 99.8;
  assert_ruled(&b, "rank 2 on n2 is silent", "stopped");
  /* Both are silent, but their host's kernel still answers. */
  b.peers[3].heard = 89.5;
  b.peers[2].confirms = true;
  assert_ruled(&b, "rank 2 on n2 and 1 more there are silent", "stopped");
}

/* ---- standing still */

static void test_stuck(void **state) {
  (void)state;
  bench b = all_well();
  for (int rank = 0; rank < RANKS; ++rank) {
    wait_since(&b, rank, 11.0);
  }
  b.peers[2].pulse.waiting = 0;
  b.peers[2].pulse.idle = 12.0;
  assert_ruled(&b, "no progress for 12 s of rank 2 on n2", "at step 120 (epoch 3), computing",
               "stuck in a call");
  assert_false(judged(&b, 0.0));
  /* A little progress of the one they wait for, and nobody is blamed, however long they wait. */
  b.peers[2].pulse.idle = 9.0;
  b.peers[0].pulse.idle = b.peers[1].pulse.idle = 1000.0;
  assert_false(judged(&b, 10.0));
  /* What it told 4 s ago says nothing of now. */
  b.peers[2].pulse.idle = 12.0;
  b.peers[2].heard = 96.0;
  assert_false(judged(&b, 10.0));
}

static void test_self_stuck(void **state) {
  (void)state;
  bench b = all_well();
  for (int rank = 1; rank < RANKS; ++rank) {
    wait_since(&b, rank, 20.0);
  }
  b.peers[0].pulse.idle = 10.5;
  b.peers[0].pulse.doing[0] = '\0';
  (void)snprintf(b.peers[0].pulse.phase, sizeof b.peers[0].pulse.phase, "data");
  b.peers[0].pulse.step = 0;
  assert_ruled(&b, "rank 0 on n1, in data: stuck");
}

/* Several do not move: the one that came less far is what the others wait for. */
static void test_furthest_behind(void **state) {
  (void)state;
  for (int what = 0; what < 4; ++what) {
    bench b = all_well();
    for (int rank = 0; rank < RANKS; ++rank) {
      b.peers[rank].pulse.idle = 11.0;
    }
    lks_pulse *behind = &b.peers[1].pulse;
    behind->entered -= what == 0;
    behind->step -= what == 1;
    behind->rounds -= what == 2;
    behind->idle += what == 3 ? 0.5 : -0.5;
    b.peers[2].pulse.rounds = b.peers[3].pulse.rounds = 100; /* another host's: not comparable */
    assert_ruled(&b, "rank 1 on n1");
  }
}

/* A rank that is still in a wait which others have left is stuck, not waiting. */
static void test_left_behind_in_a_wait(void **state) {
  (void)state;
  bench b = all_well();
  for (int rank = 0; rank < RANKS; ++rank) {
    wait_since(&b, rank, 11.0);
  }
  b.peers[3].pulse.rounds -= 1;
  assert_ruled(&b, "rank 3 on n2", "stuck in a call");
}

/* So is one that does not even look whether the wait is over, while the others do. */
static void test_asleep_in_a_wait(void **state) {
  (void)state;
  bench b = all_well();
  for (int rank = 0; rank < RANKS; ++rank) {
    wait_since(&b, rank, 11.0 + rank);
    b.peers[rank].pulse.computing = rank != 2;
  }
  assert_ruled(&b, "rank 2 on n2", "stuck in a call");
  for (int rank = 0; rank < RANKS; ++rank) {
    b.peers[rank].pulse.computing = 0; /* an MPI that sleeps in its waits */
  }
  assert_ruled(&b, "all wait for each other");
}

static void test_all_wait(void **state) {
  (void)state;
  bench b = all_well();
  for (int rank = 0; rank < RANKS; ++rank) {
    wait_since(&b, rank, 11.0 + rank);
  }
  assert_ruled(&b, "all wait for each other", "rank 3 on n2", "MPI's messages do not arrive");
  b.peers[1].pulse.idle = 9.0; /* one has only come: what they wait for may be under way */
  assert_false(judged(&b, 10.0));
}

/* A rank without heartbeats may be the one that works. */
static void test_unheard(void **state) {
  (void)state;
  bench b = all_well();
  b.peers[2] = (lks_peer){.state = LKS_PEER_UNHEARD};
  for (int rank = 0; rank < RANKS; ++rank) {
    wait_since(&b, rank, rank == 2 ? 0.0 : 14.0);
  }
  assert_false(judged(&b, 10.0)); /* it speaks for itself first */
  for (int rank = 0; rank < RANKS; ++rank) {
    wait_since(&b, rank, rank == 2 ? 0.0 : 16.0);
  }
  assert_ruled(&b, "all wait for rank 2 on n2", "heartbeats");
  /* One that is heard and stuck is named before. */
  b.peers[3].pulse.waiting = 0;
  assert_ruled(&b, "rank 3 on n2", "stuck");
}

static void test_alone(void **state) {
  (void)state;
  bench b = all_well();
  b.ward.peers = b.peers;
  b.ward.self = 2;
  b.peers[2].pulse.idle = 9.0;
  assert_false(lks_ward_verdict_alone(&b.ward, 10.0, &err));
  b.peers[2].pulse.idle = 11.0;
  assert_false(lks_ward_verdict_alone(&b.ward, 0.0, &err));
  assert_true(lks_ward_verdict_alone(&b.ward, 10.0, &err));
  scratch_words(&err, "no progress for 11 s of rank 2 on n2", "stuck in a call",
                (const char *)NULL);
  b.peers[2].pulse.waiting = 1;
  b.peers[0].state = b.peers[1].state = b.peers[3].state = LKS_PEER_UNHEARD;
  assert_true(lks_ward_verdict_alone(&b.ward, 10.0, &err));
  scratch_words(&err, "waiting for other ranks: another rank is stuck or gone", (const char *)NULL);
}

/* Names and phases of any length stay on the line. */
static void test_long_names(void **state) {
  (void)state;
  bench b = all_well();
  static char long_hosts[RANKS][64];
  for (int rank = 0; rank < RANKS; ++rank) {
    memset(long_hosts[rank], 'a' + rank, sizeof long_hosts[rank] - 1);
  }
  b.ward.hosts = (const char(*)[64])long_hosts;
  lks_pulse *pulse = &b.peers[1].pulse;
  b.peers[1].state = LKS_PEER_DEAD;
  memset(pulse->phase, 'p', sizeof pulse->phase - 1);
  memset(pulse->doing, 'd', sizeof pulse->doing - 1);
  pulse->step = INT64_MAX;
  assert_ruled(&b, long_hosts[1], "9223372036854775807", pulse->phase, pulse->doing, "killed");
  assert_non_null(strstr(err.remedy, long_hosts[1]));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_all_well),
      cmocka_unit_test(test_dead),
      cmocka_unit_test(test_first_dead),
      cmocka_unit_test(test_left),
      cmocka_unit_test(test_silent),
      cmocka_unit_test(test_silent_but_met),
      cmocka_unit_test(test_cut_off),
      cmocka_unit_test(test_stuck),
      cmocka_unit_test(test_self_stuck),
      cmocka_unit_test(test_furthest_behind),
      cmocka_unit_test(test_left_behind_in_a_wait),
      cmocka_unit_test(test_asleep_in_a_wait),
      cmocka_unit_test(test_all_wait),
      cmocka_unit_test(test_unheard),
      cmocka_unit_test(test_alone),
      cmocka_unit_test(test_long_names),
  };
  return cmocka_run_group_tests_name("judge", tests, NULL, NULL);
}
