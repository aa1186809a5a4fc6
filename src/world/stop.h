/* Requests to stop: TERM, INT, USR1 and HUP (unless that was ignored, as by nohup), and whatever
 * else asks for a clean end.
 *
 * The handlers only note the signal; the training loop votes with the next step, so that every
 * rank saves at the same one. The flag is one of the project's two process-wide things. */
#ifndef LKS_WORLD_STOP_H
#define LKS_WORLD_STOP_H

#include <stdbool.h>

#include "base/error.h"

/* Installs the handlers. A second signal a second or more after the first ends the process at
 * once, as the signal would have; the last checkpoint is whole, for files are renamed last. Each
 * call wants its release: the last one undoes it. */
lks_status lks_stop_catch(lks_error *err) LKS_MUST_USE;

/* Name of the signal that asked ("SIGTERM"), NULL: none has. */
const char *lks_stop_signal(void);

/* Ignores them from now on: the process is ending by itself. mpirun sends TERM to the others as
 * soon as one rank has ended with a code other than 0, and each should end with its own. */
void lks_stop_ignore(void);

/* Undoes a catch. After the last one, gives the signals their default meaning again and forgets
 * what came. */
void lks_stop_release(void);

#endif
