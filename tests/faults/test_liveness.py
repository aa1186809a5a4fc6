#!/usr/bin/env python3
"""Ranks that die, stop, or get stuck: the others end in time, one line says which rank and why, the
run can go on, and ranks that are merely slow are left alone."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "program"))

import harness
from harness import regression_config, regression_rows

TIMEOUT = 4  # run.timeout of these runs
END = TIMEOUT + 10  # s after the fault in which every rank has ended
HEARTBEAT = 0.5  # seconds between two of them

PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000


def freeze_main_thread(pid):
    """Stops a process' main thread, and no other, for as long as this process lives."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
        if libc.ptrace(request, pid, None, None) != 0:
            raise unittest.SkipTest(f"ptrace: {os.strerror(ctypes.get_errno())}")
    os.waitpid(pid, WALL)


def is_alive(pid):
    """Runs, or is stopped: not one whose exit code is still to be asked for."""
    text = harness.read_text_quietly(f"/proc/{pid}/stat")
    return bool(text) and text.rsplit(")", 1)[1].split()[0] not in "ZX"


class LivenessTest(harness.ProgramTest):
    def begin(self, ranks, *overrides, **changes):
        """A run with steps of some ms that writes checkpoints, in its second epoch."""
        x, y = regression_rows(2000)
        self.write_h5("data.h5", x=x, y=y)
        base = regression_config(
            model=[{"dense": {"units": units}} for units in (512, 512, 2)],
            data={"validation": 0.1},
            train={"batch_size": 64, "epochs": 1000000},
            checkpoint={"every_steps": 20, "keep": 2},
            run={"folder": "run", "timeout": TIMEOUT},
        )
        self.config = self.write_config(harness.merged(base, changes))
        running = self.start("train", self.config, *overrides, ranks=ranks)
        running.until(lambda: len(harness.read_log(self.path("run"))) > 1, "its first epoch")
        time.sleep(2 * HEARTBEAT)  # what a rank was last seen at is as old as its last heartbeat
        return running

    def lines(self, running):
        return [l for l in running.text().splitlines() if l.startswith("lockstep: ")]

    def ends(self, running, words, fault):
        """The fault, then the end in time: one line with these words, nothing left, and a
        checkpoint to go on from."""
        pids = running.rank_pids()
        fault(pids)
        begun = time.monotonic()
        code = running.wait(END)
        self.assertNotEqual(code, 0, running.text())
        lines = self.lines(running)
        self.assertEqual(len(lines), 1, running.text())
        self.assertTrue(lines[0].startswith(harness.ERROR_LINE), lines[0])
        for word in words:
            self.assertRegex(lines[0], re.compile(word))
        self.assertIn("run again to continue from the last checkpoint", lines[0])
        while any(is_alive(pid) for pid in pids.values()):
            self.assertLess(time.monotonic() - begun, END, "ranks are left")
            time.sleep(0.05)
        self.succeed("inspect", harness.checkpoints(self.path("run"))[-1])
        return code

    def killed(self, ranks, victim):
        running = self.begin(ranks)
        words = [rf"rank {victim} on \S+ died, last seen at step \d+ \(", "killed"]
        self.ends(running, words, lambda pids: os.kill(pids[victim], signal.SIGKILL))

    def test_killed(self):
        self.killed(3, 2)

    def test_killed_rank_0(self):
        self.killed(3, 0)

    def stopped(self, ranks, victim):
        running = self.begin(ranks)
        words = [rf"rank {victim} on \S+ is silent for \d+ s, last seen at step \d+ \(", "stopped"]
        code = self.ends(running, words, lambda pids: os.kill(pids[victim], signal.SIGSTOP))
        self.assertEqual(code, 5)

    def test_stopped(self):
        self.stopped(2, 1)

    def test_stopped_rank_0(self):
        self.stopped(3, 0)

    def stuck(self, ranks, victim):
        running = self.begin(ranks)
        words = [rf"no progress for \d+ s of rank {victim} on \S+, at step \d+ \(", "stuck in a call"]
        code = self.ends(running, words, lambda pids: freeze_main_thread(pids[victim]))
        self.assertEqual(code, 5)

    def test_stuck(self):
        self.stuck(3, 1)

    def test_stuck_rank_0(self):
        self.stuck(2, 0)

    def test_stuck_alone(self):
        self.stuck(0, 0)

    def test_output_that_is_not_read(self):
        """A pipe that is full holds the run up: the line says that it is not the file system."""
        x, y = regression_rows(64)
        self.write_h5("data.h5", x=x, y=y)
        changes = {"run": {"timeout": TIMEOUT}, "checkpoint": {"every_epochs": 0}}
        config = self.write_config(regression_config(train={"epochs": 1000000}, **changes))
        running = subprocess.Popen(
            [harness.PROGRAM, "train", config],
            cwd=self.folder,
            env=harness.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with running:
            try:
                self.assertEqual(running.wait(harness.TIMEOUT), 5)
            finally:
                running.kill()
            lines = [l for l in running.stderr.read().splitlines() if l.startswith("lockstep: ")]
        self.assertEqual(len(lines), 1, lines)
        words = r"no progress for \d+ s of rank 0 on .*, printing \(its output is not read\): stuck"
        self.assertRegex(lines[0], words)

    def test_stopped_before_mpi_is_up(self):
        """MPI_Init itself waits for ever."""
        config = self.write_config(regression_config(run={"timeout": TIMEOUT}))
        stopping = '[ "$OMPI_COMM_WORLD_RANK" != 2 ] || kill -STOP $$; exec "$@"'
        done = subprocess.run(
            harness.mpirun(3) + ["sh", "-c", stopping, "sh", harness.PROGRAM, "train", config],
            cwd=self.folder, env=harness.environment(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 5, done.stderr)
        lines = [l for l in done.stderr.splitlines() if l.startswith(harness.ERROR_LINE)]
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertRegex(lines[0], "MPI has not started within 35 s: a rank is stopped")

    def test_killed_while_loading(self):
        """Before the first step, and before there is anything to go on from."""
        x, y = regression_rows(300000, inputs=40)
        self.write_h5("data.h5", x=x, y=y)
        config = self.write_config(
            regression_config(data={"scaling": "standardize"}, run={"timeout": TIMEOUT})
        )
        running = self.start("train", config, ranks=3)
        running.until(lambda: "run" in os.listdir(self.folder), "its folder")
        pids = running.rank_pids()
        os.kill(pids[1], signal.SIGKILL)
        self.assertNotEqual(running.wait(END), 0)
        lines = self.lines(running)
        self.assertEqual(len(lines), 1, running.text())
        self.assertRegex(lines[0], r"rank 1 on \S+ died, last seen (in|at) ")

    def test_paused_rank_goes_on(self):
        """Shorter than the timeout: no more than a slow rank."""
        running = self.begin(2)
        pid = running.rank_pids()[1]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(TIMEOUT / 2)
        os.kill(pid, signal.SIGCONT)
        epochs = len(harness.read_log(self.path("run")))
        running.until(lambda: len(harness.read_log(self.path("run"))) > epochs + 1, "two epochs")
        running.signal_rank(0, signal.SIGTERM)
        self.assertEqual(running.wait(), 75, running.text())

    def test_suspended_job_goes_on(self):
        """All ranks at once and for longer than the timeout, as schedulers suspend jobs."""
        running = self.begin(2)
        pids = running.rank_pids().values()
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in pids:
                os.kill(pid, number)
            if number == signal.SIGSTOP:
                time.sleep(TIMEOUT + 3)
        epochs = len(harness.read_log(self.path("run")))
        running.until(lambda: len(harness.read_log(self.path("run"))) > epochs + 1, "two epochs")
        running.signal_rank(1, signal.SIGUSR1)
        self.assertEqual(running.wait(), 75, running.text())

    def test_stop_while_loading(self):
        """Noted, and obeyed as soon as there is something to save."""
        x, y = regression_rows(300000, inputs=40)
        self.write_h5("data.h5", x=x, y=y)
        config = self.write_config(
            regression_config(data={"scaling": "standardize"}, run={"timeout": TIMEOUT})
        )
        running = self.start("train", config, ranks=2)
        running.until(lambda: "run" in os.listdir(self.folder), "its folder")
        running.signal_rank(1, signal.SIGTERM)
        self.assertEqual(running.wait(), 75, running.text())
        self.assertEqual(len(harness.checkpoints(self.path("run"))), 1)

    def test_stop_in_a_long_validation(self):
        """Not after it: saved as of the epoch's last step, and a resumed run validates first."""
        x, y = regression_rows(64)
        many_x, many_y = regression_rows(400000)  # a second and more
        self.write_h5("data.h5", x=x, y=y, many_x=many_x, many_y=many_y)
        validation = {"file": "data.h5", "features": "many_x", "targets": "many_y"}
        config = self.write_config(
            regression_config(
                model=[{"dense": {"units": units}} for units in (512, 512, 2)],
                data={"validation": validation},
                train={"epochs": 2},
                run={"folder": "run", "timeout": TIMEOUT},
            )
        )
        running = self.start("train", config, ranks=2)
        running.until(lambda: os.path.exists(self.path("run", "config.yaml")), "its start")
        time.sleep(0.2)  # the four steps are over
        running.signal_rank(1, signal.SIGUSR1)
        self.assertEqual(running.wait(), 75, running.text())
        self.assertIn("at step 4 of epoch 1, checkpoint written", running.text())
        self.assertEqual(len(harness.read_log(self.path("run"))), 2)  # start and end: no epoch yet
        self.succeed("train", config, ranks=2)
        log = harness.read_log(self.path("run"))
        self.succeed("train", config, "run.folder=whole", ranks=2)
        whole = harness.read_log(self.path("whole"))
        self.assertEqual(log[-1]["weights_hash"], whole[-1]["weights_hash"])
        epochs = [[e["val_loss"] for e in events if e["event"] == "epoch"] for events in (log, whole)]
        self.assertEqual(epochs[0], epochs[1])
        self.assertEqual(len(epochs[0]), 2)

    def test_second_signal(self):
        """A second signal to all, a second later, ends at once; what was saved is whole."""
        running = self.begin(2, "checkpoint.every_steps=1", "checkpoint.keep=1")
        pids = running.rank_pids()
        freeze_main_thread(pids[0])  # so that the first one cannot be obeyed
        for _ in range(2):
            for pid in pids.values():
                os.kill(pid, signal.SIGTERM)
            time.sleep(1.3)
        self.assertNotEqual(running.wait(END), 0)
        self.succeed("inspect", harness.checkpoints(self.path("run"))[-1])


if __name__ == "__main__":
    unittest.main()
