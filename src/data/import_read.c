/* Bytes of an input of import. zlib's gz layer reads plain files as they are and gunzips the
 * others, by content. Only regular files: each is read more than once. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/import_parts.h"

/* Deflate makes at most 258 bytes of two bits. */
#define LKS_DEFLATE_MOST 1032

static lks_status open_failed(const char *path, lks_error *err) {
  const int code = errno;
  if (code == ENOENT) {
    return lks_fail(err, LKS_DATA, "check the path", "%s: no such file", path);
  }
  if (code == EACCES) {
    return lks_fail(err, LKS_DATA, "ask its owner for leave to read it", "%s: permission denied",
                    path);
  }
  return lks_fail(err, LKS_DATA, "check the path", "%s: cannot be opened: %s", path,
                  strerror(code));
}

/* Refuses what cannot be read from its start twice, and what holds nothing. */
static lks_status check_kind(int file, const char *path, int64_t *bytes, lks_error *err) {
  struct stat about;
  if (fstat(file, &about) != 0) {
    return open_failed(path, err);
  }
  if (S_ISDIR(about.st_mode)) {
    return lks_fail(err, LKS_DATA, "name a CSV, NPY or IDX file in it", "%s: is a folder", path);
  }
  if (!S_ISREG(about.st_mode)) {
    return lks_fail(err, LKS_DATA, "write it to a file first: it is read twice",
                    "%s: not a regular file", path);
  }
  if (about.st_size == 0) {
    return lks_fail(err, LKS_DATA, "check how it was made", "%s: the file is empty", path);
  }
  *bytes = about.st_size;
  return LKS_OK;
}

lks_status lks_import_reader_open(lks_import_reader *reader, const char *path, lks_error *err) {
  lks_status st = LKS_OK;
  int64_t bytes = 0;
  *reader = (lks_import_reader){.path = path};
  /* O_NONBLOCK: a named pipe is refused below, not waited for. */
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) {
    st = open_failed(path, err);
    goto cleanup;
  }
  TRY(check_kind(file, path, &bytes, err));
  reader->gz = gzdopen(file, "rb");
  TRY_ALLOC(reader->gz);
  file = -1;
  if (gzbuffer(reader->gz, 1 << 17) != 0) {
    FAIL(LKS_INTERNAL, NULL, "%s: zlib refuses its buffer", path);
  }
  if (gzdirect(reader->gz) != 0) {
    reader->most = bytes;
  } else {
    reader->most = bytes < INT64_MAX / LKS_DEFLATE_MOST ? bytes * LKS_DEFLATE_MOST : INT64_MAX;
  }

cleanup:
  if (file >= 0) {
    close(file);
  }
  if (st != LKS_OK) {
    lks_import_reader_close(reader);
  }
  return st;
}

void lks_import_reader_close(lks_import_reader *reader) {
  if (reader->gz != NULL) {
    gzclose_r(reader->gz); /* what could fail was reported when it was read */
  }
  reader->gz = NULL;
}

lks_status lks_import_reader_rewind(lks_import_reader *reader, lks_error *err) {
  if (gzrewind(reader->gz) != 0) {
    return lks_fail(err, LKS_DATA, "check the disk", "%s: cannot be read again from its start",
                    reader->path);
  }
  return LKS_OK;
}

lks_status lks_import_reader_check(lks_import_reader *reader, lks_error *err) {
  int code = Z_OK;
  const char *text = gzerror(reader->gz, &code);
  switch (code) {
  case Z_OK:
  case Z_STREAM_END:
    return LKS_OK;
  case Z_BUF_ERROR:
    return lks_fail(err, LKS_DATA, "copy or download it again",
                    "%s: truncated: its gzip stream ends early", reader->path);
  case Z_DATA_ERROR:
    return lks_fail(err, LKS_DATA, "copy or download it again",
                    "%s: damaged: its gzip stream is not valid", reader->path);
  case Z_MEM_ERROR:
    return lks_fail(err, LKS_NO_MEMORY, "use a machine with more memory",
                    "out of memory for gunzipping %s", reader->path);
  case Z_ERRNO:
    return lks_fail(err, LKS_DATA, "check the disk", "%s: cannot be read: %s", reader->path,
                    strerror(errno));
  default:
    return lks_fail(err, LKS_DATA, "check the file", "%s: cannot be read: %s", reader->path, text);
  }
}

lks_status lks_import_reader_take(lks_import_reader *reader, void *out, size_t size, size_t *got,
                                  lks_error *err) {
  *got = 0;
  while (*got < size) {
    const size_t left = size - *got;
    const unsigned want = left < (1u << 30) ? (unsigned)left : 1u << 30;
    const int count = gzread(reader->gz, (char *)out + *got, want);
    if (count <= 0) {
      return lks_import_reader_check(reader, err);
    }
    *got += (size_t)count;
  }
  return LKS_OK;
}
