#!/usr/bin/env python3
"""Networks, data and keys drawn at random, trained on several ranks by every way of making
gradients: the losses of one rank; where one of them does all, its bits. A few of them, or fifty
with LOCKSTEP_TEST_LONG=1."""

import os
import platform
import random
import unittest

import h5py
import numpy as np

import harness

CASES = 50 if os.environ.get("LOCKSTEP_TEST_LONG") == "1" else 5
SEED = int(os.environ.get("LOCKSTEP_TEST_SEED", "20"))


@unittest.skipIf(harness.DEVICE != "cpu", "GPUs share no memory")
class WaysTest(harness.ProgramTest):
    def draw(self, rng):
        """A configuration, its data written."""
        classes = rng.random() < 0.4
        inputs, outputs = rng.choice([1, 2, 7, 16, 100, 300]), rng.choice([1, 2, 5])
        rows, batch = rng.choice([1, 5, 31, 64, 250, 1000]), rng.choice([1, 2, 7, 32, 100, 1000])
        self.write_rows(rng, rows, inputs, outputs, classes)
        layers = []
        for _ in range(rng.randint(0, 4)):
            activation = rng.choice(["relu", "tanh", "gelu", "silu", "elu"])
            units, bias = rng.choice([1, 3, 8, 33, 128]), rng.random() < 0.7
            layers.append({"dense": {"units": units, "activation": activation, "use_bias": bias}})
            if rng.random() < 0.25:
                layers.append({"dropout": {"rate": 0.3}})
        last = {"units": outputs + 1, "activation": "softmax"} if classes else {"units": outputs}
        data = {"order": "windows", "window": rng.choice([16, 64])}
        if rows >= 31 and rng.random() < 0.5:
            data["validation"] = {"fraction": 0.2}
        if rows == 1000 and batch <= 64:  # room for two windows in whole chunks, not for the rows
            data["memory_per_node"] = 8192 + 450 * (inputs + outputs) * 4
        momentum = {"momentum": 0.9, "nesterov": rng.random() < 0.5}
        sgd = {"name": "sgd", "learning_rate": 1e-3, **momentum}
        return harness.regression_config(
            model=layers + [{"dense": last}],
            data=data,
            loss="sparse_categorical_crossentropy" if classes else "mean_squared_error",
            metrics=[],
            optimizer=rng.choice(["adam", sgd, {"name": "adamw", "weight_decay": 0.01}]),
            train={"batch_size": batch, "epochs": rng.randint(1, 3)},
            checkpoint={"every_steps": rng.choice([0, 3])},
        )

    def write_rows(self, rng, rows, inputs, outputs, classes):
        draw = np.random.default_rng(rng.randrange(1 << 30))
        x = draw.standard_normal((rows, inputs)).astype("f4")
        y = draw.standard_normal((rows, outputs)).astype("f4")
        if classes:
            y = draw.integers(0, outputs + 1, rows)
        with h5py.File(self.path("data.h5"), "w") as file:
            for name, values in (("x", x), ("y", y)):
                chunks = (min(rows, 50), *values.shape[1:]) if rows % 2 == 0 else None
                file.create_dataset(name, data=values, chunks=chunks)

    def train(self, ranks, way):
        line = ["train", self.path("config.yaml"), "--overwrite", f"device.gradients={way}"]
        self.succeed(*line, ranks=ranks)
        log = harness.read_log(self.path("run"))
        losses = [event["loss"] for event in log if event["event"] == "epoch"]
        return losses, log[-1]["weights_hash"]

    def test_the_losses_of_one_rank(self):
        for case in range(CASES):
            rng = random.Random(SEED + case)
            config = self.draw(rng)
            self.write_config(config)
            losses, weights = self.train(0, "auto")
            ranks = rng.choice([2, 3, 4])
            for way in ("auto", "rows", "owners", "leader"):
                with self.subTest(seed=SEED + case, ranks=ranks, gradients=way, config=config):
                    got, their_weights = self.train(ranks, way)
                    np.testing.assert_allclose(got, losses, rtol=2e-5, atol=1e-7)
                    if way == "leader":
                        self.assertEqual((got, their_weights), (losses, weights))

    def test_dropout_at_the_ends_of_its_range(self):
        """A rate that no float holds is none; one that a float holds as 1 still scales by less than
        all numbers."""
        self.write_rows(random.Random(1), 64, 300, 2, False)

        def config(rate):
            wide = {"dense": {"units": 256, "activation": "relu"}}
            model = [wide, {"dropout": {"rate": rate}}, wide, {"dense": {"units": 2}}]
            optimizer = {"name": "sgd", "learning_rate": 1e-6}
            train = {"batch_size": 32, "epochs": 1}
            self.write_config(
                harness.regression_config(
                    model=model, optimizer=optimizer, train=train, metrics=[]
                )
            )

        config(0)
        wanted, _ = self.train(0, "auto")
        for rate in (1e-50, 0.99999999):
            config(rate)
            alone, _ = self.train(0, "auto")
            if rate < 0.5:
                self.assertEqual(alone, wanted)
            for way in ("rows", "owners", "leader"):
                with self.subTest(rate=rate, gradients=way):
                    got, _ = self.train(2, way)
                    np.testing.assert_allclose(got, alone, rtol=2e-5)

    @unittest.skipIf(platform.machine() != "x86_64", "other processors are as fast with them")
    def test_nothing_is_subnormal(self):
        """A feature that is nonzero in one step alone: 0.9 times as much with each step after it,
        Adam's first moment would become a float of those with which steps are slow."""
        x = np.random.default_rng(1).standard_normal((2400, 4)).astype("f4")
        x[2:, 0] = 0
        with h5py.File(self.path("data.h5"), "w") as file:
            file.create_dataset("x", data=x)
            file.create_dataset("y", data=x[:, 1:2])
        model = [{"dense": {"units": 3, "activation": "tanh"}}, {"dense": {"units": 1}}]
        train = {"batch_size": 2, "epochs": 1, "shuffle": False}
        self.write_config(harness.regression_config(model=model, train=train, metrics=[]))
        for ranks in (0, 2):
            for way in ("rows", "owners", "leader"):
                with self.subTest(ranks=ranks, gradients=way):
                    self.train(ranks, way)
                    path = self.path("run/checkpoints/latest.weights.h5")
                    with h5py.File(path, "r") as file:
                        held = [np.array(values) for values in file["optimizer/vars"].values()]
                    moments = [values for values in held if values.shape == (4, 3)]
                    self.assertEqual(len(moments), 2)
                    first = np.abs(next(m for m in moments if np.any(m < 0)))
                    self.assertTrue(np.all(first[1:] > 1e-12))
                    self.assertLess(first[0].max(), 1.2e-37)  # ten times the least normal float
                    self.assertTrue(np.all((first == 0) | (first >= np.finfo("f4").tiny)))


if __name__ == "__main__":
    unittest.main()
