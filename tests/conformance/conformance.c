/* Every backend, or the one named, against plain loops and finite differences, at whatever number
 * of ranks this runs on. Cases come from the tables; see backend/selftest.h. */
#include <stdio.h>
#include <string.h>

#include "backend/selftest.h"

static void show(void *user, const char *name, double error, double bound) {
  const lks_world *world = user;
  if (world->rank == 0) {
    (void)printf("%-48s %8.1e of %8.1e%s\n", name, error, bound, error <= bound ? "" : "  FAILED");
  }
}

int main(int argc, char **argv) {
  lks_error err;
  lks_world *world = NULL;
  lks_status st = lks_world_open(MPI_COMM_WORLD, &world, &err);
  const char *const *name = NULL;
  int failed = 0, cases = 0;
  st = st == LKS_OK ? lks_selftest_names(world, &name, &err) : st;
  for (; st == LKS_OK && *name != NULL; ++name) {
    lks_selftest_report report;
    if (argc > 1 && strcmp(argv[1], *name) != 0) {
      continue;
    }
    st = lks_selftest_run(world, *name, &report, show, world, &err);
    if (st == LKS_OK) {
      if (world->rank == 0) {
        (void)printf("backend %s, %d ranks: %d cases, %d failed\n", *name, world->size,
                     report.cases, report.failed);
      }
      failed += report.failed;
      cases += report.cases;
    }
  }
  if (st != LKS_OK) {
    (void)fprintf(stderr, "%s\n", err.what);
  }
  lks_world_close(&world);
  return st == LKS_OK && failed == 0 && cases > 0 ? 0 : 1;
}
