/* lockstep options: every key of a configuration, from the tables that also parse it. */
#include <stdio.h>

#include "cli/cli.h"

static const lks_flag flags[] = {
    {"--markdown", NULL, offsetof(lks_flags, markdown), "as the page docs/options.md"}, {0}};

static lks_status run(lks_cli *cli, lks_error *err) {
  lks_status st = LKS_OK;
  lks_text text = {0};
  lks_options_reference(lks_setting_rows, cli->flags.markdown, &text);
  if (text.failed) {
    FAIL(LKS_NO_MEMORY, NULL, "out of memory for the reference");
  }
  (void)fputs(text.data, stdout);
cleanup:
  lks_text_free(&text);
  return st;
}

const lks_command lks_command_options = {.name = "options",
                                         .operands = "[--markdown]",
                                         .help = "list every key of a configuration",
                                         .flags = flags,
                                         .single = true,
                                         .run = run};
