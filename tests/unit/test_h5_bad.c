/* Bad files are told apart, writing that fails says so, threads do not disturb each other. */
#include "scratch.h"

#include <pthread.h>
#include <sys/stat.h>

#include "base/h5.h"

static lks_error err;

/* ---- opening */

static void test_open_refuses(void **state) {
  scratch *at = *state;
  lks_h5 *file = NULL;
  const int64_t shape[1] = {1000};
  static double values[1000];
  const char *path = scratch_path(at, "bad.h5");
  assert_fails(lks_h5_open(path, &file, &err), LKS_DATA, "bad.h5: no such file");
  assert_null(file);
  assert_fails(lks_h5_open(at->folder, &file, &err), LKS_DATA, "is a folder");
  scratch_write(path, "", 0);
  assert_fails(lks_h5_open(path, &file, &err), LKS_DATA, "bad.h5: the file is empty");
  scratch_write(path, "a,b,c\n1,2,3\n", 12);
  assert_fails(lks_h5_open(path, &file, &err), LKS_DATA, "bad.h5: not an HDF5 file");
  assert_fails(lks_h5_open(scratch_path(at, "bad.h5/below"), &file, &err), LKS_DATA,
               "no such file");
  assert_fails(lks_h5_open("/dev/null", &file, &err), LKS_DATA, "not a regular file");

  assert_ok(lks_h5_create(path, &file, &err));
  assert_ok(lks_h5_write(file, "x", LKS_H5_F64, 1, shape, values, &err));
  assert_ok(lks_h5_close(&file, &err));
  size_t bytes = 0;
  char *data = scratch_read(path, &bytes);
  for (size_t cut = 8; cut < bytes; cut += 97) {
    scratch_write(path, data, cut);
    assert_fails(lks_h5_open(path, &file, &err), LKS_DATA, "bad.h5: ");
    if (cut < 48 || cut > 200) { /* between: HDF5 cannot read its header at all */
      scratch_words(&err, "truncated", (const char *)NULL);
    }
  }
  memset(data + 8, 0x5a, 40); /* the superblock behind the signature */
  scratch_write(path, data, bytes);
  assert_fails(lks_h5_open(path, &file, &err), LKS_DATA, "bad.h5: damaged: ");
  free(data);

  if (geteuid() != 0) {
    assert_int_equal(chmod(path, 0), 0);
    assert_fails(lks_h5_open(path, &file, &err), LKS_DATA, "no permission");
  }
}

static void test_damaged_chunk(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "chunk.h5");
  const int64_t shape[1] = {10000};
  static double values[10000];
  for (int i = 0; i < 10000; ++i) {
    values[i] = (double)i * 0.37;
  }
  lks_h5 *file = NULL;
  lks_h5_dataset *dataset = NULL;
  assert_ok(lks_h5_create(path, &file, &err));
  assert_ok(lks_h5_create_rows(file, "x", LKS_H5_F64, 1, shape, 10000, 6, &dataset, &err));
  assert_ok(lks_h5_write_rows(dataset, 0, 10000, values, &err));
  lks_h5_dataset_close(&dataset);
  assert_ok(lks_h5_close(&file, &err));
  size_t bytes = 0;
  char *data = scratch_read(path, &bytes);
  memset(data + bytes / 2, 0xff, 512); /* within the only chunk */
  scratch_write(path, data, bytes);
  free(data);
  assert_ok(lks_h5_open(path, &file, &err));
  assert_ok(lks_h5_dataset_open(file, "x", &dataset, &err));
  assert_fails(lks_h5_read_rows(dataset, 0, 10000, values, &err), LKS_DATA,
               "chunk.h5: cannot read 'x': ");
  lks_h5_dataset_close(&dataset);
  assert_ok(lks_h5_close(&file, &err));
}

static void test_create_refuses(void **state) {
  scratch *at = *state;
  lks_h5 *file = NULL;
  assert_fails(lks_h5_create(scratch_path(at, "no/such/folder.h5"), &file, &err), LKS_STORAGE,
               "cannot write", "no/such/folder.h5", "No such file or directory");
  assert_null(file);
  assert_fails(lks_h5_create_aside(scratch_path(at, "no/aside"), "final.h5", &file, &err),
               LKS_STORAGE, "cannot write final.h5: ");
}

/* ---- full disks */

typedef struct full {
  const char *path;
  int64_t rows;
  bool growing;
} full;

/* Writes a file that may not become longer than 512 bytes. */
static lks_status write_full(void *user, lks_error *mistake) {
  lks_status st = LKS_OK;
  const full *what = user;
  lks_error other;
  lks_h5 *file = NULL;
  lks_h5_dataset *dataset = NULL;
  const int64_t none = 0;
  double *values = calloc((size_t)what->rows, sizeof(*values));
  if (values == NULL || lks_h5_create(what->path, &file, mistake) != LKS_OK) {
    return LKS_INTERNAL;
  }
  if (what->growing) { /* into the chunk cache: only closing it writes */
    st = lks_h5_create_rows(file, "x", LKS_H5_F64, 1, &none, what->rows, 0, &dataset, mistake);
    st = st != LKS_OK ? st : lks_h5_write_rows(dataset, 0, what->rows, values, mistake);
    scratch_limit_files(512);
    lks_h5_dataset_close(&dataset);
  } else {
    scratch_limit_files(512);
    st = lks_h5_write(file, "x", LKS_H5_F64, 1, &what->rows, values, mistake);
  }
  const lks_status closed = lks_h5_close(&file, st == LKS_OK ? mistake : &other);
  free(values);
  return st != LKS_OK ? st : closed;
}

static void test_write_fails(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "full.h5");
  full jobs[3] = {{path, 100, false}, {path, 100000, false}, {path, 1000, true}};
  for (int i = 0; i < 3; ++i) {
    assert_fails(scratch_in_child(write_full, &jobs[i], &err), LKS_STORAGE, "cannot write",
                 "full.h5", "File too large");
  }
}

/* ---- threads */

typedef struct job {
  scratch *at;
  int number;
  int failures;
} job;

static void *work(void *user) {
  job *mine = user;
  lks_error mistake;
  char path[512], name[32];
  const int64_t shape[1] = {64};
  double values[64], got[64];
  for (int round = 0; round < 40; ++round) {
    lks_h5 *file = NULL;
    lks_h5_dataset *dataset = NULL;
    (void)snprintf(path, sizeof(path), "%s/thread-%d.h5", mine->at->folder, mine->number);
    (void)snprintf(name, sizeof(name), "g%d/x", round);
    for (int i = 0; i < 64; ++i) {
      values[i] = mine->number * 1000 + round + i;
    }
    const bool fine = lks_h5_create(path, &file, &mistake) == LKS_OK &&
                      lks_h5_write(file, name, LKS_H5_F64, 1, shape, values, &mistake) == LKS_OK &&
                      lks_h5_close(&file, &mistake) == LKS_OK &&
                      lks_h5_open(path, &file, &mistake) == LKS_OK &&
                      lks_h5_dataset_open(file, "absent", &dataset, &mistake) == LKS_DATA &&
                      lks_h5_dataset_open(file, name, &dataset, &mistake) == LKS_OK &&
                      lks_h5_read_rows(dataset, 0, 64, got, &mistake) == LKS_OK &&
                      memcmp(values, got, sizeof(got)) == 0;
    lks_h5_dataset_close(&dataset);
    mine->failures += fine && lks_h5_close(&file, &mistake) == LKS_OK ? 0 : 1;
  }
  return NULL;
}

static void test_threads(void **state) {
  pthread_t threads[4];
  job jobs[4];
  for (int i = 0; i < 4; ++i) {
    jobs[i] = (job){*state, i, 0};
    assert_int_equal(pthread_create(&threads[i], NULL, work, &jobs[i]), 0);
  }
  for (int i = 0; i < 4; ++i) {
    assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(jobs[i].failures, 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_open_refuses),   cmocka_unit_test(test_damaged_chunk),
      cmocka_unit_test(test_create_refuses), cmocka_unit_test(test_write_fails),
      cmocka_unit_test(test_threads),
  };
  return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
