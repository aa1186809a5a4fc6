#!/usr/bin/env python3
"""What a step takes from the system: no memory and no system call, counted and not timed.

Two runs over the same rows differ in the number of their steps alone, so what they both allocate
(at the start, an epoch's end, for checkpoints) falls out of the difference.
"""

import os
import shutil
import subprocess
import unittest

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


class CountsTest(harness.ProgramTest):
    def setUp(self):
        super().setUp()
        self.write_text("config.yaml", CONFIG)

    def line(self, steps):
        batch = f"train.batch_size={ROWS // steps}"
        return ["train", "config.yaml", "--overwrite", batch]

    def skip_sanitizers(self):
        with open(harness.PROGRAM, "rb") as file:
            text = file.read()
        if b"__asan_init" in text or b"__tsan_init" in text:
            self.skipTest("a sanitizer allocates and calls for itself")

    def check(self, few, many, what):
        self.assertGreater(few, 0, f"{what}: nothing was counted")
        self.assertLess(many - few, SLACK, f"{what}: {few} in {FEW} steps, {many} in {MANY}")

    # -- allocations

    def counter(self):
        self.skip_sanitizers()
        library = self.path("count_allocations.so")
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "count_allocations.c")
        flags = ["-std=c11", "-D_GNU_SOURCE", "-fno-builtin", "-shared", "-fPIC", "-o", library]
        subprocess.run([os.environ.get("CC", "cc"), *flags, source], check=True)
        return library

    def allocations(self, library, steps, ranks):
        """Of each rank's main thread."""
        counts = self.path("allocations")
        program = os.path.realpath(harness.PROGRAM)
        env = {"LD_PRELOAD": library, "ALLOCATIONS": counts, "ALLOCATIONS_OF": program}
        self.succeed(*self.line(steps), ranks=ranks, env=env)
        numbers = range(max(ranks, 1))
        return [int(harness.read_text(f"{counts}.{rank}")) for rank in numbers]

    def test_a_step_allocates_nothing(self):
        library = self.counter()
        for ranks in (0, 2, 3):
            few = self.allocations(library, FEW, ranks)
            many = self.allocations(library, MANY, ranks)
            for rank in range(max(ranks, 1)):
                self.check(few[rank], many[rank], f"allocations of rank {rank} of {ranks}")

    # -- system calls

    @unittest.skipIf(shutil.which("strace") is None, "no strace")
    def test_a_step_makes_no_system_call(self):
        """Between the log's line at the start and that of the epoch, the main thread makes none."""
        self.skip_sanitizers()
        trace = self.path("trace")
        line = ["strace", "-qq", "-o", trace, *harness.command(self.line(MANY), 0)]
        env = harness.environment()
        done = subprocess.run(line, cwd=self.folder, env=env, capture_output=True, text=True,
                              timeout=harness.TIMEOUT, check=False)  # fmt: skip
        if "ptrace" in done.stderr:
            self.skipTest("tracing is not allowed here")
        self.assertEqual(done.returncode, 0, done.stderr)
        calls = [c for c in harness.read_text(trace).splitlines() if not c.startswith("---")]
        start, epoch = (
            [i for i, call in enumerate(calls) if f'{{\\"event\\":\\"{name}\\"' in call]
            for name in ("start", "epoch")
        )
        self.assertEqual((len(start), len(epoch)), (1, 1))
        self.assertEqual(calls[start[0] + 1 : epoch[0]], [])


if __name__ == "__main__":
    unittest.main()
