#!/usr/bin/env python3
"""Stopping and continuing: signals, time, a STOP file and SIGKILL, at the end and in the middle of
an epoch. On as many ranks as before a run continues bit for bit."""

import os
import re
import shutil
import signal
import time
import unittest

import h5py
import numpy as np

import harness
from harness import regression_config, regression_rows
from test_inspect import seal, unseal

ROWS, BATCH = 4000, 16
TRAINING_ROWS = ROWS - ROWS // 10
EPOCH_STEPS = TRAINING_ROWS // BATCH

ENDLESS = "train.epochs=1000000"

# Columns of time differ from run to run.
TIMES = {"seconds", "step_us", "samples_per_s"}


class ResumeTest(harness.ProgramTest):
    def setUp(self):
        super().setUp()
        x, y = regression_rows(ROWS)
        self.write_h5("data.h5", x=x, y=y)
        config = regression_config(
            model=[
                {"dense": {"units": 16, "activation": "relu"}},
                {"dropout": {"rate": 0.1}},
                {"dense": {"units": 2}},
            ],
            data={"validation": 0.1},
            train={"batch_size": BATCH},
        )
        self.config = self.write_config(config)

    def end(self, run="run"):
        event = harness.read_log(self.path(run))[-1]
        self.assertEqual(event["event"], "end")
        return event

    def epochs_logged(self):
        return sum(e["event"] == "epoch" for e in harness.read_log(self.path("run")))

    def newest_step(self):
        names = harness.checkpoints(self.path("run"))
        return int(re.search(r"\d{8,}", os.path.basename(names[-1]))[0]) if names else 0

    def begin(self, ranks, *line):
        """An endless run that has finished an epoch at least."""
        running = self.start("train", self.config, ENDLESS, *line, ranks=ranks)
        running.until(lambda: self.epochs_logged() >= 1, "an epoch")
        return running

    def compare_with_uninterrupted(self, ranks, *line, exact=True, other=None):
        """Continues `run` two epochs on, on `other` ranks, and does the same in one go."""
        epochs = f"train.epochs={self.newest_step() // EPOCH_STEPS + 2}"
        other = ranks if other is None else other
        result = self.succeed("train", self.config, epochs, *line, ranks=other)
        self.assertRegex(result.out.splitlines()[0], "(?i)resum")
        self.succeed("train", self.config, epochs, *line, "run.folder=whole", ranks=ranks)
        parts = harness.read_history(self.path("run"))
        whole = harness.read_history(self.path("whole"))
        self.assertEqual(set(parts), set(whole))
        for key in set(whole) - TIMES:
            if exact:
                np.testing.assert_array_equal(parts[key], whole[key], err_msg=key)
            else:
                np.testing.assert_allclose(parts[key], whole[key], rtol=1e-4, err_msg=key)
        if exact:
            self.assertEqual(self.end("run")["weights_hash"], self.end("whole")["weights_hash"])
        self.assertEqual(self.end("run")["step"], self.end("whole")["step"])
        logged = [e["epoch"] for e in harness.read_log(self.path("run")) if e["event"] == "epoch"]
        self.assertEqual(logged, list(range(1, len(whole["loss"]) + 1)))
        return result

    def check_stopped(self, running):
        self.assertEqual(running.wait(), 75, running.text())
        end = self.end()
        self.assertEqual(end["reason"], "stopped")
        self.assertEqual(self.newest_step(), end["step"])
        self.assertEqual(harness.leftovers(self.folder), [])


class SignalTest(ResumeTest):
    def stop_by(self, number, ranks, rank):
        running = self.begin(ranks)
        running.signal_rank(rank, number)
        self.check_stopped(running)
        self.assertNotIn(harness.ERROR_LINE, running.text())
        self.compare_with_uninterrupted(ranks)

    def test_term_alone(self):
        self.stop_by(signal.SIGTERM, 0, 0)

    def test_int_to_the_first_of_two(self):
        self.stop_by(signal.SIGINT, 2, 0)

    def test_term_to_the_second_of_two(self):
        self.stop_by(signal.SIGTERM, 2, 1)

    def test_usr1_to_the_last_of_three(self):
        self.stop_by(signal.SIGUSR1, 3, 2)

    def test_hup_alone(self):
        self.stop_by(signal.SIGHUP, 0, 0)

    def test_hup_that_nohup_ignores(self):
        """Ignored from the start, as below nohup, it stays so: HUP, then TERM, is one request."""
        previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            running = self.begin(0)
        finally:
            signal.signal(signal.SIGHUP, previous)
        running.signal_rank(0, signal.SIGHUP)
        time.sleep(0.5)
        self.assertIsNone(running.process.poll())
        running.signal_rank(0, signal.SIGTERM)
        self.check_stopped(running)
        self.assertIn("SIGTERM", running.text())

    def test_term_to_the_launcher(self):
        """As a scheduler does: mpirun passes it on to all."""
        running = self.begin(2)
        running.process.send_signal(signal.SIGUSR1)
        self.check_stopped(running)
        self.compare_with_uninterrupted(2)


class StopTest(ResumeTest):
    def test_stop_file(self):
        running = self.begin(2)
        self.write_text("run/STOP", "")
        self.check_stopped(running)
        self.assertFalse(os.path.exists(self.path("run", "STOP")))
        self.compare_with_uninterrupted(2)

    def test_stop_file_that_stays(self):
        """It would stop every run that continues this one: said, with what to do."""
        running = self.begin(0)
        os.mkdir(self.path("run", "STOP"))
        self.check_stopped(running)
        self.assertRegex(
            running.text(),
            r"; remove STOP, then run the same .*; it cannot be removed here \(.*\), .*: \S+/run/STOP",
        )

    def test_stop_file_of_before(self):
        """One that lies there at the start ends the new run too, as its writer wanted."""
        running = self.begin(0)
        self.write_text("run/STOP", "")
        self.check_stopped(running)
        self.compare_with_uninterrupted(0)

    def test_stop_file_that_came_too_late(self):
        """A run that is complete has nothing to stop, and its STOP is not for what comes after."""
        self.succeed("train", self.config, "train.epochs=1")
        self.write_text("run/STOP", "")
        self.assertIn("nothing to do", self.succeed("train", self.config, "train.epochs=1").out)
        self.assertFalse(os.path.exists(self.path("run", "STOP")))
        self.succeed("train", self.config, "train.epochs=2")

    def test_stop_file_after_the_clock_was_set_back(self):
        env = {"LD_PRELOAD": harness.build_library("late_clock", self.folder)}
        running = self.start("train", self.config, ENDLESS, env=env)
        running.until(lambda: self.epochs_logged() >= 1, "an epoch")
        self.write_text("run/STOP", "")
        self.check_stopped(running)

    def test_max_time(self):
        begun = time.monotonic()
        result = self.run_program("train", self.config, ENDLESS, "train.max_time=2s", ranks=2)
        self.assertGreaterEqual(time.monotonic() - begun, 2)
        self.assertEqual(result.code, 75, str(result))
        self.assertEqual(set(result.codes), {75}, str(result))
        self.assertEqual(self.end()["reason"], "stopped")
        self.compare_with_uninterrupted(2)

    def test_several_stops_in_one_epoch(self):
        """Every continuation stops again by time, most within an epoch."""
        for _ in range(3):
            result = self.run_program("train", self.config, ENDLESS, "train.max_time=1s")
            self.assertEqual(result.code, 75, str(result))
        self.compare_with_uninterrupted(0)


class KillTest(ResumeTest):
    def test_kill_after_some_epochs(self):
        running = self.start("train", self.config, ENDLESS, ranks=2)
        running.until(lambda: self.epochs_logged() >= 5, "five epochs")
        running.until(lambda: self.newest_step() >= 5 * EPOCH_STEPS, "their checkpoint")
        running.kill_ranks()
        result = self.compare_with_uninterrupted(2)
        self.assertIn(self.path("run"), result.out)

    def test_kill_in_the_middle_of_an_epoch(self):
        """Checkpoints every 37 steps: the newest one lies within an epoch."""
        line = ["checkpoint.every_epochs=0", "checkpoint.every_steps=37"]
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                running = self.start("train", self.config, ENDLESS, *line, ranks=ranks)
                running.until(lambda: self.newest_step() > EPOCH_STEPS, "a checkpoint")
                running.kill_ranks()
                self.assertNotEqual(self.newest_step() % EPOCH_STEPS, 0)
                self.compare_with_uninterrupted(ranks, *line, "checkpoint.keep=1")
                for name in ("run", "whole"):
                    shutil.rmtree(self.path(name))

    def test_dead_process_that_nobody_reaped(self):
        """A zombie, as in containers whose first process does not wait: its lock is no lock."""
        running = self.begin(0)
        running.until(lambda: self.newest_step() > 0, "a checkpoint")
        os.kill(running.process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, running.process.pid, os.WEXITED | os.WNOWAIT)
        self.compare_with_uninterrupted(0)

    def test_ten_epochs_are_five_and_five(self):
        self.succeed("train", self.config, "train.epochs=5", ranks=2)
        self.succeed("train", self.config, "train.epochs=10", ranks=2)
        self.succeed("train", self.config, "train.epochs=10", "run.folder=whole", ranks=2)
        self.assertEqual(self.end("run")["weights_hash"], self.end("whole")["weights_hash"])


class LengthTest(harness.ProgramTest):
    def setUp(self):
        super().setUp()
        x, y = regression_rows(160)
        self.write_h5("data.h5", x=x, y=y)

    def test_told_to_end_sooner(self):
        """No epoch is trained beyond those asked for, and what there is gets its weights."""
        config = self.write_config(regression_config(data={"validation": 0.2}))
        step = self.stop_in_the_middle(config, 2)
        for ranks in (2, 0):
            result = self.succeed("train", config, "train.epochs=2", ranks=ranks)
            self.assertNotIn("Epoch ", result.outs[0])
            self.assertEqual(harness.read_log(self.path("run"))[-1]["step"], step)
            self.assertTrue(os.path.exists(self.path("run", "model.weights.h5")))
        self.assertIn("Complete", result.outs[0])

    def test_saves_where_an_epoch_ends(self):
        """A checkpoint that is due at the last step of an epoch comes once the epoch has ended."""
        # Nothing is learned, nor summed in another order: no epoch is the best again, and saved so.
        config = regression_config(train={"batch_size": 160, "shuffle": False})
        config["optimizer"] = {"name": "sgd", "learning_rate": 0}
        config = self.write_config(config)
        for rule in ("every_steps=1", "every_seconds=0.01"):
            line = (ENDLESS, "checkpoint.every_epochs=0", f"checkpoint.{rule}", f"run.folder={rule}")
            running = self.start("train", config, *line)
            names = lambda: harness.checkpoints(self.path(rule))
            running.until(lambda: names() and "step-00000001." not in names()[-1], "a checkpoint")
            running.signal_rank(0, signal.SIGTERM)
            self.assertEqual(running.wait(), 75, running.text())


class OtherRanksTest(ResumeTest):
    def test_two_then_three_then_one(self):
        running = self.begin(2)
        running.signal_rank(0, signal.SIGTERM)
        self.check_stopped(running)
        self.compare_with_uninterrupted(2, exact=False, other=3)

    def test_three_then_alone(self):
        running = self.begin(3)
        running.signal_rank(2, signal.SIGTERM)
        self.check_stopped(running)
        self.compare_with_uninterrupted(3, exact=False, other=0)


class ChangedInTheMiddleTest(harness.ProgramTest):
    """checkpoint.resume=required goes on with any change, also from the middle of an epoch: one
    whose rows or sums would not go together begins anew."""

    def setUp(self):
        super().setUp()
        x, y = regression_rows(100)
        self.write_h5("data.h5", x=x, y=y)
        self.write_h5("other.h5", x=-x, y=y)
        checkpoint = {"every_steps": 1, "keep": 0}
        config = regression_config(data={"validation": 0.2}, checkpoint=checkpoint)
        self.config = self.write_config(config)
        self.succeed("train", self.config, "run.folder=whole")
        for path in harness.checkpoints(self.path("whole")):  # of 5 steps an epoch
            if int(re.search(r"\d{8,}", os.path.basename(path))[0]) > 8:
                os.unlink(path)

    def go_on(self, *line):
        shutil.rmtree(self.path("run"), ignore_errors=True)
        shutil.copytree(self.path("whole"), self.path("run"), symlinks=True)
        result = self.succeed("train", self.config, "checkpoint.resume=required", *line)
        epoch = [e for e in harness.read_log(self.path("run")) if e["event"] == "epoch"][1]
        self.assertEqual(epoch["epoch"], 2)
        return result.out, epoch

    def test_goes_on_where_it_was(self):
        for line in ([], ["optimizer.learning_rate=0.1"], ["train.batch_size=32"]):
            out, epoch = self.go_on(*line)
            self.assertNotIn("anew", out)
            self.assertLessEqual(epoch["step"], 10)

    def test_begins_anew(self):
        for line in (
            ["data.validation=0.9"],
            ["data.train.file=other.h5"],
            ["train.seed=2"],
            ["metrics=[mse]"],
        ):
            out, epoch = self.go_on(*line)
            self.assertRegex(out, "Epoch 2, of which 48 rows were used, begins anew")
            self.assertEqual(epoch["step"], 8 + (1 if line == ["data.validation=0.9"] else 5))
        self.assertAlmostEqual(epoch["mse"], epoch["loss"], places=6)  # of the same rows


class OtherChunksTest(harness.ProgramTest):
    """A copy of the data in other chunks is the same data, and windows are cut at chunks."""

    def setUp(self):
        super().setUp()
        x, y = regression_rows(1000)
        for name, rows in (("data.h5", 100), ("copy.h5", 64)):
            with h5py.File(self.path(name), "w") as f:
                f.create_dataset("x", data=x, chunks=(rows, 6))
                f.create_dataset("y", data=y, chunks=(rows, 2))
        data = {"order": "windows", "window": 150, "validation": 0.1}
        config = regression_config(data=data, checkpoint={"every_steps": 10, "keep": 0})
        self.config = self.write_config(config)

    def hash(self, run):
        return harness.read_log(self.path(run))[-1]["weights_hash"]

    def test_order_is_kept(self):
        self.succeed("train", self.config, "run.folder=whole")
        self.succeed("train", self.config, "data.train.file=copy.h5", "run.folder=other")
        self.assertNotEqual(self.hash("whole"), self.hash("other"))
        for memory in ("0", "24K"):
            # From the end of an epoch, and as after a death from the middle of one. 57 steps each.
            for last in (57, 80):
                shutil.rmtree(self.path("run"), ignore_errors=True)
                shutil.copytree(self.path("whole"), self.path("run"), symlinks=True)
                for path in harness.checkpoints(self.path("run")):
                    if int(re.search(r"\d{8,}", os.path.basename(path))[0]) > last:
                        os.unlink(path)
                line = ["data.train.file=copy.h5", f"data.memory_per_node={memory}"]
                result = self.succeed("train", self.config, *line)
                self.assertRegex(result.out.splitlines()[0], "(?i)resum")
                self.assertEqual(self.hash("run"), self.hash("whole"), f"{memory} {last}")


class EndOfEpochTest(harness.ProgramTest):
    def test_stopped_after_the_last_step(self):
        """With one step an epoch every stop comes after the last one, before validation."""
        x, y = regression_rows(40)
        self.write_h5("data.h5", x=x, y=y)
        config = self.write_config(
            regression_config(data={"validation": 0.2}, train={"batch_size": 32, "epochs": 25})
        )
        self.succeed("train", config, "run.folder=whole", ranks=2)
        code, runs = 75, 0
        while code == 75 and runs < 100:
            code = self.run_program("train", config, "train.max_time=0.05", ranks=2).code
            runs += 1
        self.assertEqual(code, 0)
        self.assertGreater(runs, 1)
        hashes = [harness.read_log(self.path(run))[-1]["weights_hash"] for run in ("run", "whole")]
        self.assertEqual(hashes[0], hashes[1])
        np.testing.assert_array_equal(
            harness.read_history(self.path("run"))["val_loss"],
            harness.read_history(self.path("whole"))["val_loss"],
        )

    def test_dead_after_an_epoch_that_began_with_its_validation(self):
        """Continued from a checkpoint of before validation, and dead before the next one: the log
        has an epoch's line of that checkpoint's step, but the epoch is yet to be done."""
        x, y = regression_rows(40)
        self.write_h5("data.h5", x=x, y=y)
        config = regression_config(data={"validation": 0.2}, train={"batch_size": 32})
        config["checkpoint"] = {"every_epochs": 0, "keep": 0}
        still = ["optimizer.learning_rate=1e-30"]  # the first epoch stays the best
        line = ["train", self.write_config(config), *still]
        running = self.start(*line, ENDLESS)
        running.until(lambda: len(harness.read_log(self.path("run"))) > 3, "three epochs")
        running.signal_rank(0, signal.SIGTERM)
        self.assertEqual(running.wait(), 75, running.text())
        step = harness.read_log(self.path("run"))[-1]["step"]
        with h5py.File(harness.checkpoints(self.path("run"))[-1]) as file:
            self.assertEqual(file["lockstep/progress/step"][()], step)
            self.assertEqual(file["lockstep/progress/epoch"][()], step - 1)
        for _ in range(2):
            self.succeed(*line, f"train.epochs={step + 2}")
            log = harness.read_log(self.path("run"))
            epochs = [e["epoch"] for e in log if e["event"] == "epoch"]
            self.assertEqual(epochs, list(range(1, step + 3)))
            os.unlink(harness.checkpoints(self.path("run"))[-1])  # as if it had not been written


@unittest.skipIf(harness.DEVICE != "cpu", "nothing in it is a device's")
class FoundNamesTest(harness.ProgramTest):
    """Names of datasets that were found are stored; what older versions stored has none."""

    def setUp(self):
        super().setUp()
        x, y = regression_rows(100)
        self.write_h5("data.h5", data=x, label=y, x_val=x[:20], y_val=y[:20], other=x[::-1])
        tables = {"train": {"file": "data.h5", "targets": []}, "validation": {"file": "data.h5"}}
        tables["train"]["features"] = []
        self.config = self.write_config(regression_config(data=tables))

    def test_named_afterwards(self):
        self.succeed("train", self.config, ranks=2)
        stored = harness.read_text(self.path("run", "config.yaml"))
        for name in ("data", "label", "x_val", "y_val"):
            self.assertRegex(stored, f"(features|targets): {name}\n")
        more = ["train.epochs=5", "data.validation.features=x_val", "data.train.targets=label"]
        self.assertIn("Resumed", self.succeed("train", self.config, *more).out)
        words = r"data.train.features: data -> other"
        self.fail_with(2, words, "train", self.config, "data.train.features=other")
        self.succeed("train", self.path("run", "config.yaml"), "run.folder=again")

    def test_older_runs(self):
        self.succeed("train", self.config)
        for path in harness.checkpoints(self.path("run")):
            unseal(path)
            with h5py.File(path, "r+") as f:
                text = f["lockstep/config"][()].decode()
                del f["lockstep/config"]
                f["lockstep/config"] = re.sub("(features|targets): [a-z_]+\n", r"\1: []\n", text)
            seal(path)
        words = r"data.validation.features: .* -> other"
        self.fail_with(2, words, "train", self.config, "data.validation.features=other")
        self.assertIn("nothing to do", self.succeed("train", self.config).out)
        self.assertIn("Resumed", self.succeed("train", self.config, "train.epochs=5").out)
        stored = harness.read_text(self.path("run", "config.yaml"))
        self.assertRegex(stored, "features: x_val\n")


if __name__ == "__main__":
    unittest.main()
