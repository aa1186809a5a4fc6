#!/usr/bin/env python3
"""Faults on two nodes: never a hang, a lost checkpoint or a left-over process.

A few of faults.FAULTS; all of them with LOCKSTEP_TEST_LONG=1, and a hundred at random too. With
LOCKSTEP_FAULTS_PAGE=docs/faults.md the table of all of them is written there:
    LOCKSTEP_FAULTS_PAGE=docs/faults.md python3 tests/cluster/test_faults.py FaultsTest
"""

import dataclasses
import os
import random
import subprocess
import sys
import unittest

import faults
import slurm
from cluster import harness
from faults import FAULTS, Case

LONG = os.environ.get("LOCKSTEP_TEST_LONG") == "1"
PAGE = os.environ.get("LOCKSTEP_FAULTS_PAGE")

HEAD = """# Faults

What becomes of a run on two nodes, four ranks, `run.timeout: {timeout}`, when something goes wrong.
Each line was given to the same run, which was then resumed: on the two-node cluster of
`tests/cluster`, with Open MPI 4.1 and Slurm 22.05, by
```
LOCKSTEP_FAULTS_PAGE=docs/faults.md python3 tests/cluster/test_faults.py FaultsTest
```
Seconds are from the fault to the end of the last rank / of the launcher, whose exit code `code` is
(of a batch job: the job's, negative for a signal). Where the run goes on or is requeued they are to
its end. A node that does not answer is given up by Slurm, and with it `srun`, after
`SlurmdTimeout`: 15 s here, 300 s by default. No process was left over, and no checkpoint lost.
After the last line, the losses of every epoch and the weights were compared with those of a run
left alone: equal, bit for bit.

| fault | launcher | while | what the user saw | code | seconds | resumed |
|---|---|---|---|---|---|---|
"""


class FaultyTest(slurm.SlurmTest):
    """Gives faults to one run and compares it with one left alone."""

    def setUp(self):
        super().setUp()
        self.write_config(faults.config())
        self.library = self.path("leave.so")
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "leave.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", self.library, source], check=True)

    def give(self, fault):
        """Returns the case after all that holds for any fault was checked."""
        case = Case(fault, self.cluster, self.folder, self.library)
        case.start()
        try:
            case.until_moment()
            newest = case.newest()
            case.give()
        finally:
            case.run.close()
            case.heal()
        text = case.run.text()
        self.assertEqual(self.cluster.ranks(), {}, f"left over\n{text}")
        self.assertGreaterEqual(case.newest(), newest, f"a checkpoint was lost\n{text}")
        code, words = case.resume()
        self.assertEqual(code, 0, f"{text}\n--- resumed\n{words}")
        self.assertEqual(harness.leftovers(self.path("run")), [])
        return case

    def check_outcome(self, case):
        fault, text = case.fault, f"exit {case.code}, {case.seconds:.1f} s\n{case.run.text()}"
        if fault.outcome == "fails":
            self.assertNotIn(case.code, (0, 75), text)
            self.assertLess(case.seconds, case.limit(), text)
        elif fault.outcome == "stops":
            self.assertEqual(case.code, 75, text)
        elif fault.outcome in ("goes on", "requeued"):
            self.assertEqual(case.code, 0, text)
        if fault.outcome == "requeued":
            self.assertEqual(case.run.show()["Restarts"], "1", text)
        if fault.names:
            self.assertRegex(case.run.text(), fault.names)

    def check_against_undisturbed(self):
        """Every epoch and the weights equal, bit for bit, those of a run left alone."""
        done = [e for e in harness.read_log(self.path("run")) if e["event"] == "epoch"]
        self.assertEqual([e["epoch"] for e in done], list(range(1, len(done) + 1)))
        alone = self.mpirun("train", "config.yaml", "run.folder=alone", f"train.epochs={len(done)}")
        self.assertEqual(alone.wait(60 + 10 * len(done)), 0, alone.text())
        expected = [e for e in harness.read_log(self.path("alone")) if e["event"] == "epoch"]
        for one, two in zip(done, expected):
            for key in ("step", "loss", "mae", "val_loss", "val_mae"):
                self.assertEqual(one[key], two[key], f"{key} of epoch {one['epoch']}")
        ends = [harness.read_log(self.path(folder))[-1] for folder in ("run", "alone")]
        self.assertEqual(ends[0]["weights_hash"], ends[1]["weights_hash"])


class FaultsTest(FaultyTest):
    def test_table(self):
        rows = []
        for fault in FAULTS:
            if LONG or PAGE or fault.short:
                with self.subTest(f"{fault.what}, {fault.launcher}, {fault.moment}"):
                    case = self.give(fault)
                    rows.append(table_row(case))
                    if PAGE:
                        print(rows[-1], file=sys.stderr, flush=True)
                    self.check_outcome(case)
        self.check_against_undisturbed()
        if PAGE:
            with open(os.path.join(harness.ROOT, PAGE), "w", encoding="utf-8") as f:
                f.write(HEAD.format(timeout=faults.TIMEOUT) + "".join(f"{row}\n" for row in rows))


def table_row(case):
    fault = case.fault
    said = "".join(f"`{line}`".replace("|", "\\|") for line in case.said())
    seconds = f"{case.seconds:.1f} / {case.launcher_seconds:.1f}"
    cells = (fault.what, fault.launcher, fault.moment, said, case.code, seconds, case.resumed)
    return "| " + " | ".join(map(str, cells)) + " |"


@unittest.skipUnless(LONG, "half an hour")
class ManyFaultsTest(FaultyTest):
    COUNT = 100
    SEED = 20240607

    def test_random(self):
        """A hundred faults at random moments under random launchers."""
        rng = random.Random(self.SEED)
        for number in range(self.COUNT):
            fault = rng.choice(FAULTS)
            moment = rng.choice(("start", "step", "validation", "checkpoint", "end"))
            fault = dataclasses.replace(fault, moment=moment)
            with self.subTest(f"{number}: {fault.what}, {fault.launcher}, {moment}"):
                self.give(fault)
        self.check_against_undisturbed()


if __name__ == "__main__":
    unittest.main()
