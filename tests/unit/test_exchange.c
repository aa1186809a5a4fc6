/* The exchange with ranks as threads: sums exact at any number of them, updates by slices, votes
 * that block an update on all, a rank that never comes. For the thread sanitizer too. */
#include "model_fixture.h"

#include <limits.h>
#include <pthread.h>

#include "backend/cpu/exchange.h"
#include "backend/cpu/update.h"

enum { MOST_RANKS = 8 };

typedef struct team team;

/* One rank; cmocka's checks belong to the main thread, so it counts what was wrong. */
typedef struct member {
  team *team;
  lks_exchange exchange;
  lks_control control;
  lks_status status;
  lks_error err;
  int wrong;
  pthread_t thread;
} member;

struct team {
  int ranks, rounds;
  size_t floats;
  lks_optimizer optimizer;
  double timeout;
  int failing, poisoned; /* rank that votes so in odd rounds; -1: none */
  int absent;            /* rank that never comes; -1: none */
  void *memory;
  member members[MOST_RANKS];
};

static const lks_kind *kind_named(const char *name) {
  int i = 0;
  while (strcmp(lks_optimizer_kinds[i]->name, name) != 0) {
    ++i;
  }
  return lks_optimizer_kinds[i];
}

static void open_team(team *t, int ranks, size_t floats, const char *optimizer) {
  memset(t, 0, sizeof *t);
  *t = (team){.ranks = ranks,
              .rounds = 24,
              .floats = floats,
              .failing = -1,
              .poisoned = -1,
              .absent = -1,
              .timeout = 60};
  t->optimizer = (lks_optimizer){.kind = kind_named(optimizer),
                                 .learning_rate = 1.0,
                                 .beta_1 = 0.9,
                                 .beta_2 = 0.999,
                                 .epsilon = 1e-7};
  const lks_exchange_layout layout = {.parameter_floats = floats,
                                      .gradient_floats = floats + LKS_TENSOR_ALIGN,
                                      .slots = lks_optimizer_slots(&t->optimizer),
                                      .local_size = ranks};
  const size_t bytes = (lks_exchange_bytes(&layout) + 63) / 64 * 64;
  t->memory = aligned_alloc(64, bytes);
  assert_non_null(t->memory);
  memset(t->memory, 0, bytes);
  for (int rank = 0; rank < ranks; ++rank) {
    member *m = &t->members[rank];
    m->team = t;
    lks_exchange_place(&m->exchange, &layout, t->memory, rank, ranks, t->timeout);
  }
}

static void close_team(team *t) {
  free(t->memory);
}

static void run_team(team *t, void *(*work)(void *)) {
  for (int rank = 0; rank < t->ranks; ++rank) {
    if (rank != t->absent) {
      assert_int_equal(pthread_create(&t->members[rank].thread, NULL, work, &t->members[rank]), 0);
    }
  }
  for (int rank = 0; rank < t->ranks; ++rank) {
    if (rank != t->absent) {
      assert_int_equal(pthread_join(t->members[rank].thread, NULL), 0);
    }
  }
}

/* Small whole numbers: every sum of them is exact, in any order. */
static float gradient_of(int rank, int round, size_t i) {
  return (float)((int)((i * 7 + (size_t)(rank * 13 + round * 5)) % 31) - 15);
}

static bool updates(const team *t, int round) {
  return round % 2 == 0 || (t->failing < 0 && t->poisoned < 0);
}

/* This rank's gradients and control block of a round. */
static void contribute(const member *m, int round) {
  const team *t = m->team;
  const int rank = m->exchange.local_rank;
  const bool odd = round % 2 == 1;
  float *g = m->exchange.gradients, *control = g + t->floats;
  for (size_t i = 0; i < t->floats; ++i) {
    g[i] = gradient_of(rank, round, i);
  }
  if (odd && rank == t->poisoned) {
    g[t->floats / 2] = NAN;
  }
  lks_control_put_real(control + LKS_CONTROL_LOSS, 0.5 * (rank + 1) + round);
  lks_control_put_count(control + LKS_CONTROL_ROWS, 5000 * rank + round);
  control[LKS_CONTROL_STOP] = rank % 2 == 1 ? 1.0f : 0.0f;
  control[LKS_CONTROL_SAVE] = 1.0f;
  control[LKS_CONTROL_FAILED] = odd && rank == t->failing ? 1.0f : 0.0f;
  control[LKS_CONTROL_NOT_FINITE] = odd && rank == t->poisoned ? 1.0f : 0.0f;
  lks_control_put_real(control + LKS_CONTROL_METRICS + 2, rank);
}

static void check_control(member *m, int round) {
  const team *t = m->team;
  const lks_control *c = &m->control;
  const int n = t->ranks, odd = round % 2;
  m->wrong += c->rows != 5000 * (n * (n - 1) / 2) + (int64_t)round * n;
  m->wrong += c->loss != 0.25 * n * (n + 1) + (double)round * n;
  m->wrong += c->stop != n / 2 || c->save != n;
  m->wrong += c->failed != (odd && t->failing >= 0) || c->not_finite != (odd && t->poisoned >= 0);
  m->wrong += c->metrics[1] != 0.5 * n * (n - 1) || c->metrics[0] != 0.0;
}

/* Learning rate 1: the parameters are minus the sum of all gradients so far. */
static void *train(void *user) {
  member *m = user;
  const team *t = m->team;
  double *expected = calloc(t->floats, sizeof *expected);
  m->wrong += expected == NULL;
  for (int round = 0; expected != NULL && round < t->rounds; ++round) {
    const lks_update update = lks_optimizer_update(&t->optimizer, round + 1);
    contribute(m, round);
    m->status = lks_exchange_run(&m->exchange, &update, &m->control, &m->err);
    m->wrong += m->status != LKS_OK;
    check_control(m, round);
    for (size_t i = 0; i < t->floats; ++i) {
      for (int rank = 0; updates(t, round) && rank < t->ranks; ++rank) {
        expected[i] -= (double)gradient_of(rank, round, i);
      }
      m->wrong += m->exchange.values.w[i] != (float)expected[i];
    }
  }
  free(expected);
  return NULL;
}

static void check_team(team *t) {
  run_team(t, train);
  for (int rank = 0; rank < t->ranks; ++rank) {
    assert_int_equal(t->members[rank].wrong, 0);
  }
}

static const int sizes[] = {1, 2, 3, 5, 8};
#define SIZES (sizeof sizes / sizeof *sizes)

/* Fewer values than a cache line a rank, uneven slices, and several chunks a slice. */
static void test_sums(void **state) {
  (void)state;
  static const size_t floats[] = {3, 64, 1000, 20011};
  for (size_t i = 0; i < SIZES; ++i) {
    for (size_t k = 0; k < sizeof floats / sizeof *floats; ++k) {
      team t;
      open_team(&t, sizes[i], floats[k], "sgd");
      t.rounds = floats[k] > 10000 ? 4 : 24;
      check_team(&t);
      close_team(&t);
    }
  }
}

/* Every value belongs to one slice, and slices begin at cache lines. */
static void test_slices(void **state) {
  (void)state;
  for (int ranks = 1; ranks <= 8; ++ranks) {
    for (size_t floats = 1; floats < 1200; floats += 7) {
      team t;
      size_t next = 0;
      open_team(&t, ranks, floats, "sgd");
      for (int rank = 0; rank < ranks; ++rank) {
        const lks_exchange *e = &t.members[rank].exchange;
        assert_true(e->count == 0 || (e->first == next && e->first % 16 == 0));
        next += e->count;
      }
      assert_int_equal(next, floats);
      close_team(&t);
    }
  }
}

static void test_votes_block_the_update(void **state) {
  (void)state;
  for (size_t i = 0; i < SIZES; ++i) {
    for (int rank = 0; rank < sizes[i]; rank += 1 + sizes[i] / 2) {
      team t;
      open_team(&t, sizes[i], 1000, "sgd");
      t.failing = rank;
      check_team(&t);
      close_team(&t);
      open_team(&t, sizes[i], 1000, "sgd");
      t.poisoned = rank;
      check_team(&t);
      close_team(&t);
    }
  }
}

/* Only rank 0's gradients are not zero: what it alone gives. */
static void *train_adam(void *user) {
  member *m = user;
  const team *t = m->team;
  for (int round = 0; round < t->rounds; ++round) {
    const lks_update update = lks_optimizer_update(&t->optimizer, round + 1);
    contribute(m, round);
    if (m->exchange.local_rank > 0) {
      memset(m->exchange.gradients, 0, t->floats * sizeof(float));
    }
    m->status = lks_exchange_run(&m->exchange, &update, &m->control, &m->err);
    m->wrong += m->status != LKS_OK;
  }
  return NULL;
}

/* Slots are kept once for all, and cut like the parameters: the same bits at any number. */
static void test_slots(void **state) {
  (void)state;
  enum { FLOATS = 5003 };
  static float first[3][FLOATS];
  for (size_t i = 0; i < SIZES; ++i) {
    team t;
    open_team(&t, sizes[i], FLOATS, "adam");
    run_team(&t, train_adam);
    const lks_exchange *e = &t.members[sizes[i] - 1].exchange;
    const float *const arrays[3] = {e->values.w, e->values.slots[0], e->values.slots[1]};
    for (int k = 0; k < 3; ++k) {
      if (i == 0) {
        memcpy(first[k], arrays[k], sizeof first[k]);
      }
      assert_memory_equal(first[k], arrays[k], sizeof first[k]);
    }
    for (int rank = 0; rank < sizes[i]; ++rank) {
      assert_int_equal(t.members[rank].wrong, 0);
    }
    close_team(&t);
  }
  assert_true(first[0][FLOATS - 1] != 0.0f && first[2][FLOATS - 1] != 0.0f);
}

/* Ranks may have no slice of their own: fewer slices than ranks. */
static void test_fewer_slices(void **state) {
  (void)state;
  for (int slices = 1; slices < 5; ++slices) {
    team t;
    open_team(&t, 5, 1000, "sgd");
    for (int rank = 0; rank < 5; ++rank) {
      lks_exchange *e = &t.members[rank].exchange;
      const lks_exchange_layout layout = e->layout;
      lks_exchange_place(e, &layout, t.memory, rank, slices, t.timeout);
      assert_int_equal(e->count > 0, rank < slices);
    }
    check_team(&t);
    close_team(&t);
  }
}

static void *wait_once(void *user) {
  member *m = user;
  m->status = lks_barrier_wait(&m->exchange.barrier, &m->err);
  return NULL;
}

static void test_timeout_names_the_missing(void **state) {
  (void)state;
  for (int absent = 0; absent < 4; ++absent) {
    team t;
    lks_error err;
    open_team(&t, 4, 10, "sgd");
    t.absent = absent;
    for (int rank = 0; rank < 4; ++rank) {
      t.members[rank].exchange.barrier.timeout = 0.2;
    }
    run_team(&t, wait_once);
    char words[64];
    (void)snprintf(words, sizeof words, "local rank %d of this node", absent);
    for (int rank = 0; rank < 4; ++rank) {
      if (rank != absent) {
        err = t.members[rank].err;
        assert_int_equal(t.members[rank].status, LKS_COMM);
        scratch_words(&err, "waited", words, (const char *)NULL);
        assert_non_null(strstr(err.remedy, "run.timeout"));
      }
    }
    close_team(&t);
  }
}

/* Several are missing: all of them are named. */
static void test_timeout_names_all(void **state) {
  (void)state;
  lks_error err;
  lks_barrier_flag flags[4] = {0};
  lks_barrier barrier = {.flags = flags, .rank = 2, .size = 4, .timeout = 0.1};
  assert_fails(lks_barrier_wait(&barrier, &err), LKS_COMM, "local rank 0, 1, 3 of this node");
}

/* Waiting for another's counter ends when it is there, else with the name of whose it is. */
static void test_await(void **state) {
  (void)state;
  lks_error err;
  lks_barrier_flag flags[4] = {0};
  atomic_uint_fast64_t counter = 7;
  const lks_barrier barrier = {.flags = flags, .rank = 2, .size = 4, .timeout = 0.1};
  assert_ok(lks_barrier_await(&barrier, &counter, 7, true, 3, &err));
  assert_fails(lks_barrier_await(&barrier, &counter, 8, true, 3, &err), LKS_COMM,
               "local rank 3 of");
}

/* A crowd is counted by the cores that the node's ranks may run on, not by the machine's. */
static void test_crowd(void **state) {
  (void)state;
  lks_barrier_flag flags[2] = {0};
  lks_world world = {.node_cores = 1};
  lks_barrier barrier = lks_barrier_make(flags, 0, 2, 1.0);
  lks_barrier_join(&barrier, &world);
  assert_true(barrier.crowded);
  const int looks = barrier.looks;
  world.node_cores = 2;
  lks_barrier_join(&barrier, &world);
  assert_false(barrier.crowded);
  assert_true(looks < barrier.looks);
}

/* What is divided among nodes is limited by the piece of each. */
static void test_messages(void **state) {
  (void)state;
  const size_t most = INT_MAX;
  assert_true(lks_exchange_fits(0, 100000));
  assert_true(lks_exchange_fits(most * 64, 64));
  assert_false(lks_exchange_fits(most * 64 + 1, 64));
  assert_true(lks_exchange_fits(most * 2, 2));
  assert_false(lks_exchange_fits(most * 2 + 1, 2));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_crowd),
      cmocka_unit_test(test_messages),
      cmocka_unit_test(test_sums),
      cmocka_unit_test(test_slices),
      cmocka_unit_test(test_votes_block_the_update),
      cmocka_unit_test(test_slots),
      cmocka_unit_test(test_fewer_slices),
      cmocka_unit_test(test_await),
      cmocka_unit_test(test_timeout_names_the_missing),
      cmocka_unit_test(test_timeout_names_all),
  };
  return cmocka_run_group_tests_name("exchange", tests, NULL, NULL);
}
