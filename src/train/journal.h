/* log.jsonl: one JSON object a line, written by rank 0, each line whole or absent. */
#ifndef LKS_TRAIN_JOURNAL_H
#define LKS_TRAIN_JOURNAL_H

#include <jansson.h>
#include <stdint.h>

#include "base/error.h"

typedef struct lks_journal lks_journal;

/* Opens FOLDER/log.jsonl for appending. Lines of steps after keep_step, or of epochs after
 * keep_epoch, are cut off first; a negative keep_step empties it. Errors: LKS_STORAGE. */
lks_status lks_journal_open(const char *folder, int64_t keep_step, int64_t keep_epoch,
                            lks_journal **journal, lks_error *err) LKS_MUST_USE;
void lks_journal_close(lks_journal **journal);

/* Writes one object as a line; takes the reference over. NULL object: out of memory. */
lks_status lks_journal_write(lks_journal *journal, json_t *object, lks_error *err) LKS_MUST_USE;

/* A JSON number, or null where JSON has none (NaN, infinity). */
json_t *lks_json_real(double value);

#endif
