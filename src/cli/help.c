/* --help on every level, from the tables. */
#include <stdio.h>

#include "cli/cli.h"

const lks_exit_row lks_exit_rows[] = {
    {0, "done"},
    {1, "internal error"},
    {2, "usage or configuration"},
    {3, "data (file, shape, value)"},
    {4, "device"},
    {5, "communication (a rank lost, a timeout, ranks that differ)"},
    {6, "loss or gradient not finite"},
    {7, "storage (cannot write, checkpoint damaged)"},
    {75, "stopped on request, checkpoint written: run again to continue"},
    {0, NULL}};

static void print_flags(const lks_flag *flag) {
  for (; flag != NULL && flag->name != NULL; ++flag) {
    char left[64];
    (void)snprintf(left, sizeof left, "%s%s%s", flag->name, flag->value != NULL ? " " : "",
                   flag->value != NULL ? flag->value : "");
    (void)printf("  %-24s %s\n", left, flag->help);
  }
}

static void print_program(void) {
  (void)printf("lockstep trains dense networks in lockstep on many MPI ranks.\n\n"
               "  lockstep COMMAND [OPTIONS] [FILE] [KEY=VALUE ...]\n"
               "  mpirun -n 4 lockstep COMMAND ...\n\nCommands\n");
  for (size_t i = 0; lks_commands[i] != NULL; ++i) {
    (void)printf("  %-10s %s\n", lks_commands[i]->name, lks_commands[i]->help);
  }
  (void)printf("\nOptions\n");
  print_flags(lks_common_flags);
  (void)printf("\nlockstep COMMAND --help says more; lockstep options lists every key of a "
               "configuration.\n\nExit codes\n");
  for (const lks_exit_row *row = lks_exit_rows; row->meaning != NULL; ++row) {
    (void)printf("  %-4d %s\n", row->code, row->meaning);
  }
}

void lks_cli_help(const lks_command *command) {
  if (command == NULL) {
    print_program();
    return;
  }
  (void)printf("lockstep %s %s\n\n%s%s\n", command->name, command->operands, command->help,
               command->single ? " (one rank)" : "");
  if (command->more != NULL) {
    (void)printf("\n%s\n", command->more);
  }
  (void)printf("\nOptions\n");
  print_flags(command->flags);
  print_flags(lks_common_flags);
  if (command->configured) {
    (void)printf("\nKEY=VALUE sets a key of the configuration: train.epochs=3, "
                 "model.0.units=64.\nlockstep options lists them all.\n");
  }
}
