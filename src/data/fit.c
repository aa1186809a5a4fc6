/* Passes over the data that all ranks share. Blocks depend on the data alone, never on the number
 * of ranks; who reads which does. */
#include "data/fit.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "data/rows.h"
#include "data/source.h"

/* ---- moments */

#define LEAST_BLOCK_ROWS 4096
#define MOST_BLOCKS 1024

typedef struct fit_pass {
  lks_world *world;
  lks_source *source;
  const lks_rows *rows;
  int64_t inputs, outputs; /* columns wanted; 0: not wanted */
  lks_scratch scratch;
  lks_moments *mine; /* [inputs + outputs] of the block this rank has read */
  lks_moments *all;  /* [size][inputs + outputs] of one round */
} fit_pass;

/* Moments of positions [first, end) into pass->mine. Piece by piece, in order: the pieces do not
 * show in the result. */
static lks_status read_block(fit_pass *pass, int64_t first, int64_t end, lks_error *err) {
  lks_status st = LKS_OK;
  int64_t got = 0;
  lks_moments_clear(pass->mine, pass->inputs + pass->outputs);
  for (; first < end; first += got) {
    TRY(lks_rows_read(pass->source, pass->rows, first, end, pass->scratch.capacity,
                      &pass->scratch.raw, &got, err));
    if (pass->inputs > 0) {
      lks_moments_add(pass->mine, pass->scratch.raw.features, got, pass->inputs);
    }
    if (pass->outputs > 0) {
      lks_moments_add(pass->mine + pass->inputs, pass->scratch.raw.targets, got, pass->outputs);
    }
    lks_world_beat(pass->world);
  }
cleanup:
  return st;
}

static lks_status open_pass(fit_pass *pass, lks_error *err) {
  lks_status st = LKS_OK;
  const size_t columns = (size_t)(pass->inputs + pass->outputs);
  TRY(lks_scratch_open(pass->source, pass->inputs > 0 ? LKS_AS_DOUBLES : LKS_NOT_READ,
                       pass->outputs > 0 ? LKS_AS_DOUBLES : LKS_NOT_READ, &pass->scratch, err));
  pass->mine = calloc(columns, sizeof *pass->mine);
  TRY_ALLOC(pass->mine);
  pass->all = calloc(columns * (size_t)pass->world->size, sizeof *pass->all);
  TRY_ALLOC(pass->all);
cleanup:
  return st;
}

lks_status lks_fit_moments(lks_world *world, lks_source *source, const lks_rows *rows,
                           lks_moments *features, lks_moments *targets, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_source_info *info = lks_source_describe(source);
  fit_pass pass = {.world = world,
                   .source = source,
                   .rows = rows,
                   .inputs = features != NULL ? info->inputs : 0,
                   .outputs = targets != NULL ? info->outputs : 0};
  const int64_t columns = pass.inputs + pass.outputs;
  const int64_t even = (rows->count + MOST_BLOCKS - 1) / MOST_BLOCKS;
  const int64_t block_rows = even > LEAST_BLOCK_ROWS ? even : LEAST_BLOCK_ROWS;
  const int64_t blocks = (rows->count + block_rows - 1) / block_rows;
  TRY(lks_agree(world, open_pass(&pass, err), err));
  lks_moments_clear(features, pass.inputs);
  lks_moments_clear(targets, pass.outputs);
  for (int64_t round = 0; round < blocks; round += world->size) {
    int64_t first = (round + world->rank) * block_rows;
    first = first < rows->count ? first : rows->count;
    const int64_t end = rows->count - first > block_rows ? first + block_rows : rows->count;
    TRY(lks_agree(world, read_block(&pass, first, end, err), err));
    TRY(lks_world_gather(world, pass.mine, (size_t)columns * sizeof *pass.mine, pass.all, err));
    for (int r = 0; r < world->size; ++r) {
      const lks_moments *theirs = pass.all + r * columns;
      lks_moments_merge(features, theirs, pass.inputs);
      lks_moments_merge(targets, theirs + pass.inputs, pass.outputs);
    }
  }
cleanup:
  lks_scratch_close(&pass.scratch);
  free(pass.mine);
  free(pass.all);
  return st;
}

/* ---- fingerprint */

#define SEGMENTS 16
#define SEGMENT_BYTES ((int64_t)16 << 20)

/* Hashes of the features and of the targets of some rows, which pieces do not show in. */
static lks_status hash_rows(lks_world *world, lks_source *source, int64_t first, int64_t end,
                            lks_scratch *scratch, XXH64_state_t *states[2], uint64_t out[2],
                            lks_error *err) {
  lks_status st = LKS_OK;
  const lks_source_info *info = lks_source_describe(source);
  const lks_rows all = {.count = info->rows};
  int64_t got = 0;
  for (int s = 0; s < 2; ++s) {
    (void)XXH64_reset(states[s], 0);
  }
  for (; first < end; first += got) {
    TRY(lks_rows_read(source, &all, first, end, scratch->capacity, &scratch->raw, &got, err));
    (void)XXH64_update(states[0], scratch->raw.features,
                       (size_t)(got * info->inputs) * sizeof(double));
    if (scratch->raw.targets != NULL) {
      (void)XXH64_update(states[1], scratch->raw.targets,
                         (size_t)(got * info->outputs) * sizeof(double));
    }
    lks_world_beat(world);
  }
  out[0] = XXH64_digest(states[0]);
  out[1] = XXH64_digest(states[1]);
cleanup:
  return st;
}

/* This rank's segments, into hashes[SEGMENTS][2]; the others stay 0. */
static lks_status hash_segments(lks_world *world, lks_source *source, uint64_t hashes[][2],
                                lks_error *err) {
  lks_status st = LKS_OK;
  const lks_source_info *info = lks_source_describe(source);
  const int64_t row_bytes = (info->inputs + info->outputs) * (int64_t)sizeof(double);
  const int64_t segment = SEGMENT_BYTES / row_bytes > 0 ? SEGMENT_BYTES / row_bytes : 1;
  lks_scratch scratch = {0};
  XXH64_state_t *states[2] = {XXH64_createState(), XXH64_createState()};
  TRY_ALLOC(states[0]);
  TRY_ALLOC(states[1]);
  TRY(lks_scratch_open(source, LKS_AS_DOUBLES, LKS_AS_DOUBLES, &scratch, err));
  for (int s = world->rank; s < SEGMENTS; s += world->size) {
    /* Equal stretches of the table; of a long stretch, its beginning. */
    const int64_t first = info->rows / SEGMENTS * s + info->rows % SEGMENTS * s / SEGMENTS;
    const int64_t next =
        info->rows / SEGMENTS * (s + 1) + info->rows % SEGMENTS * (s + 1) / SEGMENTS;
    const int64_t end = next - first > segment ? first + segment : next;
    TRY(hash_rows(world, source, first, end, &scratch, states, hashes[s], err));
  }
cleanup:
  lks_scratch_close(&scratch);
  (void)XXH64_freeState(states[0]);
  (void)XXH64_freeState(states[1]);
  return st;
}

lks_status lks_source_fingerprint(lks_source *source, lks_world *world, uint64_t *hash,
                                  lks_error *err) {
  lks_status st = LKS_OK;
  uint64_t hashes[SEGMENTS][2] = {{0}};
  uint64_t(*all)[SEGMENTS][2] = calloc((size_t)world->size, sizeof hashes);
  XXH64_state_t *state = XXH64_createState();
  const bool ready = all != NULL && state != NULL;
  TRY(lks_agree(world,
                ready ? hash_segments(world, source, hashes, err)
                      : lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for the fingerprint"),
                err));
  TRY(lks_world_gather(world, hashes, sizeof hashes, all, err));
  (void)XXH64_reset(state, 0);
  (void)XXH64_update(state, source->signature, strlen(source->signature));
  for (int s = 0; s < SEGMENTS; ++s) {
    (void)XXH64_update(state, all[s % world->size][s], sizeof all[0][s]);
  }
  *hash = XXH64_digest(state);
cleanup:
  (void)XXH64_freeState(state);
  free(all);
  return st;
}
