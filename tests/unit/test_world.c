/* The world under mpirun, at any number of ranks: agreement, texts that must be the same, bytes
 * passed around, threads, and what a launcher claims. */
#include "ranks_fixture.h"

/* ---- who is where */

static void places(ranks *at) {
  const lks_world *w = at->world;
  int rank = -1, size = -1;
  (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  (void)MPI_Comm_size(MPI_COMM_WORLD, &size);
  CHECK(at, w->rank == rank && w->size == size);
  CHECK(at, w->local_rank == rank && w->local_size == size); /* one machine */
  CHECK(at, w->nodes == 1 && w->node_index == 0 && w->slices == size);
  CHECK(at, w->slice != MPI_COMM_NULL && w->host[0] != '\0');
  CHECK(at, at->alone->size == 1 && at->alone->rank == 0 && at->alone->local_size == 1);
  int same = MPI_UNEQUAL;
  (void)MPI_Comm_compare(w->comm, MPI_COMM_WORLD, &same);
  CHECK(at, same == MPI_CONGRUENT); /* a duplicate */
}

/* ---- agreement */

/* Ranks with a status fail, each with words of its own. */
static lks_status vote(ranks *at, lks_status mine, lks_error *err) {
  lks_error_clear(err);
  lks_world_phase(at->world, "step %d", 12);
  if (mine != LKS_OK) {
    mine = lks_fail(err, mine, "do this", "words of rank %d", at->world->rank);
  }
  return lks_agree(at->world, mine, err);
}

static void check_words(ranks *at, const lks_error *err, lks_status status, int rank) {
  char words[64];
  (void)snprintf(words, sizeof words, "words of rank %d", rank);
  CHECK(at, err->status == status && err->rank == rank);
  CHECK(at, strcmp(err->what, words) == 0 && strcmp(err->remedy, "do this") == 0);
  CHECK(at, strcmp(err->phase, "step 12") == 0 && strcmp(err->host, at->world->host) == 0);
  CHECK(at, at->world->agreed);
}

static void agreement(ranks *at) {
  lks_error err;
  const int size = at->world->size, rank = at->world->rank;
  const int64_t beats = at->world->standing.beats;
  CHECK(at, vote(at, LKS_OK, &err) == LKS_OK && err.status == LKS_OK && !at->world->agreed);
  CHECK(at, at->world->standing.beats > beats);
  for (int failing = 0; failing < size; ++failing) {
    CHECK(at, vote(at, rank == failing ? LKS_DATA : LKS_OK, &err) == LKS_DATA);
    check_words(at, &err, LKS_DATA, failing);
  }
  /* All fail alike: the lowest rank speaks. */
  CHECK(at, vote(at, LKS_STORAGE, &err) == LKS_STORAGE);
  check_words(at, &err, LKS_STORAGE, 0);
  /* The worst status wins over the lower rank. */
  CHECK(at, vote(at, rank == size - 1 ? LKS_NOT_FINITE : LKS_CONFIG, &err) == LKS_NOT_FINITE);
  check_words(at, &err, LKS_NOT_FINITE, size - 1);
  CHECK(at, vote(at, LKS_OK, &err) == LKS_OK && !at->world->agreed);
}

/* An error that has a rank already keeps it. */
static void agreement_keeps_origin(ranks *at) {
  lks_error err;
  lks_error_clear(&err);
  lks_status st = lks_fail(&err, LKS_COMM, NULL, "seen from afar");
  err.rank = 77;
  (void)snprintf(err.host, sizeof err.host, "elsewhere");
  st = lks_agree(at->world, st, &err);
  CHECK(at, st == LKS_COMM && err.rank == 77 && strcmp(err.host, "elsewhere") == 0);
}

static void same_texts(ranks *at) {
  lks_error err;
  const int size = at->world->size, rank = at->world->rank;
  CHECK_STATUS(at, lks_world_same(at->world, "configuration", "a: 1\n", &err), LKS_OK);
  CHECK_STATUS(at, lks_world_same(at->world, "configuration", "", &err), LKS_OK);
  for (int other = 1; other < size; ++other) {
    char words[160];
    CHECK_STATUS(
        at, lks_world_same(at->world, "configuration", rank >= other ? "a: 2\n" : "a: 1\n", &err),
        LKS_COMM);
    (void)snprintf(words, sizeof words, "rank %d on %s has another configuration than rank 0",
                   other, at->world->host);
    CHECK(at, mentions(&err, words) && mentions(&err, "same program with the same arguments"));
  }
}

/* ---- bytes */

static void broadcast(ranks *at) {
  lks_error err;
  enum { BYTES = 3000001 };
  unsigned char *bytes = malloc(BYTES);
  CHECK(at, bytes != NULL);
  for (int root = 0; bytes != NULL && root < at->world->size; ++root) {
    for (int i = 0; i < BYTES; ++i) {
      bytes[i] = at->world->rank == root ? (unsigned char)(i * 31 + root) : 0;
    }
    CHECK_STATUS(at, lks_world_broadcast(at->world, bytes, BYTES, root, &err), LKS_OK);
    bool same = true;
    for (int i = 0; i < BYTES; ++i) {
      same = same && bytes[i] == (unsigned char)(i * 31 + root);
    }
    CHECK(at, same);
  }
  free(bytes);
  CHECK_STATUS(at, lks_world_broadcast(at->world, NULL, 0, 0, &err), LKS_OK);
}

static void gather(ranks *at) {
  lks_error err;
  const int64_t mine[2] = {at->world->rank, (int64_t)at->world->rank << 40};
  int64_t all[2 * 64] = {0};
  CHECK_STATUS(at, lks_world_gather(at->world, mine, sizeof mine, all, &err), LKS_OK);
  for (int rank = 0; rank < at->world->size; ++rank) {
    CHECK(at, all[2 * rank] == rank && all[2 * rank + 1] == (int64_t)rank << 40);
  }
  CHECK_STATUS(at, lks_world_gather(at->world, mine, (size_t)1 << 31, all, &err), LKS_INTERNAL);
  CHECK(at, mentions(&err, "2147483648 bytes a rank are too many"));
}

/* ---- threads */

static void clear_thread_variables(void) {
  static const char *const names[] = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                                      "BLIS_NUM_THREADS"};
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    (void)unsetenv(names[i]);
  }
}

static int threads_with(ranks *at, int asked, const char *variable, const char *value) {
  lks_error err;
  clear_thread_variables();
  if (variable != NULL) {
    (void)setenv(variable, value, 1);
  }
  CHECK_STATUS(at, lks_world_place_threads(at->world, asked, &err), LKS_OK);
  clear_thread_variables();
  return at->world->threads;
}

/* Under --bind-to none all ranks have the same cores: each gets its part of them. */
static void threads(ranks *at) {
  const int natural = threads_with(at, 0, NULL, NULL);
  const int cores = at->world->cores, share = cores / at->world->local_size;
  CHECK(at, cores > 0 && natural == (share > 0 ? share : 1));
  CHECK(at, at->world->node_cores == cores);
  CHECK(at, threads_with(at, 7, NULL, NULL) == 7);
  CHECK(at, threads_with(at, 0, "OMP_NUM_THREADS", "5") == 5);
  CHECK(at, threads_with(at, 0, "OPENBLAS_NUM_THREADS", "3") == 3);
  CHECK(at, threads_with(at, 7, "OMP_NUM_THREADS", "5") == 7);
  CHECK(at, threads_with(at, 0, "OMP_NUM_THREADS", "many") == natural);
  CHECK(at, threads_with(at, 0, "OMP_NUM_THREADS", "0") == natural);
  CHECK(at, threads_with(at, 0, "OMP_NUM_THREADS", "-2") == natural);
}

/* ---- what a launcher claims */

static lks_status open_alone(const char *variable, const char *value, lks_error *err) {
  lks_world *world = NULL;
  (void)setenv(variable, value, 1);
  lks_error_clear(err);
  const lks_status st = lks_world_open(MPI_COMM_SELF, &world, err);
  lks_world_close(&world);
  (void)unsetenv(variable);
  return st;
}

static void launchers(ranks *at) {
  lks_error err;
  CHECK(at, open_alone("SLURM_STEP_NUM_TASKS", "4", &err) == LKS_COMM);
  CHECK(at, mentions(&err, "srun started 4 tasks, but MPI says each is alone"));
  CHECK(at, mentions(&err, "srun --mpi=pmix, or mpirun inside the job"));
  CHECK(at, open_alone("OMPI_COMM_WORLD_SIZE", "3", &err) == LKS_COMM);
  CHECK(at, mentions(&err, "mpirun started 3 tasks"));
  CHECK(at, mentions(&err, "the mpirun of the MPI that it was built with"));
  CHECK(at, open_alone("PMI_SIZE", "2", &err) == LKS_COMM);
  CHECK(at, mentions(&err, "the launcher started 2 tasks"));
  CHECK(at, open_alone("SLURM_STEP_NUM_TASKS", "1", &err) == LKS_OK);
  CHECK(at, open_alone("SLURM_STEP_NUM_TASKS", "x", &err) == LKS_OK);
  /* A job script is a step of one task; what it starts by mpirun is another matter. */
  (void)setenv("SLURM_STEP_NUM_TASKS", "1", 1);
  CHECK(at, open_alone("OMPI_COMM_WORLD_SIZE", "3", &err) == LKS_COMM);
  (void)unsetenv("SLURM_STEP_NUM_TASKS");
}

/* ---- errors of MPI */

static void mpi_errors(ranks *at) {
  lks_error err;
  char versions[256];
  CHECK(at, lks_fail_mpi(&err, MPI_ERR_TRUNCATE, "MPI_Recv(x)") == LKS_COMM);
  CHECK(at, mentions(&err, "MPI failed in MPI_Recv(x)") && mentions(&err, "TRUNCATE"));
  CHECK(at, mentions(&err, "from the last checkpoint"));
  /* Errors return: no rank is ended by MPI. */
  char byte = 0;
  CHECK(at, MPI_Bcast(&byte, 1, MPI_BYTE, at->world->size, at->world->comm) != MPI_SUCCESS);
  lks_world_versions(versions, sizeof versions);
  CHECK(at, strstr(versions, "(MPI ") != NULL && strchr(versions, '\n') == NULL);
}

int main(void) {
  ranks at;
  if (ranks_open(&at) != 0) {
    return 1;
  }
  places(&at);
  agreement(&at);
  agreement_keeps_origin(&at);
  same_texts(&at);
  broadcast(&at);
  gather(&at);
  threads(&at);
  launchers(&at);
  mpi_errors(&at);
  return ranks_close(&at);
}
