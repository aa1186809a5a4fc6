/* The links that touch a device, and those that need all ranks. */
#include "device/diagnose.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/errors.h"
#include "device/module.h"
#include "device/nvml.h"
#include "device/product.h"
#include "device/system.h"

enum { SUM_FLOATS = 1 << 18, SUM_REPEATS = 5 };

static const lks_gpu_ops *ops_of(const lks_device_choice *choice) {
  return lks_module_find(choice->backend)->module->gpu;
}

static void add_failure(lks_diagnosis *d, const char *name, const lks_gpu_failure *failure) {
  lks_error error;
  if (lks_device_fail(failure, &error) != LKS_OK) {
    lks_finding_error(d, name, lks_device_error_of(failure->library, failure->code)->class_,
                      &error);
  }
}

/* ---- one rank's device */

static void check_place(const lks_device_choice *choice, lks_diagnosis *d) {
  char total[32], left[32];
  const lks_gpu *gpu = &choice->gpu;
  const bool crowded = gpu->memory_free < gpu->memory_total / 2;
  lks_finding_add(d, crowded ? LKS_FINDING_WARNING : LKS_FINDING_GOOD, "place",
                  crowded ? "see what else uses this GPU (nvidia-smi)" : NULL,
                  "this rank takes gpu:%d, %s, %s, %s, compute capability %d.%d, %s of %s free",
                  choice->ordinal, gpu->name, gpu->uuid, gpu->pci_bus_id, gpu->major, gpu->minor,
                  lks_format_bytes(left, (double)gpu->memory_free),
                  lks_format_bytes(total, (double)gpu->memory_total));
}

static void list_processes(const lks_health *health, lks_text *out) {
  char bytes[32];
  for (int i = 0; i < health->process_count && i < LKS_HEALTH_PROCESSES; ++i) {
    lks_text_add(out, "%s%d", i > 0 ? ", " : "", health->processes[i].pid);
    if (health->processes[i].bytes >= 0) {
      lks_text_add(out, " (%s)", lks_format_bytes(bytes, (double)health->processes[i].bytes));
    }
  }
}

static void check_health(lks_device_choice *choice, lks_diagnosis *d) {
  lks_health health;
  lks_text others = {0};
  lks_nvml_look(&choice->gpu, &health);
  const lks_device_error *row = lks_device_error_of(LKS_LIB_NVML, health.failure.code);
  list_processes(&health, &others);
  if (health.failure.code != 0 && row->class_ == LKS_CLASS_HARDWARE) {
    health.failure.ordinal = choice->ordinal;
    add_failure(d, "health", &health.failure);
  } else if (health.remap_failed) {
    lks_finding_add(d, LKS_FINDING_BROKEN, "health", lks_device_error_of(LKS_LIB_CUDA, 214)->advice,
                    "gpu:%d has no spare memory rows left to replace faulty ones", choice->ordinal);
    lks_finding_class(d, LKS_CLASS_HARDWARE);
  } else if (health.uncorrected > 0 || health.pending) {
    lks_finding_add(d, LKS_FINDING_WARNING, "health", lks_device_error_of(LKS_LIB_NVML, 16)->advice,
                    "gpu:%d had %lld uncorrectable memory error%s since its driver was loaded%s",
                    choice->ordinal, (long long)health.uncorrected,
                    health.uncorrected == 1 ? "" : "s",
                    health.pending ? "; faulty rows wait for a reset" : "");
  } else if (health.failure.code != 0 || !health.told) {
    lks_finding_add(d, LKS_FINDING_UNSEEN, "health", NULL, "NVML does not tell: %s%s", health.words,
                    health.failure.text);
  } else if (health.process_count > 0) {
    lks_finding_add(d, LKS_FINDING_WARNING, "health", "wait for them, or use another GPU",
                    "%d other process%s hold%s memory on gpu:%d: %s", health.process_count,
                    health.process_count == 1 ? "" : "es", health.process_count == 1 ? "s" : "",
                    choice->ordinal, others.data != NULL ? others.data : "");
  } else {
    lks_finding_add(d, LKS_FINDING_GOOD, "health", NULL, "no memory error, nobody else on it%s%s%s",
                    health.mig ? "; a MIG slice" : "", health.parent[0] != '\0' ? " of " : "",
                    health.parent);
  }
  lks_text_free(&others);
}

static void check_code(lks_device_choice *choice, lks_diagnosis *d) {
  lks_error error;
  const char *has = lks_module_find(choice->backend)->module->architectures;
  if (lks_device_try(choice, &error) != LKS_OK) {
    const size_t used = strlen(error.what);
    if (choice->class_ == LKS_CLASS_CODE) {
      (void)snprintf(error.what + used, sizeof error.what - used,
                     "; the device is of compute capability %d.%d, the module has code for %.200s",
                     choice->gpu.major, choice->gpu.minor, has);
    }
    lks_finding_error(d, "code", choice->class_, &error);
  } else {
    lks_finding_add(d, LKS_FINDING_GOOD, "code", NULL, "the module has code for %s and runs", has);
  }
}

static void check_product(lks_device_choice *choice, lks_diagnosis *d) {
  float c[4];
  lks_error error;
  char words[256];
  if (lks_device_product_known(choice, c, &error) != LKS_OK) {
    lks_finding_error(d, "product", choice->class_, &error);
    return;
  }
  lks_finding_add(d, LKS_FINDING_GOOD, "product", NULL,
                  "on gpu:%d [[1, 2], [3, 4]] x [[5, 6], [7, 8]] = [[%g, %g], [%g, %g]]",
                  choice->ordinal, (double)c[0], (double)c[1], (double)c[2], (double)c[3]);
  if (lks_device_product_compare(choice, words, sizeof words, &error) != LKS_OK) {
    lks_finding_error(d, "compare", choice->class_, &error);
  } else {
    lks_finding_add(d, LKS_FINDING_GOOD, "compare", NULL, "on gpu:%d %s", choice->ordinal, words);
  }
}

/* ---- all ranks */

static void fill_sum(const lks_world *world, bool right, double seconds, lks_diagnosis *d) {
  const double bytes = SUM_FLOATS * sizeof(float);
  const double moved = 2.0 * (world->size - 1) / world->size * bytes;
  char size[32], rate[32];
  if (!right) {
    lks_finding_add(d, LKS_FINDING_BROKEN, "sum",
                    "set NCCL_P2P_DISABLE=1 and see whether it goes away; tell the administrator",
                    "a sum over %d ranks by NCCL is wrong", world->size);
    lks_finding_class(d, LKS_CLASS_COMMUNICATION);
  } else if (world->size == 1) {
    lks_finding_add(d, LKS_FINDING_GOOD, "sum", NULL, "NCCL works for one rank");
  } else {
    lks_finding_add(d, LKS_FINDING_GOOD, "sum", NULL,
                    "over %d ranks by NCCL, values right: %s in %.3g ms, %s/s", world->size,
                    lks_format_bytes(size, bytes), seconds * 1e3,
                    lks_format_bytes(rate, moved / seconds));
  }
}

/* NCCL's id by rank 0, then the sum; a rank that cannot make the id stops all. Collective. */
static lks_status check_sum(lks_world *world, const lks_device_choice *choice, lks_diagnosis *d,
                            lks_error *err) {
  lks_status st = LKS_OK;
  struct {
    int code;
    unsigned char id[128];
  } first = {0};
  bool right = false;
  double seconds = 0.0;
  lks_gpu_failure failure = {.ordinal = choice->ordinal};
  if (world->rank == 0) {
    first.code = ops_of(choice)->collective_id(first.id, &failure);
    if (first.code != 0) {
      add_failure(d, "sum", &failure);
    }
  }
  TRY(lks_world_broadcast(world, &first, sizeof first, 0, err));
  if (first.code != 0) {
    goto cleanup;
  }
  if (ops_of(choice)->collective(choice->ordinal, first.id, world->rank, world->size, SUM_FLOATS,
                                 SUM_REPEATS, &right, &seconds, &failure) != 0) {
    add_failure(d, "sum", &failure);
  } else {
    fill_sum(world, right, seconds, d);
  }
cleanup:
  return st;
}

/* True where no rank's chain is broken so far. Collective. */
static lks_status all_usable(lks_world *world, const lks_diagnosis *d, bool *all, lks_error *err) {
  lks_status st = LKS_OK;
  int mine = d->usable ? 1 : 0, least = 0;
  TRY_MPI(MPI_Allreduce(&mine, &least, 1, MPI_INT, MPI_MIN, world->comm));
  *all = least == 1;
cleanup:
  return st;
}

static lks_status walk(lks_world *world, const lks_device_options *options, lks_diagnosis *d,
                       lks_error *err) {
  lks_status st = LKS_OK;
  bool all = false;
  lks_error error;
  lks_device_choice choice;
  lks_device_options asked = *options;
  asked.kind = LKS_DEVICE_GPU;
  lks_diagnose_system(d, true);
  TRY(all_usable(world, d, &all, err));
  if (!all) {
    goto cleanup;
  }
  lks_error_clear(&error);
  if (lks_device_place(world, &asked, &choice, &error) != LKS_OK) {
    lks_finding_error(d, "place", choice.class_, &error);
    goto cleanup;
  }
  check_place(&choice, d);
  static void (*const links[])(lks_device_choice *, lks_diagnosis *) = {check_health, check_code,
                                                                        check_product};
  for (size_t i = 0; i < sizeof links / sizeof *links && d->usable; ++i) {
    links[i](&choice, d);
    lks_world_beat(world);
  }
  TRY(all_usable(world, d, &all, err));
  if (all) {
    TRY(check_sum(world, &choice, d, err));
  }
cleanup:
  return st;
}

lks_status lks_diagnose(lks_world *world, const lks_device_options *options, lks_diagnosis **out,
                        lks_error *err) {
  lks_status st = LKS_OK;
  lks_diagnosis *mine = calloc(1, sizeof *mine), *all = NULL;
  *out = NULL;
  if (mine == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for the diagnosis of %d ranks",
                  world->size);
  }
  TRY(lks_agree(world, st, err));
  TRY(walk(world, options, mine, err));
  mine->rank = world->rank;
  memcpy(mine->host, world->host, sizeof mine->host);
  all = malloc((size_t)world->size * sizeof *all);
  st = all == NULL ? lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for the diagnosis of all")
                   : LKS_OK;
  TRY(lks_agree(world, st, err));
  TRY(lks_world_gather(world, mine, sizeof *mine, all, err));
  *out = all;
  all = NULL;
cleanup:
  free(mine);
  free(all);
  return st;
}
