#!/usr/bin/env python3
"""What is wrong with a cluster is said before a run, with the fix."""

import unittest

import slurm
from cluster import harness, made_rows


class CheckTest(slurm.SlurmTest):
    def check(self):
        launched = self.mpirun("check")
        self.assertEqual(launched.wait(120), 0, launched.text())
        return {line.split()[0]: line for line in launched.text().splitlines() if line.strip()}

    def test_links(self):
        said = self.check()
        self.assertRegex(said["links"], r"values right; .*GB/s")
        self.assertNotIn("gigabit", said["links"])
        self.cluster.rate("n2", "1gbit")
        self.addCleanup(self.cluster.rate, "n2")
        said = self.check()
        self.assertRegex(said["links"], "slowest from n[12] to n[12].*faster network")

    def test_small_shared_memory(self):
        self.cluster.shell("mount -t tmpfs -o size=1m none /dev/shm", "n2")
        self.addCleanup(self.cluster.shell, "umount /dev/shm", "n2")
        said = self.check()
        self.assertRegex(said["memory"], "MiB free in /dev/shm, the least on n2; .*--shm-size")

    def test_srun_without_pmix(self):
        """Ranks that do not find each other never train, each alone: MPI refuses, or lockstep."""
        self.write_config(harness.regression_config(data={"train": made_rows(100, 4)}))
        line = ["srun", "-N2", "--ntasks-per-node=2", harness.PROGRAM, "train", "config.yaml"]
        launched = self.cluster.start(line, self.folder)
        self.addCleanup(launched.close)
        self.assertNotEqual(launched.wait(60), 0)
        self.assertRegex(launched.text(), "PMI")
        self.assertEqual(harness.checkpoints(self.path("run")), [])


if __name__ == "__main__":
    unittest.main()
