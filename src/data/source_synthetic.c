/* Synthetic rows: independent standard normal numbers (and labels, where asked for), each a
 * function of (seed, key, row, column), so that every rank makes the same ones in whatever order it
 * reads. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <xxhash.h>

#include "base/random.h"
#include "data/source.h"

typedef struct synthetic_state {
  uint64_t key;
  int64_t classes; /* of the targets; 0: normal */
} synthetic_state;

/* Uniform in the open interval (0, 1), 53 bits of two words. */
static double uniform53(uint32_t high, uint32_t low) {
  const uint64_t word = (uint64_t)high << 32 | low;
  return ((double)(word >> 11) + 0.5) * 0x1p-53;
}

/* Columns [from, from + count) of one row; features come first, then targets. A pair of columns
 * shares one Philox block and one Box-Muller transform. */
static void make_columns(uint64_t key, int64_t row, int64_t from, int64_t count, double *out) {
  const double two_pi = 6.283185307179586477;
  int64_t column = from;
  while (column < from + count) {
    const lks_random4 words =
        lks_philox((uint32_t)row, (uint32_t)((uint64_t)row >> 32), (uint32_t)(column / 2), 0,
                   (uint32_t)key, (uint32_t)(key >> 32));
    const double radius = sqrt(-2 * log(uniform53(words.v[0], words.v[1])));
    const double angle = two_pi * uniform53(words.v[2], words.v[3]);
    if (column % 2 == 0) {
      out[column - from] = radius * cos(angle);
      ++column;
    }
    if (column < from + count) {
      out[column - from] = radius * sin(angle);
      ++column;
    }
  }
}

/* A row's labels, counted apart from its numbers. */
static void make_labels(const synthetic_state *state, int64_t row, int64_t count, double *out) {
  for (int64_t column = 0; column < count; ++column) {
    const lks_random4 words =
        lks_philox((uint32_t)row, (uint32_t)((uint64_t)row >> 32), (uint32_t)column, 1,
                   (uint32_t)state->key, (uint32_t)(state->key >> 32));
    out[column] = floor(uniform53(words.v[0], words.v[1]) * (double)state->classes);
  }
}

static lks_status read_synthetic(lks_source *source, int64_t first, int64_t count,
                                 const lks_raw *out, lks_error *err) {
  const synthetic_state *state = source->state;
  const int64_t inputs = source->info.inputs;
  const int64_t outputs = source->info.outputs;
  (void)err;
  for (int64_t r = 0; r < count; ++r) {
    if (out->features != NULL) {
      make_columns(state->key, first + r, 0, inputs, out->features + r * inputs);
    }
    if (out->targets != NULL && state->classes > 0) {
      make_labels(state, first + r, outputs, out->targets + r * outputs);
    } else if (out->targets != NULL) {
      make_columns(state->key, first + r, inputs, outputs, out->targets + r * outputs);
    }
  }
  return LKS_OK;
}

static void place_synthetic(const lks_source *source, bool target, int64_t row, int64_t column,
                            char *out, size_t size) {
  (void)source;
  (void)snprintf(out, size, "%s, row %lld, column %lld", target ? "targets" : "features",
                 (long long)row, (long long)column);
}

lks_status lks_source_open_synthetic(const lks_synthetic_options *options, const char *key,
                                     uint64_t seed, lks_source *source, lks_error *err) {
  static const lks_source_ops ops = {.read = read_synthetic, .place = place_synthetic};
  lks_status st = LKS_OK;
  synthetic_state *state = lks_arena_alloc(&source->arena, sizeof *state);
  TRY_ALLOC(state);
  state->key = lks_random_key(seed, LKS_PURPOSE_SYNTHETIC, XXH64(key, strlen(key), 0));
  state->classes = options->classes;
  source->signature = lks_arena_print(&source->arena, "synthetic [%lld, %lld] [%lld, %lld]",
                                      (long long)options->rows, (long long)options->inputs,
                                      (long long)options->rows, (long long)options->outputs);
  if (source->signature != NULL && options->classes > 0) {
    source->signature = lks_arena_print(&source->arena, "%s of %lld classes", source->signature,
                                        (long long)options->classes);
  }
  TRY_ALLOC(source->signature);
  source->state = state;
  source->ops = &ops;
  source->info =
      (lks_source_info){.rows = options->rows,
                        .inputs = options->inputs,
                        .outputs = options->outputs,
                        .chunk_rows = 1,
                        .name = "synthetic rows",
                        .feature_names = "standard normal",
                        .target_names = options->classes > 0 ? "labels" : "standard normal"};
cleanup:
  return st;
}
