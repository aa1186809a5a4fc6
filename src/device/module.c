/* Finding backend modules and shaking hands with them.
 *
 * What was found is kept to the end of the process, one of its few process-wide things: the loader
 * keeps modules by process too, a CUDA runtime cannot be unloaded safely, and every answer about
 * devices must be the same one. The main thread alone asks. */
#include "device/module.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/errors.h"
#include "device/loader.h"
#include "plan/plan.h"
#include "world/world.h"

typedef struct known_module {
  const char *name;
  bool looked;
  lks_module_found found;
} known_module;

static known_module known[] = {{.name = "cuda"}};

/* ---- services */

static void beat(lks_world *world) {
  lks_world_beat(world);
}

static void phase(lks_world *world, const char *text) {
  lks_world_phase(world, "%s", text);
}

static void warn(const char *text) {
  (void)fprintf(stderr, "lockstep: warning: %s\n", text);
}

const lks_services *lks_module_services(void) {
  static const lks_services services = {.magic = LKS_MODULE_MAGIC,
                                        .abi = LKS_MODULE_ABI,
                                        .size = sizeof(lks_services),
                                        .version = LKS_VERSION,
                                        .agree = lks_agree,
                                        .broadcast = lks_world_broadcast,
                                        .gather = lks_world_gather,
                                        .beat = beat,
                                        .phase = phase,
                                        .fail = lks_device_fail,
                                        .warn = warn};
  return &services;
}

/* ---- finding */

/* FOLDER/NAME.so into found->path; false where it is longer than any path. */
static bool set_path(lks_module_found *found, const char *folder, const char *name) {
  const int length = snprintf(found->path, sizeof found->path, "%s/%s.so", folder, name);
  return length > 0 && (size_t)length < sizeof found->path;
}

/* The folder for modules beside this very library, links followed. */
static bool folder_beside(char folder[4096]) {
  Dl_info info;
  if (dladdr(lks_module_services(), &info) == 0 || info.dli_fname == NULL) {
    return false;
  }
  char *library = realpath(info.dli_fname, NULL);
  char *slash = library != NULL ? strrchr(library, '/') : NULL;
  int length = -1;
  if (slash != NULL) {
    *slash = '\0';
    length = snprintf(folder, 4096, "%s/lockstep", library);
  }
  free(library);
  return length > 0 && length < 4096;
}

static bool find_path(lks_module_found *found, const char *name) {
  char beside[4096] = "";
  const char *asked = getenv("LOCKSTEP_BACKEND_DIR");
  if (asked != NULL && asked[0] != '\0') {
    return set_path(found, asked, name);
  }
  return folder_beside(beside) && set_path(found, beside, name);
}

/* ---- the handshake */

static void differ(lks_module_found *found, const char *format, ...) LKS_PRINTF(2, 3);

static void differ(lks_module_found *found, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(found->words, sizeof found->words, format, arguments);
  va_end(arguments);
  found->state = LKS_MODULE_FOREIGN;
}

/* Magic first, then what says how far the rest can be read. Sizes of what lies above this folder
 * are for those who know it to compare. */
static void shake_hands(lks_module_found *found, const lks_module *module) {
  const lks_services *ours = lks_module_services();
  if (module == NULL) {
    differ(found, "it refuses this program (services ABI %d, version %s)", ours->abi,
           ours->version);
  } else if (module->magic != LKS_MODULE_MAGIC) {
    differ(found, "it is no module of lockstep (magic %08x, not %08x)", module->magic,
           LKS_MODULE_MAGIC);
  } else if (module->abi != LKS_MODULE_ABI) {
    differ(found, "its module ABI is %d, this program's %d", module->abi, LKS_MODULE_ABI);
  } else if (module->size != sizeof *module) {
    differ(found, "its table has %zu bytes, this program's %zu", module->size, sizeof *module);
  } else if (module->version == NULL || strcmp(module->version, ours->version) != 0) {
    differ(found, "its version is %s, this program's %s",
           module->version != NULL ? module->version : "not told", ours->version);
  } else if (module->plan_size != sizeof(lks_plan) || module->model_size != sizeof(lks_model)) {
    differ(found, "plan and model have %zu and %zu bytes in it, %zu and %zu in this program",
           module->plan_size, module->model_size, sizeof(lks_plan), sizeof(lks_model));
  } else if (module->gpu_size != sizeof(lks_gpu_ops)) {
    differ(found, "its device functions have %zu bytes, this program's %zu", module->gpu_size,
           sizeof(lks_gpu_ops));
  } else if (module->backend == NULL || module->gpu == NULL) {
    differ(found, "it has no backend or no device functions");
  } else {
    found->state = LKS_MODULE_LOADED;
    found->module = module;
  }
}

static void load(lks_module_found *found, const char *name) {
  if (!find_path(found, name) || access(found->path, F_OK) != 0) {
    found->state = LKS_MODULE_ABSENT;
    return;
  }
  if (!lks_loader_whole(found->path)) { /* loading it would end the process */
    found->state = LKS_MODULE_BROKEN;
    (void)snprintf(found->words, sizeof found->words, "the file is cut off");
    return;
  }
  (void)dlerror();
  void *handle = dlopen(found->path, RTLD_NOW | RTLD_LOCAL);
  void *symbol = handle != NULL ? dlsym(handle, LKS_MODULE_ENTRY) : NULL;
  if (handle == NULL) {
    const char *words = dlerror();
    found->state = LKS_MODULE_BROKEN;
    (void)snprintf(found->words, sizeof found->words, "%s",
                   words != NULL ? words : "the loader does not say why");
  } else if (symbol == NULL) {
    differ(found, "it has no function %s", LKS_MODULE_ENTRY);
  } else {
    lks_module_open *entry = NULL;
    memcpy(&entry, &symbol, sizeof entry); /* ISO C has no cast from data to code */
    shake_hands(found, entry(lks_module_services()));
  }
}

const lks_module_found *lks_module_find(const char *name) {
  static const lks_module_found none = {.state = LKS_MODULE_ABSENT};
  for (size_t i = 0; i < sizeof known / sizeof *known; ++i) {
    if (strcmp(known[i].name, name) == 0) {
      if (!known[i].looked) {
        known[i].looked = true;
        load(&known[i].found, name);
      }
      return &known[i].found;
    }
  }
  return &none;
}
