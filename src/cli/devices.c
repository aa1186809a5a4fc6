/* lockstep devices: what there is, why there is nothing, and the report of it. */
#include "cli/devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/exclude.h"
#include "store/files.h"
#include "train/device_report.h"

static const lks_flag flags[] = {
    {"--device", "DEVICE", offsetof(lks_flags, device),
     "auto, cpu, gpu or gpu:0: where each rank would run"},
    LKS_FLAG_EXCLUDE_HOST,
    {"--json", NULL, offsetof(lks_flags, json), "one JSON object instead of text"},
    {0}};

/* "gpu:1" as in a configuration. */
static lks_status read_device(const char *text, lks_device_options *out, lks_error *err) {
  static const char *const names[] = {
      [LKS_DEVICE_AUTO] = "auto", [LKS_DEVICE_CPU] = "cpu", [LKS_DEVICE_GPU] = "gpu"};
  lks_status st = LKS_OK;
  *out = (lks_device_options){
      .kind = LKS_DEVICE_AUTO, .ordinal = -1, .memory_growth = true, .threads = -1};
  if (text == NULL) {
    goto cleanup;
  }
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    if (strcmp(text, names[i]) == 0) {
      out->kind = (int)i;
      goto cleanup;
    }
  }
  if (strncmp(text, "gpu:", 4) != 0 || !lks_parse_int64(text + 4, &out->ordinal) ||
      out->ordinal < 0 || out->ordinal > 1023) {
    FAIL(LKS_USAGE, "write auto, cpu, gpu or gpu:0", "--device: there is no device '%s'", text);
  }
  out->kind = LKS_DEVICE_GPU;
cleanup:
  return st;
}

static lks_status check_words(const lks_cli *cli, lks_error *err) {
  static const char *const words[] = {"diagnose", "product", "report", NULL};
  lks_status st = LKS_OK;
  const char *word = cli->operand_count > 0 ? cli->operands[0] : NULL;
  if (word == NULL) {
    goto cleanup;
  }
  bool known = false;
  for (const char *const *at = words; *at != NULL; ++at) {
    known = known || strcmp(*at, word) == 0;
  }
  const bool file = strcmp(word, "report") == 0;
  if (!known) {
    const char *nearest = lks_nearest(word, words);
    st = lks_fail(err, LKS_USAGE, "use devices diagnose, devices product or devices report FILE.h5",
                  "devices: there is nothing called '%s'", word);
    if (nearest != NULL) {
      lks_advise(err, "did you mean devices %s?", nearest);
    }
  } else if (file != (cli->operand_count == 2)) {
    st = lks_fail(err, LKS_USAGE, "usage: lockstep devices report FILE.h5", "devices %s: %s", word,
                  file ? "the file to write is missing" : "there are too many arguments");
  }
cleanup:
  return st;
}

/* A device that fails is what the report is to hold: no error of this command. */
static lks_status write_report(const lks_devices_request *request, const char *path,
                               lks_error *err) {
  lks_status st = LKS_OK;
  lks_world *world = request->world;
  const char *const inputs[] = {NULL};
  lks_device_choice choice;
  lks_error failure;
  lks_error_clear(&failure);
  st = world->rank == 0 ? lks_file_replaceable(path, LKS_CONTENTS_DEVICES, inputs, err) : LKS_OK;
  TRY(lks_agree(world, st, err));
  lks_world_phase(world, "device");
  const lks_status chosen = lks_device_choose(world, &request->options, &choice, &failure);
  if (chosen != LKS_OK) {
    if (!world->agreed) {
      *err = failure;
      return chosen;
    }
    choice.backend = "cpu";
    choice.ordinal = -1;
  }
  TRY(lks_device_report_write(path, world, &request->options, &choice, NULL,
                              chosen != LKS_OK ? &failure : NULL, err));
  if (world->rank == 0) {
    char line[2048];
    lks_error_line(&failure, line, sizeof line);
    if (chosen != LKS_OK) {
      (void)fprintf(stderr, "lockstep: warning: %s\n", line);
    }
    (void)printf("%s: devices of %d rank%s, %d x %s\n", path, world->size,
                 world->size == 1 ? "" : "s", world->size, choice.backend);
  }
cleanup:
  return st;
}

lks_status lks_devices_print(lks_text *text, json_t *json, lks_error *err) {
  lks_status st = LKS_OK;
  char *line = json != NULL ? json_dumps(json, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
  if (text->failed || (json != NULL && line == NULL)) {
    FAIL(LKS_NO_MEMORY, NULL, "out of memory for the list of devices");
  }
  (void)printf("%s%s", line != NULL ? line : text->data, line != NULL ? "\n" : "");
  (void)fflush(stdout);
cleanup:
  free(line);
  json_decref(json);
  return st;
}

static lks_status run(lks_cli *cli, lks_error *err) {
  lks_status st = LKS_OK;
  lks_devices_request request = {
      .world = cli->world, .place = cli->flags.device != NULL, .json = cli->flags.json};
  const char *word = cli->operand_count > 0 ? cli->operands[0] : "";
  st = check_words(cli, err);
  st = st == LKS_OK ? read_device(cli->flags.device, &request.options, err) : st;
  TRY(lks_agree(cli->world, st, err));
  TRY(lks_exclude_hosts(cli->world, cli->flags.exclude_host, err));
  TRY(lks_world_place_threads(cli->world, 0, err));
  lks_world_phase(cli->world, "device");
  if (strcmp(word, "diagnose") == 0) {
    TRY(lks_devices_diagnose(&request, err));
  } else if (strcmp(word, "product") == 0) {
    TRY(lks_devices_product(&request, err));
  } else if (strcmp(word, "report") == 0) {
    TRY(write_report(&request, cli->operands[1], err));
  } else {
    TRY(lks_devices_list(&request, err));
  }
cleanup:
  return st;
}

const lks_command lks_command_devices = {
    .name = "devices",
    .operands = "[diagnose | product | report FILE.h5]",
    .help = "list the devices that each rank sees; find out why there is no GPU",
    .more =
        "diagnose follows the chain from the PCI bus to a sum over ranks up to its first broken\n"
        "link, says what to do there, and exits 0 where a GPU is usable, else 4. product computes\n"
        "[[1, 2], [3, 4]] x [[5, 6], [7, 8]] on the device that --device names. report writes\n"
        "what each rank sees and how fast ranks reach each other to HDF5.",
    .flags = flags,
    .least = 0,
    .most = 2,
    .run = run};
