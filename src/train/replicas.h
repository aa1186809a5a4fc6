/* Replicas must stay equal: every rank makes the same updates from the same sums, so parameters
 * that differ mean that a device, a memory or a link gives wrong results. */
#ifndef LKS_TRAIN_REPLICAS_H
#define LKS_TRAIN_REPLICAS_H

#include "backend/backend.h"
#include "world/world.h"

/* Compares hashes of all ranks' parameters; `step` is for the message. Where they differ: LKS_COMM
 * naming two ranks and their hosts, one of the many that are alike and one that is not. Does
 * nothing with one rank, or where the backend has no fingerprint. No step may be queued.
 * Collective. */
lks_status lks_replicas_compare(const lks_backend *backend, lks_world *world, int64_t step,
                                lks_error *err) LKS_MUST_USE;

#endif
