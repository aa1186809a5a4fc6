/* Weights that Keras wrote, in both its layouts, are read. */
#include "small_model.h"

#include "base/h5.h"

static lks_error err;

static void make(small_model *made) {
  small_model_make(made, 5, "adam", 0);
  small_checkpoint(made);
}

static void same_arrays(const lks_model *model, const float *a, const float *b) {
  assert_non_null(a);
  assert_memory_equal(a, b, (size_t)model->arena_floats * sizeof(float));
}

static void put_values(lks_h5 *file, const char *name, const small_model *made, int parameter,
                       const float *base) {
  const lks_parameter *one = &made->model->parameters[parameter];
  assert_ok(lks_h5_write(file, name, LKS_H5_F32, one->rank, one->shape, base + one->offset, &err));
}

static void test_keras_v3(void **state) {
  scratch *at = *state;
  static const char *const names[4] = {"layers/dense/vars/0", "layers/dense/vars/1",
                                       "layers/dense_1/vars/0", "layers/dense_1/vars/1"};
  const char *path = scratch_path(at, "keras.weights.h5");
  const int64_t iteration = 77;
  const float rate = 0.001f;
  char name[64];
  small_model made;
  lks_h5 *file = NULL;
  lks_arena arena = {0};
  lks_checkpoint got;
  make(&made);
  assert_ok(lks_h5_create(path, &file, &err));
  for (int p = 0; p < 4; ++p) {
    put_values(file, names[p], &made, p, made.parameters);
    for (int s = 0; s < 2; ++s) {
      (void)snprintf(name, sizeof(name), "optimizer/vars/%d", 2 + 2 * p + s);
      put_values(file, name, &made, p, made.slots[s]);
    }
  }
  assert_ok(lks_h5_group(file, "layers/dropout/vars", &err));
  assert_ok(lks_h5_write(file, "optimizer/vars/0", LKS_H5_I64, 0, NULL, &iteration, &err));
  assert_ok(lks_h5_write(file, "optimizer/vars/1", LKS_H5_F32, 0, NULL, &rate, &err));
  assert_ok(lks_h5_close(&file, &err));
  assert_ok(lks_checkpoint_read(path, made.model, &arena, &got, &err));
  same_arrays(made.model, got.parameters, made.parameters);
  same_arrays(made.model, got.slots[0], made.slots[0]);
  same_arrays(made.model, got.slots[1], made.slots[1]);
  assert_int_equal(got.progress.step, 77);
  assert_null(got.config);
  assert_true(got.weights_hash == lks_model_hash(made.model, made.parameters));
  lks_arena_free(&arena);
  small_free(&made);
}

/* weights_only: the layers lie at the root, as save_weights wrote them. */
static void write_legacy(const char *path, const small_model *made, bool weights_only,
                         bool second) {
  static const char *const layers[4] = {"input_1", "first", "dropout", "second"};
  static const char *const weights[2][2] = {{"first/kernel:0", "first/bias:0"},
                                            {"second/kernel:0", "second/bias:0"}};
  const char *root = weights_only ? "" : "/model_weights";
  char name[128];
  lks_h5 *file = NULL;
  assert_ok(lks_h5_create(path, &file, &err));
  for (int i = 0; i < 4; ++i) {
    const int dense = i == 1 ? 0 : i == 3 && second ? 1 : -1;
    (void)snprintf(name, sizeof(name), "%s/%s", root, layers[i]);
    assert_ok(lks_h5_group(file, name, &err));
    /* Keras splits long lists: weight_names0, weight_names1. */
    if (dense >= 0) {
      assert_ok(lks_h5_attr_texts(file, name, "weight_names0", &weights[dense][0], 1, &err));
      assert_ok(lks_h5_attr_texts(file, name, "weight_names1", &weights[dense][1], 1, &err));
    } else {
      assert_ok(lks_h5_attr_texts(file, name, "weight_names", NULL, 0, &err));
    }
    for (int k = 0; dense >= 0 && k < 2; ++k) {
      (void)snprintf(name, sizeof(name), "%s/%s/%s", root, layers[i], weights[dense][k]);
      put_values(file, name, made, 2 * dense + k, made->parameters);
    }
  }
  assert_ok(lks_h5_attr_texts(file, weights_only ? "/" : root, "layer_names", layers, 4, &err));
  assert_ok(lks_h5_close(&file, &err));
}

static void test_keras_legacy(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "legacy.h5");
  small_model made;
  lks_arena arena = {0};
  lks_checkpoint got;
  make(&made);
  for (int i = 0; i < 2; ++i) {
    write_legacy(path, &made, i == 1, true);
    assert_ok(lks_checkpoint_peek(path, &arena, &got, &err));
    assert_null(got.config);
    assert_ok(lks_checkpoint_read(path, made.model, &arena, &got, &err));
    same_arrays(made.model, got.parameters, made.parameters);
    assert_null(got.slots[0]);
  }
  write_legacy(path, &made, false, false);
  assert_fails(lks_checkpoint_read(path, made.model, &arena, &got, &err), LKS_STORAGE,
               "layer 3 (dense_1): 0 variables in ", "the model has 2");
  lks_arena_free(&arena);
  small_free(&made);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_keras_v3),
      cmocka_unit_test(test_keras_legacy),
  };
  return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
