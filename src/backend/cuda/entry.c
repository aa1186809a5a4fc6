/* The module's one exported function: the handshake. */
#include <string.h>

#include "backend/backend.h"
#include "backend/cuda/fail.h"

extern const lks_gpu_ops lks_gpu_cuda;
extern const lks_backend_ops lks_backend_cuda;

/* The only mutable global of the module. */
const lks_services *lks_cuda_services;

static const lks_module module = {.magic = LKS_MODULE_MAGIC,
                                  .abi = LKS_MODULE_ABI,
                                  .size = sizeof(lks_module),
                                  .backend_size = sizeof(lks_backend_ops),
                                  .plan_size = sizeof(lks_plan),
                                  .model_size = sizeof(lks_model),
                                  .gpu_size = sizeof(lks_gpu_ops),
                                  .version = LKS_VERSION,
                                  .architectures = LKS_CUDA_ARCHITECTURES,
                                  .backend = &lks_backend_cuda,
                                  .gpu = &lks_gpu_cuda};

__attribute__((visibility("default"))) lks_module_open lks_module_entry;

const lks_module *lks_module_entry(const lks_services *services) {
  if (services->magic != LKS_MODULE_MAGIC || services->abi != LKS_MODULE_ABI ||
      services->size != sizeof *services || strcmp(services->version, LKS_VERSION) != 0) {
    return NULL;
  }
  lks_cuda_services = services;
  return &module;
}
