/* Which device each rank takes. */
#ifndef LKS_DEVICE_PLACE_H
#define LKS_DEVICE_PLACE_H

#include "device/errors.h"
#include "device/gpu.h"
#include "device/options.h"
#include "world/world.h"

typedef struct lks_device_choice {
  const char *backend;     /* "cpu" or "cuda": alike on all ranks */
  int ordinal;             /* -1 on the CPU */
  lks_gpu gpu;             /* when ordinal >= 0 */
  lks_device_class class_; /* of what failed, where choosing or using it failed on this rank */
  char note[256];          /* one line for rank 0 to print: why auto took the CPU; mostly "" */
} lks_device_choice;

/* Decides where every rank runs, and refuses what cannot work before anything is allocated: a GPU
 * asked for where none is usable (never silently the CPU), ranks that share a device (by host and
 * UUID, both named), more ranks than GPUs on a node, an ordinal past the end, ranks that chose
 * differently. `auto` without a device node takes the CPU and says so in `note`; with one, but a
 * module or driver that fails, it is an error. Collective. */
lks_status lks_device_choose(lks_world *world, const lks_device_options *options,
                             lks_device_choice *choice, lks_error *err) LKS_MUST_USE;

/* The two halves of it: where every rank runs (collective), and whether the chosen GPU runs our
 * code (local; only where choice->ordinal >= 0). */
lks_status lks_device_place(lks_world *world, const lks_device_options *options,
                            lks_device_choice *choice, lks_error *err) LKS_MUST_USE;
lks_status lks_device_try(lks_device_choice *choice, lks_error *err) LKS_MUST_USE;

/* Before MPI_Init, where the launcher tells the local rank: makes the device of this rank the
 * current one, so that no MPI component opens a context on another. Never fails: what is wrong is
 * said later. Local. */
void lks_device_choose_early(const lks_device_options *options);

#endif
