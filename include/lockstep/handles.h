/* Names of the opaque handles, for headers that need no MPI. */
#ifndef LOCKSTEP_HANDLES_H
#define LOCKSTEP_HANDLES_H

typedef struct lks_world lks_world;       /* the ranks of a run */
typedef struct lks_settings lks_settings; /* a configuration that was read */

#endif
