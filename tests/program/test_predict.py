#!/usr/bin/env python3
"""The predict command: row i for input row i at any number of ranks, in raw units."""

import os
import re
import signal
import unittest

import h5py
import numpy as np

import harness
from harness import class_config, class_rows, regression_config, regression_rows


def strip(weights, path):
    """A copy of what Keras itself would write."""
    with h5py.File(weights) as f, h5py.File(path, "w") as out:
        for name in ("layers", "vars"):
            f.copy(name, out)
    return path


class PredictTest(harness.ProgramTest):
    def predictions(self, name):
        with h5py.File(self.path(name)) as f:
            return f["predictions"][()]

    def predict(self, source, rows, out, *line, ranks=0):
        self.succeed(
            "predict", source, "--in", rows, "--features", "x", "--out", out, *line, ranks=ranks
        )
        return self.predictions(out)


class RegressionTest(PredictTest):
    def setUp(self):
        super().setUp()
        self.x, y = regression_rows(200)
        self.x = (200 + 30 * self.x).astype("f4")
        self.y = 1e5 + 1e3 * y.astype("f8")
        self.write_h5("data.h5", x=self.x, y=self.y)
        scaling = {"features": "standardize", "targets": "minmax"}
        self.config = self.write_config(regression_config(data={"scaling": scaling}))
        self.succeed("train", self.config, ranks=2)
        # Other rows than were trained on, and no targets beside them.
        self.rows = self.write_h5("rows.h5", x=self.x[::-1][:77], other=np.zeros(3))

    def forward(self, x):
        """The model computed again in double from the file's weights."""
        weights = harness.read_layers(self.path("run", "model.weights.h5"))
        mean, deviation = self.x.astype("f8").mean(axis=0), self.x.astype("f8").std(axis=0)
        x = (x.astype("f8") - mean) / deviation
        hidden = np.tanh(x @ weights["dense/vars/0"] + weights["dense/vars/1"])
        scaled = hidden @ weights["dense_1/vars/0"] + weights["dense_1/vars/1"]
        low, high = self.y.min(axis=0), self.y.max(axis=0)
        return hidden, scaled * (high - low) + low

    def test_raw_units_in_and_out(self):
        ours = self.predict("run", self.rows, "out.h5")
        self.assertEqual(ours.shape, (77, 2))
        _, wanted = self.forward(self.x[::-1][:77])
        # Single precision of the scaled values, which span the targets' range.
        span = np.ptp(self.y)
        np.testing.assert_allclose(ours, wanted, rtol=0, atol=3e-6 * span)

    def test_same_on_any_number_of_ranks(self):
        wanted = self.predict("run", self.rows, "alone.h5")
        for ranks in (1, 2, 3, 5, 8):
            ours = self.predict("run", self.rows, f"out-{ranks}.h5", ranks=ranks)
            np.testing.assert_array_equal(ours, wanted, err_msg=f"{ranks} ranks")

    def test_one_row(self):
        wanted = self.predict("run", self.rows, "all.h5")
        one = self.write_h5("one.h5", x=self.x[::-1][:1])
        for ranks in (0, 3):
            ours = self.predict("run", one, f"out-{ranks}.h5", ranks=ranks)
            self.assertEqual(ours.shape, (1, 2))
            np.testing.assert_allclose(ours, wanted[:1], rtol=1e-6)

    def test_rows_are_independent(self):
        """Row i depends on input row i alone: not on the rows around it."""
        order = np.random.default_rng(8).permutation(77)
        mixed = self.write_h5("mixed.h5", x=self.x[::-1][:77][order])
        wanted = self.predict("run", self.rows, "all.h5")
        ours = self.predict("run", mixed, "mixed-out.h5", ranks=2)
        np.testing.assert_allclose(ours, wanted[order], rtol=1e-6)

    def test_from_run_checkpoint_and_configuration(self):
        wanted = self.predict("run", self.rows, "run.h5")
        weights = self.path("run", "model.weights.h5")
        np.testing.assert_array_equal(self.predict(weights, self.rows, "file.h5"), wanted)
        np.testing.assert_array_equal(self.predict(self.config, self.rows, "yaml.h5"), wanted)

    def test_hash_attribute(self):
        self.predict("run", self.rows, "out.h5")
        end = harness.read_log(self.path("run"))[-1]
        with h5py.File(self.path("out.h5")) as f:
            values = [str(v) for v in f["predictions"].attrs.values()]
            values += [str(v) for v in f.attrs.values()]
        self.assertIn(end["weights_hash"], " ".join(values))

    @unittest.skipIf(harness.DEVICE != "cpu", "nothing in it is a device's")
    def test_hash_of_weights_that_are_keras(self):
        weights = strip(self.path("run", "model.weights.h5"), self.path("keras.weights.h5"))
        self.predict(self.config, self.rows, "out.h5", "--checkpoint", weights)
        end = harness.read_log(self.path("run"))[-1]
        with h5py.File(self.path("out.h5")) as f:
            self.assertEqual(f["predictions"].attrs["weights_hash"], end["weights_hash"])

    def test_inner_layer(self):
        hidden, _ = self.forward(self.x[::-1][:77])
        for ranks in (0, 2):
            out = f"inner-{ranks}.h5"
            ours = self.predict("run", self.rows, out, "--layer", "dense", ranks=ranks)
            self.assertEqual(ours.shape, (77, 8))
            np.testing.assert_allclose(ours, hidden, rtol=0, atol=2e-6)

    def test_no_such_layer(self):
        line = ["--in", self.rows, "--features", "x", "--out", "out.h5", "--layer", "dense_7"]
        self.fail_with(2, ["dense_7", r"dense\b.*dense_1"], "predict", "run", *line)
        self.assertFalse(os.path.exists(self.path("out.h5")))

    def test_wrong_features(self):
        """Remedies speak of the command line, where the features of predict are named."""
        self.write_h5("odd.h5", a=self.x, few=self.x[:5], one=3.0, words=[b"a"] * 200)
        line = ["predict", "run", "--in", "odd.h5", "--out", "out.h5"]
        has = r"has a, few, one, words.*; set --features$"
        for features, words in (
            ("b", "no dataset 'b' .*" + has),
            ("a,b", "no dataset 'b' .*" + has),
            ("one", "'one' is a single number.*; set --features to a dataset with a first"),
            ("words", "'words' holds values of type string.*; set --features to .* numbers"),
            ("a,few", "'few' has 5 rows, but 'a' has 200 .*: set --features$"),
        ):
            self.fail_with(3, words, *line, "--features", features)
        self.fail_with(3, has, *line)
        self.assertFalse(os.path.exists(self.path("out.h5")))

    def test_features_are_guessed_or_those_of_training(self):
        self.succeed("predict", "run", "--in", self.rows, "--out", "guess.h5")
        wanted = self.predict("run", self.rows, "named.h5")
        np.testing.assert_array_equal(self.predictions("guess.h5"), wanted)

    @unittest.skipIf(harness.DEVICE != "cpu", "nothing in it is a device's")
    def test_names_that_training_found(self):
        """A run stores what it found by guessing, and predicts on datasets of that name."""
        self.write_h5("data.h5", data=self.x, label=self.y)
        line = ["data.train.features=[]", "data.train.targets=[]", "run.folder=found"]
        self.succeed("train", self.config, *line, ranks=2)
        stored = harness.read_text(self.path("found", "config.yaml"))
        self.assertRegex(stored, "features: data\\n")
        self.assertRegex(stored, "targets: label\\n")
        for more in (line, ["data.train.features=data", *line[1:]]):
            self.assertIn("nothing to do", self.succeed("train", self.config, *more).out)
        wanted = self.predict("run", self.write_h5("x.h5", x=self.x), "wanted.h5")
        both = self.write_h5("both.h5", data=self.x, x=self.x[::-1])
        weights = self.path("found", "model.weights.h5")
        for ranks in (0, 2):
            for source in (["found"], [weights], [self.config, *line]):
                self.succeed("predict", *source, "--in", both, "--out", "out.h5", ranks=ranks)
                np.testing.assert_array_equal(self.predictions("out.h5"), wanted, str(source))
        words = r"no dataset 'data' \(has other, x\).*; set --features"
        self.fail_with(3, words, "predict", "found", "--in", self.rows, "--out", "none.h5")

    def test_refused_requests(self):
        line = ["predict", "run", "--in", self.rows, "--out", "out.h5"]
        for names in ("", ","):
            self.fail_with(2, "--features names no dataset", *line, "--features", names)
        for ranks in (0, 2):
            words = "--probabilities is of a classifier.*; leave it out"
            self.fail_with(2, words, *line, "--probabilities", ranks=ranks)
        self.assertFalse(os.path.exists(self.path("out.h5")))

    def test_weights_without_scaling(self):
        """A file of Keras' holds no scaling: it is fitted again, on the training rows."""
        weights = strip(self.path("run", "model.weights.h5"), self.path("keras.weights.h5"))
        wanted = self.predict("run", self.rows, "run.h5")
        for ranks in (0, 2):
            line = ["--checkpoint", weights]
            ours = self.predict(self.config, self.rows, "out.h5", *line, ranks=ranks)
            np.testing.assert_allclose(ours, wanted, rtol=1e-12)

    def test_missing_arguments(self):
        self.fail_with(2, "--in", "predict", "run", "--out", "out.h5")
        self.fail_with(2, "--out", "predict", "run", "--in", self.rows)
        line = ["--in", "none.h5", "--out", "out.h5"]
        for ranks in (0, 2):
            self.fail_with(3, ["none.h5", "no such file"], "predict", "run", *line, ranks=ranks)


class LongTest(PredictTest):
    def test_stopped(self):
        self.write_h5("data.h5", **dict(zip("xy", regression_rows(64))))
        wide = [{"dense": {"units": 512, "activation": "tanh"}}] * 2 + [{"dense": {"units": 2}}]
        self.succeed("train", self.write_config(regression_config(model=wide)))
        rows = self.write_h5("rows.h5", x=np.zeros((1000000, 6), "f4"))
        for ranks in (0, 2):
            running = self.start("predict", "run", "--in", rows, "--out", "out.h5", ranks=ranks)
            running.until(lambda: harness.leftovers(self.folder), "a beginning")
            running.signal_rank(0, signal.SIGTERM)
            self.assertEqual(running.wait(), 75, running.text())
            self.assertRegex(running.text(), "stopped by SIGTERM before the end.*; run the same")
            self.assertEqual(harness.leftovers(self.folder), [])
            self.assertFalse(os.path.exists(self.path("out.h5")))

    def test_batches_larger_than_the_data(self):
        """What a step or a prediction takes is for the rows that there are."""
        self.write_h5("data.h5", **dict(zip("xy", regression_rows(64))))
        wide = [{"dense": {"units": 1000}}] * 2 + [{"dense": {"units": 2}}]
        config = self.write_config(regression_config(model=wide, train={"batch_size": 64}))
        large = "train.batch_size=200000"  # 1.6 GB of the two wide layers, and as much of gradients
        self.succeed("train", config)
        self.succeed("train", config, large, "run.folder=large")
        for name in ("run", "large"):
            self.predict(name, "data.h5", f"{name}.h5")
        np.testing.assert_array_equal(self.predictions("large.h5"), self.predictions("run.h5"))
        for line in (("train", config, large, "--overwrite"), ("predict", "large", "--in", "data.h5",
                     "--out", "large.h5")):
            self.assertLess(self.peak_memory(*line), 500e6)

    def peak_memory(self, *line):
        """Resident bytes of a run on its own, at its most."""
        running = self.start(*line)
        _, status, used = os.wait4(running.process.pid, 0)
        running.process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(running.process.returncode, 0, running.text())
        return used.ru_maxrss * 1024


class ShiftTest(PredictTest):
    """Targets far from zero, beside which a float holds little of what varies."""

    def test_errors_and_predictions(self):
        x, y = regression_rows(200)
        y = 1e7 + 0.01 * y.astype("f8")
        rows = self.write_h5("data.h5", x=x, y=y)
        scaling = {"features": "standardize", "targets": "standardize"}
        self.succeed("train", self.write_config(regression_config(data={"scaling": scaling})))
        ours = self.predict("run", rows, "out.h5")
        error = np.abs(ours - y).mean(axis=0)
        self.assertGreater(error.min(), 0)
        for ranks in (0, 3):
            out = self.succeed("evaluate", "run", ranks=ranks).out
            told = [float(v) for v in re.findall(r"mae (\S+) - rmse", out)]
            # Doubles hold 2e-9 of such targets, floats 1e-7 of what is scaled, to some 0.01.
            np.testing.assert_allclose(told, error, rtol=0, atol=1e-8)


@unittest.skipIf(harness.DEVICE != "cpu", "nothing in it is a device's")
class OtherSettingsTest(PredictTest):
    """A configuration that is not the one of the training."""

    def setUp(self):
        super().setUp()
        x, y = regression_rows(64)
        self.rows = self.write_h5("data.h5", x=x, y=y)
        self.config = self.write_config(regression_config(data={"scaling": "standardize"}))
        self.succeed("train", self.config)

    def test_told(self):
        scaling = (
            "data.scaling.features.name was standardize and is minmax now, which is not used: "
            "scaling is the file's"
        )
        relu = "model.0.activation.name was tanh and is relu now"
        weights = self.path("run", "model.weights.h5")
        for ranks in (0, 2):
            wanted = self.succeed("evaluate", "run", ranks=ranks).out
            for line, told in (
                (["data.scaling=minmax"], scaling),
                (["model.0.activation=relu"], relu),
                (["data.scaling=minmax", "model.0.activation=relu"], f"{scaling}; {relu}"),
            ):
                done = self.succeed("evaluate", self.config, *line, ranks=ranks)
                warning = f"lockstep: warning: {weights} was trained with other settings: {told}\n"
                self.assertEqual(done.err.count(warning), 1, done.err)
                if told == scaling:
                    self.assertEqual(done.out, wanted)
        done = self.succeed(
            "predict", self.config, "--in", self.rows, "--features", "x", "--out", "out.h5",
            "data.scaling=minmax",
        )  # fmt: skip
        self.assertIn(scaling, done.err)

    def test_not_told(self):
        """What changes no prediction is no matter."""
        line = ["train.epochs=9", "optimizer=sgd", "loss=mae", "train.batch_size=8"]
        for source in ("run", self.config):
            self.assertNotIn("warning", self.succeed("evaluate", source, *line).err)


class AutoencoderTest(PredictTest):
    def test_weights_without_scaling(self):
        """Targets that are the features take their scaling, with no table of training at hand."""
        x = (255 * np.random.default_rng(3).random((64, 6))).astype("f4")
        rows = self.write_h5("data.h5", x=x, other=x[::2])
        table = {"file": "data.h5", "features": "other", "targets": "other"}
        data = {"scaling": {"divide": 255}, "test": table}
        config = regression_config(data=data, model=[{"dense": {"units": 6}}])
        config["data"]["train"]["targets"] = "x"
        config = self.write_config(config)
        self.succeed("train", config)
        weights = strip(self.path("run", "model.weights.h5"), self.path("keras.weights.h5"))
        wanted = self.predict("run", rows, "run.h5")
        ours = self.predict(config, rows, "out.h5", "--checkpoint", weights)
        np.testing.assert_array_equal(ours, wanted)
        self.assertGreater(np.abs(ours).max(), 1)
        told = self.succeed("evaluate", "run").out.splitlines()[1:]
        again = self.succeed("evaluate", config, "--checkpoint", weights).out.splitlines()[1:]
        self.assertEqual(again, told)
        # One dataset by two names is one dataset, also where a name was guessed.
        with h5py.File(rows, "r+") as f:
            f["link"] = h5py.SoftLink("/x")
            f["y_train"] = h5py.SoftLink("/x")
        for names in (("/x", "x"), ("link", "/x"), ("x", "[]"), ("[]", "link")):
            line = [f"data.train.features={names[0]}", f"data.train.targets={names[1]}"]
            for ranks in (0, 2):
                ours = self.predict(
                    config, rows, "out.h5", *line, "--checkpoint", weights, ranks=ranks
                )
                np.testing.assert_array_equal(ours, wanted, err_msg=str(names))

    @unittest.skipIf(harness.DEVICE != "cpu", "nothing in it is a device's")
    def test_no_autoencoder(self):
        """Nothing of the training is looked for where targets cannot be the features."""
        x, y = regression_rows(64)
        rows = self.write_h5("data.h5", x=x, y=y)
        scaling = {"features": {"divide": 3}}
        config = self.write_config(regression_config(data={"scaling": scaling}))
        self.succeed("train", config)
        weights = strip(self.path("run", "model.weights.h5"), self.path("keras.weights.h5"))
        wanted = self.predict("run", rows, "run.h5")
        os.rename(rows, self.path("moved.h5"))
        ours = self.predict(config, "moved.h5", "out.h5", "--checkpoint", weights)
        np.testing.assert_array_equal(ours, wanted)


@unittest.skipIf(harness.DEVICE != "cpu", "nothing in it is a device's")
class NotFiniteTest(PredictTest):
    """Weights that lead beyond floats, or are not finite, end as they do in evaluation."""

    def setUp(self):
        super().setUp()
        x, y = regression_rows(600)
        x = np.abs(x)
        x[:400] = x[400:] = 0
        x[300, 2] = x[590, 2] = 1
        self.rows = self.write_h5("data.h5", x=x, y=y)
        self.config = self.write_config(regression_config(model=[{"dense": {"units": 2}}]))
        self.succeed("train", self.config)
        self.weights = strip(self.path("run", "model.weights.h5"), self.path("bad.weights.h5"))

    def check(self, value, words):
        with h5py.File(self.weights, "r+") as f:
            f["layers/dense/vars/0"][2, 1] = value
        line = ["predict", self.config, "--in", self.rows, "--out", "out.h5"]
        for ranks in (0, 3):
            self.fail_with(
                6, words + r" .*; look at the weights \(.*bad.weights.h5\)", *line, "--checkpoint",
                self.weights, ranks=ranks
            )
            self.assertFalse(os.path.exists(self.path("out.h5")))
            self.assertEqual(harness.leftovers(self.folder), [])

    def test_first_row_and_column(self):
        self.check(np.inf, "row 0, column 1 of the predictions is NaN")  # 0 times infinity
        with h5py.File(self.rows, "r+") as f:
            f["x"][300, 2] = f["x"][590, 2] = 2
        self.check(3e38, "row 300, column 1 of the predictions is an infinity")


class LogitsTest(PredictTest):
    def setUp(self):
        super().setUp()
        self.x, y = class_rows(100)
        self.rows = self.write_h5("data.h5", x=self.x, y=y)
        self.config = self.write_config(class_config())
        self.succeed("train", self.config)

    def test_probabilities(self):
        logits = self.predict("run", self.rows, "logits.h5").astype("f8")
        wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        for ranks in (0, 2):
            ours = self.predict("run", self.rows, f"p-{ranks}.h5", "--probabilities", ranks=ranks)
            np.testing.assert_allclose(ours, wanted, rtol=1e-5)

    def test_probabilities_of_a_layer(self):
        line = ["--in", self.rows, "--features", "x", "--out", "out.h5", "--probabilities"]
        words = "--probabilities is of the model's output, and --layer names a layer"
        for layer in ("dense", "dense_1"):
            self.fail_with(2, words, "predict", "run", *line, "--layer", layer)

    def test_sigmoid(self):
        line = ["model.1.units=1", "loss=binary_crossentropy", "run.folder=binary"]
        binary = self.write_h5("binary.h5", x=self.x, y=(self.x[:, 0] > 0).astype("u1"))
        self.succeed("train", self.config, *line, f"data.train.file={binary}")
        logits = self.predict("binary", self.rows, "logits.h5").astype("f8")
        ours = self.predict("binary", self.rows, "p.h5", "--probabilities")
        np.testing.assert_allclose(ours, 1 / (1 + np.exp(-logits)), rtol=1e-5)

    def test_softmax_gives_probabilities_by_itself(self):
        line = ["model.1.activation=softmax", "run.folder=softmax"]
        self.succeed("train", self.config, *line)
        plain = self.predict("softmax", self.rows, "plain.h5")
        np.testing.assert_allclose(plain.sum(axis=1), 1, atol=1e-5)
        # The link is in the model already, and not applied twice.
        np.testing.assert_array_equal(
            self.predict("softmax", self.rows, "p.h5", "--probabilities"), plain
        )


if __name__ == "__main__":
    unittest.main()
