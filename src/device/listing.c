/* Rows of devices, made by each rank and gathered in rank order. */
#include "device/listing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/blas.h"
#include "data/memory.h"
#include "device/nvml.h"
#include "device/system.h"

/* ---- one rank's rows */

static void put_rank(const lks_world *world, lks_device_row *row) {
  *row = (lks_device_row){
      .rank = world->rank, .local_rank = world->local_rank, .threads = world->threads};
  (void)snprintf(row->host, sizeof row->host, "%s", world->host);
  row->core_count = lks_system_cores(row->cores, sizeof row->cores);
}

static void cpu_row(const lks_world *world, lks_device_row *row) {
  const int64_t page = (int64_t)sysconf(_SC_PAGESIZE);
  put_rank(world, row);
  row->ordinal = -1;
  (void)snprintf(row->backend, sizeof row->backend, "cpu");
  lks_system_processor(row->name, sizeof row->name);
  row->memory_total = page * (int64_t)sysconf(_SC_PHYS_PAGES);
  row->memory_free = lks_memory_free("/proc/meminfo", "/proc/self/cgroup", "/sys/fs/cgroup");
  row->numa_node = lks_system_numa_of_mask();
  (void)snprintf(row->library, sizeof row->library, "%s", lks_blas_words());
}

static void gpu_row(const lks_world *world, const lks_gpu *gpu, const lks_gpu_versions *versions,
                    lks_device_row *row) {
  char system[32] = "", cuda[16];
  put_rank(world, row);
  row->ordinal = gpu->ordinal;
  (void)snprintf(row->backend, sizeof row->backend, "cuda");
  (void)snprintf(row->name, sizeof row->name, "%.127s", gpu->name);
  (void)snprintf(row->uuid, sizeof row->uuid, "%s", gpu->uuid);
  (void)snprintf(row->pci_bus_id, sizeof row->pci_bus_id, "%s", gpu->pci_bus_id);
  (void)snprintf(row->compute_capability, sizeof row->compute_capability, "%d.%d", gpu->major,
                 gpu->minor);
  row->memory_total = gpu->memory_total;
  row->memory_free = gpu->memory_free;
  row->sm_count = gpu->sm_count;
  row->clock = gpu->clock_hz;
  row->memory_clock = gpu->memory_clock_hz;
  lks_system_driver(system, sizeof system);
  (void)snprintf(row->driver, sizeof row->driver, "%s%sCUDA %s%s", system,
                 system[0] != '\0' ? " (" : "", lks_cuda_version(versions->driver, cuda),
                 system[0] != '\0' ? ")" : "");
  (void)lks_cuda_version(versions->runtime, row->cuda_runtime);
  (void)lks_library_version(versions->cublas, row->cublas);
  (void)lks_library_version(versions->nccl, row->nccl);
  row->numa_node = lks_system_numa_of(gpu->pci_bus_id);
}

void lks_listing_choice_row(const lks_world *world, const lks_device_choice *choice,
                            lks_device_row *row) {
  lks_gpu_versions versions = {0};
  lks_gpu_failure failure = {.ordinal = -1};
  if (choice->ordinal < 0) {
    cpu_row(world, row);
    return;
  }
  const lks_module_found *found = lks_module_find(choice->backend);
  if (found->state == LKS_MODULE_LOADED) {
    (void)found->module->gpu->versions(&versions, &failure);
  }
  gpu_row(world, &choice->gpu, &versions, row);
}

void lks_listing_failure(const lks_world *world, const char *subject, const char *class_,
                         const lks_error *error, lks_failure_row *row) {
  *row = (lks_failure_row){.rank = world->rank};
  (void)snprintf(row->host, sizeof row->host, "%s", world->host);
  (void)snprintf(row->subject, sizeof row->subject, "%s", subject);
  (void)snprintf(row->class_, sizeof row->class_, "%s", class_);
  (void)snprintf(row->words, sizeof row->words, "%s", error->what);
  (void)snprintf(row->advice, sizeof row->advice, "%s", error->remedy);
}

/* ---- all ranks' rows */

lks_status lks_listing_gather(lks_world *world, const void *rows, int64_t mine, size_t each,
                              void **all, int64_t *total, lks_error *err) {
  lks_status st = LKS_OK;
  int64_t most = 0;
  char *padded = NULL, *out = NULL, *gathered = NULL;
  int64_t *counts = malloc((size_t)world->size * sizeof *counts);
  *all = NULL;
  *total = 0;
  if (counts == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for %d ranks", world->size);
  }
  TRY(lks_agree(world, st, err));
  TRY(lks_world_gather(world, &mine, sizeof mine, counts, err));
  for (int rank = 0; rank < world->size; ++rank) {
    most = counts[rank] > most ? counts[rank] : most;
    *total += counts[rank];
  }
  const size_t share = (size_t)(most > 0 ? most : 1) * each;
  padded = calloc(1, share);
  gathered = malloc(share * (size_t)world->size);
  out = malloc((size_t)(*total > 0 ? *total : 1) * each);
  if (padded == NULL || gathered == NULL || out == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for rows of %d ranks", world->size);
  }
  TRY(lks_agree(world, st, err));
  if (mine > 0) {
    memcpy(padded, rows, (size_t)mine * each);
  }
  TRY(lks_world_gather(world, padded, share, gathered, err));
  size_t used = 0;
  for (int rank = 0; rank < world->size; ++rank) {
    memcpy(out + used, gathered + (size_t)rank * share, (size_t)counts[rank] * each);
    used += (size_t)counts[rank] * each;
  }
  *all = out;
  out = NULL;
cleanup:
  free(counts);
  free(padded);
  free(gathered);
  free(out);
  return st;
}

static int count_gpus(const lks_device_row *rows, int64_t count) {
  int distinct = 0;
  for (int64_t i = 0; i < count; ++i) {
    bool again = rows[i].ordinal < 0;
    for (int64_t j = 0; j < i && !again; ++j) {
      again = rows[j].ordinal >= 0 && strcmp(rows[i].host, rows[j].host) == 0 &&
              strcmp(rows[i].uuid, rows[j].uuid) == 0;
    }
    distinct += again ? 0 : 1;
  }
  return distinct;
}

/* What one rank sees and what fails there. */
typedef struct own {
  lks_device_row rows[1 + LKS_SYSTEM_MAX];
  lks_failure_row failures[1 + LKS_SYSTEM_MAX];
  int64_t count, failure_count;
} own;

static void add_failure(const lks_world *world, const lks_probe *probe, const char *subject,
                        const lks_error *error, own *mine) {
  lks_listing_failure(world, subject, lks_device_class_name(probe->class_), error,
                      &mine->failures[mine->failure_count++]);
}

/* NVML tells without a context, which takes a moment and memory on every device; CUDA does where
 * there is no NVML. */
static void put_free(const lks_probe *probe, lks_gpu *gpu) {
  lks_health health;
  lks_gpu_failure failure = {.ordinal = gpu->ordinal};
  lks_nvml_look(gpu, &health);
  gpu->memory_free = health.memory_free;
  if (gpu->memory_free < 0) {
    lks_gpu described;
    if (probe->ops->describe(gpu->ordinal, &described, &failure) == 0) {
      gpu->memory_free = described.memory_free;
    }
  }
}

static void look(const lks_world *world, own *mine) {
  lks_probe probe;
  lks_error error;
  lks_gpu gpu;
  char subject[32];
  lks_error_clear(&error);
  cpu_row(world, &mine->rows[mine->count++]);
  if (lks_probe_gpus(&probe, &error) != LKS_OK) {
    add_failure(world, &probe, probe.ops == NULL ? "module cuda" : "devices", &error, mine);
  }
  for (int ordinal = 0; ordinal < probe.count && ordinal < LKS_SYSTEM_MAX; ++ordinal) {
    if (lks_probe_device(&probe, ordinal, &gpu, &error) == LKS_OK) {
      put_free(&probe, &gpu);
      gpu_row(world, &gpu, &probe.versions, &mine->rows[mine->count++]);
    } else {
      (void)snprintf(subject, sizeof subject, "gpu:%d", ordinal);
      add_failure(world, &probe, subject, &error, mine);
    }
  }
}

lks_status lks_listing_make(lks_world *world, lks_listing *listing, lks_error *err) {
  lks_status st = LKS_OK;
  void *all = NULL;
  *listing = (lks_listing){0};
  own *mine = calloc(1, sizeof *mine);
  if (mine == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for a list of devices");
  }
  TRY(lks_agree(world, st, err));
  look(world, mine);
  TRY(lks_listing_gather(world, mine->rows, mine->count, sizeof *mine->rows, &all, &listing->count,
                         err));
  listing->rows = all;
  TRY(lks_listing_gather(world, mine->failures, mine->failure_count, sizeof *mine->failures, &all,
                         &listing->failure_count, err));
  listing->failures = all;
  listing->gpus = count_gpus(listing->rows, listing->count);
cleanup:
  free(mine);
  return st;
}

void lks_listing_free(lks_listing *listing) {
  free(listing->rows);
  free(listing->failures);
  *listing = (lks_listing){0};
}
