#!/usr/bin/env python3
"""The same training as Keras: from its initial weights, without shuffling, on 1, 2 and 3 ranks.

The expected values in values/ were made by make_values.py, which also showed that rounding grows
little in these trainings. Losses and metrics of every epoch must agree to 1e-5 relative, counts of
hits exactly.
"""

import glob
import json
import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "program"))

import numpy as np

import harness

VALUES = os.path.join(HERE, "values")
TOLERANCE = 1e-5
RANKS = (1, 2, 3)


def load(name):
    with open(os.path.join(VALUES, name + ".json"), encoding="utf-8") as f:
        return json.load(f)


def configuration(name, expected):
    """The case's configuration with its files filled in."""
    config = expected["config"]
    data = dict(config["data"])
    for table in ("train", "validation"):
        if isinstance(data.get(table), dict):
            data[table] = dict(data[table], file=os.path.join(VALUES, name + ".h5"))
    weights = os.path.join(VALUES, name + ".weights.h5")
    return dict(
        config,
        data=data,
        train=dict(config["train"], init_from=weights),
        device=harness.DEVICE,
        checkpoint={"every_epochs": 0},
        run={"folder": "run"},
    )


class TrainingTest(harness.ProgramTest):
    def check_case(self, name):
        expected = load(name)
        for ranks in RANKS:
            with self.subTest(ranks=ranks):
                folder = f"run-{ranks}"
                config = self.write_config(configuration(name, expected))
                self.succeed("train", config, f"run.folder={folder}", ranks=ranks)
                self.compare(expected, self.path(folder))

    def compare(self, expected, run):
        log = harness.read_log(run)
        self.assertEqual(log[-1]["step"], expected["steps"])
        history = harness.read_history(run)
        for key, values in expected["history"].items():
            self.assertIn(key, history)
            self.assertEqual(len(history[key]), len(values), key)
            if key.endswith("accuracy"):
                rows = expected["validation_rows" if key.startswith("val_") else "rows"]
                hits = [round(v * rows) for v in values]
                ours = [v * rows for v in history[key]]
                np.testing.assert_allclose(ours, hits, rtol=0, atol=1e-6 * rows, err_msg=key)
            else:
                np.testing.assert_allclose(history[key], values, rtol=TOLERANCE, err_msg=key)
        self.compare_norms(expected["layer_norms"], harness.checkpoints(run)[-1])

    def compare_norms(self, expected, path):
        """Layers of these models are all dense, so they are numbered dense, dense_1, ..."""
        found = harness.read_layers(path)
        for number, norm in enumerate(expected):
            group = "dense" if number == 0 else f"dense_{number}"
            parts = [found[f"{group}/vars/{index}"].astype("f8") for index in (0, 1)]
            ours = np.sqrt(sum(np.sum(part**2) for part in parts))
            np.testing.assert_allclose(ours, norm, rtol=TOLERANCE, err_msg=group)


def add_cases():
    """One test a committed case, so that a new file is a new test."""
    for path in sorted(glob.glob(os.path.join(VALUES, "*.json"))):
        name = os.path.basename(path)[: -len(".json")]
        if "config" in load(name):

            def test(self, name=name):
                self.check_case(name)

            setattr(TrainingTest, f"test_{name}", test)


add_cases()

if __name__ == "__main__":
    unittest.main()
