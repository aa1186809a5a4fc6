/* Evaluating a table: fixed blocks of rows, whoever computes them, added in block order. One
 * checkpoint so gives the same sums, to the bit, on any number of ranks. */
#include <stdlib.h>
#include <string.h>

#include "train/run.h"
#include "world/stop.h"
#include "world/watchdog.h"

/* Most blocks a rank computes between two exchanges: few enough that a failure is soon told. */
enum { ROUND_BLOCKS = 16 };

/* Most bytes that every rank holds of all ranks' blocks, but for one block of each. */
#define ROUND_BYTES ((size_t)64 << 20)

lks_rounds lks_rounds_make(int64_t rows, int ranks, size_t block_bytes) {
  lks_rounds rounds = {.rows = rows};
  rounds.blocks = (rows + LKS_EVALUATION_ROWS - 1) / LKS_EVALUATION_ROWS;
  const int64_t even = (rounds.blocks + ranks - 1) / ranks;
  const int64_t held = (int64_t)(ROUND_BYTES / (block_bytes * (size_t)ranks));
  const int64_t most = held < ROUND_BLOCKS ? held : ROUND_BLOCKS;
  rounds.per_rank = even < most ? even : most;
  rounds.per_rank = rounds.per_rank > 0 ? rounds.per_rank : 1;
  const int64_t together = rounds.per_rank * ranks;
  rounds.rounds = (rounds.blocks + together - 1) / together;
  return rounds;
}

int64_t lks_rounds_block(const lks_rounds *rounds, int64_t round, int rank, int ranks, int64_t k) {
  const int64_t block = (round * ranks + rank) * rounds->per_rank + k;
  return block < rounds->blocks ? block : -1;
}

void lks_rounds_rows(const lks_rounds *rounds, int64_t block, int64_t *first, int64_t *count) {
  *first = block * LKS_EVALUATION_ROWS;
  const int64_t rest = rounds->rows - *first;
  *count = rest < LKS_EVALUATION_ROWS ? rest : LKS_EVALUATION_ROWS;
}

/* This rank's blocks of a round into mine[per_rank]. */
static lks_status compute_round(lks_run *run, lks_table *table, const lks_rounds *rounds,
                                int64_t round, lks_block_sums *mine, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_world *world = run->world;
  memset(mine, 0, (size_t)rounds->per_rank * sizeof *mine);
  for (int64_t k = 0; k < rounds->per_rank; ++k) {
    const int64_t block = lks_rounds_block(rounds, round, world->rank, world->size, k);
    if (block < 0) {
      break;
    }
    int64_t first = 0, count = 0;
    lks_feed feed;
    lks_rounds_rows(rounds, block, &first, &count);
    TRY(lks_table_rows_at(table, first, count, &feed, err));
    TRY(run->backend.ops->evaluate(run->backend.state, &feed, &mine[k], err));
    lks_world_beat(run->world);
  }
cleanup:
  return st;
}

/* The STOP file is looked for by a run that trains alone. */
lks_status lks_run_look_for_stop(const lks_run *run, lks_error *err) {
  const bool file = lks_watchdog_saw_stop_file(run->world);
  const char *by = file ? "the STOP file" : lks_stop_signal();
  return by != NULL ? lks_fail(err, LKS_STOPPED, "run the same command again",
                               "stopped by %s before the end", by)
                    : LKS_OK;
}

lks_status lks_run_evaluate(lks_run *run, lks_table *table, lks_sums *sums, lks_error *err) {
  lks_status st = LKS_OK;
  lks_world *world = run->world;
  const lks_rounds rounds =
      lks_rounds_make(lks_table_rows(table), world->size, sizeof(lks_block_sums));
  const size_t bytes = (size_t)rounds.per_rank * sizeof(lks_block_sums);
  lks_block_sums *mine = malloc(bytes);
  lks_block_sums *all = malloc(bytes * (size_t)world->size);
  *sums = (lks_sums){.rows = rounds.rows};
  if (mine == NULL || all == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for evaluation");
  }
  TRY(lks_agree(world, st, err));
  for (int64_t round = 0; round < rounds.rounds; ++round) {
    st = lks_run_look_for_stop(run, err);
    st = st == LKS_OK ? compute_round(run, table, &rounds, round, mine, err) : st;
    TRY(lks_agree(world, st, err));
    TRY(lks_world_gather(world, mine, bytes, all, err));
    for (int64_t i = 0; i < rounds.per_rank * world->size; ++i) {
      sums->loss += all[i].loss; /* blocks past the end are zeros */
      for (int m = 0; m < run->model->metric_count; ++m) {
        sums->metrics[m] += all[i].metrics[m];
      }
    }
  }
cleanup:
  free(mine);
  free(all);
  return st;
}
