/* The watchdog: a thread that ends a rank which makes no progress, and looks for the STOP file.
 *
 * The only place outside main that may end the process. Progress is judged by lks_world_beat. */
#ifndef LKS_WORLD_WATCHDOG_H
#define LKS_WORLD_WATCHDOG_H

#include "world/world.h"

/* Starts the thread. timeout: seconds without a beat after which it ends the run (0: never).
 * stop_file: path looked for once a second by rank 0 (NULL: none). Local. */
lks_status lks_watchdog_start(lks_world *world, double timeout, const char *stop_file,
                              lks_error *err) LKS_MUST_USE;
void lks_watchdog_stop(lks_world *world);

/* True once the STOP file was seen. Local, cheap. */
bool lks_watchdog_saw_stop_file(const lks_world *world);

/* Ends the whole run for an error that its ranks could not agree on (a peer may be gone): prints
 * the one line, aborts MPI with the error's exit code, and does not return. Local. */
_Noreturn void lks_watchdog_end(lks_world *world, const lks_error *error);

#endif
