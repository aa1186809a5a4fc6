"""What Lockstep and its peers are timed on: four workloads, and shapes at the ends of the range.

`lockstep bench` measures the same four (src/train/bench.c).
"""

from typing import NamedTuple


class Workload(NamedTuple):
    widths: tuple  # columns of the input, then units of each layer
    classes: bool  # the last layer scores classes (cross-entropy), else fits numbers (mse)
    batch: int  # rows of an update, over all ranks
    rows: int
    epochs: int
    activation: str = "relu"  # of all layers but the last, by the name that all peers have for it

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

SHAPES = {
    "line": Workload((1, 1), False, 32, 50_000, 5),
    "single": Workload((100, 10, 1), False, 1, 20_000, 5),
    "layer": Workload((256, 10), True, 256, 60_000, 5),
    "full": Workload((4, 32, 16, 4), False, 10_000, 10_000, 200),
    "deep": Workload((64,) * 12 + (1,), False, 256, 50_000, 5),
    "neck": Workload((784, 32, 784), False, 256, 20_000, 5),
    "large": Workload((8, 64, 64, 1), False, 65_536, 262_144, 5),
    "broad": Workload((512, 4096, 4096, 10), True, 256, 4096, 3),
    "few": Workload((512, 4096, 4096, 10), True, 16, 256, 3),
    "middle": Workload((1024, 1024, 1024, 10), True, 32, 1024, 4),
    "smooth": Workload((8, 64, 64, 64, 1), False, 1024, 100_000, 5, "tanh"),
    "silu": Workload((16, 256, 256, 1), False, 512, 50_000, 5, "silu"),
}

ALL = {**WORKLOADS, **SHAPES}


def config_of(work):
    """As `lockstep train` takes it; its folder is `run`."""
    kind = f"classes: {work.widths[-1]}" if work.classes else f"outputs: {work.widths[-1]}"
    act = work.activation
    hidden = [f"{{dense: {{units: {units}, activation: {act}}}}}" for units in work.widths[1:-1]]
    layers = ", ".join([*hidden, f"{{dense: {{units: {work.widths[-1]}}}}}"])
    loss = "sparse_categorical_crossentropy" if work.classes else "mean_squared_error"
    return (
        f"data: {{train: {{synthetic: {{rows: {work.rows}, inputs: {work.widths[0]}, {kind}}}}}}}\n"
        f"model: [{layers}]\n"
        f"loss: {loss}\n"
        f"optimizer: adam\n"
        f"train: {{batch_size: {work.batch}, epochs: {work.epochs}}}\n"
        f"run: {{folder: run, progress: none}}\n"
        f"device: cpu\n"
    )
