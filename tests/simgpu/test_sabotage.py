#!/usr/bin/env python3
"""Programs that break a rule of cuBLASLt or NCCL end in the right finding, under every seed; the
same programs with the rule kept end well.

SIMGPU_SABOTAGE is the program; SIMGPU_SEEDS how many seeds to try beside the lazy order.
"""

import os
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "program"))

import harness

PROGRAM = os.environ["SIMGPU_SABOTAGE"]
SEEDS = int(os.environ.get("SIMGPU_SEEDS", "3"))
FINDING = 99

# What each wrong case is found by.
FOUND_BY = {
    "collective_count": r"collective: .* sums (1000 elements, but 999|999 elements, but 1000)",
    "collective_order": r"collective: .* sums (1000 elements, but 10|10 elements, but 1000) on",
    "collective_missing": r"collective: .* sums 1000 elements, but rank 1 never made it",
    "collective_early": r"race: .*('copy on the device' writes|'nccl collective' reads)",
    "collective_late": r"race: .*(copy on the device reads|nccl collective writes) .*which '",
    "collective_bounds": r"bounds: .* nccl collective reads 4004 bytes at \+4000 of device block",
    "communicator_first": r"handle: .*ncclCommDestroy while a graph holds collectives",
    "product_early": r"race: .*(bias reads .*'fill' writes|fill writes .*'cublasLtMatmul' reads)",
    "workspace_shared": r"race: .*cublasLtMatmul workspace writes .*'cublasLtMatmul' writes",
    "workspace_read": r"uninitialised: .* nothing wrote",
    "mask_unwritten": r"uninitialised: .*cublasLtMatmul mask reads",
    "mask_bounds": r"bounds: .*cublasLtMatmul mask writes 16 bytes",
    "product_in_place": r"race: .*cublasLtMatmul writes D over one of its own inputs",
}


def run(case, form, many, order):
    line = [PROGRAM, case, form]
    env = harness.environment(
        {"SIMGPU_DEVICES": "2", "OMPI_MCA_odls_base_sigkill_timeout": "0", **order}
    )
    if many:
        line = harness.mpirun(2) + line
    return subprocess.run(
        line, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )


ORDERS = [{"SIMGPU_SEED": str(seed + 1)} for seed in range(SEEDS)] + [{"SIMGPU_LAZY": "1"}]


class SabotageTest(unittest.TestCase):
    def listed(self):
        text = subprocess.run([PROGRAM, "list"], capture_output=True, text=True, check=True).stdout
        return [line.split() for line in text.splitlines()]

    def test_all_cases_are_known(self):
        self.assertEqual({name for name, _ in self.listed()}, set(FOUND_BY))

    def check(self, kind):
        for case, where in self.listed():
            if where != kind:
                continue
            many = kind == "ranks"
            right = run(case, "right", many, ORDERS[0])
            self.assertEqual(right.returncode, 0, f"{case}: {right.stderr}")
            self.assertNotIn("simgpu:", right.stderr)
            for order in ORDERS:
                with self.subTest(case=case, **order):
                    wrong = run(case, "wrong", many, order)
                    self.assertRegex(wrong.stderr, "simgpu: " + FOUND_BY[case])
                    self.assertEqual(wrong.returncode, FINDING, wrong.stderr)

    def test_alone(self):
        self.check("alone")

    def test_ranks(self):
        self.check("ranks")


if __name__ == "__main__":
    unittest.main()
