/* A step by owners under mpirun: where shares follow the cores' speed, no bit depends on how the
 * work is divided; and they do follow. Rank 0's clock is twenty times as fast as the others', so
 * its core seems that much slower. */
#include "model_fixture.h"
#include "ranks_fixture.h"

#include <math.h>
#include <sys/syscall.h>
#include <time.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/product.h"

static bool hurry;

/* In place of libc's, for the library too. */
int clock_gettime(clockid_t clock, struct timespec *now) {
  const long code = syscall(SYS_clock_gettime, clock, now);
  if (code == 0 && hurry && clock == CLOCK_MONOTONIC) {
    const long long twentyfold = 20 * (now->tv_sec * 1000000000LL + now->tv_nsec);
    now->tv_sec = (time_t)(twentyfold / 1000000000LL);
    now->tv_nsec = (long)(twentyfold % 1000000000LL);
  }
  return (int)code;
}

enum { ROWS = 150, STEPS = 20, SEED = 5 };

typedef struct network {
  int64_t inputs;
  const char *yaml;
} network;

/* Tiles of our own; products by columns, of few rows and by BLAS. */
static const network small = {100,
                              "model: [dense: {units: 200, activation: tanh}, dense: {units: 3}]\n"
                              "loss: mean_squared_error\noptimizer: adam"};
static const network broad = {
    300, "model: [dense: {units: 700, activation: relu}, dense: {units: 410, activation: gelu},"
         " dense: {units: 3}]\nloss: mean_squared_error\noptimizer: adam"};

typedef struct trained {
  recipe recipe;
  lks_plan *plan;
  lks_backend backend;
  float *parameters, *x, *t;
  int64_t *ids;
} trained;

static lks_cpu *inside(const trained *run) {
  return run->backend.state;
}

static void begin(ranks *at, trained *run, const network *net, int64_t batch) {
  lks_error err;
  *run = (trained){0};
  recipe_make(&run->recipe, net->inputs, 0, net->yaml);
  const lks_model *model = run->recipe.model;
  const int size = at->world->size;
  CHECK_STATUS(at, lks_plan_make(model, batch, size, LKS_BY_OWNERS, &run->plan, &err), LKS_OK);
  const lks_backend_request request = {.world = at->world,
                                       .rank = at->world->rank,
                                       .size = size,
                                       .local_rank = at->world->rank,
                                       .local_size = size,
                                       .host = "here",
                                       .plan = run->plan,
                                       .seed = SEED,
                                       .timeout = 60.0,
                                       .ordinal = -1};
  CHECK_STATUS(at, lks_backend_open("cpu", &request, &run->backend, &err), LKS_OK);
  run->parameters = malloc(run->plan->parameter_floats * sizeof(float));
  run->x = malloc((size_t)(ROWS * net->inputs) * sizeof(float));
  run->t = malloc((size_t)(ROWS * model->outputs) * sizeof(float));
  run->ids = malloc(ROWS * sizeof(int64_t));
  lks_model_initialise(model, SEED, run->parameters);
  for (int64_t i = 0; i < ROWS * net->inputs; ++i) {
    run->x[i] = (float)sin((double)i * 0.7) + (float)(i % 7) * 0.1f;
  }
  for (int64_t i = 0; i < ROWS * model->outputs; ++i) {
    run->t[i] = (float)cos((double)i * 0.3);
  }
  for (int64_t i = 0; i < ROWS; ++i) {
    run->ids[i] = i;
  }
  CHECK_STATUS(at, run->backend.ops->restore(run->backend.state, run->parameters, NULL, &err),
               LKS_OK);
}

static void end(trained *run) {
  lks_backend_close(&run->backend);
  lks_plan_free(&run->plan);
  recipe_free(&run->recipe);
  free(run->parameters);
  free(run->x);
  free(run->t);
  free(run->ids);
}

/* Batches one behind the other; the last of the rows is a smaller one, and divided evenly. Returns
 * rank 0's least share in any of them; *loss is the sum of all. */
static double train(ranks *at, trained *run, double *loss) {
  lks_error err;
  const lks_model *model = run->recipe.model;
  const int64_t batch = run->plan->batch_size;
  double least = 1.0;
  *loss = 0.0;
  for (int64_t k = 0, row = 0; k < STEPS; ++k) {
    const int64_t rows = ROWS - row < batch ? ROWS - row : batch;
    lks_feed feed = {0};
    lks_control control;
    lks_plan_share(run->plan, rows, at->world->rank, at->world->size, &feed.first, &feed.count);
    feed.features = run->x + (row + feed.first) * model->inputs;
    feed.targets = run->t + (row + feed.first) * model->outputs;
    feed.row_ids = run->ids + row + feed.first;
    const lks_step step = {.feed = &feed, .global_rows = rows, .step = k + 1};
    CHECK_STATUS(at, run->backend.ops->step(run->backend.state, &step, &control, &err), LKS_OK);
    CHECK(at, inside(run)->shares.even == (rows < batch));
    *loss += control.loss;
    least = inside(run)->shares.of[0] < least ? inside(run)->shares.of[0] : least;
    row = rows < batch ? 0 : (row + batch) % ROWS;
  }
  CHECK_STATUS(at, run->backend.ops->snapshot(run->backend.state, run->parameters, NULL, &err),
               LKS_OK);
  (void)MPI_Barrier(at->world->comm);
  return least;
}

/* Even shares, then shares that follow a clock which makes rank 0 seem slow: the same bits. */
static void try_shape(ranks *at, const network *net, int64_t batch) {
  const int size = at->world->size;
  trained even, uneven;
  double losses[2];
  begin(at, &even, net, batch);
  const bool crowded = inside(&even)->exchange.barrier.crowded;
  const bool follows = inside(&even)->shares.follow;
  const lks_product tile = {.a_depth = 1, .weights = 1};
  const bool own = net == &small && lks_product_is_own(&tile);
  CHECK(at, follows || crowded || size == 1 || !own);
  CHECK(at, !follows || !crowded);
  inside(&even)->shares.follow = false;
  CHECK(at, train(at, &even, &losses[0]) == 1.0 / size);
  hurry = at->world->rank == 0;
  begin(at, &uneven, net, batch);
  inside(&uneven)->shares.follow = size > 1 && (follows || (crowded && own));
  const double least = train(at, &uneven, &losses[1]);
  hurry = false;
  CHECK(at, !inside(&uneven)->shares.follow || least < 0.8 / size);
  CHECK(at, losses[0] == losses[1]);
  CHECK(at, memcmp(even.parameters, uneven.parameters,
                   even.plan->parameter_floats * sizeof(float)) == 0);
  end(&uneven);
  end(&even);
}

int main(void) {
  static const int64_t batches[] = {24, 64};
  ranks at;
  if (ranks_open(&at) != 0) {
    return 1;
  }
  for (size_t i = 0; i < sizeof batches / sizeof *batches; ++i) {
    try_shape(&at, &small, batches[i]);
    try_shape(&at, &broad, batches[i]);
  }
  return ranks_close(&at);
}
