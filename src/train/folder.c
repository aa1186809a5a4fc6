/* The run folder: taken by one run at a time, and begun anew only where nothing of others is lost.
 * Rank 0. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "train/trainer.h"

/* Names of what a run leaves; beside checkpoints/. The configuration, which says whose the others
 * are, is written first and so goes last. */
static const char *const run_files[] = {"log.jsonl", "history.h5", "model.weights.h5", "devices.h5",
                                        "config.yaml"};

static bool holds_run(const char *folder) {
  char path[4200];
  struct stat there;
  (void)snprintf(path, sizeof path, "%s/config.yaml", folder);
  if (stat(path, &there) == 0) {
    return true;
  }
  (void)snprintf(path, sizeof path, "%s/checkpoints", folder);
  return stat(path, &there) == 0;
}

lks_status lks_trainer_take_folder(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_settings *settings = trainer->settings;
  const char *folder = settings->run.folder;
  struct stat there;
  if (settings->checkpoint.resume == LKS_RESUME_OFF && !trainer->request->overwrite &&
      holds_run(folder)) {
    FAIL(LKS_CONFIG, "use --overwrite to begin anew, run.folder=NEW, or checkpoint.resume=auto",
         "%s holds a run already, and checkpoint.resume is off", folder);
  }
  trainer->made_folder = stat(folder, &there) != 0;
  TRY(lks_folder_make(folder, err));
  TRY(lks_folder_writable(folder, err));
  TRY(lks_run_lock_take(folder, &trainer->lock, err));
  if (lks_run_lock_note(trainer->lock)[0] != '\0') {
    (void)fprintf(stderr, "lockstep: warning: %s\n", lks_run_lock_note(trainer->lock));
  }
  lks_folder_sweep(folder);
cleanup:
  return st;
}

static bool is_there(const char *path) {
  struct stat there;
  return lstat(path, &there) == 0;
}

/* A regular file's bytes, of which a configuration has no more; failed: it cannot be read. */
static lks_text read_config(const char *path) {
  lks_text text = {0};
  struct stat there;
  char part[4096];
  size_t count = 0;
  FILE *file = stat(path, &there) == 0 && S_ISREG(there.st_mode) ? fopen(path, "rb") : NULL;
  while (file != NULL && text.length <= LKS_TREE_MAX_BYTES &&
         (count = fread(part, 1, sizeof part, file)) > 0) {
    lks_text_add_n(&text, part, count);
  }
  text.failed = text.failed || file == NULL || ferror(file) != 0;
  if (file != NULL) {
    (void)fclose(file);
  }
  return text;
}

/* Whether a configuration is one that a run printed: read and printed again, it is the same. People
 * leave out keys, and write comments. */
static bool is_printed(const char *path) {
  lks_text text = read_config(path);
  lks_settings *settings = NULL;
  char *printed = NULL;
  lks_error ignored;
  const bool same = !text.failed && text.length > 0 && strlen(text.data) == text.length &&
                    lks_settings_parse(text.data, path, NULL, 0, &settings, &ignored) == LKS_OK &&
                    lks_settings_print(settings, &printed, &ignored) == LKS_OK &&
                    strcmp(printed, text.data) == 0;
  free(printed);
  lks_settings_free(&settings);
  lks_text_free(&text);
  return same;
}

static bool same_file(const char *a, const char *b) {
  struct stat first, second;
  return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev &&
         first.st_ino == second.st_ino;
}

#define REMEDY "use run.folder=NEW for another run, or --overwrite to begin anew"

/* A run begun anew removes what an earlier one left: none of it may be what it reads. */
static lks_status check_not_read(const lks_settings *settings, lks_error *err) {
  lks_status st = LKS_OK;
  const char *const read[] = {settings->data.train.file, settings->data.validation.file,
                              settings->data.test.file};
  char path[4200];
  for (size_t i = 0; i < sizeof run_files / sizeof *run_files; ++i) {
    (void)snprintf(path, sizeof path, "%s/%s", settings->run.folder, run_files[i]);
    for (size_t k = 0; k < sizeof read / sizeof *read; ++k) {
      if (read[k] != NULL && same_file(path, read[k])) {
        FAIL(LKS_CONFIG, "keep it in another folder, or use run.folder=NEW",
             "%s is data of this run, and would be removed or written over by it", path);
      }
    }
  }
cleanup:
  return st;
}

lks_status lks_trainer_check_folder(const lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_settings *settings = trainer->settings;
  const bool overwrite = trainer->request->overwrite;
  const char *const told[] = {"log.jsonl", "history.h5"};
  char path[4200];
  TRY(check_not_read(settings, err));
  if (trainer->newest != NULL) {
    goto cleanup;
  }
  (void)snprintf(path, sizeof path, "%s/config.yaml", settings->run.folder);
  const bool was_run = is_there(path);
  const bool given = same_file(path, settings->path);
  if (is_there(path) && (given || !overwrite) && !is_printed(path)) {
    FAIL(LKS_CONFIG, given ? "use run.folder=NEW, or keep this file in another folder" : REMEDY,
         "%s is there, and was not written by a run: a new run would replace it", path);
  }
  (void)snprintf(path, sizeof path, "%s/model.weights.h5", settings->run.folder);
  if (is_there(path) && !overwrite) {
    FAIL(LKS_CONFIG, REMEDY,
         "%s is there, but no checkpoint to continue from: a new run would remove it", path);
  }
  for (size_t i = 0; !was_run && !overwrite && i < sizeof told / sizeof *told; ++i) {
    (void)snprintf(path, sizeof path, "%s/%s", settings->run.folder, told[i]);
    if (is_there(path)) {
      FAIL(LKS_CONFIG, REMEDY, "%s is there, but no run: a new one would replace it", path);
    }
  }
cleanup:
  return st;
}

lks_status lks_trainer_clear_folder(const lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  const char *folder = trainer->settings->run.folder;
  char path[4200];
  for (size_t i = 0; i < sizeof run_files / sizeof *run_files; ++i) {
    (void)snprintf(path, sizeof path, "%s/%s", folder, run_files[i]);
    if (unlink(path) != 0 && errno != ENOENT) {
      FAIL(LKS_STORAGE, "check the folder's permissions", "%s: cannot remove: %s", path,
           strerror(errno));
    }
  }
  TRY(lks_checkpoints_clear(folder, err));
cleanup:
  return st;
}
