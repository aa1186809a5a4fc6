/* What the operating system shows of GPUs, without CUDA: PCI, the kernel driver, device nodes,
 * what hides devices, NUMA nodes. All of it is local and never fails: what cannot be read is not
 * there.
 *
 * LOCKSTEP_SYSTEM_ROOT names a folder that stands in for / in all of these look-ups: for tests. */
#ifndef LKS_DEVICE_SYSTEM_H
#define LKS_DEVICE_SYSTEM_H

#include <stdbool.h>
#include <stddef.h>

enum { LKS_SYSTEM_MAX = 32 }; /* devices that are told one by one */

/* An NVIDIA display or 3D controller. */
typedef struct lks_pci_device {
  char address[16]; /* "0000:3b:00.0" */
  char driver[32];  /* bound to it; "" none */
  char model[64];   /* as the kernel driver calls it; "" where none is loaded */
  char uuid[48];    /* "GPU-..."; "" where the driver does not tell */
  int numa_node;    /* -1: not told */
} lks_pci_device;

typedef struct lks_device_node {
  char path[64]; /* "/dev/nvidia0" */
  int code;      /* errno of opening it to read and write; 0: it opens */
  unsigned mode; /* permissions, as chmod has them */
} lks_device_node;

typedef struct lks_system {
  lks_pci_device devices[LKS_SYSTEM_MAX];
  int device_count;
  char driver[32]; /* version of the kernel driver that is loaded, "580.65.06"; "" none */
  lks_device_node nodes[LKS_SYSTEM_MAX + 4]; /* control nodes first, then one a GPU */
  int node_count;
  int gpu_nodes; /* of them, those of GPUs: /dev/nvidia0, ... */
} lks_system;

/* try_nodes: opens the device nodes, which may wake a GPU that sleeps; else their `code` is 0. */
void lks_system_look(lks_system *system, bool try_nodes);

/* True where a device node of a GPU exists (WSL's /dev/dxg too). Cheap. */
bool lks_system_has_node(void);

/* Version of the kernel driver that is loaded; "" none. */
void lks_system_driver(char *out, size_t size);

/* path below the root that stands in for /; out is returned. */
char *lks_system_path(const char *path, char *out, size_t size);

/* First line of a file, without its end; "" where it cannot be read. */
void lks_system_line(const char *path, char *out, size_t size);

/* NUMA node of a PCI address as CUDA or sysfs writes it; -1: not told. */
int lks_system_numa_of(const char *pci_address);

/* The NUMA node that this process' affinity mask lies within; -1: it spans several, or the system
 * has one only. */
int lks_system_numa_of_mask(void);

/* Cores of this process' affinity mask as a list: "0-3,8"; returns how many. */
int lks_system_cores(char *out, size_t size);

/* Name of the processor: "AMD EPYC 7763 64-Core Processor"; "CPU" where it is not told. */
void lks_system_processor(char *out, size_t size);

/* What a container or a scheduler lets this process see, from the environment. */
typedef enum lks_visible_state {
  LKS_VISIBLE_ALL,     /* CUDA_VISIBLE_DEVICES is not set */
  LKS_VISIBLE_SOME,    /* it names devices that there may be */
  LKS_VISIBLE_NONE,    /* it is empty or -1: all hidden */
  LKS_VISIBLE_INVALID, /* it begins with something that names no device */
  LKS_VISIBLE_STALE,   /* it names a device that this node does not have */
  LKS_VISIBLE_SLICES,  /* it names several MIG slices: CUDA gives a process one */
} lks_visible_state;

typedef struct lks_visible {
  lks_visible_state state;
  char words[256];  /* what is set and what is wrong with it, one line */
  char slice[64];   /* the one MIG slice that is named; "" none */
  char others[256]; /* further variables that bear on it: "SLURM_JOB_GPUS=0,1"; may be empty */
} lks_visible;

void lks_visible_look(const lks_system *system, lks_visible *visible);

#endif
