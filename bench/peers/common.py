"""What the scripts of all peers share: their rows, and the line that they end with."""

import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from workloads import ALL  # noqa: E402


def rows_of(name, numpy):
    """Standard normal features, and targets of noise: features [rows, inputs] float32."""
    work = ALL[name]
    random = numpy.random.default_rng(0)
    features = random.standard_normal((work.rows, work.widths[0]), dtype="float32")
    if work.classes:
        return features, random.integers(work.widths[-1], size=work.rows, dtype="int32")
    return features, random.standard_normal((work.rows, work.widths[-1]), dtype="float32")


class Epochs:
    """Times epochs: the best counts, for what disturbs one only ever adds to it."""

    def __init__(self, steps):
        self.steps = steps
        self.best = float("inf")

    def begin(self):
        self.began = time.perf_counter()

    def end(self):
        self.best = min(self.best, (time.perf_counter() - self.began) / self.steps)


def report(version, epochs):
    print(json.dumps({"version": version, "step_us": epochs.best * 1e6}), flush=True)
