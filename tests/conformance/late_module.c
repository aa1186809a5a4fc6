/* A backend module for tests: the CPU backend, LAG steps late.
 *
 * A step's rows are copied when it is queued, and computed when LAG more are queued behind it, or
 * when it is drained. So whoever looks at parameters without draining sees old ones, and is told so
 * here. It adopts tables, tells a byte plan and devices that are not there, and misbehaves on
 * demand:
 *
 *   LATE_DEVICES=N       devices that there are (8)
 *   LATE_ADOPT=WHO       who adopts the table: all (the default), none, even ranks
 *   LATE_SLOW=RANK:US    that rank sleeps so many microseconds in each step
 *   LATE_CORRUPT=RANK:S  that rank's fingerprint is another one from step S on
 *   LATE_BREAK=WHAT      which part of the handshake is wrong */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/backend.h"
#include "device/module.h"

enum { LAG = 3, DEVICES = 8 };

extern const lks_backend_ops lks_backend_cpu;

static const lks_services *services;

/* A step with a copy of its rows. */
typedef struct queued {
  lks_step step;
  lks_feed feed;
  float *features, *targets;
  int64_t *ids;
} queued;

typedef struct late {
  void *cpu;
  const lks_plan *plan;
  int rank;
  queued ring[LAG + 1];
  int first, count;
  bool dead; /* a block said failed or not finite: later steps do nothing */
  int64_t done;
  float *features, *targets; /* the adopted table */
  int64_t bytes;             /* that it takes */
} late;

/* ---- the environment */

/* NAME=RANK:NUMBER, where it names this rank; else 0. */
static int64_t number_for(const char *name, int rank) {
  const char *text = getenv(name);
  char *end = NULL;
  if (text == NULL || strtol(text, &end, 10) != rank || *end != ':') {
    return 0;
  }
  return strtol(end + 1, NULL, 10);
}

static bool adopts(int rank) {
  const char *who = getenv("LATE_ADOPT");
  return who == NULL || (strcmp(who, "none") != 0 && (strcmp(who, "even") != 0 || rank % 2 == 0));
}

static bool broken(const char *what) {
  const char *text = getenv("LATE_BREAK");
  return text != NULL && strcmp(text, what) == 0;
}

/* ---- the queue */

static void close_late(void *state) {
  late *l = state;
  if (l == NULL) {
    return;
  }
  if (l->cpu != NULL) {
    lks_backend_cpu.close(l->cpu);
  }
  for (int i = 0; i <= LAG; ++i) {
    free(l->ring[i].features);
    free(l->ring[i].targets);
    free(l->ring[i].ids);
  }
  free(l->features);
  free(l->targets);
  free(l);
}

static lks_status make_ring(late *l, lks_error *err) {
  lks_status st = LKS_OK;
  const size_t rows = (size_t)l->plan->share_rows;
  for (int i = 0; i <= LAG; ++i) {
    queued *q = &l->ring[i];
    q->features = calloc(rows * (size_t)l->plan->model->inputs, sizeof(float));
    TRY_ALLOC(q->features);
    q->targets = calloc(rows * (size_t)l->plan->target_columns, sizeof(float));
    TRY_ALLOC(q->targets);
    q->ids = calloc(rows, sizeof(int64_t));
    TRY_ALLOC(q->ids);
  }
cleanup:
  return st;
}

static lks_status open_late(const lks_backend_request *request, void **state, lks_error *err) {
  lks_status st = LKS_OK;
  late *l = calloc(1, sizeof *l);
  if (l != NULL) {
    l->plan = request->plan;
    l->rank = request->rank;
    st = make_ring(l, err);
  } else {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory");
  }
  TRY(services->agree(request->world, st, err));
  TRY(lks_backend_cpu.open(request, &l->cpu, err));
  *state = l;
  l = NULL;
cleanup:
  close_late(l);
  return st;
}

static lks_status must_be_idle(const late *l, const char *what, lks_error *err) {
  lks_status st = LKS_OK;
  if (l->count > 0) {
    FAIL(LKS_INTERNAL, NULL, "%s while %d steps are queued", what, l->count);
  }
cleanup:
  return st;
}

static lks_status restore_late(void *state, const float *parameters, const float *const *slots,
                               lks_error *err) {
  lks_status st = LKS_OK;
  late *l = state;
  TRY(must_be_idle(l, "restore", err));
  l->dead = false;
  TRY(lks_backend_cpu.restore(l->cpu, parameters, slots, err));
cleanup:
  return st;
}

static lks_status snapshot_late(void *state, float *parameters, float *const *slots,
                                lks_error *err) {
  lks_status st = LKS_OK;
  late *l = state;
  TRY(must_be_idle(l, "snapshot", err));
  TRY(lks_backend_cpu.snapshot(l->cpu, parameters, slots, err));
cleanup:
  return st;
}

static lks_status run_oldest(late *l, lks_control *control, lks_error *err) {
  lks_status st = LKS_OK;
  queued *q = &l->ring[l->first];
  q->step.feed = &q->feed;
  q->step.votes.failed = q->step.votes.failed || l->dead;
  l->first = (l->first + 1) % (LAG + 1);
  l->count -= 1;
  TRY(lks_backend_cpu.step(l->cpu, &q->step, control, err));
  l->dead = l->dead || control->failed > 0 || control->not_finite > 0;
  l->done = q->step.step;
cleanup:
  return st;
}

/* Rows of a feed, wherever they are said to lie, into the queue's own memory. */
static void copy_rows(const late *l, const lks_feed *feed, queued *q) {
  const size_t inputs = (size_t)l->plan->model->inputs, targets = (size_t)l->plan->target_columns;
  for (int64_t k = 0; k < feed->count; ++k) {
    const float *features = feed->features, *wanted = feed->targets;
    int64_t row = feed->index != NULL ? feed->index[k] : k;
    q->ids[k] = feed->row_ids != NULL ? feed->row_ids[k] : 0;
    if (feed->places != NULL) {
      const lks_places *places = feed->places;
      const uint64_t place = (uint64_t)(places->first + k);
      row = (int64_t)(places->shuffle ? lks_permute(&places->permutation, place) : place);
      features = l->features;
      wanted = l->targets;
      q->ids[k] = row;
    }
    memcpy(q->features + (size_t)k * inputs, features + (size_t)row * inputs,
           inputs * sizeof(float));
    memcpy(q->targets + (size_t)k * targets, wanted + (size_t)row * targets,
           targets * sizeof(float));
  }
  q->feed = (lks_feed){
      .features = q->features, .targets = q->targets, .row_ids = q->ids, .count = feed->count};
}

static lks_status step_late(void *state, const lks_step *step, lks_control *control,
                            lks_error *err) {
  lks_status st = LKS_OK;
  late *l = state;
  queued *q = &l->ring[(l->first + l->count) % (LAG + 1)];
  const int64_t slow = number_for("LATE_SLOW", l->rank);
  if (slow > 0) {
    (void)usleep((useconds_t)slow);
  }
  q->step = *step;
  copy_rows(l, step->feed, q);
  l->count += 1;
  *control = (lks_control){0};
  if (l->count > LAG) {
    TRY(run_oldest(l, control, err));
  }
cleanup:
  return st;
}

static lks_status drain_late(void *state, lks_control *control, lks_error *err) {
  late *l = state;
  *control = (lks_control){0};
  return l->count > 0 ? run_oldest(l, control, err) : LKS_OK;
}

/* ---- the rest of the contract */

static lks_status evaluate_late(void *state, const lks_feed *feed, lks_block_sums *sums,
                                lks_error *err) {
  lks_status st = LKS_OK;
  late *l = state;
  TRY(must_be_idle(l, "evaluate", err));
  TRY(lks_backend_cpu.evaluate(l->cpu, feed, sums, err));
cleanup:
  return st;
}

static lks_status predict_late(void *state, const lks_feed *feed, int layer, float *out,
                               lks_error *err) {
  lks_status st = LKS_OK;
  late *l = state;
  TRY(must_be_idle(l, "predict", err));
  TRY(lks_backend_cpu.predict(l->cpu, feed, layer, out, err));
cleanup:
  return st;
}

static float *copy_of(const float *values, int64_t count) {
  float *copy = malloc((size_t)count * sizeof *copy);
  if (copy != NULL) {
    memcpy(copy, values, (size_t)count * sizeof *copy);
  }
  return copy;
}

static lks_status adopt_late(void *state, const lks_resident *table, bool *adopted,
                             lks_error *err) {
  lks_status st = LKS_OK;
  late *l = state;
  *adopted = adopts(l->rank);
  if (*adopted) {
    l->features = copy_of(table->features, table->rows * table->inputs);
    TRY_ALLOC(l->features);
    l->targets = copy_of(table->targets, table->rows * table->outputs);
    TRY_ALLOC(l->targets);
    l->bytes = table->rows * (table->inputs + table->outputs) * (int64_t)sizeof(float);
  }
cleanup:
  return st;
}

static void describe_late(void *state, char *out, size_t size) {
  (void)state;
  (void)snprintf(out, size, "the CPU, %d steps late", LAG);
}

static void memory_late(void *state, lks_memory_plan *memory) {
  const late *l = state;
  const int64_t p = (int64_t)(l->plan->parameter_floats * sizeof(float));
  *memory = (lks_memory_plan){.parameters = p,
                              .gradients = (int64_t)(l->plan->gradient_floats * sizeof(float)),
                              .slots = p * l->plan->slots,
                              .activations = (int64_t)(l->plan->work_floats * sizeof(float)),
                              .data = l->bytes,
                              .workspace = 4096,
                              .device_total = (int64_t)8 << 30,
                              .free_before = (int64_t)7 << 30,
                              .free_after = (int64_t)6 << 30};
  memory->total = memory->parameters + memory->gradients + memory->slots + memory->activations +
                  memory->data + memory->workspace;
}

static lks_status fingerprint_late(void *state, uint64_t *hash, lks_error *err) {
  lks_status st = LKS_OK;
  late *l = state;
  const int64_t from = number_for("LATE_CORRUPT", l->rank);
  TRY(must_be_idle(l, "fingerprint", err));
  TRY(lks_backend_cpu.fingerprint(l->cpu, hash, err));
  *hash ^= from > 0 && l->done >= from ? 1 : 0;
cleanup:
  return st;
}

static void timing_late(void *state, lks_timing *timing) {
  const late *l = state;
  lks_backend_cpu.timing(l->cpu, timing);
}

static const lks_backend_ops ops = {.name = "cuda",
                                    .abi = LKS_BACKEND_ABI,
                                    .lag = LAG,
                                    .open = open_late,
                                    .close = close_late,
                                    .restore = restore_late,
                                    .snapshot = snapshot_late,
                                    .step = step_late,
                                    .drain = drain_late,
                                    .evaluate = evaluate_late,
                                    .predict = predict_late,
                                    .adopt = adopt_late,
                                    .describe = describe_late,
                                    .memory = memory_late,
                                    .fingerprint = fingerprint_late,
                                    .timing = timing_late};

/* ---- devices that are not there */

static int device_count(void) {
  const char *text = getenv("LATE_DEVICES");
  return text != NULL ? (int)strtol(text, NULL, 10) : DEVICES;
}

static int fail_gpu(int code, const char *name, lks_gpu_failure *failure) {
  *failure = (lks_gpu_failure){.library = LKS_LIB_CUDA, .code = code, .file = __FILE__};
  (void)snprintf(failure->name, sizeof failure->name, "%s", name);
  return code;
}

static int gpu_versions(lks_gpu_versions *versions, lks_gpu_failure *failure) {
  (void)failure;
  *versions = (lks_gpu_versions){.driver = 13000,
                                 .runtime = 13000,
                                 .cublas = 130100,
                                 .nccl = 22809,
                                 .built_runtime = 13000,
                                 .built_cublas = 130100,
                                 .built_nccl = 22809};
  return 0;
}

static int gpu_count(int *count, lks_gpu_failure *failure) {
  *count = device_count();
  return *count > 0 ? 0 : fail_gpu(100, "cudaErrorNoDevice", failure);
}

static int gpu_describe(int ordinal, lks_gpu *gpu, lks_gpu_failure *failure) {
  if (ordinal < 0 || ordinal >= device_count()) {
    return fail_gpu(101, "cudaErrorInvalidDevice", failure);
  }
  *gpu = (lks_gpu){.ordinal = ordinal,
                   .name = "Late CPU",
                   .major = 9,
                   .memory_total = (int64_t)8 << 30,
                   .memory_free = (int64_t)7 << 30,
                   .sm_count = 1};
  (void)snprintf(gpu->uuid, sizeof gpu->uuid, "GPU-00000000-0000-0000-0000-%012d", ordinal);
  (void)snprintf(gpu->pci_bus_id, sizeof gpu->pci_bus_id, "0000:%02x:00.0", ordinal);
  return 0;
}

static int gpu_launch(int ordinal, lks_gpu_failure *failure) {
  lks_gpu gpu;
  return gpu_describe(ordinal, &gpu, failure);
}

static int gpu_product(int ordinal, int64_t m, int64_t n, int64_t k, const float *a, const float *b,
                       float *c, lks_gpu_failure *failure) {
  for (int64_t i = 0; i < m * n; ++i) {
    c[i] = 0.0f;
    for (int64_t j = 0; j < k; ++j) {
      c[i] += a[i / n * k + j] * b[j * n + i % n];
    }
  }
  return gpu_launch(ordinal, failure);
}

static int gpu_peer(int from, int to, bool *access, lks_gpu_failure *failure) {
  (void)to;
  *access = false;
  return gpu_launch(from, failure);
}

static int gpu_collective_id(void *id, lks_gpu_failure *failure) {
  (void)failure;
  memset(id, 0, 128);
  return 0;
}

static int gpu_collective(int ordinal, const void *id, int rank, int size, int64_t count,
                          int repeats, bool *right, double *seconds, lks_gpu_failure *failure) {
  (void)id;
  (void)rank;
  (void)size;
  (void)count;
  (void)repeats;
  *right = true;
  *seconds = 1.0;
  return gpu_launch(ordinal, failure);
}

static const lks_gpu_ops gpu = {.versions = gpu_versions,
                                .count = gpu_count,
                                .identify = gpu_describe,
                                .describe = gpu_describe,
                                .launch = gpu_launch,
                                .product = gpu_product,
                                .peer = gpu_peer,
                                .collective_id = gpu_collective_id,
                                .collective = gpu_collective};

lks_module_open lks_module_entry;

const lks_module *lks_module_entry(const lks_services *of_program) {
  static lks_module module = {.magic = LKS_MODULE_MAGIC,
                              .abi = LKS_MODULE_ABI,
                              .size = sizeof(lks_module),
                              .backend_size = sizeof(lks_backend_ops),
                              .plan_size = sizeof(lks_plan),
                              .model_size = sizeof(lks_model),
                              .gpu_size = sizeof(lks_gpu_ops),
                              .version = LKS_VERSION,
                              .architectures = "none",
                              .backend = &ops,
                              .gpu = &gpu};
  services = of_program;
  module.magic += broken("magic");
  module.abi += broken("abi");
  module.size += broken("size");
  module.gpu_size += broken("gpu");
  module.plan_size += broken("plan");
  module.backend_size += broken("backend");
  module.version = broken("version") ? "0.0.0" : module.version;
  module.backend = broken("empty") ? NULL : module.backend;
  return broken("refuse") ? NULL : &module;
}
