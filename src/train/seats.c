/* See seats.h. */
#include "train/seats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/module.h"

/* More lines than this nobody reads. */
enum { MOST_LINES = 64 };

static lks_seat my_seat(const lks_run *run) {
  const lks_world *world = run->world;
  const lks_backend *backend = &run->backend;
  lks_seat seat = {
      .threads = world->threads, .cores = world->cores, .ordinal = run->device.ordinal};
  memcpy(seat.host, world->host, sizeof seat.host);
  if (seat.ordinal >= 0) {
    const lks_module_found *found = lks_module_find(run->device.backend);
    lks_gpu_failure failure;
    if (found->state != LKS_MODULE_LOADED ||
        found->module->gpu->count(&seat.visible, &failure) != 0) {
      seat.visible = 1; /* its own */
    }
    (void)snprintf(seat.gpu, sizeof seat.gpu, "%.127s", run->device.gpu.name);
    (void)snprintf(seat.uuid, sizeof seat.uuid, "%s", run->device.gpu.uuid);
  }
  if (backend->ops->memory != NULL) {
    seat.planned = true;
    backend->ops->memory(backend->state, &seat.memory);
  }
  return seat;
}

lks_status lks_seats_gather(const lks_run *run, lks_seat **seats, lks_error *err) {
  lks_status st = LKS_OK;
  lks_world *world = run->world;
  const lks_seat mine = my_seat(run);
  *seats = malloc((size_t)world->size * sizeof **seats);
  if (*seats == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for %d ranks", world->size);
  }
  TRY(lks_agree(world, st, err));
  TRY(lks_world_gather(world, &mine, sizeof mine, *seats, err));
cleanup:
  return st;
}

/* The first seat after `from` on another host, in rank order. */
static int next_host(const lks_seat *seats, int count, int from) {
  int next = from;
  while (next < count && strcmp(seats[next].host, seats[from].host) == 0) {
    ++next;
  }
  return next;
}

void lks_seats_hosts(const lks_seat *seats, int count, lks_text *out) {
  for (int i = 0, next = 0; i < count; i = next) {
    next = next_host(seats, count, i);
    lks_text_add(out, "%s%s x %d", i > 0 ? ", " : "", seats[i].host, next - i);
  }
}

void lks_seats_uuids(const lks_seat *seats, int count, lks_text *out) {
  for (int i = 0; i < count; ++i) {
    if (seats[i].ordinal >= 0) {
      lks_text_add(out, "%s%s", out->length > 0 ? ", " : "", seats[i].uuid);
    }
  }
}

void lks_seats_idle(const lks_seat *seats, int count, lks_text *out) {
  for (int i = 0; i < count; ++i) {
    int visible = 0, used = 0;
    bool first = true;
    for (int k = 0; k < count; ++k) {
      if (strcmp(seats[k].host, seats[i].host) == 0) {
        first = first && k >= i;
        used += seats[k].ordinal >= 0;
        visible = seats[k].visible > visible ? seats[k].visible : visible;
      }
    }
    if (first && visible > used) {
      lks_text_add(out, "%s%d on %s", out->length > 0 ? ", " : "", visible - used, seats[i].host);
    }
  }
}

/* The rank that takes most: the others' plans are the same, or hold less. */
static const lks_memory_plan *largest(const lks_seat *seats, int count) {
  const lks_memory_plan *most = &seats[0].memory;
  for (int i = 1; i < count; ++i) {
    most = seats[i].memory.total > most->total ? &seats[i].memory : most;
  }
  return most;
}

static void print_memory(const lks_memory_plan *plan) {
  const struct {
    const char *name;
    int64_t bytes;
  } parts[] = {{"parameters", plan->parameters},
               {"gradients", plan->gradients},
               {"optimizer", plan->slots},
               {"activations", plan->activations},
               {"data", plan->data},
               {"workspace", plan->workspace}};
  char bytes[32];
  (void)printf("Memory       a rank:");
  for (size_t i = 0; i < sizeof parts / sizeof *parts; ++i) {
    (void)printf("%s %s %s", i > 0 ? "," : "", parts[i].name,
                 lks_format_bytes(bytes, (double)parts[i].bytes));
  }
  (void)printf("; %s", lks_format_bytes(bytes, (double)plan->total));
  (void)printf(" of the device's %s", lks_format_bytes(bytes, (double)plan->device_total));
  if (plan->limit > 0) {
    (void)printf(", limit %s", lks_format_bytes(bytes, (double)plan->limit));
  }
  (void)printf("\n");
}

void lks_seats_print(const lks_seat *seats, int count) {
  lks_text idle = {0};
  char before[32], after[32];
  for (int i = 0; i < count && i < MOST_LINES; ++i) {
    const lks_seat *seat = &seats[i];
    if (seat->ordinal < 0) {
      continue;
    }
    (void)printf("  rank %-4d %-16s GPU %d, %s, %s", i, seat->host, seat->ordinal, seat->gpu,
                 seat->uuid);
    if (seat->planned) {
      (void)printf("; free %s, then %s", lks_format_bytes(before, (double)seat->memory.free_before),
                   lks_format_bytes(after, (double)seat->memory.free_after));
    }
    (void)printf("\n");
  }
  lks_seats_idle(seats, count, &idle);
  if (count > MOST_LINES && seats[0].ordinal >= 0) {
    (void)printf("  and %d ranks more\n", count - MOST_LINES);
  }
  if (idle.length > 0) {
    (void)printf("Idle GPUs    %s\n", idle.data);
  }
  if (seats[0].planned) {
    print_memory(largest(seats, count));
  }
  lks_text_free(&idle);
}
