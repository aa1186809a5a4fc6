/* What every rank sees: a row a rank and device. Needs no CUDA. */
#ifndef LKS_DEVICE_LISTING_H
#define LKS_DEVICE_LISTING_H

#include "device/place.h"
#include "device/probe.h"
#include "store/device_report.h"
#include "world/world.h"

typedef struct lks_listing {
  lks_device_row *rows; /* [count] of all ranks, in rank order; a rank's CPU comes first */
  int64_t count;
  int gpus;                  /* distinct ones, by host and UUID */
  lks_failure_row *failures; /* [failure_count] in rank order: why a rank has no GPU */
  int64_t failure_count;
} lks_listing;

/* Gathers the listing on every rank; lks_listing_free frees it. world->threads must be placed.
 * No device is touched beyond being described. Collective. */
lks_status lks_listing_make(lks_world *world, lks_listing *listing, lks_error *err) LKS_MUST_USE;
void lks_listing_free(lks_listing *listing);

/* The row of what this rank uses, as the report has it. Local. */
void lks_listing_choice_row(const lks_world *world, const lks_device_choice *choice,
                            lks_device_row *row);

/* An error as a row. class_: as lks_device_class_name has it. Local. */
void lks_listing_failure(const lks_world *world, const char *subject, const char *class_,
                         const lks_error *error, lks_failure_row *row);

/* Gathers `each` bytes times `mine` rows of every rank: *all, malloc'ed, holds *total rows in rank
 * order. Collective. */
lks_status lks_listing_gather(lks_world *world, const void *rows, int64_t mine, size_t each,
                              void **all, int64_t *total, lks_error *err) LKS_MUST_USE;

#endif
