/* lockstep devices: a row a rank and device. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/devices.h"
#include "device/listing.h"
#include "device/product.h"

/* ---- text */

static void print_cpu(const lks_device_row *row, lks_text *out) {
  char total[32], left[32];
  lks_text_add(out, "  %-7s %s, %d core%s (%s), %d thread%s, %s free of %s; %s\n", "cpu", row->name,
               row->core_count, row->core_count == 1 ? "" : "s", row->cores, row->threads,
               row->threads == 1 ? "" : "s",
               row->memory_free < 0 ? "unknown" : lks_format_bytes(left, (double)row->memory_free),
               lks_format_bytes(total, (double)row->memory_total), row->library);
}

static void print_gpu(const lks_device_row *row, lks_text *out) {
  char total[32], left[32], label[32];
  (void)snprintf(label, sizeof label, "gpu:%d", row->ordinal);
  lks_text_add(out, "  %-7s %s, %s, %s, compute capability %s, %s free of %s, %d SMs", label,
               row->name, row->uuid, row->pci_bus_id, row->compute_capability,
               row->memory_free < 0 ? "unknown" : lks_format_bytes(left, (double)row->memory_free),
               lks_format_bytes(total, (double)row->memory_total), row->sm_count);
  if (row->numa_node >= 0) {
    lks_text_add(out, ", NUMA node %d", row->numa_node);
  }
  lks_text_add(out, "\n  %-7s driver %s, CUDA runtime %s, cuBLAS %s, NCCL %s\n", "", row->driver,
               row->cuda_runtime, row->cublas, row->nccl);
}

static void print_rows(const lks_listing *listing, lks_text *out) {
  int rank = -1;
  for (int64_t i = 0; i < listing->count; ++i) {
    const lks_device_row *row = &listing->rows[i];
    if (row->rank != rank) {
      lks_text_add(out, "rank %d on %s\n", row->rank, row->host);
      rank = row->rank;
    }
    if (row->ordinal < 0) {
      print_cpu(row, out);
    } else {
      print_gpu(row, out);
    }
  }
}

/* What fails beside GPUs that work: where none does, the system's chain says more. */
static void print_failures(const lks_listing *listing, lks_text *out) {
  for (int64_t i = 0; i < listing->failure_count && listing->gpus > 0; ++i) {
    const lks_failure_row *failure = &listing->failures[i];
    lks_text_add(out, "rank %d on %s: %s: %s; %s\n", failure->rank, failure->host, failure->subject,
                 failure->words, failure->advice);
  }
}

/* ---- where ranks would run */

typedef struct seat {
  int rank;
  char host[64], label[32], name[128];
} seat;

static const lks_field seat_fields[] = {LKS_FIELD(seat, rank, "rank", LKS_FIELD_INT, NULL),
                                        LKS_FIELD(seat, host, "host", LKS_FIELD_TEXT, NULL),
                                        LKS_FIELD(seat, label, "device", LKS_FIELD_TEXT, NULL),
                                        LKS_FIELD(seat, name, "name", LKS_FIELD_TEXT, NULL),
                                        {0}};

static lks_status gather_seats(const lks_devices_request *request, seat **seats, int64_t *count,
                               char *note, size_t size, lks_error *err) {
  lks_status st = LKS_OK;
  lks_world *world = request->world;
  lks_device_choice choice;
  void *all = NULL;
  seat mine = {.rank = world->rank};
  TRY(lks_device_choose(world, &request->options, &choice, err));
  memcpy(mine.host, world->host, sizeof mine.host);
  (void)lks_device_label(&choice, mine.label);
  (void)snprintf(mine.name, sizeof mine.name, "%.127s", choice.gpu.name);
  (void)snprintf(note, size, "%s", choice.note);
  TRY(lks_listing_gather(world, &mine, 1, sizeof mine, &all, count, err));
  *seats = all;
cleanup:
  return st;
}

static void print_seats(const seat *seats, int64_t count, const char *note, lks_text *out) {
  for (int64_t i = 0; i < count; ++i) {
    lks_text_add(out, "rank %d on %s takes %s%s%s\n", seats[i].rank, seats[i].host, seats[i].label,
                 seats[i].name[0] != '\0' ? ", " : "", seats[i].name);
  }
  if (note[0] != '\0') {
    lks_text_add(out, "note: %s\n", note);
  }
}

/* ---- both */

static json_t *make_json(const lks_listing *listing, const lks_diagnosis *system, const seat *seats,
                         int64_t seat_count) {
  json_t *found = listing->gpus == 0 ? lks_findings_json(system) : json_null();
  return json_pack(
      "{s:i, s:o, s:o, s:o, s:o}", "gpus", listing->gpus, "devices",
      lks_fields_json_all(lks_device_fields, listing->rows, sizeof *listing->rows, listing->count),
      "errors",
      lks_fields_json_all(lks_failure_fields, listing->failures, sizeof *listing->failures,
                          listing->failure_count),
      "system", found, "places",
      lks_fields_json_all(seat_fields, seats, sizeof *seats, seat_count));
}

static lks_status print(const lks_devices_request *request, const lks_listing *listing,
                        const seat *seats, int64_t seat_count, const char *note, lks_error *err) {
  lks_status st = LKS_OK;
  lks_text text = {0};
  lks_diagnosis *system = calloc(1, sizeof *system);
  json_t *json = NULL;
  TRY_ALLOC(system);
  if (listing->gpus == 0) {
    lks_diagnose_system(system, false);
  }
  if (request->json) {
    json = make_json(listing, system, seats, seat_count);
    TRY_ALLOC(json);
  } else {
    print_rows(listing, &text);
    print_failures(listing, &text);
    lks_text_add(&text, "Num GPUs Available: %d\n", listing->gpus);
    lks_findings_print(system, &text);
    print_seats(seats, seat_count, note, &text);
  }
  TRY(lks_devices_print(&text, json, err));
cleanup:
  free(system);
  lks_text_free(&text);
  return st;
}

lks_status lks_devices_list(const lks_devices_request *request, lks_error *err) {
  lks_status st = LKS_OK;
  lks_listing listing = {0};
  seat *seats = NULL;
  int64_t seat_count = 0;
  char note[256] = "";
  TRY(lks_listing_make(request->world, &listing, err));
  if (request->place) {
    TRY(gather_seats(request, &seats, &seat_count, note, sizeof note, err));
  }
  st = request->world->rank == 0 ? print(request, &listing, seats, seat_count, note, err) : LKS_OK;
  TRY(lks_agree(request->world, st, err));
cleanup:
  free(seats);
  lks_listing_free(&listing);
  return st;
}
