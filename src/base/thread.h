/* Threads beside a process's main thread: every one starts here. */
#ifndef LKS_BASE_THREAD_H
#define LKS_BASE_THREAD_H

#include <pthread.h>
#include <time.h>

#include "base/error.h"

/* Starts run(user) with all signals blocked: requests to stop are the main thread's, and no read or
 * write of another is cut short by one. The caller joins *thread.
 *
 * A thread reads no environment variable (nor calls what does, as localtime): MPI sets variables
 * while it starts, and getenv beside setenv may read freed memory. Read it before, in the main
 * thread. tests/program/test_threads.py looks.
 *
 * Error: LKS_INTERNAL, the limit of processes. */
lks_status lks_thread_start(pthread_t *thread, void *(*run)(void *), void *user,
                            lks_error *err) LKS_MUST_USE;

/* A condition whose waits no setting of the clock makes longer, and now plus `seconds` as
 * pthread_cond_timedwait takes it of such a one. */
void lks_thread_condition(pthread_cond_t *condition);
struct timespec lks_thread_moment(double seconds);

#endif
