#!/usr/bin/env python3
"""The batch scripts of jobs/slurm as users submit them, on the two-node cluster."""

import glob
import os
import unittest

import slurm
from cluster import harness, made_rows

JOBS = os.path.join(harness.ROOT, "jobs", "slurm")

FOUR = ("--ntasks-per-node=2", "--gpus-per-node=2", "--cpus-per-task=1")

# Each script with sizes that fit the cluster, and what the run then says of its ranks.
SCRIPTS = {
    "cpu": (("--ntasks-per-node=4", "--cpus-per-task=1"), "4 on 1 node "),
    "single_gpu": (("--cpus-per-task=1",), "1 on 1 node "),
    "single_node": (FOUR, "2 on 1 node "),
    "multi_node": (FOUR, "4 on 2 nodes (n1 x 2, n2 x 2)"),
    "multi_node_mpirun": (FOUR, "4 on 2 nodes (n1 x 2, n2 x 2)"),
    "requeue": (("--partition=normal", *FOUR), "4 on 2 nodes (n1 x 2, n2 x 2)"),
}

# Every minute of a time limit is a minute of test.
LONG = os.environ.get("LOCKSTEP_TEST_LONG") == "1"

# Epochs of a run that is to be met under way, some tenths of a second each.
EPOCHS = 12


def config(epochs):
    hidden = {"dense": {"units": 512, "activation": "tanh"}}
    return harness.regression_config(
        data={"train": made_rows(4096, 64)},
        model=[hidden, hidden, {"dense": {"units": 2}}],
        train={"batch_size": 64, "epochs": epochs},
        device=None,
    )


class JobsTest(slurm.SlurmTest):
    undisturbed = None  # weights of the run of EPOCHS epochs, once known

    def submit_script(self, name, *arguments, options=(), env=None):
        return self.submit(
            os.path.join(JOBS, f"{name}.sbatch"),
            *arguments,
            options=(*SCRIPTS[name][0], *options),
            env={"LOCKSTEP": harness.PROGRAM, **(env or {})},
        )

    def submit_run(self, name, options=(), env=None):
        """A job of several seconds."""
        path = self.write_config(config(EPOCHS))
        return self.submit_script(name, path, "device=cpu", options=options, env=env)

    def epochs(self, run="run"):
        events = harness.read_log(self.path(run))
        return [event["epoch"] for event in events if event["event"] == "epoch"]

    def until_epoch(self, job, number):
        job.until(lambda: len(self.epochs()) >= number, f"epoch {number}")

    def check_whole(self):
        """The run is complete, without gaps or repeats, and as good as one left alone."""
        self.assertEqual(self.epochs(), list(range(1, EPOCHS + 1)))
        if self.undisturbed is None:
            line = ("train", "config.yaml", "device=cpu", "run.folder=alone")
            alone = self.mpirun(*line)
            self.assertEqual(alone.wait(60), 0, alone.text())
            JobsTest.undisturbed = harness.read_log(self.path("alone"))[-1]["weights_hash"]
        end = harness.read_log(self.path("run"))[-1]
        self.assertEqual(end["weights_hash"], self.undisturbed)
        self.assertEqual(end["reason"], "done")

    def test_every_script(self):
        """Each runs to the end; submitting it again continues the run."""
        found = {os.path.basename(path)[:-7] for path in glob.glob(os.path.join(JOBS, "*.sbatch"))}
        self.assertEqual(found, set(SCRIPTS))
        path = self.write_config(config(2))
        for name, (_, words) in SCRIPTS.items():
            with self.subTest(name):
                folder = f"run.folder={name}"
                job = self.submit_script(name, path, "device=cpu", folder)
                self.assertEqual(job.wait(60), 0, job.text())
                self.assertIn(words, job.text())
                self.assertEqual(self.epochs(name), [1, 2])
        for name in ("cpu", "multi_node_mpirun"):
            folder = f"run.folder={name}"
            again = self.submit_script(name, path, "device=cpu", folder, "train.epochs=3")
            self.assertEqual(again.wait(60), 0, again.text())
            self.assertEqual(self.epochs(name), [1, 2, 3])

    def test_gpus_are_seen(self):
        """Every rank sees all GPUs of its node: nothing is hidden from it."""
        program = self.write_text("program", '#!/bin/sh\necho "sees $CUDA_VISIBLE_DEVICES"\n')
        os.chmod(program, 0o755)
        for name in ("single_node", "multi_node"):
            job = self.submit_script(name, "x", env={"LOCKSTEP": program})
            self.assertEqual(job.wait(30), 0, job.text())
            lines = job.text().split("\n")[:-1]
            self.assertEqual(set(lines), {"sees 0,1"})
            self.assertEqual(len(lines), 2 if name == "single_node" else 4)

    def test_preempted(self):
        """Jobs of another queue take the nodes twice; the run ends by itself, as if undisturbed."""
        job = self.submit_run("requeue")
        script = self.write_text("urgent", "#!/bin/sh\nexit 0\n")
        for number in (1, 2):
            self.until_epoch(job, 3 * number)
            urgent = self.submit(script, options=("--partition=urgent", "-N2", "--exclusive"))
            self.assertEqual(urgent.wait(30), 0)
            job.until(lambda: job.show()["Restarts"] == str(number), "its restart")
        self.assertEqual(job.wait(90), 0, job.text())
        self.assertEqual(job.text().count("stopped by SIGTERM"), 2, job.text())
        self.check_whole()

    def check_signalled(self, name, scancel):
        job = self.submit_run(name)
        self.until_epoch(job, 3)
        self.cluster.shell(f"scancel {scancel} {job.number}")
        job.until(lambda: job.show()["Restarts"] == "1", "its restart")
        self.assertEqual(job.wait(90), 0, job.text())
        self.assertIn("stopped by SIGUSR1", job.text())
        self.check_whole()

    def test_signalled(self):
        """What --signal sends shortly before the end: all ranks save, the job is requeued."""
        self.check_signalled("multi_node", "--signal=USR1")

    def test_signalled_mpirun(self):
        self.check_signalled("multi_node_mpirun", "--batch --signal=USR1")

    def test_cap(self):
        """At the cap the job ends with the program's code, and submitting again continues."""
        job = self.submit_run("multi_node", env={"LOCKSTEP_RESTARTS": "0"})
        self.until_epoch(job, 2)
        self.cluster.shell(f"scancel --signal=USR1 {job.number}")
        self.assertEqual(job.wait(30), 75, job.text())
        self.assertEqual(job.state(), "FAILED")
        again = self.submit_run("multi_node")
        self.assertEqual(again.wait(60), 0, again.text())
        self.assertIn("Resumed", again.text())
        self.check_whole()

    def test_cancelled(self):
        """A job that its owner cancels is saved and not requeued."""
        for name in ("multi_node", "multi_node_mpirun"):
            with self.subTest(name):
                job = self.submit_run(name, options=(f"--job-name={name}",))
                self.until_epoch(job, 2)
                self.cluster.shell(f"scancel {job.number}")
                job.wait(30)
                self.assertEqual(job.state(), "CANCELLED")
                job.until(lambda: not self.cluster.ranks(), "the end of all ranks", 10)
                self.assertEqual(job.show()["Restarts"], "0")
                self.assertNotEqual(harness.checkpoints(self.path("run")), [])

    @unittest.skipUnless(LONG, "minutes of waiting for Slurm's clock")
    def test_time_limit(self):
        """Slurm's own signal before a time limit of a minute: saved, requeued, again and again."""
        path = self.write_config(config(1000000))
        for name, signal in (("multi_node", "USR1@30"), ("multi_node_mpirun", "B:USR1@30")):
            with self.subTest(name):
                options = ("--time=1", f"--signal={signal}")
                folder = f"run.folder={name}"
                job = self.submit_script(name, path, "device=cpu", folder, options=options)
                job.until(lambda: job.show()["Restarts"] == "2", "two restarts", 300)
                job.until(lambda: job.text().count("Resumed") == 2, "its going on")
                self.assertEqual(job.text().count("stopped by SIGUSR1"), 2, job.text())
                self.assertEqual(self.epochs(name), list(range(1, len(self.epochs(name)) + 1)))
                self.cluster.shell(f"scancel {job.number}")
                job.wait(30)


if __name__ == "__main__":
    unittest.main()
