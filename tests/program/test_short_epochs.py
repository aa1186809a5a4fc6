#!/usr/bin/env python3
"""Epochs that are shorter than a checkpoint's writing: they do not wait for it, and nothing that a
run hands over is another for that."""

import os
import shutil
import signal
import unittest

import h5py
import numpy as np

import harness

WAITED_FOR = 16  # LKS_SAVES_WAITED_FOR
EPOCHS = 45  # the loss is least after 30 of them


def contents(path):
    """What a checkpoint says but for times and texts: numbers of progress, arrays, history."""
    found = {}

    def visit(name, item):
        parts = [*name.split("/"), ""]
        kept = parts[0] in ("layers", "optimizer") or (
            parts[0] == "lockstep" and parts[1] in ("progress", "best", "history")
        )
        if isinstance(item, h5py.Dataset) and kept and not name.endswith("seconds"):
            found[name] = np.nan_to_num(np.asarray(item[()], dtype=float), nan=-1.0).tolist()

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


class ShortEpochsTest(harness.ProgramTest):
    """A line is fitted to four rows: an epoch is one step of some microseconds. The error of the
    first weight falls all the time, and so does val_loss, which is of that alone. The error of the
    second is 1e-30 at first and grows tenfold in each step: from about epoch 30 on the loss is of
    that, and 20 epochs later it is beyond floats."""

    def setUp(self):
        super().setUp()
        steep = np.sqrt(1100.0).astype("f4")
        x = np.array([[1, 0], [-1, 0], [0, steep], [0, -steep]], dtype="f4")
        y = np.array([[1], [-1], [1e-30], [-1e-30]], dtype="f4")
        self.write_h5("data.h5", x=x, y=y, x_val=x[:2], y_val=y[:2])
        self.config = self.write_config(
            {
                "data": {
                    "train": {"file": "data.h5", "features": "x", "targets": "y"},
                    "validation": {"file": "data.h5", "features": "x_val", "targets": "y_val"},
                },
                "model": [{"dense": {"units": 1, "kernel_initializer": "zeros"}}],
                "loss": "mean_squared_error",
                "optimizer": {"name": "sgd", "learning_rate": 0.01},
                "train": {"batch_size": 4, "epochs": EPOCHS},
                "checkpoint": {"best": "loss"},
                "early_stopping": {"monitor": "val_loss", "patience": 1000},
                "run": {"folder": "run", "progress": "none"},
            }
        )

    def train(self, run, *more, ranks=0):
        line = ("train", self.config, f"run.folder={run}", "--overwrite", *more)
        return self.run_program(*line, ranks=ranks)

    def assert_same(self, run, other, *parts):
        one, two = contents(self.path(run, *parts)), contents(self.path(other, *parts))
        self.assertIn("lockstep/best/0", one)
        self.assertIn("lockstep/history/loss", one)
        self.assertEqual(one, two)

    def assert_same_runs(self, run, other):
        """A run with `keep: 0` waits for each checkpoint: it is what the other is held to."""
        self.assert_same(run, other, "checkpoints", "best.weights.h5")
        self.assert_same(run, other, "checkpoints", "latest.weights.h5")
        self.assert_same(run, other, "model.weights.h5")
        self.assertEqual(harness.leftovers(self.path(run)), [])

    def best_epoch(self, run):
        path = self.path(run, "checkpoints", "best.weights.h5")
        found = contents(path)
        self.assertEqual(found["lockstep/progress/epoch"], found["lockstep/progress/best_epoch"])
        return found["lockstep/progress/epoch"]

    def test_result(self):
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                self.assertEqual(self.train("short", ranks=ranks).code, 0)
                self.assertEqual(self.train("kept", "checkpoint.keep=0", ranks=ranks).code, 0)
                self.assert_same_runs("short", "kept")
                self.assertGreater(self.best_epoch("short"), WAITED_FOR)
                self.assertLess(self.best_epoch("short"), EPOCHS)

    def test_epochs_do_not_wait(self):
        """Keeping more than there are keeps all that were written."""
        self.assertEqual(self.train("short", "checkpoint.keep=1000").code, 0)
        self.assertEqual(self.train("kept", "checkpoint.keep=0").code, 0)
        written = harness.checkpoints(self.path("short"))
        self.assertEqual(len(harness.checkpoints(self.path("kept"))), EPOCHS)
        self.assertLess(len(written), EPOCHS)
        steps = [contents(path)["lockstep/progress/step"] for path in written]
        self.assertEqual(steps[:WAITED_FOR], list(range(1, WAITED_FOR + 1)))
        self.assertEqual(steps[-1], EPOCHS)

    def test_failure(self):
        """The best that was held is written when the run ends by an error, and what was trained
        before it."""
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                short = self.train("short", "train.epochs=1000", ranks=ranks)
                kept = self.train("kept", "train.epochs=1000", "checkpoint.keep=0", ranks=ranks)
                self.assertEqual((short.code, kept.code), (6, 6), f"{short}\n{kept}")
                self.assert_same("short", "kept", "checkpoints", "best.weights.h5")
                self.assert_same("short", "kept", "checkpoints", "latest.weights.h5")
                loss, other = (harness.read_history(self.path(r))["loss"] for r in ("short", "kept"))
                self.assertEqual(loss.tolist(), other.tolist())

    def test_failure_without_a_file_for_each_epoch(self):
        short = self.train("short", "train.epochs=1000", "checkpoint.every_epochs=0")
        kept = self.train("kept", "train.epochs=1000", "checkpoint.keep=0")
        self.assertEqual((short.code, kept.code), (6, 6), f"{short}\n{kept}")
        self.assert_same("short", "kept", "checkpoints", "best.weights.h5")

    def test_failed_validation(self):
        """Its table is read anew in each epoch, and is cut off in the middle of the run: the epochs
        before it are saved, be each the best of all or none but the first."""
        x = np.tile(np.array([[1, 0], [-1, 0]], dtype="f4"), (10000, 1))
        self.write_h5("whole.h5", x=x, y=x[:, :1])
        names = "data.validation={file: long.h5, features: x, targets: y}"
        more = (names, "data.memory_per_node=64K", "train.epochs=1000000", "--overwrite")
        for ranks, rate in ((0, "1e-5"), (0, "1e-30"), (2, "1e-5"), (2, "1e-30")):
            with self.subTest(ranks=ranks, rate=rate):
                shutil.copy(self.path("whole.h5"), self.path("long.h5"))
                line = ("train", self.config, f"optimizer.learning_rate={rate}", *more)
                running = self.start(*line, ranks=ranks)
                log = self.path("run")
                running.until(lambda: len(harness.read_log(log)) > 100, "100 epochs")
                os.truncate(self.path("long.h5"), 30000)
                self.assertEqual(running.wait(), 3, running.text())
                self.assertEqual(harness.read_log(log)[-1]["reason"], "error")
                done = [e["epoch"] for e in harness.read_log(log) if e["event"] == "epoch"]
                latest = contents(self.path("run", "checkpoints", "latest.weights.h5"))
                self.assertEqual(latest["lockstep/progress/epoch"], done[-1])

    def test_stopped_and_continued(self):
        """Where it stops is a matter of time; where it has come to then is not."""
        slow = "optimizer.learning_rate=1e-5"  # a loss that falls for ever
        running = self.start("train", self.config, slow, "train.epochs=1000000")
        running.until(lambda: len(harness.read_log(self.path("run"))) > 200, "200 epochs")
        running.signal_rank(0, signal.SIGTERM)
        self.assertEqual(running.wait(), 75, running.text())
        latest = self.path("run", "checkpoints", "latest.weights.h5")
        stopped = contents(latest)["lockstep/progress/epoch"]
        self.assertEqual(self.best_epoch("run"), stopped)
        epochs = f"train.epochs={int(stopped) + 50}"
        self.succeed("train", self.config, slow, epochs)
        self.assertEqual(self.train("whole", slow, epochs).code, 0)
        self.assert_same_runs("run", "whole")


if __name__ == "__main__":
    unittest.main()
