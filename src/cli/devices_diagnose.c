/* lockstep devices diagnose, and lockstep devices product. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/devices.h"
#include "device/listing.h"
#include "device/product.h"

/* ---- findings */

static const char *const states[] = {[LKS_FINDING_GOOD] = "ok",
                                     [LKS_FINDING_UNSEEN] = "unseen",
                                     [LKS_FINDING_WARNING] = "look",
                                     [LKS_FINDING_BROKEN] = "broken"};

void lks_findings_print(const lks_diagnosis *diagnosis, lks_text *out) {
  for (int i = 0; i < diagnosis->count; ++i) {
    const lks_finding *finding = &diagnosis->findings[i];
    lks_text_add(out, "  %-7s %-10s %s\n", states[finding->state], finding->name, finding->text);
    if (finding->remedy[0] != '\0') {
      lks_text_add(out, "  %-7s %-10s to do: %s\n", "", "", finding->remedy);
    }
  }
}

json_t *lks_findings_json(const lks_diagnosis *diagnosis) {
  json_t *array = json_array();
  for (int i = 0; array != NULL && i < diagnosis->count; ++i) {
    const lks_finding *finding = &diagnosis->findings[i];
    json_t *one = json_pack(
        "{s:s, s:s, s:s?, s:s, s:s}", "link", finding->name, "state", states[finding->state],
        "class",
        finding->state == LKS_FINDING_BROKEN ? lks_device_class_name(finding->class_) : NULL,
        "text", finding->text, "to_do", finding->remedy);
    if (json_array_append_new(array, one) != 0) {
      json_decref(array);
      return NULL;
    }
  }
  return array;
}

/* Ranks whose findings are the same to the letter are told in one line. */
static bool same(const lks_diagnosis *a, const lks_diagnosis *b) {
  bool alike = a->count == b->count;
  for (int i = 0; alike && i < a->count; ++i) {
    alike = a->findings[i].state == b->findings[i].state &&
            strcmp(a->findings[i].text, b->findings[i].text) == 0;
  }
  return alike;
}

static void print_all(const lks_diagnosis *all, int size, lks_text *out) {
  for (int rank = 0; rank < size; ++rank) {
    if (rank > 0 && strcmp(all[rank].host, all[rank - 1].host) == 0 &&
        same(&all[rank], &all[rank - 1])) {
      lks_text_add(out, "rank %d on %s: as rank %d\n", rank, all[rank].host, rank - 1);
      continue;
    }
    lks_text_add(out, "rank %d on %s\n", rank, all[rank].host);
    lks_findings_print(&all[rank], out);
  }
}

static json_t *all_json(const lks_diagnosis *all, int size, bool usable) {
  json_t *ranks = json_array();
  for (int rank = 0; ranks != NULL && rank < size; ++rank) {
    json_t *one = json_pack("{s:i, s:s, s:b, s:o}", "rank", rank, "host", all[rank].host, "usable",
                            all[rank].usable, "links", lks_findings_json(&all[rank]));
    if (json_array_append_new(ranks, one) != 0) {
      json_decref(ranks);
      return NULL;
    }
  }
  return json_pack("{s:b, s:o}", "usable", usable, "ranks", ranks);
}

static lks_status print_diagnosis(const lks_devices_request *request, const lks_diagnosis *all,
                                  bool usable, lks_error *err) {
  lks_status st = LKS_OK;
  lks_text text = {0};
  json_t *json = NULL;
  if (request->json) {
    json = all_json(all, request->world->size, usable);
    TRY_ALLOC(json);
  } else {
    print_all(all, request->world->size, &text);
    lks_text_add(&text, "%s\n",
                 usable ? "Usable: every rank has a GPU that computes"
                        : "Not usable: see the broken link");
  }
  TRY(lks_devices_print(&text, json, err));
cleanup:
  lks_text_free(&text);
  return st;
}

/* The lowest rank's first broken link, as the error of all: the same on every rank. */
static lks_status fail_first(const lks_diagnosis *all, int size, lks_error *err) {
  for (int rank = 0; rank < size; ++rank) {
    const lks_finding *broken = lks_diagnosis_broken(&all[rank]);
    if (broken != NULL) {
      const lks_status st = lks_fail(err, LKS_DEVICE, broken->remedy, "%s", broken->text);
      err->rank = rank;
      (void)snprintf(err->host, sizeof err->host, "%s", all[rank].host);
      (void)snprintf(err->phase, sizeof err->phase, "%s", broken->name);
      return st;
    }
  }
  return LKS_OK;
}

lks_status lks_devices_diagnose(const lks_devices_request *request, lks_error *err) {
  lks_status st = LKS_OK;
  lks_world *world = request->world;
  lks_diagnosis *all = NULL;
  lks_error first;
  lks_error_clear(&first);
  TRY(lks_diagnose(world, &request->options, &all, err));
  const lks_status outcome = fail_first(all, world->size, &first);
  st = world->rank == 0 ? print_diagnosis(request, all, outcome == LKS_OK, err) : LKS_OK;
  TRY(lks_agree(world, st, err));
  *err = first;
  TRY(lks_agree(world, outcome, err));
cleanup:
  free(all);
  return st;
}

lks_status lks_devices_check(lks_world *world, char *words, size_t size, lks_error *err) {
  lks_status st = LKS_OK;
  lks_listing listing = {0};
  lks_diagnosis *all = NULL;
  lks_error first;
  const lks_device_options options = {.kind = LKS_DEVICE_GPU, .ordinal = -1};
  lks_error_clear(&first);
  TRY(lks_listing_make(world, &listing, err));
  if (listing.gpus == 0) {
    (void)snprintf(words, size, "no GPU: %.400s",
                   listing.failure_count > 0 ? listing.failures[0].words : "");
    goto cleanup;
  }
  (void)snprintf(words, size, "%d GPU%s, usable by every rank", listing.gpus,
                 listing.gpus == 1 ? "" : "s");
  TRY(lks_diagnose(world, &options, &all, err));
  const lks_status outcome = fail_first(all, world->size, &first);
  *err = first;
  TRY(lks_agree(world, outcome, err));
cleanup:
  free(all);
  lks_listing_free(&listing);
  return st;
}

/* ---- product */

typedef struct made {
  int rank;
  char host[64], device[32], name[128];
  double c[4];
} made;

static lks_status print_products(const lks_devices_request *request, const made *all, int64_t count,
                                 lks_error *err) {
  lks_status st = LKS_OK;
  lks_text text = {0};
  json_t *json = request->json ? json_array() : NULL;
  lks_text_add(&text, "[[1, 2], [3, 4]] x [[5, 6], [7, 8]]\n");
  for (int64_t i = 0; i < count; ++i) {
    const made *one = &all[i];
    lks_text_add(&text, "rank %d on %s, %s%s%s: [[%g, %g], [%g, %g]]\n", one->rank, one->host,
                 one->device, one->name[0] != '\0' ? " " : "", one->name, one->c[0], one->c[1],
                 one->c[2], one->c[3]);
    if (json != NULL &&
        json_array_append_new(json, json_pack("{s:i, s:s, s:s, s:s, s:[[f,f],[f,f]]}", "rank",
                                              one->rank, "host", one->host, "device", one->device,
                                              "name", one->name, "product", one->c[0], one->c[1],
                                              one->c[2], one->c[3])) != 0) {
      FAIL(LKS_NO_MEMORY, NULL, "out of memory for %lld products", (long long)count);
    }
  }
  TRY(lks_devices_print(&text, json, err));
cleanup:
  lks_text_free(&text);
  return st;
}

lks_status lks_devices_product(const lks_devices_request *request, lks_error *err) {
  lks_status st = LKS_OK;
  lks_world *world = request->world;
  lks_device_choice choice;
  float c[4] = {0};
  void *all = NULL;
  int64_t count = 0;
  made mine = {.rank = world->rank};
  TRY(lks_device_choose(world, &request->options, &choice, err));
  st = lks_device_product_known(&choice, c, err);
  TRY(lks_agree(world, st, err));
  memcpy(mine.host, world->host, sizeof mine.host);
  (void)lks_device_label(&choice, mine.device);
  (void)snprintf(mine.name, sizeof mine.name, "%.127s", choice.gpu.name);
  for (int i = 0; i < 4; ++i) {
    mine.c[i] = (double)c[i];
  }
  TRY(lks_listing_gather(world, &mine, 1, sizeof mine, &all, &count, err));
  st = world->rank == 0 ? print_products(request, all, count, err) : LKS_OK;
  TRY(lks_agree(world, st, err));
cleanup:
  free(all);
  return st;
}
