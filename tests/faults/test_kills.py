#!/usr/bin/env python3
"""SIGKILLs at random moments: each leaves a checkpoint that loads, and the run goes on from it.

20 of them, or 200 with LOCKSTEP_TEST_LONG=1."""

import os
import random
import re
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "program"))

import h5py
import numpy as np

import harness
from harness import regression_config, regression_rows

KILLS = 200 if os.environ.get("LOCKSTEP_TEST_LONG") == "1" else 20
SEED = 20240607

ROWS, BATCH = 2000, 64
EPOCH_STEPS = -(-(ROWS - ROWS // 10) // BATCH)


class KillsTest(harness.ProgramTest):
    def step_of(self, path):
        return int(re.search(r"step-(\d+)", path)[1])

    def check_checkpoints(self):
        """Every file under a final name is whole; returns the newest one's step."""
        paths = harness.checkpoints(self.path("run"))
        best = self.path("run", "checkpoints", "best.weights.h5")
        for path in paths + ([best] if os.path.exists(best) else []):
            for name, values in harness.read_layers(path).items():
                self.assertTrue(np.isfinite(values).all(), f"{path}: {name}")
            with h5py.File(path) as f:
                self.assertIn("lockstep", f)
        if not paths:
            return 0
        self.succeed("inspect", paths[-1])
        return self.step_of(paths[-1])

    def check_history(self):
        path = self.path("run", "history.h5")
        if os.path.exists(path):
            with h5py.File(path) as f:
                for values in f.get("epoch", {}).values():  # none before the first epoch's end
                    self.assertTrue(np.isfinite(values[()]).all())

    def test_kills(self):
        rng = random.Random(SEED)
        x, y = regression_rows(ROWS)
        self.write_h5("data.h5", x=x, y=y)
        config = self.write_config(
            regression_config(
                # Slow enough to write, so that many kills fall into a write.
                model=[{"dense": {"units": units}} for units in (512, 512, 2)],
                data={"validation": 0.1},
                train={"batch_size": BATCH, "epochs": 1000000},
                checkpoint={"every_steps": 5, "keep": 2},
            )
        )
        newest, moved = 0, 0
        for number in range(KILLS):
            ranks = rng.choice((0, 2))
            running = self.start("train", config, ranks=ranks)
            running.until(lambda: len(running.rank_pids()) == max(ranks, 1), "its ranks")
            time.sleep(rng.uniform(0.0, 2.0))
            self.assertIsNone(running.process.poll(), f"kill {number}: {running.text()}")
            # All ranks at once, or one of them, after which the others must end by themselves.
            if rng.random() < 0.5:
                running.kill_ranks()
            else:
                running.signal_rank(rng.randrange(max(ranks, 1)), 9)
                self.assertNotEqual(running.wait(), 0)
            step = self.check_checkpoints()
            self.check_history()
            self.assertGreaterEqual(step, newest, f"kill {number}: a checkpoint was lost")
            moved += step > newest
            newest = step
            running.close()
        # Runs that are killed before they write anything would show little.
        self.assertGreater(moved, KILLS // 4)
        epochs = newest // EPOCH_STEPS + 1
        self.succeed("train", config, f"train.epochs={epochs}", ranks=2)
        self.assertEqual(harness.read_log(self.path("run"))[-1]["step"], epochs * EPOCH_STEPS)
        self.assertEqual(harness.leftovers(self.folder), [])


if __name__ == "__main__":
    unittest.main()
