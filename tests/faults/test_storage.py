#!/usr/bin/env python3
"""Storage that fails while a run goes on: full, gone, read-only, slow, damaged, or in use. Every rank
ends with code 7 and one line, what was saved before is whole, and with storage again the run goes on
from it."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM_TESTS = os.path.join(os.path.dirname(HERE), "program")
sys.path.insert(0, PROGRAM_TESTS)

import harness
from harness import regression_config, regression_rows

FLIPS = 400 if os.environ.get("LOCKSTEP_TEST_LONG") == "1" else 40
SEED = 20240607


class StorageTest(harness.ProgramTest):
    def setUp(self):
        super().setUp()
        x, y = regression_rows(2000)
        self.write_h5("data.h5", x=x, y=y)
        self.config = self.write_config(
            regression_config(
                model=[{"dense": {"units": units}} for units in (256, 256, 2)],
                data={"validation": 0.1},
                train={"batch_size": 64, "epochs": 1000000},
                checkpoint={"every_steps": 10, "keep": 2},
                run={"timeout": 10},
            )
        )
        self.run_folder = self.path("run")

    def begin(self, ranks=2, *overrides, env=None):
        running = self.start("train", self.config, *overrides, ranks=ranks, env=env)
        running.until(lambda: len(harness.checkpoints(self.run_folder)) > 1, "two checkpoints")
        return running

    def ends(self, running, *words):
        """By itself, with code 7 and one line."""
        self.assertEqual(running.wait(60), 7, running.text())
        lines = [l for l in running.text().splitlines() if l.startswith(harness.ERROR_LINE)]
        self.assertEqual(len(lines), 1, running.text())
        for word in words:
            self.assertRegex(lines[0], word)

    def goes_on(self, step):
        """From a checkpoint of that step or later, for one more epoch."""
        newest = harness.checkpoints(self.run_folder)[-1]
        saved = int(os.path.basename(newest).split("-")[1].split(".")[0])
        self.assertGreaterEqual(saved, step)
        result = self.succeed("train", self.config, f"train.epochs={saved // 29 + 2}", ranks=2)
        self.assertIn(f"step {saved}", result.out)
        self.assertEqual(harness.leftovers(self.folder), [])

    def newest_step(self):
        newest = harness.checkpoints(self.run_folder)[-1]
        return int(os.path.basename(newest).split("-")[1].split(".")[0])

    def mount(self, *options):
        """Tries for a while: a folder is busy while a file in it is being written."""
        if os.geteuid() != 0:
            self.skipTest("mounting needs root")
        for _ in range(50):
            done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return
        self.skipTest(done.stderr.strip())

    def test_full_file_system(self):
        os.mkdir(self.run_folder)
        self.mount("-t", "tmpfs", "-o", "size=8m", "none", self.run_folder)
        self.addCleanup(subprocess.run, ["umount", "-l", self.run_folder], check=False)
        running = self.begin()
        step = self.newest_step()
        with open(os.path.join(self.run_folder, "ballast"), "wb", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(4096))
            except OSError:
                pass
        self.ends(running, "cannot write .*run/", "[Nn]o space left", r"B free\)")
        self.assertEqual(harness.leftovers(self.run_folder), [])
        os.remove(os.path.join(self.run_folder, "ballast"))
        self.goes_on(step)

    def test_vanished_folder(self):
        running = self.begin()
        shutil.rmtree(self.run_folder, ignore_errors=True)
        shutil.rmtree(self.run_folder, ignore_errors=True)
        self.ends(running, "cannot write .*run/")
        self.assertEqual(harness.checkpoints(self.run_folder), [])

    def test_folder_moved_away_and_back(self):
        running = self.begin()
        step = self.newest_step()
        os.rename(self.run_folder, self.path("elsewhere"))
        self.ends(running, "cannot write .*run/")
        os.rename(self.path("elsewhere"), self.run_folder)
        self.goes_on(step)

    def make_read_only(self):
        """The checkpoints' folder, in a way that binds root too where we are root."""
        folder = os.path.join(self.run_folder, "checkpoints")
        if os.geteuid() != 0:
            os.chmod(folder, 0o555)
            self.addCleanup(os.chmod, folder, 0o755)
            return lambda: os.chmod(folder, 0o755)
        unmount = ["umount", "-l", folder]
        self.mount("--bind", folder, folder)
        self.addCleanup(subprocess.run, unmount, capture_output=True, check=False)
        self.mount("-o", "remount,bind,ro", folder)
        return lambda: subprocess.run(unmount, check=True)

    def test_read_only_folder(self):
        running = self.begin()
        step = self.newest_step()
        mend = self.make_read_only()
        self.ends(running, "cannot write .*checkpoints/", "Read-only|[Pp]ermission denied")
        mend()
        self.goes_on(step)

    def slow_disk(self, milliseconds):
        """Environment in which each write to the run folder takes so long."""
        library = self.path("slow_disk.so")
        source = os.path.join(HERE, "slow_disk.c")
        flags = ["-std=c11", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", library, source, "-ldl"]
        subprocess.run([os.environ.get("CC", "cc"), *flags], check=True)
        return {
            "LD_PRELOAD": library,
            "SLOW_DISK": os.path.realpath(self.folder) + "/run/checkpoints",
            "SLOW_DISK_MS": str(milliseconds),
            "ASAN_OPTIONS": "verify_asan_link_order=0",
        }

    def test_slow_disk(self):
        """A checkpoint takes several times run.timeout: all wait for it, and nothing is a hang."""
        limits = ["run.timeout=2", "train.epochs=2", "checkpoint.every_steps=0"]
        begun = time.monotonic()
        result = self.succeed("train", self.config, *limits, ranks=2, env=self.slow_disk(400))
        self.assertGreater(time.monotonic() - begun, 6)
        self.assertEqual(result.err, "")

    def test_stuck_disk(self):
        """One write never ends: that is a hang, of the rank that waits for it."""
        limits = ["run.timeout=3", "train.epochs=1", "checkpoint.every_steps=0"]
        running = self.start("train", self.config, *limits, ranks=2, env=self.slow_disk(3600000))
        self.assertEqual(running.wait(60), 5, running.text())
        lines = [l for l in running.text().splitlines() if l.startswith(harness.ERROR_LINE)]
        self.assertEqual(len(lines), 1, running.text())
        self.assertRegex(lines[0], r"no progress for \d+ s of rank 0 on .* stuck in a call .*file")

    def test_two_runs_in_one_folder(self):
        running = self.begin()
        pid = running.rank_pids()[0]
        words = ["run is in use|in use by process", f"process {pid} on", "run.folder=NEW"]
        self.fail_with(7, words, "train", self.config, ranks=2)
        self.fail_with(7, words, "train", self.config, "--overwrite")
        self.assertIsNone(running.process.poll(), running.text())
        running.signal_rank(1, signal.SIGTERM)
        self.assertEqual(running.wait(), 75, running.text())

    def test_lock_of_a_dead_run_elsewhere(self):
        """Left by a host that is gone: fresh, it is refused; old, taken over; of this same batch
        job, begun again elsewhere, taken over at once."""
        running = self.begin()
        running.kill_ranks()
        lock = os.path.join(self.run_folder, ".lock")
        with open(lock, "w", encoding="utf-8") as f:
            f.write("n77 4711 12345 00000000-1111/pid:[1] 99 0\n")
        epochs = f"train.epochs={self.newest_step() // 29 + 1}"
        self.fail_with(7, ["in use by process 4711 on n77"], "train", self.config, epochs)
        env = {"SLURM_JOB_ID": "99", "SLURM_RESTART_COUNT": "1"}
        result = self.succeed("train", self.config, epochs, env=env)
        self.assertIn("taken over from process 4711 on n77: job 99 was begun again", result.err)
        with open(lock, "w", encoding="utf-8") as f:
            f.write("n77 4711 12345 00000000-1111/pid:[1] 99 0\n")
        os.utime(lock, (time.time() - 90, time.time() - 90))
        result = self.succeed("train", self.config, epochs)
        self.assertRegex(result.err, "taken over from process 4711 on n77, .* for 9[0-9] s")

    def test_lost_lock(self):
        """A run that was taken over while it slept ends, and writes nothing more."""
        running = self.begin()
        with open(os.path.join(self.run_folder, ".lock"), "w", encoding="utf-8") as f:
            f.write("n77 4711 12345 00000000-1111/pid:[1] 99 0\n")
        self.ends(running, "taken over by process 4711 on n77")

    def test_flipped_bits(self):
        """One bit, anywhere in the newest checkpoint: it is passed over, which is said, and the one
        before it used."""
        running = self.begin(0, "checkpoint.keep=2")
        running.signal_rank(0, signal.SIGTERM)
        self.assertEqual(running.wait(), 75, running.text())
        before, newest = harness.checkpoints(self.run_folder)
        with open(newest, "rb") as f:
            sound = f.read()
        step = int(os.path.basename(before).split("-")[1].split(".")[0])
        rng = random.Random(SEED)
        ends = [0, 8, len(sound) - 1, len(sound) - 32, len(sound) - 24, len(sound) - 16]
        for number in range(FLIPS):
            at = ends[number] if number < len(ends) else rng.randrange(len(sound))
            damaged = bytearray(sound)
            damaged[at] ^= 1 << rng.randrange(8)
            with open(newest, "wb") as f:
                f.write(damaged)
            result = self.run_program("inspect", newest)
            self.assertIn(result.code, (3, 7), f"bit of byte {at} of {len(sound)}: {result}")
        epochs = f"train.epochs={step // 29 + 1}"
        result = self.succeed("train", self.config, epochs, "run.timeout=60")
        self.assertRegex(result.out + result.err, rf"{os.path.basename(newest)}.*damaged")
        self.assertIn(f"step {step}", result.out)


if __name__ == "__main__":
    unittest.main()
