/* The device report: what every rank ran on, in HDF5 (devices.h5, docs/devices.md). Plain rows; the
 * lists of fields make the tables, and the JSON and the text that the program prints of them. */
#ifndef LKS_STORE_DEVICE_REPORT_H
#define LKS_STORE_DEVICE_REPORT_H

#include <stdint.h>

#include "base/arena.h"
#include "base/h5_table.h"

#define LKS_DEVICE_REPORT_FORMAT 1

/* A device as one rank sees it. In a report: the device that the rank uses. */
typedef struct lks_device_row {
  int rank;
  char host[64];
  int local_rank;
  char backend[16]; /* "cpu", "cuda" */
  int ordinal;      /* among the GPUs that the rank sees; -1: the CPU */
  char name[128], uuid[80], pci_bus_id[32];
  char compute_capability[16];       /* "9.0" */
  int64_t memory_total, memory_free; /* bytes; the node's on the CPU */
  int sm_count;
  int64_t clock, memory_clock; /* Hz; 0: not told */
  char driver[48];             /* "580.65.06 (CUDA 13.0)" */
  char cuda_runtime[16], cublas[16], nccl[16];
  int numa_node;    /* of the GPU; of the affinity mask on the CPU; -1: not told, or several */
  char cores[128];  /* of the rank's affinity mask: "0-3,8" */
  int core_count;   /* how many */
  int threads;      /* BLAS threads */
  char library[96]; /* the BLAS and its kernels on the CPU */
} lks_device_row;

/* What lies between two ranks. */
typedef struct lks_link_row {
  int from, to;
  char way[16];     /* "gpu", "memory" (one node), "network" */
  int peer_access;  /* one GPU reads the other's memory: 1, 0; -1: not told */
  int64_t message;  /* bytes that were sent to measure it; 0: not measured */
  double bandwidth; /* bytes a second; NaN: not measured */
} lks_link_row;

/* Where a rank's device memory goes, in bytes. */
typedef struct lks_memory_row {
  int rank;
  int64_t parameters, gradients, slots, activations, data, workspace;
  int64_t total, limit;                          /* of the plan; most that may be taken, 0: any */
  int64_t device_total, free_before, free_after; /* of the device; before and after it was taken */
} lks_memory_row;

/* An algorithm that a backend chose. */
typedef struct lks_algorithm_row {
  int rank;
  char what[64], chosen[96];
  double seconds; /* NaN: not measured */
} lks_algorithm_row;

/* What failed to load, or to work, and why. */
typedef struct lks_failure_row {
  int rank;
  char host[64];
  char subject[32]; /* "module cuda", "device" */
  char class_[32];  /* as the error table has it: "not found" */
  char words[1024], advice[512];
} lks_failure_row;

typedef struct lks_device_report {
  char created[32]; /* UTC */
  char asked[160];  /* the configuration's device, in words */
  char got[160];    /* "2 x cuda" */
  int ranks;
  lks_device_row *devices;
  int64_t device_count;
  lks_link_row *links;
  int64_t link_count;
  lks_memory_row *memory;
  int64_t memory_count;
  lks_algorithm_row *algorithms;
  int64_t algorithm_count;
  lks_failure_row *failures;
  int64_t failure_count;
} lks_device_report;

/* Fields of the rows above, as the tables name them. */
extern const lks_field lks_device_fields[], lks_link_fields[], lks_memory_fields[],
    lks_algorithm_fields[], lks_failure_fields[];

/* Whether a report has a table of that name. */
bool lks_device_report_has(const char *name);

/* Writes the report aside, then renames it. LKS_STORAGE. Not collective. */
lks_status lks_device_report_store(const lks_device_report *report, const char *path,
                                   lks_error *err) LKS_MUST_USE;

/* Reads a report; rows in the arena. LKS_DATA where a table is missing or is none. Not
 * collective. */
lks_status lks_device_report_load(lks_h5 *file, lks_arena *arena, lks_device_report *report,
                                  lks_error *err) LKS_MUST_USE;

#endif
