/* The small things of a checkpoint below /lockstep: progress, sums, scaling, provenance. Each
 * struct has one table of fields, from which both storing and loading come. */
#ifndef LKS_STORE_STATE_H
#define LKS_STORE_STATE_H

#include "store/checkpoint.h"

lks_status lks_state_store(const lks_checkpoint *checkpoint, lks_h5 *file,
                           lks_error *err) LKS_MUST_USE;

/* Fills progress, seed, config, scalings, provenance, Keras' texts and the stated hash. */
lks_status lks_state_load(lks_h5 *file, lks_arena *arena, lks_checkpoint *out,
                          lks_error *err) LKS_MUST_USE;

/* Where the parameters of layer `group`, and its variable i, lie: "/layers/dense/vars/0". */
void lks_state_variable(const char *group, int i, char out[128]);

#endif
