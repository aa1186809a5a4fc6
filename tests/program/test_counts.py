#!/usr/bin/env python3
"""What a step takes: instructions, memory, system calls, messages. Counted and not timed.

Two runs over the same rows differ in the number of their steps alone, so what they both take (at
the start, an epoch's end, for checkpoints) falls out of the difference.
"""

import os
import re
import shutil
import subprocess
import unittest

import h5py
import numpy as np

import harness

ROWS = 8192
FEW, MANY = ROWS // 256, ROWS // 8  # steps
# Counts of the same run differ by a few: by paths' lengths, and by when another thread is done.
# One call in every sixteenth step would be more than this.
SLACK = (MANY - FEW) // 16

CONFIG = f"""\
data: {{train: {{synthetic: {{rows: {ROWS}, inputs: 20}}}}}}
model:
  - dense: {{units: 16, activation: relu}}
  - dropout: {{rate: 0.1}}
  - dense: {{units: 1}}
loss: mse
train: {{epochs: 1}}
run: {{folder: run, progress: none}}
device: cpu
"""

# A workload that is nothing but overhead: the first of docs/performance.md.
SMALL = """\
data: {train: {synthetic: {rows: 1600, inputs: 100}}}
model:
  - dense: {units: 10, activation: relu}
  - dense: {units: 1}
loss: mse
optimizer: adam
train: {batch_size: 32}
checkpoint: {every_epochs: 0}
run: {folder: run, progress: none}
device: cpu
"""

# MPI's functions that the program may call without their being counted: they send nothing, or are
# of the start and the end. MPI_Test is how the program waits for slow ranks while it starts.
UNCOUNTED = re.compile(
    r"MPI_(Abort|Comm_\w+|Error_string|Finalized?|Get_\w+|Info_\w+|Init\w*|Test|Win_\w+)"
)


def most_instructions():
    """Of a step of SMALL, in 256-bit vectors: what each part takes, and a fifth for compilers."""
    rows, inputs, hidden, lanes = 32, 100, 10, 8
    vectors = -(-hidden // lanes)
    parameters = (inputs + 1) * hidden + hidden + 1
    # Two products of rows x inputs x hidden, a multiply-add for each vector of hidden; with loads,
    # broadcasts, loops and edges of tiles 2.5 instructions for each.
    products = 2 * rows * inputs * vectors * 2.5
    # A keyed permutation's six rounds of 35 in vectors; a few walks leave the table and go on.
    order = rows / lanes * 6 * 35 + rows * 40
    gather = rows * (inputs // lanes * 3 + 40)  # a row: load, store, count; finding it
    update = parameters / lanes * 30  # moments, root, division
    # Bias, activation and slope of the hidden layer; the second layer, of one unit; the loss.
    units = rows * (hidden * 12 + 60)
    step = 7000  # calls, choosing kernels, powers of the betas, votes, the control block
    return 1.2 * (products + order + gather + update + units + step)


def padded_floats(layers):
    """Parameters of dense layers as they lie in memory: each tensor begins a cache line of 256."""
    sizes = [n for i, o in zip(layers, layers[1:]) for n in (i * o, o)]
    return sum(-(-n // 64) * 64 for n in sizes)


class CountsTest(harness.ProgramTest):
    def setUp(self):
        super().setUp()
        self.write_text("config.yaml", CONFIG)

    def line(self, steps, *more):
        batch = f"train.batch_size={ROWS // steps}"
        return ["train", "config.yaml", "--overwrite", batch, *more]

    def skip_sanitizers(self):
        with open(harness.PROGRAM, "rb") as file:
            text = file.read()
        if b"__asan_init" in text or b"__tsan_init" in text:
            self.skipTest("a sanitizer allocates and calls for itself")

    def check(self, few, many, what):
        self.assertGreater(few, 0, f"{what}: nothing was counted")
        self.assertLess(many - few, SLACK, f"{what}: {few} in {FEW} steps, {many} in {MANY}")

    def check_ways(self, what, library, ranks):
        """What the library counts, by each way in which ranks of a node can make gradients."""
        for way in ("rows", "owners", "leader") if ranks > 1 else ("auto",):
            more = f"device.gradients={way}"
            few = self.counted(library, self.line(FEW, more), ranks)
            many = self.counted(library, self.line(MANY, more), ranks)
            for rank in range(max(ranks, 1)):
                who = f"{what} of rank {rank} of {ranks}, by {way}"
                self.check(few[rank][0], many[rank][0], who)

    def built(self, name, compiler):
        """A library to preload, of a source beside this file."""
        self.skip_sanitizers()
        return harness.build_library(name, self.folder, compiler)

    def counted(self, library, line, ranks, **env):
        """What the library counted of each rank's main thread, as lists of numbers."""
        program = os.path.realpath(harness.PROGRAM)
        counts = self.path("counts")
        env.update(LD_PRELOAD=library, COUNTS=counts, COUNTS_OF=program)
        self.succeed(*line, ranks=ranks, env=env)
        numbers = range(max(ranks, 1))
        return [list(map(int, harness.read_text(f"{counts}.{r}").split())) for r in numbers]

    # -- allocations

    def test_a_step_allocates_nothing(self):
        library = self.built("count_allocations", os.environ.get("CC", "cc"))
        for ranks in (0, 2, 3):
            self.check_ways("allocations", library, ranks)

    # -- messages

    def messages(self):
        """The counter, after a look that it knows every call of the program which communicates."""
        library = self.built("count_messages", os.environ.get("MPICC", "mpicc"))
        folder = os.path.dirname(os.path.dirname(os.path.realpath(harness.PROGRAM)))
        ours = os.path.join(folder, "lib", "liblockstep.so")
        parts = [harness.PROGRAM] + ([ours] if os.path.exists(ours) else [])
        called, known = (
            set(re.findall(r"\bMPI_\w+", self.symbols(state, files)))
            for state, files in (("undefined", parts), ("defined", [library]))
        )
        self.assertIn("MPI_Allgather", called)
        self.assertEqual({c for c in called - known if not UNCOUNTED.fullmatch(c)}, set())
        return library

    def symbols(self, state, files):
        line = ["nm", "-D", f"--{state}-only", *files]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        return "\n".join(s for s in done.stdout.splitlines() if "ompi_mpi_" not in s)

    @unittest.skipIf(shutil.which("nm") is None, "no nm")
    def test_a_step_on_one_node_sends_nothing(self):
        self.check_ways("MPI calls", self.messages(), 3)

    @unittest.skipIf(shutil.which("nm") is None, "no nm")
    def test_a_step_on_several_nodes_sends_the_least(self):
        """A large model: 2 (n - 1) / n of its floats, the least that a sum over n nodes takes.
        A small one: (n - 1) times its floats, in one message each. The ranks of a node share it."""
        library = self.messages()
        for ranks, nodes, units in ((2, 2, 16), (4, 2, 16), (3, 3, 16), (3, 3, 1500)):
            with self.subTest(ranks=ranks, nodes=nodes, units=units):
                large = units > 1000
                more = [f"model.0.units={units}"]
                runs = [
                    self.counted(library, self.line(steps, *more), ranks, PRETEND_NODES=str(nodes))
                    for steps in (FEW, MANY)
                ]
                slices = ranks // nodes
                floats = padded_floats((20, units, 1))
                # Behind each slice: the control block (a line of 64 floats at most), and what
                # makes slices whole lines and pieces equal.
                most = floats + slices * (64 + 64 + nodes)
                times = 2 * (nodes - 1) / nodes if large else nodes - 1
                for node in range(nodes):
                    mine = range(node * slices, (node + 1) * slices)
                    calls, sent = (
                        sum(runs[1][r][i] - runs[0][r][i] for r in mine) / (MANY - FEW)
                        for i in range(2)
                    )
                    self.assertAlmostEqual(calls, slices * (2 if large else 1), delta=1 / 16)
                    self.assertGreaterEqual(sent, times * 4 * ((20 + 1 + 1) * units + 1))
                    self.assertLess(sent, times * 4 * most)

    # -- instructions

    @unittest.skipIf(shutil.which("valgrind") is None, "no valgrind")
    def test_instructions_of_a_small_step(self):
        """Valgrind knows no wider vectors than 256 bits, so all processors that have them count
        alike. A loop that is no longer vectorised, or a product left to the BLAS, is far above."""
        if not {"avx2", "fma"} <= set(harness.read_text("/proc/cpuinfo").split()):
            self.skipTest("no AVX2: other kernels, another count")
        self.write_text("config.yaml", SMALL)
        steps = (50, 250)
        few, many = (
            self.instructions("lks_trainer_loop", f"train.epochs={n // 50}") for n in steps
        )
        step = (many - few) / (steps[1] - steps[0])
        self.assertGreater(step, 10000, "fewer than the multiplications: not all was counted")
        self.assertLess(step, most_instructions())

    @unittest.skipIf(shutil.which("valgrind") is None, "no valgrind")
    def test_instructions_of_reading(self):
        """A float of a file in chunks is copied into HDF5's cache and out of it, at most a byte an
        instruction (one repeated instruction counts often), and looked at once; then there is what
        a chunk takes. Converting it on the way, or finding its place in the chunk by itself, takes
        some ten to a hundred."""
        rows, columns, chunk = 4096, 64, 256
        with h5py.File(self.path("data.h5"), "w") as file:
            x = np.linspace(0, 1, rows * columns, dtype="f4").reshape(rows, columns)
            file.create_dataset("x", data=x, chunks=(chunk, columns))
            file["y"] = x[:, :1]
        config = harness.regression_config(
            model=[{"dense": {"units": 1}}], train={"epochs": 1, "batch_size": 1024}
        )
        self.write_config(config)
        count = self.instructions("lks_table_load")
        self.assertGreater(count, rows * columns / 8)
        self.assertLess(count, rows * columns * 12 + rows / chunk * 10000)

    def instructions(self, function, *more):
        """Of a function of the training program, all that it calls included."""
        self.skip_sanitizers()
        about = self.succeed("--version", "--verbose").out
        if not re.search(r"^build +Rel", about, re.MULTILINE):
            self.skipTest("not an optimised build")
        out = self.path("callgrind")
        flags = ["--tool=callgrind", f"--callgrind-out-file={out}", "--collect-atstart=no",
                 f"--toggle-collect={function}"]  # fmt: skip
        line = harness.command(["train", "config.yaml", "--overwrite", *more], 0)
        done = subprocess.run(["valgrind", *flags, *line], cwd=self.folder,
                              env=harness.environment(), capture_output=True, text=True,
                              timeout=harness.TIMEOUT, check=False)  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        return int(re.search(r"^totals: (\d+)", harness.read_text(out), re.MULTILINE).group(1))

    # -- system calls

    def trace(self, ranks, *more):
        """System calls of rank 0's main thread between the log's lines of start and epoch."""
        trace = self.path("trace")
        line = ["sh", "-c", f'exec strace -qq -o "{trace}.${{OMPI_COMM_WORLD_RANK:-0}}" "$@"', "sh",
                *harness.command(self.line(MANY, *more), 0)]  # fmt: skip
        line = harness.mpirun(ranks) + line if ranks > 1 else line
        env = harness.environment()
        done = subprocess.run(line, cwd=self.folder, env=env, capture_output=True, text=True,
                              timeout=harness.TIMEOUT, check=False)  # fmt: skip
        if "ptrace" in done.stderr:
            self.skipTest("tracing is not allowed here")
        self.assertEqual(done.returncode, 0, done.stderr)
        text = harness.read_text(f"{trace}.0")
        calls = [call for call in text.splitlines() if not call.startswith("---")]
        start, epoch = (
            [i for i, call in enumerate(calls) if f'{{\\"event\\":\\"{name}\\"' in call]
            for name in ("start", "epoch")
        )
        self.assertEqual((len(start), len(epoch)), (1, 1))
        return calls[start[0] + 1 : epoch[0]]

    @unittest.skipIf(shutil.which("strace") is None, "no strace")
    def test_a_step_makes_no_system_call(self):
        self.skip_sanitizers()
        self.assertEqual(self.trace(1), [])
        for way in ("rows", "owners", "leader"):
            with self.subTest(gradients=way):
                calls = self.trace(2, f"device.gradients={way}")
                # Who waits long offers its core to others. An epoch's end is MPI's.
                calls = [call for call in calls if not call.startswith("sched_yield")]
                self.assertLess(len(calls), SLACK, calls)


if __name__ == "__main__":
    unittest.main()
