/* What `lockstep inspect` says of a file, gathered once: each fact becomes a member of a JSON
 * object and a line of text, and the command prints one of the two. Internal to inspect*.c.
 *
 *   inspect.c             the command; what any file has
 *   inspect_report.c      facts
 *   inspect_checkpoint.c  checkpoints
 *   inspect_tables.c      histories and predictions
 *   inspect_devices.c     device reports
 *   inspect_listing.c     Keras' files, and any other HDF5 */
#ifndef LKS_CLI_INSPECT_H
#define LKS_CLI_INSPECT_H

#include <jansson.h>
#include <stdint.h>

#include "base/text.h"
#include "store/contents.h"

typedef struct lks_report {
  json_t *json; /* the object printed by --json */
  lks_text text;
  bool failed; /* memory ran out */
} lks_report;

/* ---- facts: a member `key` of `into` (borrowed), and a line of text "label value" */

void lks_report_text(lks_report *report, json_t *into, const char *key, const char *label,
                     const char *value); /* value NULL: left out */
void lks_report_count(lks_report *report, json_t *into, const char *key, const char *label,
                      int64_t value);

/* A member only; value is a reference taken over, NULL counts as out of memory. */
void lks_report_set(lks_report *report, json_t *into, const char *key, json_t *value);
/* A text as member: null where it is NULL; what is no UTF-8 becomes '?', for JSON holds no other.
 */
void lks_report_string(lks_report *report, json_t *into, const char *key, const char *value);
/* An empty object or array as member, borrowed; NULL only when memory is out, which the functions
 * above accept. */
json_t *lks_report_object(lks_report *report, json_t *into, const char *key);
json_t *lks_report_array(lks_report *report, json_t *into, const char *key);
/* An empty object at the end of an array. */
json_t *lks_report_append(lks_report *report, json_t *array);

/* A line of text only: label, then what format says. */
void lks_report_line(lks_report *report, const char *label, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Name, type, shape and storage of a dataset: members of `into`, and a line. width: of the column
 * of names. */
void lks_report_dataset(lks_report *report, json_t *into, const lks_contents_item *item, int width);
/* "[784, 128]", or "scalar". */
void lks_report_shape(const lks_h5_info *info, char out[256]);
json_t *lks_report_shape_json(const lks_h5_info *info);

/* ---- kinds of files; each fills the report */

lks_status lks_inspect_checkpoint(lks_h5 *file, lks_arena *arena, lks_report *report,
                                  lks_error *err) LKS_MUST_USE;
lks_status lks_inspect_history(lks_h5 *file, lks_report *report, lks_error *err) LKS_MUST_USE;
lks_status lks_inspect_predictions(lks_h5 *file, lks_arena *arena, lks_report *report,
                                   lks_error *err) LKS_MUST_USE;
lks_status lks_inspect_devices(lks_h5 *file, lks_arena *arena, lks_report *report,
                               lks_error *err) LKS_MUST_USE;
lks_status lks_inspect_keras(lks_h5 *file, lks_contents contents, lks_arena *arena,
                             lks_report *report, lks_error *err) LKS_MUST_USE;
lks_status lks_inspect_listing(lks_h5 *file, lks_arena *arena, lks_report *report,
                               lks_error *err) LKS_MUST_USE;

#endif
