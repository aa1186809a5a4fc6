/* lockstep evaluate */
#include "cli/cli.h"

static const lks_flag flags[] = {{"--data", "SET", offsetof(lks_flags, data),
                                  "train, validation or test (default: test, else validation)"},
                                 {"--checkpoint", "FILE", offsetof(lks_flags, checkpoint),
                                  "weights to use (default: model.weights.h5 of the run)"},
                                 {0}};

static lks_status run(lks_cli *cli, lks_error *err) {
  const lks_evaluate_request request = {
      .checkpoint = cli->flags.checkpoint != NULL ? cli->flags.checkpoint : cli->checkpoint,
      .data = cli->flags.data};
  return lks_evaluate(cli->world, cli->settings, &request, err);
}

const lks_command lks_command_evaluate = {
    .name = "evaluate",
    .operands = "RUN|CONFIG|CHECKPOINT [KEY=VALUE ...]",
    .help = "loss and metrics of a trained network, the same on any number of ranks",
    .more = "Loss and metrics are in scaled units; regressions also show mae, rmse and r2 of each\n"
            "output in raw units.",
    .flags = flags,
    .least = 1,
    .most = 1,
    .configured = true,
    .run = run};
