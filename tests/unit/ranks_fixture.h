/* Tests under mpirun: checks that count instead of stopping, so that no rank leaves the others in
 * a collective; a folder that all ranks share; tables in it. */
#ifndef LKS_TESTS_RANKS_FIXTURE_H
#define LKS_TESTS_RANKS_FIXTURE_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data_fixture.h"

#include "data/source.h"
#include "data/table.h"

typedef struct ranks {
  lks_world *world;
  lks_world *alone; /* this rank by itself: what one rank computes, to compare with */
  char folder[256];
  int failures;
} ranks;

#define CHECK(at, condition)                                                                       \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      check_failed(at, #condition, __FILE__, __LINE__, NULL);                                      \
    }                                                                                              \
  } while (0)

/* The call gives that status; err is shown where it does not. */
#define CHECK_STATUS(at, call, expected)                                                           \
  do {                                                                                             \
    lks_error_clear(&err);                                                                         \
    if ((call) != (expected)) {                                                                    \
      check_failed(at, #call, __FILE__, __LINE__, &err);                                           \
    }                                                                                              \
  } while (0)

static inline void check_failed(ranks *at, const char *what, const char *file, int line,
                                const lks_error *err) {
  if (++at->failures <= 20) {
    fprintf(stderr, "%s:%d: rank %d: %s%s%s\n", file, line, at->world->rank, what,
            err != NULL ? ": " : "", err != NULL ? err->what : "");
  }
}

static inline bool mentions(const lks_error *err, const char *words) {
  const bool there = strstr(err->what, words) != NULL || strstr(err->remedy, words) != NULL;
  if (!there) {
    fprintf(stderr, "\"%s\" is not in \"%s; %s\"\n", words, err->what, err->remedy);
  }
  return there;
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *where) {
  (void)about;
  (void)kind;
  (void)where;
  return remove(path);
}

static inline int ranks_open(ranks *at) {
  lks_error err;
  const char *parent = getenv("TMPDIR");
  *at = (ranks){0};
  if (lks_world_open(MPI_COMM_WORLD, &at->world, &err) != LKS_OK) {
    fprintf(stderr, "%s\n", err.what);
    return 1;
  }
  /* A world of one rank under a launcher of several is refused unless the launcher is silent. */
  (void)unsetenv("OMPI_COMM_WORLD_SIZE");
  (void)unsetenv("PMI_SIZE");
  (void)unsetenv("SLURM_STEP_NUM_TASKS");
  if (lks_world_open(MPI_COMM_SELF, &at->alone, &err) != LKS_OK) {
    fprintf(stderr, "%s\n", err.what);
    return 1;
  }
  (void)snprintf(at->folder, sizeof at->folder, "%s/lks-unit-XXXXXX",
                 parent != NULL ? parent : "/tmp");
  int bad = at->world->rank == 0 && mkdtemp(at->folder) == NULL;
  if (lks_world_broadcast(at->world, &bad, sizeof bad, 0, &err) != LKS_OK ||
      lks_world_broadcast(at->world, at->folder, sizeof at->folder, 0, &err) != LKS_OK) {
    return 1;
  }
  return bad;
}

/* The exit code of the program: 1 on every rank when a check of any rank failed. */
static inline int ranks_close(ranks *at) {
  int all = 0;
  (void)MPI_Allreduce(&at->failures, &all, 1, MPI_INT, MPI_SUM, at->world->comm);
  if (at->world->rank == 0) {
    (void)nftw(at->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    printf("%d ranks: %s\n", at->world->size, all == 0 ? "passed" : "FAILED");
  }
  lks_world_close(&at->alone);
  lks_world_close(&at->world);
  return all != 0;
}

#define INPUTS 3
#define CLASSES 5

/* The label of a row of the tables made here. */
static inline double label_of(int64_t row) {
  return (double)(row * 13 % CLASSES);
}

typedef struct table_spec {
  const char *name; /* of the file */
  int64_t rows;
  hsize_t chunk_rows; /* 0: contiguous */
  unsigned deflate;
  int64_t bad_label; /* row whose label is out of range; -1: none */
} table_spec;

/* Rank 0 writes features x [rows, INPUTS] of fixture values and labels y; path is where. Returns
 * once the file is there. */
static inline void make_table(ranks *at, const table_spec *spec, char path[512]) {
  (void)snprintf(path, 512, "%s/%s", at->folder, spec->name);
  (void)MPI_Barrier(at->world->comm); /* no rank has an older file of that name open */
  if (at->world->rank == 0) {
    const hsize_t rows = (hsize_t)spec->rows;
    const hsize_t chunk = spec->chunk_rows < rows ? spec->chunk_rows : rows;
    const fixture_layout x = {H5T_STD_U8LE, 2, {rows, INPUTS}, chunk, spec->deflate};
    const fixture_layout y = {H5T_STD_I32LE, 1, {rows}, chunk, spec->deflate};
    const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    double *labels = malloc(rows * sizeof *labels);
    CHECK(at, file >= 0 && labels != NULL);
    for (int64_t r = 0; labels != NULL && r < spec->rows; ++r) {
      labels[r] = r == spec->bad_label ? CLASSES : label_of(r);
    }
    CHECK(at, fixture_table(file, "x", &x, 0) == 0);
    CHECK(at, fixture_dataset(file, "y", &y, labels) == 0);
    CHECK(at, H5Fclose(file) >= 0);
    free(labels);
  }
  (void)MPI_Barrier(at->world->comm);
}

static inline const lks_kind *scaling_kind(lks_scaling_id id) {
  for (int i = 0; lks_scaling_kinds[i] != NULL; ++i) {
    if (lks_scaling_of(lks_scaling_kinds[i]) == id) {
      return lks_scaling_kinds[i];
    }
  }
  return NULL;
}

/* One block of a feed holds the scaled values of its rows. */
static inline void check_feed(ranks *at, const lks_data *data, const lks_table *table,
                              const lks_feed *feed, int64_t first) {
  for (int64_t k = 0; k < feed->count; ++k) {
    const int64_t position = feed->row_ids != NULL ? feed->row_ids[k] : first + k;
    const int64_t slot = feed->index != NULL ? feed->index[k] : k;
    const int64_t row = lks_rows_physical(&table->rows, position);
    for (int64_t c = 0; c < INPUTS; ++c) {
      const double raw = fixture_value(row, c);
      const float expected =
          data->features.columns == 0
              ? (float)raw
              : (float)((raw - data->features.shift[c]) * data->features.factor[c]);
      CHECK(at, feed->features[slot * INPUTS + c] == expected);
    }
    CHECK(at, feed->targets[slot] == (float)label_of(row));
  }
}

/* Runs an epoch from a position on, each rank taking its share of each batch, and checks that each
 * remaining place is taken exactly once; sequence[i] becomes the position at place i, on all ranks
 * (-1 before `start`). */
static inline void run_epoch(ranks *at, const lks_data *data, lks_table *table, int64_t batch_size,
                             int64_t epoch, int64_t start, int64_t *sequence) {
  lks_error err;
  lks_feed feed;
  const int64_t rows = lks_table_rows(table);
  const int64_t rank = table->world->rank;
  const int64_t size = table->world->size;
  int64_t *taken = calloc((size_t)rows, sizeof *taken);
  CHECK(at, taken != NULL);
  CHECK_STATUS(at, lks_table_begin(table, epoch, start, &err), LKS_OK);
  for (int64_t batch = start; batch < rows; batch += batch_size) {
    const int64_t count = rows - batch < batch_size ? rows - batch : batch_size;
    const int64_t first = batch + count * rank / size;
    const int64_t share = batch + count * (rank + 1) / size - first;
    CHECK_STATUS(at, lks_table_take(table, batch, count, first, share, &feed, &err), LKS_OK);
    CHECK(at, feed.count == share);
    check_feed(at, data, table, &feed, 0);
    for (int64_t k = 0; k < share; ++k) {
      taken[first + k] += feed.row_ids[k] + 1;
    }
  }
  (void)MPI_Allreduce(taken, sequence, (int)rows, MPI_INT64_T, MPI_SUM, table->world->comm);
  for (int64_t i = 0; i < rows; ++i) {
    CHECK(at, (sequence[i] > 0) == (i >= start));
    --sequence[i];
  }
  free(taken);
}

/* The places from `start` on hold different rows; from 0 on: each row once. */
static inline void check_each_once(ranks *at, const int64_t *sequence, int64_t start,
                                   int64_t rows) {
  bool *seen = calloc((size_t)rows, sizeof *seen);
  for (int64_t i = start; seen != NULL && i < rows; ++i) {
    const bool in_range = sequence[i] >= 0 && sequence[i] < rows;
    CHECK(at, in_range && !seen[sequence[i]]);
    if (in_range) {
      seen[sequence[i]] = true;
    }
  }
  free(seen);
}

/* Rows read by all ranks of the table's world so far. */
static inline int64_t rows_read(const lks_table *table) {
  int64_t mine = lks_source_rows_read(table->source);
  int64_t all = 0;
  (void)MPI_Allreduce(&mine, &all, 1, MPI_INT64_T, MPI_SUM, table->world->comm);
  return all;
}

#endif
