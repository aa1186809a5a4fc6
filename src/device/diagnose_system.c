/* The links that the system shows, and what CUDA answers. Where CUDA has devices, a link before it
 * that cannot be seen is not broken: containers and virtual machines hide much. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/diagnose.h"
#include "device/loader.h"
#include "device/probe.h"
#include "device/system.h"

/* ---- findings */

void lks_finding_add(lks_diagnosis *diagnosis, lks_finding_state state, const char *name,
                     const char *remedy, const char *format, ...) {
  if (diagnosis->count == LKS_FINDINGS_MAX) {
    return;
  }
  lks_finding *finding = &diagnosis->findings[diagnosis->count++];
  *finding = (lks_finding){.state = state};
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(finding->text, sizeof finding->text, format, arguments);
  va_end(arguments);
  (void)snprintf(finding->name, sizeof finding->name, "%s", name);
  if (remedy != NULL && state != LKS_FINDING_UNSEEN) {
    (void)snprintf(finding->remedy, sizeof finding->remedy, "%s", remedy);
  }
  diagnosis->usable = diagnosis->usable && state != LKS_FINDING_BROKEN;
}

void lks_finding_class(lks_diagnosis *diagnosis, lks_device_class class_) {
  diagnosis->findings[diagnosis->count - 1].class_ = class_;
}

void lks_finding_error(lks_diagnosis *diagnosis, const char *name, lks_device_class class_,
                       const lks_error *error) {
  lks_finding_add(diagnosis, LKS_FINDING_BROKEN, name, error->remedy, "%s", error->what);
  lks_finding_class(diagnosis, class_);
}

const lks_finding *lks_diagnosis_broken(const lks_diagnosis *diagnosis) {
  for (int i = 0; i < diagnosis->count; ++i) {
    if (diagnosis->findings[i].state == LKS_FINDING_BROKEN) {
      return &diagnosis->findings[i];
    }
  }
  return NULL;
}

/* ---- what the links are judged by */

typedef struct view {
  lks_system system;
  lks_visible visible;
  lks_probe probe;
  lks_status answer; /* of CUDA */
  lks_error error;   /* its words */
} view;

/* State of a link that keeps devices away, where CUDA has none. */
static lks_finding_state barred(const view *v) {
  return v->answer == LKS_OK ? LKS_FINDING_UNSEEN : LKS_FINDING_BROKEN;
}

/* State of a link that is not there to be seen: a CUDA that fails otherwise than by finding nothing
 * has met a driver, and says more of what is wrong than this link would. */
static lks_finding_state missing(const view *v) {
  const bool met = v->probe.ops != NULL && v->probe.class_ != LKS_CLASS_NOT_FOUND;
  return met ? LKS_FINDING_UNSEEN : barred(v);
}

/* ---- links */

static void check_pci(const view *v, lks_diagnosis *d) {
  char list[512] = "";
  size_t used = 0;
  for (int i = 0; i < v->system.device_count && used < sizeof list; ++i) {
    const lks_pci_device *device = &v->system.devices[i];
    used += (size_t)snprintf(list + used, sizeof list - used, "%s%s%s%s", used > 0 ? ", " : "",
                             device->address, device->model[0] != '\0' ? " " : "", device->model);
  }
  if (v->system.device_count > 0) {
    lks_finding_add(d, LKS_FINDING_GOOD, "pci", NULL, "%d NVIDIA GPU%s on the bus: %s",
                    v->system.device_count, v->system.device_count == 1 ? "" : "s", list);
  } else if (lks_system_has_node()) {
    lks_finding_add(d, LKS_FINDING_UNSEEN, "pci", NULL,
                    "no NVIDIA GPU on the bus as it is shown here, but a device node");
  } else {
    lks_finding_add(d, missing(v), "pci",
                    "run on a machine with an NVIDIA GPU (in a job: srun --gres=gpu:1), or use "
                    "device: cpu",
                    "no NVIDIA GPU on the PCI bus of this machine");
  }
}

static void check_driver(const view *v, lks_diagnosis *d) {
  const lks_system *system = &v->system;
  const int major = atoi(system->driver);
  const int needed = v->probe.ops != NULL ? lks_driver_needed(v->probe.versions.built_runtime) : 0;
  const char *bound = "";
  for (int i = 0; i < system->device_count; ++i) {
    bound = strcmp(system->devices[i].driver, "nvidia") != 0 ? system->devices[i].driver : bound;
  }
  if (system->driver[0] == '\0' && bound[0] != '\0') {
    lks_finding_add(d, barred(v), "driver",
                    "take the GPU from that driver (blacklist it) and install NVIDIA's",
                    "the kernel driver %s holds the GPU, not NVIDIA's", bound);
    lks_finding_class(d, LKS_CLASS_DRIVER);
  } else if (system->driver[0] == '\0') {
    lks_finding_add(
        d, missing(v), "driver",
        "load it (modprobe nvidia), or install the package of NVIDIA's driver",
        "NVIDIA's kernel driver is not loaded: there is no /proc/driver/nvidia/version");
    lks_finding_class(d, LKS_CLASS_DRIVER);
  } else if (needed > 0 && major > 0 && major < needed) {
    char runtime[16], remedy[128];
    (void)snprintf(remedy, sizeof remedy,
                   "install driver %d or newer, or a build of lockstep for an older CUDA", needed);
    lks_finding_add(d, barred(v), "driver", remedy,
                    "the kernel driver %s is too old: CUDA %s needs %d or newer", system->driver,
                    lks_cuda_version(v->probe.versions.built_runtime, runtime), needed);
    lks_finding_class(d, LKS_CLASS_DRIVER);
  } else {
    lks_finding_add(d, LKS_FINDING_GOOD, "driver", NULL, "kernel driver %s is loaded",
                    system->driver);
  }
}

/* The first node that does not open, else whether all that are needed are there. */
static void check_nodes(const view *v, lks_diagnosis *d) {
  const lks_system *system = &v->system;
  for (int i = 0; i < system->node_count; ++i) {
    const lks_device_node *node = &system->nodes[i];
    if (node->code == EACCES) {
      lks_finding_add(d, barred(v), "nodes",
                      "let the administrator add this user to the group that owns it (ls -l "
                      "/dev/nvidia*)",
                      "%s (mode %04o) may not be opened by this user: %s", node->path, node->mode,
                      strerror(node->code));
      lks_finding_class(d, LKS_CLASS_DRIVER);
      return;
    }
    if (node->code != 0) {
      lks_finding_add(d, barred(v), "nodes",
                      "ask the scheduler for GPUs (srun --gres=gpu:1), or give them to the "
                      "container (docker run --gpus all)",
                      "%s does not open: %s; a cgroup or container withholds it", node->path,
                      strerror(node->code));
      lks_finding_class(d, LKS_CLASS_DRIVER);
      return;
    }
  }
  if (!lks_system_has_node()) {
    lks_finding_add(d, missing(v), "nodes",
                    "give the container its GPUs (docker run --gpus all, apptainer --nv); on the "
                    "host itself: nvidia-modprobe -c 0 -u",
                    "there is no device node /dev/nvidia0");
  } else {
    lks_finding_add(d, LKS_FINDING_GOOD, "nodes", NULL, "%d of GPUs, from %s on; all open",
                    system->gpu_nodes, system->nodes[0].path);
  }
}

static void check_visible(const view *v, lks_diagnosis *d) {
  static const char *const remedies[] = {
      [LKS_VISIBLE_NONE] = "unset CUDA_VISIBLE_DEVICES; in a job, ask for GPUs (srun --gres=gpu:1)",
      [LKS_VISIBLE_INVALID] = "unset CUDA_VISIBLE_DEVICES, or write ordinals (0,1) or UUIDs",
      [LKS_VISIBLE_STALE] = "unset CUDA_VISIBLE_DEVICES: it is of another node or job",
      [LKS_VISIBLE_SLICES] = "name one MIG slice for each rank, of a GPU that no other rank has"};
  const lks_visible *visible = &v->visible;
  const char *more = visible->others[0] != '\0' ? "; " : "";
  if (visible->state <= LKS_VISIBLE_SOME) {
    lks_finding_add(d, LKS_FINDING_GOOD, "visible", NULL, "%s%s%s", visible->words, more,
                    visible->others);
  } else {
    /* Several slices work, for one of them: a rank would train on a part of what it was given. */
    lks_finding_add(d, visible->state == LKS_VISIBLE_SLICES ? LKS_FINDING_BROKEN : barred(v),
                    "visible", remedies[visible->state], "%s%s%s", visible->words, more,
                    visible->others);
  }
}

static void check_libcuda(const view *v, lks_diagnosis *d) {
  char path[4096], words[512], folder[1024], remedy[512];
  const bool found = lks_loader_find("libcuda.so.1", false, path, sizeof path, words, sizeof words);
  if (found && strstr(path, "/stubs") != NULL) {
    lks_finding_add(d, barred(v), "libcuda", lks_device_error_of(LKS_LIB_CUDA, 34)->advice,
                    "libcuda.so.1 is the toolkit's stub: %s", path);
    lks_finding_class(d, LKS_CLASS_DRIVER);
  } else if (found) {
    lks_finding_add(d, LKS_FINDING_GOOD, "libcuda", NULL, "libcuda.so.1 is %s", path);
  } else {
    if (lks_loader_search("libcuda.so.1", folder, sizeof folder)) {
      (void)snprintf(remedy, sizeof remedy, "it lies in %.200s: add that to LD_LIBRARY_PATH",
                     folder);
    } else {
      (void)snprintf(remedy, sizeof remedy,
                     "install the driver's own libraries (libcuda1, nvidia-driver-libs); in a "
                     "container: docker run --gpus all, apptainer --nv");
    }
    lks_finding_add(d, missing(v), "libcuda", remedy, "the driver's library is not found: %s",
                    words);
  }
}

/* The module, and where each library that it needs comes from. */
static void check_libraries(const view *v, lks_diagnosis *d) {
  char names[LKS_LOADER_MAX][LKS_LOADER_NAME], path[4096], words[512], list[900] = "";
  bool own_path = false;
  size_t used = 0;
  if (v->probe.ops == NULL) {
    lks_finding_error(d, "libraries", v->probe.class_, &v->error);
    return;
  }
  const int count = lks_loader_needed(v->probe.found->path, names, &own_path);
  for (int i = 0; i < count && used < sizeof list; ++i) {
    if (lks_loader_vendor(names[i]) &&
        lks_loader_find(names[i], true, path, sizeof path, words, sizeof words)) {
      used += (size_t)snprintf(list + used, sizeof list - used, ", %s", path);
    }
  }
  lks_finding_add(d, LKS_FINDING_GOOD, "libraries", NULL, "%s%s", v->probe.found->path, list);
}

static void check_versions(const view *v, lks_diagnosis *d) {
  char driver[16], runtime[16], cublas[16], nccl[16], built[3][16];
  const lks_gpu_versions *versions = &v->probe.versions;
  const char *system = v->system.driver;
  if (v->answer != LKS_OK) {
    lks_finding_error(d, v->probe.class_ == LKS_CLASS_NOT_FOUND ? "devices" : "versions",
                      v->probe.class_, &v->error);
    return;
  }
  lks_finding_add(
      d, LKS_FINDING_GOOD, "versions", NULL,
      "driver %s%sCUDA %s; CUDA runtime %s (built with %s, needs driver %d or newer), cuBLAS %s "
      "(%s), NCCL %s (%s); cuDNN is not used",
      system, system[0] != '\0' ? ", serves " : "for ", lks_cuda_version(versions->driver, driver),
      lks_cuda_version(versions->runtime, runtime),
      lks_cuda_version(versions->built_runtime, built[0]), lks_driver_needed(versions->runtime),
      lks_library_version(versions->cublas, cublas),
      lks_library_version(versions->built_cublas, built[1]),
      lks_library_version(versions->nccl, nccl),
      lks_library_version(versions->built_nccl, built[2]));
}

void lks_diagnose_system(lks_diagnosis *diagnosis, bool try_nodes) {
  static void (*const links[])(const view *, lks_diagnosis *) = {
      check_pci,     check_driver,    check_nodes,   check_visible,
      check_libcuda, check_libraries, check_versions};
  view v;
  *diagnosis = (lks_diagnosis){.usable = true};
  lks_error_clear(&v.error);
  lks_system_look(&v.system, try_nodes);
  lks_visible_look(&v.system, &v.visible);
  v.answer = lks_probe_gpus(&v.probe, &v.error);
  for (size_t i = 0; i < sizeof links / sizeof *links && diagnosis->usable; ++i) {
    links[i](&v, diagnosis);
  }
}
