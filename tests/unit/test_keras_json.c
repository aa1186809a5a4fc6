/* The model as Keras' JSON: classes and their keys, activations with parameters of their own,
 * losses on logits, optimizers. */
#include "model_fixture.h"

#include <jansson.h>

static json_t *parsed(char *text) {
  json_error_t at;
  assert_non_null(text);
  json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &at);
  if (root == NULL) {
    fail_msg("%s in %s", at.text, text);
  }
  free(text);
  return root;
}

/* The text at a path of keys and numbers such as "config/layers/1/class_name"; NULL: none. */
static const json_t *at(const json_t *node, const char *path) {
  char part[64];
  while (node != NULL && *path != '\0') {
    const size_t length = strcspn(path, "/");
    (void)snprintf(part, sizeof part, "%.*s", (int)length, path);
    node = json_is_array(node) ? json_array_get(node, (size_t)atoi(part))
                               : json_object_get(node, part);
    path += length + (path[length] == '/');
  }
  return node;
}

static void assert_text(const json_t *root, const char *path, const char *expected) {
  const char *text = json_string_value(at(root, path));
  if (text == NULL || strcmp(text, expected) != 0) {
    fail_msg("%s: %s, expected %s", path, text != NULL ? text : "(none)", expected);
  }
}

static json_t *model_json(const char *yaml) {
  recipe made;
  recipe_make(&made, 4, 0, yaml);
  json_t *root = parsed(lks_model_keras_config(made.model));
  recipe_free(&made);
  return root;
}

static json_t *training_json(const char *yaml) {
  recipe made;
  recipe_make(&made, 4, 0, yaml);
  json_t *root = parsed(lks_model_keras_training(made.model));
  recipe_free(&made);
  return root;
}

static void test_input(void **state) {
  (void)state;
  json_t *root = model_json("model: [dense: {units: 1}]\nloss: mse");
  assert_text(root, "class_name", "Sequential");
  assert_text(root, "config/name", "sequential");
  assert_text(root, "config/layers/0/class_name", "InputLayer");
  assert_text(root, "config/layers/0/config/name", "input_1");
  assert_text(root, "config/layers/0/config/dtype", "float32");
  assert_true(json_is_false(at(root, "config/layers/0/config/sparse")));
  assert_true(json_is_false(at(root, "config/layers/0/config/ragged")));
  assert_true(json_is_null(at(root, "config/layers/0/config/batch_input_shape/0")));
  assert_int_equal(json_integer_value(at(root, "config/layers/0/config/batch_input_shape/1")), 4);
  json_decref(root);
}

/* What the program names itself makes way for the configuration's names. */
static void test_names_are_unique(void **state) {
  (void)state;
  json_t *root = model_json(
      "model:\n"
      "- dense: {units: 7, name: input_1}\n"
      "- dense: {units: 7, name: a, activation: {name: leaky_relu, negative_slope: 0.3}}\n"
      "- dense: {units: 2, name: a_leaky_relu}\n"
      "- dense: {units: 2, name: input_1_1}\n"
      "loss: mse");
  static const char *const wanted[] = {"input_1_2",      "input_1",      "a",
                                       "a_leaky_relu_1", "a_leaky_relu", "input_1_1"};
  assert_int_equal(json_array_size(at(root, "config/layers")), 6);
  for (int i = 0; i < 6; ++i) {
    char path[64];
    (void)snprintf(path, sizeof path, "config/layers/%d/config/name", i);
    assert_text(root, path, wanted[i]);
  }
  json_decref(root);
}

static void test_layers(void **state) {
  (void)state;
  json_t *root = model_json("model:\n"
                            "- dense: {units: 7, activation: gelu, name: first}\n"
                            "- dropout: {rate: 0.25}\n"
                            "- activation: {activation: selu}\n"
                            "- dense: {units: 2, use_bias: false}\n"
                            "loss: mse");
  assert_int_equal(json_array_size(at(root, "config/layers")), 5);
  assert_text(root, "config/layers/1/class_name", "Dense");
  assert_text(root, "config/layers/1/config/name", "first");
  assert_text(root, "config/layers/1/config/activation", "gelu");
  assert_text(root, "config/layers/1/config/dtype", "float32");
  assert_int_equal(json_integer_value(at(root, "config/layers/1/config/units")), 7);
  assert_true(json_is_true(at(root, "config/layers/1/config/use_bias")));
  assert_true(json_is_true(at(root, "config/layers/1/config/trainable")));
  assert_text(root, "config/layers/2/class_name", "Dropout");
  assert_text(root, "config/layers/2/config/name", "dropout");
  assert_true(json_real_value(at(root, "config/layers/2/config/rate")) == 0.25);
  assert_null(at(root, "config/layers/2/config/activation"));
  assert_text(root, "config/layers/3/class_name", "Activation");
  assert_text(root, "config/layers/3/config/activation", "selu");
  assert_text(root, "config/layers/4/config/activation", "linear");
  assert_text(root, "config/layers/4/config/name", "dense_1");
  assert_true(json_is_false(at(root, "config/layers/4/config/use_bias")));
  json_decref(root);
}

/* Keras' name of an activation means its default parameter; another value needs its own layer. */
static void test_own_parameters(void **state) {
  (void)state;
  json_t *root = model_json("model:\n"
                            "- dense: {units: 2, activation: leaky_relu}\n"
                            "- dense: {units: 2, activation: {name: leaky_relu, "
                            "negative_slope: 0.05}}\n"
                            "- activation: {activation: {name: elu, alpha: 2}}\n"
                            "- dense: {units: 2, activation: {name: elu, alpha: 1}}\n"
                            "loss: mse");
  assert_int_equal(json_array_size(at(root, "config/layers")), 7);
  assert_text(root, "config/layers/1/config/activation", "leaky_relu");
  assert_text(root, "config/layers/2/class_name", "Dense");
  assert_text(root, "config/layers/2/config/activation", "linear");
  assert_text(root, "config/layers/3/class_name", "LeakyReLU");
  assert_text(root, "config/layers/3/config/name", "dense_1_leaky_relu");
  assert_true(json_real_value(at(root, "config/layers/3/config/negative_slope")) == 0.05);
  assert_text(root, "config/layers/4/class_name", "Activation");
  assert_text(root, "config/layers/4/config/activation", "linear");
  assert_text(root, "config/layers/5/class_name", "ELU");
  assert_text(root, "config/layers/5/config/name", "activation_elu");
  assert_true(json_real_value(at(root, "config/layers/5/config/alpha")) == 2.0);
  assert_text(root, "config/layers/6/config/activation", "elu");
  json_decref(root);
}

static void check_loss(const char *loss, int units, const char *last, const char *name,
                       const char *class_name) {
  char yaml[256];
  (void)snprintf(yaml, sizeof yaml, "model: [dense: {units: %d, activation: %s}]\nloss: %s", units,
                 last, loss);
  json_t *root = training_json(yaml);
  if (class_name == NULL) {
    assert_text(root, "loss", name);
  } else {
    assert_text(root, "loss/class_name", class_name);
    assert_text(root, "loss/config/name", name);
    assert_true(json_is_true(at(root, "loss/config/from_logits")));
  }
  json_decref(root);
}

static void test_losses(void **state) {
  (void)state;
  check_loss("mse", 1, "linear", "mean_squared_error", NULL);
  check_loss("mae", 1, "relu", "mean_absolute_error", NULL);
  check_loss("mean_squared_error", 2, "softmax", "mean_squared_error", NULL);
  check_loss("binary_crossentropy", 1, "sigmoid", "binary_crossentropy", NULL);
  check_loss("binary_crossentropy", 1, "linear", "binary_crossentropy", "BinaryCrossentropy");
  check_loss("categorical_crossentropy", 3, "softmax", "categorical_crossentropy", NULL);
  check_loss("categorical_crossentropy", 3, "linear", "categorical_crossentropy",
             "CategoricalCrossentropy");
  check_loss("sparse_categorical_crossentropy", 3, "softmax", "sparse_categorical_crossentropy",
             NULL);
  check_loss("sparse_categorical_crossentropy", 3, "linear", "sparse_categorical_crossentropy",
             "SparseCategoricalCrossentropy");
}

static void assert_real(const json_t *root, const char *path, double expected) {
  assert_true(json_is_real(at(root, path)));
  assert_true(json_real_value(at(root, path)) == expected);
}

static void test_optimizers(void **state) {
  (void)state;
  json_t *root = training_json("model: [dense: {units: 1}]\nloss: mse\n"
                               "optimizer: {name: sgd, momentum: 0.5, nesterov: true}\n"
                               "metrics: [accuracy, mae]");
  assert_text(root, "optimizer_config/class_name", "SGD");
  assert_real(root, "optimizer_config/config/learning_rate", 0.01);
  assert_real(root, "optimizer_config/config/momentum", 0.5);
  assert_true(json_is_true(at(root, "optimizer_config/config/nesterov")));
  assert_int_equal(json_array_size(at(root, "metrics")), 2);
  assert_text(root, "metrics/0", "accuracy");
  assert_text(root, "metrics/1", "mae");
  json_decref(root);
  root = training_json("model: [dense: {units: 1}]\nloss: mse\n"
                       "optimizer: {name: adam, beta_1: 0.8, beta_2: 0.99, epsilon: 1e-5}");
  assert_text(root, "optimizer_config/class_name", "Adam");
  assert_real(root, "optimizer_config/config/learning_rate", 0.001);
  assert_real(root, "optimizer_config/config/beta_1", 0.8);
  assert_real(root, "optimizer_config/config/beta_2", 0.99);
  assert_real(root, "optimizer_config/config/epsilon", 1e-5);
  assert_null(at(root, "optimizer_config/config/weight_decay"));
  assert_int_equal(json_array_size(at(root, "metrics")), 0);
  json_decref(root);
  root = training_json("model: [dense: {units: 1}]\nloss: mse\n"
                       "optimizer: {name: adamw, weight_decay: 0.01}");
  assert_text(root, "optimizer_config/class_name", "AdamW");
  assert_real(root, "optimizer_config/config/weight_decay", 0.01);
  json_decref(root);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_input),  cmocka_unit_test(test_names_are_unique),
      cmocka_unit_test(test_layers), cmocka_unit_test(test_own_parameters),
      cmocka_unit_test(test_losses), cmocka_unit_test(test_optimizers),
  };
  return cmocka_run_group_tests_name("keras_json", tests, NULL, NULL);
}
