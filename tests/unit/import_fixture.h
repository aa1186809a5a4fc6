/* A folder of inputs, an empty folder of outputs, and the calls that the tests of import share. */
#ifndef LKS_TESTS_IMPORT_FIXTURE_H
#define LKS_TESTS_IMPORT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/h5.h"
#include "data/import.h"

typedef struct fixture {
  char in[256], out[256]; /* folders */
  char output[300];       /* out/data.h5 */
  lks_error err;
  lks_text summary;
} fixture;

static inline int make_fixture(void **state) {
  fixture *f = calloc(1, sizeof *f);
  assert_non_null(f);
  const char *base = getenv("TMPDIR");
  char root[200];
  snprintf(root, sizeof root, "%.150s/lks_import_XXXXXX", base != NULL ? base : "/tmp");
  assert_non_null(mkdtemp(root));
  snprintf(f->in, sizeof f->in, "%s/in", root);
  snprintf(f->out, sizeof f->out, "%s/out", root);
  snprintf(f->output, sizeof f->output, "%s/data.h5", f->out);
  assert_int_equal(mkdir(f->in, 0700), 0);
  assert_int_equal(mkdir(f->out, 0700), 0);
  *state = f;
  return 0;
}

/* Counts what a folder holds, and with `empty` removes it all. */
static inline int sweep(const char *folder, bool empty) {
  int count = 0;
  DIR *listing = opendir(folder);
  assert_non_null(listing);
  for (struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
      char path[600];
      snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
      ++count;
      if (empty && remove(path) != 0) {
        fail_msg("cannot remove %s", path);
      }
    }
  }
  closedir(listing);
  return count;
}

static inline int drop_fixture(void **state) {
  fixture *f = *state;
  sweep(f->in, true);
  sweep(f->out, true);
  rmdir(f->in);
  rmdir(f->out);
  *strrchr(f->in, '/') = '\0';
  rmdir(f->in);
  lks_text_free(&f->summary);
  free(f);
  return 0;
}

/* Writes a file of the input folder; its path is valid until the next call but three. */
static inline const char *put_file(fixture *f, const char *name, const void *data, size_t size) {
  static char paths[4][512];
  static int next;
  char *path = paths[next++ % 4];
  snprintf(path, sizeof paths[0], "%s/%s", f->in, name);
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, size, file), size);
  assert_int_equal(fclose(file), 0);
  return path;
}

static inline const char *put_text(fixture *f, const char *name, const char *text) {
  return put_file(f, name, text, strlen(text));
}

/* The gzip stream of data; the caller frees it. */
static inline unsigned char *gzip(const void *data, size_t size, size_t *packed) {
  z_stream z = {0};
  assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  const size_t room = deflateBound(&z, (uLong)size);
  unsigned char *out = malloc(room);
  assert_non_null(out);
  z.next_in = (unsigned char *)(uintptr_t)data;
  z.avail_in = (uInt)size;
  z.next_out = out;
  z.avail_out = (uInt)room;
  assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
  *packed = room - z.avail_out;
  assert_int_equal(deflateEnd(&z), Z_OK);
  return out;
}

/* Converts inputs given as NAME=PATH or PATH; the fixture's output replaces that of `options`. */
static inline lks_status convert_all(fixture *f, const lks_import_request *options,
                                     const char *const *arguments, int count) {
  lks_arena arena = {0};
  lks_import_input inputs[8] = {{0}};
  lks_import_request request = options != NULL ? *options : (lks_import_request){0};
  for (int i = 0; i < count; ++i) {
    assert_int_equal(lks_import_input_parse(arguments[i], &arena, &inputs[i], &f->err), LKS_OK);
  }
  request.inputs = inputs;
  request.input_count = count;
  request.output = f->output;
  request.summary = &f->summary;
  const lks_status st = lks_import_files(&request, &f->err);
  lks_arena_free(&arena);
  return st;
}

static inline lks_status convert_one(fixture *f, const lks_import_request *options,
                                     const char *argument) {
  return convert_all(f, options, &argument, 1);
}

/* The failure just had: its status, words of what and remedy, and nothing left behind. */
static inline void check_failed(fixture *f, lks_status got, lks_status status, const char *what,
                                const char *remedy) {
  assert_int_equal(got, status);
  assert_int_equal(f->err.status, status);
  if (strstr(f->err.what, what) == NULL || strstr(f->err.remedy, remedy) == NULL) {
    fail_msg("said '%s; %s', not '%s; %s'", f->err.what, f->err.remedy, what, remedy);
  }
  assert_int_equal(sweep(f->out, false), 0);
}

static inline void refuse(fixture *f, const lks_import_request *options, const char *argument,
                          lks_status status, const char *what, const char *remedy) {
  check_failed(f, convert_one(f, options, argument), status, what, remedy);
}

/* Opens the output's dataset, checks type and shape, reads all of it and compares. */
static inline void check_dataset(fixture *f, const char *name, const char *type, int rank,
                                 const int64_t *shape, const double *values) {
  lks_h5 *file = NULL;
  lks_h5_dataset *dataset = NULL;
  assert_int_equal(lks_h5_open(f->output, &file, &f->err), LKS_OK);
  if (lks_h5_dataset_open(file, name, &dataset, &f->err) != LKS_OK) {
    fail_msg("%s", f->err.what);
  }
  const lks_h5_info *info = lks_h5_dataset_info(dataset);
  assert_string_equal(info->type_name, type);
  assert_int_equal(info->rank, rank);
  int64_t count = 1;
  for (int i = 0; i < rank; ++i) {
    assert_int_equal(info->shape[i], shape[i]);
    count *= shape[i];
  }
  double *read = malloc((size_t)count * sizeof *read);
  assert_non_null(read);
  assert_int_equal(lks_h5_read_rows(dataset, 0, shape[0], read, &f->err), LKS_OK);
  for (int64_t i = 0; i < count; ++i) {
    if (read[i] != values[i]) {
      fail_msg("%s: element %lld is %.17g, not %.17g", name, (long long)i, read[i], values[i]);
    }
  }
  free(read);
  lks_h5_dataset_close(&dataset);
  assert_int_equal(lks_h5_close(&file, &f->err), LKS_OK);
}

static inline void must(fixture *f, lks_status got) {
  if (got != LKS_OK) {
    fail_msg("failed: %s; %s", f->err.what, f->err.remedy);
  }
}

#endif
