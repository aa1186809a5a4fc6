/* What lockstep devices prints. Internal to devices*.c and inspect*.c.
 *
 *   devices.c           the command: its flags and words
 *   devices_list.c      the listing
 *   devices_diagnose.c  the chain; a product
 *   fields.c            rows as JSON, by their lists of fields */
#ifndef LKS_CLI_DEVICES_H
#define LKS_CLI_DEVICES_H

#include <jansson.h>

#include "base/h5_table.h"
#include "cli/cli.h"
#include "device/diagnose.h"
#include "device/options.h"

/* What `lockstep devices` was asked. */
typedef struct lks_devices_request {
  lks_world *world;
  lks_device_options options; /* of --device; kind auto where it is not given */
  bool place;                 /* --device is given */
  bool json;
} lks_devices_request;

/* All collective; rank 0 prints. */
lks_status lks_devices_list(const lks_devices_request *request, lks_error *err) LKS_MUST_USE;
lks_status lks_devices_diagnose(const lks_devices_request *request, lks_error *err) LKS_MUST_USE;
lks_status lks_devices_product(const lks_devices_request *request, lks_error *err) LKS_MUST_USE;

/* For lockstep check: where any rank sees a GPU, the whole chain must hold, else LKS_DEVICE as
 * diagnose says it; no GPU is no fault. words: what was found, on rank 0. Collective. */
lks_status lks_devices_check(lks_world *world, char *words, size_t size,
                             lks_error *err) LKS_MUST_USE;

/* Findings of one rank, a line each and one for each remedy. */
void lks_findings_print(const lks_diagnosis *diagnosis, lks_text *out);
/* A new reference; NULL: out of memory. */
json_t *lks_findings_json(const lks_diagnosis *diagnosis);

/* A row as a JSON object, a new reference; NULL: out of memory. */
json_t *lks_fields_json(const lks_field *fields, const void *row);
/* Rows as an array. */
json_t *lks_fields_json_all(const lks_field *fields, const void *rows, size_t stride,
                            int64_t count);

/* Prints text, or, where it is not NULL, JSON, whose reference is taken over. */
lks_status lks_devices_print(lks_text *text, json_t *json, lks_error *err) LKS_MUST_USE;

#endif
