#!/usr/bin/env python3
"""The train command: what it prints, what it leaves in the run folder, and what it refuses to go
on with. Stopping and continuing have a file of their own, test_resume.py."""

import json
import os
import re
import shutil
import stat
import unittest

import h5py
import numpy as np

import harness
from harness import class_config, class_rows, regression_config, regression_rows


class TrainTest(harness.ProgramTest):
    def setUp(self):
        super().setUp()
        x, y = regression_rows(100)
        self.data = self.write_h5("data.h5", x=x, y=y)
        self.config = self.write_config(regression_config(data={"validation": 0.2}))

    def weights_hash(self, run="run"):
        return harness.read_log(self.path(run))[-1]["weights_hash"]


class SummaryTest(TrainTest):
    def test_first_lines(self):
        result = self.succeed("train", self.config, ranks=2)
        out = result.out
        self.assertRegex(out.splitlines()[0], rf"(?i)\bnew\b.*{re.escape(self.path('run'))}")
        self.assertRegex(out, r"(?m)^Ranks\s+2\b.*\bcpu\b")
        self.assertRegex(out, r"data\.h5: 80 rows\b.*validation 20 rows\b")
        self.assertRegex(out, r"74 parameters")  # 6 x 8 + 8 + 8 x 2 + 2
        self.assertRegex(out, r"(?m)^Batch\s+16 rows: all on rank 1\b")
        # Ranks beyond the first say nothing.
        self.assertEqual(result.outs[1], "")
        self.assertEqual(result.err, "")

    def test_one_line_an_epoch_without_a_terminal(self):
        out = self.succeed("train", self.config).out
        self.assertNotIn("\r", out)
        self.assertNotIn("\x1b", out)
        lines = [line for line in out.splitlines() if line.startswith("Epoch ")]
        self.assertEqual(len(lines), 3)
        for line in lines:
            self.assertRegex(line, r" mae: [0-9.]+ - loss: [0-9.]+ - val_mae: .* val_loss: [0-9.]")

    def test_timeout_beyond_all_clocks(self):
        self.succeed("train", self.config, "run.timeout=1e300", ranks=2)

    def test_logits_are_said(self):
        x, y = class_rows()
        self.write_h5("classes.h5", x=x, y=y)
        out = self.succeed("train", self.write_config(class_config("classes.h5"))).out
        self.assertRegex(out, "(?i)logits")
        softmax = {"model.1.activation": "softmax"}
        overrides = [f"{k}={v}" for k, v in softmax.items()]
        line = ["train", self.path("config.yaml"), *overrides, "run.folder=fused"]
        self.assertNotRegex(self.succeed(*line).out, "(?i)logits")


class RunFolderTest(TrainTest):
    def test_contents(self):
        self.succeed("train", self.config, ranks=2)
        names = set(os.listdir(self.path("run")))
        needed = {"config.yaml", "log.jsonl", "history.h5", "model.weights.h5", "checkpoints"}
        self.assertLessEqual(needed, names)
        inner = set(os.listdir(self.path("run", "checkpoints")))
        # 80 rows in batches of 16: 5 steps an epoch.
        steps = {f"step-{5 * n:08d}.weights.h5" for n in (1, 2, 3)}
        self.assertEqual(inner, steps | {"best.weights.h5", "latest.weights.h5"})
        latest = self.path("run", "checkpoints", "latest.weights.h5")
        self.assertTrue(stat.S_ISLNK(os.lstat(latest).st_mode))
        self.assertEqual(os.readlink(latest), "step-00000015.weights.h5")
        self.assertEqual(harness.leftovers(self.folder), [])

    def test_log(self):
        self.succeed("train", self.config, ranks=2)
        log = harness.read_log(self.path("run"))
        self.assertEqual([e["event"] for e in log], ["start"] + 3 * ["epoch"] + ["end"])
        self.assertEqual(log[0]["ranks"], 2)
        self.assertEqual(log[0]["backend"], "cpu")
        for number, event in enumerate(log[1:4], start=1):
            self.assertEqual(event["epoch"], number)
            self.assertEqual(event["step"], 5 * number)
            for key in ("loss", "mae", "val_loss", "val_mae", "seconds", "step_us"):
                self.assertGreater(event[key], 0, key)
            self.assertGreater(event["samples_per_s"], 0)
        self.assertEqual(log[4]["reason"], "done")
        self.assertEqual(log[4]["step"], 15)
        self.assertRegex(log[4]["weights_hash"], r"^[0-9a-f]{16}$")

    def test_end_of_an_error(self):
        """The hash is of the step that the line names, or there is none."""
        line = ["optimizer.name=sgd", "optimizer.learning_rate=100", "train.batch_size=2"]
        for every, ranks in ((3, 0), (3, 2), (1, 0)):
            again = [f"checkpoint.every_steps={every}", "--overwrite"]
            with self.subTest(every=every, ranks=ranks):
                self.fail_with(6, "finite", "train", self.config, *line, *again, ranks=ranks)
                end = harness.read_log(self.path("run"))[-1]
                self.assertEqual((end["event"], end["reason"]), ("end", "error"))
                with h5py.File(harness.checkpoints(self.path("run"))[-1]) as file:
                    saved = file["lockstep/progress/step"][()]
                    of_saved = file["lockstep"].attrs["weights_hash"]
                # Seven steps are finite, and an epoch has 40: only every_steps saves.
                self.assertEqual(saved == end["step"], every == 1, f"{saved} {end}")
                self.assertEqual(end["weights_hash"], of_saved if every == 1 else None)

    def test_history(self):
        self.succeed("train", self.config)
        history = harness.read_history(self.path("run"))
        self.assertLessEqual({"loss", "mae", "val_loss", "val_mae"}, set(history))
        log = harness.read_log(self.path("run"))
        for key in ("loss", "mae", "val_loss", "val_mae"):
            self.assertEqual(history[key].shape, (3,))
            logged = [e[key] for e in log if e["event"] == "epoch"]
            np.testing.assert_allclose(history[key], logged, rtol=1e-6)

    def test_losses_are_those_of_the_weights(self):
        """The validation's loss of the last epoch, computed again from the file."""
        self.succeed("train", self.config, "checkpoint.best=loss", ranks=2)
        weights = harness.read_layers(harness.checkpoints(self.path("run"))[-1])
        with h5py.File(self.data) as f:
            x, y = f["x"][80:].astype("f8"), f["y"][80:].astype("f8")
        hidden = np.tanh(x @ weights["dense/vars/0"] + weights["dense/vars/1"])
        errors = hidden @ weights["dense_1/vars/0"] + weights["dense_1/vars/1"] - y
        history = harness.read_history(self.path("run"))
        # Rounding of single precision over sums of some ten terms.
        self.assertAlmostEqual(history["val_loss"][-1], np.mean(errors**2), delta=1e-5)
        self.assertAlmostEqual(history["val_mae"][-1], np.mean(np.abs(errors)), delta=1e-5)

    def test_swish(self):
        self.succeed("train", self.config, "model.0.activation=silu")
        self.succeed("train", self.config, "model.0.activation=swish", "run.folder=other")
        self.assertEqual(self.weights_hash("other"), self.weights_hash())

    def test_stored_configuration_repeats_the_run(self):
        self.succeed("train", self.config)
        stored = self.path("run", "config.yaml")
        elsewhere = self.path("elsewhere")
        os.mkdir(elsewhere)
        line = ["train", stored, f"run.folder={self.path('again')}"]
        result = harness.run(line, 0, elsewhere)
        self.assertEqual(result.code, 0, str(result))
        self.assertEqual(self.weights_hash("again"), self.weights_hash())

    def test_stored_configuration_of_a_continued_run(self):
        """checkpoint.resume is no part of what is repeated: a copy would find nothing to go on."""
        self.succeed("train", self.config, "checkpoint.resume=off")
        line = ["checkpoint.resume=required", "train.epochs=5"]
        self.assertRegex(self.succeed("train", self.config, *line).out, "(?i)^resum")
        stored = self.path("run", "config.yaml")
        self.assertRegex(harness.read_text(stored), r"(?m)^  resume: auto$")
        with h5py.File(harness.checkpoints(self.path("run"))[-1]) as file:
            kept = file["lockstep/config"][()].decode()
        self.assertEqual(kept, harness.read_text(stored))
        self.assertRegex(self.succeed("train", stored).out, "(?i)^complete")
        self.succeed("train", stored, "run.folder=again")
        self.assertEqual(self.weights_hash("again"), self.weights_hash())
        out = self.succeed("train", self.config, "--dry-run", "checkpoint.resume=required").out
        self.assertRegex(out, r"(?m)^  resume: required$")

    def test_keep(self):
        self.succeed("train", self.config, "train.epochs=6", "checkpoint.keep=2")
        names = [os.path.basename(p) for p in harness.checkpoints(self.path("run"))]
        self.assertEqual(names, ["step-00000025.weights.h5", "step-00000030.weights.h5"])

    def test_checkpoints_by_steps(self):
        line = ["checkpoint.every_epochs=0", "checkpoint.every_steps=4", "checkpoint.keep=0"]
        self.succeed("train", self.config, *line, ranks=2)
        steps = [int(re.search(r"\d{8}", p)[0]) for p in harness.checkpoints(self.path("run"))]
        self.assertLessEqual({4, 8, 12}, set(steps))

    def test_none_by_epochs(self):
        """The best is kept all the same: it is handed over at the end."""
        words = "0: only of the best, when stopping and at the end"
        self.assertIn(words, " ".join(self.succeed("options").out.split()))
        still = "optimizer.learning_rate=1e-30"
        line = ["checkpoint.every_epochs=0", "checkpoint.keep=0", "train.epochs=4", still]
        self.succeed("train", self.config, *line, "train.shuffle=false")
        loss = harness.read_history(self.path("run"))["loss"]
        best = [5 * i + 5 for i in range(4) if i == 0 or loss[i] < min(loss[:i])]
        steps = [int(re.search(r"\d{8}", p)[0]) for p in harness.checkpoints(self.path("run"))]
        self.assertEqual(steps, sorted({*best, 20}))
        self.assertLess(len(steps), 4)

    def test_model_is_the_best_by_validation(self):
        """With a learning rate that makes it worse each epoch, the first is the best."""
        bad = ["optimizer.name=sgd", "optimizer.learning_rate=2.5", "train.epochs=4"]
        config = self.write_config(
            regression_config(data={"validation": 0.2}, optimizer={"name": "sgd"})
        )
        self.succeed("train", config, *bad[1:])
        history = harness.read_history(self.path("run"))
        best = int(np.argmin(history["val_loss"])) + 1
        kept = harness.read_layers(self.path("run", "model.weights.h5"))
        self.succeed("train", config, bad[1], f"train.epochs={best}", "run.folder=until")
        until = harness.read_layers(harness.checkpoints(self.path("until"))[-1])
        for name, values in until.items():
            np.testing.assert_array_equal(kept[name], values, err_msg=name)

    def test_early_stopping(self):
        stopping = {"monitor": "val_loss", "patience": 2, "min_delta": 1000.0}
        config = self.write_config(
            regression_config(data={"validation": 0.2}, early_stopping=stopping)
        )
        self.succeed("train", config, "train.epochs=50", ranks=2)
        log = harness.read_log(self.path("run"))
        self.assertEqual(log[-1]["reason"], "early_stopping")
        self.assertEqual(log[-2]["epoch"], 3)
        # Nothing after the first epoch improved by so much: its weights are restored.
        self.succeed("train", config, "train.epochs=1", "run.folder=one", ranks=2)
        ours = harness.read_layers(self.path("run", "model.weights.h5"))
        for name, values in harness.read_layers(self.path("one", "model.weights.h5")).items():
            np.testing.assert_array_equal(ours[name], values, err_msg=name)
        # Once stopped early it is complete.
        self.assertRegex(self.succeed("train", config, "train.epochs=50").out, "(?i)complete")


class DryRunTest(TrainTest):
    def test_prints_and_touches_nothing(self):
        before = sorted(os.listdir(self.folder))
        for ranks in (0, 2):
            out = self.succeed("train", self.config, "--dry-run", ranks=ranks).out
            for word in ("dense", "dense_1", r"\b74\b", "FLOP", "(KiB|MiB|bytes)", r"\brank"):
                self.assertRegex(out, word)
            self.assertEqual(sorted(os.listdir(self.folder)), before)


class AgainTest(TrainTest):
    """The same folder a second time."""

    def snapshot(self):
        found = {}
        for base, _, names in os.walk(self.path("run")):
            for name in names:
                path = os.path.join(base, name)
                with open(path, "rb") as f:
                    found[path] = f.read()
        return found

    def setUp(self):
        super().setUp()
        self.succeed("train", self.config)
        self.before = self.snapshot()

    def test_complete_run_says_so(self):
        for ranks in (0, 2):
            out = self.succeed("train", self.config, ranks=ranks).out
            self.assertRegex(out.splitlines()[0], rf"(?i)complete.*{re.escape(self.path('run'))}")
            self.assertEqual(self.snapshot(), self.before)

    def refuse(self, words, *line):
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                self.fail_with(2, words, "train", self.config, *line, ranks=ranks)
                self.assertEqual(self.snapshot(), self.before)

    def test_changed_keys_are_refused(self):
        words = [r"model\.0\.\S*units", r"\b8\b", r"\b9\b", "train.seed", r"\b77\b"]
        words += ["run.folder=", "--overwrite", "checkpoint.resume=required"]
        self.refuse(words, "model.0.units=9", "train.seed=77")

    def test_free_keys_are_not(self):
        line = ["run.timeout=100", "checkpoint.keep=9", "train.max_time=1h", "device=cpu"]
        self.assertRegex(self.succeed("train", self.config, *line).out, "(?i)complete")

    def test_off_refuses_a_used_folder(self):
        self.refuse(["run", "--overwrite"], "checkpoint.resume=off")

    def test_overwrite_begins_anew(self):
        line = ["train", self.config, "--overwrite", "train.seed=77"]
        for mode in ("auto", "off"):
            self.succeed(*line, f"checkpoint.resume={mode}", "train.epochs=2")
            log = harness.read_log(self.path("run"))
            self.assertEqual([e["event"] for e in log], ["start", "epoch", "epoch", "end"])
            names = [os.path.basename(p) for p in harness.checkpoints(self.path("run"))]
            self.assertEqual(names, ["step-00000005.weights.h5", "step-00000010.weights.h5"])

    def test_required_needs_a_checkpoint(self):
        line = ["run.folder=new", "checkpoint.resume=required"]
        result = self.run_program("train", self.config, *line)
        self.assertIn(result.code, (2, 7), str(result))
        self.assertRegex(result.error_lines[0], r"new.*(checkpoint|run).*; .")
        self.assertFalse(os.path.exists(self.path("new", "log.jsonl")))

    def test_required_goes_on_with_a_new_learning_rate(self):
        line = ["checkpoint.resume=required", "optimizer.learning_rate=0.01", "train.epochs=5"]
        self.succeed("train", self.config, *line)
        self.assertEqual(len(harness.read_history(self.path("run"))["loss"]), 5)

    def test_required_does_not_take_another_model(self):
        line = ["checkpoint.resume=required", "model.0.units=9", "train.epochs=5"]
        result = self.run_program("train", self.config, *line)
        self.assertIn(result.code, (2, 7), str(result))
        self.assertEqual(len(result.error_lines), 1, str(result))
        self.assertEqual(self.snapshot(), self.before)

    def test_more_epochs_go_on(self):
        self.succeed("train", self.config, "train.epochs=5", ranks=2)
        log = harness.read_log(self.path("run"))
        epochs = [e["epoch"] for e in log if e["event"] == "epoch"]
        self.assertEqual(epochs, [1, 2, 3, 4, 5])
        self.assertEqual(len(harness.read_history(self.path("run"))["loss"]), 5)

    def test_moved_data_are_the_same_data(self):
        os.rename(self.data, self.path("moved.h5"))
        line = ["data.train.file=moved.h5", "train.epochs=4"]
        self.succeed("train", self.config, *line)
        self.assertEqual(len(harness.read_history(self.path("run"))["loss"]), 4)

    def test_other_data_of_the_same_name_are_refused(self):
        x, y = regression_rows(100, seed=2)
        self.write_h5("data.h5", x=x, y=y)
        self.refuse(["data", "run.folder="], "train.epochs=4")

    def test_another_validation_is_refused(self):
        """Its values, the best among them, would say nothing of those before."""
        x, y = regression_rows(30, seed=3)
        table = {"file": "held.h5", "features": "x", "targets": "y"}
        self.write_h5("held.h5", x=x, y=y)
        config = self.write_config(regression_config(data={"validation": table}), "held.yaml")
        self.succeed("train", config, "run.folder=held")
        os.rename(self.path("held.h5"), self.path("moved.h5"))
        line = ["train", config, "run.folder=held"]
        moved = "data.validation.file=moved.h5"
        self.succeed(*line, moved, "train.epochs=4", ranks=2)
        self.write_h5("held.h5", x=x[::-1], y=y[::-1])
        words = ["other data", "the content of data.validation differs", "run.folder=NEW"]
        for ranks in (0, 2):
            self.fail_with(2, words, *line, "train.epochs=5", ranks=ranks)
        more = ["checkpoint.resume=required", "train.epochs=5"]
        self.assertIn("Going on with other data.", self.succeed(*line, *more).out)
        log = harness.read_log(self.path("held"))
        self.assertEqual([e["epoch"] for e in log if e["event"] == "epoch"], [1, 2, 3, 4, 5])

    def test_own_data_are_not_overwritten(self):
        """A table in the run folder, by a name that a run begun anew removes."""
        table = self.path("run", "history.h5")
        shutil.copy(self.data, table)
        words = ["history.h5 is data of this run", "keep it in another folder"]
        for ranks in (0, 2):
            line = ["train", self.config, "--overwrite", f"data.train.file={table}"]
            self.fail_with(2, words, *line, ranks=ranks)
        self.assertEqual(os.path.getsize(table), os.path.getsize(self.data))

    def test_init_from_acts_at_a_fresh_start(self):
        weights = self.path("run", "model.weights.h5")
        self.succeed("train", self.config, f"train.init_from={weights}", "run.folder=warm")
        first = harness.read_history(self.path("run"))["loss"]
        self.assertLess(harness.read_history(self.path("warm"))["loss"][0], first[0])


class OthersFilesTest(TrainTest):
    """A new run takes nobody's files away."""

    NEW = "use run.folder=NEW for another run, or --overwrite to begin anew"

    def bytes_of(self, *parts):
        with open(self.path(*parts), "rb") as file:
            return file.read()

    def test_written_by_hand(self):
        mine = self.bytes_of("config.yaml")
        for ranks in (0, 2):
            for more in ([], ["--overwrite"]):
                words = [r"/config\.yaml is there, and was not written by a run", "run.folder=NEW"]
                line = ["train", "config.yaml", "run.folder=.", *more]
                self.assertNotIn("--overwrite", self.fail_with(2, words, *line, ranks=ranks))
        os.symlink(self.config, self.path("other.yaml"))
        self.fail_with(2, "not written by a run", "train", "other.yaml", "run.folder=.")
        self.assertEqual(self.bytes_of("config.yaml"), mine)
        self.assertEqual(
            sorted(os.listdir(self.folder)), [".lock", "config.yaml", "data.h5", "other.yaml"]
        )

    def test_written_by_hand_for_another(self):
        os.mkdir(self.path("run"))
        for mine in ("notes: mine", "", "model: [", 2 * 1024 * 1024 * "#", "a: b\0"):
            self.write_text("run/config.yaml", mine)
            self.fail_with(2, ["not written by a run", self.NEW], "train", self.config)
            self.assertEqual(self.bytes_of("run", "config.yaml"), mine.encode())
        self.succeed("train", self.config, "--overwrite")
        self.assertIn(b"resume: auto", self.bytes_of("run", "config.yaml"))

    def test_only_the_model_was_kept(self):
        self.succeed("train", self.config)
        shutil.rmtree(self.path("run", "checkpoints"))
        model = self.bytes_of("run", "model.weights.h5")
        words = [r"model\.weights\.h5 is there, but no checkpoint", self.NEW]
        for ranks in (0, 2):
            self.fail_with(2, words, "train", self.config, "train.seed=2", ranks=ranks)
        os.unlink(self.path("run", "config.yaml"))
        self.fail_with(2, words, "train", self.config, "checkpoint.resume=off")
        self.assertEqual(self.bytes_of("run", "model.weights.h5"), model)
        self.assertRegex(self.succeed("train", self.config, "--overwrite").out, "(?i)^new")

    def test_files_that_are_called_as_a_runs(self):
        for name in ("log.jsonl", "history.h5"):
            os.makedirs(self.path("run"))
            self.write_text(f"run/{name}", "mine")
            words = [rf"run/{name} is there, but no run: a new one would replace it", self.NEW]
            for ranks in (0, 2):
                self.fail_with(2, words, "train", self.config, ranks=ranks)
            self.assertEqual(self.bytes_of("run", name), b"mine")
            self.succeed("train", self.config, "--overwrite")
            shutil.rmtree(self.path("run"))

    def test_dead_before_its_first_checkpoint(self):
        """Whatever its configuration holds, what such a run leaves is no obstacle."""
        self.succeed("train", self.config)
        shutil.copy(self.path("run", "model.weights.h5"), self.path("w${x} #.h5"))
        stop = {"patience": 2, "min_delta": 1.0 / 3.0}
        config = regression_config(
            data={"validation": {"fraction": 0.1, "rows": "random"}, "scaling": "standardize"},
            model=[{"dense": {"units": 8, "activation": "tanh", "name": "yes"}},
                   {"dropout": {"rate": 0.1}}, {"dense": {"units": 2}}],
            optimizer={"name": "sgd", "momentum": 0.9, "learning_rate": 1e-7},
            early_stopping=stop, train={"max_time": "23h30m"},
            checkpoint={"every_seconds": "1m"},
        )  # fmt: skip
        for path, more in (
            (self.config, ['train.init_from="w${x} #.h5"']),
            (self.write_config(config, "rich.yaml"), []),
        ):
            line = ["train", path, "run.folder=dead", *more]
            self.succeed(*line, "checkpoint.resume=off")
            shutil.rmtree(self.path("dead", "checkpoints"))
            os.unlink(self.path("dead", "model.weights.h5"))
            os.unlink(self.path("dead", "history.h5"))
            result = self.succeed(*line, ranks=2)
            self.assertRegex(result.out, "(?i)^new")
            self.assertEqual(result.err, "")
            # Its own file, given: complete, dead again, anew.
            own = ["train", self.path("dead", "config.yaml")]
            self.assertRegex(self.succeed(*own).out, "(?i)^complete")
            shutil.rmtree(self.path("dead", "checkpoints"))
            os.unlink(self.path("dead", "model.weights.h5"))
            self.assertRegex(self.succeed(*own).out, "(?i)^new")
            self.assertRegex(self.succeed(*own, "--overwrite").out, "(?i)^new")
            shutil.rmtree(self.path("dead"))


class InUseTest(TrainTest):
    def test_second_run_is_refused(self):
        running = self.start("train", self.config, "train.epochs=10000000", ranks=2)
        running.until(lambda: harness.read_log(self.path("run")), "the first log line")
        words = ["run", r"\b\d+\b", "run.folder=|wait|stop"]
        for ranks in (0, 2):
            self.fail_with(7, words, "train", self.config, ranks=ranks)
        self.write_text("run/STOP", "")
        self.assertEqual(running.wait(), 75, running.text())


class SyntheticTest(harness.ProgramTest):
    def test_every_rank_makes_the_same_rows(self):
        table = {"synthetic": {"rows": 100, "inputs": 6, "outputs": 2}}
        config = regression_config()
        config["data"] = {"train": table}
        path = self.write_config(config)
        losses = []
        for ranks in (0, 2, 3):
            folder = f"run-{ranks}"
            self.succeed("train", path, f"run.folder={folder}", ranks=ranks)
            losses.append(harness.read_history(self.path(folder))["loss"])
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
        np.testing.assert_allclose(losses[2], losses[0], rtol=1e-5)
        with open(self.path("run-0", "log.jsonl"), encoding="utf-8") as f:
            json.loads(f.readline())


if __name__ == "__main__":
    unittest.main()
