/* Checkpoints: everything reads back equal, every damage is found, other models are refused by
 * name. */
#include "small_model.h"

#include <sys/stat.h>

#include "base/h5.h"
#include "store/files.h"

static lks_error err;

static void make(small_model *made, const char *optimizer, double momentum) {
  small_model_make(made, 5, optimizer, momentum);
  small_checkpoint(made);
}

static const char *write_one(scratch *at, const char *name, const char *optimizer,
                             double momentum) {
  small_model made;
  const char *path = scratch_path(at, name);
  make(&made, optimizer, momentum);
  assert_ok(lks_checkpoint_write(path, made.model, &made.checkpoint, &err));
  small_free(&made);
  return path;
}

static void same_arrays(const lks_model *model, const float *a, const float *b) {
  assert_non_null(a);
  assert_memory_equal(a, b, (size_t)model->arena_floats * sizeof(float));
  assert_int_equal((uintptr_t)a % 64, 0);
}

/* ---- round trips */

static void check_state(const lks_checkpoint *got, const lks_checkpoint *put) {
  const lks_progress *a = &got->progress, *b = &put->progress;
  assert_int_equal(a->step, b->step);
  assert_int_equal(a->epoch, b->epoch);
  assert_int_equal(a->epoch_row, b->epoch_row);
  assert_int_equal(a->sums.rows, b->sums.rows);
  assert_memory_equal(&a->sums.loss, &b->sums.loss, sizeof(double));
  assert_memory_equal(a->sums.metrics, b->sums.metrics, sizeof(b->sums.metrics));
  assert_true(a->epoch_seconds == b->epoch_seconds);
  assert_int_equal(a->epoch_steps, b->epoch_steps);
  assert_true(a->complete == b->complete && a->stopped_early == b->stopped_early);
  assert_true(a->best == b->best && isnan(a->stop_best));
  assert_int_equal(a->best_epoch, b->best_epoch);
  assert_int_equal(a->stop_wait, b->stop_wait);
  assert_int_equal(a->stop_epoch, b->stop_epoch);
  assert_true(got->seed == put->seed);
  assert_int_equal(got->order_chunk_rows, put->order_chunk_rows);
  assert_string_equal(got->config, put->config);
  assert_non_null(strstr(got->model_config, "Sequential"));
  assert_non_null(strstr(got->training_config, "sparse_categorical_crossentropy"));
  assert_int_equal(got->features.columns, 4);
  assert_memory_equal(got->features.shift, put->features.shift, 4 * sizeof(double));
  assert_memory_equal(got->features.factor, put->features.factor, 4 * sizeof(double));
  assert_int_equal(got->targets.columns, 0);
  assert_string_equal(got->provenance.command, put->provenance.command);
  assert_string_equal(got->provenance.data_modified, put->provenance.data_modified);
  assert_null(got->provenance.build);
  assert_int_equal(got->provenance.ranks, 2);
  assert_int_equal(got->provenance.data_bytes, 1234);
  assert_true(got->provenance.data_hash == put->provenance.data_hash);
  assert_true(got->provenance.validation_hash == put->provenance.validation_hash);
}

static void test_round_trip(void **state) {
  scratch *at = *state;
  static const struct {
    const char *optimizer;
    double momentum;
    int slots;
  } cases[] = {{"adam", 0, 2}, {"adamw", 0, 2}, {"sgd", 0.9, 1}, {"sgd", 0, 0}};
  for (int i = 0; i < 4; ++i) {
    const char *path = scratch_path(at, "round.weights.h5");
    small_model made;
    lks_arena arena = {0};
    lks_checkpoint got;
    make(&made, cases[i].optimizer, cases[i].momentum);
    assert_ok(lks_checkpoint_write(path, made.model, &made.checkpoint, &err));
    assert_ok(lks_checkpoint_read(path, made.model, &arena, &got, &err));
    same_arrays(made.model, got.parameters, made.parameters);
    for (int s = 0; s < LKS_MAX_SLOTS; ++s) {
      if (s < cases[i].slots) {
        same_arrays(made.model, got.slots[s], made.slots[s]);
      } else {
        assert_null(got.slots[s]);
      }
    }
    same_arrays(made.model, got.best_parameters, made.best);
    check_state(&got, &made.checkpoint);
    assert_true(got.weights_hash == lks_model_hash(made.model, made.parameters));
    assert_int_equal(got.history->epochs, 3);
    assert_memory_equal(got.history->values, made.history.values, 6 * sizeof(double));
    lks_checkpoint peeked;
    assert_ok(lks_checkpoint_peek(path, &arena, &peeked, &err));
    check_state(&peeked, &made.checkpoint);
    assert_true(peeked.weights_hash == got.weights_hash);
    assert_null(peeked.parameters);
    lks_arena_free(&arena);
    small_free(&made);
    assert_int_equal(scratch_count(at->folder, ".round"), 0);
  }
}

/* What may be NULL: a bare set of weights. */
static void test_bare(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "bare.weights.h5");
  small_model made;
  lks_arena arena = {0};
  lks_checkpoint got;
  make(&made, "adam", 0);
  const lks_checkpoint bare = {.parameters = made.parameters};
  assert_ok(lks_checkpoint_write(path, made.model, &bare, &err));
  assert_ok(lks_checkpoint_read(path, made.model, &arena, &got, &err));
  same_arrays(made.model, got.parameters, made.parameters);
  assert_null(got.slots[0]);
  assert_null(got.best_parameters);
  assert_null(got.config);
  assert_null(got.history);
  assert_int_equal(got.order_chunk_rows, 0);
  lks_arena_free(&arena);
  small_free(&made);
}

static void test_equal_bytes(void **state) {
  scratch *at = *state;
  size_t bytes[2];
  char *data[2];
  data[0] = scratch_read(write_one(at, "one.weights.h5", "adam", 0), &bytes[0]);
  data[1] = scratch_read(write_one(at, "two.weights.h5", "adam", 0), &bytes[1]);
  assert_int_equal(bytes[0], bytes[1]);
  assert_memory_equal(data[0], data[1], bytes[0]);
  free(data[0]);
  free(data[1]);
}

/* ---- damage */

static void test_flipped_bits(void **state) {
  scratch *at = *state;
  size_t bytes = 0;
  char *data = scratch_read(write_one(at, "sound.weights.h5", "adam", 0), &bytes);
  const char *path = scratch_path(at, "flipped.weights.h5");
  lks_checkpoint got;
  lks_arena arena = {0};
  for (size_t i = 0; i < bytes; i += i + 64 < bytes ? 61 : 1) { /* each byte of the seal */
    const char mask = (char)(1 << (i % 8));
    data[i] = (char)(data[i] ^ mask);
    scratch_write(path, data, bytes);
    assert_fails(lks_checkpoint_peek(path, &arena, &got, &err), LKS_STORAGE,
                 "flipped.weights.h5: ");
    if (strstr(err.what, "damaged") == NULL && strstr(err.what, "truncated") == NULL) {
      fail_msg("byte %zu: %s", i, err.what);
    }
    data[i] = (char)(data[i] ^ mask);
  }
  scratch_write(path, data, bytes);
  assert_ok(lks_checkpoint_peek(path, &arena, &got, &err));
  free(data);
  lks_arena_free(&arena);
}

static void test_truncated(void **state) {
  scratch *at = *state;
  size_t bytes = 0;
  char *data = scratch_read(write_one(at, "whole.weights.h5", "adam", 0), &bytes);
  const char *path = scratch_path(at, "cut.weights.h5");
  lks_checkpoint got;
  lks_arena arena = {0};
  for (size_t cut = 0; cut < bytes; cut += cut + 80 < bytes ? 211 : 1) {
    scratch_write(path, data, cut);
    assert_fails(lks_checkpoint_peek(path, &arena, &got, &err), LKS_STORAGE, "cut.weights.h5: ");
    if (cut > 200 && strstr(err.what, "truncated") == NULL) {
      fail_msg("%zu of %zu bytes: %s", cut, bytes, err.what);
    }
  }
  /* The middle is missing: the seal tells. More than was sealed: so does its place. */
  scratch_write(path, data, 1000);
  FILE *file = fopen(path, "ab");
  assert_non_null(file);
  assert_int_equal(fwrite(data + 3000, 1, bytes - 3000, file), bytes - 3000);
  assert_int_equal(fclose(file), 0);
  assert_fails(lks_checkpoint_peek(path, &arena, &got, &err), LKS_STORAGE, "truncated: ");
  scratch_write(path, data, bytes);
  file = fopen(path, "ab");
  assert_non_null(file);
  assert_int_equal(fputc(0, file), 0);
  assert_int_equal(fclose(file), 0);
  assert_fails(lks_checkpoint_peek(path, &arena, &got, &err), LKS_STORAGE, "seal is missing");
  free(data);
  lks_arena_free(&arena);
}

static void test_refused(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "odd.weights.h5");
  lks_checkpoint got;
  lks_arena arena = {0};
  lks_h5 *file = NULL;
  const double value = 1;
  assert_fails(lks_checkpoint_peek(scratch_path(at, "none"), &arena, &got, &err), LKS_STORAGE,
               "none: no such file");
  assert_fails(lks_checkpoint_peek(at->folder, &arena, &got, &err), LKS_STORAGE, "is a folder");
  assert_fails(lks_checkpoint_peek("/dev/null", &arena, &got, &err), LKS_STORAGE,
               "not a regular file");
  scratch_write(path, "", 0);
  assert_fails(lks_checkpoint_peek(path, &arena, &got, &err), LKS_STORAGE, "is empty");
  scratch_write(path, "text", 4);
  assert_fails(lks_checkpoint_peek(path, &arena, &got, &err), LKS_STORAGE, "not an HDF5 file");
  assert_ok(lks_h5_create(path, &file, &err));
  assert_ok(lks_h5_write(file, "x_train", LKS_H5_F64, 0, NULL, &value, &err));
  assert_ok(lks_h5_close(&file, &err));
  assert_fails(lks_checkpoint_peek(path, &arena, &got, &err), LKS_STORAGE, "odd.weights.h5",
               "holds no model that Lockstep or Keras wrote (has x_train)");
  lks_arena_free(&arena);
}

/* Seals whatever the file holds, as a newer version would. */
static void seal_again(const char *path) {
  unsigned char seal[32] = "LKSSEAL1";
  struct stat about;
  uint64_t hash = 0;
  assert_int_equal(stat(path, &about), 0);
  assert_ok(lks_file_hash(path, -1, &hash, &err));
  for (int i = 0; i < 8; ++i) {
    seal[8 + i] = (unsigned char)((uint64_t)about.st_size >> (8 * i));
    seal[16 + i] = (unsigned char)(hash >> (8 * i));
  }
  FILE *file = fopen(path, "ab");
  assert_non_null(file);
  assert_int_equal(fwrite(seal, 1, 32, file), 32);
  assert_int_equal(fclose(file), 0);
}

static void test_newer_format(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "newer.weights.h5");
  lks_h5 *file = NULL;
  lks_checkpoint got;
  lks_arena arena = {0};
  assert_ok(lks_h5_create(path, &file, &err));
  assert_ok(lks_h5_group(file, "lockstep", &err));
  assert_ok(lks_h5_attr_int64(file, "lockstep", "format", LKS_CHECKPOINT_FORMAT + 1, &err));
  assert_ok(lks_h5_close(&file, &err));
  seal_again(path);
  assert_fails(lks_checkpoint_peek(path, &arena, &got, &err), LKS_STORAGE, "newer.weights.h5",
               "format 2 is newer");
  lks_arena_free(&arena);
}

/* ---- other models */

static void check_other(const char *path, const lks_model_options *options, int64_t inputs,
                        const char *words) {
  lks_model *model = NULL;
  lks_arena arena = {0};
  lks_checkpoint got;
  assert_ok(lks_model_make(options, inputs, 1, &model, &err));
  assert_fails(lks_checkpoint_read(path, model, &arena, &got, &err), LKS_STORAGE, words,
               "other.weights.h5");
  lks_model_free(&model);
  lks_arena_free(&arena);
}

static void test_other_model(void **state) {
  scratch *at = *state;
  const char *path = write_one(at, "other.weights.h5", "adam", 0);
  small_model made;
  small_model_make(&made, 5, "adam", 0);
  lks_layer_options more[4] = {made.layers[0], made.layers[1], made.layers[2], made.layers[2]};
  lks_model_options options = {
      .layers = {made.layers, 3, sizeof(more[0])},
      .loss = {find_kind(lks_loss_kinds, "sparse_categorical_crossentropy")},
      .optimizer = made.model->optimizer};
  check_other(path, &options, 6, "layer 1 (dense): kernel is [4, 5] in ");
  check_other(path, &options, 6, "the model has [6, 5]");
  made.layers[2].dense.units = 7;
  check_other(path, &options, 4, "layer 3 (dense_1): kernel is [5, 3] in ");
  made.layers[2].dense.units = 3;
  made.layers[2].dense.use_bias = false;
  check_other(path, &options, 4, "layer 3 (dense_1): 2 variables in ");
  options.layers.items = more;
  options.layers.count = 4;
  check_other(path, &options, 4, "layer 4 (dense_2): 0 variables in ");
  more[0] = made.layers[0];
  more[0].dense.activation = made.layers[2].dense.activation; /* one dense layer only */
  more[0].dense.units = 3;
  options.layers.count = 1;
  check_other(path, &options, 4, "layer 1 (dense): kernel is [4, 5] in ");
  more[0].dense.units = 5;
  check_other(path, &options, 4, "has weights of a layer 'dense_1' that the model does not have");
  small_free(&made);
}

/* The parameters of a file of another optimizer are still good; its slots are not. */
static void test_other_optimizer(void **state) {
  scratch *at = *state;
  const char *path = write_one(at, "adam.weights.h5", "adam", 0);
  small_model made;
  lks_arena arena = {0};
  lks_checkpoint got;
  make(&made, "sgd", 0.9);
  assert_ok(lks_checkpoint_read(path, made.model, &arena, &got, &err));
  same_arrays(made.model, got.parameters, made.parameters);
  assert_null(got.slots[0]);
  lks_arena_free(&arena);
  small_free(&made);
}

/* ---- the newest of a run */

static void test_newest(void **state) {
  scratch *at = *state;
  lks_arena arena = {0};
  char *path = NULL, *passed = NULL;
  size_t bytes = 0;
  const char *run = scratch_path(at, "run");
  assert_ok(lks_checkpoint_newest(run, &arena, &path, &passed, &err)); /* no folder at all */
  assert_null(path);
  assert_null(passed);
  assert_ok(lks_folder_make(scratch_path(at, "run/checkpoints"), &err));
  (void)write_one(at, "run/checkpoints/step-00000009.weights.h5", "adam", 0);
  (void)write_one(at, "run/checkpoints/step-100000000.weights.h5", "adam", 0); /* nine digits */
  (void)write_one(at, "run/checkpoints/best.weights.h5", "adam", 0);
  (void)write_one(at, "run/checkpoints/step-x.weights.h5", "adam", 0);
  assert_ok(lks_checkpoint_newest(run, &arena, &path, &passed, &err));
  assert_string_equal(lks_path_base(path), "step-100000000.weights.h5");
  assert_null(passed);
  const char *newest = scratch_path(at, "run/checkpoints/step-100000000.weights.h5");
  char *data = scratch_read(newest, &bytes);
  data[bytes / 2] ^= 1;
  scratch_write(newest, data, bytes);
  scratch_write(scratch_path(at, "run/checkpoints/step-00000010.weights.h5"), data, bytes / 2);
  lks_h5 *file = NULL;
  assert_ok(
      lks_h5_create(scratch_path(at, "run/checkpoints/step-00000011.weights.h5"), &file, &err));
  assert_ok(lks_h5_group(file, "layers", &err)); /* as Keras writes it */
  assert_ok(lks_h5_close(&file, &err));
  assert_ok(lks_checkpoint_newest(run, &arena, &path, &passed, &err));
  assert_string_equal(lks_path_base(path), "step-00000009.weights.h5");
  assert_non_null(strstr(passed, "step-100000000.weights.h5: damaged: "));
  assert_non_null(strstr(passed, "; step-00000011.weights.h5: not a checkpoint of a run"));
  assert_non_null(strstr(passed, "; step-00000010.weights.h5: truncated: "));
  free(data);
  lks_arena_free(&arena);
}

/* ---- writing that fails */

typedef struct attempt {
  const char *path;
  rlim_t bytes;
} attempt;

static lks_status write_limited(void *user, lks_error *mistake) {
  const attempt *what = user;
  small_model made;
  make(&made, "adam", 0);
  scratch_limit_files(what->bytes);
  const lks_status st = lks_checkpoint_write(what->path, made.model, &made.checkpoint, mistake);
  small_free(&made);
  return st;
}

static void test_full_disk(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "limited.weights.h5");
  size_t bytes = 0, now = 0;
  char *old = scratch_read(write_one(at, "limited.weights.h5", "adam", 0), &bytes);
  /* In HDF5's skeleton, in the arrays, in the seal. */
  const rlim_t limits[] = {0, 1000, bytes / 2, bytes - 1000, bytes - 33, bytes - 32, bytes - 1};
  for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); ++i) {
    attempt what = {path, limits[i]};
    assert_fails(scratch_in_child(write_limited, &what, &err), LKS_STORAGE, "cannot write",
                 "limited.weights.h5", "File too large");
    assert_null(strstr(err.what, ".tmp-"));
    char *data = scratch_read(path, &now);
    assert_int_equal(now, bytes);
    assert_memory_equal(data, old, bytes);
    free(data);
    assert_int_equal(scratch_count(at->folder, ".limited"), 0);
  }
  attempt enough = {path, bytes + 16384}; /* HDF5 rounds the room for metadata up meanwhile */
  assert_ok(scratch_in_child(write_limited, &enough, &err));
  free(old);
}

static void test_no_folder(void **state) {
  scratch *at = *state;
  small_model made;
  make(&made, "adam", 0);
  assert_fails(lks_checkpoint_write(scratch_path(at, "none/x.weights.h5"), made.model,
                                    &made.checkpoint, &err),
               LKS_STORAGE, "cannot write", "none/x.weights.h5: No such file or directory");
  scratch_write(scratch_path(at, "file"), "x", 1);
  assert_fails(lks_checkpoint_write(scratch_path(at, "file/x.weights.h5"), made.model,
                                    &made.checkpoint, &err),
               LKS_STORAGE, "cannot write", "file/x.weights.h5: Not a directory");
  small_free(&made);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_round_trip),      cmocka_unit_test(test_bare),
      cmocka_unit_test(test_equal_bytes),     cmocka_unit_test(test_flipped_bits),
      cmocka_unit_test(test_truncated),       cmocka_unit_test(test_refused),
      cmocka_unit_test(test_newer_format),    cmocka_unit_test(test_other_model),
      cmocka_unit_test(test_other_optimizer), cmocka_unit_test(test_newest),
      cmocka_unit_test(test_full_disk),       cmocka_unit_test(test_no_folder),
  };
  return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
