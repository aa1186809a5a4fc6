#!/usr/bin/env python3
"""What a run hands over is what it says: best.weights.h5 and model.weights.h5 after a change of
metric, after a death between two files, and after a file was lost."""

import os
import re
import shutil
import subprocess
import unittest

import h5py
import numpy as np

import harness
from harness import class_config, class_rows


def stored(path, name):
    with h5py.File(path) as file:
        return file[f"lockstep/progress/{name}"][()]


class BestTest(harness.ProgramTest):
    def setUp(self):
        super().setUp()
        x, labels = class_rows(600)
        self.write_h5("data.h5", x=x, y=labels)
        config = class_config(
            data={"validation": 0.2}, train={"batch_size": 16, "epochs": 3}, metrics=["accuracy"]
        )
        config["checkpoint"] = {"keep": 0}
        self.config = self.write_config(config)

    def file(self, *parts):
        return self.path("run", *parts)

    def best(self):
        return self.file("checkpoints", "best.weights.h5")

    def model(self):
        return self.file("model.weights.h5")

    def step_of(self, epoch):
        """The numbered checkpoint of an epoch's end."""
        for path in harness.checkpoints(self.file()):
            if stored(path, "epoch") == epoch:
                return path
        raise AssertionError(f"no checkpoint of epoch {epoch}")

    def said(self, text):
        """Metric, value and epoch of the last line."""
        found = re.search(r"best (\w+) (\S+) at epoch (\d+)", text)
        self.assertIsNotNone(found, text)
        return found[1], float(found[2]), int(found[3])

    def value_of(self, metric, epoch):
        epochs = [e for e in harness.read_log(self.file()) if e["event"] == "epoch"]
        return {e["epoch"]: e[metric] for e in epochs}[epoch]

    def test_another_best_metric_begins_anew(self):
        self.succeed("train", self.config, "train.epochs=1")
        result = self.succeed("train", self.config, "checkpoint.best=val_accuracy")
        metric, value, epoch = self.said(result.outs[0])
        self.assertEqual(metric, "val_accuracy")
        self.assertGreater(epoch, 1)
        self.assertAlmostEqual(value, self.value_of(metric, epoch), places=3)
        self.assertEqual(stored(self.model(), "epoch"), epoch)

    def test_values_of_other_data_begin_anew(self):
        """Here they are all worse, and would never be the best of both."""
        x, labels = class_rows(600)
        self.write_h5("other.h5", x=x, y=np.random.default_rng(5).permutation(labels))
        other = "data.validation={file: other.h5, features: x, targets: y}"
        stop = ("early_stopping.monitor=val_loss", "early_stopping.patience=1")
        line = (other, "train.epochs=5", "checkpoint.resume=required")
        for name, more in (("best", ()), ("monitor", stop)):
            with self.subTest(name):
                folder = f"run.folder={name}"
                self.succeed("train", self.config, folder, *more)
                out = self.succeed("train", self.config, folder, *line, *more).outs[0]
                self.assertGreater(self.said(out)[2], 3)

    def test_another_monitor_begins_anew(self):
        stop = "early_stopping.patience=50"
        self.succeed("train", self.config, stop, "early_stopping.monitor=val_loss")
        result = self.succeed(
            "train", self.config, stop, "early_stopping.monitor=val_accuracy", "train.epochs=5"
        )
        metric, value, epoch = self.said(result.outs[0])
        self.assertEqual(metric, "val_accuracy")
        self.assertGreater(epoch, 3)
        self.assertAlmostEqual(value, self.value_of(metric, epoch), places=3)

    def test_says_the_epoch_that_early_stopping_chose(self):
        result = self.succeed(
            "train", self.config, "early_stopping.patience=1", "early_stopping.min_delta=1e3"
        )
        metric, value, epoch = self.said(result.outs[0])
        self.assertEqual((metric, epoch), ("val_loss", 1))
        self.assertAlmostEqual(value, self.value_of(metric, 1), places=3)

    def test_dead_before_best_was_renamed(self):
        """Its checkpoint says that the last epoch is the best; best.weights.h5 is one before."""
        epoch = self.said(self.succeed("train", self.config).outs[0])[2]
        self.assertGreater(epoch, 1, "the rows are too hard for this test")
        right, old = self.step_of(epoch), self.step_of(epoch - 1)
        for lost in (False, True):
            with self.subTest(lost=lost):
                os.unlink(self.best())
                if not lost:
                    shutil.copy(old, self.best())
                os.unlink(self.model())
                self.succeed("train", self.config, ranks=0 if lost else 2)
                self.assertEqual(stored(self.best(), "step"), stored(right, "step"))
                self.assertEqual(stored(self.model(), "step"), stored(right, "step"))

    def test_no_checkpoint_of_the_best(self):
        """Nothing is learned, so that the first epoch stays the best; its checkpoints are gone."""
        still = "optimizer.learning_rate=1e-30"
        self.succeed("train", self.config, still)
        self.assertEqual(stored(self.best(), "best_epoch"), 1)
        os.unlink(self.best())
        os.unlink(self.step_of(1))
        result = self.succeed("train", self.config, still, "train.epochs=5", ranks=2)
        self.assertRegex(result.err, "warning: .*no checkpoint of epoch 1, .* looked for anew")
        self.assertEqual(self.said(result.out)[2], 4)
        self.assertEqual(stored(self.model(), "epoch"), 4)

    def test_dead_before_the_weights_were_written(self):
        self.succeed("train", self.config)
        whole = harness.read_layers(self.model())
        for damage in ("lost", "cut"):
            with self.subTest(damage=damage):
                if damage == "lost":
                    os.unlink(self.model())
                else:
                    os.truncate(self.model(), os.path.getsize(self.model()) // 2)
                result = self.succeed("train", self.config, ranks=2)
                self.assertIn("which was missing or damaged", result.outs[0])
                self.assertIn("nothing to do", result.outs[0])
                for name, values in harness.read_layers(self.model()).items():
                    self.assertEqual(values.tobytes(), whole[name].tobytes())
                self.assertEqual(harness.read_log(self.file())[-1]["event"], "end")
                self.succeed("evaluate", "run")
        again = self.succeed("train", self.config)
        self.assertNotIn("missing", again.outs[0])

    def test_continued_and_dead_before_the_weights_were_written(self):
        """The weights are of the run's earlier end, chosen by the best or by early stopping, whose
        choice may be the same still."""
        still = "optimizer.learning_rate=1e-30"
        stop = "early_stopping.patience=50"
        for more in ([], [stop], [still, stop]):
            with self.subTest(more=more):
                shutil.rmtree(self.file(), ignore_errors=True)
                self.succeed("train", self.config, *more)
                shutil.copy(self.model(), self.path("earlier.h5"))
                self.succeed("train", self.config, "train.epochs=6", *more)
                whole = harness.read_layers(self.model())
                self.assertEqual(stored(self.model(), "epoch"), 6)
                shutil.copy(self.path("earlier.h5"), self.model())
                result = self.succeed("train", self.config, "train.epochs=6", *more, ranks=2)
                self.assertIn("which was of an earlier end", result.outs[0])
                self.assertEqual(stored(self.model(), "epoch"), 6)
                for key, values in harness.read_layers(self.model()).items():
                    self.assertEqual(values.tobytes(), whole[key].tobytes())
                again = self.succeed("train", self.config, "train.epochs=6", *more)
                self.assertNotIn("Written", again.out)

    def test_weights_of_this_end_stay(self):
        """Whatever was chosen; also where the best was lost, or how to choose it has changed."""
        still = "optimizer.learning_rate=1e-30"
        self.succeed("train", self.config, still)
        self.assertEqual(stored(self.model(), "epoch"), 1)
        os.unlink(self.best())
        os.unlink(self.step_of(1))
        changes = ([], ["checkpoint.best=val_accuracy"], ["early_stopping.patience=9"])
        for more in changes:
            out = self.succeed("train", self.config, still, *more).out
            self.assertIn("nothing to do", out)
            self.assertNotIn("Written", out)
        stop = ["early_stopping.patience=9", "early_stopping.monitor=val_accuracy"]
        self.succeed("train", self.config, still, *stop, "--overwrite")
        for more in (*changes, stop):
            out = self.succeed("train", self.config, still, *more).out
            self.assertIn("nothing to do", out)
            self.assertNotIn("Written", out)


class OutputTest(harness.ProgramTest):
    """Outputs do not take the place of something else."""

    def setUp(self):
        super().setUp()
        x, labels = class_rows(64)
        self.data = self.write_h5("data.h5", x=x, y=labels)
        self.config = self.write_config(class_config(train={"batch_size": 16, "epochs": 1}))

    def bytes_of(self, path):
        with open(path, "rb") as file:
            return file.read()

    def under(self, script, *line):
        """The program started by a shell: code, and what it said on stderr."""
        done = subprocess.run(
            ["/bin/sh", "-c", script, "sh", harness.PROGRAM, *line],
            cwd=self.folder,
            env=harness.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=harness.TIMEOUT,
            check=False,
        )
        return done.returncode, done.stderr

    def test_predict(self):
        self.succeed("train", self.config)
        line = ("predict", "run", "--in", self.data, "--features", "x", "--out")
        model = self.path("run", "model.weights.h5")
        os.symlink(self.data, self.path("link.h5"))
        os.mkfifo(self.path("fifo"))
        self.write_text("notes.txt", "mine")
        before = {path: self.bytes_of(path) for path in (self.data, model)}
        for ranks in (0, 2):
            self.fail_with(2, "written over itself", *line, self.data, ranks=ranks)
            self.fail_with(2, "written over itself", *line, self.path("link.h5"), ranks=ranks)
        self.fail_with(2, "written over itself", *line, model)
        self.fail_with(2, "not a regular file", *line, self.path("fifo"))
        self.fail_with(2, "is there already", *line, self.path("notes.txt"))
        for path, content in before.items():
            self.assertEqual(content, self.bytes_of(path))
        self.write_text("empty.h5", "")
        for _ in range(2):  # its own earlier output is replaced
            self.succeed(*line, self.path("empty.h5"))
        self.keeps_others("predictions", "empty.h5", "predictions", *line)

    def test_report(self):
        line = ("devices", "report")
        self.fail_with(2, "is there already", *line, self.data)
        for _ in range(2):
            self.succeed(*line, self.path("report.h5"))
        self.keeps_others("algorithms", "report.h5", "device report", *line)

    def keeps_others(self, name, output, kind, *line):
        """A dataset of the output's name makes nothing an output, and nothing that somebody has put
        into an output is lost."""
        mine = self.write_h5("mine.h5", **{name: np.ones(3), "precious": np.ones(3)})
        with h5py.File(self.path(output), "a") as f:
            f["precious"] = np.ones(3)
        for path, words in (
            (mine, rf"is no earlier output \({kind}\) .*; name another file, or remove"),
            (self.path(output), rf"holds 'precious' beside an earlier output \({kind}\) .*; name"),
        ):
            before = self.bytes_of(path)
            self.fail_with(2, words, *line, path)
            self.assertEqual(before, self.bytes_of(path))

    def test_results_that_cannot_be_printed(self):
        self.succeed("train", self.config)
        for line in (["evaluate", "run"], ["inspect", self.data], ["options"]):
            code, err = self.under('exec "$@" >/dev/full', *line)
            self.assertEqual(code, 7, f"{line}: {err}")
            self.assertIn("cannot write to standard output: No space left", err)
        again = ["train", self.config, "--overwrite"]
        self.assertEqual(self.under('exec "$@" >/dev/full', *again), (0, ""))
        code, err = self.under('exec "$@" >/dev/full', *again, "--dry-run")
        self.assertEqual(code, 7, err)
        self.assertIn("cannot write to standard output", err)

    def test_a_reader_that_goes_away(self):
        """A pager that is left does not end a training: its results are in files."""
        line = ["train", self.config, "--overwrite", "train.epochs=300"]
        script = '{ "$@"; echo $? >code; } | head -1 >/dev/null'
        self.assertEqual(self.under(script, *line), (0, ""))
        self.assertEqual(harness.read_text(self.path("code")), "0\n")
        self.assertEqual(harness.read_log(self.path("run"))[-1]["reason"], "done")

    def test_limit_of_address_space(self):
        """MPI_Init would fail in its own words; OpenBLAS' threads, that cannot have their memory,
        must not keep the program from ending."""
        limit = 'ulimit -v {}; OPENBLAS_NUM_THREADS=2 exec "$@"'
        for size in (100000, 150000):
            self.assertEqual(self.under(limit.format(size), "--version"), (0, ""))
            code, err = self.under(limit.format(size), "train", self.config, "--overwrite")
            self.assertEqual(code, 1, err)
            self.assertRegex(err, rf"error: the limit of address space, {size // 1024} MiB, leaves")
        code, err = self.under(limit.format(600000), "train", self.config, "--overwrite")
        self.assertEqual(code, 0, err)

    def test_limit_of_file_sizes(self):
        code, err = self.under('ulimit -f 4; exec "$@"', "train", self.config)
        self.assertEqual(code, 7, err)
        self.assertRegex(err, "cannot write .*File too large")
        self.assertEqual(harness.leftovers(self.path("run")), [])


if __name__ == "__main__":
    unittest.main()
