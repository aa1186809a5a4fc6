/* Shared by the h5*.c files only, the sole ones that include hdf5.h.
 *
 * Invariant: the process-wide lock is held from the first HDF5 call of a public function to its
 * last; functions declared here expect it held. */
#ifndef LKS_BASE_H5_INTERNAL_H
#define LKS_BASE_H5_INTERNAL_H

#include <hdf5.h>

#include "base/h5.h"

struct lks_h5 {
  hid_t id;
  bool writing;
  char *path;        /* as opened */
  char *shown;       /* what messages call it */
  lks_error failure; /* of closing a dataset that was written; returned by lks_h5_close */
};

struct lks_h5_dataset {
  hid_t id;
  lks_h5 *writer; /* its file when that is being written, else NULL */
  char *shown;    /* its file, for messages */
  char *name;
  lks_h5_info info;
  int fd;              /* of the file that holds it, HDF5's own; -1: not known */
  int64_t bytes;       /* that this file had when the dataset was opened */
  int64_t plain_rows;  /* of a chunk of whole rows of floats, not packed; 0: of other kinds */
  hsize_t plain_bytes; /* of such a chunk */
};

/* What an HDF5 call was about, for its message. */
typedef struct lks_h5_where {
  bool writing;       /* LKS_STORAGE, else LKS_DATA */
  const char *file;   /* as messages call it */
  const char *object; /* NULL: the file itself */
} lks_h5_where;

void lks_h5_lock(void);
void lks_h5_unlock(void);

/* The innermost description on HDF5's error stack, or the system's own words in it. To be called
 * before any other HDF5 function, for each clears the stack. */
void lks_h5_reason(char *out, size_t size);

/* Turns the error stack into *err. */
lks_status lks_h5_fail(lks_error *err, const lks_h5_where *where) LKS_MUST_USE;

/* The same after H5Dread, with the filter that HDF5 lacks, where it lacks one. */
lks_status lks_h5_fail_read(hid_t dataset, const lks_h5_where *where, lks_error *err) LKS_MUST_USE;

/* value: what an HDF5 function returned; negative is failure. */
#define TRY_H5(value, where)                                                                       \
  do {                                                                                             \
    if ((value) < 0) {                                                                             \
      st = lks_h5_fail(err, where);                                                                \
      lks_error_frame(err, st, #value, __FILE__, __LINE__);                                        \
      goto cleanup;                                                                                \
    }                                                                                              \
  } while (0)

/* lks_h5_open without what it wraps; the caller closes *id. */
lks_status lks_h5_open_id(const char *path, hid_t *id, lks_error *err) LKS_MUST_USE;

/* Opens the file that a link or a virtual dataset names, where HDF5 looks for it. near: an object
 * of the file that names it. *id is -1, and LKS_OK returned, where there is none; errors are those
 * of lks_h5_open. */
lks_status lks_h5_open_named(hid_t near, const char *name, hid_t *id, lks_error *err) LKS_MUST_USE;

/* Why no dataset of that name can be opened: there is none, or a link leads nowhere, or it is an
 * object of another kind. */
lks_status lks_h5_fail_missing(const lks_h5 *file, const char *name, lks_error *err) LKS_MUST_USE;

/* lks_h5_exists and lks_h5_list with the lock held. */
bool lks_h5_has(hid_t file, const char *name);
char *lks_h5_names(hid_t file, const char *group, int max_names, lks_arena *arena);

/* lks_h5_check_storage of an open dataset, and its parts for virtual ones and raw files. made_by:
 * its creation properties; depth: 1, or how many virtual datasets its rows were followed through.
 */
lks_status lks_h5_check_stored(hid_t dataset, const lks_h5_where *where, int depth,
                               lks_error *err) LKS_MUST_USE;
lks_status lks_h5_check_virtual(hid_t dataset, hid_t made_by, const lks_h5_where *where, int depth,
                                lks_error *err) LKS_MUST_USE;
lks_status lks_h5_check_external(hid_t dataset, hid_t made_by, const lks_h5_where *where,
                                 lks_error *err) LKS_MUST_USE;

/* Notes how long the file of an open dataset is; and, after values were read of it, LKS_DATA where
 * it is shorter now: HDF5 takes what is behind a file's end for zeros, and says nothing. */
void lks_h5_watch_length(lks_h5_dataset *dataset);
lks_status lks_h5_check_length(const lks_h5_dataset *dataset, lks_error *err) LKS_MUST_USE;

/* Notes whether the chunks of an open dataset are rows as lks_h5_read_plain takes them. */
void lks_h5_find_plain(lks_h5_dataset *dataset);
/* Reads such chunks of rows [first, first + count) to out, one after the other. Returns how many
 * rows were read: fewer than count, or 0, where something else comes, or a read fails. */
int64_t lks_h5_read_plain(const lks_h5_dataset *dataset, int64_t first, int64_t count, float *out);

/* Fills what a dataset's elements and shape are. */
lks_status lks_h5_describe(hid_t dataset, const lks_h5_where *where, lks_h5_info *info,
                           lks_error *err) LKS_MUST_USE;

/* Takes over id: it is closed here on failure. */
lks_status lks_h5_wrap(hid_t id, lks_h5 *file, const char *name, lks_h5_dataset **dataset,
                       lks_error *err) LKS_MUST_USE;

/* A variable-length UTF-8 string type; negative on failure. */
hid_t lks_h5_text_type(void);

#endif
