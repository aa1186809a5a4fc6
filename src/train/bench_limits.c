/* What the machine can do, measured with so many ranks at it at once: nobody trains alone on a
 * node. */
#include <stdlib.h>
#include <unistd.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/exchange.h"
#include "backend/cpu/product.h"
#include "train/bench.h"

/* A product is short: more of them, as neighbours may want the core for some tens of ms. */
enum { PRODUCT_SIDE = 1024, PRODUCTS = 20, REPEATS = 5 };

/* Floats of an array that is read from memory. */
enum { LEAST_FLOATS = 8 << 20, MOST_FLOATS = 128 << 20 };

/* So many that the two arrays of each rank of a node are twice what its last cache holds. */
static size_t memory_floats(const lks_world *world) {
  size_t floats = LEAST_FLOATS;
#ifdef _SC_LEVEL3_CACHE_SIZE
  const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
  const size_t wanted = cache > 0 ? (size_t)cache / sizeof(float) / (size_t)world->local_size : 0;
  floats = wanted > floats ? wanted : floats;
#endif
  return floats < MOST_FLOATS ? floats : MOST_FLOATS;
}

/* Begun together: the limit of a rank is what it gets while the others are at it too. */
static lks_status begin_together(lks_world *world, double *began, lks_error *err) {
  lks_status st = LKS_OK;
  TRY_MPI(MPI_Barrier(world->comm));
  *began = lks_now();
cleanup:
  return st;
}

static lks_status measure_product(lks_world *world, float *arrays, double *flops, lks_error *err) {
  lks_status st = LKS_OK;
  const int64_t n = PRODUCT_SIDE;
  double best = 0.0, began = 0.0;
  const lks_product product = {.rows = n,
                               .columns = n,
                               .depth = n,
                               .a = arrays,
                               .a_row = n,
                               .a_depth = 1,
                               .b = arrays + n * n,
                               .b_depth = n,
                               .b_column = 1,
                               .c = arrays + 2 * n * n,
                               .c_row = n,
                               .weights = n * n};
  for (int i = 0; i < PRODUCTS; ++i) {
    TRY(begin_together(world, &began, err));
    lks_product_cpu(&product);
    const double rate = 2.0 * (double)(n * n) * (double)n / (lks_now() - began);
    best = rate > best ? rate : best;
  }
  TRY_MPI(MPI_Allreduce(&best, flops, 1, MPI_DOUBLE, MPI_MIN, world->comm));
cleanup:
  return st;
}

static lks_status measure_memory(lks_world *world, float *arrays, size_t n, double *bytes,
                                 lks_error *err) {
  lks_status st = LKS_OK;
  const float *restrict a = arrays;
  float *restrict c = arrays + n;
  double best = 0.0, began = 0.0;
  for (int i = 0; i < REPEATS; ++i) {
    TRY(begin_together(world, &began, err));
    for (size_t k = 0; k < n; ++k) {
      c[k] = 0.5f * c[k] + a[k];
    }
    const double rate = 3.0 * (double)n * sizeof(float) / (lks_now() - began);
    best = rate > best ? rate : best;
  }
  TRY_MPI(MPI_Allreduce(&best, bytes, 1, MPI_DOUBLE, MPI_MIN, world->comm));
cleanup:
  return st;
}

/* Sums and plain updates of so many parameters, as a step does them. */
static lks_status measure_exchange(lks_world *world, size_t parameters, double *seconds,
                                   lks_error *err) {
  lks_status st = LKS_OK;
  lks_exchange exchange;
  const char *note = NULL;
  const lks_update update = {.id = LKS_OPTIMIZER_SGD};
  double best = 1e30, began = 0.0;
  TRY(lks_exchange_open(&exchange, world, parameters, parameters + LKS_TENSOR_ALIGN, 0, 0.0, &note,
                        err));
  for (int i = 0; i < REPEATS; ++i) {
    const int runs = parameters > 100000 ? 1 : 1000;
    TRY(begin_together(world, &began, err));
    for (int k = 0; k < runs; ++k) {
      lks_control control;
      TRY(lks_exchange_run(&exchange, &update, &control, err));
    }
    const double took = (lks_now() - began) / runs;
    best = took < best ? took : best;
  }
  TRY_MPI(MPI_Allreduce(&best, seconds, 1, MPI_DOUBLE, MPI_MAX, world->comm));
cleanup:
  lks_exchange_close(&exchange);
  return st;
}

typedef struct request {
  lks_world *parent; /* which has the watchdog */
  int threads;
  lks_bench_limits *limits;
} request;

static lks_status measure_here(lks_world *world, void *context, lks_error *err) {
  lks_status st = LKS_OK;
  const request *asked = context;
  lks_bench_limits *limits = asked->limits;
  const size_t n = memory_floats(world), floats = 2 * n;
  _Static_assert(3 * PRODUCT_SIDE * PRODUCT_SIDE + LKS_PRODUCT_SLACK <= 2 * LEAST_FLOATS,
                 "three matrices fit the arrays");
  *limits = (lks_bench_limits){.ranks = world->size};
  float *arrays = malloc(floats * sizeof *arrays);
  if (arrays == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, "free some memory", "out of memory for measuring");
  }
  TRY(lks_agree(world, st, err));
  TRY(lks_world_place_threads(world, asked->threads, err));
  const lks_set_threads set_threads = lks_find_set_threads();
  if (set_threads != NULL) { /* as a backend does: by itself, BLAS takes every core */
    set_threads(world->threads);
  }
  for (size_t i = 0; i < floats; ++i) {
    arrays[i] = (float)(i % 7) * 0.25f;
  }
  lks_world_beat(asked->parent);
  TRY(measure_product(world, arrays, &limits->product_flops, err));
  lks_world_beat(asked->parent);
  TRY(measure_memory(world, arrays, n, &limits->memory_bytes, err));
  lks_world_beat(asked->parent);
  if (world->size > 1) {
    TRY(measure_exchange(world, LKS_BENCH_SMALL_EXCHANGE, &limits->exchange_small, err));
    TRY(measure_exchange(world, LKS_BENCH_LARGE_EXCHANGE, &limits->exchange_large, err));
  }
cleanup:
  free(arrays);
  return st;
}

lks_status lks_bench_measure_limits(lks_world *world, int ranks, int threads,
                                    lks_bench_limits *limits, lks_error *err) {
  request asked = {world, threads, limits};
  return lks_bench_on_part(world, ranks, measure_here, &asked, err);
}
