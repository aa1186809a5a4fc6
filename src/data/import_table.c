/* CSV tables, looked over: is there a header, how many rows, what type, which class names. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/import_parts.h"

typedef enum lks_cell { LKS_CELL_NUMBER, LKS_CELL_MISSING, LKS_CELL_TEXT } lks_cell;

/* Spaces around a cell are not part of it. */
static char *trim(char *text) {
  text += strspn(text, " \t");
  size_t length = strlen(text);
  while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t')) {
    text[--length] = '\0';
  }
  return text;
}

static lks_cell classify(const char *text, double *value) {
  static const char *const missing[] = {"", "NA", "N/A", "NaN", "nan", "null", "NULL", "?"};
  for (size_t i = 0; i < sizeof missing / sizeof missing[0]; ++i) {
    if (strcmp(text, missing[i]) == 0) {
      return LKS_CELL_MISSING;
    }
  }
  return lks_parse_real(text, value) ? LKS_CELL_NUMBER : LKS_CELL_TEXT;
}

/* A number as others write it: with a decimal comma, or with separators of thousands. */
static bool has_commas(const char *text) {
  const char *rest = text + strspn(text, "+-");
  const size_t length = strspn(rest, "0123456789.,");
  const char *comma = memchr(rest, ',', length), *point = memchr(rest, '.', length);
  const bool points = point != NULL && memchr(point + 1, '.', length - (size_t)(point + 1 - rest));
  const char *exponent = rest + length;
  if (*exponent == 'e' || *exponent == 'E') {
    exponent += 1 + strspn(exponent + 1, "+-");
    exponent += strspn(exponent, "0123456789");
  }
  return (comma != NULL || points) && strcspn(rest, "0123456789") < length && *exponent == '\0';
}

/* "FILE:LINE: column 3 ('age')". */
static void locate(const lks_import_table *table, int64_t line, int column, lks_text *out) {
  lks_text_add(out, "%s:%lld: column %d", table->path, (long long)line, column + 1);
  if (table->names != NULL) {
    lks_text_add(out, " ('%.60s')", table->names[column]);
  }
}

static lks_status missing_value(const lks_import_table *table, const lks_csv *csv, int column,
                                lks_error *err) {
  lks_text where = {0};
  locate(table, csv->line, column, &where);
  const lks_status st = lks_fail(err, LKS_DATA, "fill it in, or remove the row",
                                 "%s: missing value", where.data != NULL ? where.data : "CSV");
  lks_text_free(&where);
  return st;
}

/* Of numbers or of class names. */
static bool is_sole_target(const lks_import_table *table, int column) {
  const lks_import_part *targets = &table->parts[1];
  return table->part_count == 2 && targets->count == 1 && targets->columns[0] == column;
}

bool lks_import_advise_delimiter(int columns, const char *text, lks_error *err) {
  const char *other = columns == 1 ? strpbrk(text, ";\t|,") : NULL;
  if (other != NULL) {
    lks_advise(err, "if '%s' separates the columns, say --delimiter '%s'",
               *other == '\t' ? "\\t" : (char[2]){*other, '\0'},
               *other == '\t' ? "\\t" : (char[2]){*other, '\0'});
  }
  return other != NULL;
}

/* Why a cell is text, as far as one can tell: the wrong delimiter above all. number_line is where
 * its column has a number, 0 where that is not what makes it wrong. */
static lks_status not_a_number(const lks_import_table *table, int64_t line, int column,
                               const char *text, int64_t number_line, lks_error *err) {
  lks_text where = {0}, but = {0};
  locate(table, line, column, &where);
  if (number_line > 0) {
    lks_text_add(&but, ", but line %lld has one", (long long)number_line);
  }
  const lks_status st = lks_fail(
      err, LKS_DATA, "leave text out with --features, or make class names the one --targets",
      "%s: '%.80s' is not a number%s", where.data != NULL ? where.data : "CSV", text,
      but.data != NULL ? but.data : "");
  lks_text_free(&where);
  lks_text_free(&but);
  if (lks_import_advise_delimiter(table->columns, text, err)) {
    return st;
  }
  if (has_commas(text)) {
    lks_advise(err, "write numbers with a decimal point%s",
               is_sole_target(table, column) ? ", or class names with a letter in each" : "");
  } else if (is_sole_target(table, column)) {
    lks_advise(err, "write numbers alone, or class names alone");
  }
  return st;
}

lks_status lks_import_cell_number(const lks_import_table *table, const lks_csv *csv, int column,
                                  double *out, lks_error *err) {
  const char *text = trim(lks_csv_field(csv, column));
  switch (classify(text, out)) {
  case LKS_CELL_NUMBER:
    return LKS_OK;
  case LKS_CELL_MISSING:
    return missing_value(table, csv, column, err);
  default:
    return not_a_number(table, csv->line, column, text, 0, err);
  }
}

lks_status lks_import_cell_name(const lks_import_table *table, const lks_csv *csv, int column,
                                const char **out, lks_error *err) {
  double value = 0.0;
  *out = trim(lks_csv_field(csv, column));
  if (classify(*out, &value) == LKS_CELL_MISSING) {
    return missing_value(table, csv, column, err);
  }
  if (!lks_is_utf8(*out)) {
    return lks_fail(err, LKS_DATA, "save the file in UTF-8 (iconv -f latin1 -t utf-8)",
                    "%s:%lld: column %d: a class name that is not UTF-8", table->path,
                    (long long)csv->line, column + 1);
  }
  return LKS_OK;
}

int lks_import_class_place(const lks_import_classes *classes, const char *name, bool *found) {
  int low = 0, high = classes->count;
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (strcmp(classes->names[middle], name) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  *found = low < classes->count && strcmp(classes->names[low], name) == 0;
  return low;
}

static lks_status add_class(const lks_import_table *table, const lks_csv *csv, int column,
                            lks_import_classes *classes, lks_arena *arena, lks_error *err) {
  lks_status st = LKS_OK;
  const char *name = NULL;
  bool found = false;
  TRY(lks_import_cell_name(table, csv, column, &name, err));
  const int place = lks_import_class_place(classes, name, &found);
  if (found) {
    goto cleanup;
  }
  if (classes->count == LKS_IMPORT_MAX_NAMES) {
    FAIL(LKS_DATA, "write class numbers from 0 there, or name another column in --targets",
         "%s:%lld: column %d: over %d different class names", table->path, (long long)csv->line,
         column + 1, LKS_IMPORT_MAX_NAMES);
  }
  const char *copy = lks_arena_copy(arena, name);
  TRY_ALLOC(copy);
  memmove(&classes->names[place + 1], &classes->names[place],
          (size_t)(classes->count - place) * sizeof classes->names[0]);
  classes->names[place] = copy;
  ++classes->count;

cleanup:
  return st;
}

/* One row of a sole target, whose first row decides what all rows have to be: numbers or class
 * names. Text that reads as a number with a decimal comma is one, not the name of a class. */
static lks_status survey_target(const lks_import_table *table, const lks_csv *csv,
                                lks_import_part *part, lks_arena *arena, lks_error *err) {
  lks_status st = LKS_OK;
  double value = 0.0;
  const int column = part->columns[0];
  const char *text = trim(lks_csv_field(csv, column));
  const lks_cell cell = classify(text, &value);
  if (table->rows == 0 && cell == LKS_CELL_TEXT) {
    part->text = true;
    part->first_line = csv->line;
    part->first_text = lks_arena_copy(arena, text);
    TRY_ALLOC(part->first_text);
  }
  if (cell == LKS_CELL_TEXT && (!part->text || has_commas(text))) {
    TRY(not_a_number(table, csv->line, column, text, 0, err));
  }
  if (cell == LKS_CELL_NUMBER && part->text) {
    TRY(not_a_number(table, part->first_line, column, part->first_text, csv->line, err));
  }

cleanup:
  return st;
}

/* One row of one dataset. */
static lks_status survey_part(const lks_import_table *table, const lks_csv *csv,
                              lks_import_part *part, lks_import_classes *classes, lks_arena *arena,
                              lks_error *err) {
  lks_status st = LKS_OK;
  double value = 0.0;
  if (part->targets && part->count == 1) {
    TRY(survey_target(table, csv, part, arena, err));
  }
  if (part->text) {
    return add_class(table, csv, part->columns[0], classes, arena, err);
  }
  for (int i = 0; i < part->count; ++i) {
    TRY(lks_import_cell_number(table, csv, part->columns[i], &value, err));
    const bool whole = value == floor(value);
    part->fits_u8 = part->fits_u8 && whole && value >= 0 && value <= UINT8_MAX;
    part->fits_i32 = part->fits_i32 && whole && value >= INT32_MIN && value <= INT32_MAX;
  }

cleanup:
  return st;
}

static lks_status ambiguous(const lks_import_table *table, lks_csv *csv, lks_error *err) {
  const lks_status st =
      lks_fail(err, LKS_DATA, "say --header yes or --header no",
               "%s:1: cannot tell whether this line names the columns or is a row", table->path);
  if (csv->count > 0) {
    (void)lks_import_advise_delimiter(csv->count, lks_csv_field(csv, 0), err);
  }
  return st;
}

/* What the cells of a first line are. */
typedef struct lks_first_line {
  int texts;
  bool counts; /* 0 to n-1: what programs write above columns that have no names */
  bool values; /* a number among them is no plain count, such as 3.5 or -1 */
} lks_first_line;

static lks_first_line look_at(const lks_csv *csv, bool *is_text) {
  lks_first_line line = {.counts = csv->count > 1};
  double value = 0.0;
  for (int i = 0; i < csv->count; ++i) {
    const char *text = trim(lks_csv_field(csv, i));
    const lks_cell cell = classify(text, &value);
    const bool digits = text[strspn(text, "0123456789")] == '\0';
    line.counts = line.counts && cell == LKS_CELL_NUMBER && digits && value == i;
    line.values = line.values || (cell == LKS_CELL_NUMBER && !digits);
    is_text[i] = cell == LKS_CELL_TEXT;
    line.texts += is_text[i];
  }
  return line;
}

/* A first line is a header when text stands in it above a number of the second line, and each of
 * its numbers can be a name. */
static lks_status detect_header(lks_csv *csv, lks_import_table *table, lks_error *err) {
  lks_status st = LKS_OK;
  bool more = false;
  double value = 0.0;
  bool *is_text = calloc((size_t)csv->count, sizeof *is_text);
  TRY_ALLOC(is_text);
  const lks_first_line line = look_at(csv, is_text);
  table->header = false;
  if (line.counts || (line.texts > 0 && line.values)) {
    TRY(ambiguous(table, csv, err));
  }
  if (line.texts == 0) {
    goto cleanup;
  }
  const int columns = csv->count;
  TRY(lks_csv_next(csv, &more, err));
  table->header = !more; /* a line of text alone: no rows */
  for (int i = 0; more && i < columns && i < csv->count; ++i) {
    table->header = table->header || (is_text[i] && classify(trim(lks_csv_field(csv, i)), &value) ==
                                                        LKS_CELL_NUMBER);
  }
  if (!table->header) {
    TRY(ambiguous(table, csv, err));
  }

cleanup:
  free(is_text);
  return st;
}

static lks_status take_names(const lks_csv *csv, lks_import_table *table, lks_arena *arena,
                             lks_error *err) {
  lks_status st = LKS_OK;
  table->names = lks_arena_alloc(arena, (size_t)csv->count * sizeof *table->names);
  TRY_ALLOC(table->names);
  for (int i = 0; i < csv->count; ++i) {
    table->names[i] = lks_arena_copy(arena, trim(lks_csv_field(csv, i)));
    TRY_ALLOC(table->names[i]);
    if (!lks_is_utf8(table->names[i])) {
      FAIL(LKS_DATA, "save the file in UTF-8 (iconv -f latin1 -t utf-8)",
           "%s:1: the name of column %d is not UTF-8", table->path, i + 1);
    }
  }

cleanup:
  return st;
}

/* Decides on the header from the first two lines, and counts columns. */
static lks_status survey_head(lks_import_reader *reader, const lks_import_request *request,
                              lks_import_table *table, lks_arena *arena, lks_error *err) {
  lks_status st = LKS_OK;
  bool more = false;
  lks_csv csv;
  lks_csv_begin(&csv, reader, table->delimiter);
  TRY(lks_csv_next(&csv, &more, err));
  if (!more) {
    FAIL(LKS_DATA, "check how it was made", "%s: no rows", table->path);
  }
  table->columns = csv.count;
  table->header = request->header == LKS_IMPORT_HEADER_YES;
  if (request->header == LKS_IMPORT_HEADER_AUTO) {
    TRY(detect_header(&csv, table, err));
  }
  if (table->header) {
    TRY(lks_import_reader_rewind(reader, err));
    lks_csv_end(&csv);
    lks_csv_begin(&csv, reader, table->delimiter);
    TRY(lks_csv_next(&csv, &more, err));
    TRY(take_names(&csv, table, arena, err));
  }

cleanup:
  lks_csv_end(&csv);
  return st;
}

lks_status lks_import_table_next(const lks_import_table *table, lks_csv *csv, bool *more,
                                 lks_error *err) {
  lks_status st = LKS_OK;
  if (!csv->begun && table->header) {
    TRY(lks_csv_next(csv, more, err));
  }
  TRY(lks_csv_next(csv, more, err));
  if (*more && csv->count != table->columns) {
    FAIL(LKS_DATA, "give every line as many columns", "%s:%lld: %d column%s where line 1 has %d",
         table->path, (long long)csv->line, csv->count, csv->count == 1 ? "" : "s", table->columns);
  }

cleanup:
  return st;
}

lks_status lks_import_table_survey(lks_import_reader *reader, const lks_import_request *request,
                                   const lks_import_input *input, lks_import_classes *classes,
                                   lks_import_table *table, lks_arena *arena, lks_error *err) {
  lks_status st = LKS_OK;
  lks_csv csv = {0};
  bool more = false;
  *table = (lks_import_table){.path = input->path,
                              .delimiter = request->delimiter != '\0' ? request->delimiter : ','};
  TRY(survey_head(reader, request, table, arena, err));
  TRY(lks_import_table_choose(request, input, table, arena, err));
  TRY(lks_import_reader_rewind(reader, err));
  lks_csv_begin(&csv, reader, table->delimiter);
  for (;; ++table->rows) {
    TRY(lks_import_table_next(table, &csv, &more, err));
    if (!more) {
      break;
    }
    for (int i = 0; i < table->part_count; ++i) {
      TRY(survey_part(table, &csv, &table->parts[i], classes, arena, err));
    }
  }
  if (table->rows == 0) {
    FAIL(LKS_DATA, "check how it was made", "%s: no rows, only a line of names", table->path);
  }

cleanup:
  lks_csv_end(&csv);
  return st;
}
