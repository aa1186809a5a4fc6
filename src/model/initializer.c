/* The table of initial-value schemes, and the values themselves.
 *
 * Element i of parameter p is a function of (seed, p, i) alone. Scales are Keras':
 * limit = sqrt(3 scale / n) for uniform, stddev = sqrt(scale / n) for normal (divided by
 * 0.87962566, the standard deviation of a normal cut at two, for the truncated ones), n being
 * fan_in, or the mean of fan_in and fan_out. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/random.h"
#include "model/initializer.h"

#define REAL_OPTION(key_, member, default_, least, help_)                                          \
  {                                                                                                \
    .key = key_, .type = LKS_OPT_REAL, .offset = offsetof(lks_initializer, member),                \
    .fallback = default_, .min = least, .max = 1e6, .help = help_                                  \
  }

static const lks_option constant_options[] = {REAL_OPTION("value", value, "0", -1e6, "the value"),
                                              {0}};
static const lks_option uniform_options[] = {
    REAL_OPTION("minval", minval, "-0.05", -1e6, "lower end"),
    REAL_OPTION("maxval", maxval, "0.05", -1e6, "upper end"),
    {0}};
static const lks_option normal_options[] = {
    REAL_OPTION("mean", mean, "0", -1e6, "mean"),
    REAL_OPTION("stddev", stddev, "0.05", 0, "standard deviation"),
    {0}};

#define ROW(name, help, options, ...)                                                              \
  static const lks_initializer_row name = {.kind = {#name, help, options}, __VA_ARGS__}
ROW(zeros, "0", NULL, .id = LKS_INIT_CONSTANT);
ROW(ones, "1", NULL, .id = LKS_INIT_CONSTANT, .value = 1.0);
ROW(constant, "the same everywhere", constant_options, .id = LKS_INIT_CONSTANT);
ROW(random_uniform, "uniform between minval and maxval", uniform_options, .id = LKS_INIT_UNIFORM);
ROW(random_normal, "normal", normal_options, .id = LKS_INIT_NORMAL);
ROW(truncated_normal, "normal, redrawn beyond two standard deviations", normal_options,
    .id = LKS_INIT_TRUNCATED_NORMAL);
ROW(glorot_uniform, "uniform, limit sqrt(6 / (fan_in + fan_out))", NULL, .id = LKS_INIT_UNIFORM,
    .scale = 1.0, .average = true);
ROW(glorot_normal, "truncated normal, variance 2 / (fan_in + fan_out)", NULL,
    .id = LKS_INIT_TRUNCATED_NORMAL, .scale = 1.0, .average = true);
ROW(he_uniform, "uniform, limit sqrt(6 / fan_in)", NULL, .id = LKS_INIT_UNIFORM, .scale = 2.0);
ROW(he_normal, "truncated normal, variance 2 / fan_in", NULL, .id = LKS_INIT_TRUNCATED_NORMAL,
    .scale = 2.0);
ROW(lecun_uniform, "uniform, limit sqrt(3 / fan_in)", NULL, .id = LKS_INIT_UNIFORM, .scale = 1.0);
ROW(lecun_normal, "truncated normal, variance 1 / fan_in", NULL, .id = LKS_INIT_TRUNCATED_NORMAL,
    .scale = 1.0);

const lks_kind *const lks_initializer_kinds[] = {&zeros.kind,
                                                 &ones.kind,
                                                 &constant.kind,
                                                 &random_uniform.kind,
                                                 &random_normal.kind,
                                                 &truncated_normal.kind,
                                                 &glorot_uniform.kind,
                                                 &glorot_normal.kind,
                                                 &he_uniform.kind,
                                                 &he_normal.kind,
                                                 &lecun_uniform.kind,
                                                 &lecun_normal.kind,
                                                 NULL};

/* The pair of standard normals of one Philox block (Box and Muller 1958). */
static void normal_pair(const lks_random4 *words, double out[2]) {
  const double u = ((double)words->v[0] + 0.5) * 0x1p-32;
  const double angle = ((double)words->v[1] + 0.5) * 0x1p-32 * 6.283185307179586476925;
  const double radius = sqrt(-2.0 * log(u));
  out[0] = radius * cos(angle);
  out[1] = radius * sin(angle);
}

/* A standard normal for element i; with truncation, redrawn until it lies within two. */
static double normal_value(uint64_t key, uint64_t i, bool truncated) {
  for (uint32_t attempt = 0;; ++attempt) {
    const lks_random4 words = lks_philox((uint32_t)i, (uint32_t)(i >> 32), attempt, 0,
                                         (uint32_t)key, (uint32_t)(key >> 32));
    double pair[2];
    normal_pair(&words, pair);
    for (int k = 0; k < 2; ++k) {
      if (!truncated || fabs(pair[k]) <= 2.0) {
        return pair[k];
      }
    }
  }
}

static double uniform_value(uint64_t key, uint64_t i) {
  const uint64_t block = i / 4;
  const lks_random4 words = lks_philox((uint32_t)block, (uint32_t)(block >> 32), 0, 1,
                                       (uint32_t)key, (uint32_t)(key >> 32));
  return (double)lks_uniform(words.v[i % 4]);
}

void lks_initializer_fill(const lks_initializer *initializer, uint64_t key, int64_t fan_in,
                          int64_t fan_out, int64_t count, float *out) {
  const lks_initializer_row *row = (const lks_initializer_row *)(const void *)initializer->kind;
  double low = initializer->minval, high = initializer->maxval;
  double mean = initializer->mean, stddev = initializer->stddev;
  if (row->scale > 0.0) {
    const double n = row->average ? 0.5 * (double)(fan_in + fan_out) : (double)fan_in;
    const double variance = row->scale / (n > 1.0 ? n : 1.0);
    high = sqrt(3.0 * variance);
    low = -high;
    mean = 0.0;
    stddev = sqrt(variance) / 0.87962566103423978;
  }
  const double value = row->kind.options == constant_options ? initializer->value : row->value;
  for (int64_t i = 0; i < count; ++i) {
    switch (row->id) {
    case LKS_INIT_CONSTANT:
      out[i] = (float)value;
      break;
    case LKS_INIT_UNIFORM:
      out[i] = (float)(low + (high - low) * uniform_value(key, (uint64_t)i));
      break;
    case LKS_INIT_NORMAL:
      out[i] = (float)(mean + stddev * normal_value(key, (uint64_t)i, false));
      break;
    case LKS_INIT_TRUNCATED_NORMAL:
      out[i] = (float)(mean + stddev * normal_value(key, (uint64_t)i, true));
      break;
    }
  }
}
