"""The four workloads that Lockstep and its peers are timed on, so that one table compares them.

`lockstep bench` measures the same four (src/train/bench.c).
"""

from typing import NamedTuple


class Workload(NamedTuple):
    widths: tuple  # columns of the input, then units of each layer
    classes: bool  # the last layer scores classes (cross-entropy), else fits numbers (mse)
    batch: int  # rows of an update, over all ranks
    rows: int
    epochs: int

    @property
    def steps(self):
        """Updates of an epoch, whole batches only: all peers leave the remainder out but Keras."""
        return self.rows // self.batch


WORKLOADS = {
    "seed": Workload((100, 10, 1), False, 32, 10_000, 10),
    "fashion": Workload((784, 128, 10), True, 128, 60_000, 5),
    "surrogate": Workload((8, 64, 64, 64, 1), False, 1024, 100_000, 5),
    "wide": Workload((1024, 2048, 2048, 2048, 10), True, 512, 8192, 3),
}
