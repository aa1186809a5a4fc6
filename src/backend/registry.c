/* The backends there are: the built-in ones, and those that a module brings. A new one is a row,
 * and a name in lks_backend_names. */
#include <string.h>

#include "backend/backend.h"
#include "device/module.h"
#include "world/world.h"

extern const lks_backend_ops lks_backend_cpu, lks_backend_cpu_led;

typedef struct backend_row {
  const char *name;
  const lks_backend_ops *ops; /* NULL: in the module of that name */
  const lks_backend_ops *led; /* of a plan by the leader; NULL: there are no such plans */
} backend_row;

static const backend_row backends[] = {{"cpu", &lks_backend_cpu, &lks_backend_cpu_led},
                                       {"cuda", NULL, NULL}};

/* True where a module is loaded and a device answers it. */
static bool answers(const char *name) {
  const lks_module_found *found = lks_module_find(name);
  lks_gpu_failure failure = {0};
  int count = 0;
  return found->state == LKS_MODULE_LOADED && found->module->gpu->count(&count, &failure) == 0 &&
         count > 0;
}

const char *const *lks_backend_names(void) {
  static const char *const built_in[] = {"cpu", NULL};
  static const char *const all[] = {"cpu", "cuda", NULL};
  return answers("cuda") ? all : built_in;
}

static bool complete(const lks_backend_ops *ops) {
  return ops->abi == LKS_BACKEND_ABI && ops->open != NULL && ops->close != NULL &&
         ops->restore != NULL && ops->snapshot != NULL && ops->step != NULL &&
         ops->evaluate != NULL && ops->predict != NULL && ops->lag >= 0 &&
         (ops->lag == 0 || ops->drain != NULL);
}

static lks_status from_module(const char *name, const lks_backend_ops **ops, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_module_found *found = lks_module_find(name);
  if (found->state != LKS_MODULE_LOADED) {
    FAIL(LKS_DEVICE, "run lockstep devices diagnose, or use device: cpu",
         "backend '%s' needs the module %s: %s", name, found->path,
         found->words[0] != '\0' ? found->words : "there is no such file");
  }
  if (found->module->backend_size != sizeof **ops) {
    FAIL(LKS_DEVICE, "install the module that was built with this program",
         "%s: its backend table has %zu bytes, this program's %zu", found->path,
         found->module->backend_size, sizeof **ops);
  }
  *ops = found->module->backend;
cleanup:
  return st;
}

static lks_status find(const char *name, const lks_plan *plan, const lks_backend_ops **ops,
                       lks_error *err) {
  lks_status st = LKS_OK;
  *ops = NULL;
  for (size_t i = 0; i < sizeof backends / sizeof *backends; ++i) {
    if (strcmp(backends[i].name, name) == 0) {
      *ops = plan->gradients == LKS_BY_LEADER ? backends[i].led : backends[i].ops;
      if (*ops == NULL) {
        TRY(from_module(name, ops, err));
      }
    }
  }
  if (*ops == NULL) {
    FAIL(LKS_DEVICE, "use device: cpu", "there is no backend '%s'", name);
  }
  if (!complete(*ops)) {
    FAIL(LKS_INTERNAL, "rebuild it together with this program",
         "backend '%s' lacks a required function or has another ABI", name);
  }
cleanup:
  return st;
}

lks_status lks_backend_open(const char *name, const lks_backend_request *request,
                            lks_backend *backend, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_backend_ops *ops = NULL;
  *backend = (lks_backend){0};
  st = find(name, request->plan, &ops, err);
  TRY(lks_agree(request->world, st, err));
  TRY(ops->open(request, &backend->state, err));
  backend->ops = ops;
cleanup:
  return st;
}

void lks_backend_close(lks_backend *backend) {
  if (backend->ops != NULL) {
    backend->ops->close(backend->state);
    *backend = (lks_backend){0};
  }
}
