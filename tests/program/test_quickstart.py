#!/usr/bin/env python3
"""jobs/quickstart on machines with and without GPUs, with nothing to build and a launcher that only
tells how it is called."""

import os
import shutil
import subprocess
import unittest

from device_fixture import DeviceTest
from harness import PROGRAM, ROOT, environment


class QuickstartTest(DeviceTest):
    def tool(self, name, script):
        path = self.write_text(os.path.join("tools", name), f"#!/bin/sh\n{script}\n")
        os.chmod(path, 0o755)

    def quickstart(self, env):
        """How it calls the launcher, and what it says."""
        os.makedirs(self.path("clone/build/release/bin"), exist_ok=True)
        os.makedirs(self.path("clone/configs/data"), exist_ok=True)
        os.makedirs(self.path("tools"), exist_ok=True)
        shutil.copytree(os.path.join(ROOT, "jobs"), self.path("clone/jobs"), dirs_exist_ok=True)
        os.symlink(PROGRAM, self.path("clone/build/release/bin/lockstep"))
        self.write_text("clone/configs/data/fashion_mnist.h5", "")
        self.tool("cmake", "exit 0")
        self.tool("mpirun", 'echo "called: $*"')
        path = f"{self.path('tools')}:{os.environ['PATH']}"
        done = subprocess.run(
            [self.path("clone/jobs/quickstart")],
            env=environment(env | {"PATH": path}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        called = [line for line in done.stdout.splitlines() if line.startswith("called: ")]
        return called[0].split()[1:4], done.stdout

    def test_one_gpu(self):
        called, said = self.quickstart(self.machine(gpus=1))
        self.assertEqual(called[:2], ["-n", "1"])
        self.assertIn("== Training on one rank, for there is one GPU: mpirun -n 1 build", said)

    def test_several_gpus(self):
        called, said = self.quickstart(self.machine(gpus=3))
        self.assertEqual(called[:2], ["-n", "2"])
        self.assertIn("== Training on two ranks, a GPU each: mpirun -n 2 build", said)

    def test_no_gpu(self):
        called, said = self.quickstart(self.nothing())
        self.assertEqual(called[:2], ["-n", "2"])
        self.assertIn("== Training on two ranks: mpirun -n 2 build", said)

    def test_a_device_that_fails(self):
        env = self.machine() | {"FAKE_FAIL": "count=802"}
        self.assertEqual(self.quickstart(env)[0][:2], ["-n", "2"])


if __name__ == "__main__":
    unittest.main()
