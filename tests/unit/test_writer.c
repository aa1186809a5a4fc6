/* The background writer: what it leaves in the run folder, what it keeps, how it fails. */
#include "small_model.h"

#include <pthread.h>
#include <sys/stat.h>

#include "base/h5.h"
#include "store/files.h"

static lks_error err;

static void make(small_model *made, const char *optimizer) {
  small_model_make(made, 5, optimizer, 0.9);
  small_checkpoint(made);
}

static bool there(scratch *at, const char *run, const char *name) {
  struct stat about;
  return stat(lks_arena_print(&at->paths, "%s/%s/%s", at->folder, run, name), &about) == 0;
}

static int64_t step_of(scratch *at, const lks_model *model, const char *name) {
  lks_arena arena = {0};
  lks_checkpoint got;
  assert_ok(lks_checkpoint_read(scratch_path(at, name), model, &arena, &got, &err));
  const int64_t step = got.progress.step;
  lks_arena_free(&arena);
  return step;
}

static void test_keep_best_latest(void **state) {
  scratch *at = *state;
  const char *run = scratch_path(at, "keep");
  char target[256] = {0};
  small_model made;
  lks_writer *writer = NULL;
  make(&made, "adam");
  assert_ok(lks_writer_open(run, made.model, 2, &writer, &err));
  for (int64_t step = 10; step <= 50; step += 10) {
    made.checkpoint.progress.step = step;
    assert_ok(lks_writer_submit(writer, &made.checkpoint, step == 20, &err));
  }
  assert_ok(lks_writer_wait(writer, &err));
  assert_ok(lks_writer_poll(writer, &err));
  assert_false(there(at, "keep", "checkpoints/step-00000010.weights.h5"));
  assert_false(there(at, "keep", "checkpoints/step-00000020.weights.h5"));
  assert_false(there(at, "keep", "checkpoints/step-00000030.weights.h5"));
  assert_true(there(at, "keep", "checkpoints/step-00000040.weights.h5"));
  assert_int_equal(step_of(at, made.model, "keep/checkpoints/step-00000050.weights.h5"), 50);
  /* Its step file is gone; the best is still whole. */
  assert_int_equal(step_of(at, made.model, "keep/checkpoints/best.weights.h5"), 20);
  assert_int_equal(step_of(at, made.model, "keep/checkpoints/latest.weights.h5"), 50);
  assert_int_equal(
      readlink(scratch_path(at, "keep/checkpoints/latest.weights.h5"), target, sizeof(target) - 1),
      24);
  assert_string_equal(target, "step-00000050.weights.h5"); /* relative: the folder can move */
  assert_int_equal(scratch_count(scratch_path(at, "keep/checkpoints"), ""), 4);
  assert_int_equal(scratch_count(run, ""), 2); /* checkpoints, history.h5 */
  lks_writer_close(&writer);
  assert_null(writer);
  lks_writer_close(&writer);
  small_free(&made);
}

static void test_keep_all(void **state) {
  scratch *at = *state;
  small_model made;
  lks_writer *writer = NULL;
  make(&made, "sgd");
  assert_ok(lks_writer_open(scratch_path(at, "all"), made.model, 0, &writer, &err));
  for (int64_t step = 1; step <= 6; ++step) {
    made.checkpoint.progress.step = step;
    assert_ok(lks_writer_submit(writer, &made.checkpoint, false, &err));
  }
  lks_writer_close(&writer); /* finishes what was submitted */
  assert_int_equal(scratch_count(scratch_path(at, "all/checkpoints"), "step-"), 6);
  assert_false(there(at, "all", "checkpoints/best.weights.h5"));
  small_free(&made);
}

/* Resumed from before a damaged newest file: what is written now is not given up for it. */
static void test_keep_after_rewind(void **state) {
  scratch *at = *state;
  small_model made;
  lks_writer *writer = NULL;
  make(&made, "sgd");
  assert_ok(lks_writer_open(scratch_path(at, "rewind"), made.model, 1, &writer, &err));
  scratch_write(scratch_path(at, "rewind/checkpoints/step-00000100.weights.h5"), "x", 1);
  for (int64_t step = 90; step <= 95; step += 5) {
    made.checkpoint.progress.step = step;
    assert_ok(lks_writer_submit(writer, &made.checkpoint, false, &err));
  }
  assert_ok(lks_writer_wait(writer, &err));
  assert_true(there(at, "rewind", "checkpoints/step-00000095.weights.h5"));
  assert_false(there(at, "rewind", "checkpoints/step-00000090.weights.h5"));
  lks_writer_close(&writer);
  small_free(&made);
}

/* The writer owns copies, but of the arrays that it borrows until it is waited for: what the caller
 * does afterwards does not show. */
static void test_copies(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "copy/checkpoints/step-00000012.weights.h5");
  small_model made, other;
  lks_writer *writer = NULL;
  lks_arena arena = {0};
  lks_checkpoint got;
  make(&made, "adam");
  make(&other, "adam");
  char *config = strdup(made.checkpoint.config);
  assert_non_null(config);
  other.checkpoint.config = config;
  assert_ok(lks_writer_open(scratch_path(at, "copy"), made.model, 3, &writer, &err));
  assert_ok(lks_writer_submit(writer, &other.checkpoint, false, &err));
  memset(config, '!', strlen(config));
  free(config);
  memset(other.best, 0, (size_t)made.model->arena_floats * sizeof(float));
  other.shift[1] = 1e9;
  lks_history_cut(&other.history, 0);
  assert_ok(lks_writer_wait(writer, &err));
  memset(other.parameters, 0, (size_t)made.model->arena_floats * sizeof(float));
  memset(other.slots[1], 0, (size_t)made.model->arena_floats * sizeof(float));
  small_free(&other);
  assert_ok(lks_checkpoint_read(path, made.model, &arena, &got, &err));
  const size_t bytes = (size_t)made.model->arena_floats * sizeof(float);
  assert_memory_equal(got.parameters, made.parameters, bytes);
  assert_memory_equal(got.slots[0], made.slots[0], bytes);
  assert_memory_equal(got.slots[1], made.slots[1], bytes);
  assert_memory_equal(got.best_parameters, made.best, bytes);
  assert_string_equal(got.config, made.checkpoint.config);
  assert_true(got.features.shift[1] == made.shift[1]);
  assert_int_equal(got.history->epochs, 3);
  lks_arena_free(&arena);
  lks_writer_close(&writer);
  small_free(&made);
}

static void test_history_file(void **state) {
  scratch *at = *state;
  small_model made;
  lks_writer *writer = NULL;
  lks_h5 *file = NULL;
  lks_history got;
  make(&made, "sgd");
  assert_ok(lks_writer_open(scratch_path(at, "hist"), made.model, 1, &writer, &err));
  assert_ok(lks_writer_submit(writer, &made.checkpoint, false, &err));
  double *row = lks_history_add(&made.history);
  assert_non_null(row);
  row[1] = 7;
  made.checkpoint.progress.step += 1;
  assert_ok(lks_writer_submit(writer, &made.checkpoint, false, &err));
  assert_ok(lks_writer_wait(writer, &err));
  assert_ok(lks_h5_open(scratch_path(at, "hist/history.h5"), &file, &err));
  assert_ok(lks_history_load(file, "epoch", &got, &err));
  assert_int_equal(got.epochs, 4);
  assert_true(got.values[3 * got.columns + lks_history_column(&got, "loss")] == 7);
  lks_history_free(&got);
  assert_ok(lks_h5_close(&file, &err));
  lks_writer_close(&writer);
  small_free(&made);
}

/* ---- failure */

static void test_failure_is_told(void **state) {
  scratch *at = *state;
  const char *folder = scratch_path(at, "fail/checkpoints");
  small_model made;
  lks_writer *writer = NULL;
  make(&made, "adam");
  assert_ok(lks_writer_open(scratch_path(at, "fail"), made.model, 1, &writer, &err));
  /* A file where the folder was: as for a disk that went away. */
  assert_int_equal(rmdir(folder), 0);
  scratch_write(folder, "x", 1);
  assert_ok(lks_writer_submit(writer, &made.checkpoint, false, &err));
  assert_fails(lks_writer_wait(writer, &err), LKS_STORAGE, "cannot write",
               "step-00000012.weights.h5", "Not a directory");
  assert_fails(lks_writer_poll(writer, &err), LKS_STORAGE, "Not a directory");
  assert_fails(lks_writer_submit(writer, &made.checkpoint, false, &err), LKS_STORAGE,
               "Not a directory");
  lks_writer_close(&writer);
  assert_fails(lks_writer_open(scratch_path(at, "fail"), made.model, 1, &writer, &err), LKS_STORAGE,
               "cannot make folder", "is not a folder");
  assert_null(writer);
  small_free(&made);
}

static lks_status submit_limited(void *user, lks_error *mistake) {
  small_model made;
  lks_writer *writer = NULL;
  make(&made, "adam");
  lks_status st = lks_writer_open(user, made.model, 1, &writer, mistake);
  for (int64_t step = 1; st == LKS_OK && step <= 2; ++step) {
    made.checkpoint.progress.step = step;
    st = lks_writer_submit(writer, &made.checkpoint, true, mistake);
    st = st == LKS_OK ? lks_writer_wait(writer, mistake) : st;
    scratch_limit_files(30000); /* the second does not fit */
  }
  lks_writer_close(&writer);
  small_free(&made);
  return st;
}

static void test_full_disk(void **state) {
  scratch *at = *state;
  char *run = lks_arena_copy(&at->paths, scratch_path(at, "limited"));
  small_model made;
  make(&made, "adam");
  assert_fails(scratch_in_child(submit_limited, run, &err), LKS_STORAGE, "cannot write",
               "step-00000002.weights.h5", "File too large");
  assert_int_equal(step_of(at, made.model, "limited/checkpoints/step-00000001.weights.h5"), 1);
  assert_int_equal(step_of(at, made.model, "limited/checkpoints/best.weights.h5"), 1);
  assert_int_equal(scratch_count(scratch_path(at, "limited/checkpoints"), ""), 3);
  small_free(&made);
}

/* ---- beside other users of HDF5 */

static void *read_on(void *user) {
  const char *path = user;
  lks_error mistake;
  static double got[4096];
  int failures = 0;
  for (int round = 0; round < 100; ++round) {
    lks_h5 *file = NULL;
    lks_h5_dataset *dataset = NULL;
    const bool fine = lks_h5_open(path, &file, &mistake) == LKS_OK &&
                      lks_h5_dataset_open(file, "x", &dataset, &mistake) == LKS_OK &&
                      lks_h5_read_rows(dataset, 0, 4096, got, &mistake) == LKS_OK;
    for (int i = 0; fine && i < 4096; ++i) {
      failures += got[i] != i;
    }
    lks_h5_dataset_close(&dataset);
    failures += lks_h5_close(&file, &mistake) != LKS_OK || !fine;
  }
  return failures == 0 ? user : NULL;
}

static void test_beside_reader(void **state) {
  scratch *at = *state;
  char *path = lks_arena_copy(&at->paths, scratch_path(at, "data.h5"));
  const int64_t shape[1] = {4096};
  double values[4096];
  small_model made;
  lks_writer *writer = NULL;
  lks_h5 *file = NULL;
  pthread_t reader;
  void *fine = NULL;
  for (int i = 0; i < 4096; ++i) {
    values[i] = i;
  }
  assert_ok(lks_h5_create(path, &file, &err));
  assert_ok(lks_h5_write(file, "x", LKS_H5_F64, 1, shape, values, &err));
  assert_ok(lks_h5_close(&file, &err));
  make(&made, "adam");
  assert_ok(lks_writer_open(scratch_path(at, "beside"), made.model, 1, &writer, &err));
  assert_int_equal(pthread_create(&reader, NULL, read_on, path), 0);
  for (int64_t step = 1; step <= 20; ++step) {
    made.checkpoint.progress.step = step;
    assert_ok(lks_writer_submit(writer, &made.checkpoint, step % 3 == 0, &err));
  }
  assert_ok(lks_writer_wait(writer, &err));
  assert_int_equal(pthread_join(reader, &fine), 0);
  assert_non_null(fine);
  assert_int_equal(step_of(at, made.model, "beside/checkpoints/step-00000020.weights.h5"), 20);
  lks_writer_close(&writer);
  small_free(&made);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_keep_best_latest),  cmocka_unit_test(test_keep_all),
      cmocka_unit_test(test_keep_after_rewind), cmocka_unit_test(test_copies),
      cmocka_unit_test(test_history_file),      cmocka_unit_test(test_failure_is_told),
      cmocka_unit_test(test_full_disk),         cmocka_unit_test(test_beside_reader),
  };
  return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
