#!/usr/bin/env python3
"""Training on a device that is some steps behind: the same numbers to the bit, the same
checkpoints, stops and errors as on the CPU, whose kernels it uses (late_module.c)."""

import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "program"))

import h5py
import numpy as np

import harness
from harness import class_config, class_rows, regression_config, regression_rows

TIMES = {"seconds", "step_us", "samples_per_s"}

# Of a checkpoint: state and progress, but not how long it took.
COMPARED = ("layers", "optimizer", "lockstep/progress", "lockstep/sums")
TIME = "lockstep/progress/epoch_seconds"

# Both make gradients by rows: then they compute alike, to the bit.
ON = {"cpu": ("device=cpu", "device.gradients=rows"), "gpu": ("device=gpu",)}


class LateTest(harness.ProgramTest):
    def train_both(self, config, *line, ranks=0, code=0, env=None):
        """The same run on the CPU and on the late device; results by device."""
        path = self.write_config(config)
        results = {}
        for device in ("cpu", "gpu"):
            arguments = ["train", path, *ON[device], f"run.folder={device}", *line]
            results[device] = self.run_program(*arguments, ranks=ranks, env=env)
            self.assertEqual(results[device].code, code, str(results[device]))
            self.assertEqual(set(results[device].codes), {code}, str(results[device]))
        return results

    def compare(self):
        """History, log and every checkpoint of both runs."""
        cpu, gpu = (harness.read_history(self.path(device)) for device in ("cpu", "gpu"))
        self.assertEqual(set(cpu), set(gpu))
        for key in set(cpu) - TIMES:
            np.testing.assert_array_equal(cpu[key], gpu[key], err_msg=key)
        ends = [harness.read_log(self.path(device))[-1] for device in ("cpu", "gpu")]
        for key in ("reason", "step", "weights_hash"):
            self.assertEqual(ends[0][key], ends[1][key], key)
        files = [harness.checkpoints(self.path(device)) for device in ("cpu", "gpu")]
        self.assertEqual(*([os.path.basename(f) for f in some] for some in files))
        for one, two in zip(*files):
            self.compare_checkpoints(one, two)

    def compare_checkpoints(self, one, two):
        with h5py.File(one) as a, h5py.File(two) as b:

            def visit(name, item):
                if isinstance(item, h5py.Dataset) and name.startswith(COMPARED) and name != TIME:
                    self.assertEqual(item[()].tobytes(), b[name][()].tobytes(), name)

            a.visititems(visit)

    def write_rows(self, rows=250):
        x, y = regression_rows(rows)
        self.write_h5("data.h5", x=x, y=y)


class SameTest(LateTest):
    MODEL = [
        {"dense": {"units": 16, "activation": "relu"}},
        {"dropout": {"rate": 0.2}},
        {"dense": {"units": 2}},
    ]

    def test_history_and_checkpoints(self):
        """25 steps an epoch; saved within epochs, at their ends, and where both coincide."""
        self.write_rows()
        config = regression_config(
            model=self.MODEL, data={"validation": 0.2}, train={"batch_size": 8, "epochs": 4}
        )
        for ranks in (0, 2, 3):
            line = ("checkpoint.every_steps=5", "checkpoint.keep=0", "run.compare_every=7")
            self.train_both(config, "--overwrite", *line, ranks=ranks)
            self.compare()
            self.assertEqual(len(harness.checkpoints(self.path("gpu"))), 20)

    def test_whoever_adopts_the_table(self):
        self.write_rows()
        config = regression_config(model=self.MODEL)
        for who in ("none", "even", "all"):
            self.train_both(config, "--overwrite", ranks=3, env={"LATE_ADOPT": who})
            self.compare()

    def test_fewer_steps_than_the_lag(self):
        """An epoch of one step; and more ranks than rows in the last batch."""
        self.write_rows(33)
        for batch in (64, 16):
            config = regression_config(model=self.MODEL, train={"batch_size": batch, "epochs": 5})
            self.train_both(config, "--overwrite", ranks=3)
            self.compare()

    def test_without_shuffling(self):
        self.write_rows()
        self.train_both(regression_config(train={"shuffle": False}), ranks=2)
        self.compare()

    def test_streamed(self):
        """Windows little larger than a batch: the lag spans several of them."""
        rows = 2000
        x, y = regression_rows(rows)
        with h5py.File(self.path("data.h5"), "w") as f:
            f.create_dataset("x", data=x, chunks=(20, x.shape[1]))
            f.create_dataset("y", data=y, chunks=(20, y.shape[1]))
        config = regression_config(
            data={"order": "windows", "window": 20, "memory_per_node": "20K"}, model=self.MODEL
        )
        results = self.train_both(config, ranks=2)
        self.assertIn("streamed", results["gpu"].out)
        self.compare()

    def test_early_stopping(self):
        x, y = class_rows(200)
        self.write_h5("data.h5", x=x, y=y)
        config = class_config(
            data={"validation": 0.3},
            optimizer={"name": "adam", "learning_rate": 0.05},
            train={"epochs": 200},
            early_stopping={"monitor": "val_loss", "patience": 2},
        )
        self.train_both(config, ranks=2)
        self.compare()
        self.assertEqual(harness.read_log(self.path("gpu"))[-1]["reason"], "early_stopping")
        layers = [harness.read_layers(self.path(d, "model.weights.h5")) for d in ("cpu", "gpu")]
        for name in layers[0]:
            np.testing.assert_array_equal(layers[0][name], layers[1][name], err_msg=name)

    def test_evaluate_and_predict(self):
        self.write_rows()
        config = self.write_config(regression_config(device="gpu"))
        self.succeed("train", config, ranks=2)
        outs = [
            self.succeed("evaluate", "run", "--data", "train", f"device={d}", ranks=2).out
            for d in ("cpu", "gpu")
        ]
        self.assertEqual(outs[0], outs[1])
        for device in ("cpu", "gpu"):
            line = ["predict", "run", "--in", "data.h5", "--out", f"{device}.h5"]
            self.succeed(*line, f"device={device}", ranks=2)
        with h5py.File(self.path("cpu.h5")) as a, h5py.File(self.path("gpu.h5")) as b:
            np.testing.assert_array_equal(a["predictions"], b["predictions"])

    def test_resumed_on_the_other_device(self):
        """Devices may change when a run resumes; these two compute alike."""
        self.write_rows()
        config = self.write_config(regression_config(train={"epochs": 4}))
        self.succeed("train", config, *ON["cpu"], "run.folder=whole", ranks=2)
        for epochs, device in enumerate(("cpu", "gpu", "cpu", "gpu"), 1):
            self.succeed("train", config, f"train.epochs={epochs}", *ON[device], ranks=2)
        ends = [harness.read_log(self.path(run))[-1] for run in ("run", "whole")]
        self.assertEqual(ends[0]["weights_hash"], ends[1]["weights_hash"])


class FailureTest(LateTest):
    def test_gradients_that_need_shared_memory(self):
        self.write_rows()
        config = self.write_config(regression_config(device="gpu"))
        for way in ("owners", "leader"):
            words = ["device.gradients", "CPUs of one node", "on GPUs", "device.gradients=auto"]
            self.fail_with(2, words, "train", config, f"device.gradients={way}", ranks=2)

    def test_not_finite(self):
        """The same step is named, and the checkpoint is of a step before it."""
        self.write_rows()
        config = regression_config(
            optimizer={"name": "sgd", "learning_rate": 1e6},
            loss="mean_squared_error",
            model=[{"dense": {"units": 16}}, {"dense": {"units": 2}}],
        )
        for ranks in (0, 2):
            line = ("--overwrite", "checkpoint.every_steps=1", "checkpoint.keep=0")
            results = self.train_both(config, *line, ranks=ranks, code=6)
            lines = [results[device].error_lines for device in ("cpu", "gpu")]
            self.assertEqual(*lines)
            self.assertRegex(lines[0][0], "not finite at step")
            self.compare()
            # Nothing saved on the way: what is behind the lag is found at the epoch's end, and no
            # checkpoint is spoken of.
            results = self.train_both(config, "--overwrite", ranks=ranks, code=6)
            without, saved = lines[0][0].split("; the last checkpoint is from before this step")
            self.assertIn("remove it, or use --overwrite", saved)
            for device in ("cpu", "gpu"):
                self.assertEqual(results[device].error_lines, [without])
            self.assertEqual(harness.checkpoints(self.path("gpu")), [])

    def test_a_row_that_cannot_be_read(self):
        """A label out of range in a later window: found by one rank's reader in the middle of an
        epoch. All stop, what was trained is saved, the same step on either device."""
        x, y = class_rows(2000)
        y[1990] = 77
        with h5py.File(self.path("data.h5"), "w") as f:
            f.create_dataset("x", data=x, chunks=(100, x.shape[1]))
            f.create_dataset("y", data=y, chunks=(100,))
        config = class_config(
            data={"order": "windows", "window": 100, "memory_per_node": "20K"},
            train={"shuffle": False, "batch_size": 20},
        )
        results = self.train_both(config, ranks=2, code=3)
        for device in ("cpu", "gpu"):
            self.assertRegex(results[device].error_lines[0], "label 77.*in row 1990|1990.*77")
            saved = harness.checkpoints(self.path(device))
            self.assertEqual(len(saved), 1)
            with h5py.File(saved[0]) as f:
                step = f["lockstep/progress/step"][()]
                self.assertEqual(f["lockstep/progress/epoch_row"][()], 20 * step)
                self.assertGreater(step, 0)

    def test_replicas_that_differ(self):
        self.write_rows()
        config = self.write_config(regression_config(device="gpu"))
        line = ("train", config, "run.compare_every=10", "train.batch_size=8")
        env = {"LATE_CORRUPT": "1:15"}
        words = ["after step 20 rank 1 on .* has other parameters than rank 0 on", "--exclude-host"]
        self.fail_with(5, words, *line, ranks=3, env=env)
        self.succeed(*line, "--overwrite", "run.compare_every=0", ranks=3, env=env)
        # On one rank there is nothing to compare.
        self.succeed(*line, "--overwrite", env={"LATE_CORRUPT": "0:1"})

    def test_a_module_of_another_program(self):
        self.write_rows()
        config = self.write_config(regression_config(device="gpu"))
        words = ["its backend table has .* bytes, this program's", "install the module"]
        self.fail_with(4, words, "train", config, ranks=2, env={"LATE_BREAK": "backend"})
        self.fail_with(4, "its version is 0.0.0", "train", config, env={"LATE_BREAK": "version"})

    def test_precision_of_the_cpu(self):
        self.write_rows()
        config = self.write_config(regression_config(device={"kind": "cpu", "precision": "bf16"}))
        words = ["device.precision", "fp32", "bf16"]
        self.fail_with(2, words, "train", config, ranks=2)
        self.succeed("train", config, "device.kind=gpu")


class ToldTest(LateTest):
    def test_summary(self):
        """GPUs by rank, idle ones, and the byte plan before the first step; UUIDs are kept."""
        self.write_rows()
        config = self.write_config(regression_config(device="gpu"))
        out = self.succeed("train", config, ranks=2, env={"LATE_DEVICES": "3"}).out
        uuids = [f"GPU-00000000-0000-0000-0000-{k:012d}" for k in range(2)]
        for rank, uuid in enumerate(uuids):
            self.assertRegex(
                out, rf"rank {rank} .*GPU {rank}, Late CPU, {uuid}; free 7.0 GiB, then 6.0 GiB"
            )
        self.assertRegex(out, r"Idle GPUs +1 on ")
        self.assertRegex(out, r"device cuda: the CPU, 3 steps late")
        bytes_of_data = 250 * 8 * 4
        self.assertIn(f"data {bytes_of_data / 1024:.1f} KiB", out)
        parts = "parameters .*gradients .*optimizer .*activations .*workspace"
        self.assertRegex(out, rf"Memory .*{parts} .*of the device's 8.0 GiB")
        self.assertLess(out.index("Memory"), out.index("Epoch 1/"))
        with h5py.File(harness.checkpoints(self.path("run"))[-1]) as f:
            self.assertEqual(f["lockstep/provenance"].attrs["devices"], ", ".join(uuids))
        out = self.succeed("train", config, "--overwrite", env={"LATE_DEVICES": "1"}).out
        self.assertNotIn("Idle", out)

    def test_a_slow_rank(self):
        """Rank 2 sleeps in each of its steps, the others wait for it: it is named, not they. In the
        third epoch in a row there is advice."""
        self.write_rows()
        config = self.write_config(regression_config(device="gpu", train={"batch_size": 25}))
        result = self.succeed("train", config, ranks=3, env={"LATE_SLOW": "2:220000"})
        warnings = [w for w in result.err.splitlines() if "held the others up" in w]
        self.assertEqual(len(warnings), 3, result.err)
        for epoch, warning in enumerate(warnings, 1):
            words = rf"rank 2 on \S+ held .* in epoch {epoch}: .*slow in computing"
            self.assertRegex(warning, words)
            self.assertEqual("--exclude-host" in warning, epoch == 3)


class StopTest(LateTest):
    def test_signal_in_the_middle(self):
        """All ranks save at the same step, whichever of them was asked; going on is exact."""
        self.write_rows(4000)
        config = regression_config(model=SameTest.MODEL, train={"batch_size": 16}, device="gpu")
        path = self.write_config(config)
        epochs = f"train.epochs={self.stop_in_the_middle(path, ranks=3) // 250 + 2}"
        self.succeed("train", path, epochs, ranks=3)
        self.succeed("train", path, epochs, *ON["cpu"], "run.folder=whole", ranks=3)
        ends = [harness.read_log(self.path(run))[-1] for run in ("run", "whole")]
        self.assertEqual(ends[0]["weights_hash"], ends[1]["weights_hash"])


if __name__ == "__main__":
    unittest.main()
