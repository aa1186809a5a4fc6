#!/usr/bin/env python3
"""Ranks change speed, never results: training to 1e-5 over 320 steps, the same number of ranks to
the bit, evaluation and prediction to the bit on any number."""

import os
import re
import shutil
import signal
import time
import unittest

import h5py
import numpy as np

import harness
from harness import class_config, class_rows, regression_config, regression_rows

EPOCHS = 40  # of 8 steps: 250 rows in batches of 32, the last of 26


# How ranks make gradients: only where they share memory can one choose.
WAYS = ("rows", "owners", "leader") if harness.DEVICE == "cpu" else ("auto",)


class RanksTest(harness.ProgramTest):
    def check_same_losses(self, config):
        for way in WAYS:
            with self.subTest(gradients=way):
                self.check_way(way, config)

    def check_way(self, way, config):
        config["device"] = {"kind": harness.DEVICE, "gradients": way}
        path = self.write_config(config)
        line = ["train", path, "--overwrite", "train.batch_size=32", f"train.epochs={EPOCHS}"]
        histories = {}
        for ranks in (0, 1, 2, 3, 4) if way == WAYS[0] else (0, 1, 2, 4):
            self.succeed(*line, f"run.folder=run-{ranks}", ranks=ranks)
            self.assertEqual(harness.read_log(self.path(f"run-{ranks}"))[-1]["step"], 8 * EPOCHS)
            histories[ranks] = harness.read_history(self.path(f"run-{ranks}"))
        for ranks, history in histories.items():
            for key in history:
                if key.endswith("loss"):
                    np.testing.assert_allclose(
                        history[key], histories[0][key], rtol=1e-5, err_msg=f"{key}, {ranks} ranks"
                    )
                elif key.endswith("accuracy"):
                    # A row whose two best classes are within rounding may count differently.
                    np.testing.assert_allclose(
                        history[key], histories[0][key], atol=1.5 / 250, err_msg=f"{key}, {ranks}"
                    )
        # A launcher with one rank is no different from none; nor is one that does all for others.
        for ranks in histories if way == "leader" else (1,):
            for key in histories[0]:
                if key.endswith("loss"):
                    np.testing.assert_array_equal(histories[ranks][key], histories[0][key])

    def test_regression_with_dropout(self):
        x, y = regression_rows(250)
        self.write_h5("data.h5", x=100 + 7 * x, y=0.01 * y)
        layers = [
            {"dense": {"units": 16, "activation": "tanh"}},
            {"dropout": {"rate": 0.2}},
            {"dense": {"units": 2}},
        ]
        data = {"scaling": {"features": "standardize", "targets": "standardize"}}
        self.check_same_losses(regression_config(model=layers, data=data))

    def test_classifier_with_random_validation(self):
        x, y = class_rows(312)
        self.write_h5("data.h5", x=x, y=y)
        data = {"validation": {"fraction": 0.2, "rows": "random"}}
        self.check_same_losses(class_config(data=data))

    def test_same_bytes_twice(self):
        x, y = regression_rows(250)
        self.write_h5("data.h5", x=x, y=y)
        path = self.write_config(regression_config())
        for ranks in (0, 2, 3):
            for folder in ("one", "two"):
                line = ["train", path, "--overwrite", f"run.folder={folder}"]
                self.succeed(*line, "device.gradients=rows", ranks=ranks)
            logs = [harness.read_log(self.path(f))[-1] for f in ("one", "two")]
            self.assertEqual(logs[0]["weights_hash"], logs[1]["weights_hash"])
            files = [harness.checkpoints(self.path(f))[-1] for f in ("one", "two")]
            self.compare_parameters(*files)

    def compare_parameters(self, one, two):
        with h5py.File(one) as a, h5py.File(two) as b:

            def visit(name, item):
                if isinstance(item, h5py.Dataset) and name.startswith(("layers", "optimizer")):
                    self.assertEqual(item[()].tobytes(), b[name][()].tobytes(), name)

            a.visititems(visit)

    def test_seed_changes_everything(self):
        x, y = regression_rows(250)
        self.write_h5("data.h5", x=x, y=y)
        path = self.write_config(regression_config())
        hashes = set()
        for seed in (1, 2):
            self.succeed("train", path, f"train.seed={seed}", f"run.folder=run-{seed}")
            hashes.add(harness.read_log(self.path(f"run-{seed}"))[-1]["weights_hash"])
        self.assertEqual(len(hashes), 2)


class MemoryTest(harness.ProgramTest):
    def train_on_small_memory(self, path, words):
        """Wherever it turns out that /dev/shm is full, each rank keeps what it needs, the result is
        the same, and one of the warnings says what is slower: each does, somewhere."""
        library = harness.build_library("small_memory", self.folder)
        self.succeed("train", path, "run.folder=whole", ranks=2)
        whole = harness.read_log(self.path("whole"))
        said = set()
        for looks in range(1, 20):  # of the program at /dev/shm, before it is full
            env = {"LD_PRELOAD": library, "SMALL_MEMORY_AFTER": str(looks)}
            done = self.succeed("train", path, "run.folder=apart", "--overwrite", ranks=2, env=env)
            apart = harness.read_log(self.path("apart"))
            for one, two in zip(whole, apart):
                if one["event"] == "epoch":
                    self.assertAlmostEqual(one["loss"] / two["loss"], 1, delta=1e-5)
            found = {word for word in words if re.search(word, done.err)}
            if not found:
                break
            said |= found
        self.assertEqual(said, set(words))


def has_own_products():
    """Whether this processor has what the program's own products need."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return {"avx2", "fma"} <= set(file.read().split())


@unittest.skipIf(harness.DEVICE != "cpu", "GPUs share no memory")
class OwnersTest(MemoryTest):
    """Gradients by owners, and what the node's memory has to do with it."""

    def owners_config(self, rows):
        """Gradients by owners: 100-400-3 has more weights than a batch of 32 has activations."""
        rng = np.random.default_rng(5)
        x = rng.standard_normal((rows, 100)).astype("f4")
        self.write_h5("data.h5", x=x, y=x[:, :3] * x[:, 3:6])
        layers = [
            {"dense": {"units": 400, "activation": "gelu"}},
            {"dropout": {"rate": 0.1}},
            {"dense": {"units": 3}},
        ]
        return regression_config(model=layers, train={"batch_size": 32, "epochs": 4})

    def test_gradients_by_owners(self):
        """Sums go over the rows of a batch in their order, whoever has them: the same bits on any
        number of ranks of a node, where products are the program's own. One rank sums blocks."""
        path = self.write_config(self.owners_config(250))
        out = self.succeed("train", path, "--dry-run", ranks=2).out
        self.assertIn("gradients by owners", out)
        logs = {}
        for ranks in (0, 2, 3, 4):
            self.succeed("train", path, f"run.folder=run-{ranks}", ranks=ranks)
            logs[ranks] = harness.read_log(self.path(f"run-{ranks}"))
        losses = {r: [e["loss"] for e in log if e["event"] == "epoch"] for r, log in logs.items()}
        np.testing.assert_allclose(losses[2], losses[0], rtol=1e-5)
        own = has_own_products()
        for ranks in (3, 4):
            # Losses of ranks are summed as pairs of floats: a rounding for each rank.
            rtol = ranks * 2.0**-24 if own else 1e-5
            np.testing.assert_allclose(losses[ranks], losses[2], rtol=rtol)
            if own:
                self.assertEqual(logs[ranks][-1]["weights_hash"], logs[2][-1]["weights_hash"])

    def test_wide_layers_by_columns(self):
        """More columns than rows of a batch, and weights beyond what a cache holds: ranks divide
        these products by columns, others by rows; the last batch is smaller. Few rows are the
        program's own, and give the same bits on any number of ranks; BLAS may add in another order,
        so then losses are near."""
        config = self.owners_config(250)
        config["model"] = [
            {"dense": {"units": 1400, "activation": "gelu"}},
            {"dropout": {"rate": 0.1}},
            {"dense": {"units": 107, "activation": "softmax"}},
            {"dense": {"units": 1301, "activation": "relu", "use_bias": False}},
            {"dense": {"units": 3}},
        ]
        for batch in (32, 64):
            config["train"]["batch_size"] = batch
            path = self.write_config(config)
            out = self.succeed("train", path, "--dry-run", ranks=2).out
            self.assertIn("gradients by owners", out)
            logs = {}
            for ranks in (0, 2, 3, 4):
                self.succeed("train", path, "--overwrite", ranks=ranks)
                logs[ranks] = harness.read_log(self.path("run"))
            losses = {r: [e["loss"] for e in log if e["event"] == "epoch"] for r, log in logs.items()}
            for ranks in (2, 3, 4):
                with self.subTest(batch=batch, ranks=ranks):
                    np.testing.assert_allclose(losses[ranks], losses[0], rtol=1e-5)
                    if batch == 32 and has_own_products():
                        hashes = [logs[r][-1]["weights_hash"] for r in (0, ranks)]
                        self.assertEqual(*hashes)

    def test_without_shared_memory(self):
        path = self.write_config(self.owners_config(250))
        words = ("room for [0-9.]+ KiB of data", "MPI_Allreduce", "makes gradients of its own rows")
        self.train_on_small_memory(path, words)

    def write_huge(self, size, target, units, **other):
        """One batch for one layer of weights 0, with inputs and targets of this size: a loss that
        is finite, and a gradient of 2 / (16 units) * size * target a row."""
        rows, columns = 16, 600
        self.write_h5("data.h5", x=np.full((rows, columns), size, "f4"),
                      y=np.full((rows, units), target, "f4"))
        layers = [{"dense": {"units": units, "kernel_initializer": "zeros"}}]
        return self.write_config(regression_config(model=layers, **other))

    def test_sum_that_overflows(self):
        """Losses and the rows' own gradients are finite, their sum is not: who owns it says so, and
        nothing is updated. Of few rows by large weights it is made before the update after all."""
        for units in (40, 300):
            path = self.write_huge(1e30, 1e15, units)
            for ranks in (0, 2, 3):
                with self.subTest(units=units, ranks=ranks):
                    dry = self.succeed("train", path, "--dry-run", ranks=ranks)
                    self.assertEqual("gradients by owners" in dry.out, ranks > 1 or units == 300)
                    line = ["train", path, "--overwrite"]
                    self.fail_with(6, "gradient is not finite at step 1", *line, ranks=ranks)

    def test_sum_that_might_overflow(self):
        """Inputs and gradients of outputs so large that their sum may overflow, but doesn't: made
        before the update then, and the same as where gradients are always made so."""
        sgd = {"name": "sgd", "learning_rate": 1e-30}
        for size, target in ((1e35, 1e5), (1e-3, 1e5)):
            path = self.write_huge(size, target, 300, optimizer=sgd, train={"epochs": 1})
            hashes = set()
            for ranks, way in ((0, "rows"), (0, "auto"), (2, "auto"), (3, "owners")):
                line = ["train", path, "--overwrite", f"device.gradients={way}"]
                self.succeed(*line, ranks=ranks)
                hashes.add(harness.read_log(self.path("run"))[-1]["weights_hash"])
            self.assertEqual(len(hashes), 1 if has_own_products() else len(hashes))

    def test_blas_of_several_threads(self):
        """It makes few rows' products itself; the losses are those of one thread."""
        config = self.owners_config(250)
        config["model"] = [{"dense": {"units": 1400, "activation": "relu"}}, {"dense": {"units": 3}}]
        path = self.write_config(config)
        losses = []
        for threads in (1, 2):
            for ranks in (0, 2):
                line = ["train", path, "--overwrite", f"device.threads={threads}"]
                self.succeed(*line, ranks=ranks)
                log = harness.read_log(self.path("run"))
                losses.append([event["loss"] for event in log if event["event"] == "epoch"])
        for others in losses[1:]:
            np.testing.assert_allclose(others, losses[0], rtol=1e-5)


@unittest.skipIf(harness.DEVICE != "cpu", "GPUs share no memory")
class LeaderTest(MemoryTest):
    """Steps that one rank does for all."""

    def write_rows(self, rows):
        x, y = regression_rows(rows)
        self.write_h5("data.h5", x=x, y=y)

    def test_who_leads(self):
        """Small steps, on several ranks."""
        self.write_rows(250)
        path = self.write_config(regression_config())
        dry = ["train", path, "--dry-run"]
        self.assertIn("16 rows: all on rank 1", self.succeed(*dry, ranks=2).out)
        self.assertIn("16 rows: all on rank 2", self.succeed(*dry, ranks=3).out)
        self.assertIn("16 rows: 8 a rank", self.succeed(*dry, "device.gradients=rows", ranks=2).out)
        alone = self.succeed(*dry, "device.gradients=leader").out
        self.assertIn("16 rows: 16 a rank", alone)
        self.write_rows(3000)
        large = [*dry, "train.batch_size=25000"]
        self.assertIn("Batch        all 3000 rows: 1500 a rank", self.succeed(*large, ranks=2).out)

    def test_without_shared_memory(self):
        self.write_rows(250)
        words = ("room for [0-9.]+ KiB of data", "MPI_Allreduce", "wait for each other in every")
        self.train_on_small_memory(self.write_config(regression_config()), words)

    def test_many_epochs(self):
        """Followers validate, and rank 0 saves, what the leader goes on from: short epochs, each
        with all of that, give the bits of one rank."""
        self.write_rows(64)
        data = {"validation": {"fraction": 0.5}}
        saving = {"every_steps": 1}
        path = self.write_config(regression_config(data=data, checkpoint=saving))
        logs = {}
        for ranks in (0, 2, 4):
            line = ["train", path, "--overwrite", "train.epochs=50", "run.compare_every=1"]
            self.succeed(*line, ranks=ranks)
            logs[ranks] = [
                (event["loss"], event["val_loss"])
                for event in harness.read_log(self.path("run"))
                if event["event"] == "epoch"
            ]
            self.assertEqual(logs[ranks], logs[0], f"{ranks} ranks")

    def test_a_follower_that_stands_still(self):
        """The leader goes on for as many steps as it can keep on record, and loses none."""
        self.write_rows(40000)
        train = {"batch_size": 1, "epochs": 12}
        run = {"folder": "run", "compare_every": 0}  # which would wait for all
        path = self.write_config(regression_config(train=train, run=run))
        losses = {}
        for ranks in (2, 0):
            running = self.start("train", path, "--overwrite", ranks=ranks)
            if ranks > 0:
                running.until(lambda: len(harness.read_log(self.path("run"))) > 1, "an epoch")
                for _ in range(3):
                    running.signal_rank(0, signal.SIGSTOP)
                    time.sleep(0.3)
                    running.signal_rank(0, signal.SIGCONT)
                    time.sleep(0.1)
            self.assertEqual(running.wait(), 0, running.text())
            log = harness.read_log(self.path("run"))
            losses[ranks] = [event["loss"] for event in log if event["event"] == "epoch"]
        self.assertEqual(losses[2], losses[0])

    def test_saved_once_when_it_is_time(self):
        """Rank 0 asks until it hears of it, the leader being further: that is one checkpoint."""
        self.write_rows(40000)
        saving = {"every_epochs": 0, "every_seconds": 0.2, "keep": 0}
        train = {"batch_size": 1, "epochs": 1000000, "max_time": 3}
        path = self.write_config(regression_config(train=train, checkpoint=saving))
        self.assertEqual(self.run_program("train", path, ranks=2).code, 75)
        names = [os.path.basename(path) for path in harness.checkpoints(self.path("run"))]
        steps = [int(re.search(r"[0-9]+", name)[0]) for name in names]
        self.assertGreater(len(steps), 5)
        # The last two may be close: max_time can pass while one is written.
        self.assertGreater(min(b - a for a, b in zip(steps, steps[1:-1])), 8, steps)

    def test_stopped_and_resumed_another_way(self):
        """All ranks save the same step, whichever of them was asked; going on is exact, and on one
        rank, or by rows, the same but for rounding."""
        self.write_rows(4000)
        config = self.write_config(regression_config(train={"batch_size": 16}))
        epochs = f"train.epochs={self.stop_in_the_middle(config, ranks=3) // 250 + 2}"
        for ranks, way in ((2, "auto"), (3, "rows")):
            shutil.rmtree(self.path("again"), ignore_errors=True)
            shutil.copytree(self.path("run"), self.path("again"))
            line = ["train", config, epochs, f"device.gradients={way}", "run.folder=again"]
            self.succeed(*line, ranks=ranks)
            self.succeed("train", config, epochs, "run.folder=whole", "--overwrite")
            ends = [harness.read_log(self.path(run))[-1] for run in ("again", "whole")]
            self.assertEqual(ends[0]["step"], ends[1]["step"])
            if way == "auto":
                self.assertEqual(ends[0]["weights_hash"], ends[1]["weights_hash"])
            histories = [harness.read_history(self.path(run)) for run in ("again", "whole")]
            losses = [history["loss"][-1] for history in histories]
            np.testing.assert_allclose(*losses, rtol=1e-5)

    def test_not_finite(self):
        """The step that is named, the checkpoint before it and its bits are those of one rank."""
        self.write_rows(250)
        optimizer = {"name": "sgd", "learning_rate": 1e6}
        saving = {"every_steps": 1, "keep": 0}
        path = self.write_config(regression_config(optimizer=optimizer, checkpoint=saving))
        ends = []
        for ranks in (0, 2, 3):
            line = ["train", path, "--overwrite"]
            self.fail_with(6, "not finite at step", *line, ranks=ranks)
            ends.append(harness.read_log(self.path("run"))[-1])
            self.assertEqual(ends[-1]["reason"], "error")
            self.assertEqual(ends[-1]["step"], ends[0]["step"])
            newest = harness.checkpoints(self.path("run"))[-1]
            self.assertEqual(len(harness.checkpoints(self.path("run"))), ends[0]["step"])
            layers = harness.read_layers(newest)
            first = layers if ranks == 0 else first
            for name, values in layers.items():
                np.testing.assert_array_equal(values, first[name], err_msg=name)


class EvaluationTest(harness.ProgramTest):
    """One checkpoint on 1 to 8 ranks gives the same words and the same bits."""

    RANKS = (0, 1, 2, 3, 4, 5, 6, 7, 8)

    def check(self, config, rows):
        path = self.write_config(config)
        self.succeed("train", path, "train.epochs=2", ranks=2)
        outputs = {}
        for ranks in self.RANKS:
            out = self.succeed("evaluate", "run", "--data", "test", ranks=ranks).out
            # The line that says how many ranks there are is the only one that may differ.
            lines = [line for line in out.splitlines() if not re.search(r"\branks?\b", line)]
            outputs[ranks] = "\n".join(lines)
            self.assertEqual(outputs[ranks], outputs[0], f"{ranks} ranks")
        self.assertRegex(outputs[0], r"\bloss\b")
        self.assertRegex(outputs[0], rf"\b{rows}\b|{rows:,}")
        return outputs[0]

    def test_classifier(self):
        x, y = class_rows(1007)
        self.write_h5("data.h5", x=x, y=y)
        table = {"file": "data.h5", "features": "x", "targets": "y"}
        out = self.check(class_config(data={"test": table}), 1007)
        self.assertRegex(out, r"\baccuracy\b")

    def test_regression_in_raw_units(self):
        x, y = regression_rows(531)
        self.write_h5("data.h5", x=x, y=1000 + 50 * y)
        table = {"file": "data.h5", "features": "x", "targets": "y"}
        scaling = {"features": "standardize", "targets": "standardize"}
        out = self.check(regression_config(data={"test": table, "scaling": scaling}), 531)
        for word in ("mae", "rmse", "r2"):
            self.assertRegex(out, rf"\b{word}\b")

    def test_sets(self):
        """train and validation can be named; test is the default where there is one."""
        x, y = class_rows(120)
        self.write_h5("data.h5", x=x, y=y, xt=x[:30], yt=y[:30])
        table = {"file": "data.h5", "features": "xt", "targets": "yt"}
        config = self.write_config(class_config(data={"validation": 0.25, "test": table}))
        self.succeed("train", config)
        rows = {"train": 90, "validation": 30, "test": 30}
        outs = {}
        for name, count in rows.items():
            outs[name] = self.succeed("evaluate", "run", "--data", name).out
            self.assertRegex(outs[name], rf"\b{count}\b", name)
        self.assertEqual(self.succeed("evaluate", "run").out, outs["test"])
        # The loss of the validation set is the one that training wrote of the best epoch.
        history = harness.read_history(self.path("run"))
        loss = float(re.search(r"\bloss\W+([0-9.e+-]+)", outs["validation"])[1])
        self.assertAlmostEqual(loss, min(history["val_loss"]), delta=5e-5)


if __name__ == "__main__":
    unittest.main()
