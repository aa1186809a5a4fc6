/* Passes over the data that all ranks share: fitting scaling, and the fingerprint
 * (lks_source_fingerprint, declared in data.h). */
#ifndef LKS_DATA_FIT_H
#define LKS_DATA_FIT_H

#include "data/data.h"

/* Moments of the columns of a set's rows, over fixed blocks dealt out to the ranks and merged in
 * block order: the same bits at any number of ranks. features [inputs] and targets [outputs], each
 * unless NULL. An error of one rank is returned by all. Collective. */
lks_status lks_fit_moments(lks_world *world, lks_source *source, const lks_rows *rows,
                           lks_moments *features, lks_moments *targets,
                           lks_error *err) LKS_MUST_USE;

#endif
