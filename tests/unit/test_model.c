/* The checked model: shapes, the parameters' places, names, how loss and last layer are linked,
 * metrics, every refusal, and the hash. */
#include "model_fixture.h"

#include <xxhash.h>

static lks_error err;

#define STACK                                                                                      \
  "model:\n"                                                                                       \
  "- dropout: {rate: 0.1}\n"                                                                       \
  "- dense: {units: 5, activation: relu}\n"                                                        \
  "- activation: {activation: tanh}\n"                                                             \
  "- dense: {units: 70, use_bias: false}\n"                                                        \
  "- dropout: {rate: 0.2, name: last_drop}\n"                                                      \
  "- dense: {units: 2}\n"                                                                          \
  "loss: mse\n"

static void test_layers(void **state) {
  (void)state;
  static const struct {
    const char *name;
    int64_t inputs, outputs;
    int first, count;
  } expected[] = {{"dropout", 3, 3, 0, 0},  {"dense", 3, 5, 0, 2},       {"activation", 5, 5, 2, 0},
                  {"dense_1", 5, 70, 2, 1}, {"last_drop", 70, 70, 3, 0}, {"dense_2", 70, 2, 3, 2}};
  recipe made;
  recipe_make(&made, 3, 2, STACK);
  const lks_model *model = made.model;
  assert_int_equal(model->layer_count, 6);
  assert_int_equal(model->inputs, 3);
  assert_int_equal(model->outputs, 2);
  for (int i = 0; i < 6; ++i) {
    const lks_layer *layer = &model->layers[i];
    assert_string_equal(layer->name, expected[i].name);
    assert_int_equal(layer->inputs, expected[i].inputs);
    assert_int_equal(layer->outputs, expected[i].outputs);
    assert_int_equal(layer->parameter_count, expected[i].count);
    if (expected[i].count > 0) {
      assert_int_equal(layer->first_parameter, expected[i].first);
    }
  }
  recipe_free(&made);
}

static void test_parameters(void **state) {
  (void)state;
  static const struct {
    const char *name;
    int layer, index, rank;
    int64_t shape[2], offset, fan_in, fan_out;
  } expected[] = {{"kernel", 1, 0, 2, {3, 5}, 0, 3, 5},
                  {"bias", 1, 1, 1, {5, 1}, 64, 5, 5},
                  {"kernel", 3, 0, 2, {5, 70}, 128, 5, 70},
                  {"kernel", 5, 0, 2, {70, 2}, 512, 70, 2},
                  {"bias", 5, 1, 1, {2, 1}, 704, 2, 2}};
  recipe made;
  recipe_make(&made, 3, 2, STACK);
  const lks_model *model = made.model;
  assert_int_equal(model->parameter_count, 5);
  int64_t values = 0;
  for (int i = 0; i < 5; ++i) {
    const lks_parameter *p = &model->parameters[i];
    assert_string_equal(p->name, expected[i].name);
    assert_int_equal(p->layer, expected[i].layer);
    assert_int_equal(p->index, expected[i].index);
    assert_int_equal(p->rank, expected[i].rank);
    assert_memory_equal(p->shape, expected[i].shape, sizeof p->shape);
    assert_int_equal(p->count, p->shape[0] * p->shape[1]);
    assert_int_equal(p->offset, expected[i].offset);
    assert_int_equal(p->offset % LKS_TENSOR_ALIGN, 0);
    assert_int_equal(p->fan_in, expected[i].fan_in);
    assert_int_equal(p->fan_out, expected[i].fan_out);
    values += p->count;
  }
  assert_int_equal(model->value_count, values);
  assert_int_equal(model->arena_floats, 768);
  recipe_free(&made);
}

static void test_groups(void **state) {
  (void)state;
  static const char *const expected[] = {"dropout", "dense",     "activation",
                                         "dense_1", "dropout_1", "dense_2"};
  char group[64];
  recipe made;
  recipe_make(&made, 3, 2, STACK);
  for (int i = 0; i < 6; ++i) { /* by class, whatever the layer's own name */
    lks_model_keras_group(made.model, i, group);
    assert_string_equal(group, expected[i]);
  }
  recipe_free(&made);
}

static void test_last_units(void **state) {
  (void)state;
  recipe made;
  recipe_make(&made, 3, 2, STACK);
  assert_int_equal(lks_model_last_units(&made.settings->model), 2);
  made.settings->model.layers.count = 5; /* ends in dropout after 70 units */
  assert_int_equal(lks_model_last_units(&made.settings->model), 70);
  made.settings->model.layers.count = 1;
  assert_int_equal(lks_model_last_units(&made.settings->model), -1);
  recipe_free(&made);
}

/* Padding is no part of the hash, and every value is. */
static void test_hash(void **state) {
  (void)state;
  recipe made;
  float padded[256], plain[32];
  int count = 0;
  recipe_make(&made, 3, 2, "model: [dense: {units: 5}, dense: {units: 2}]\nloss: mse");
  const lks_model *model = made.model;
  assert_int_equal(model->arena_floats, 256);
  memset(padded, 0, sizeof padded);
  for (int p = 0; p < model->parameter_count; ++p) {
    for (int64_t i = 0; i < model->parameters[p].count; ++i, ++count) {
      plain[count] = padded[model->parameters[p].offset + i] = (float)count / 8.0f - 1.0f;
    }
  }
  assert_int_equal(count, 32);
  const uint64_t hash = lks_model_hash(model, padded);
  assert_true(hash == XXH64(plain, sizeof plain, 0));
  assert_true(hash == 0x3151017a2c48ad38u); /* by another implementation of XXH64 */
  padded[15] = padded[255] = 3.0f;
  assert_true(lks_model_hash(model, padded) == hash);
  for (int p = 0; p < model->parameter_count; ++p) {
    float *last = &padded[model->parameters[p].offset + model->parameters[p].count - 1];
    *last += 1.0f;
    assert_true(lks_model_hash(model, padded) != hash);
    *last -= 1.0f;
  }
  recipe_free(&made);
}

static void test_initialise_pads_with_zeros(void **state) {
  (void)state;
  recipe made;
  float values[256];
  recipe_make(&made, 3, 2,
              "model: [dense: {units: 5, bias_initializer: ones}, dense: {units: 2}]\nloss: mse");
  memset(values, 0x7f, sizeof values);
  lks_model_initialise(made.model, 1, values);
  for (int i = 15; i < 64; ++i) {
    assert_true(values[i] == 0.0f);
    assert_true(values[64 + i] == 0.0f);
  }
  for (int i = 0; i < 5; ++i) {
    assert_true(values[64 + i] == 1.0f);
  }
  recipe_free(&made);
}

/* ---- loss and last layer */

static void check_link(const char *loss, const char *last, int64_t targets, lks_link link,
                       bool logits) {
  char yaml[256];
  recipe made;
  (void)snprintf(yaml, sizeof yaml, "model: [dense: {units: 3, activation: %s}]\nloss: %s", last,
                 loss);
  recipe_make(&made, 2, targets, yaml);
  assert_int_equal(made.model->link, link);
  assert_int_equal(made.model->logits, logits);
  recipe_free(&made);
}

static void refused_link(const char *loss, const char *last, const char *remedy) {
  char yaml[256];
  (void)snprintf(yaml, sizeof yaml, "model: [dense: {units: 3, activation: %s}]\nloss: %s", last,
                 loss);
  RECIPE_FAILS(2, 0, yaml, LKS_CONFIG, "model", loss, "does not follow a last layer with", last);
  assert_non_null(strstr(err.remedy, remedy));
  assert_non_null(strstr(err.remedy, "or in linear (logits)"));
}

static void test_links(void **state) {
  (void)state;
  check_link("categorical_crossentropy", "softmax", 3, LKS_LINK_SOFTMAX, false);
  check_link("categorical_crossentropy", "linear", 3, LKS_LINK_SOFTMAX, true);
  check_link("sparse_categorical_crossentropy", "softmax", 1, LKS_LINK_SOFTMAX, false);
  check_link("sparse_categorical_crossentropy", "linear", 1, LKS_LINK_SOFTMAX, true);
  check_link("binary_crossentropy", "sigmoid", 3, LKS_LINK_SIGMOID, false);
  check_link("binary_crossentropy", "linear", 3, LKS_LINK_SIGMOID, true);
  static const char *const plain[] = {"mse", "mean_squared_error", "mae", "mean_absolute_error"};
  for (int i = 0; lks_activation_kinds[i] != NULL; ++i) {
    const char *last = lks_activation_kinds[i]->name;
    for (size_t k = 0; k < sizeof plain / sizeof *plain; ++k) {
      check_link(plain[k], last, 3, LKS_LINK_NONE, false);
    }
    if (strcmp(last, "linear") != 0 && strcmp(last, "softmax") != 0) {
      refused_link("categorical_crossentropy", last, "softmax");
      refused_link("sparse_categorical_crossentropy", last, "softmax");
    }
    if (strcmp(last, "linear") != 0 && strcmp(last, "sigmoid") != 0) {
      refused_link("binary_crossentropy", last, "sigmoid");
    }
  }
}

/* The activation may be a layer of its own. */
static void test_link_by_layer(void **state) {
  (void)state;
  recipe made;
  recipe_make(&made, 2, 3,
              "model: [dense: {units: 3}, activation: {activation: softmax}]\n"
              "loss: categorical_crossentropy");
  assert_false(made.model->logits);
  recipe_free(&made);
}

/* Layers that leave the outputs as they are do not hide what comes before them. */
static void test_link_below_the_last_layer(void **state) {
  (void)state;
  recipe made;
  recipe_make(&made, 2, 3,
              "model: [dense: {units: 3}, dropout: {rate: 0.1}]\nloss: categorical_crossentropy");
  assert_true(made.model->logits);
  recipe_free(&made);
  RECIPE_FAILS(2, 0,
               "model: [dense: {units: 3, activation: softmax}, dropout: {rate: 0.1}]\n"
               "loss: categorical_crossentropy",
               LKS_CONFIG, "softmax in layer 0 is followed by a layer", "fused");
  RECIPE_FAILS(2, 0,
               "model: [dense: {units: 3, activation: sigmoid}, activation: {activation: linear}]\n"
               "loss: binary_crossentropy",
               LKS_CONFIG, "sigmoid in layer 0 is followed by a layer");
}

/* ---- metrics */

static void check_metric(const char *loss, int units, const char *metric, lks_metric_id id) {
  char yaml[256];
  recipe made;
  (void)snprintf(yaml, sizeof yaml, "model: [dense: {units: %d}]\nloss: %s\nmetrics: [%s]", units,
                 loss, metric);
  recipe_make(&made, 2, 0, yaml);
  assert_int_equal(made.model->metric_count, 1);
  assert_int_equal(made.model->metrics[0]->id, id);
  assert_string_equal(made.model->metric_names[0], metric);
  recipe_free(&made);
}

static void test_metrics(void **state) {
  (void)state;
  check_metric("binary_crossentropy", 1, "accuracy", LKS_METRIC_BINARY_ACCURACY);
  check_metric("mse", 1, "accuracy", LKS_METRIC_BINARY_ACCURACY);
  check_metric("binary_crossentropy", 3, "accuracy", LKS_METRIC_CATEGORICAL_ACCURACY);
  check_metric("categorical_crossentropy", 3, "accuracy", LKS_METRIC_CATEGORICAL_ACCURACY);
  check_metric("sparse_categorical_crossentropy", 3, "accuracy",
               LKS_METRIC_SPARSE_CATEGORICAL_ACCURACY);
  check_metric("sparse_categorical_crossentropy", 3, "sparse_categorical_accuracy",
               LKS_METRIC_SPARSE_CATEGORICAL_ACCURACY);
  check_metric("mse", 2, "categorical_accuracy", LKS_METRIC_CATEGORICAL_ACCURACY);
  check_metric("mse", 2, "binary_accuracy", LKS_METRIC_BINARY_ACCURACY);
  check_metric("mse", 2, "mae", LKS_METRIC_MAE);
  check_metric("mse", 2, "mean_absolute_error", LKS_METRIC_MAE);
  check_metric("mae", 2, "mse", LKS_METRIC_MSE);
  check_metric("mae", 2, "mean_squared_error", LKS_METRIC_MSE);
}

#define ONE "model: [dense: {units: 3}]\n"

static void test_metric_refusals(void **state) {
  (void)state;
  RECIPE_FAILS(2, 1, ONE "loss: sparse_categorical_crossentropy\nmetrics: [mae]", LKS_CONFIG,
               "metrics: mae does not fit sparse_categorical_crossentropy");
  RECIPE_FAILS(2, 3, ONE "loss: mse\nmetrics: [accuracy, sparse_categorical_accuracy]", LKS_CONFIG,
               "sparse_categorical_accuracy does not fit mse");
  assert_non_null(strstr(err.remedy, "use accuracy"));
  RECIPE_FAILS(2, 3, ONE "loss: mse\nmetrics: [mae, mse, mae]", LKS_CONFIG,
               "metrics: mae is named twice");
  recipe made;
  recipe_make(&made, 2, 3, ONE "loss: mse\nmetrics: [mae]");
  lks_model *refused = NULL;
  made.settings->model.metrics.count = LKS_MAX_METRICS + 1; /* the option table forbids it */
  assert_fails(lks_model_make(&made.settings->model, 2, 3, &refused, &err), LKS_CONFIG,
               "metrics: 9 named, 8 is the most");
  made.settings->model.metrics.count = 1;
  recipe_free(&made);
}

/* ---- other refusals */

static void test_target_refusals(void **state) {
  (void)state;
  RECIPE_FAILS(2, 3, ONE "loss: sparse_categorical_crossentropy", LKS_DATA, "data.train.targets",
               "3 target columns", "one column of class numbers");
  assert_non_null(strstr(err.remedy, "categorical_crossentropy for one-hot"));
  RECIPE_FAILS(2, 1, ONE "loss: categorical_crossentropy", LKS_DATA, "1 target column,",
               "3 outputs");
  assert_non_null(strstr(err.remedy, "sparse_categorical_crossentropy"));
  RECIPE_FAILS(2, 2, ONE "loss: mse", LKS_DATA, "2 target columns", "3 outputs");
  assert_non_null(strstr(err.remedy, "give the last layer 2 units, or name 3 target columns"));
  RECIPE_FAILS(2, 4, "model: [dense: {units: 1}]\nloss: mse", LKS_DATA, "4 target columns",
               "1 output");
  recipe made;
  recipe_make(&made, 2, 0, ONE "loss: mse"); /* unknown: only predicting */
  recipe_free(&made);
}

static void test_layer_refusals(void **state) {
  (void)state;
  RECIPE_FAILS(2, 2, "model: [dropout: {rate: 0.5}]\nloss: mse", LKS_CONFIG,
               "model: no layer has parameters");
  assert_non_null(strstr(err.remedy, "add a dense layer"));
  RECIPE_FAILS(2, 1, "model: [dense: {units: 2, name: a/b}, dense: {units: 1}]\nloss: mse",
               LKS_CONFIG, "model.0.name", "'a/b' holds a slash");
  RECIPE_FAILS(2, 1, "model: [dense: {units: 2, name: .}, dense: {units: 1}]\nloss: mse",
               LKS_CONFIG, "model.0.name: '.' is no name of a layer");
  RECIPE_FAILS(2, 1, "model: [dense: {units: 2, name: x}, dense: {units: 1, name: x}]\nloss: mse",
               LKS_CONFIG, "model.1.name: layer 0 is called 'x' already");
  RECIPE_FAILS(2, 1, "model: [dense: {units: 2, name: dense_1}, dense: {units: 1}]\nloss: mse",
               LKS_CONFIG, "model.1.name: layer 0 is called 'dense_1' already");
  RECIPE_FAILS(2, 1, "model: [dense: {units: 1}]\nloss: sparse_categorical_crossentropy",
               LKS_CONFIG, "needs two outputs or more, the model has 1");
  assert_non_null(strstr(err.remedy, "binary_crossentropy"));
  RECIPE_FAILS(2, 1, "model: [dense: {units: 1}]\nloss: categorical_crossentropy", LKS_CONFIG,
               "needs two outputs or more");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_layers),
      cmocka_unit_test(test_parameters),
      cmocka_unit_test(test_groups),
      cmocka_unit_test(test_last_units),
      cmocka_unit_test(test_hash),
      cmocka_unit_test(test_initialise_pads_with_zeros),
      cmocka_unit_test(test_links),
      cmocka_unit_test(test_link_by_layer),
      cmocka_unit_test(test_link_below_the_last_layer),
      cmocka_unit_test(test_metrics),
      cmocka_unit_test(test_metric_refusals),
      cmocka_unit_test(test_target_refusals),
      cmocka_unit_test(test_layer_refusals),
  };
  return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
