#!/usr/bin/env python3
"""The two-node cluster itself: two machines to all that runs there, and gone with its owner."""

import os
import signal
import subprocess
import sys
import time
import unittest

import cluster
from cluster import harness, made_rows

# Brings a cluster up, says so with the pids of all nodes' first processes, and waits to be killed.
OWNER = """
import sys, time
sys.path.insert(0, sys.argv[1])
import cluster
made = cluster.Cluster().up()
print(*(node.pid for node in made.nodes.values()), flush=True)
time.sleep(60)
"""


class NodesTest(cluster.ClusterTest):
    def test_two_machines(self):
        for name in cluster.NODES:
            self.assertEqual(self.cluster.shell("hostname", name).strip(), name)
        # Not the same processes, shared memory or temporary files; but the same other files.
        places = ("/dev/shm", cluster.LOCAL, self.folder)
        self.cluster.shell("; ".join(f"touch {place}/mark" for place in places), "n1")
        listed = [self.cluster.shell(f"ls {place}", "n2").split() for place in places]
        self.assertEqual([("mark" in names) for names in listed], [False, False, True])
        self.assertFalse(os.path.exists("/dev/shm/mark"))
        count = "ls /proc | grep -c '^[0-9]*$'"
        self.assertLess(int(self.cluster.shell(count, "n1")), 10)

    def reaches(self):
        probe = "timeout 1 bash -c ': >/dev/tcp/n2/9' 2>&1 || true"
        return "refused" in self.cluster.shell(probe, "n1")

    def test_link(self):
        self.assertTrue(self.reaches())
        self.cluster.link("n2", "down")
        self.assertFalse(self.reaches())
        self.cluster.link("n2", "up")
        self.assertTrue(self.reaches())

    def test_rate(self):
        """A gradient of 4 MB takes 0.4 s at 80 Mbit/s."""
        config = harness.regression_config(
            data={"train": made_rows(64, 1000, 1000)}, model=[{"dense": {"units": 1000}}]
        )
        self.write_config(config)
        self.cluster.rate("n2", "80mbit")
        launched = self.mpirun("train", "config.yaml", "train.epochs=1", hosts="n1:1,n2:1")
        self.assertEqual(launched.wait(60), 0, launched.text())
        self.cluster.rate("n2")
        self.assertGreater(harness.read_log(self.path("run"))[1]["step_us"], 0.9 * 400000)
        self.assertNotIn("tbf", self.cluster.shell("tc qdisc show dev eth0", "n2"))

    def test_rank_is_seen(self):
        """A rank is told by its node and number, and is gone when it has been killed."""
        data = {"train": made_rows(1000, 4)}
        config = harness.regression_config(data=data, train={"epochs": 1000000})
        self.write_config(config)
        launched = self.mpirun("train", "config.yaml")
        ranks = launched.until_ranks(4)
        places = {rank: node for rank, (node, _) in ranks.items()}
        self.assertEqual(places, {0: "n1", 1: "n1", 2: "n2", 3: "n2"})
        launched.kill()
        self.assertEqual(self.cluster.ranks(), {})


class OwnerTest(harness.ProgramTest):
    def test_gone_with_its_owner(self):
        """SIGKILL to whoever made it leaves no process, interface, mount or lock."""
        reason = cluster.why_not()
        if reason is not None:
            self.skipTest(reason)
        before = subprocess.run(["ip", "link"], capture_output=True, check=True).stdout
        owner = subprocess.Popen(
            [sys.executable, "-B", "-c", OWNER, cluster.HERE], stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(owner.stdout.close)
        pids = [int(word) for word in owner.stdout.readline().split()]
        self.assertEqual(len(pids), 3)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        deadline = time.monotonic() + 10
        while any(os.path.exists(f"/proc/{pid}") for pid in pids):
            self.assertLess(time.monotonic(), deadline, "still there")
            time.sleep(0.05)
        after = subprocess.run(["ip", "link"], capture_output=True, check=True).stdout
        self.assertEqual(after, before)
        self.assertNotIn("n1", harness.read_text("/etc/hosts").split())
        with cluster.Cluster() as again:  # the lock is free
            self.assertEqual(again.shell("hostname").strip(), "head")


if __name__ == "__main__":
    unittest.main()
