/* Which configuration and checkpoint an operand means. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "store/checkpoint.h"

static bool is_folder(const char *path) {
  struct stat there;
  return stat(path, &there) == 0 && S_ISDIR(there.st_mode);
}

static bool is_hdf5(const char *path) {
  return lks_ends_with(path, ".h5") || lks_ends_with(path, ".hdf5");
}

/* A run folder: its own configuration; the folder may have been moved since. */
static lks_status configure_run(lks_cli *cli, const char *folder, lks_error *err) {
  lks_status st = LKS_OK;
  const char *path = lks_arena_print(&cli->arena, "%s/config.yaml", folder);
  struct stat there;
  TRY_ALLOC(path);
  if (stat(path, &there) != 0) {
    FAIL(LKS_CONFIG, "name a run's folder, a configuration (.yaml) or a checkpoint (.h5)",
         "%s: a folder without config.yaml is no run", folder);
  }
  TRY(lks_settings_read(path, cli->overrides, cli->override_count, &cli->settings, err));
  TRY(lks_path_resolve(&cli->settings->arena, NULL, folder, &cli->settings->run.folder, err));
cleanup:
  return st;
}

static lks_status configure_checkpoint(lks_cli *cli, const char *path, lks_error *err) {
  lks_status st = LKS_OK;
  lks_checkpoint checkpoint = {0};
  TRY(lks_checkpoint_peek(path, &cli->arena, &checkpoint, err));
  if (checkpoint.config == NULL) {
    FAIL(LKS_CONFIG, "name the configuration, and the file by --checkpoint",
         "%s was not written by lockstep and holds no configuration", path);
  }
  TRY(lks_settings_parse(checkpoint.config, path, cli->overrides, cli->override_count,
                         &cli->settings, err));
  cli->checkpoint = path;
cleanup:
  return st;
}

lks_status lks_cli_configure(lks_cli *cli, const char *operand, lks_error *err) {
  if (is_folder(operand)) {
    return configure_run(cli, operand, err);
  }
  if (is_hdf5(operand)) {
    return configure_checkpoint(cli, operand, err);
  }
  return lks_settings_read(operand, cli->overrides, cli->override_count, &cli->settings, err);
}
