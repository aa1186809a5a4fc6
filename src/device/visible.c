/* What CUDA_VISIBLE_DEVICES lets this process see. CUDA reads it from the left, and takes no device
 * from the first entry on that names none. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "device/system.h"

/* Variables that say who hides or grants devices; for the reader, nothing is concluded. */
static void others(lks_visible *visible) {
  static const char *const names[] = {"NVIDIA_VISIBLE_DEVICES", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS",
                                      "GPU_DEVICE_ORDINAL"};
  size_t used = 0;
  for (size_t i = 0; i < sizeof names / sizeof *names && used < sizeof visible->others; ++i) {
    const char *value = getenv(names[i]);
    if (value != NULL) {
      used += (size_t)snprintf(visible->others + used, sizeof visible->others - used, "%s%s=%.40s",
                               used > 0 ? ", " : "", names[i], value);
    }
  }
}

static bool is_slice(const char *entry) {
  return strncmp(entry, "MIG-", 4) == 0;
}

/* A prefix of a UUID names a device, if only one begins with it. */
static bool known_uuid(const lks_system *system, const char *entry) {
  bool told = false;
  for (int i = 0; i < system->device_count; ++i) {
    told = told || system->devices[i].uuid[0] != '\0';
    if (strncmp(system->devices[i].uuid, entry, strlen(entry)) == 0) {
      return true;
    }
  }
  return !told;
}

/* Judges one entry; `at` is its place in the list. */
static void judge(const lks_system *system, const char *entry, int at, lks_visible *visible) {
  int64_t ordinal = 0;
  const bool number = lks_parse_int64(entry, &ordinal);
  if (number && ordinal < 0) {
    visible->state = at == 0 ? LKS_VISIBLE_NONE : visible->state;
  } else if (number && system->device_count > 0 && ordinal >= system->device_count) {
    visible->state = LKS_VISIBLE_STALE;
  } else if (strncmp(entry, "GPU-", 4) == 0 && !known_uuid(system, entry)) {
    visible->state = LKS_VISIBLE_STALE;
  } else if (is_slice(entry) && visible->slice[0] != '\0') {
    visible->state = LKS_VISIBLE_SLICES;
  } else if (is_slice(entry)) {
    (void)snprintf(visible->slice, sizeof visible->slice, "%s", entry);
  } else if (!number && strncmp(entry, "GPU-", 4) != 0) {
    visible->state = strcmp(entry, "NoDevFiles") == 0 ? LKS_VISIBLE_NONE : LKS_VISIBLE_INVALID;
  }
}

static void put_words(const char *value, const char *entry, const lks_system *system,
                      lks_visible *visible) {
  static const char *const ends[] = {
      [LKS_VISIBLE_SOME] = "",
      [LKS_VISIBLE_NONE] = ": it hides every GPU",
      [LKS_VISIBLE_INVALID] = " names no device, and hides those behind it",
      [LKS_VISIBLE_STALE] = " is not on this node",
      [LKS_VISIBLE_SLICES] = " is a second MIG slice: CUDA gives a process one",
  };
  (void)snprintf(visible->words, sizeof visible->words, "CUDA_VISIBLE_DEVICES=%.100s%s%.60s%s",
                 value, visible->state > LKS_VISIBLE_NONE ? ": " : "",
                 visible->state > LKS_VISIBLE_NONE ? entry : "", ends[visible->state]);
  if (visible->state == LKS_VISIBLE_STALE) {
    const size_t used = strlen(visible->words);
    (void)snprintf(visible->words + used, sizeof visible->words - used, ", which has %d",
                   system->device_count);
  }
}

void lks_visible_look(const lks_system *system, lks_visible *visible) {
  char copy[1024], *rest = copy, *entry = NULL;
  const char *value = getenv("CUDA_VISIBLE_DEVICES");
  *visible = (lks_visible){.state = LKS_VISIBLE_ALL};
  others(visible);
  if (value == NULL) {
    (void)snprintf(visible->words, sizeof visible->words, "CUDA_VISIBLE_DEVICES is not set");
    return;
  }
  visible->state = value[strspn(value, " ")] == '\0' ? LKS_VISIBLE_NONE : LKS_VISIBLE_SOME;
  (void)snprintf(copy, sizeof copy, "%s", value);
  for (int at = 0;
       visible->state == LKS_VISIBLE_SOME && (entry = strtok_r(rest, ", ", &rest)) != NULL; ++at) {
    judge(system, entry, at, visible);
  }
  put_words(value, entry != NULL ? entry : "", system, visible);
}
