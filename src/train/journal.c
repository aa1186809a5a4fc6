/* See journal.h. */
#include "train/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "store/files.h"

struct lks_journal {
  int file;
  lks_arena arena;
  const char *path;
};

json_t *lks_json_real(double value) {
  return isfinite(value) ? json_real(value) : json_null();
}

static bool within(const json_t *number, int64_t most) {
  return !json_is_integer(number) || json_integer_value(number) <= most;
}

/* Whether a line belongs to what the checkpoint holds. Torn or foreign lines do not. The step does
 * not say all: a run that stops in validation has done an epoch's last step, but not the epoch. */
static bool belongs(const char *line, size_t length, int64_t keep_step, int64_t keep_epoch) {
  json_t *object = json_loadb(line, length, 0, NULL);
  if (object == NULL) {
    return false;
  }
  const bool keep = within(json_object_get(object, "step"), keep_step) &&
                    within(json_object_get(object, "epoch"), keep_epoch);
  json_decref(object);
  return keep;
}

/* Rewrites the file without the lines after both; nothing to do where there is none. */
static lks_status cut(const char *path, int64_t keep_step, int64_t keep_epoch, lks_error *err) {
  lks_status st = LKS_OK;
  lks_text kept = {0};
  char *line = NULL;
  size_t capacity = 0;
  ssize_t length = 0;
  FILE *file = fopen(path, "r");
  if (file == NULL && errno == ENOENT) {
    return LKS_OK;
  }
  if (file == NULL) {
    FAIL(LKS_STORAGE, "check the folder's permissions", "%s: cannot read: %s", path,
         strerror(errno));
  }
  while ((length = getline(&line, &capacity, file)) > 0) {
    if (belongs(line, (size_t)length, keep_step, keep_epoch)) {
      lks_text_add_n(&kept, line, (size_t)length);
      if (line[length - 1] != '\n') { /* killed between an object and its end of line */
        lks_text_add_n(&kept, "\n", 1);
      }
    }
  }
  if (kept.failed) {
    FAIL(LKS_NO_MEMORY, NULL, "out of memory for %s", path);
  }
  TRY(lks_file_write_text(path, kept.data != NULL ? kept.data : "", kept.length, err));
cleanup:
  free(line);
  lks_text_free(&kept);
  if (file != NULL) {
    (void)fclose(file);
  }
  return st;
}

lks_status lks_journal_open(const char *folder, int64_t keep_step, int64_t keep_epoch,
                            lks_journal **out, lks_error *err) {
  lks_status st = LKS_OK;
  *out = NULL;
  lks_journal *journal = calloc(1, sizeof *journal);
  TRY_ALLOC(journal);
  journal->file = -1;
  journal->path = lks_arena_print(&journal->arena, "%s/log.jsonl", folder);
  TRY_ALLOC(journal->path);
  if (keep_step >= 0) {
    TRY(cut(journal->path, keep_step, keep_epoch, err));
  }
  journal->file =
      open(journal->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (keep_step < 0 ? O_TRUNC : 0),
           0666);
  if (journal->file < 0) {
    FAIL(LKS_STORAGE, "check the folder's permissions", "%s: cannot write: %s", journal->path,
         strerror(errno));
  }
  *out = journal;
  journal = NULL;
cleanup:
  lks_journal_close(&journal);
  return st;
}

void lks_journal_close(lks_journal **journal) {
  if (*journal != NULL) {
    if ((*journal)->file >= 0) {
      (void)close((*journal)->file);
    }
    lks_arena_free(&(*journal)->arena);
    free(*journal);
    *journal = NULL;
  }
}

lks_status lks_journal_write(lks_journal *journal, json_t *object, lks_error *err) {
  lks_status st = LKS_OK;
  char *text = object != NULL ? json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
  json_decref(object);
  lks_text line = {0};
  TRY_ALLOC(text);
  lks_text_add(&line, "%s\n", text);
  if (line.failed) {
    FAIL(LKS_NO_MEMORY, NULL, "out of memory for a line of the log");
  }
  /* One write a line: O_APPEND keeps it whole. */
  const ssize_t written = write(journal->file, line.data, line.length);
  if (written != (ssize_t)line.length) {
    FAIL(LKS_STORAGE, "free some space and run again to continue", "%s: cannot write: %s",
         journal->path, written < 0 ? strerror(errno) : "the disk is full");
  }
cleanup:
  free(text);
  lks_text_free(&line);
  return st;
}
