/* Records of CSV (RFC 4180), a character at a time: quoted fields with delimiters, doubled quotes
 * and line ends in them, blanks around them; lines ended by LF, CRLF or CR. Nothing but the current
 * record is held. */
#include <stdlib.h>
#include <string.h>

#include "data/import_parts.h"

/* A longer record is an unclosed quote, not data. */
#define LKS_CSV_MAX_RECORD (64u << 20)

void lks_csv_begin(lks_csv *csv, lks_import_reader *reader, char delimiter) {
  *csv = (lks_csv){.reader = reader, .delimiter = delimiter, .next_line = 1};
}

void lks_csv_end(lks_csv *csv) {
  free(csv->bytes);
  free(csv->starts);
  *csv = (lks_csv){0};
}

static lks_status put(lks_csv *csv, char byte, lks_error *err) {
  if (csv->used == csv->capacity) {
    if (csv->capacity >= LKS_CSV_MAX_RECORD) {
      return lks_fail(err, LKS_DATA, "look for a quote that is not closed",
                      "%s:%lld: a record of over 64 MiB", csv->reader->path, (long long)csv->line);
    }
    const size_t capacity = csv->capacity == 0 ? 4096 : 2 * csv->capacity;
    char *bytes = realloc(csv->bytes, capacity);
    if (bytes == NULL) {
      return lks_fail(err, LKS_NO_MEMORY, "use a machine with more memory",
                      "out of memory for a record of %s", csv->reader->path);
    }
    csv->bytes = bytes;
    csv->capacity = capacity;
  }
  csv->bytes[csv->used++] = byte;
  return LKS_OK;
}

static lks_status begin_field(lks_csv *csv, lks_error *err) {
  if (csv->count == csv->room) {
    const int room = csv->room == 0 ? 64 : 2 * csv->room;
    size_t *starts = realloc(csv->starts, (size_t)room * sizeof *starts);
    if (starts == NULL) {
      return lks_fail(err, LKS_NO_MEMORY, "use a machine with more memory",
                      "out of memory for a record of %s", csv->reader->path);
    }
    csv->starts = starts;
    csv->room = room;
  }
  csv->starts[csv->count++] = csv->used;
  return LKS_OK;
}

/* The next character, every line end as '\n', -1 at the end. Counts lines. */
static lks_status next_char(lks_csv *csv, int *out, lks_error *err) {
  int c = gzgetc(csv->reader->gz);
  if (c == '\r') {
    c = gzgetc(csv->reader->gz);
    if (c != '\n' && c >= 0) {
      gzungetc(c, csv->reader->gz);
    }
    c = '\n';
  }
  if (c < 0) {
    *out = -1;
    return lks_import_reader_check(csv->reader, err);
  }
  if (c == '\0') {
    return lks_fail(err, LKS_DATA, "save it as CSV in UTF-8",
                    "%s:%lld: a zero byte: not a text file", csv->reader->path,
                    (long long)csv->next_line);
  }
  csv->next_line += c == '\n';
  *out = c;
  return LKS_OK;
}

/* Blanks around a quoted field are no part of it; those of others are trimmed with the cell. */
static lks_status skip_blanks(lks_csv *csv, int *c, lks_error *err) {
  lks_status st = LKS_OK;
  while ((*c == ' ' || *c == '\t') && *c != csv->delimiter) {
    csv->blank = false;
    TRY(next_char(csv, c, err));
  }

cleanup:
  return st;
}

/* What stands between the opening quote, already read, and the closing one. *c is what follows. */
static lks_status quoted(lks_csv *csv, int *c, lks_error *err) {
  lks_status st = LKS_OK;
  for (;;) {
    TRY(next_char(csv, c, err));
    if (*c < 0) {
      FAIL(LKS_DATA, "close the quote", "%s:%lld: column %d: a quote is not closed",
           csv->reader->path, (long long)csv->line, csv->count);
    }
    if (*c == '"') {
      TRY(next_char(csv, c, err));
      if (*c != '"') {
        break;
      }
    }
    TRY(put(csv, (char)*c, err));
  }
  TRY(skip_blanks(csv, c, err));
  if (*c >= 0 && *c != '\n' && *c != csv->delimiter) {
    FAIL(LKS_DATA, "double the quotes inside a quoted field",
         "%s:%lld: column %d: text after the closing quote", csv->reader->path,
         (long long)csv->line, csv->count);
  }

cleanup:
  return st;
}

/* One field whose first character is *c; *c becomes what ended it. */
static lks_status field(lks_csv *csv, int *c, lks_error *err) {
  lks_status st = LKS_OK;
  TRY(begin_field(csv, err));
  TRY(skip_blanks(csv, c, err));
  if (*c == '"') {
    csv->blank = false;
    TRY(quoted(csv, c, err));
  } else {
    while (*c >= 0 && *c != '\n' && *c != csv->delimiter) {
      TRY(put(csv, (char)*c, err));
      TRY(next_char(csv, c, err));
    }
  }
  TRY(put(csv, '\0', err));

cleanup:
  return st;
}

/* One record, an empty line too; *more is false when nothing was left. */
static lks_status record(lks_csv *csv, bool *more, lks_error *err) {
  lks_status st = LKS_OK;
  csv->line = csv->next_line;
  csv->used = 0;
  csv->count = 0;
  csv->blank = true;
  int c = -1;
  TRY(next_char(csv, &c, err));
  *more = c >= 0;
  if (!*more) {
    goto cleanup;
  }
  TRY(field(csv, &c, err));
  while (c == csv->delimiter) {
    TRY(next_char(csv, &c, err));
    TRY(field(csv, &c, err));
  }
  csv->blank = csv->blank && csv->count == 1 && csv->bytes[0] == '\0';

cleanup:
  return st;
}

static lks_status skip_byte_order_mark(lks_csv *csv, lks_error *err) {
  static const unsigned char mark[3] = {0xEF, 0xBB, 0xBF};
  unsigned char head[3];
  size_t got = 0;
  lks_status st = LKS_OK;
  TRY(lks_import_reader_take(csv->reader, head, sizeof head, &got, err));
  if (got < sizeof head || memcmp(head, mark, sizeof mark) != 0) {
    TRY(lks_import_reader_rewind(csv->reader, err));
  }

cleanup:
  return st;
}

lks_status lks_csv_next(lks_csv *csv, bool *more, lks_error *err) {
  lks_status st = LKS_OK;
  if (!csv->begun) {
    TRY(skip_byte_order_mark(csv, err));
    csv->begun = true;
  }
  TRY(record(csv, more, err));
  const int64_t blank_line = *more && csv->blank ? csv->line : 0;
  while (*more && csv->blank) {
    TRY(record(csv, more, err));
  }
  if (*more && blank_line > 0) {
    FAIL(LKS_DATA, "remove it", "%s:%lld: an empty line before more rows", csv->reader->path,
         (long long)blank_line);
  }

cleanup:
  return st;
}
