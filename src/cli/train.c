/* lockstep train */
#include <signal.h>

#include "cli/cli.h"
#include "device/exclude.h"

static const lks_flag flags[] = {
    {"--dry-run", NULL, offsetof(lks_flags, dry_run), "print the plan and touch nothing"},
    {"--overwrite", NULL, offsetof(lks_flags, overwrite), "begin anew in a used folder"},
    LKS_FLAG_EXCLUDE_HOST,
    {0}};

static lks_status run(lks_cli *cli, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_train_request request = {
      .dry_run = cli->flags.dry_run, .overwrite = cli->flags.overwrite, .command = cli->line};
  if (!cli->flags.dry_run) {
    /* What it prints is not its result: a reader that goes away (a pager, tee) must not end it. */
    (void)signal(SIGPIPE, SIG_IGN);
  }
  TRY(lks_exclude_hosts(cli->world, cli->flags.exclude_host, err));
  TRY(lks_train(cli->world, cli->settings, &request, err));
cleanup:
  return st;
}

const lks_command lks_command_train = {
    .name = "train",
    .operands = "CONFIG [KEY=VALUE ...]",
    .help = "train a network, or continue where a run was stopped",
    .more = "Trains on the rows that CONFIG (YAML) names and keeps everything in run.folder. Run\n"
            "again to continue: a run resumes from its newest sound checkpoint. TERM, INT, HUP or\n"
            "USR1 to any rank, train.max_time, or a file STOP in the run folder save and exit 75.",
    .flags = flags,
    .least = 1,
    .most = 1,
    .configured = true,
    .run = run};
