/* The whole configuration: every key stored, defaults, the checks that span modules with their
 * places, and a round trip through its printed form. */
#include <sys/stat.h>

#include "scratch.h"

#include "backend/backend.h"
#include "train/settings.h"

static lks_error err;

#define LEAST                                                                                      \
  "data: {train: {file: d.h5}}\n"                                                                  \
  "model: [dense: {units: 3}]\n"                                                                   \
  "loss: mse\n"

static const char full_text[] =
    "data:\n"
    "  train: {file: in/d.h5, features: [a, b], targets: y}\n"
    "  validation: {fraction: 0.25, rows: stratified}\n"
    "  test: {file: /abs/t.h5}\n"
    "  scaling: {features: standardize, targets: minmax}\n"
    "  order: windows\n"
    "  window: 500\n"
    "  memory_per_node: 2G\n"
    "model:\n"
    "- dense: {units: 16, activation: {name: leaky_relu, negative_slope: 0.05}, name: first}\n"
    "- dropout: {rate: 0.3}\n"
    "- activation: {activation: tanh}\n"
    "- dense: {units: 3, kernel_initializer: {name: random_normal, stddev: 0.01},"
    " bias_initializer: ones}\n"
    "loss: sparse_categorical_crossentropy\n"
    "optimizer: {name: sgd, learning_rate: 0.5, momentum: 0.9, nesterov: true}\n"
    "metrics: [accuracy]\n"
    "train: {batch_size: 64, epochs: 7, seed: 12345678901, shuffle: false, max_time: 1h30m,"
    " init_from: w.h5}\n"
    "early_stopping: {monitor: val_accuracy, patience: 4, min_delta: 0.001}\n"
    "device: {kind: cpu, threads: 3, memory_limit: 1G, memory_growth: false,"
    " precision: bf16}\n"
    "checkpoint: {every_epochs: 2, every_steps: 50, every_seconds: 10m, keep: 9, best: accuracy,"
    " resume: required}\n"
    "run: {folder: my/run, timeout: 45, progress: lines, compare_every: 17}\n";

static const char *write_config(scratch *at, const char *name, const char *text) {
  const char *path = scratch_path(at, name);
  scratch_write(path, text, strlen(text));
  return path;
}

static lks_settings *read_ok(scratch *at, const char *name, const char *text) {
  lks_settings *settings = NULL;
  assert_ok(lks_settings_read(write_config(at, name, text), NULL, 0, &settings, &err));
  return settings;
}

#define REFUSED(at, text, ...)                                                                     \
  do {                                                                                             \
    lks_settings *refused_ = NULL;                                                                 \
    assert_fails(lks_settings_read(write_config(at, "bad.yaml", text), NULL, 0, &refused_, &err),  \
                 LKS_CONFIG, __VA_ARGS__);                                                         \
    assert_null(refused_);                                                                         \
  } while (0)

static const lks_layer_options *layer(const lks_settings *s, int i) {
  assert_true(i < s->model.layers.count);
  return (const lks_layer_options *)s->model.layers.items + i;
}

static void check_model(const lks_settings *s) {
  assert_int_equal(s->model.layers.count, 4);
  assert_string_equal(layer(s, 0)->kind->name, "dense");
  assert_string_equal(layer(s, 0)->name, "first");
  assert_int_equal(layer(s, 0)->dense.units, 16);
  assert_string_equal(layer(s, 0)->dense.activation.kind->name, "leaky_relu");
  assert_true(layer(s, 0)->dense.activation.parameter == 0.05);
  assert_true(layer(s, 0)->dense.use_bias);
  assert_true(layer(s, 1)->dropout.rate == 0.3);
  assert_string_equal(layer(s, 2)->activation.activation.kind->name, "tanh");
  assert_string_equal(layer(s, 3)->dense.activation.kind->name, "linear");
  assert_true(layer(s, 3)->dense.kernel_initializer.stddev == 0.01);
  assert_string_equal(layer(s, 3)->dense.bias_initializer.kind->name, "ones");
  assert_string_equal(s->model.loss.kind->name, "sparse_categorical_crossentropy");
  assert_string_equal(s->model.optimizer.kind->name, "sgd");
  assert_true(s->model.optimizer.learning_rate == 0.5 && s->model.optimizer.momentum == 0.9);
  assert_true(s->model.optimizer.nesterov);
  assert_int_equal(s->model.metrics.count, 1);
}

static void check_rest(const lks_settings *s) {
  assert_int_equal(s->train.batch_size, 64);
  assert_int_equal(s->train.epochs, 7);
  assert_int_equal(s->train.seed, 12345678901);
  assert_false(s->train.shuffle);
  assert_true(s->train.max_time == 5400.0);
  assert_true(s->early.present);
  assert_string_equal(s->early.monitor, "val_accuracy");
  assert_int_equal(s->early.patience, 4);
  assert_true(s->early.min_delta == 0.001);
  assert_int_equal(s->device.kind, LKS_DEVICE_CPU);
  assert_int_equal(s->device.ordinal, -1);
  assert_int_equal(s->device.threads, 3);
  assert_int_equal(s->device.memory_limit, 1 << 30);
  assert_false(s->device.memory_growth);
  assert_int_equal(s->device.precision, LKS_BF16);
  assert_int_equal(s->checkpoint.every_epochs, 2);
  assert_int_equal(s->checkpoint.every_steps, 50);
  assert_true(s->checkpoint.every_seconds == 600.0);
  assert_int_equal(s->checkpoint.keep, 9);
  assert_string_equal(s->checkpoint.best, "accuracy");
  assert_int_equal(s->checkpoint.resume, LKS_RESUME_REQUIRED);
  assert_true(s->run.timeout == 45.0);
  assert_int_equal(s->run.progress, LKS_PROGRESS_LINES);
  assert_int_equal(s->run.compare_every, 17);
}

static void check_data(const lks_settings *s) {
  assert_int_equal(s->data.train.features.count, 2);
  assert_string_equal(s->data.train.targets.items[0], "y");
  assert_true(s->data.validation.present && s->data.validation.fraction == 0.25);
  assert_int_equal(s->data.validation.rows, LKS_ROWS_STRATIFIED);
  assert_string_equal(s->data.test.file, "/abs/t.h5");
  assert_int_equal(lks_scaling_of(s->data.scaling.features.kind), LKS_SCALING_STANDARDIZE);
  assert_int_equal(lks_scaling_of(s->data.scaling.targets.kind), LKS_SCALING_MINMAX);
  assert_int_equal(s->data.order, LKS_ORDER_WINDOWS);
  assert_int_equal(s->data.window, 500);
  assert_int_equal(s->data.memory_per_node, (int64_t)2 << 30);
}

/* Files are relative to the configuration's folder, the run to the current one. */
static void test_everything(void **state) {
  scratch *at = *state;
  char here[512];
  lks_settings *s = read_ok(at, "full.yaml", full_text);
  check_model(s);
  check_rest(s);
  check_data(s);
  assert_string_equal(s->data.train.file, scratch_path(at, "in/d.h5"));
  assert_string_equal(s->train.init_from, scratch_path(at, "w.h5"));
  assert_non_null(getcwd(here, sizeof here));
  lks_arena arena = {0};
  assert_string_equal(s->run.folder, lks_arena_print(&arena, "%s/my/run", here));
  assert_string_equal(s->path, scratch_path(at, "full.yaml"));
  lks_arena_free(&arena);
  lks_settings_free(&s);
  assert_null(s);
  lks_settings_free(&s);
}

static void test_defaults(void **state) {
  scratch *at = *state;
  lks_settings *s = read_ok(at, "a.yaml", LEAST);
  assert_int_equal(s->train.batch_size, 32);
  assert_int_equal(s->train.epochs, 1);
  assert_int_equal(s->train.seed, 1);
  assert_true(s->train.shuffle && s->train.max_time == 0.0 && s->train.init_from[0] == '\0');
  assert_string_equal(s->model.optimizer.kind->name, "adam");
  assert_int_equal(s->model.metrics.count, 0);
  assert_false(s->early.present);
  assert_int_equal(s->device.kind, LKS_DEVICE_AUTO);
  assert_int_equal(s->device.threads, -1);
  assert_int_equal(s->checkpoint.every_epochs, 1);
  assert_int_equal(s->checkpoint.keep, 3);
  assert_int_equal(s->checkpoint.resume, LKS_RESUME_AUTO);
  assert_string_equal(s->checkpoint.best, "loss"); /* there is no validation */
  assert_true(s->run.timeout == 300.0);
  assert_int_equal(s->run.progress, LKS_PROGRESS_AUTO);
  lks_settings_free(&s);
  s = read_ok(at, "a.yaml",
              "data: {train: {file: d.h5}, validation: 0.1}\n"
              "model: [dense: {units: 3}]\nloss: mse\nearly_stopping: {}\n");
  assert_string_equal(s->checkpoint.best, "val_loss");
  assert_true(s->early.present && s->early.patience == 0);
  assert_string_equal(s->early.monitor, "val_loss");
  lks_settings_free(&s);
}

static void check_folder(scratch *at, const char *name, const char *expected) {
  char here[512];
  lks_settings *s = read_ok(at, name, LEAST);
  assert_non_null(getcwd(here, sizeof here));
  assert_int_equal(strncmp(s->run.folder, here, strlen(here)), 0);
  assert_string_equal(s->run.folder + strlen(here), expected);
  lks_settings_free(&s);
}

static void test_default_folder(void **state) {
  scratch *at = *state;
  check_folder(at, "digits.yaml", "/runs/digits");
  check_folder(at, "digits.v2.yaml", "/runs/digits.v2");
  check_folder(at, "plain", "/runs/plain");
  check_folder(at, ".yaml", "/runs/.yaml");
}

static void test_overrides(void **state) {
  scratch *at = *state;
  static const char *const overrides[] = {
      "train.epochs=3", "train.epochs=4", "model.0.units=64",    "optimizer.learning_rate=1e-2",
      "device=gpu:1",   "run.folder=/r",  "train.init_from=w.h5"};
  char here[512];
  lks_settings *s = NULL;
  const char *path = write_config(at, "a.yaml", LEAST);
  assert_ok(lks_settings_read(path, overrides, 7, &s, &err));
  assert_int_equal(s->train.epochs, 4);
  assert_int_equal(layer(s, 0)->dense.units, 64);
  assert_string_equal(s->model.optimizer.kind->name, "adam");
  assert_true(s->model.optimizer.learning_rate == 0.01);
  assert_int_equal(s->device.kind, LKS_DEVICE_GPU);
  assert_int_equal(s->device.ordinal, 1);
  assert_string_equal(s->run.folder, "/r");
  assert_non_null(getcwd(here, sizeof here)); /* as typed: from the current folder */
  assert_int_equal(strncmp(s->train.init_from, here, strlen(here)), 0);
  assert_string_equal(s->train.init_from + strlen(here), "/w.h5");
  lks_settings_free(&s);
  static const char *const bad[] = {"train.epoch=3"};
  assert_fails(lks_settings_read(path, bad, 1, &s, &err), LKS_CONFIG, "command line",
               "train.epoch: unknown key");
  assert_non_null(strstr(err.remedy, "epochs"));
  assert_null(s);
}

/* Names of kinds and wholes come before their parts, in whatever order they were written. */
static void test_order_of_overrides(void **state) {
  scratch *at = *state;
  static const char *const overrides[] = {
      "optimizer.learning_rate=0.1", "optimizer.name=sgd", "data.validation.rows=random",
      "data.validation=0.25",        "train.epochs=3",     "train.epochs=2"};
  lks_settings *s = NULL;
  const char *path = write_config(at, "a.yaml", LEAST);
  assert_ok(lks_settings_read(path, overrides, 6, &s, &err));
  assert_string_equal(s->model.optimizer.kind->name, "sgd");
  assert_true(s->model.optimizer.learning_rate == 0.1);
  assert_true(s->data.validation.fraction == 0.25);
  assert_int_equal(s->data.validation.rows, LKS_ROWS_RANDOM);
  assert_int_equal(s->train.epochs, 2);
  lks_settings_free(&s);
}

/* What is stored is YAML, which holds UTF-8 alone. */
static void test_paths_in_other_bytes(void **state) {
  scratch *at = *state;
  lks_settings *s = NULL;
  assert_int_equal(mkdir(scratch_path(at, "caf\xe9"), 0700), 0);
  const char *path = write_config(at, "caf\xe9/a.yaml", LEAST);
  assert_fails(lks_settings_read(path, NULL, 0, &s, &err), LKS_CONFIG, "the path is not UTF-8");
  assert_null(s);
}

/* ---- values that may be monitored */

static void test_monitor(void **state) {
  scratch *at = *state;
  int index = 7;
  bool validation = true, higher = true;
  lks_settings *s = read_ok(at, "a.yaml", LEAST "metrics: [mae, accuracy]\n");
  assert_true(lks_settings_monitor(s, "loss", &index, &validation, &higher));
  assert_true(index == -1 && !validation && !higher);
  assert_true(lks_settings_monitor(s, "mae", &index, &validation, &higher));
  assert_true(index == 0 && !validation && !higher);
  assert_true(lks_settings_monitor(s, "accuracy", &index, &validation, &higher));
  assert_true(index == 1 && !validation && higher);
  assert_false(lks_settings_monitor(s, "val_loss", &index, &validation, &higher));
  assert_false(lks_settings_monitor(s, "val_mae", &index, &validation, &higher));
  assert_false(lks_settings_monitor(s, "mse", &index, &validation, &higher));
  assert_false(lks_settings_monitor(s, "", &index, &validation, &higher));
  s->data.validation.present = true;
  assert_true(lks_settings_monitor(s, "val_accuracy", &index, &validation, &higher));
  assert_true(index == 1 && validation && higher);
  assert_true(lks_settings_monitor(s, "val_loss", &index, &validation, &higher));
  assert_true(index == -1 && validation && !higher);
  assert_false(lks_settings_monitor(s, "val_", &index, &validation, &higher));
  lks_settings_free(&s);
}

static void test_monitor_refusals(void **state) {
  scratch *at = *state;
  REFUSED(at, LEAST "checkpoint: {best: accuracy}\n", "bad.yaml:4:", "checkpoint.best",
          "this run has no value 'accuracy'");
  assert_non_null(strstr(err.remedy, "a metric listed under metrics"));
  REFUSED(at, LEAST "early_stopping: {patience: 3}\n", "bad.yaml:4:", "early_stopping.monitor",
          "no value 'val_loss'");
  assert_non_null(strstr(err.remedy, "add data.validation, or name loss"));
  REFUSED(at, LEAST "early_stopping:\n  patience: 3\n  monitor: val_mse\n",
          "bad.yaml:6:", "early_stopping.monitor", "'val_mse'");
  REFUSED(at, LEAST "metrics: [mae]\nearly_stopping: {monitor: mse}\n", "bad.yaml:5:", "'mse'");
}

static void test_refusals(void **state) {
  scratch *at = *state;
  lks_settings *s = NULL;
  REFUSED(at, "data: {train: {file: d.h5}}\nloss: mse\n", "model", "bad.yaml");
  REFUSED(at, "data: {train: {file: d.h5}}\nmodel: [dense: {units: 1}]\n", "loss", "bad.yaml");
  REFUSED(at, "model: [dense: {units: 1}]\nloss: mse\n", "data", "bad.yaml");
  REFUSED(at, LEAST "train: {batch_size: 0}\n", "bad.yaml:4:", "train.batch_size");
  REFUSED(at, LEAST "optimiser: adam\n", "bad.yaml:4:1: optimiser: unknown key");
  assert_non_null(strstr(err.remedy, "optimizer"));
  REFUSED(at, LEAST "train: {reproducible: true}\n", "bad.yaml:4:", "not in this version");
  REFUSED(at, LEAST "optimizer: {name: adam, clipnorm: 1}\n", "bad.yaml:4:", "not in this version");
  assert_fails(lks_settings_read(scratch_path(at, "none.yaml"), NULL, 0, &s, &err), LKS_CONFIG,
               "none.yaml");
}

/* ---- the printed form */

static char *printed(const lks_settings *s) {
  char *text = NULL;
  assert_ok(lks_settings_print(s, &text, &err));
  assert_non_null(text);
  return text;
}

static void check_round_trip(lks_settings *s) {
  lks_settings *again = NULL;
  char *first = printed(s);
  assert_ok(lks_settings_parse(first, "stored", NULL, 0, &again, &err));
  assert_string_equal(again->path, "");
  char *second = printed(again);
  assert_string_equal(first, second);
  free(first);
  free(second);
  lks_settings_free(&again);
  lks_settings_free(&s);
}

static void test_round_trip(void **state) {
  scratch *at = *state;
  lks_settings *s = read_ok(at, "full.yaml", full_text), *again = NULL;
  char *text = printed(s);
  assert_ok(lks_settings_parse(text, "stored", NULL, 0, &again, &err));
  check_model(again);
  check_rest(again);
  check_data(again);
  assert_string_equal(again->run.folder, s->run.folder);
  assert_string_equal(again->data.train.file, s->data.train.file);
  free(text);
  lks_settings_free(&again);
  check_round_trip(s);
  check_round_trip(read_ok(at, "a.yaml", LEAST));
  check_round_trip(read_ok(at, "a.yaml", LEAST "device: gpu:2\nearly_stopping: {monitor: loss}\n"));
  check_round_trip(read_ok(at, "a.yaml",
                           "data: {train: {synthetic: {rows: 9, inputs: 2}}, validation: 0.5,"
                           " scaling: {divide: 255}}\n"
                           "model: [dense: {units: 1}]\nloss: {name: mse}\n"));
}

static void test_stored_errors(void **state) {
  (void)state;
  lks_settings *s = NULL;
  static const char *const overrides[] = {"train.epochs=0"};
  assert_fails(lks_settings_parse("a: [", "step-00000001.weights.h5", NULL, 0, &s, &err),
               LKS_CONFIG, "step-00000001.weights.h5");
  assert_fails(lks_settings_parse(LEAST, "stored", overrides, 1, &s, &err), LKS_CONFIG,
               "train.epochs");
  assert_null(s);
}

/* ---- devices */

static void test_devices(void **state) {
  scratch *at = *state;
  static const struct {
    const char *device;
    int kind;
    int64_t ordinal;
  } all[] = {{"cpu", LKS_DEVICE_CPU, -1},
             {"gpu", LKS_DEVICE_GPU, -1},
             {"auto", LKS_DEVICE_AUTO, -1},
             {"gpu:1", LKS_DEVICE_GPU, 1},
             {"{kind: gpu, ordinal: 3}", LKS_DEVICE_GPU, 3},
             {"{kind: gpu, ordinal: auto}", LKS_DEVICE_GPU, -1}};
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) {
    char text[256];
    (void)snprintf(text, sizeof text, LEAST "device: %s\n", all[i].device);
    lks_settings *s = read_ok(at, "a.yaml", text);
    assert_int_equal(s->device.kind, all[i].kind);
    assert_int_equal(s->device.ordinal, all[i].ordinal);
    lks_settings_free(&s);
  }
}

static void test_device_refusals(void **state) {
  scratch *at = *state;
  REFUSED(at, LEAST "device: cpu:0\n", "bad.yaml:4:", "device", "no device 'cpu:0'");
  assert_non_null(strstr(err.remedy, "gpu:0 or auto"));
  REFUSED(at, LEAST "device: auto:1\n", "bad.yaml:4:", "no device 'auto:1'");
  REFUSED(at, LEAST "device: gpu:x\n", "bad.yaml:4:", "device.ordinal");
  REFUSED(at, LEAST "device: gpu:-1\n", "bad.yaml:4:", "device.ordinal");
  REFUSED(at, LEAST "device: 'gpu:'\n", "bad.yaml:4:", "device.ordinal");
  REFUSED(at, LEAST "device: tpu\n", "bad.yaml:4:", "device", "gpu");
  REFUSED(at, LEAST "device: {precision: fp8}\n", "bad.yaml:4:", "device.precision", "fp32");
  REFUSED(at, LEAST "device: {threads: 0}\n", "bad.yaml:4:", "device.threads");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_make, scratch_remove)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_everything),
      TEST(test_defaults),
      TEST(test_default_folder),
      TEST(test_order_of_overrides),
      TEST(test_paths_in_other_bytes),
      TEST(test_overrides),
      TEST(test_monitor),
      TEST(test_monitor_refusals),
      TEST(test_refusals),
      TEST(test_round_trip),
      TEST(test_stored_errors),
      TEST(test_devices),
      TEST(test_device_refusals),
  };
  return cmocka_run_group_tests_name("settings", tests, NULL, NULL);
}
