#!/usr/bin/env python3
"""Epochs that are shorter than a checkpoint's writing: they do not wait for it, and nothing that a
run hands over is another for that."""

import itertools
import signal
import unittest

import h5py
import numpy as np

import harness

WAITED_FOR = 16  # LKS_SAVES_WAITED_FOR
EPOCHS = 200


def progress(path):
    with h5py.File(path) as file:
        stored = {name: value[()] for name, value in file["lockstep/progress"].items()}
        rows = file["lockstep/history/loss"].shape[0]
    return {"rows": rows, **{name: stored[name] for name in ("step", "epoch", "best_epoch")}}


class ShortEpochsTest(harness.ProgramTest):
    """A line is fitted to four rows: an epoch is one step of some microseconds. The loss falls
    until about epoch 50. Then the error of the second weight, 1e-6 at first, which a step makes
    1.2 times as large, is what the loss consists of, and after 250 epochs it is beyond floats."""

    def setUp(self):
        super().setUp()
        x = np.array(list(itertools.product((-1.0, 1.0), repeat=2)), dtype=np.float32)
        x *= np.array([1.0, np.sqrt(110.0)], dtype=np.float32)
        self.write_h5("data.h5", x=x, y=x @ np.array([[1.0], [1e-6]], dtype=np.float32))
        self.config = self.write_config(
            {
                "data": {"train": {"file": "data.h5", "features": "x", "targets": "y"}},
                "model": [{"dense": {"units": 1, "kernel_initializer": "zeros"}}],
                "loss": "mean_squared_error",
                "optimizer": {"name": "sgd", "learning_rate": 0.01},
                "train": {"batch_size": 4, "epochs": EPOCHS},
                "run": {"folder": "run", "progress": "none"},
            }
        )

    def train(self, run, *more, ranks=0):
        return self.run_program("train", self.config, f"run.folder={run}", *more, ranks=ranks)

    def weights(self, path):
        return {name: value.tolist() for name, value in harness.read_layers(path).items()}

    def assert_same(self, run, other, *parts):
        one, two = self.path(run, *parts), self.path(other, *parts)
        self.assertEqual(progress(one), progress(two))
        self.assertEqual(self.weights(one), self.weights(two))

    def assert_same_runs(self, run, other):
        """A run with `keep: 0` waits for each checkpoint: it is what the other is held to."""
        self.assert_same(run, other, "checkpoints", "best.weights.h5")
        self.assert_same(run, other, "checkpoints", "latest.weights.h5")
        self.assert_same(run, other, "model.weights.h5")
        self.assertEqual(harness.leftovers(self.path(run)), [])

    def test_result(self):
        stops = ("early_stopping.monitor=loss", "early_stopping.patience=100")
        for ranks, more in itertools.product((0, 2), ((), stops)):
            with self.subTest(ranks=ranks, more=more):
                self.assertEqual(self.train("short", "--overwrite", *more, ranks=ranks).code, 0)
                kept = self.train("kept", "--overwrite", "checkpoint.keep=0", *more, ranks=ranks)
                self.assertEqual(kept.code, 0)
                self.assert_same_runs("short", "kept")

    def test_epochs_do_not_wait(self):
        """Keeping more than there are keeps all that were written."""
        self.assertEqual(self.train("short", "checkpoint.keep=1000").code, 0)
        self.assertEqual(self.train("kept", "checkpoint.keep=0").code, 0)
        written = harness.checkpoints(self.path("short"))
        self.assertEqual(len(harness.checkpoints(self.path("kept"))), EPOCHS)
        self.assertLess(len(written), EPOCHS)
        steps = [progress(path)["step"] for path in written]
        self.assertEqual(steps[:WAITED_FOR], list(range(1, WAITED_FOR + 1)))
        self.assertEqual(steps[-1], EPOCHS)

    def test_failure(self):
        """The best that was held is written when the run ends by an error."""
        more = ("train.epochs=1000", "early_stopping.monitor=loss", "early_stopping.patience=500")
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                short = self.train("short", "--overwrite", *more, ranks=ranks)
                kept = self.train("kept", "--overwrite", "checkpoint.keep=0", *more, ranks=ranks)
                self.assertEqual((short.code, kept.code), (6, 6), f"{short}\n{kept}")
                self.assert_same("short", "kept", "checkpoints", "best.weights.h5")

    def test_stopped_and_continued(self):
        """Where it stops is a matter of time; where it has come to then is not."""
        slow = "optimizer.learning_rate=1e-5"  # a loss that falls for ever
        running = self.start("train", self.config, slow, "train.epochs=1000000")
        running.until(lambda: len(harness.read_log(self.path("run"))) > 200, "200 epochs")
        running.signal_rank(0, signal.SIGTERM)
        self.assertEqual(running.wait(), 75, running.text())
        stopped = progress(self.path("run", "checkpoints", "latest.weights.h5"))
        self.assertEqual(stopped["best_epoch"], stopped["epoch"])
        best = progress(self.path("run", "checkpoints", "best.weights.h5"))
        self.assertEqual(best["best_epoch"], stopped["best_epoch"])
        epochs = f"train.epochs={stopped['epoch'] + 50}"
        self.assertEqual(self.train("run", slow, epochs).code, 0)
        self.assertEqual(self.train("whole", slow, epochs).code, 0)
        self.assert_same_runs("run", "whole")


if __name__ == "__main__":
    unittest.main()
