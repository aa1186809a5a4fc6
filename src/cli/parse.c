/* From argv to lks_cli, by the tables. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

const lks_command *const lks_commands[] = {
    &lks_command_train,   &lks_command_evaluate,   &lks_command_predict, &lks_command_check,
    &lks_command_devices, &lks_command_convert,    &lks_command_inspect, &lks_command_bench,
    &lks_command_options, &lks_command_completion, &lks_command_man,     NULL};

const lks_flag lks_common_flags[] = {
    {"--help", NULL, offsetof(lks_flags, help), "what this command does, and its options"},
    {"--version", NULL, offsetof(lks_flags, version), "the version; with --verbose, of everything"},
    {"--verbose", NULL, offsetof(lks_flags, verbose), "more words"},
    {0}};

static const lks_flag *find_flag(const lks_flag *table, const char *name, size_t length) {
  for (; table != NULL && table->name != NULL; ++table) {
    if (strlen(table->name) == length && strncmp(table->name, name, length) == 0) {
      return table;
    }
  }
  return NULL;
}

enum { MAX_NAMES = 64 };

static lks_status unknown_flag(const lks_cli *cli, const char *given, lks_error *err) {
  const char *names[MAX_NAMES + 1] = {0};
  size_t count = 0;
  const lks_flag *tables[] = {cli->command != NULL ? cli->command->flags : NULL, lks_common_flags};
  for (size_t t = 0; t < 2; ++t) {
    for (const lks_flag *flag = tables[t]; flag != NULL && flag->name != NULL; ++flag) {
      if (count < MAX_NAMES) {
        names[count++] = flag->name;
      }
    }
  }
  const lks_status st = lks_fail(err, LKS_USAGE, NULL, "unknown option '%s'", given);
  const char *nearest = lks_nearest(given, names);
  if (nearest != NULL) {
    lks_advise(err, "did you mean %s?", nearest);
  } else {
    lks_advise(err, "see lockstep %s%s--help", cli->command != NULL ? cli->command->name : "",
               cli->command != NULL ? " " : "");
  }
  return st;
}

/* One flag at argv[*at], with its value as "--name=value" or the next argument. */
static lks_status take_flag(lks_cli *cli, int argc, char **argv, int *at, lks_error *err) {
  lks_status st = LKS_OK;
  const char *given = strcmp(argv[*at], "-h") == 0 ? "--help" : argv[*at];
  const char *equals = strchr(given, '=');
  const size_t length = equals != NULL ? (size_t)(equals - given) : strlen(given);
  const lks_flag *flag =
      find_flag(cli->command != NULL ? cli->command->flags : NULL, given, length);
  flag = flag != NULL ? flag : find_flag(lks_common_flags, given, length);
  if (flag == NULL) {
    st = unknown_flag(cli, given, err);
    goto cleanup;
  }
  void *member = (char *)&cli->flags + flag->offset;
  if (flag->value != NULL && *(const char **)member != NULL) {
    FAIL(LKS_USAGE, "give it once; names of a list are joined by commas", "%s is given twice",
         flag->name);
  }
  if (flag->value == NULL) {
    if (equals != NULL) {
      FAIL(LKS_USAGE, "leave the value out", "%s takes no value", flag->name);
    }
    *(bool *)member = true;
  } else if (equals != NULL) {
    *(const char **)member = equals + 1;
  } else if (*at + 1 < argc) {
    *at += 1;
    *(const char **)member = argv[*at];
  } else {
    st = lks_fail(err, LKS_USAGE, NULL, "%s needs a value", flag->name);
    lks_advise(err, "write %s %s", flag->name, flag->value);
  }
cleanup:
  return st;
}

static lks_status find_command(lks_cli *cli, const char *name, lks_error *err) {
  lks_status st = LKS_OK;
  const char *names[MAX_NAMES + 1] = {0};
  lks_text all = {0};
  for (size_t i = 0; lks_commands[i] != NULL && i < MAX_NAMES; ++i) {
    names[i] = lks_commands[i]->name;
    lks_text_add(&all, "%s%s", i > 0 ? ", " : "", names[i]);
    if (strcmp(names[i], name) == 0) {
      cli->command = lks_commands[i];
    }
  }
  if (cli->command == NULL) {
    st = lks_fail(err, LKS_USAGE, NULL, "unknown command '%s'", name);
    const char *nearest = lks_nearest(name, names);
    if (nearest != NULL) {
      lks_advise(err, "did you mean %s?", nearest);
    } else {
      lks_advise(err, "use one of %s", all.data != NULL ? all.data : "lockstep --help");
    }
  }
  lks_text_free(&all);
  return st;
}

static bool is_override(const lks_cli *cli, const char *argument) {
  const char *equals = strchr(argument, '=');
  const char *slash = strchr(argument, '/');
  return cli->command->configured && equals != NULL && (slash == NULL || slash > equals);
}

static lks_status check_operands(const lks_cli *cli, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_command *command = cli->command;
  if (cli->flags.help || cli->flags.version) {
    goto cleanup;
  }
  if (command == NULL) {
    FAIL(LKS_USAGE, "see lockstep --help", "no command is named");
  }
  if (cli->operand_count < command->least || cli->operand_count > command->most) {
    st = lks_fail(err, LKS_USAGE, NULL, "%s: %s", command->name,
                  cli->operand_count < command->least ? "an argument is missing"
                                                      : "there are too many arguments");
    lks_advise(err, "usage: lockstep %s %s", command->name, command->operands);
  }
cleanup:
  return st;
}

lks_status lks_cli_parse(int argc, char **argv, lks_cli *cli, lks_error *err) {
  lks_status st = LKS_OK;
  lks_text line = {0};
  bool only_operands = false;
  cli->operands = lks_arena_alloc(&cli->arena, (size_t)argc * sizeof(char *));
  cli->overrides = lks_arena_alloc(&cli->arena, (size_t)argc * sizeof(char *));
  TRY_ALLOC(cli->operands);
  TRY_ALLOC(cli->overrides);
  for (int i = 0; i < argc; ++i) {
    lks_text_add(&line, "%s%s", i > 0 ? " " : "", argv[i]);
  }
  cli->line = line.data != NULL ? lks_arena_copy(&cli->arena, line.data) : "";
  for (int i = 1; i < argc; ++i) {
    if (!only_operands && strcmp(argv[i], "--") == 0) {
      only_operands = true;
    } else if (!only_operands && argv[i][0] == '-' && argv[i][1] != '\0') {
      TRY(take_flag(cli, argc, argv, &i, err));
    } else if (cli->command == NULL) {
      TRY(find_command(cli, argv[i], err));
    } else if (is_override(cli, argv[i])) {
      cli->overrides[cli->override_count++] = argv[i];
    } else {
      cli->operands[cli->operand_count++] = argv[i];
    }
  }
  TRY(check_operands(cli, err));
cleanup:
  lks_text_free(&line);
  return st;
}
