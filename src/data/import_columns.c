/* Which columns of a CSV file make which dataset: names and numbers resolved, clashes refused. */
#include <stdlib.h>
#include <string.h>

#include "data/import_parts.h"

/* Names of the header for a message, the first few of them. */
static void say_columns(const lks_import_table *table, lks_text *out) {
  if (table->names == NULL) {
    lks_text_add(out, "columns 1 to %d, without a header", table->columns);
    return;
  }
  for (int i = 0; i < table->columns && i < 12; ++i) {
    lks_text_add(out, "%s%s", i > 0 ? ", " : "", table->names[i]);
  }
  if (table->columns > 12) {
    lks_text_add(out, ", ... %d in all", table->columns);
  }
}

static lks_status no_column(const lks_import_table *table, const char *wanted, lks_error *err) {
  lks_text has = {0};
  say_columns(table, &has);
  const lks_status st = lks_fail(err, LKS_USAGE, "give column names, or numbers from 1",
                                 "%s: no column '%s' (has %s)", table->path, wanted,
                                 has.data != NULL && !has.failed ? has.data : "others");
  if (table->names != NULL) {
    (void)lks_import_advise_delimiter(table->columns, table->names[0], err);
  }
  lks_text_free(&has);
  return st;
}

/* The column of a name or, where no name is equal, of a number from 1. */
static lks_status find_column(const lks_import_table *table, const char *wanted, int *out,
                              lks_error *err) {
  int found = -1;
  for (int i = 0; table->names != NULL && i < table->columns; ++i) {
    if (strcmp(table->names[i], wanted) == 0) {
      if (found >= 0) {
        return lks_fail(err, LKS_USAGE, "give its number", "%s: columns %d and %d are both '%s'",
                        table->path, found + 1, i + 1, wanted);
      }
      found = i;
    }
  }
  int64_t number = 0;
  if (found < 0 && lks_parse_int64(wanted, &number) && number >= 1 && number <= table->columns) {
    found = (int)number - 1;
  }
  *out = found;
  return found >= 0 ? LKS_OK : no_column(table, wanted, err);
}

/* Columns by the list, or all whose mark is unset when the list is empty; sets their marks. */
static lks_status fill_part(const lks_import_table *table, const lks_texts *wanted, bool *marks,
                            lks_import_part *part, lks_arena *arena, lks_error *err) {
  lks_status st = LKS_OK;
  part->columns = lks_arena_alloc(arena, (size_t)table->columns * sizeof *part->columns);
  TRY_ALLOC(part->columns);
  for (int i = 0; i < wanted->count; ++i) {
    int column = -1;
    TRY(find_column(table, wanted->items[i], &column, err));
    if (marks[column]) {
      FAIL(LKS_USAGE, "name each column once, for features or for targets",
           "%s: column '%s' is chosen twice", table->path, wanted->items[i]);
    }
    marks[column] = true;
    part->columns[part->count++] = column;
  }
  for (int i = 0; wanted->count == 0 && i < table->columns; ++i) {
    if (!marks[i]) {
      part->columns[part->count++] = i;
    }
  }
  if (part->count == 0) {
    FAIL(LKS_USAGE, "leave columns for features", "%s: every column is a target", table->path);
  }

cleanup:
  return st;
}

/* "x" or "x_NAME". */
static const char *part_name(lks_arena *arena, const char *letter, const char *name) {
  return name == NULL ? letter : lks_arena_print(arena, "%s_%s", letter, name);
}

lks_status lks_import_table_choose(const lks_import_request *request, const lks_import_input *input,
                                   lks_import_table *table, lks_arena *arena, lks_error *err) {
  lks_status st = LKS_OK;
  lks_import_part *first = &table->parts[0], *targets = &table->parts[1];
  bool *marks = calloc((size_t)table->columns, sizeof *marks);
  TRY_ALLOC(marks);
  *first = (lks_import_part){.fits_u8 = true, .fits_i32 = true};
  *targets = (lks_import_part){.fits_u8 = true, .fits_i32 = true, .targets = true};
  if (request->features.count == 0 && request->targets.count == 0) {
    first->dataset = input->name != NULL ? input->name : lks_import_stem(arena, input->path);
  } else {
    first->dataset = part_name(arena, "x", input->name);
  }
  TRY_ALLOC(first->dataset);
  table->part_count = 1;
  if (request->targets.count > 0) {
    targets->dataset = part_name(arena, "y", input->name);
    TRY_ALLOC(targets->dataset);
    TRY(fill_part(table, &request->targets, marks, targets, arena, err));
    table->part_count = 2;
  }
  TRY(fill_part(table, &request->features, marks, first, arena, err));

cleanup:
  free(marks);
  return st;
}
