/* Gathering a device report. */
#include "train/device_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/links.h"
#include "device/listing.h"

/* An NCCL communicator of two takes up to some hundred MiB for a moment. */
#define LINK_HEADROOM ((int64_t)1 << 30)

enum { MOST_CHOICES = 64 };

/* ---- one rank's part */

/* Asked for, in the configuration's words. */
static void put_asked(const lks_device_options *options, char *out, size_t size) {
  static const char *const kinds[] = {
      [LKS_DEVICE_AUTO] = "auto", [LKS_DEVICE_CPU] = "cpu", [LKS_DEVICE_GPU] = "gpu"};
  char ordinal[32] = "", limit[48] = "";
  if (options->ordinal >= 0) {
    (void)snprintf(ordinal, sizeof ordinal, ":%" PRId64, options->ordinal);
  }
  if (options->memory_limit > 0) {
    (void)snprintf(limit, sizeof limit, ", at most %" PRId64 " bytes", options->memory_limit);
  }
  (void)snprintf(out, size, "%s%s, memory %s%s", kinds[options->kind], ordinal,
                 options->memory_growth ? "as needed" : "at once", limit);
}

static bool own_memory(const lks_world *world, const lks_backend *backend, lks_memory_row *row) {
  lks_memory_plan plan = {0};
  if (backend == NULL || backend->ops->memory == NULL) {
    return false;
  }
  backend->ops->memory(backend->state, &plan);
  *row = (lks_memory_row){.rank = world->rank,
                          .parameters = plan.parameters,
                          .gradients = plan.gradients,
                          .slots = plan.slots,
                          .activations = plan.activations,
                          .data = plan.data,
                          .workspace = plan.workspace,
                          .total = plan.total,
                          .limit = plan.limit,
                          .device_total = plan.device_total,
                          .free_before = plan.free_before,
                          .free_after = plan.free_after};
  return true;
}

static int64_t own_algorithms(const lks_world *world, const lks_backend *backend,
                              lks_algorithm_row rows[MOST_CHOICES]) {
  lks_choice_made made[MOST_CHOICES];
  if (backend == NULL || backend->ops->choices == NULL) {
    return 0;
  }
  int count = backend->ops->choices(backend->state, made, MOST_CHOICES);
  count = count < MOST_CHOICES ? count : MOST_CHOICES;
  for (int i = 0; i < count; ++i) {
    rows[i] = (lks_algorithm_row){.rank = world->rank,
                                  .seconds = made[i].seconds > 0.0 ? made[i].seconds : (double)NAN};
    (void)snprintf(rows[i].what, sizeof rows[i].what, "%.63s", made[i].what);
    (void)snprintf(rows[i].chosen, sizeof rows[i].chosen, "%.95s", made[i].chosen);
  }
  return count;
}

/* What keeps this rank from a GPU: the error given, else what looking for one gives; nothing where
 * the CPU was asked for. */
static int64_t own_failures(const lks_world *world, const lks_device_options *options,
                            const lks_device_choice *choice, const lks_error *failure,
                            lks_failure_row *row) {
  lks_probe probe;
  lks_error error;
  if (failure != NULL) {
    lks_listing_failure(world, "device", lks_device_class_name(choice->class_), failure, row);
    return 1;
  }
  if (options->kind == LKS_DEVICE_CPU || choice->ordinal >= 0 ||
      lks_probe_gpus(&probe, &error) == LKS_OK) {
    return 0;
  }
  lks_listing_failure(world, probe.ops == NULL ? "module cuda" : "devices",
                      lks_device_class_name(probe.class_), &error, row);
  return 1;
}

/* ---- all ranks' */

/* Whether a moment's memory is left on every GPU. Collective. */
static lks_status room_for_links(lks_world *world, const lks_backend *backend, bool *room,
                                 lks_error *err) {
  lks_status st = LKS_OK;
  lks_memory_row memory;
  int mine = 1, all = 0;
  if (backend != NULL) {
    mine = own_memory(world, backend, &memory) && memory.free_after >= LINK_HEADROOM;
  }
  TRY_MPI(MPI_Allreduce(&mine, &all, 1, MPI_INT, MPI_MIN, world->comm));
  *room = all == 1;
cleanup:
  return st;
}

#define GATHER(rows, mine, field, count)                                                           \
  do {                                                                                             \
    void *all_ = NULL;                                                                             \
    TRY(lks_listing_gather(world, rows, mine, sizeof *(rows), &all_, &report->count, err));        \
    report->field = all_;                                                                          \
  } while (0)

static lks_status gather(lks_world *world, const lks_device_options *options,
                         const lks_device_choice *choice, const lks_backend *backend,
                         const lks_error *failure, lks_device_report *report, lks_error *err) {
  lks_status st = LKS_OK;
  lks_device_row device;
  lks_memory_row memory;
  lks_failure_row failed;
  bool room = false;
  lks_algorithm_row *algorithms = malloc(MOST_CHOICES * sizeof *algorithms);
  if (algorithms == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for the device report");
  }
  TRY(lks_agree(world, st, err));
  lks_listing_choice_row(world, choice, &device);
  GATHER(&device, 1, devices, device_count);
  GATHER(&memory, own_memory(world, backend, &memory) ? 1 : 0, memory, memory_count);
  GATHER(algorithms, own_algorithms(world, backend, algorithms), algorithms, algorithm_count);
  GATHER(&failed, own_failures(world, options, choice, failure, &failed), failures, failure_count);
  TRY(room_for_links(world, backend, &room, err));
  TRY(lks_links_measure(world, choice, room, &report->links, &report->link_count, err));
cleanup:
  free(algorithms);
  return st;
}

/* "2 x cuda on 1 node". */
static void put_got(const lks_world *world, const lks_device_choice *choice, char *out,
                    size_t size) {
  (void)snprintf(out, size, "%d x %s on %d node%s", world->size, choice->backend, world->nodes,
                 world->nodes == 1 ? "" : "s");
}

lks_status lks_device_report_write(const char *path, lks_world *world,
                                   const lks_device_options *options,
                                   const lks_device_choice *choice, const lks_backend *backend,
                                   const lks_error *failure, lks_error *err) {
  lks_status st = LKS_OK;
  lks_device_report report = {.ranks = world->size};
  (void)lks_timestamp(report.created);
  put_asked(options, report.asked, sizeof report.asked);
  put_got(world, choice, report.got, sizeof report.got);
  TRY(gather(world, options, choice, backend, failure, &report, err));
  st = world->rank == 0 ? lks_device_report_store(&report, path, err) : LKS_OK;
  TRY(lks_agree(world, st, err));
cleanup:
  free(report.devices);
  free(report.links);
  free(report.memory);
  free(report.algorithms);
  free(report.failures);
  return st;
}
