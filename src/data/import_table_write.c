/* CSV tables into datasets, once surveyed: the second reading, in blocks of rows. The file may have
 * changed since: every value is checked again against what the survey promised. */
#include <math.h>
#include <stdlib.h>

#include "data/import_parts.h"

/* A dataset being written: a block of rows in the type on disk. */
typedef struct lks_part_writer {
  const lks_import_part *part;
  lks_h5_dataset *dataset;
  lks_h5_type type;
  int64_t block, filled, written; /* rows */
  void *values;                   /* [block, part->count] */
} lks_part_writer;

static lks_status changed(const lks_import_table *table, lks_error *err) {
  return lks_fail(err, LKS_DATA, "run it again once the file is complete",
                  "%s: changed while it was read", table->path);
}

static lks_h5_type type_of(const lks_import_part *part, const lks_import_classes *classes) {
  if (part->text) {
    return classes->count <= UINT8_MAX + 1 ? LKS_H5_U8 : LKS_H5_I32;
  }
  return part->fits_u8 ? LKS_H5_U8 : part->fits_i32 ? LKS_H5_I32 : LKS_H5_F64;
}

static lks_status open_writer(const lks_import_table *table, const lks_import_part *part,
                              const lks_import_classes *classes, const lks_import_output *output,
                              lks_part_writer *writer, lks_error *err) {
  lks_status st = LKS_OK;
  const int64_t shape[2] = {table->rows, part->count};
  *writer = (lks_part_writer){.part = part, .type = type_of(part, classes)};
  const size_t row_bytes = (size_t)part->count * lks_import_type_bytes(writer->type);
  writer->block = lks_import_block_rows(table->rows, row_bytes);
  writer->values = malloc((size_t)writer->block * row_bytes);
  TRY_ALLOC(writer->values);
  TRY(lks_import_create(output, part->dataset, writer->type, part->count == 1 ? 1 : 2, shape,
                        table->path, &writer->dataset, err));

cleanup:
  return st;
}

static void close_writer(lks_part_writer *writer) {
  lks_h5_dataset_close(&writer->dataset);
  free(writer->values);
  writer->values = NULL;
}

static lks_status flush(lks_part_writer *writer, lks_error *err) {
  lks_status st = LKS_OK;
  if (writer->filled > 0) {
    TRY(lks_h5_write_rows(writer->dataset, writer->written, writer->filled, writer->values, err));
    writer->written += writer->filled;
    writer->filled = 0;
  }

cleanup:
  return st;
}

static lks_status cell_value(const lks_import_table *table, const lks_csv *csv,
                             const lks_part_writer *writer, const lks_import_classes *classes,
                             int column, double *out, lks_error *err) {
  lks_status st = LKS_OK;
  if (writer->part->text) {
    const char *name = NULL;
    bool found = false;
    TRY(lks_import_cell_name(table, csv, column, &name, err));
    *out = lks_import_class_place(classes, name, &found);
    if (!found) {
      TRY(changed(table, err));
    }
    goto cleanup;
  }
  TRY(lks_import_cell_number(table, csv, column, out, err));
  const bool whole = *out == floor(*out);
  if ((writer->type == LKS_H5_U8 && !(whole && *out >= 0 && *out <= UINT8_MAX)) ||
      (writer->type == LKS_H5_I32 && !(whole && *out >= INT32_MIN && *out <= INT32_MAX))) {
    TRY(changed(table, err));
  }

cleanup:
  return st;
}

static lks_status write_row(const lks_import_table *table, const lks_csv *csv,
                            lks_part_writer *writer, const lks_import_classes *classes,
                            lks_error *err) {
  lks_status st = LKS_OK;
  const lks_import_part *part = writer->part;
  for (int i = 0; i < part->count; ++i) {
    double value = 0.0;
    TRY(cell_value(table, csv, writer, classes, part->columns[i], &value, err));
    const int64_t at = writer->filled * part->count + i;
    if (writer->type == LKS_H5_U8) {
      ((uint8_t *)writer->values)[at] = (uint8_t)value;
    } else if (writer->type == LKS_H5_I32) {
      ((int32_t *)writer->values)[at] = (int32_t)value;
    } else {
      ((double *)writer->values)[at] = value;
    }
  }
  if (++writer->filled == writer->block) {
    TRY(flush(writer, err));
  }

cleanup:
  return st;
}

/* The names of classes and of columns, as attributes. Data are complete without the latter. */
static lks_status write_names(const lks_import_table *table, const lks_import_part *part,
                              const lks_import_classes *classes, const lks_import_output *output,
                              lks_error *err) {
  lks_status st = LKS_OK;
  lks_h5 *file = output->file;
  const char **names = NULL;
  if (part->text) {
    TRY(lks_h5_attr_texts(file, part->dataset, "classes", classes->names, classes->count, err));
  }
  if (table->names != NULL && part->count > LKS_IMPORT_MAX_NAMES && output->notes != NULL) {
    lks_text_add(output->notes,
                 "%s: the header's names of '%s' are left out: HDF5 keeps %d of them beside a "
                 "dataset, and there are %d\n",
                 table->path, part->dataset, LKS_IMPORT_MAX_NAMES, part->count);
  } else if (table->names != NULL) {
    names = malloc((size_t)part->count * sizeof *names);
    TRY_ALLOC(names);
    for (int i = 0; i < part->count; ++i) {
      names[i] = table->names[part->columns[i]];
    }
    TRY(lks_h5_attr_texts(file, part->dataset, "columns", names, part->count, err));
  }

cleanup:
  free(names);
  return st;
}

lks_status lks_import_table_write(lks_import_reader *reader, const lks_import_table *table,
                                  const lks_import_classes *classes,
                                  const lks_import_output *output, lks_error *err) {
  lks_status st = LKS_OK;
  lks_part_writer writers[2] = {0};
  lks_csv csv;
  bool more = false;
  int64_t rows = 0;
  lks_csv_begin(&csv, reader, table->delimiter);
  for (int i = 0; i < table->part_count; ++i) {
    TRY(open_writer(table, &table->parts[i], classes, output, &writers[i], err));
  }
  for (;; ++rows) {
    TRY(lks_import_table_next(table, &csv, &more, err));
    if (!more) {
      break;
    }
    if (rows == table->rows) {
      TRY(changed(table, err));
    }
    for (int i = 0; i < table->part_count; ++i) {
      TRY(write_row(table, &csv, &writers[i], classes, err));
    }
  }
  if (rows != table->rows) {
    TRY(changed(table, err));
  }
  for (int i = 0; i < table->part_count; ++i) {
    TRY(flush(&writers[i], err));
    TRY(write_names(table, &table->parts[i], classes, output, err));
  }

cleanup:
  lks_csv_end(&csv);
  for (int i = 0; i < table->part_count; ++i) {
    close_writer(&writers[i]);
  }
  return st;
}
