/* --version: of the program; with --verbose of all it was built with and runs with. */
#include <jansson.h>
#include <stdio.h>
#include <xxhash.h>
#include <yaml.h>
#include <zlib.h>

#include "backend/backend.h"
#include "base/blas.h"
#include "base/h5.h"
#include "cli/cli.h"
#include "device/module.h"
#include "device/probe.h"

/* The CUDA module: where it is, what it was built with and runs with, or why it is not there. */
static void print_module(void) {
  const lks_module_found *found = lks_module_find("cuda");
  lks_gpu_versions versions = {0};
  lks_gpu_failure failure;
  char a[16], b[16];
  if (found->state == LKS_MODULE_ABSENT) {
    (void)printf("cuda       no module %s\n", found->path);
    return;
  }
  if (found->state != LKS_MODULE_LOADED) {
    (void)printf("cuda       %s: %s\n", found->path, found->words);
    return;
  }
  (void)found->module->gpu->versions(&versions, &failure); /* what it does not tell is 0 */
  (void)printf("cuda       %s, code for %s\n", found->path, found->module->architectures);
  (void)printf("  driver   %s\n",
               versions.driver > 0 ? lks_cuda_version(versions.driver, a) : "none");
  (void)printf("  runtime  %s, built with %s\n", lks_cuda_version(versions.runtime, a),
               lks_cuda_version(versions.built_runtime, b));
  (void)printf("  cublas   %s, built with %s\n", lks_library_version(versions.cublas, a),
               lks_library_version(versions.built_cublas, b));
  (void)printf("  nccl     %s, built with %s\n", lks_library_version(versions.nccl, a),
               lks_library_version(versions.built_nccl, b));
}

void lks_cli_version(bool verbose) {
  (void)printf("lockstep %s\n", lks_version());
  if (!verbose) {
    return;
  }
  char mpi[256], id[256];
  lks_world_versions(mpi, sizeof mpi);
  lks_build_id(id, sizeof id);
  (void)printf("build      %s, %s, ids %s\n", LKS_BUILD_TYPE, __VERSION__, id);
  (void)printf("mpi        %s\n", mpi);
  (void)printf("hdf5       %s, built with %s\n", lks_h5_version_running(), lks_h5_version_built());
  (void)printf("blas       %s\n", lks_blas_words());
  (void)printf("libyaml    %s\n", yaml_get_version_string());
  (void)printf("jansson    %s, built with %s\n", jansson_version_str(), JANSSON_VERSION);
  (void)printf("zlib       %s, built with %s\n", zlibVersion(), ZLIB_VERSION);
  (void)printf("xxhash     %u, built with %d\n", XXH_versionNumber(), XXH_VERSION_NUMBER);
  print_module();
  (void)printf("backends  ");
  for (const char *const *name = lks_backend_names(); *name != NULL; ++name) {
    (void)printf(" %s", *name);
  }
  (void)printf("\n");
}
