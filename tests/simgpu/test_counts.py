#!/usr/bin/env python3
"""What a step costs on the device, counted by the simulated GPU and compared with the plan's own
formula: launches, graph nodes, host synchronisations, copies and bytes, allocations.

Two runs that differ only in their number of steps differ by the cost of those steps: setting up,
warming up and saving are the same in both.
"""

import json
import os
import re
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "program"))

import harness

INPUTS, OUTPUTS, BATCH, UNITS = 12, 3, 32, 8
TOGETHER = 4  # steps of a replay, where rows are on the device
SHORT, LONG = 1 + TOGETHER, 1 + 3 * TOGETHER  # steps; the first one is no replay
ROWS = BATCH * (INPUTS + OUTPUTS) * 4  # bytes of the rows of a step


def nodes(layers, buckets):
    """Of a step of dense layers with ReLU, the last one linear, fed by its own rows: forward
    products, loss with its gradient, products for weights and for inputs but the first's, seal,
    update; the gather; the sums."""
    forward, weights, inputs = layers, layers, layers - 1
    return forward + 1 + weights + inputs + 1 + 1 + 1 + buckets


class CountTest(harness.ProgramTest):
    def config(self, steps, layers):
        """One epoch of so many steps."""
        hidden = {"dense": {"units": UNITS, "activation": "relu"}}
        rows = {"rows": steps * BATCH, "inputs": INPUTS, "outputs": OUTPUTS}
        return self.write_config(
            {
                "data": {"train": {"synthetic": rows}},
                "model": [hidden] * (layers - 1) + [{"dense": {"units": OUTPUTS}}],
                "loss": "mean_squared_error",
                "train": {"batch_size": BATCH, "epochs": 1},
                "checkpoint": {"every_epochs": 0},
                "device": "gpu",
            }
        )

    def count(self, steps, ranks, layers, *settings):
        """Counters of rank 0 after a run."""
        env = {"SIMGPU_COUNTERS": self.path("counters.%r")}
        line = ("train", self.config(steps, layers), "--overwrite", "run.folder=run", *settings)
        self.succeed(*line, ranks=ranks, env=env)
        with open(self.path("counters.0"), encoding="utf-8") as f:
            return json.load(f)

    def of_a_step(self, ranks, layers, *settings):
        """Each counter's growth a step, and the nodes of the graph."""
        few = self.count(SHORT, ranks, layers, *settings)
        many = self.count(LONG, ranks, layers, *settings)
        self.assertEqual(few["graph_nodes"], many["graph_nodes"])
        cost = {k: (many[k] - few[k]) / (LONG - SHORT) for k in few if k != "rank"}
        cost["graph_nodes"] = many["graph_nodes"]
        return cost

    def check_step(self, cost, layers, buckets, together):
        """together: steps of a replay."""
        step = nodes(layers, buckets)
        self.assertEqual(step - buckets - 1, 3 * layers + 2)
        self.assertEqual(cost["graph_nodes"], together * step)
        self.assertEqual(cost["graph_launches"], 1 / together)
        self.assertEqual(cost["nodes_run"], step)
        for outside in ("kernels", "products", "collectives", "fills"):
            self.assertEqual(cost[outside], 0, outside)
        for never in (
            "host_syncs",
            "copies_to_host",
            "bytes_to_host",
            "copies_on_device",
            "pageable_copies",
            "allocations",
            "host_allocations",
            "frees",
            "findings",
        ):
            self.assertEqual(cost[never], 0, never)

    def test_rows_on_the_device(self):
        """One copy a replay, the orders of its steps: the table is copied once, at the start."""
        orders = set()
        for ranks in (1, 2):
            for layers in (1, 2, 3):
                with self.subTest(ranks=ranks, layers=layers):
                    cost = self.of_a_step(ranks, layers)
                    self.check_step(cost, layers, 1 if ranks > 1 else 0, TOGETHER)
                    self.assertEqual(cost["copies_to_device"], 1 / TOGETHER)
                    orders.add(cost["bytes_to_device"] - ROWS)  # the longer run's longer table
        self.assertEqual(len(orders), 1, f"bytes of an order: {orders}")
        self.assertLess(orders.pop(), 512)

    def least_memory(self, layers):
        """Bytes that a run needs at the least, as it says when it gets less."""
        line = ("train", self.config(LONG, layers), "run.folder=small", "device.memory_limit=4K")
        err = self.run_program(*line, ranks=1).err
        found = re.search(r"needed: ([\d.]+) KiB \(", err)
        self.assertIsNotNone(found, err)
        return int(float(found.group(1)) * 1024) + 1024

    def test_rows_from_the_host(self):
        """Where the table does not fit: features and targets of the step's rows, and the order."""
        layers = 2
        on_device = self.of_a_step(1, layers)
        from_host = self.of_a_step(1, layers, f"device.memory_limit={self.least_memory(layers)}")
        self.check_step(from_host, layers, 0, 1)
        self.assertEqual(from_host["copies_to_device"], 3)
        self.assertEqual(from_host["bytes_to_device"], on_device["bytes_to_device"])


if __name__ == "__main__":
    unittest.main()
