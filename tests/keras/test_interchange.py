#!/usr/bin/env python3
"""Weights to Keras and from it.

To Keras needs a Python that has it: this one, or $LOCKSTEP_KERAS_PYTHON; without, those tests are
skipped. From Keras uses the files that make_values.py wrote.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "program"))

import h5py
import numpy as np

import harness

VALUES = os.path.join(HERE, "values")

# The model of classifier() below, loaded both ways; predictions of the rows in `x` to a file.
KERAS_SCRIPT = """
import sys, h5py, keras, numpy as np
weights, whole, rows, out = sys.argv[1:5]
with h5py.File(rows, "r") as f:
    x = f["x"][()]
model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, activation="relu"),
                          keras.layers.Dropout(0.1), keras.layers.Dense(7, activation="tanh"),
                          keras.layers.Dense(3, activation="softmax")])
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
model.optimizer.build(model.trainable_variables)
model.load_weights(weights)
loaded = keras.models.load_model(whole)
with h5py.File(out, "w") as f:
    f["load_weights"] = model.predict(x, verbose=0)
    f["load_model"] = loaded.predict(x, verbose=0)
    variables = [np.asarray(v) for v in model.optimizer.variables]
    f["iterations"] = int(variables[0])
    f["slots"] = [float(np.sum(np.abs(v))) for v in variables[2:]]
    f["loss"] = getattr(loaded.loss, "__name__", str(loaded.loss))
"""


def keras_python():
    """A Python with Keras, or None."""
    named = os.environ.get("LOCKSTEP_KERAS_PYTHON")
    if named:
        return named
    return sys.executable if importlib.util.find_spec("keras") else None


def classifier():
    layers = [
        {"dense": {"units": 8, "activation": "relu"}},
        {"dropout": {"rate": 0.1}},
        {"dense": {"units": 7, "activation": "tanh"}},
        {"dense": {"units": 3, "activation": "softmax"}},
    ]
    return harness.class_config(model=layers)


class ToKerasTest(harness.ProgramTest):
    @unittest.skipUnless(keras_python(), "no Keras: set LOCKSTEP_KERAS_PYTHON to a Python with it")
    def test_keras_predicts_the_same(self):
        x, y = harness.class_rows(100)
        data = self.write_h5("data.h5", x=x, y=y)
        self.succeed("train", self.write_config(classifier()), ranks=2)
        self.succeed("predict", "run", "--in", data, "--features", "x", "--out", "ours.h5")
        weights = self.path("run", "model.weights.h5")
        shutil.copy(weights, self.path("whole.h5"))  # load_model goes by this ending
        script = self.write_text("predict_with_keras.py", KERAS_SCRIPT)
        line = [keras_python(), script, weights, self.path("whole.h5"), data, self.path("k.h5")]
        env = dict(os.environ, KERAS_BACKEND=os.environ.get("KERAS_BACKEND", "jax"))
        subprocess.run(line, check=True, env=env, stdout=subprocess.DEVNULL)

        with h5py.File(self.path("ours.h5")) as f:
            ours = f["predictions"][()]
        with h5py.File(self.path("k.h5")) as f:
            # Sums of at most 8 products of values near 1, in single precision.
            np.testing.assert_allclose(f["load_weights"][()], ours, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(f["load_model"][()], ours, rtol=1e-5, atol=1e-6)
            self.assertEqual(f["iterations"][()], 3 * 7)
            self.assertTrue(np.all(f["slots"][()] > 0))
            self.assertEqual(f["loss"].asstr()[()], "sparse_categorical_crossentropy")


class LayoutTest(harness.ProgramTest):
    """What Keras' two readers look for, checked with h5py alone."""

    def setUp(self):
        super().setUp()
        x, y = harness.class_rows(100)
        self.write_h5("data.h5", x=x, y=y)
        self.succeed("train", self.write_config(classifier()))
        self.file = h5py.File(self.path("run", "model.weights.h5"), "r")
        self.addCleanup(self.file.close)

    def test_native_layout(self):
        self.assertEqual(set(self.file["layers"]), {"dense", "dense_1", "dense_2", "dropout"})
        shapes = {"dense": (6, 8), "dense_1": (8, 7), "dense_2": (7, 3)}
        for name, shape in shapes.items():
            variables = self.file["layers"][name]["vars"]
            self.assertEqual(set(variables), {"0", "1"})
            self.assertEqual(variables["0"].shape, shape)
            self.assertEqual(variables["1"].shape, shape[1:])
            self.assertEqual(variables["0"].dtype, np.dtype("<f4"))
        self.assertEqual(len(self.file["layers"]["dropout"]["vars"]), 0)
        self.assertEqual(len(self.file["vars"]), 0)
        optimizer = self.file["optimizer"]["vars"]
        self.assertEqual(set(optimizer), {str(i) for i in range(2 + 2 * 6)})
        self.assertEqual(optimizer["0"][()], 3 * 7)
        self.assertAlmostEqual(float(optimizer["1"][()]), 0.001, places=9)

    def test_legacy_layout(self):
        config = json.loads(self.file.attrs["model_config"])
        self.assertEqual(config["class_name"], "Sequential")
        kinds = [layer["class_name"] for layer in config["config"]["layers"]]
        self.assertEqual(kinds, ["InputLayer", "Dense", "Dropout", "Dense", "Dense"])
        training = json.loads(self.file.attrs["training_config"])
        self.assertEqual(training["loss"], "sparse_categorical_crossentropy")
        self.assertIn("keras_version", self.file.attrs)
        group = self.file["model_weights"]
        names = [n.decode() if isinstance(n, bytes) else n for n in group.attrs["layer_names"]]
        kernels = [g for n in names for g in self.weights_of(group[n])]
        natives = ["dense/vars/0", "dense/vars/1", "dense_1/vars/0", "dense_1/vars/1"]
        natives += ["dense_2/vars/0", "dense_2/vars/1"]
        self.assertEqual(len(kernels), len(natives))
        for ours, native in zip(kernels, natives):
            # The same object under two names, not a copy.
            self.assertEqual(ours, self.file["layers"][native])

    @staticmethod
    def weights_of(layer):
        names = [n.decode() if isinstance(n, bytes) else n for n in layer.attrs["weight_names"]]
        return [layer[n] for n in names]


class FromKerasTest(harness.ProgramTest):
    """Weights that Keras wrote, in both layouts, evaluated and used here."""

    def setUp(self):
        super().setUp()
        with open(os.path.join(VALUES, "trained.json"), encoding="utf-8") as f:
            self.expected = json.load(f)
        with open(os.path.join(VALUES, "classifier.json"), encoding="utf-8") as f:
            config = json.load(f)["config"]
        self.rows = os.path.join(VALUES, "classifier.h5")
        table = {"file": self.rows, "features": "x", "targets": "y"}
        config["data"] = {"train": table, "test": table}
        self.config = self.write_config(dict(config, device="cpu", run={"folder": "run"}))

    def check(self, name, ranks):
        weights = os.path.join(VALUES, name)
        rows = self.expected["rows"]
        result = self.succeed(
            "evaluate", self.config, "--checkpoint", weights, "--data", "test", ranks=ranks
        )
        loss = float(re.search(r"\bloss\W+([0-9.e+-]+)", result.out)[1])
        accuracy = float(re.search(r"\baccuracy\W+([0-9.e+-]+)", result.out)[1])
        # As many digits as are printed, at least four.
        self.assertAlmostEqual(loss, self.expected["loss"], delta=5e-5)
        self.assertEqual(round(accuracy * rows), self.expected["hits"])

        config = self.config
        override = f"train.init_from={weights}"
        self.succeed(
            "predict", config, override, "--checkpoint", weights,
            "--in", self.rows, "--features", "x", "--out", "p.h5", ranks=ranks,
        )  # fmt: skip
        with h5py.File(self.path("p.h5")) as f:
            ours = f["predictions"][:20]
        np.testing.assert_allclose(ours, self.expected["predictions"], rtol=1e-5, atol=1e-6)

    def test_native_file(self):
        for ranks in (0, 2):
            self.check("trained.weights.h5", ranks)

    def test_legacy_file(self):
        """Its layers are ordered by the attribute layer_names, not by name."""
        for ranks in (0, 2):
            self.check("trained.legacy.h5", ranks)

    def test_another_models_file(self):
        weights = os.path.join(VALUES, "regression.weights.h5")
        self.fail_with(
            7, ["regression.weights.h5", "dense"], "evaluate", self.config, "--checkpoint", weights
        )


if __name__ == "__main__":
    unittest.main()
