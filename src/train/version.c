/* The version of the library. */
#include "lockstep/lockstep.h"

const char *lks_version(void) {
  return LKS_VERSION;
}
