/* Tables: one-dimensional datasets of compounds, a member a field of a C struct. One list of fields
 * both writes and reads a table, and may drive whatever else prints such a struct. */
#ifndef LKS_BASE_H5_TABLE_H
#define LKS_BASE_H5_TABLE_H

#include "base/h5.h"

typedef enum lks_field_type {
  LKS_FIELD_INT,   /* int; int32 on disk */
  LKS_FIELD_INT64, /* int64_t */
  LKS_FIELD_REAL,  /* double; NaN: not known */
  LKS_FIELD_TEXT,  /* char[size], NUL-terminated UTF-8; as long on disk */
} lks_field_type;

typedef struct lks_field {
  const char *name; /* NULL ends a list */
  lks_field_type type;
  size_t offset, size; /* in the struct; size matters for texts */
  const char *unit;    /* "bytes"; NULL: none */
} lks_field;

#define LKS_FIELD(struct_, member, name_, type_, unit_)                                            \
  {                                                                                                \
    .name = (name_), .type = (type_), .offset = offsetof(struct_, member),                         \
    .size = sizeof(((struct_ *)0)->member), .unit = (unit_)                                        \
  }

/* Writes rows[count], each `stride` bytes, as the new dataset `name` of the root, with attributes
 * "FIELD.unit". No rows make an empty dataset. LKS_STORAGE. */
lks_status lks_h5_write_table(lks_h5 *file, const char *name, const lks_field *fields,
                              const void *rows, size_t stride, int64_t count,
                              lks_error *err) LKS_MUST_USE;

/* Reads a table into the arena: *rows is [count], zeroed where the file has no such member.
 * LKS_DATA where `name` is no table or a member does not convert. */
lks_status lks_h5_read_table(lks_h5 *file, const char *name, const lks_field *fields, size_t stride,
                             lks_arena *arena, void **rows, int64_t *count,
                             lks_error *err) LKS_MUST_USE;

#endif
