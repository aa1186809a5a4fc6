#!/usr/bin/env python3
"""What the program prints of itself: completion, man page, reference, the progress bar."""

import os
import re
import subprocess
import time
import unittest

import harness
from harness import regression_config, regression_rows

COMMANDS = ("train", "evaluate", "predict", "check", "convert", "inspect", "options")


class PrintedTest(harness.ProgramTest):
    def complete(self, *words):
        """What bash offers for the last of these words."""
        script = self.write_text("completion.sh", self.succeed("completion").out)
        line = " ".join(f"'{word}'" for word in ("lockstep", *words))
        done = subprocess.run(
            ["bash", "-c", f". {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; "
             "compopt() { :; }; _lockstep; printf '%s\\n' \"${COMPREPLY[@]}\""],
            cwd=self.path(), capture_output=True, text=True, timeout=30,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return set(done.stdout.split())

    def test_completion(self):
        self.assertLessEqual(set(COMMANDS), self.complete(""))
        self.assertEqual(self.complete("tra"), {"train"})
        self.assertEqual(self.complete("train", "--dry"), {"--dry-run"})
        self.assertEqual(self.complete("train", "train.ep"), {"train.epochs="})
        self.assertEqual(self.complete("train", "optimizer.nest"), {"optimizer.nesterov="})
        self.assertEqual(self.complete("predict", "--prob"), {"--probabilities"})

    def test_man(self):
        page = self.succeed("man").out
        self.assertTrue(page.startswith(".TH LOCKSTEP 1"))
        for command in COMMANDS:
            self.assertRegex(page, rf"(?m)^\.SS lockstep {command}\b")
        for section in ("NAME", "SYNOPSIS", "COMMANDS", "CONFIGURATION", "EXIT STATUS"):
            self.assertRegex(page, rf"(?m)^\.SH {section}$")
        self.assertRegex(page, r"(?m)^\.TP\n\.B 75$")
        for line in page.splitlines():  # a line of text that began with a dot would vanish
            self.assertFalse(re.match(r"\.(?!TH|SH|SS|TP|B|nf|fi)", line), line)

    def test_reference(self):
        for arguments in ((), ("--markdown",)):
            page = self.succeed("options", *arguments).out
            for key in ("batch_size", "every_seconds", "memory_per_node", "negative_slope"):
                self.assertIn(key, page)

    def test_closed_streams(self):
        """What is printed goes into no file or pipe that was opened in place of a closed stream."""
        x, y = regression_rows(64)
        self.write_h5("data.h5", x=x, y=y)
        config = self.write_config(regression_config(train={"epochs": 1000000}))
        line = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", harness.PROGRAM]
        running = subprocess.Popen(
            [*line, "train", config], cwd=self.folder, env=harness.environment()
        )
        try:
            log = self.path("run", "log.jsonl")
            begun = time.monotonic()
            while "epoch" not in harness.read_text(log).replace('"epoch":0', ""):
                self.assertLess(time.monotonic() - begun, harness.TIMEOUT)
                time.sleep(0.05)
            for fd in range(3):
                self.assertEqual(os.readlink(f"/proc/{running.pid}/fd/{fd}"), "/dev/null")
        finally:
            running.terminate()
        self.assertEqual(running.wait(harness.TIMEOUT), 75)
        result = subprocess.run(
            [*line, "inspect", "data.h5"], cwd=self.folder, env=harness.environment(), check=False
        )
        self.assertEqual(result.returncode, 7)

    def test_large_and_small_numbers(self):
        """The last line has the value of the epoch's, whatever its size."""
        x, _ = regression_rows(64)
        large, small, other = r"\d\.\d{4}e\+\d\d", r"\d\.\d{4}e-0\d", r"\d+\.\d{4}"
        for size, words in ((1e15, large), (1e-3, small), (1.0, other)):
            self.write_h5("data.h5", x=x, y=size * x[:, :1])
            config = regression_config(
                model=[{"dense": {"units": 1, "kernel_initializer": "zeros"}}],
                train={"epochs": 1},
                optimizer={"name": "sgd", "learning_rate": 1e-30},
            )
            out = self.succeed("train", self.write_config(config), "--overwrite").out
            loss = harness.read_log(self.path("run"))[1]["loss"]
            value = re.search(r"best loss (\S+) at epoch 1;", out).group(1)
            self.assertRegex(value, f"^{words}$")
            self.assertIn(f"loss: {value}\n", out)
            self.assertAlmostEqual(float(value) / loss, 1, delta=1e-4)

    def test_bar(self):
        x, y = regression_rows(64)
        self.write_h5("data.h5", x=x, y=y)
        config = self.write_config(regression_config(metrics=["mae"], train={"epochs": 2}))
        out = self.succeed("train", config, "run.progress=bar").out
        # The harness reads text: a carriage return has become a line.
        self.assertRegex(out, r"\nEpoch 1/2 \d+/\d+ \[=*\.*\] .*/step - mae: \S+ - loss: ")
        self.assertRegex(out, r"\nEpoch 2/2 - (\d+)/\1 - .* - mae: .* - loss: ")
        quiet = self.succeed("train", config, "run.progress=none", "run.folder=quiet").out
        self.assertNotIn("Epoch", quiet)


if __name__ == "__main__":
    unittest.main()
