/* inspect: the datasets of any HDF5 file, and the variables of one that Keras wrote. */
#include <inttypes.h>
#include <string.h>

#include "cli/inspect.h"

/* Widest name, within reason. */
static int name_width(const lks_contents_list *list) {
  int width = 13;
  for (int i = 0; i < list->count; ++i) {
    const int length = (int)strlen(list->items[i].name);
    width = length > width && length <= 40 ? length : width;
  }
  return width;
}

static void report_list(const lks_contents_list *list, const char *key, lks_report *report) {
  json_t *items = lks_report_array(report, report->json, key);
  const int width = name_width(list);
  for (int i = 0; i < list->count; ++i) {
    lks_report_dataset(report, lks_report_append(report, items), &list->items[i], width);
  }
  if (list->cut) {
    lks_report_set(report, report->json, "cut", json_true());
    lks_text_add(&report->text, "  ... and more, not listed\n");
  }
}

lks_status lks_inspect_listing(lks_h5 *file, lks_arena *arena, lks_report *report, lks_error *err) {
  lks_status st = LKS_OK;
  lks_contents_list list;
  TRY(lks_contents_walk(file, "", arena, &list, err));
  lks_report_count(report, report->json, "count", "datasets", list.count);
  report_list(&list, "datasets", report);
cleanup:
  return st;
}

/* Where a Keras file keeps its weights; "" is the root. */
static const char *weights_root(lks_h5 *file, lks_contents contents) {
  if (contents == LKS_CONTENTS_KERAS_V3) {
    return "/layers";
  }
  return lks_h5_exists(file, "/model_weights") ? "/model_weights" : "";
}

static bool is_optimizers(const char *name) {
  return strncmp(name, "optimizer_weights/", strlen("optimizer_weights/")) == 0;
}

/* Keeps the weights of layers: the root of the legacy layout may hold the optimizer's too. */
static void drop_optimizer(lks_contents_list *list) {
  int kept = 0;
  for (int i = 0; i < list->count; ++i) {
    if (!is_optimizers(list->items[i].name)) {
      list->items[kept++] = list->items[i];
    }
  }
  list->count = kept;
}

static int64_t count_values(const lks_contents_list *list) {
  int64_t values = 0;
  for (int i = 0; i < list->count; ++i) {
    int64_t count = list->items[i].readable ? 1 : 0;
    for (int d = 0; d < list->items[i].info.rank; ++d) {
      count *= list->items[i].info.shape[d];
    }
    values += count;
  }
  return values;
}

lks_status lks_inspect_keras(lks_h5 *file, lks_contents contents, lks_arena *arena,
                             lks_report *report, lks_error *err) {
  lks_status st = LKS_OK;
  lks_contents_list list;
  lks_texts optimizer;
  char *version = NULL, *config = NULL;
  const char *root = weights_root(file, contents);
  TRY(lks_h5_attr_read_text(file, root[0] != '\0' ? root : "/", "keras_version", arena, &version,
                            err));
  TRY(lks_h5_attr_read_text(file, "/", "model_config", arena, &config, err));
  TRY(lks_h5_members(file, "/optimizer/vars", arena, &optimizer, err));
  TRY(lks_contents_walk(file, root, arena, &list, err));
  drop_optimizer(&list);
  lks_report_text(report, report->json, "layout", "layout",
                  contents == LKS_CONTENTS_KERAS_V3 ? "v3" : "legacy");
  lks_report_text(report, report->json, "keras_version", "keras", version);
  lks_report_set(report, report->json, "has_model", json_boolean(config != NULL));
  lks_report_line(report, "model", "%s",
                  config != NULL ? "described (model_config)" : "not described: weights only");
  lks_report_set(report, report->json, "optimizer_variables", json_integer(optimizer.count));
  lks_report_line(report, "optimizer", "%d variables", optimizer.count);
  lks_report_count(report, report->json, "parameters", "parameters", count_values(&list));
  report_list(&list, "variables", report);
cleanup:
  return st;
}
