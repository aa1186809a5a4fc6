#!/usr/bin/env python3
"""The module with one thing broken on purpose: the conformance suite over it ends in a finding.

What is broken is said in doctored.py. SIMGPU_CONFORMANCE is the suite's program, SIMGPU_DOCTORED
the folder with a folder of each case's module; SIMGPU_SEEDS how many seeds to try beside the lazy
order.
"""

import os
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "program"))

import doctored
import harness

PROGRAM = os.environ["SIMGPU_CONFORMANCE"]
FOLDER = os.environ["SIMGPU_DOCTORED"]
SEEDS = int(os.environ.get("SIMGPU_SEEDS", "1"))
ORDERS = [{"SIMGPU_SEED": str(seed + 1)} for seed in range(SEEDS)] + [{"SIMGPU_LAZY": "1"}]
FINDING = 99


def run(name, order):
    case = doctored.CASES[name]
    settings = {
        "SIMGPU_DEVICES": "4",
        "LOCKSTEP_BACKEND_DIR": os.path.join(FOLDER, name),
        "OMPI_MCA_odls_base_sigkill_timeout": "0",
        **order,
    }
    line = [PROGRAM] if case.ranks == 1 else harness.mpirun(case.ranks) + [PROGRAM]
    return subprocess.run(
        line,
        env=harness.environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


class DoctoredTest(unittest.TestCase):
    def check(self, name):
        case = doctored.CASES[name]
        for order in ORDERS:
            with self.subTest(case=name, **order):
                result = run(name, order)
                said = result.stderr + result.stdout[-2000:]
                if case.finding is None:
                    self.assertEqual(result.returncode, 0, said)
                    self.assertIn("backend cuda", result.stdout)
                    self.assertNotIn("simgpu:", result.stderr)
                else:
                    self.assertRegex(result.stderr, "simgpu: " + case.finding)
                    self.assertEqual(result.returncode, FINDING, said)


def add_tests():
    for name in doctored.CASES:
        setattr(DoctoredTest, "test_" + name, lambda self, name=name: self.check(name))


add_tests()

if __name__ == "__main__":
    unittest.main()
