/* The conformance suite: a backend against plain loops, driven by the tables. Every activation,
 * layer, loss, metric and optimizer that has a row is tried, so a new row is tested without
 * another line. `lockstep check` and tests/conformance run the same suite. */
#ifndef LKS_BACKEND_SELFTEST_H
#define LKS_BACKEND_SELFTEST_H

#include "backend/backend.h"
#include "world/world.h"

typedef struct lks_selftest_report {
  int cases, failed;
  double worst;        /* largest error over its bound */
  char worst_name[96]; /* of which case */
} lks_selftest_report;

/* Called on every rank after a case: its name, its normalised error and the bound. */
typedef void (*lks_selftest_each)(void *user, const char *name, double error, double bound);

/* lks_backend_names, the same on all ranks; LKS_DEVICE naming two ranks that differ. Collective. */
lks_status lks_selftest_names(lks_world *world, const char *const **names,
                              lks_error *err) LKS_MUST_USE;

/* Runs every case on the backend of that name, each rank on the device that training would give it.
 * each may be NULL. A case over its bound is counted, not returned as an error. Collective. */
lks_status lks_selftest_run(lks_world *world, const char *backend, lks_selftest_report *report,
                            lks_selftest_each each, void *user, lks_error *err) LKS_MUST_USE;

#endif
