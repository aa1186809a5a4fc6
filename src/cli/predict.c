/* lockstep predict */
#include "cli/cli.h"

static const lks_flag flags[] = {
    {"--in", "FILE", offsetof(lks_flags, in), "HDF5 file of features"},
    {"--features", "NAMES", offsetof(lks_flags, features),
     "its datasets, joined by commas (default: as in training)"},
    {"--out", "FILE", offsetof(lks_flags, out), "HDF5 file to write: /predictions"},
    {"--checkpoint", "FILE", offsetof(lks_flags, checkpoint),
     "weights to use (default: model.weights.h5 of the run)"},
    {"--layer", "NAME", offsetof(lks_flags, layer), "an inner layer's output instead"},
    {"--probabilities", NULL, offsetof(lks_flags, probabilities),
     "apply the loss's softmax or sigmoid to logits"},
    {0}};

static lks_status run(lks_cli *cli, lks_error *err) {
  lks_status st = LKS_OK;
  if (cli->flags.in == NULL || cli->flags.out == NULL) {
    st = lks_fail(err, LKS_USAGE, "usage: lockstep predict RUN --in FILE --out FILE",
                  "predict: %s is missing", cli->flags.in == NULL ? "--in" : "--out");
    return lks_agree(cli->world, st, err);
  }
  const lks_predict_request request = {
      .checkpoint = cli->flags.checkpoint != NULL ? cli->flags.checkpoint : cli->checkpoint,
      .in = cli->flags.in,
      .features = cli->flags.features,
      .out = cli->flags.out,
      .layer = cli->flags.layer,
      .probabilities = cli->flags.probabilities};
  return lks_predict(cli->world, cli->settings, &request, err);
}

const lks_command lks_command_predict = {
    .name = "predict",
    .operands = "RUN|CHECKPOINT|CONFIG --in FILE --out FILE [KEY=VALUE ...]",
    .help = "predictions to HDF5, raw units in and out",
    .more = "Row i of /predictions belongs to row i of the input, at any number of ranks. Targets\n"
            "are not needed.",
    .flags = flags,
    .least = 1,
    .most = 1,
    .configured = true,
    .run = run};
