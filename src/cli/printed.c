/* lockstep completion and lockstep man: printed from the same tables as the parser and the help. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static const lks_flag no_flags[] = {{0}};

/* ---- completion (bash) */

/* Dotted keys of scalars, groups opened, choices by their kinds' own keys. */
static void print_keys(const lks_option *rows, const char *prefix) {
  for (; rows->key != NULL; ++rows) {
    char name[256];
    (void)snprintf(name, sizeof name, "%s%s", prefix, rows->key);
    if (rows->type == LKS_OPT_LATER || rows->type == LKS_OPT_LAYERS) {
      continue;
    }
    if (rows->type != LKS_OPT_GROUP) {
      (void)printf(" %s=", name);
    }
    char inner[260];
    (void)snprintf(inner, sizeof inner, "%s.", name);
    if (rows->type == LKS_OPT_GROUP) {
      print_keys(rows->options, inner);
    }
    for (const lks_kind *const *kind = rows->kinds;
         rows->type == LKS_OPT_CHOICE && kind != NULL && *kind != NULL; ++kind) {
      if ((*kind)->options != NULL) {
        print_keys((*kind)->options, inner);
      }
    }
  }
}

static void print_flag_names(const lks_flag *flag) {
  for (; flag != NULL && flag->name != NULL; ++flag) {
    (void)printf(" %s", flag->name);
  }
}

static lks_status run_completion(lks_cli *cli, lks_error *err) {
  (void)cli;
  (void)err;
  (void)printf("# bash completion of lockstep: source <(lockstep completion)\n"
               "_lockstep() {\n"
               "  local word=${COMP_WORDS[COMP_CWORD]} words='' keys='");
  print_keys(lks_setting_rows, "");
  (void)printf("'\n"
               "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n    words='");
  for (size_t i = 0; lks_commands[i] != NULL; ++i) {
    (void)printf("%s ", lks_commands[i]->name);
  }
  (void)printf("--help --version'\n  else\n    case ${COMP_WORDS[1]} in\n");
  for (size_t i = 0; lks_commands[i] != NULL; ++i) {
    (void)printf("    %s) words='", lks_commands[i]->name);
    print_flag_names(lks_commands[i]->flags);
    print_flag_names(lks_common_flags);
    (void)printf("%s' ;;\n", lks_commands[i]->configured ? " '\"$keys\"'" : "");
  }
  (void)printf("    esac\n  fi\n"
               "  mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\"; compgen -f -- "
               "\"$word\")\n"
               "  case ${COMPREPLY[0]-} in *=) compopt -o nospace ;; esac\n}\n");
  (void)printf("complete -o filenames -F _lockstep lockstep\n");
  return LKS_OK;
}

/* ---- man */

/* troff: a leading dot or quote and every backslash or dash mean something of their own. */
static void print_troff(const char *text) {
  bool line_start = true;
  for (const char *c = text; *c != '\0'; ++c) {
    if (line_start && (*c == '.' || *c == '\'')) {
      (void)printf("\\&");
    }
    if (*c == '\\') {
      (void)printf("\\e");
    } else if (*c == '-') {
      (void)printf("\\-");
    } else {
      (void)putchar(*c);
    }
    line_start = *c == '\n';
  }
}

static void print_man_flags(const lks_flag *flag) {
  for (; flag != NULL && flag->name != NULL; ++flag) {
    (void)printf(".TP\n.B ");
    print_troff(flag->name);
    (void)printf("%s%s\n", flag->value != NULL ? " " : "", flag->value != NULL ? flag->value : "");
    print_troff(flag->help);
    (void)printf("\n");
  }
}

static lks_status run_man(lks_cli *cli, lks_error *err) {
  (void)cli;
  lks_status st = LKS_OK;
  lks_text text = {0};
  lks_options_reference(lks_setting_rows, false, &text);
  if (text.failed) {
    FAIL(LKS_NO_MEMORY, NULL, "out of memory for the man page");
  }
  (void)printf(
      ".TH LOCKSTEP 1 \"\" \"lockstep %s\"\n.SH NAME\nlockstep \\- train dense networks in "
      "lockstep on many MPI ranks\n.SH SYNOPSIS\n.B lockstep\nCOMMAND [OPTIONS] [FILE] "
      "[KEY=VALUE ...]\n.SH COMMANDS\n",
      lks_version());
  for (size_t i = 0; lks_commands[i] != NULL; ++i) {
    (void)printf(".SS lockstep %s ", lks_commands[i]->name);
    print_troff(lks_commands[i]->operands);
    (void)printf("\n");
    print_troff(lks_commands[i]->help);
    (void)printf(".\n");
    if (lks_commands[i]->more != NULL) {
      print_troff(lks_commands[i]->more);
      (void)printf("\n");
    }
    print_man_flags(lks_commands[i]->flags);
  }
  (void)printf(".SH CONFIGURATION\n.nf\n");
  print_troff(text.data);
  (void)printf(".fi\n.SH EXIT STATUS\n");
  for (const lks_exit_row *row = lks_exit_rows; row->meaning != NULL; ++row) {
    (void)printf(".TP\n.B %d\n", row->code);
    print_troff(row->meaning);
    (void)printf("\n");
  }
cleanup:
  lks_text_free(&text);
  return st;
}

const lks_command lks_command_completion = {
    .name = "completion",
    .operands = "",
    .help = "print the completion for bash: source <(lockstep completion)",
    .flags = no_flags,
    .single = true,
    .run = run_completion};

const lks_command lks_command_man = {.name = "man",
                                     .operands = "",
                                     .help = "print the man page: lockstep man | man -l -",
                                     .flags = no_flags,
                                     .single = true,
                                     .run = run_man};
