/* lockstep inspect: what a file holds, told by its content. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/inspect.h"

static const lks_flag flags[] = {
    {"--json", NULL, offsetof(lks_flags, json), "one JSON object instead of text"}, {0}};

/* What the kinds are called: in --json, and in text. */
static const struct {
  const char *key, *words;
} kinds[] = {[LKS_CONTENTS_OTHER] = {"hdf5", "HDF5 file"},
             [LKS_CONTENTS_CHECKPOINT] = {"checkpoint", "checkpoint"},
             [LKS_CONTENTS_KERAS_V3] = {"keras", "weights that Keras saved"},
             [LKS_CONTENTS_KERAS_LEGACY] = {"keras", "Keras file of the legacy layout"},
             [LKS_CONTENTS_HISTORY] = {"history", "history of a run"},
             [LKS_CONTENTS_PREDICTIONS] = {"predictions", "predictions"},
             [LKS_CONTENTS_DEVICES] = {"devices", "device report"}};

static void begin(const char *path, lks_contents contents, lks_report *report) {
  struct stat about;
  char bytes[32];
  const int64_t size = stat(path, &about) == 0 ? (int64_t)about.st_size : 0;
  lks_report_string(report, report->json, "file", path);
  lks_report_set(report, report->json, "bytes", json_integer((json_int_t)size));
  lks_report_string(report, report->json, "kind", kinds[contents].key);
  lks_text_add(&report->text, "%s: %s, %s\n", path, kinds[contents].words,
               lks_format_bytes(bytes, (double)size));
}

static lks_status describe(lks_h5 *file, lks_contents contents, lks_arena *arena,
                           lks_report *report, lks_error *err) {
  switch (contents) {
  case LKS_CONTENTS_CHECKPOINT:
    return lks_inspect_checkpoint(file, arena, report, err);
  case LKS_CONTENTS_HISTORY:
    return lks_inspect_history(file, report, err);
  case LKS_CONTENTS_PREDICTIONS:
    return lks_inspect_predictions(file, arena, report, err);
  case LKS_CONTENTS_DEVICES:
    return lks_inspect_devices(file, arena, report, err);
  case LKS_CONTENTS_KERAS_V3:
  case LKS_CONTENTS_KERAS_LEGACY:
    return lks_inspect_keras(file, contents, arena, report, err);
  case LKS_CONTENTS_OTHER:
    break;
  }
  return lks_inspect_listing(file, arena, report, err);
}

static lks_status print(const lks_report *report, bool as_json, lks_error *err) {
  lks_status st = LKS_OK;
  char *json = as_json ? json_dumps(report->json, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
  if (report->failed || report->text.failed || (as_json && json == NULL)) {
    FAIL(LKS_NO_MEMORY, NULL, "out of memory for what the file holds");
  }
  (void)printf("%s%s", as_json ? json : report->text.data, as_json ? "\n" : "");
cleanup:
  free(json);
  return st;
}

static lks_status run(lks_cli *cli, lks_error *err) {
  lks_status st = LKS_OK;
  lks_error ignored;
  lks_h5 *file = NULL;
  lks_contents contents = LKS_CONTENTS_OTHER;
  lks_report report = {.json = json_object()};
  const char *path = cli->operands[0];
  TRY_ALLOC(report.json);
  TRY(lks_contents_open(path, &file, &contents, err));
  begin(path, contents, &report);
  TRY(describe(file, contents, &cli->arena, &report, err));
  TRY(print(&report, cli->flags.json, err));
cleanup:
  if (st == LKS_DATA && contents == LKS_CONTENTS_CHECKPOINT) { /* open, so what it lacks was lost */
    err->status = st = LKS_STORAGE;
  }
  if (lks_h5_close(&file, &ignored) != LKS_OK) {
    file = NULL; /* a file that was only read loses nothing */
  }
  json_decref(report.json);
  lks_text_free(&report.text);
  return st;
}

const lks_command lks_command_inspect = {
    .name = "inspect",
    .operands = "FILE.h5 [--json]",
    .help =
        "say what a file holds: checkpoint, history, predictions, devices, data, Keras' weights",
    .more =
        "The file is recognised by its content. A checkpoint's checksum is verified first, and\n"
        "its weights_hash is computed again from the weights.",
    .flags = flags,
    .least = 1,
    .most = 1,
    .single = true,
    .run = run};
