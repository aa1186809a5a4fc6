/* Hosts that a run must not use: after one node failed, a script names it and is refused at once
 * where the scheduler gives it again, instead of failing there. */
#ifndef LKS_DEVICE_EXCLUDE_H
#define LKS_DEVICE_EXCLUDE_H

#include "world/world.h"

/* Refuses (LKS_DEVICE) when a rank runs on one of `hosts`, names joined by commas; a name without a
 * domain means the host under any domain. An MPI job cannot leave a rank out, so the remedy is the
 * launcher's own option, spelled out for the hosts that are left. NULL: nothing is excluded.
 * Collective. */
lks_status lks_exclude_hosts(lks_world *world, const char *hosts, lks_error *err) LKS_MUST_USE;

#endif
