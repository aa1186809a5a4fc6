/* The backends there are. A new one is a row in each of the two lists. */
#include <string.h>

#include "backend/backend.h"

extern const lks_backend_ops lks_backend_cpu;

static const lks_backend_ops *const backends[] = {&lks_backend_cpu};
static const char *const names[] = {"cpu", NULL};

const char *const *lks_backend_names(void) {
  return names;
}

static bool complete(const lks_backend_ops *ops) {
  return ops->abi == LKS_BACKEND_ABI && ops->open != NULL && ops->close != NULL &&
         ops->restore != NULL && ops->snapshot != NULL && ops->step != NULL &&
         ops->evaluate != NULL && ops->predict != NULL;
}

lks_status lks_backend_open(const char *name, const lks_backend_request *request,
                            lks_backend *backend, lks_error *err) {
  lks_status st = LKS_OK;
  *backend = (lks_backend){0};
  const lks_backend_ops *ops = NULL;
  for (size_t i = 0; i < sizeof backends / sizeof *backends; ++i) {
    if (strcmp(backends[i]->name, name) == 0) {
      ops = backends[i];
    }
  }
  if (ops == NULL) {
    FAIL(LKS_DEVICE, "use device: cpu", "there is no backend '%s'", name);
  }
  if (!complete(ops)) {
    FAIL(LKS_INTERNAL, "rebuild it together with this program",
         "backend '%s' lacks a required function or has another ABI", name);
  }
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
