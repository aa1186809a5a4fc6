/* The one place that includes hdf5.h. HDF5 here is not thread-safe: every function below takes
 * the process-wide lock for its duration, and turns HDF5's error stack into one lks_error line
 * that names the file and the object. HDF5's own printing is switched off.
 *
 * Handles are opaque. Not collective: serial HDF5, each rank opens what it needs.
 * Reading opens read-only with locking that ignores file systems without locks. */
#ifndef LKS_BASE_H5_H
#define LKS_BASE_H5_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/text.h"

#define LKS_H5_MAX_RANK 32

typedef struct lks_h5 lks_h5;                 /* an open file */
typedef struct lks_h5_dataset lks_h5_dataset; /* an open dataset of it */

/* What a dataset's elements are, as far as Lockstep cares. */
typedef enum lks_h5_class {
  LKS_H5_INTEGER, /* any width and sign; booleans (h5py's enum of int8) too */
  LKS_H5_FLOAT,   /* any width, half and long double too */
  LKS_H5_STRING,
  LKS_H5_COMPOUND,
  LKS_H5_OTHER,
} lks_h5_class;

typedef struct lks_h5_info {
  lks_h5_class kind;
  int rank; /* 0 for a scalar */
  int64_t shape[LKS_H5_MAX_RANK];
  int64_t chunk_rows;   /* rows (first dimension) of a chunk; 0 when contiguous */
  bool compressed;      /* any filter is set */
  bool fits_float;      /* a 32-bit float holds every value of the type */
  size_t element_bytes; /* stored size */
  char type_name[32];   /* "uint8", "float64", "string", "compound", ... */
} lks_h5_info;

/* ---- files */

/* Opens for reading. Errors, all LKS_DATA with the cause told apart in words: no such file,
 * a folder, no permission, empty, not HDF5, truncated, damaged. */
lks_status lks_h5_open(const char *path, lks_h5 **file, lks_error *err) LKS_MUST_USE;

/* Creates (truncates) for writing, earliest file format. Errors: LKS_STORAGE. */
lks_status lks_h5_create(const char *path, lks_h5 **file, lks_error *err) LKS_MUST_USE;

/* The same for a file that gets another name later: messages call it `shown`. */
lks_status lks_h5_create_aside(const char *path, const char *shown, lks_h5 **file,
                               lks_error *err) LKS_MUST_USE;

/* Closes and, for a written file, flushes: LKS_STORAGE when that fails. *file becomes NULL;
 * a NULL file is accepted. */
lks_status lks_h5_close(lks_h5 **file, lks_error *err) LKS_MUST_USE;

const char *lks_h5_path(const lks_h5 *file);

/* ---- looking */

bool lks_h5_exists(lks_h5 *file, const char *name);

/* Names of all datasets below group ("/" for all), as paths without the leading '/', sorted as
 * HDF5 iterates, joined by ", " and cut with "..." after max_names. In the arena. */
char *lks_h5_list(lks_h5 *file, const char *group, int max_names, lks_arena *arena);

/* Direct members of a group, in name order; an empty list where there is no such group. */
lks_status lks_h5_members(lks_h5 *file, const char *group, lks_arena *arena, lks_texts *out,
                          lks_error *err) LKS_MUST_USE;

/* ---- datasets, reading */

/* LKS_DATA when there is none of that name: "FILE: no dataset 'NAME' (has a, b, c)", and when a
 * link leads to nothing: "FILE: 'NAME' is a link to ..., which is not there". */
lks_status lks_h5_dataset_open(lks_h5 *file, const char *name, lks_h5_dataset **dataset,
                               lks_error *err) LKS_MUST_USE;
/* Whether another name is the remedy where that fails: nothing is called so, or no dataset. */
bool lks_h5_misnamed(lks_h5 *file, const char *name);
void lks_h5_dataset_close(lks_h5_dataset **dataset);
const lks_h5_info *lks_h5_dataset_info(const lks_h5_dataset *dataset);

/* Whether both are one object of one file, whatever the links to it are called. */
bool lks_h5_same_dataset(const lks_h5_dataset *a, const lks_h5_dataset *b);

/* LKS_DATA where the values cannot be had: a filter that HDF5 lacks, by name; rows of a
 * virtual dataset that lie nowhere, or in a file or dataset that is not there or cannot be opened;
 * a raw file that is too short: HDF5 would give zeros for these. Not looked into: mappings of
 * numbered files. */
lks_status lks_h5_check_storage(const lks_h5_dataset *dataset, lks_error *err) LKS_MUST_USE;

/* Reads rows [first, first + count) of the first dimension, all of the others, converted to
 * double (or float), into out: [count, product of the other dimensions], row-major, host memory.
 * A scalar counts as one row. LKS_DATA on a type that holds no numbers, naming it. */
lks_status lks_h5_read_rows(lks_h5_dataset *dataset, int64_t first, int64_t count, double *out,
                            lks_error *err) LKS_MUST_USE;
lks_status lks_h5_read_rows_float(lks_h5_dataset *dataset, int64_t first, int64_t count, float *out,
                                  lks_error *err) LKS_MUST_USE;

/* A scalar or one-element dataset. */
lks_status lks_h5_read_text(lks_h5 *file, const char *name, lks_arena *arena, char **out,
                            lks_error *err) LKS_MUST_USE;
lks_status lks_h5_read_int64(lks_h5 *file, const char *name, int64_t *out,
                             lks_error *err) LKS_MUST_USE;
lks_status lks_h5_read_real(lks_h5 *file, const char *name, double *out,
                            lks_error *err) LKS_MUST_USE;

/* ---- writing; parent groups are made as needed; errors are LKS_STORAGE */

lks_status lks_h5_group(lks_h5 *file, const char *name, lks_error *err) LKS_MUST_USE;

/* Element types on disk, little-endian. */
typedef enum lks_h5_type { LKS_H5_F32, LKS_H5_F64, LKS_H5_I32, LKS_H5_I64, LKS_H5_U8 } lks_h5_type;

/* Writes a whole contiguous dataset of that shape from host memory of the same type. rank 0: a
 * scalar (shape may be NULL). */
lks_status lks_h5_write(lks_h5 *file, const char *name, lks_h5_type type, int rank,
                        const int64_t *shape, const void *data, lks_error *err) LKS_MUST_USE;
lks_status lks_h5_write_text(lks_h5 *file, const char *name, const char *text,
                             lks_error *err) LKS_MUST_USE;

/* Creates a contiguous, early-allocated, unfilled dataset without writing it, and gives the byte
 * offset of its data in the file: the caller fills it with pwrite after closing the file. */
lks_status lks_h5_reserve(lks_h5 *file, const char *name, lks_h5_type type, int rank,
                          const int64_t *shape, int64_t *offset, lks_error *err) LKS_MUST_USE;

/* Creates a chunked dataset (shape[0] rows x the other dimensions, rank at least 1) that grows by
 * rows, then writes rows of it, beyond its end too. deflate 0 to 9 (0: none; else shuffled too).
 * For files that grow or are written block by block. */
lks_status lks_h5_create_rows(lks_h5 *file, const char *name, lks_h5_type type, int rank,
                              const int64_t *shape, int64_t chunk_rows, int deflate,
                              lks_h5_dataset **dataset, lks_error *err) LKS_MUST_USE;
lks_status lks_h5_write_rows(lks_h5_dataset *dataset, int64_t first, int64_t count,
                             const void *data, lks_error *err) LKS_MUST_USE;

/* Hard link: `link` becomes another name of the object `target`. */
lks_status lks_h5_link(lks_h5 *file, const char *target, const char *link,
                       lks_error *err) LKS_MUST_USE;

/* Attributes of the object `name` ("/" for the root). Text is variable-length UTF-8. */
lks_status lks_h5_attr_text(lks_h5 *file, const char *name, const char *key, const char *text,
                            lks_error *err) LKS_MUST_USE;
lks_status lks_h5_attr_texts(lks_h5 *file, const char *name, const char *key,
                             const char *const *texts, int count, lks_error *err) LKS_MUST_USE;
lks_status lks_h5_attr_int64(lks_h5 *file, const char *name, const char *key, int64_t value,
                             lks_error *err) LKS_MUST_USE;
lks_status lks_h5_attr_real(lks_h5 *file, const char *name, const char *key, double value,
                            lks_error *err) LKS_MUST_USE;
/* Reading an attribute; *out is NULL (or LKS_DATA for numbers) where there is none. */
lks_status lks_h5_attr_read_text(lks_h5 *file, const char *name, const char *key, lks_arena *arena,
                                 char **out, lks_error *err) LKS_MUST_USE;
/* All strings of an attribute; an empty list where there is none. */
lks_status lks_h5_attr_read_texts(lks_h5 *file, const char *name, const char *key, lks_arena *arena,
                                  lks_texts *out, lks_error *err) LKS_MUST_USE;
lks_status lks_h5_attr_read_int64(lks_h5 *file, const char *name, const char *key, int64_t *out,
                                  lks_error *err) LKS_MUST_USE;

/* "1.10.8": the library that runs and the one built with. */
const char *lks_h5_version_running(void);
const char *lks_h5_version_built(void);

#endif
