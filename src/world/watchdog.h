/* The watchdog: a thread that ends the run when a rank is dead, silent or stuck, with one line that
 * says which, and looks for the STOP file.
 *
 * The only place outside main that may end the process. It is the one deadline for every wait:
 * progress is judged by beats (lks_world_beat and its kin), by bytes read and written, and in the
 * first step, which may compile and tune, by the main thread's computing too. */
#ifndef LKS_WORLD_WATCHDOG_H
#define LKS_WORLD_WATCHDOG_H

#include "world/world.h"

/* Seconds without progress where no configuration says: run.timeout's default. */
#define LKS_WATCHDOG_TIMEOUT 300.0

/* Starts the thread, by the main thread; where it runs already, only sets what is given.
 * timeout: seconds without progress after which it ends the run (0: a death alone does).
 * stop_file: path looked for twice a second by rank 0 (NULL: none so far). Local. */
lks_status lks_watchdog_start(lks_world *world, double timeout, const char *stop_file,
                              lks_error *err) LKS_MUST_USE;

/* Connects the watchdogs of all ranks by heartbeats. Where that fails it warns, once: each then
 * watches its own rank. The thread must run. Collective. */
lks_status lks_watchdog_connect(lks_world *world, lks_error *err) LKS_MUST_USE;

/* This rank's work is done, and the others hear of it: only MPI's end is left, which the thread
 * still watches, but does not call MPI any more. */
void lks_watchdog_leave_mpi(lks_world *world);

/* Says farewell to the others and ends the thread. */
void lks_watchdog_stop(lks_world *world);

/* True once the STOP file was seen. Local, cheap. */
bool lks_watchdog_saw_stop_file(const lks_world *world);

/* Ends the whole run for an error that its ranks could not agree on (a peer may be gone), and does
 * not return: one line is printed by one rank, which names a death if there was one; MPI is aborted
 * with the exit code. Local, main thread. */
_Noreturn void lks_watchdog_end(lks_world *world, const lks_error *error);

#endif
