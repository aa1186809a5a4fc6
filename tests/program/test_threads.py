#!/usr/bin/env python3
"""Threads leave the environment alone, and processes that start at once do not meet."""

import re
import signal
import unittest
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import harness

CONFIG = """\
data: {train: {file: data.h5}, memory_per_node: 200K, order: windows, window: 1000}
model:
  - dense: {units: 8, activation: relu}
  - dense: {units: 1}
loss: mse
train: {batch_size: 32, epochs: 2}
run: {folder: run, progress: none, timeout: 5s}
device: cpu
"""


class EnvironmentTest(harness.ProgramTest):
    """Under a getenv that ends the program when a thread calls it (watch_environment.c)."""

    def setUp(self):
        super().setUp()
        rng = np.random.default_rng(1)
        x = rng.standard_normal((20000, 6)).astype("f4")
        self.write_h5("data.h5", x=x, y=x[:, :1])
        self.write_text("config.yaml", CONFIG)
        self.watch = {"LD_PRELOAD": harness.build_library("watch_environment", self.folder)}
        with open(harness.PROGRAM, "rb") as file:
            text = file.read()
        if b"__asan_init" in text or b"__tsan_init" in text:
            self.skipTest("a sanitizer must be loaded first")

    def test_the_watch_works(self):
        env = {**self.watch, "WATCH_MAIN": "1"}
        result = self.run_program("train", self.path("config.yaml"), env=env)
        self.assertEqual(result.code, 99, str(result))
        self.assertIn("a thread read ", str(result))

    def test_training_and_streaming(self):
        for ranks in (0, 2):
            line = ["train", self.path("config.yaml"), "--overwrite"]
            self.succeed(*line, ranks=ranks, env=self.watch)

    def test_the_end_of_a_run_whose_rank_dies(self):
        line = ["train", self.path("config.yaml"), "train.epochs=100000"]
        running = self.start(*line, ranks=2, env=self.watch)
        running.until(lambda: harness.checkpoints(self.path("run")), "a checkpoint")
        running.signal_rank(1, signal.SIGKILL)
        running.wait()
        self.assertIn("rank 1", running.text())
        self.assertNotIn("a thread read", running.text())


class NumberTest(harness.ProgramTest):
    """How many BLAS threads a rank uses: what is stated is the most, but for device.threads."""

    def threads(self, units, *more):
        rng = np.random.default_rng(1)
        x = rng.standard_normal((600, 6)).astype("f4")
        self.write_h5("data.h5", x=x, y=x[:, :1])
        text = CONFIG.replace("batch_size: 32", "batch_size: 512")
        text = text.replace("units: 8,", f"units: {units}}}\n  - dense: {{units: {units},")
        self.write_text("config.yaml", text)
        line = ("train", self.path("config.yaml"), "--dry-run", *more)
        out = self.succeed(*line, env={"OPENBLAS_NUM_THREADS": "2"}).outs[0]
        if "OpenBLAS" not in out:
            self.skipTest("no BLAS of which it is known how to tell it the number")
        return int(re.search(r"rank 0 .* (\d+) thread", out)[1])

    def test_small_models_use_one(self):
        self.assertEqual(self.threads(8), 1)
        self.assertEqual(self.threads(8, "device.threads=2"), 2)

    def test_large_ones_use_all(self):
        self.assertEqual(self.threads(512), 2)
        self.assertEqual(self.threads(512, "device.threads=1"), 1)


class TogetherTest(harness.ProgramTest):
    """Many processes without a launcher on one machine, as a sweep over settings starts them."""

    def test_alone_needs_no_session_folder(self):
        """Open MPI's is named alike for all of them: one would remove another's."""
        no_folder = self.write_text("file", "")
        self.succeed("devices", env={"TMPDIR": no_folder, "TMP": no_folder, "TEMP": no_folder})

    def test_many_at_once(self):
        with ThreadPoolExecutor(8) as pool:
            for done in pool.map(lambda _: self.run_program("devices"), range(40)):
                self.assertEqual(done.code, 0, str(done))


if __name__ == "__main__":
    unittest.main()
