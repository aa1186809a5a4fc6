/* devices.h5: what every rank asked for and got. */
#ifndef LKS_TRAIN_DEVICE_REPORT_H
#define LKS_TRAIN_DEVICE_REPORT_H

#include "backend/backend.h"
#include "device/place.h"

/* Gathers and writes the report of a set of ranks, aside and renamed, by rank 0: devices, links,
 * what failed to load, and of an open backend memory and chosen algorithms. backend NULL: none is
 * open. failure, which may be NULL, is what kept this rank from its device, of choice->class_. A
 * link between GPUs is measured only where that leaves the backend's memory alone. No step may be
 * queued. LKS_STORAGE where it cannot be written, on all ranks. Collective. */
lks_status lks_device_report_write(const char *path, lks_world *world,
                                   const lks_device_options *options,
                                   const lks_device_choice *choice, const lks_backend *backend,
                                   const lks_error *failure, lks_error *err) LKS_MUST_USE;

#endif
