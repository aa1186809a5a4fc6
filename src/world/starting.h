/* The deadline of starting: before MPI is up there is no watchdog, and MPI_Init waits for ever for
 * a rank that is stopped or a host that does not answer. */
#ifndef LKS_WORLD_STARTING_H
#define LKS_WORLD_STARTING_H

#include "base/error.h"

typedef struct lks_starting lks_starting;

/* From now on the process ends with LKS_COMM's exit code and one line, unless lks_starting_end is
 * called within `timeout` seconds, 35 at least (0: never). *starting is the caller's. Local.
 * Errors: LKS_NO_MEMORY where a limit of address space has no room for MPI. */
lks_status lks_starting_begin(double timeout, lks_starting **starting, lks_error *err) LKS_MUST_USE;
void lks_starting_end(lks_starting **starting);

#endif
