/* The commands: one row and one file each. The rows drive parser, help and reference. */
#ifndef LKS_CLI_CLI_H
#define LKS_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/text.h"
#include "train/settings.h"
#include "world/world.h"

/* Values of all flags of all commands; a command reads those in its own row. */
typedef struct lks_flags {
  bool help, version, verbose;
  bool dry_run, overwrite, json, probabilities, markdown;
  const char *checkpoint, *data, *in, *out, *layer;
  const char *features, *targets, *delimiter, *header, *compress;
  const char *device, *exclude_host, *seconds;
} lks_flags;

typedef struct lks_flag {
  const char *name;  /* "--dry-run"; NULL ends a table */
  const char *value; /* what stands for its value in help; NULL: a switch */
  size_t offset;     /* into lks_flags: bool, or const char * */
  const char *help;
} lks_flag;

/* A flag of several commands: device/exclude.h. */
#define LKS_FLAG_EXCLUDE_HOST                                                                      \
  {                                                                                                \
    "--exclude-host", "HOSTS", offsetof(lks_flags, exclude_host),                                  \
        "refuse to run where a rank is on one of these hosts"                                      \
  }

typedef struct lks_command lks_command;

/* A command line, parsed. */
typedef struct lks_cli {
  const lks_command *command; /* NULL: none named */
  lks_flags flags;
  const char **operands; /* [operand_count] */
  int operand_count;
  const char **overrides; /* [override_count] KEY=VALUE */
  int override_count;
  const char *line;       /* the whole command line, for provenance */
  lks_world *world;       /* NULL for commands of one rank */
  lks_settings *settings; /* of the configuration, where `configured` */
  const char *checkpoint; /* which the operand names, or that of its run */
  lks_arena arena;
} lks_cli;

struct lks_command {
  const char *name;
  const char *operands; /* "CONFIG [KEY=VALUE ...]" */
  const char *help;     /* one line */
  const char *more;     /* a paragraph for its own --help; may be NULL */
  const lks_flag *flags;
  int least, most;    /* operands */
  bool configured;    /* its operand names a configuration; KEY=VALUE are overrides */
  bool keeps_nothing; /* a signal may end it at once */
  bool single;        /* one rank, without MPI */
  lks_status (*run)(lks_cli *cli, lks_error *err);
};

extern const lks_command *const lks_commands[]; /* NULL-terminated */
extern const lks_flag lks_common_flags[];

extern const lks_command lks_command_train, lks_command_evaluate, lks_command_predict,
    lks_command_check, lks_command_devices, lks_command_convert, lks_command_inspect,
    lks_command_bench, lks_command_options, lks_command_completion, lks_command_man;

/* Fills cli from the arguments. LKS_USAGE names the nearest command or flag. */
lks_status lks_cli_parse(int argc, char **argv, lks_cli *cli, lks_error *err) LKS_MUST_USE;

/* The documented exit codes; meaning NULL ends the table. */
typedef struct lks_exit_row {
  int code;
  const char *meaning;
} lks_exit_row;
extern const lks_exit_row lks_exit_rows[];

/* Help of the program (command NULL) or of one command, to stdout. */
void lks_cli_help(const lks_command *command);

/* Versions: one line, or one a part. */
void lks_cli_version(bool verbose);

/* Finds the configuration that an operand means: a YAML file, a run folder, or a checkpoint (whose
 * stored configuration is used). Not collective. */
lks_status lks_cli_configure(lks_cli *cli, const char *operand, lks_error *err) LKS_MUST_USE;

/* Identifies this build of program and library: their build ids in hex, in out. */
void lks_build_id(char *out, size_t size);

#endif
