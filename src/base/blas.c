/* See blas.h. OpenBLAS' functions are looked up: another BLAS has none of them. */
#include "base/blas.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What a function of OpenBLAS says; NULL: there is none. */
static const char *ask(const char *function) {
  void *symbol = dlsym(RTLD_DEFAULT, function);
  char *(*say)(void);
  if (symbol == NULL) {
    return NULL;
  }
  memcpy(&say, &symbol, sizeof say); /* ISO C has no cast from data to code */
  return say();
}

const char *lks_blas_words(void) {
  const char *words = ask("openblas_get_config");
  return words != NULL ? words : "CBLAS";
}

#if defined(__x86_64__) && defined(__GNUC__)
/* Kernels that suit any processor with these vectors. */
static const char *kernels_of_processor(void) {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    return NULL;
  }
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                 __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512cd")
             ? "SkylakeX"
             : "Haswell";
}
#else
static const char *kernels_of_processor(void) {
  return NULL;
}
#endif

const char *lks_blas_better_kernels(void) {
  /* OpenBLAS' names of all kernels for x86-64 without fused multiply-adds. */
  static const char *const old[] = {
      "Prescott",     "Core2",     "Penryn",     "Dunnington", "Nehalem", "Atom",   "Nano",
      "Sandybridge",  "Katmai",    "Coppermine", "Northwood",  "Banias",  "Athlon", "Opteron",
      "Opteron_SSE3", "Barcelona", "Bobcat",     "Bulldozer",  "Unknown"};
  const char *chosen = getenv("OPENBLAS_CORETYPE") == NULL ? ask("openblas_get_corename") : NULL;
  for (size_t i = 0; chosen != NULL && i < sizeof old / sizeof *old; ++i) {
    if (strcmp(chosen, old[i]) == 0) {
      return kernels_of_processor();
    }
  }
  return NULL;
}
