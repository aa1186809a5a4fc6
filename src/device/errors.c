/* The table of device errors, and the words made from it.
 *
 * Every advice is an array of its own name, so that codes which share an advice share the array: a
 * test holds that no two arrays say the same. Which code means what is from the headers of CUDA,
 * cuBLAS, NCCL and NVML; the classes and what to do are ours. */
#include "device/errors.h"

#include <stdio.h>
#include <string.h>

/* ---- what to do */

static const char report[] =
    "this is a fault of lockstep: report it with this line and lockstep --version --verbose";
static const char report_kernel[] =
    "run again with CUDA_LAUNCH_BLOCKING=1 and report the line; where only one node shows it, "
    "leave that node out (sbatch --exclude, mpirun --host)";
static const char use_less_memory[] =
    "use a smaller train.batch_size, more ranks, or a GPU that nobody else uses (lockstep devices "
    "shows what is free)";
static const char free_host_memory[] = "free memory of the node, or lower its number of ranks";
static const char look_at_driver[] =
    "look for NVRM and Xid in the node's dmesg; reload the driver or reboot the node";
static const char newer_driver[] =
    "install a newer driver on this node, or a build of lockstep for an older CUDA (lockstep "
    "devices diagnose names both versions)";
static const char no_stub[] =
    "take the CUDA toolkit's stubs folder out of LD_LIBRARY_PATH: it holds a libcuda that is only "
    "for linking";
static const char wait_for_device[] =
    "end the program that holds the GPU, or leave the exclusive compute mode (nvidia-smi -c 0)";
static const char wait_or_mps[] =
    "wait for the other program, or let both share the GPU by NVIDIA's MPS";
static const char find_device[] =
    "run lockstep devices diagnose on that node; in a job ask for GPUs (srun --gres=gpu:1, docker "
    "run --gpus all)";
static const char valid_ordinal[] = "run lockstep devices for the ordinals that each rank sees";
static const char license[] = "get the licence of this virtual GPU from the node's administrator";
static const char other_code[] =
    "use a build of lockstep that has code for this compute capability (lockstep devices diagnose "
    "lists those of this build)";
static const char ptx_too_new[] =
    "install a driver as new as the CUDA that built lockstep's module, or a build with machine "
    "code for this GPU";
static const char jit_compiler[] =
    "install libnvidia-ptxjitcompiler.so.1 of the driver, or use a build with machine code for "
    "this GPU";
static const char jit_off[] = "unset CUDA_DISABLE_PTX_JIT, or use a build with machine code";
static const char leave_node_out[] =
    "leave this node out and tell its administrator (sbatch --exclude, mpirun --host; "
    "--exclude-host keeps a script from using it)";
static const char reset_device[] =
    "reset the GPU (nvidia-smi --gpu-reset) or reboot the node; until then leave the node out";
static const char nvlink_down[] =
    "leave this node out: nvidia-smi nvlink -e shows the link with errors";
static const char no_peers[] =
    "set NCCL_P2P_DISABLE=1, or give the ranks GPUs that reach each other (nvidia-smi topo -m)";
static const char libraries_fit[] =
    "make the libraries that are found fit each other: lockstep devices diagnose shows them and "
    "LD_LIBRARY_PATH";
static const char display_limit[] = "use a GPU that drives no display";
static const char permission[] =
    "ask the node's administrator: the driver allows this to root alone";
static const char fabric[] =
    "wait until the node's nvidia-fabricmanager runs (systemctl status nvidia-fabricmanager)";
static const char same_driver[] =
    "reboot the node or reload its kernel driver: libcuda and the kernel driver are of different "
    "versions";
static const char no_compat[] =
    "take CUDA's compat folder out of LD_LIBRARY_PATH (forward compatibility is for data-centre "
    "GPUs), or install a newer driver";
static const char mps[] =
    "start NVIDIA's MPS daemon again, or unset CUDA_MPS_PIPE_DIRECTORY to do without it";
static const char mps_full[] = "use fewer ranks a GPU: the MPS daemon has no place left";
static const char nccl_debug[] =
    "run again with NCCL_DEBUG=WARN: NCCL then prints which CUDA call failed and why";
static const char nccl_system[] =
    "run again with NCCL_DEBUG=INFO; check NCCL_SOCKET_IFNAME, the size of /dev/shm and ulimit -l";
static const char nccl_usage[] =
    "give each rank a GPU of its own and every node the same NCCL (lockstep devices)";
static const char nccl_peer[] =
    "look at the messages of the other ranks: one of them failed or lost its network first";
static const char not_told[] = "nothing: this GPU or its driver does not tell";
static const char nvml_missing[] =
    "install libnvidia-ml.so.1 of the driver: without it health and other users are not told";

/* ---- the table */

#define STATUS_NOT_FOUND LKS_DEVICE
#define STATUS_BUSY LKS_DEVICE
#define STATUS_MEMORY LKS_DEVICE
#define STATUS_DRIVER LKS_DEVICE
#define STATUS_CODE LKS_DEVICE
#define STATUS_HARDWARE LKS_DEVICE
#define STATUS_COMMUNICATION LKS_COMM
#define STATUS_INTERNAL LKS_DEVICE

#define ROW(library, code, class, advice)                                                          \
  { LKS_LIB_##library, code, LKS_CLASS_##class, STATUS_##class, advice }

static const lks_device_error table[] = {
    ROW(CUDA, 1, INTERNAL, report),           /* invalid value */
    ROW(CUDA, 2, MEMORY, use_less_memory),    /* memory allocation */
    ROW(CUDA, 3, DRIVER, look_at_driver),     /* initialization */
    ROW(CUDA, 4, INTERNAL, report),           /* runtime unloading */
    ROW(CUDA, 9, INTERNAL, report),           /* invalid configuration */
    ROW(CUDA, 17, INTERNAL, report),          /* invalid device pointer */
    ROW(CUDA, 21, INTERNAL, report),          /* invalid copy direction */
    ROW(CUDA, 34, DRIVER, no_stub),           /* stub library */
    ROW(CUDA, 35, DRIVER, newer_driver),      /* insufficient driver; none at all too */
    ROW(CUDA, 36, DRIVER, newer_driver),      /* call requires a newer driver */
    ROW(CUDA, 46, BUSY, wait_for_device),     /* devices unavailable */
    ROW(CUDA, 49, INTERNAL, report),          /* incompatible driver context */
    ROW(CUDA, 98, CODE, other_code),          /* invalid device function */
    ROW(CUDA, 100, NOT_FOUND, find_device),   /* no device */
    ROW(CUDA, 101, NOT_FOUND, valid_ordinal), /* invalid device */
    ROW(CUDA, 102, DRIVER, license),          /* device not licensed */
    ROW(CUDA, 103, DRIVER, look_at_driver),   /* software validity not established */
    ROW(CUDA, 127, DRIVER, look_at_driver),   /* startup failure */
    ROW(CUDA, 200, CODE, other_code),         /* invalid kernel image */
    ROW(CUDA, 201, INTERNAL, report),         /* device uninitialized */
    ROW(CUDA, 209, CODE, other_code),         /* no kernel image for device */
    ROW(CUDA, 214, HARDWARE, leave_node_out), /* ECC uncorrectable */
    ROW(CUDA, 215, INTERNAL, report),         /* unsupported limit */
    ROW(CUDA, 216, BUSY, wait_or_mps),        /* device already in use */
    ROW(CUDA, 217, COMMUNICATION, no_peers),  /* peer access unsupported */
    ROW(CUDA, 218, CODE, other_code),         /* invalid PTX */
    ROW(CUDA, 219, INTERNAL, report),         /* invalid graphics context */
    ROW(CUDA, 220, HARDWARE, nvlink_down),    /* NVLink uncorrectable */
    ROW(CUDA, 221, CODE, jit_compiler),       /* JIT compiler not found */
    ROW(CUDA, 222, CODE, ptx_too_new),        /* unsupported PTX version */
    ROW(CUDA, 223, CODE, jit_off),            /* JIT compilation disabled */
    ROW(CUDA, 226, HARDWARE, reset_device),   /* contained */
    ROW(CUDA, 300, CODE, other_code),         /* invalid source */
    ROW(CUDA, 301, DRIVER, libraries_fit),    /* file not found */
    ROW(CUDA, 302, DRIVER, libraries_fit),    /* shared object symbol not found */
    ROW(CUDA, 303, DRIVER, libraries_fit),    /* shared object initialization */
    ROW(CUDA, 304, DRIVER, look_at_driver),   /* operating system call */
    ROW(CUDA, 400, INTERNAL, report),         /* invalid resource handle */
    ROW(CUDA, 401, INTERNAL, report),         /* illegal state */
    ROW(CUDA, 500, DRIVER, libraries_fit),    /* symbol not found */
    ROW(CUDA, 600, INTERNAL, report),         /* not ready */
    ROW(CUDA, 700, INTERNAL, report_kernel),  /* illegal address */
    ROW(CUDA, 701, INTERNAL, report_kernel),  /* launch out of resources */
    ROW(CUDA, 702, BUSY, display_limit),      /* launch timeout */
    ROW(CUDA, 704, INTERNAL, report),         /* peer access already enabled */
    ROW(CUDA, 705, COMMUNICATION, no_peers),  /* peer access not enabled */
    ROW(CUDA, 708, INTERNAL, report),         /* set on active process */
    ROW(CUDA, 709, INTERNAL, report),         /* context is destroyed */
    ROW(CUDA, 710, INTERNAL, report_kernel),  /* assert */
    ROW(CUDA, 711, COMMUNICATION, no_peers),  /* too many peers */
    ROW(CUDA, 712, INTERNAL, report),         /* host memory already registered */
    ROW(CUDA, 713, INTERNAL, report),         /* host memory not registered */
    ROW(CUDA, 714, HARDWARE, leave_node_out), /* hardware stack error */
    ROW(CUDA, 715, INTERNAL, report_kernel),  /* illegal instruction */
    ROW(CUDA, 716, INTERNAL, report_kernel),  /* misaligned address */
    ROW(CUDA, 717, INTERNAL, report_kernel),  /* invalid address space */
    ROW(CUDA, 718, INTERNAL, report_kernel),  /* invalid program counter */
    ROW(CUDA, 719, INTERNAL, report_kernel),  /* launch failure */
    ROW(CUDA, 720, INTERNAL, report),         /* cooperative launch too large */
    ROW(CUDA, 721, INTERNAL, report_kernel),  /* tensor memory leak */
    ROW(CUDA, 800, DRIVER, permission),       /* not permitted */
    ROW(CUDA, 801, DRIVER, newer_driver),     /* not supported */
    ROW(CUDA, 802, DRIVER, fabric),           /* system not ready */
    ROW(CUDA, 803, DRIVER, same_driver),      /* system driver mismatch */
    ROW(CUDA, 804, DRIVER, no_compat),        /* compatibility not supported on device */
    ROW(CUDA, 805, BUSY, mps),                /* MPS connection failed */
    ROW(CUDA, 806, BUSY, mps),                /* MPS RPC failure */
    ROW(CUDA, 807, BUSY, mps),                /* MPS server not ready */
    ROW(CUDA, 808, BUSY, mps_full),           /* MPS max clients reached */
    ROW(CUDA, 809, BUSY, mps_full),           /* MPS max connections reached */
    ROW(CUDA, 810, BUSY, mps),                /* MPS client terminated */
    ROW(CUDA, 900, INTERNAL, report),         /* stream capture unsupported */
    ROW(CUDA, 901, INTERNAL, report),         /* stream capture invalidated */
    ROW(CUDA, 902, INTERNAL, report),         /* stream capture merge */
    ROW(CUDA, 903, INTERNAL, report),         /* stream capture unmatched */
    ROW(CUDA, 904, INTERNAL, report),         /* stream capture unjoined */
    ROW(CUDA, 905, INTERNAL, report),         /* stream capture isolation */
    ROW(CUDA, 906, INTERNAL, report),         /* stream capture implicit */
    ROW(CUDA, 907, INTERNAL, report),         /* captured event */
    ROW(CUDA, 908, INTERNAL, report),         /* stream capture wrong thread */
    ROW(CUDA, 909, HARDWARE, reset_device),   /* timeout */
    ROW(CUDA, 910, INTERNAL, report),         /* graph update failure */
    ROW(CUDA, 911, HARDWARE, reset_device),   /* external device */
    ROW(CUDA, 999, DRIVER, look_at_driver),   /* unknown */
    ROW(CUBLAS, 1, DRIVER, find_device),      /* not initialized: no driver to run on */
    ROW(CUBLAS, 3, MEMORY, use_less_memory),  /* allocation failed */
    ROW(CUBLAS, 7, INTERNAL, report),         /* invalid value */
    ROW(CUBLAS, 8, CODE, other_code),         /* architecture mismatch */
    ROW(CUBLAS, 11, INTERNAL, report_kernel), /* mapping error */
    ROW(CUBLAS, 13, INTERNAL, report_kernel), /* execution failed */
    ROW(CUBLAS, 14, INTERNAL, report_kernel), /* internal error */
    ROW(CUBLAS, 15, INTERNAL, report),        /* not supported */
    ROW(CUBLAS, 16, DRIVER, license),         /* license error */
    ROW(NCCL, 1, COMMUNICATION, nccl_debug),  /* unhandled CUDA error */
    ROW(NCCL, 2, COMMUNICATION, nccl_system), /* system error */
    ROW(NCCL, 3, COMMUNICATION, nccl_debug),  /* internal error */
    ROW(NCCL, 4, INTERNAL, report),           /* invalid argument */
    ROW(NCCL, 5, COMMUNICATION, nccl_usage),  /* invalid usage */
    ROW(NCCL, 6, COMMUNICATION, nccl_peer),   /* remote error */
    ROW(NCCL, 7, INTERNAL, report),           /* in progress */
    ROW(NVML, 1, INTERNAL, report),           /* uninitialized */
    ROW(NVML, 2, INTERNAL, report),           /* invalid argument */
    ROW(NVML, 3, NOT_FOUND, not_told),        /* not supported */
    ROW(NVML, 4, DRIVER, permission),         /* no permission */
    ROW(NVML, 6, NOT_FOUND, find_device),     /* not found */
    ROW(NVML, 9, DRIVER, look_at_driver),     /* driver not loaded */
    ROW(NVML, 10, HARDWARE, reset_device),    /* timeout */
    ROW(NVML, 11, HARDWARE, look_at_driver),  /* interrupt issue */
    ROW(NVML, 12, NOT_FOUND, nvml_missing),   /* library not found */
    ROW(NVML, 13, DRIVER, newer_driver),      /* function not found */
    ROW(NVML, 14, HARDWARE, leave_node_out),  /* corrupted info ROM */
    ROW(NVML, 15, HARDWARE, leave_node_out),  /* GPU is lost */
    ROW(NVML, 16, HARDWARE, reset_device),    /* reset required */
    ROW(NVML, 17, DRIVER, look_at_driver),    /* operating system call */
    ROW(NVML, 18, DRIVER, same_driver),       /* library and driver versions differ */
    ROW(NVML, 19, BUSY, wait_for_device),     /* in use */
    ROW(NVML, 20, MEMORY, free_host_memory),  /* memory */
    ROW(NVML, 21, NOT_FOUND, not_told),       /* no data */
    ROW(NVML, 27, DRIVER, look_at_driver),    /* not ready */
    ROW(NVML, 28, NOT_FOUND, find_device),    /* GPU not found */
    ROW(NVML, 999, DRIVER, look_at_driver),   /* unknown */
};

const lks_device_error *lks_device_errors(int *count) {
  *count = (int)(sizeof table / sizeof *table);
  return table;
}

const lks_device_error *lks_device_error_of(lks_library library, int code) {
  static const lks_device_error unknown[] = {
      [LKS_LIB_CUDA] = ROW(CUDA, 0, INTERNAL, report),
      [LKS_LIB_CUBLAS] = ROW(CUBLAS, 0, INTERNAL, report),
      [LKS_LIB_NCCL] = ROW(NCCL, 0, INTERNAL, report),
      [LKS_LIB_NVML] = ROW(NVML, 0, INTERNAL, report),
  };
  for (size_t i = 0; i < sizeof table / sizeof *table; ++i) {
    if (table[i].library == library && table[i].code == code) {
      return &table[i];
    }
  }
  return &unknown[library <= LKS_LIB_NVML ? library : LKS_LIB_CUDA];
}

const char *lks_device_class_name(lks_device_class class_) {
  static const char *const names[] = {
      [LKS_CLASS_NOT_FOUND] = "not found",           [LKS_CLASS_BUSY] = "busy",
      [LKS_CLASS_MEMORY] = "out of memory",          [LKS_CLASS_DRIVER] = "driver",
      [LKS_CLASS_CODE] = "code not for this device", [LKS_CLASS_HARDWARE] = "hardware",
      [LKS_CLASS_COMMUNICATION] = "communication",   [LKS_CLASS_INTERNAL] = "internal",
  };
  return names[class_];
}

const char *lks_library_name(lks_library library) {
  static const char *const names[] = {[LKS_LIB_CUDA] = "CUDA",
                                      [LKS_LIB_CUBLAS] = "cuBLAS",
                                      [LKS_LIB_NCCL] = "NCCL",
                                      [LKS_LIB_NVML] = "NVML"};
  return names[library];
}

/* ---- words */

/* "GPU 0 (NVIDIA H100, GPU-1b6f...): " or nothing where no device was chosen yet. */
static void device_words(const lks_gpu_failure *failure, char *out, size_t size) {
  out[0] = '\0';
  if (failure->ordinal >= 0) {
    (void)snprintf(out, size, "GPU %d%s%s%s: ", failure->ordinal,
                   failure->device[0] != '\0' ? " (" : "", failure->device,
                   failure->device[0] != '\0' ? ")" : "");
  }
}

lks_status lks_device_fail(const lks_gpu_failure *failure, lks_error *err) {
  char device[160], where[160] = "";
  const lks_device_error *row = lks_device_error_of(failure->library, failure->code);
  device_words(failure, device, sizeof device);
  if (failure->expression[0] != '\0') {
    (void)snprintf(where, sizeof where, ", in %.100s", failure->expression);
  }
  const lks_status st =
      lks_fail(err, row->status, row->advice, "%s%s: %s %s%s%d%s%s%s%s%s%s", device,
               lks_device_class_name(row->class_), lks_library_name(failure->library),
               failure->name, failure->name[0] != '\0' ? " (" : "code ", failure->code,
               failure->name[0] != '\0' ? ")" : "", failure->text[0] != '\0' ? ", " : "",
               failure->text, where, failure->more[0] != '\0' ? ": " : "", failure->more);
  if (failure->file != NULL) {
    lks_error_frame(err, st, failure->expression, failure->file, failure->line);
  }
  return st;
}
