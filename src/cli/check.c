/* lockstep check: is this set of ranks fit to train? Values are checked, times only told. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/selftest.h"
#include "base/h5.h"
#include "cli/devices.h"
#include "device/exclude.h"
#include "world/preflight.h"

static const lks_flag flags[] = {LKS_FLAG_EXCLUDE_HOST, {0}};

static void say(const lks_cli *cli, const char *what, const char *how) {
  if (cli->world->rank == 0) {
    (void)printf("%-12s %s\n", what, how);
    (void)fflush(stdout);
  }
}

/* ---- what the ranks run on */

static lks_status check_versions(lks_cli *cli, lks_error *err) {
  lks_status st = LKS_OK;
  char mpi[256], all[512];
  lks_world_versions(mpi, sizeof mpi);
  (void)snprintf(all, sizeof all, "%s, HDF5 %s", mpi, lks_h5_version_running());
  TRY(lks_world_same(cli->world, "library version (MPI, HDF5)", all, err));
  say(cli, "libraries", all);
cleanup:
  return st;
}

static void say_finding(const lks_cli *cli, const char *what, const lks_preflight *finding) {
  char text[sizeof finding->text + sizeof finding->fix + 8];
  (void)snprintf(text, sizeof text, "%s%s%s", finding->text, finding->fix[0] != '\0' ? "; " : "",
                 finding->fix);
  say(cli, what, text);
}

/* What is worth a fix, but no error: told with it. */
static lks_status check_nodes(lks_cli *cli, lks_error *err) {
  lks_status st = LKS_OK;
  lks_preflight finding;
  TRY(lks_preflight_clocks(cli->world, &finding, err));
  say_finding(cli, "clocks", &finding);
  TRY(lks_preflight_shared(cli->world, &finding, err));
  say_finding(cli, "memory", &finding);
  TRY(lks_preflight_links(cli->world, &finding, err));
  say_finding(cli, "links", &finding);
cleanup:
  return st;
}

/* ---- the exchange */

/* Sums whose result is exactly known: rank r gives r + 1 + i % 5. */
static lks_status check_sum(lks_cli *cli, float *values, int count, double *seconds,
                            lks_error *err) {
  lks_status st = LKS_OK;
  const int size = cli->world->size;
  for (int i = 0; i < count; ++i) {
    values[i] = (float)(cli->world->rank + 1 + i % 5);
  }
  TRY_MPI(MPI_Barrier(cli->world->comm));
  const double began = lks_now();
  TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, values, count, MPI_FLOAT, MPI_SUM, cli->world->comm));
  *seconds = lks_now() - began;
  for (int i = 0; i < count; ++i) {
    const float expected = (float)(size * (size + 1) / 2 + size * (i % 5));
    if (values[i] != expected) {
      FAIL(LKS_COMM, "look at the network and at MPI's transport (OMPI_MCA_btl, OMPI_MCA_pml)",
           "a sum over %d ranks is wrong: element %d of %d is %g, not %g", size, i, count,
           (double)values[i], (double)expected);
    }
  }
cleanup:
  return st;
}

static lks_status check_exchange(lks_cli *cli, lks_error *err) {
  static const int counts[] = {1, 1000, 1 << 20, 1 << 22};
  lks_status st = LKS_OK;
  lks_text text = {0};
  float *values = malloc((size_t)counts[3] * sizeof *values);
  if (values == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for the check of sums");
  }
  TRY(lks_agree(cli->world, st, err));
  for (size_t i = 0; i < sizeof counts / sizeof *counts; ++i) {
    double best = 1e9;
    char bytes[32];
    for (int repeat = 0; repeat < 5; ++repeat) {
      double seconds = 0.0;
      st = check_sum(cli, values, counts[i], &seconds, err);
      TRY(lks_agree(cli->world, st, err));
      best = seconds < best ? seconds : best;
    }
    lks_text_add(&text, "%s%s in %.3g ms", i > 0 ? ", " : "values right; ",
                 lks_format_bytes(bytes, (double)counts[i] * sizeof(float)), best * 1e3);
  }
  say(cli, "allreduce", text.data != NULL ? text.data : "");
cleanup:
  free(values);
  lks_text_free(&text);
  return st;
}

/* ---- files */

static lks_status write_and_read(const char *path, lks_error *err) {
  enum { ROWS = 1000 };
  lks_status st = LKS_OK;
  lks_h5 *file = NULL;
  lks_h5_dataset *dataset = NULL;
  float written[ROWS], read[ROWS];
  const int64_t shape[1] = {ROWS};
  for (int i = 0; i < ROWS; ++i) {
    written[i] = (float)i * 0.5f;
  }
  TRY(lks_h5_create(path, &file, err));
  TRY(lks_h5_write(file, "check", LKS_H5_F32, 1, shape, written, err));
  TRY(lks_h5_close(&file, err));
  TRY(lks_h5_open(path, &file, err));
  TRY(lks_h5_dataset_open(file, "check", &dataset, err));
  TRY(lks_h5_read_rows_float(dataset, 0, ROWS, read, err));
  if (memcmp(written, read, sizeof written) != 0) {
    FAIL(LKS_STORAGE, "check the file system of the current folder",
         "%s: what was read is not what was written", path);
  }
cleanup:
  lks_h5_dataset_close(&dataset);
  if (file != NULL) {
    lks_error ignored;
    const lks_status closed = lks_h5_close(&file, &ignored);
    st = st != LKS_OK ? st : closed;
  }
  return st;
}

static lks_status check_files(lks_cli *cli, lks_error *err) {
  lks_status st = LKS_OK;
  char path[64];
  (void)snprintf(path, sizeof path, ".lockstep-check-%d-%ld.h5", cli->world->rank, (long)getpid());
  st = write_and_read(path, err);
  (void)unlink(path);
  TRY(lks_agree(cli->world, st, err));
  say(cli, "hdf5", "written and read back by every rank in the current folder");
cleanup:
  return st;
}

/* ---- devices */

static lks_status check_devices(lks_cli *cli, lks_error *err) {
  lks_status st = LKS_OK;
  char words[512];
  TRY(lks_devices_check(cli->world, words, sizeof words, err));
  say(cli, "devices", words);
cleanup:
  return st;
}

/* ---- the backend */

static void say_case(void *user, const char *name, double error, double bound) {
  const lks_cli *cli = user;
  if (cli->flags.verbose && cli->world->rank == 0) {
    (void)printf("  %-48s %8.1e of %8.1e%s\n", name, error, bound,
                 error <= bound ? "" : "  FAILED");
  }
}

static lks_status check_backends(lks_cli *cli, lks_error *err) {
  lks_status st = LKS_OK;
  const char *const *name = NULL;
  TRY(lks_selftest_names(cli->world, &name, err));
  for (; *name != NULL; ++name) {
    lks_selftest_report report;
    char text[256], title[32];
    TRY(lks_selftest_run(cli->world, *name, &report, say_case, cli, err));
    if (report.failed > 0) {
      st = lks_fail(err, LKS_INTERNAL, "report it with lockstep --version --verbose",
                    "backend %s: %d of %d cases differ from plain loops, the worst: %s", *name,
                    report.failed, report.cases, report.worst_name);
    }
    TRY(lks_agree(cli->world, st, err));
    (void)snprintf(title, sizeof title, "backend %s", *name);
    (void)snprintf(text, sizeof text,
                   "%d cases equal plain loops and finite differences (worst at %.0f%% of its "
                   "bound: %s)",
                   report.cases, 100.0 * report.worst, report.worst_name);
    say(cli, title, text);
  }
cleanup:
  return st;
}

static lks_status run(lks_cli *cli, lks_error *err) {
  lks_status st = LKS_OK;
  char text[128];
  TRY(lks_exclude_hosts(cli->world, cli->flags.exclude_host, err));
  TRY(lks_world_place_threads(cli->world, 0, err));
  (void)snprintf(text, sizeof text, "%d on %d node%s, up to %d BLAS thread%s each",
                 cli->world->size, cli->world->nodes, cli->world->nodes == 1 ? "" : "s",
                 cli->world->threads, cli->world->threads == 1 ? "" : "s");
  say(cli, "ranks", text);
  TRY(check_versions(cli, err));
  TRY(check_nodes(cli, err));
  TRY(check_exchange(cli, err));
  TRY(check_files(cli, err));
  TRY(check_devices(cli, err));
  TRY(check_backends(cli, err));
  say(cli, "check", "all is well");
cleanup:
  return st;
}

const lks_command lks_command_check = {
    .name = "check",
    .operands = "",
    .help = "is this set of ranks fit to train: versions, clocks, sums, files, devices, backends",
    .more =
        "Run it under the same launcher as the training to come. Every backend is held against\n"
        "plain loops and finite differences.",
    .flags = flags,
    .least = 0,
    .most = 0,
    .run = run};
