/* Backend modules: shared objects loaded at run time, so that one build serves nodes with and
 * without GPUs.
 *
 * A module exports one function, LKS_MODULE_ENTRY. It gets the program's services and returns its
 * own table; both say who they are first, and are refused when they differ. A module links neither
 * MPI nor libcuda. Looked for in LOCKSTEP_BACKEND_DIR (alone, if set), in `lockstep/` beside the
 * program's library, which is where the build puts it too; never in the current folder. Loaded
 * RTLD_NOW | RTLD_LOCAL, never unloaded. */
#ifndef LKS_DEVICE_MODULE_H
#define LKS_DEVICE_MODULE_H

#include "base/error.h"
#include "device/gpu.h"
#include "lockstep/handles.h"

#define LKS_MODULE_MAGIC 0x4c4b534dU /* "LKSM" */
#define LKS_MODULE_ABI 1
#define LKS_MODULE_ENTRY "lks_module_entry"

/* What the program does for a module. Collectivity and errors are those of the functions of
 * world/world.h with the same names. */
typedef struct lks_services {
  unsigned magic;
  int abi;
  size_t size;         /* of this struct */
  const char *version; /* of the program: the module's must equal it */
  lks_status (*agree)(lks_world *world, lks_status mine, lks_error *err);
  lks_status (*broadcast)(lks_world *world, void *data, size_t bytes, int root, lks_error *err);
  lks_status (*gather)(lks_world *world, const void *mine, size_t bytes, void *out, lks_error *err);
  void (*beat)(lks_world *world);
  void (*phase)(lks_world *world, const char *text);
  /* Makes an error of a failed call by the one error table. */
  lks_status (*fail)(const lks_gpu_failure *failure, lks_error *err);
  void (*warn)(const char *text); /* one line on stderr */
} lks_services;

struct lks_backend_ops;

typedef struct lks_module {
  unsigned magic;
  int abi;
  size_t size;               /* of this struct */
  size_t backend_size;       /* of lks_backend_ops */
  size_t plan_size;          /* of lks_plan */
  size_t model_size;         /* of lks_model */
  size_t gpu_size;           /* of lks_gpu_ops */
  const char *version;       /* LKS_VERSION it was built with */
  const char *architectures; /* "75 80 86 89 90 100 120, PTX 120" */
  const struct lks_backend_ops *backend;
  const lks_gpu_ops *gpu;
} lks_module;

/* NULL when the services are not those it was built for. The table is static. */
typedef const lks_module *lks_module_open(const lks_services *services);

/* What looking for the module gave; filled once a process, kept to its end. */
typedef enum lks_module_state {
  LKS_MODULE_LOADED,
  LKS_MODULE_ABSENT,  /* no such file: this build has none, or it is not installed */
  LKS_MODULE_BROKEN,  /* the loader refused it: `words` */
  LKS_MODULE_FOREIGN, /* it loaded, but the handshake failed: `words` */
} lks_module_state;

typedef struct lks_module_found {
  lks_module_state state;
  char path[4096];          /* of the file tried; of the first place looked at when absent */
  char words[1024];         /* the loader's own words, or which part of the handshake differed */
  const lks_module *module; /* when loaded */
} lks_module_found;

/* Looks for the module of that name ("cuda"), once a process. Local. */
const lks_module_found *lks_module_find(const char *name);

/* The services of this program. */
const lks_services *lks_module_services(void);

#endif
