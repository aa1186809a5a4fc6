#!/usr/bin/env python3
"""Tests of the CPU keep off GPUs: on a machine with one that works, the harness hides it."""

import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "program"))

import harness


class HiddenTest(harness.ProgramTest):
    def test_check_takes_the_cpu_alone(self):
        seen = {name: "" for name in harness.SIGHT}
        self.assertIn("Num GPUs Available: 1\n", self.succeed("devices", env=seen).out)
        self.assertIn("Num GPUs Available: 0\n", self.succeed("devices").out)
        out = self.succeed("check", ranks=2).out
        self.assertIn("backend cpu", out)
        self.assertNotIn("backend cuda", out)


if __name__ == "__main__":
    unittest.main()
