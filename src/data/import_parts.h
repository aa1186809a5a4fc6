/* What the readers of import share: bytes of a file (gunzipped when need be), arrays of NPY and
 * IDX, records and tables of CSV. Private to src/data/import*.c. */
#ifndef LKS_DATA_IMPORT_PARTS_H
#define LKS_DATA_IMPORT_PARTS_H

#include <zlib.h>

#include "base/h5.h"
#include "data/import.h"

/* Bytes of a chunk on disk, and of a block held while converting. */
#define LKS_IMPORT_CHUNK_BYTES (1 << 20)

/* HDF5 keeps an attribute of at most 64 KiB, 16 bytes a text: names of classes and columns. */
#define LKS_IMPORT_MAX_NAMES 4000

/* ---- reader: a regular file, read from its start as often as needed */

typedef struct lks_import_reader {
  const char *path;
  gzFile gz;
  int64_t most; /* bytes it can give: of a plain file its size, of a gzipped one no fewer */
} lks_import_reader;

lks_status lks_import_reader_open(lks_import_reader *reader, const char *path,
                                  lks_error *err) LKS_MUST_USE;
void lks_import_reader_close(lks_import_reader *reader);
lks_status lks_import_reader_rewind(lks_import_reader *reader, lks_error *err) LKS_MUST_USE;

/* Reads up to size bytes; *got is less only at the end of the file. */
lks_status lks_import_reader_take(lks_import_reader *reader, void *out, size_t size, size_t *got,
                                  lks_error *err) LKS_MUST_USE;

/* After gzgetc gave -1: an error, unless the file simply ended. */
lks_status lks_import_reader_check(lks_import_reader *reader, lks_error *err) LKS_MUST_USE;

/* ---- where datasets go */

typedef struct lks_import_output {
  lks_h5 *file;
  int deflate;
  lks_text *summary; /* may be NULL, as notes */
  lks_text *notes;
} lks_import_output;

const char *lks_import_type_name(lks_h5_type type);
size_t lks_import_type_bytes(lks_h5_type type);

/* Makes the dataset, in chunks of about LKS_IMPORT_CHUNK_BYTES, and says so in the summary. */
lks_status lks_import_create(const lks_import_output *output, const char *name, lks_h5_type type,
                             int rank, const int64_t *shape, const char *from,
                             lks_h5_dataset **dataset, lks_error *err) LKS_MUST_USE;

/* Rows of row_bytes each that make up about a chunk, from 1 to rows. */
int64_t lks_import_block_rows(int64_t rows, size_t row_bytes);

/* ---- arrays: NPY and IDX */

typedef struct lks_import_array {
  const char *path;
  char kind; /* 'b' bool, 'u' unsigned, 'i' signed, 'f' float */
  int bytes; /* of an element in the file: 1, 2, 4, 8 */
  bool big_endian;
  bool columns_first; /* Fortran order, of rank 2 */
  int rank;
  int64_t shape[LKS_H5_MAX_RANK];
  int64_t row_elements;
  int64_t offset; /* bytes before the first element */
} lks_import_array;

bool lks_import_is_npy(const unsigned char *head, size_t length);
bool lks_import_is_idx(const unsigned char *head, size_t length);

/* Reads the header from the start of the file. */
lks_status lks_import_npy_header(lks_import_reader *reader, lks_import_array *array,
                                 lks_error *err) LKS_MUST_USE;
lks_status lks_import_idx_header(lks_import_reader *reader, lks_import_array *array,
                                 lks_error *err) LKS_MUST_USE;

/* Checks shape, fills row_elements, and refuses an array that the file cannot hold. */
lks_status lks_import_array_check(lks_import_array *array, const lks_import_reader *reader,
                                  lks_error *err) LKS_MUST_USE;

/* Copies the elements from a reader at its start into a dataset. */
lks_status lks_import_array_write(const lks_import_array *array, lks_import_reader *reader,
                                  const lks_import_output *output, const char *name,
                                  lks_error *err) LKS_MUST_USE;

/* ---- CSV records */

typedef struct lks_csv {
  lks_import_reader *reader;
  char delimiter;
  bool begun;
  int64_t line;      /* where the record read last begins, from 1 */
  int64_t next_line; /* where the next one begins */
  bool blank;        /* the record read last is an empty line */
  char *bytes;       /* its fields, each NUL-terminated */
  size_t used, capacity;
  size_t *starts; /* [count] where each field begins in bytes */
  int count, room;
} lks_csv;

void lks_csv_begin(lks_csv *csv, lks_import_reader *reader, char delimiter);
void lks_csv_end(lks_csv *csv);

/* Reads the next record; *more is false at the end of the file. Blank lines at the end are no
 * records; one before a record is an error. */
lks_status lks_csv_next(lks_csv *csv, bool *more, lks_error *err) LKS_MUST_USE;

/* Where a CSV of one column has what separates columns elsewhere, in `text`, advises to say so.
 * Returns whether it did. */
bool lks_import_advise_delimiter(int columns, const char *text, lks_error *err);

static inline char *lks_csv_field(const lks_csv *csv, int index) {
  return csv->bytes + csv->starts[index];
}

/* ---- CSV tables */

/* Distinct class names in byte order, owned by an arena. */
typedef struct lks_import_classes {
  const char *names[LKS_IMPORT_MAX_NAMES];
  int count;
} lks_import_classes;

/* One dataset made of columns of a CSV file. */
typedef struct lks_import_part {
  const char *dataset;
  bool targets; /* may hold class names */
  int *columns; /* [count] indexes into a record */
  int count;
  bool text;              /* class names */
  const char *first_text; /* where text: that of the first row */
  int64_t first_line;     /* where it stands */
  bool fits_u8, fits_i32;
} lks_import_part;

typedef struct lks_import_table {
  const char *path;
  char delimiter;
  bool header;
  int columns;
  const char **names; /* [columns] of the header; NULL without one */
  int64_t rows;
  lks_import_part parts[2];
  int part_count;
} lks_import_table;

/* Reads the whole file once: columns, rows, types, class names. */
lks_status lks_import_table_survey(lks_import_reader *reader, const lks_import_request *request,
                                   const lks_import_input *input, lks_import_classes *classes,
                                   lks_import_table *table, lks_arena *arena,
                                   lks_error *err) LKS_MUST_USE;

/* Fills part_count, parts and their columns from the request. */
lks_status lks_import_table_choose(const lks_import_request *request, const lks_import_input *input,
                                   lks_import_table *table, lks_arena *arena,
                                   lks_error *err) LKS_MUST_USE;

/* Reads it again and writes its datasets. */
lks_status lks_import_table_write(lks_import_reader *reader, const lks_import_table *table,
                                  const lks_import_classes *classes,
                                  const lks_import_output *output, lks_error *err) LKS_MUST_USE;

/* The next row, the header left out. An error where it has not table->columns fields. */
lks_status lks_import_table_next(const lks_import_table *table, lks_csv *csv, bool *more,
                                 lks_error *err) LKS_MUST_USE;

/* A cell as a finite number, or as a class name (valid until the next record). Errors name file,
 * line, column. */
lks_status lks_import_cell_number(const lks_import_table *table, const lks_csv *csv, int column,
                                  double *out, lks_error *err) LKS_MUST_USE;
lks_status lks_import_cell_name(const lks_import_table *table, const lks_csv *csv, int column,
                                const char **out, lks_error *err) LKS_MUST_USE;

/* Where name stands among the classes, or would. */
int lks_import_class_place(const lks_import_classes *classes, const char *name, bool *found);

/* The file's stem ("a/train.csv.gz" -> "train"); NULL when memory is out. */
char *lks_import_stem(lks_arena *arena, const char *path);

#endif
