/* Looks for a file twice a second, in a thread of its own: a file system that hangs must not hold
 * up whoever wants to know. */
#ifndef LKS_WORLD_LOOKOUT_H
#define LKS_WORLD_LOOKOUT_H

#include <stdbool.h>

#include "base/error.h"

typedef struct lks_lookout lks_lookout;

lks_status lks_lookout_start(const char *path, lks_lookout **lookout, lks_error *err) LKS_MUST_USE;
void lks_lookout_stop(lks_lookout **lookout);

/* True once the file was there. */
bool lks_lookout_saw(const lks_lookout *lookout);

#endif
