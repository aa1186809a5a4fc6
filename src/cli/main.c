/* The program: parse, start MPI, agree, run one command, end with its code. Nothing but this file
 * and the watchdog ends the process. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/blas.h"
#include "cli/cli.h"
#include "device/place.h"
#include "world/starting.h"
#include "world/stop.h"
#include "world/watchdog.h"

/* A number that the launcher tells before MPI runs; fallback where it tells none. */
static int64_t launcher_number(const char *const *variables, int64_t fallback) {
  for (; *variables != NULL; ++variables) {
    const char *text = getenv(*variables);
    int64_t number = 0;
    if (text != NULL && lks_parse_int64(text, &number)) {
      return number;
    }
  }
  return fallback;
}

static int64_t launcher_rank(void) {
  static const char *const variables[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", NULL};
  return launcher_number(variables, 0);
}

static int64_t launcher_size(void) {
  static const char *const variables[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", NULL};
  return launcher_number(variables, 1);
}

static void print_error(const lks_error *error) {
  char line[2048];
  (void)fflush(stdout);
  if (error->status == LKS_INTERNAL || getenv("LOCKSTEP_TRACE") != NULL) {
    (void)fprintf(stderr, "lockstep: trace: %s\n", error->trace);
  }
  lks_error_line(error, line, sizeof line);
  (void)fprintf(stderr, "lockstep: %s: %s\n", error->status == LKS_STOPPED ? "stopped" : "error",
                line);
}

/* Commands of one rank: no MPI at all. */
static int run_single(lks_cli *cli, lks_error *err) {
  lks_status st = LKS_OK;
  if (launcher_size() > 1) {
    FAIL(LKS_USAGE, "start it without mpirun or srun", "%s runs on one rank, not on %lld",
         cli->command->name, (long long)launcher_size());
  }
  TRY(cli->command->run(cli, err));
cleanup:
  if (st != LKS_OK && launcher_rank() == 0) {
    print_error(err);
  }
  return lks_exit_code(st);
}

/* Ranks that differ in build or configuration would train different things. */
static lks_status compare_ranks(lks_cli *cli, lks_error *err) {
  lks_status st = LKS_OK;
  char id[256], *config = NULL;
  lks_build_id(id, sizeof id);
  lks_world_phase(cli->world, "launcher");
  TRY(lks_world_same(cli->world, "build of lockstep", id, err));
  TRY(lks_world_same(cli->world, "command line", cli->line, err));
  if (cli->settings != NULL) {
    st = lks_settings_print(cli->settings, &config, err);
    TRY(lks_agree(cli->world, st, err));
    TRY(lks_world_same(cli->world, "configuration", config, err));
  }
cleanup:
  free(config);
  return st;
}

static double timeout_of(const lks_cli *cli) {
  return cli->settings != NULL ? cli->settings->run.timeout : LKS_WATCHDOG_TIMEOUT;
}

/* From here on no wait is for ever, and a signal asks for a clean end where there is one. */
static lks_status watch_ranks(lks_cli *cli, lks_error *err) {
  lks_status st = LKS_OK;
  if (cli->command->configured && !cli->command->keeps_nothing) {
    st = lks_stop_catch(err);
  }
  if (st == LKS_OK) {
    st = lks_watchdog_start(cli->world, timeout_of(cli), NULL, err);
  }
  TRY(lks_agree(cli->world, st, err));
  TRY(lks_watchdog_connect(cli->world, err));
cleanup:
  return st;
}

/* parsed: what parsing the command line gave; told to all before anything else. */
static int run_ranks(lks_cli *cli, lks_status parsed, lks_error *err) {
  lks_status st = LKS_OK;
  lks_error found = *err;
  lks_starting *starting = NULL;
  if (parsed == LKS_OK && cli->command->configured && cli->operand_count > 0) {
    parsed = lks_cli_configure(cli, cli->operands[0], &found);
  }
  if (cli->settings != NULL) { /* before a part of MPI opens a context on another device */
    lks_device_choose_early(&cli->settings->device);
  }
  TRY(lks_starting_begin(timeout_of(cli), &starting, err));
  TRY(lks_world_open(MPI_COMM_WORLD, &cli->world, err));
  *err = found;
  lks_world_phase(cli->world, "configuration");
  TRY(lks_agree(cli->world, parsed, err));
  TRY(watch_ranks(cli, err));
  lks_starting_end(&starting);
  TRY(compare_ranks(cli, err));
  TRY(cli->command->run(cli, err));
cleanup:
  lks_starting_end(&starting);
  if (cli->world == NULL) { /* MPI itself would not start */
    if (st != LKS_OK && (err->rank <= 0)) {
      print_error(err);
    }
    return lks_exit_code(st);
  }
  if (st != LKS_OK && !cli->world->agreed) {
    lks_watchdog_end(cli->world, err);
  }
  if (st != LKS_OK && cli->world->rank == 0) {
    print_error(err);
  }
  lks_settings_free(&cli->settings);
  lks_stop_ignore();
  lks_world_close(&cli->world);
  return lks_exit_code(st);
}

/* Where a standard stream is closed, the first file or pipe to be opened would take its place, and
 * what is printed would go there. Writing to what is claimed here fails, as to a closed one. */
static void claim_streams(void) {
  int fd = 0;
  while (fd >= 0 && fd <= STDERR_FILENO) {
    fd = open("/dev/null", O_RDONLY);
  }
  if (fd >= 0) {
    (void)close(fd);
  }
}

/* OpenBLAS chose its kernels before main: where they are too old for this processor, the program
 * begins once more, told better. Where it cannot, the old ones give the same, later. */
static void choose_blas_kernels(char **argv) {
  char path[4096]; /* the link itself would give the process the name `exe` */
  const char *better = lks_blas_better_kernels();
  const ssize_t length = better != NULL ? readlink("/proc/self/exe", path, sizeof path - 1) : 0;
  if (length > 0 && setenv("OPENBLAS_CORETYPE", better, 1) == 0) {
    path[length] = '\0';
    (void)execv(path, argv);
  }
}

/* What was printed is the result of all commands but train, which keeps its own in files, unless
 * it prints a plan: where it could not be written, they failed. */
static int printed(const lks_cli *cli, int code) {
  const bool failed = ferror(stdout) != 0;
  if (cli->command != NULL && strcmp(cli->command->name, "train") == 0 && !cli->flags.dry_run) {
    return code;
  }
  if ((fflush(stdout) != 0 || failed) && code == 0) {
    (void)fprintf(stderr,
                  "lockstep: error: cannot write to standard output: %s; see that what it "
                  "goes to has room\n",
                  strerror(errno));
    return lks_exit_code(LKS_STORAGE);
  }
  return code;
}

/* Under a limit of address space a thread of OpenBLAS may never get the memory that it waits for,
 * and the library's end waits for the thread. Nothing is left for the libraries to end. */
static void leave_at_once(int code) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    (void)fflush(NULL);
    _exit(code);
  }
}

int main(int argc, char **argv) {
  lks_cli cli = {0};
  lks_error err;
  int code = 0;
  claim_streams();
  choose_blas_kernels(argv);
  (void)signal(SIGXFSZ, SIG_IGN); /* then writing fails, and says so */
  lks_error_clear(&err);
  const lks_status parsed = lks_cli_parse(argc, argv, &cli, &err);
  const bool root = launcher_rank() == 0;
  if (parsed == LKS_OK && (cli.flags.version || cli.flags.help)) {
    if (root && cli.flags.version) {
      lks_cli_version(cli.flags.verbose);
    } else if (root) {
      lks_cli_help(cli.command);
    }
  } else if (parsed != LKS_OK && launcher_size() == 1) {
    print_error(&err);
    code = lks_exit_code(parsed);
  } else if (cli.command != NULL && cli.command->single) {
    code = run_single(&cli, &err);
  } else {
    code = run_ranks(&cli, parsed, &err);
  }
  lks_arena_free(&cli.arena);
  code = printed(&cli, code);
  leave_at_once(code);
  return code;
}
