/* What lies between ranks: peer access, and bandwidth as measured. */
#ifndef LKS_DEVICE_LINKS_H
#define LKS_DEVICE_LINKS_H

#include "device/place.h"
#include "store/device_report.h"

/* Rows of all pairs up to eight ranks; beyond, of each rank and the next, for pairs grow with the
 * square. Pairs of a round are measured at the same time, so that what they share is shared, as in
 * a sum over ranks. On the CPU a message goes to and fro through MPI; between GPUs a communicator
 * of two sums by NCCL. measure_gpus false leaves those out: they take device memory for a moment.
 * *links is malloc'ed and alike on all ranks. What cannot be measured is NaN, never an error.
 * Collective. */
lks_status lks_links_measure(lks_world *world, const lks_device_choice *choice, bool measure_gpus,
                             lks_link_row **links, int64_t *count, lks_error *err) LKS_MUST_USE;

#endif
