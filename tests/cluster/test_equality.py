#!/usr/bin/env python3
"""Ranks change speed, never results, however they lie on nodes; and each sample counts once an
epoch though the number of ranks changes within it."""

import os
import signal
import unittest

import numpy as np

import cluster
import slurm
from cluster import harness
from harness import regression_config, regression_rows

# 320 steps of 32 rows, the last of each epoch of 26: no share divides evenly.
ROWS, BATCH, EPOCHS = 250, 32, 40


class PlacesTest(slurm.SlurmTest):
    """One configuration on several placements of ranks."""

    def train(self, hosts):
        folder = f"run.folder={hosts or 'alone'}"
        if hosts is None:
            self.succeed("train", "config.yaml", folder)
        else:
            launched = self.mpirun("train", "config.yaml", folder, hosts=hosts)
            self.assertEqual(launched.wait(60), 0, launched.text())
        return hosts or "alone"

    def weights(self, run):
        return harness.read_layers(self.path(run, "model.weights.h5"))

    def end(self, run):
        return harness.read_log(self.path(run))[-1]["weights_hash"]

    def setUp(self):
        super().setUp()
        x, y = regression_rows(ROWS)
        self.write_h5("data.h5", x=x, y=y)
        changes = {"train": {"batch_size": BATCH, "epochs": EPOCHS}, "data": {"validation": 0.1}}
        # Ranks of one node would do so small a step whole: here the exchange is looked at.
        changes["device"] = {"kind": harness.DEVICE, "gradients": "rows"}
        self.write_config(regression_config(**changes))

    def test_places(self):
        # A node's sums are added in node order: where only the first has several ranks, that is
        # rank order, as on one node, and so the same bits.
        same = (("n1:2", "n1:1,n2:1"), ("n1:3", "n1:2,n2:1"), ("n1:4", "n1:3,n2:1"))
        for one, two in same:
            self.assertEqual(self.end(self.train(one)), self.end(self.train(two)), two)
        alone = self.train(None)
        others = [name for pair in same for name in pair] + [self.train("n1:2,n2:2")]
        expected = harness.read_history(self.path(alone))
        for other in others:
            history = harness.read_history(self.path(other))
            for key in (name for name in expected if name.endswith("loss")):
                np.testing.assert_allclose(history[key], expected[key], rtol=1e-5, err_msg=other)
            for name, values in self.weights(alone).items():
                # float32's rounding, through 320 steps of a network that is no chaos.
                np.testing.assert_allclose(
                    self.weights(other)[name], values, atol=1e-4, err_msg=f"{other}: {name}"
                )
        # Who starts the ranks changes nothing.
        launched = self.srun("train", "config.yaml", "run.folder=srun")
        self.assertEqual(launched.wait(60), 0, launched.text())
        self.assertEqual(self.end("srun"), self.end("n1:2,n2:2"))

    def test_evaluate(self):
        """One checkpoint has one loss, wherever it is evaluated."""
        self.train("n1:2,n2:2")
        words = set()
        for hosts in ("n1:4", "n1:2,n2:2", "n1:1,n2:2", "n1:4,n2:4"):
            launched = self.mpirun("evaluate", "n1:2,n2:2", hosts=hosts)
            self.assertEqual(launched.wait(60), 0, launched.text())
            lines = launched.text().splitlines()
            words.add("\n".join(line for line in lines if "rank" not in line))
        self.assertEqual(len(words), 1, words)


class OtherSizeTest(cluster.ClusterTest):
    """4 ranks, then 3, then 8 finish one epoch together."""

    SIZES = (("n1:2,n2:2", 4), ("n1:2,n2:1", 3), ("n1:4,n2:4", 8))

    def train_in_parts(self):
        """Stops the run twice within its epoch, and has each number of ranks go on."""
        steps = [0]
        for hosts, ranks in self.SIZES:
            launched = self.mpirun("train", "config.yaml", "checkpoint.every_steps=40", hosts=hosts)
            if ranks != 8:
                self.stop_within(launched, ranks)
            self.assertEqual(launched.wait(60), 0 if ranks == 8 else 75, launched.text())
            self.assertIn(f"{ranks} on 2 nodes", launched.text())
            steps.append(harness.read_log(self.path("run"))[-1]["step"])
        self.assertEqual(steps, sorted(set(steps)), "each took part in the epoch")
        return steps[-1]

    def stop_within(self, launched, ranks):
        newest = harness.checkpoints(self.path("run"))[-1:]
        launched.until(lambda: harness.checkpoints(self.path("run"))[-1:] != newest, "a checkpoint")
        number = ranks - 1  # any rank will do: here the last
        os.kill(self.cluster.ranks()[number][1], signal.SIGUSR1)

    def test_each_sample_once(self):
        """The kernel is a record of which samples were used. Sample i has feature i alone, so it
        alone moves row i: by half of what is left to its targets, with this learning rate. All of
        it is exact in float32, for the factors are powers of two."""
        rows, outputs, batch = 2048, 256, 8
        rng = np.random.default_rng(5)
        y = rng.normal(size=(rows, outputs)).astype("f4")
        self.write_h5("data.h5", x=np.eye(rows, dtype="f4"), y=y)
        rate = outputs * batch / 4  # the gradient of the mean square is 2 / (outputs batch) of it
        layer = {"units": outputs, "use_bias": False, "kernel_initializer": "zeros"}
        config = regression_config(
            model=[{"dense": layer}],
            optimizer={"name": "sgd", "learning_rate": rate},
            train={"batch_size": batch, "epochs": 1},
        )
        self.write_config(config)
        self.assertEqual(self.train_in_parts(), rows // batch)
        kernel = harness.read_layers(self.path("run", "model.weights.h5"))["dense/vars/0"]
        unused = np.flatnonzero(~kernel.any(axis=1))
        self.assertEqual(unused.size, 0, f"samples left out: {unused[:10]}")
        repeated = np.flatnonzero((kernel != y / 2).any(axis=1))
        self.assertEqual(repeated.size, 0, f"samples used more than once: {repeated[:10]}")

    def test_same_result(self):
        x, y = regression_rows(20000, inputs=64)
        self.write_h5("data.h5", x=x, y=y)
        model = [{"dense": {"units": 256, "activation": "tanh"}}, {"dense": {"units": 2}}]
        self.write_config(regression_config(model=model, train={"batch_size": 16, "epochs": 1}))
        self.succeed("train", "config.yaml", "run.folder=alone")
        self.assertEqual(self.train_in_parts(), 20000 // 16)
        one, two = (harness.read_history(self.path(run)) for run in ("alone", "run"))
        np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-5)
        one, two = (harness.read_layers(self.path(r, "model.weights.h5")) for r in ("alone", "run"))
        for name, values in one.items():
            self.assertLess(np.abs(two[name] - values).max(), 1e-3 * np.abs(values).max(), name)


if __name__ == "__main__":
    unittest.main()
