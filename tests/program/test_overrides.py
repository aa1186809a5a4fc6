#!/usr/bin/env python3
"""The configuration as users type it: errors with file, line and column, overrides by dotted names,
paths and variables."""

import os
import unittest

import harness
from harness import regression_config, regression_rows

GOOD = """\
data:
  train: {file: data.h5, features: x, targets: y}
model:
  - dense: {units: 8, activation: tanh}
  - dense: {units: 2}
loss: mean_squared_error
optimizer: {name: adam, learning_rate: 0.001}
metrics: [mae]
train:
  batch_size: 16
  epochs: 3
run: {folder: run}
"""


class ConfigurationErrorTest(harness.ProgramTest):
    """Each exits with 2 before anything is made; the place is file:line:column."""

    def refuse(self, old, new, *words, ranks=0):
        self.assertIn(old, GOOD)
        self.write_text("config.yaml", GOOD.replace(old, new))
        words = [r"config\.yaml", *words]
        self.fail_with(2, words, "train", "config.yaml", ranks=ranks)
        self.assertFalse(os.path.exists(self.path("run")))

    def test_unknown_keys(self):
        for ranks in (0, 2):
            self.refuse("epochs: 3", "epoches: 3", ":11:3", "train.epoches", "epochs", ranks=ranks)
        self.refuse("run:", "rum:", ":12:1", "rum", r"\brun\b")
        self.refuse("learning_rate", "learning_rat", ":7:", "learning_rate")
        self.refuse("activation: tanh", "actvation: tanh", ":4:", "activation")

    def test_unknown_names(self):
        self.refuse("{name: adam,", "{name: adma,", ":7:", "adma", r"\badam\b")
        self.refuse("mean_squared_error", "mean_sqared_error", ":6:", "mean_squared_error")
        self.refuse("- dense: {units: 2}", "- danse: {units: 2}", ":5:", "danse", r"\bdense\b")
        self.refuse("tanh", "tahn", ":4:", "tahn", r"\btanh\b")
        self.refuse("[mae]", "[mea]", ":8:", "mea", r"\bmae\b")

    def test_repeated_keys(self):
        twice = "  epochs: 3\n  epochs: 4"
        self.refuse("  epochs: 3", twice, ":12:3", "epochs", "(?i)twice|repeat")

    def test_wrong_types(self):
        self.refuse("epochs: 3", "epochs: three", ":11:3", "train.epochs", "three", "number")
        self.refuse("epochs: 3", "epochs: 3.5", ":11:3", "train.epochs", "3.5")
        self.refuse("epochs: 3", "epochs: [3]", ":11:", "train.epochs")
        self.refuse("epochs: 3", 'epochs: "3"', ":11:", "train.epochs")
        self.refuse("  batch_size: 16\n  epochs: 3", "  - 16", ":9:1", r"\btrain\b")
        self.refuse("  batch_size: 16", "  shuffle: perhaps", ":10:", "train.shuffle", "perhaps")

    def test_out_of_range(self):
        self.refuse("epochs: 3", "epochs: 0", ":11:3", "train.epochs", "1")
        self.refuse("batch_size: 16", "batch_size: -4", ":10:3", "train.batch_size", "1")
        self.refuse("0.001", "-1", ":7:", "optimizer.learning_rate", "-1")
        self.refuse("units: 8", "units: 0", ":4:", "units")
        self.refuse("targets: y}", "targets: y}\n  validation: 1.5", ":3:", "1.5")

    def test_missing(self):
        self.refuse("loss: mean_squared_error\n", "", "loss", "required|missing")
        self.refuse("{units: 2}", "{}", ":5:", "units", "required|missing")
        model = GOOD[GOOD.index("model:") : GOOD.index("loss:")]
        self.refuse(model, "", "model", "required|missing")
        self.refuse(model, "model: []\n", ":3:", "model")

    def test_syntax(self):
        self.refuse("loss: ", "loss: [", r":\d+:\d+")
        self.refuse("  batch_size", "\tbatch_size", ":10:")
        self.refuse("epochs: 3", "epochs: &a 3", ":11:", "anchor")
        self.refuse("epochs: 3", "epochs: *a", ":11:", "alias|anchor")
        self.refuse("run: {folder: run}\n", "---\nx: 1\n", "document")

    def test_keys_of_later_versions(self):
        self.refuse("epochs: 3", "reproducible: true", ":11:", "not in this version")
        self.refuse("targets: y}", "targets: y, sample_weight: w}", ":2:", "not in this version")

    def test_unset_variable(self):
        self.refuse("folder: run", "folder: '${LKS_NO_SUCH}/run'", ":12:", "LKS_NO_SUCH")

    def test_parts_that_do_not_fit(self):
        x, y = regression_rows()
        self.write_h5("data.h5", x=x, y=abs(y) / 10)
        self.write_text("config.yaml", GOOD.replace("mean_squared_error", "binary_crossentropy"))
        words = ["binary_crossentropy", "tanh", "sigmoid"]
        line = ["train", "config.yaml", "model.1.activation=tanh"]
        for ranks in (0, 2):
            self.fail_with(2, words, *line, ranks=ranks)

    def test_files(self):
        self.fail_with(2, ["none.yaml", "no such file"], "train", "none.yaml")
        os.mkdir(self.path("folder.yaml"))
        self.fail_with(2, ["folder.yaml", "folder|directory"], "train", "folder.yaml")
        self.write_text("empty.yaml", "")
        self.fail_with(2, ["empty.yaml", "empty"], "train", "empty.yaml")
        self.write_text("list.yaml", "- 1\n- 2\n")
        self.fail_with(2, ["list.yaml", "mapping"], "train", "list.yaml")
        for ranks in (0, 2):
            self.fail_with(2, ["none.yaml", "; ."], "train", "none.yaml", ranks=ranks)

    def test_depth_and_size_are_capped(self):
        self.write_text("deep.yaml", "model: " + "[" * 5000 + "]" * 5000 + "\n")
        self.fail_with(2, ["deep.yaml", "deep"], "train", "deep.yaml")
        self.write_text("long.yaml", "model: [" + "1, " * 1000000 + "1]\n")
        self.fail_with(2, ["long.yaml", "large|big"], "train", "long.yaml")


class OverrideTest(harness.ProgramTest):
    def setUp(self):
        super().setUp()
        x, y = regression_rows()
        self.write_h5("data.h5", x=x, y=y)
        self.write_text("config.yaml", GOOD)

    def stored(self, *overrides):
        self.succeed("train", "config.yaml", "--overwrite", *overrides)
        with open(self.path("run", "config.yaml"), encoding="utf-8") as f:
            return f.read()

    def test_values(self):
        text = self.stored("train.epochs=1", "optimizer.learning_rate=1e-2", "model.0.units=5")
        self.assertRegex(text, r"epochs: 1\b")
        self.assertRegex(text, r"learning_rate: 0\.01\b")
        self.assertRegex(text, r"units: 5\b")
        weights = harness.read_layers(self.path("run", "model.weights.h5"))
        self.assertEqual(weights["dense/vars/0"].shape, (6, 5))

    def test_scalars_expand(self):
        text = self.stored("optimizer=sgd", "optimizer.momentum=0.5", "model.1.activation=linear")
        self.assertRegex(text, r"name: sgd")
        self.assertRegex(text, r"momentum: 0\.5")

    def test_lists_and_mappings(self):
        self.stored("metrics=[mae, mse]", "data.validation={fraction: 0.2, rows: random}")
        self.assertLessEqual({"mse", "val_mse"}, set(harness.read_history(self.path("run"))))

    def test_the_last_wins(self):
        self.stored("train.epochs=9", "train.epochs=2")
        self.assertEqual(len(harness.read_history(self.path("run"))["loss"]), 2)

    def refuse(self, override, *words):
        for ranks in (0, 2):
            line = ["train", "config.yaml", override]
            self.fail_with(2, ["command line", *words], *line, ranks=ranks)
            self.assertFalse(os.path.exists(self.path("run")))

    def test_errors(self):
        self.refuse("train.epoches=3", "train.epoches", r"\bepochs\b")
        self.refuse("train.epochs=many", "train.epochs", "many")
        words = "train.epochs: expects a whole number, got none .*; give it a value"
        self.refuse("train.epochs=", words)
        self.refuse("train.epochs=0", "train.epochs", "0")
        self.refuse("model.7.units=3", r"model\.7", "list has 2")
        self.refuse("optimizer.momentumm=0.1", "momentum")
        self.refuse("train.reproducible=true", "not in this version")

    def test_relative_paths(self):
        """In a file relative to the file's folder, on the command line to the current one; so is
        run.folder, whoever says it."""
        inner = self.path("inner")
        os.mkdir(inner)
        os.rename(self.path("config.yaml"), os.path.join(inner, "config.yaml"))
        os.rename(self.path("data.h5"), os.path.join(inner, "data.h5"))
        self.succeed("train", "inner/config.yaml")
        self.assertTrue(os.path.exists(self.path("run", "log.jsonl")))
        line = ["data.train.file=inner/data.h5", "run.folder=second"]
        self.succeed("train", "inner/config.yaml", *line)
        self.assertTrue(os.path.exists(self.path("second", "log.jsonl")))

    def test_default_run_folder(self):
        self.write_text("surrogate.yaml", GOOD.replace("run: {folder: run}\n", ""))
        self.succeed("train", "surrogate.yaml")
        self.assertTrue(os.path.exists(self.path("runs", "surrogate", "log.jsonl")))

    def test_variables(self):
        self.write_text("config.yaml", GOOD.replace("data.h5", "'${DATA_FILE}'"))
        env = {"DATA_FILE": self.path("data.h5")}
        self.succeed("train", "config.yaml", env=env, ranks=2)

    def test_short_forms(self):
        config = regression_config(device="cpu", data={"scaling": "minmax", "validation": 0.1})
        self.write_text("config.yaml", harness.yaml(config) + "\n")
        text = self.stored()
        self.assertRegex(text, "name: minmax|features: minmax")
        for key in ("data.scaling.divide", "data.scaling.features.divide"):
            text = self.stored(f"{key}=255")
            self.assertRegex(text, r"scaling:\s+features:\s+name: divide\s+value: 255\s+targets:")


if __name__ == "__main__":
    unittest.main()
