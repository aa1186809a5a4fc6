#!/usr/bin/env python3
"""The command line itself: help on every level, versions, mistyped commands and options, check."""

import os
import re
import subprocess
import unittest

import harness
from harness import regression_config, regression_rows

# The least there must be; help is asked what else there is.
COMMANDS = {"train", "evaluate", "predict", "check", "convert", "inspect", "options"}


def commands(text):
    """Names in the list of commands that help prints."""
    section = text.split("\nCommands\n", 1)[1].split("\n\n", 1)[0]
    return set(re.findall(r"(?m)^  ([a-z]+) ", section))


class HelpTest(harness.ProgramTest):
    def test_top_level(self):
        wanted = self.succeed("--help").out
        self.assertLessEqual(COMMANDS, commands(wanted))
        self.assertRegex(wanted, r"KEY=VALUE")
        # One help, not one a rank.
        self.assertEqual(self.succeed("--help", ranks=2).out, wanted)

    def test_each_command(self):
        options = {
            "train": ["--dry-run", "--overwrite"],
            "evaluate": ["--data", "--checkpoint"],
            "predict": ["--in", "--out", "--features", "--probabilities", "--layer"],
            "convert": ["--features", "--targets", "--overwrite"],
            "inspect": ["--json"],
            "options": ["--markdown"],
        }
        for name in commands(self.succeed("--help").out):
            with self.subTest(command=name):
                out = self.succeed(name, "--help").out
                self.assertRegex(out, rf"lockstep {name}\b")
                for option in options.get(name, []):
                    self.assertRegex(out, re.escape(option))

    def test_options_of_the_configuration(self):
        """The reference comes from the parser's own table: keys, defaults and ranges."""
        out = self.succeed("options").out
        for words in (
            r"train\.batch_size\b",
            r"data\.memory_per_node\b.*",
            r"checkpoint\.resume\b",
            r"(?s)optimizer\b.*adamw.*weight_decay.*0\.004",
            r"(?s)leaky_relu.*negative_slope",
        ):
            self.assertRegex(out, words)
        table = self.succeed("options", "--markdown").out
        self.assertRegex(table, r"\| `train\.batch_size` \|")
        # Not one of the keys of the plain list is left out of the other.
        for key in re.findall(r"(?m)^  ([a-z_]+\.[a-z_.0-9]+)", out):
            self.assertIn(f"`{key}`", table)

    def test_lines_fit_a_terminal(self):
        for name in commands(self.succeed("--help").out):
            for line in self.succeed(name, "--help").out.splitlines():
                self.assertLessEqual(len(line), 100, line)


class VersionTest(harness.ProgramTest):
    def test_one_line(self):
        out = self.succeed("--version").out
        self.assertRegex(out, r"^lockstep \d+\.\d+\.\d+[^\n]*\n$")
        self.assertEqual(self.succeed("--version", ranks=2).out, out)

    def test_verbose(self):
        out = self.succeed("--version", "--verbose").out
        for word in ("mpi", "hdf5", "blas", "libyaml", "jansson", "zlib", "xxhash"):
            self.assertRegex(out, rf"(?m)^{word}\b.*\d")


# An OpenBLAS that does not know this processor, and takes it for one of 2004.
OLD_KERNELS = """\
#include <stdlib.h>
char *openblas_get_corename(void) {
  return getenv("OPENBLAS_CORETYPE") != NULL ? "as told" : "Prescott";
}
"""


class KernelsTest(harness.ProgramTest):
    def kernels(self, **env):
        """What the program's BLAS says, under an OpenBLAS that chose its oldest kernels."""
        source = self.write_text("old.c", OLD_KERNELS)
        library = self.path("old.so")
        line = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", library, source]
        subprocess.run(line, check=True)
        # Two variables may be this shell's own.
        line = ["env", "-u", "OPENBLAS_CORETYPE", "-u", "OPENBLAS_L2_SIZE", f"LD_PRELOAD={library}"]
        line += [*(f"{key}={value}" for key, value in env.items()), harness.PROGRAM]
        done = subprocess.run([*line, "--version", "--verbose"], env=harness.environment(),
                              capture_output=True, text=True, check=True)  # fmt: skip
        return re.search(r"^blas +(.*)$", done.stdout, re.M)[1]

    def setUp(self):
        super().setUp()
        with open(harness.PROGRAM, "rb") as file:
            text = file.read()
        if b"__asan_init" in text or b"__tsan_init" in text:
            self.skipTest("a sanitizer must be loaded first")
        flags = set(harness.read_text("/proc/cpuinfo").split())
        if not {"avx2", "fma"} <= flags:
            self.skipTest("a processor without AVX2")
        self.wide = {f"avx512{part}" for part in ("f", "vl", "bw", "dq", "cd")} <= flags
        if "DYNAMIC_ARCH" not in self.kernels():
            self.skipTest("no OpenBLAS with kernels for several processors")

    def test_too_old_kernels_are_replaced(self):
        self.assertRegex(self.kernels(), r"\bSkylakeX\b" if self.wide else r"\bHaswell\b")

    def test_what_the_user_chose_stays(self):
        self.assertRegex(self.kernels(OPENBLAS_CORETYPE="Nehalem"), r"\bNehalem\b")


class UsageErrorTest(harness.ProgramTest):
    def test_no_command(self):
        self.fail_with(2, "--help", ranks=0)

    def test_mistyped_command(self):
        for ranks in (0, 2):
            self.fail_with(2, ["trian", r"\btrain\b"], "trian", "config.yaml", ranks=ranks)

    def test_mistyped_option(self):
        for ranks in (0, 2):
            words = ["--overwritte", "--overwrite\\b"]
            self.fail_with(2, words, "train", "config.yaml", "--overwritte", ranks=ranks)

    def test_option_without_its_value(self):
        self.fail_with(2, ["--checkpoint", "FILE|value"], "evaluate", "run", "--checkpoint")

    def test_option_given_twice(self):
        lines = (["predict", "run", "--in=a.h5", "--in", "b.h5", "--out", "c.h5"],
                 ["evaluate", "run", "--data", "test", "--data=test"],
                 ["convert", "a.csv", "b.h5", "--features", "a", "--features", "b"])
        for line in lines:
            option = line[2].split("=")[0] if line[0] != "convert" else "--features"
            self.fail_with(2, f"{option} is given twice.*; give it once", *line)
        self.fail_with(2, "--in is given twice.*; give it once", *lines[0], ranks=2)

    def test_no_configuration(self):
        self.fail_with(2, "CONFIG", "train")

    def test_two_configurations(self):
        self.write_text("a.yaml", "")
        self.write_text("b.yaml", "")
        self.fail_with(2, ["too many", "train CONFIG"], "train", "a.yaml", "b.yaml")

    def test_unknown_set(self):
        x, y = regression_rows()
        self.write_h5("data.h5", x=x, y=y)
        self.succeed("train", self.write_config(regression_config()))
        words = ["--data", "tset", "train.*validation.*test"]
        self.fail_with(2, words, "evaluate", "run", "--data", "tset")
        # There is no such set in this run.
        words = ["validation|test", r"data\.(test|validation)"]
        self.fail_with(2, words, "evaluate", "run", "--data", "test")

    def test_no_run_there(self):
        for ranks in (0, 2):
            result = self.run_program("evaluate", "nowhere", ranks=ranks)
            self.assertIn(result.code, (2, 7), str(result))
            self.assertEqual(len(result.error_lines), 1, str(result))
            self.assertRegex(result.error_lines[0], "nowhere.*; .")

    def test_overrides_of_another_command(self):
        self.fail_with(2, "inspect FILE", "inspect", "x.h5", "train.epochs=3")


class CheckTest(harness.ProgramTest):
    def test_passes(self):
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                result = self.succeed("check", ranks=ranks)
                for word in ("allreduce", "hdf5", "backend cpu", "finite differences"):
                    self.assertRegex(result.out, word)
                self.assertRegex(result.out, r"(?m)^check\s+all is well$")

    def test_leaves_nothing_behind(self):
        before = sorted(os.listdir(self.folder))
        self.succeed("check", ranks=2)
        self.assertEqual(sorted(os.listdir(self.folder)), before)


if __name__ == "__main__":
    unittest.main()
