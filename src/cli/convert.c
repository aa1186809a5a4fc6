/* lockstep convert */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "data/import.h"

static const lks_flag flags[] = {
    {"--features", "A,B", offsetof(lks_flags, features), "CSV columns that become dataset x"},
    {"--targets", "C", offsetof(lks_flags, targets), "CSV columns that become dataset y"},
    {"--delimiter", "D", offsetof(lks_flags, delimiter),
     "between CSV columns (default ,; \\t: tab)"},
    {"--header", "yes|no", offsetof(lks_flags, header), "whether a CSV's first line has names"},
    {"--compress", "0-9", offsetof(lks_flags, compress), "deflate the datasets (default 0: not)"},
    {"--overwrite", NULL, offsetof(lks_flags, overwrite), "replace an OUT.h5 that exists"},
    {0}};

/* "A,B" as a list, in the arena. */
static lks_status split(const char *text, lks_arena *arena, lks_texts *out, lks_error *err) {
  lks_status st = LKS_OK;
  *out = (lks_texts){0};
  if (text == NULL) {
    goto cleanup;
  }
  char *copy = lks_arena_copy(arena, text);
  out->items = lks_arena_alloc(arena, (strlen(text) + 1) * sizeof(char *));
  TRY_ALLOC(copy);
  TRY_ALLOC(out->items);
  for (char *save = NULL, *name = strtok_r(copy, ",", &save); name != NULL;
       name = strtok_r(NULL, ",", &save)) {
    out->items[out->count++] = name;
  }
  if (out->count == 0) {
    FAIL(LKS_USAGE, "write column names or numbers, joined by commas", "'%s' names no column",
         text);
  }
cleanup:
  return st;
}

static lks_status read_flags(lks_cli *cli, lks_import_request *request, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_flags *given = &cli->flags;
  TRY(split(given->features, &cli->arena, &request->features, err));
  TRY(split(given->targets, &cli->arena, &request->targets, err));
  request->overwrite = given->overwrite;
  if (given->delimiter != NULL) {
    const char *d = strcmp(given->delimiter, "\\t") == 0 ? "\t" : given->delimiter;
    if (strlen(d) != 1) {
      FAIL(LKS_USAGE, "name one character", "--delimiter: '%s' is not one character", d);
    }
    request->delimiter = d[0];
  }
  if (given->header != NULL) {
    bool header = false;
    if (!lks_parse_bool(given->header, &header)) {
      FAIL(LKS_USAGE, "write yes or no", "--header: '%s' is neither", given->header);
    }
    request->header = header ? LKS_IMPORT_HEADER_YES : LKS_IMPORT_HEADER_NO;
  }
  if (given->compress != NULL) {
    int64_t level = -1;
    if (!lks_parse_int64(given->compress, &level) || level < 0 || level > 9) {
      FAIL(LKS_USAGE, "write a number from 0 to 9", "--compress: '%s' is no level",
           given->compress);
    }
    request->deflate = (int)level;
  }
cleanup:
  return st;
}

static void print_notes(const lks_text *notes) {
  for (const char *line = notes->data; line != NULL && *line != '\0';) {
    const size_t length = strcspn(line, "\n");
    (void)fprintf(stderr, "lockstep: note: %.*s\n", (int)length, line);
    line += length + (line[length] != '\0');
  }
}

static lks_status run(lks_cli *cli, lks_error *err) {
  lks_status st = LKS_OK;
  lks_text summary = {0}, notes = {0};
  const int inputs = cli->operand_count - 1;
  lks_import_input *input = lks_arena_alloc(&cli->arena, (size_t)inputs * sizeof *input);
  lks_import_request request = {.inputs = input,
                                .input_count = inputs,
                                .output = cli->operands[inputs],
                                .summary = &summary,
                                .notes = &notes};
  TRY_ALLOC(input);
  for (int i = 0; i < inputs; ++i) {
    TRY(lks_import_input_parse(cli->operands[i], &cli->arena, &input[i], err));
  }
  TRY(read_flags(cli, &request, err));
  TRY(lks_import_files(&request, err));
  (void)fputs(summary.data != NULL ? summary.data : "", stdout);
  print_notes(&notes);
cleanup:
  lks_text_free(&summary);
  lks_text_free(&notes);
  return st;
}

const lks_command lks_command_convert = {
    .name = "convert",
    .operands = "[NAME=]IN ... OUT.h5",
    .help = "CSV, NPY or IDX files (gzipped too) to the HDF5 that train reads",
    .more = "Each IN becomes a dataset NAME (default: the file's stem). CSV columns are picked by\n"
            "name or number from 1: --features and --targets become x and y (x_NAME, y_NAME);\n"
            "--targets alone leaves all other columns to x; class names become numbers from 0.",
    .flags = flags,
    .least = 2,
    .most = 10000,
    .single = true,
    .run = run};
