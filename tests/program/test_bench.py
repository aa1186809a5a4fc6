#!/usr/bin/env python3
"""lockstep bench: which lines and parts it prints. What the times are is no matter here."""

import json
import os
import unittest

import harness

SMALL = """\
data: {train: {synthetic: {rows: 200, inputs: 5}}}
model: [{dense: {units: 4, activation: relu}}, {dense: {units: 1}}]
loss: mse
train: {batch_size: 16}
"""


PARTS = ("input", "compute", "exchange", "update")
SHOWN = 1e-5  # six digits are printed: the error of a sum of four, relative to it, is below this


class BenchTest(harness.ProgramTest):
    def test_json_has_the_parts_of_each_step(self):
        self.write_text("config.yaml", SMALL)
        for ranks in (0, 2, 3):
            ended = self.succeed(
                "bench", "config.yaml", "--json", "--seconds", "0.01", ranks=ranks
            )
            found = json.loads(ended.out)
            self.assertEqual(found["ranks"], max(ranks, 1))
            self.assertEqual([s["ranks"] for s in found["steps"]], [1, 2, 3][: max(ranks, 1)])
            self.assertEqual([s["ranks"] for s in found["limits"]], [1, 2, 3][: max(ranks, 1)])
            for limits in found["limits"]:
                self.assertGreater(limits["product_flops_per_s"], 0)
                self.assertGreater(limits["memory_bytes_per_s"], 0)
                for name in ("exchange_1000_s", "exchange_10000000_s"):
                    self.assertEqual(limits[name] > 0, limits["ranks"] > 1, name)
            for step in found["steps"]:
                self.assertEqual((step["batch"], step["parameters"]), (16, 29))
                parts = [step[f"{name}_s"] for name in PARTS]
                self.assertGreater(min(parts), 0)
                self.assertLess(sum(parts), step["step_s"] * (1 + SHOWN))
                self.assertLessEqual(step["best_step_s"], step["step_s"])
                self.assertGreater(step["of_peak"], 0)
                self.assertGreater(step["of_memory"], 0)
                self.assertEqual(step["of_exchange"] > 0, step["ranks"] > 1)
                self.assertGreaterEqual(step["steps"], 5)
        self.assertEqual(os.listdir(self.folder), ["config.yaml"])

    def test_text_has_a_line_for_each_number_of_ranks(self):
        self.write_text("config.yaml", SMALL)
        ended = self.succeed("bench", "config.yaml", "--seconds", "0.01", ranks=2)
        lines = [line.split()[:3] for line in ended.out.splitlines() if line.startswith("yours")]
        self.assertEqual(lines, [["yours", "1", "16"], ["yours", "2", "16"]])

    def test_without_a_configuration_the_built_in_workloads_run(self):
        ended = self.succeed("bench", "--json", "--seconds", "0.001", "train.batch_size=64")
        steps = json.loads(ended.out)["steps"]
        names = ["seed", "fashion", "surrogate", "wide"]
        self.assertEqual([(s["workload"], s["batch"]) for s in steps], [(n, 64) for n in names])

    def test_steps_that_update_nothing_are_not_timed(self):
        self.write_text("config.yaml", SMALL)
        optimizer = "optimizer={name: sgd, learning_rate: 1e6}"
        words = ["loss or gradients of step", "not finite", "lower optimizer.learning_rate"]
        for ranks in (0, 2):
            for way in ("rows", "owners", "leader"):
                line = ["config.yaml", "--seconds", "0.01", optimizer, f"device.gradients={way}"]
                self.fail_with(6, words, "bench", *line, ranks=ranks)

    def test_an_unusable_number_of_seconds(self):
        for given in ("soon", "0", "-1", "nan"):
            self.fail_with(2, ["--seconds", "between 0 and 3600"], "bench", f"--seconds={given}")


if __name__ == "__main__":
    unittest.main()
