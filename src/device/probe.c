/* What the module answers, and why it does not. */
#include "device/probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/loader.h"

const char *lks_cuda_version(int code, char out[16]) {
  (void)snprintf(out, 16, code > 0 ? "%d.%d" : "", code / 1000 % 1000, code % 1000 / 10);
  return out;
}

const char *lks_library_version(int code, char out[16]) {
  (void)snprintf(out, 16, code > 0 ? "%d.%d.%d" : "", code / 10000 % 1000, code / 100 % 100,
                 code % 100);
  return out;
}

int lks_driver_needed(int runtime) {
  static const int needed[][2] = {{11, 450}, {12, 525}, {13, 580}};
  for (size_t i = 0; i < sizeof needed / sizeof *needed; ++i) {
    if (needed[i][0] == runtime / 1000) {
      return needed[i][1];
    }
  }
  return 0;
}

/* ---- the module */

/* Libraries that the module needs and that are not found, but the one named; joined by ", ". A
 * module with folders of its own may find what we do not: then nothing is said. */
static void also_missing(const char *module, const char *known, char *out, size_t size) {
  char names[LKS_LOADER_MAX][LKS_LOADER_NAME], path[4096], words[512];
  bool own_path = false;
  size_t used = 0;
  const int count = lks_loader_needed(module, names, &own_path);
  out[0] = '\0';
  for (int i = 0; i < count && !own_path && used < size; ++i) {
    if (strcmp(names[i], known) != 0 && lks_loader_vendor(names[i]) &&
        !lks_loader_find(names[i], false, path, sizeof path, words, sizeof words)) {
      used += (size_t)snprintf(out + used, size - used, "%s%s", used > 0 ? ", " : "; nor is ",
                               names[i]);
    }
  }
}

static lks_status library_missing(const lks_module_found *found, const char *name, lks_error *err) {
  char more[256], folder[1024];
  const char *paths = getenv("LD_LIBRARY_PATH");
  also_missing(found->path, name, more, sizeof more);
  const lks_status st =
      lks_fail(err, LKS_DEVICE, NULL,
               "the CUDA module %.400s does not load: %.300s%s (LD_LIBRARY_PATH is %.150s)",
               found->path, found->words, more, paths != NULL ? paths : "not set");
  if (lks_loader_search(name, folder, sizeof folder)) {
    lks_advise(err, "%s lies in %.300s: export LD_LIBRARY_PATH=%.100s:$LD_LIBRARY_PATH", name,
               folder, folder);
  } else {
    lks_advise(err,
               "install %s (CUDA's runtime, cuBLAS and NCCL; on a cluster: module load cuda nccl), "
               "or use device: cpu",
               name);
  }
  return st;
}

lks_status lks_probe_module(const lks_module_found *found, lks_device_class *class_,
                            lks_error *err) {
  char name[LKS_LOADER_NAME];
  *class_ = LKS_CLASS_NOT_FOUND;
  switch (found->state) {
  case LKS_MODULE_LOADED:
    return LKS_OK;
  case LKS_MODULE_ABSENT:
    return lks_fail(err, LKS_DEVICE,
                    "use device: cpu, or a build of lockstep with its CUDA module "
                    "(LOCKSTEP_BACKEND_DIR names the module's folder)",
                    "this build has no CUDA module for GPUs: %.800s is not there", found->path);
  case LKS_MODULE_BROKEN:
    if (lks_loader_missing(found->words, name) && strstr(found->path, name) == NULL) {
      return library_missing(found, name, err);
    }
    break;
  case LKS_MODULE_FOREIGN:
    break;
  }
  *class_ = LKS_CLASS_INTERNAL;
  if (found->state == LKS_MODULE_FOREIGN) {
    return lks_fail(err, LKS_DEVICE, "install the CUDA module that was built with this program",
                    "the CUDA module %.400s is of another build: %.400s", found->path,
                    found->words);
  }
  return lks_fail(err, LKS_DEVICE,
                  "install the module again; where a symbol or version is missing, an older "
                  "library is found first (ldd shows which)",
                  "the CUDA module %.400s is refused by the loader: %.400s", found->path,
                  found->words);
}

/* ---- devices */

/* Code 35 is both "no driver" and "driver older than the runtime". */
static lks_status count_failed(lks_probe *probe, lks_gpu_failure *failure, lks_error *err) {
  char has[16], runs[16];
  const lks_gpu_versions *versions = &probe->versions;
  const bool insufficient = failure->library == LKS_LIB_CUDA && failure->code == 35;
  if (insufficient && versions->driver == 0) {
    probe->class_ = LKS_CLASS_NOT_FOUND;
    return lks_fail(err, LKS_DEVICE,
                    "run on a node with an NVIDIA driver (in a container: docker run --gpus all), "
                    "or use device: cpu",
                    "there is no NVIDIA driver here: CUDA finds no libcuda.so.1 that works");
  }
  if (insufficient && failure->more[0] == '\0') {
    (void)snprintf(failure->more, sizeof failure->more,
                   "the driver serves CUDA %s, the runtime is %s and needs driver %d or newer",
                   lks_cuda_version(versions->driver, has),
                   lks_cuda_version(versions->runtime, runs), lks_driver_needed(versions->runtime));
  }
  probe->class_ = lks_device_error_of(failure->library, failure->code)->class_;
  return lks_device_fail(failure, err);
}

lks_status lks_probe_gpus(lks_probe *probe, lks_error *err) {
  lks_status st = LKS_OK;
  lks_gpu_failure failure = {.ordinal = -1};
  *probe = (lks_probe){.found = lks_module_find("cuda")};
  TRY(lks_probe_module(probe->found, &probe->class_, err));
  probe->ops = probe->found->module->gpu;
  /* Versions are told even where no device works; what they lack is then 0. */
  (void)probe->ops->versions(&probe->versions, &failure);
  failure = (lks_gpu_failure){.ordinal = -1};
  if (probe->ops->count(&probe->count, &failure) != 0) {
    probe->count = 0;
    st = count_failed(probe, &failure, err);
  } else if (probe->count == 0) {
    probe->class_ = LKS_CLASS_NOT_FOUND;
    failure = (lks_gpu_failure){.library = LKS_LIB_CUDA, .code = 100, .ordinal = -1};
    (void)snprintf(failure.text, sizeof failure.text, "the driver shows no device");
    st = lks_device_fail(&failure, err);
  }
cleanup:
  return st;
}

lks_status lks_probe_device(lks_probe *probe, int ordinal, lks_gpu *gpu, lks_error *err) {
  lks_gpu_failure failure = {.ordinal = ordinal};
  *gpu = (lks_gpu){.ordinal = ordinal};
  if (probe->ops->identify(ordinal, gpu, &failure) != 0) {
    probe->class_ = lks_device_error_of(failure.library, failure.code)->class_;
    return lks_device_fail(&failure, err);
  }
  return LKS_OK;
}
