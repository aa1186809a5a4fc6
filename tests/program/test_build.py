#!/usr/bin/env python3
"""What belongs to the build: ranks of two builds are refused, and an installation can be moved,
found by CMake and pkg-config, and used by another program."""

import os
import shutil
import subprocess
import unittest

import harness
from harness import regression_config, regression_rows

CONSUMER = r"""
#include <lockstep/lockstep.h>
#include <stdio.h>
int main(void) {
  lks_error err;
  lks_world *world = NULL;
  if (lks_world_open(MPI_COMM_WORLD, &world, &err) != LKS_OK) return 1;
  printf("lockstep %s, exit code %d\n", lks_version(), lks_exit_code(LKS_STOPPED));
  lks_world_close(&world);
  return 0;
}
"""
CONSUMER_CMAKE = """
cmake_minimum_required(VERSION 3.20)
project(consumer C)
find_package(Lockstep REQUIRED)
add_executable(consumer consumer.c)
target_link_libraries(consumer PRIVATE Lockstep::lockstep)
"""


class TwoBuildsTest(harness.ProgramTest):
    def test_ranks_of_two_builds(self):
        other = os.environ.get("LOCKSTEP_OTHER")
        if not other:
            self.skipTest("LOCKSTEP_OTHER names no second build")
        x, y = regression_rows(40)
        self.write_h5("data.h5", x=x, y=y)
        config = self.write_config(regression_config())
        line = harness.mpirun(1) + [os.environ["LOCKSTEP"], "train", config]
        line += [":", "-n", "1", other, "train", config]
        done = subprocess.run(
            line, cwd=self.path(), env=harness.environment(), capture_output=True, text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 5, done.stderr)
        errors = [text for text in done.stderr.splitlines() if text.startswith("lockstep: error:")]
        self.assertEqual(len(errors), 1, done.stderr)
        self.assertRegex(errors[0], "rank 1 on .* has another build of lockstep than rank 0")
        self.assertFalse(os.path.exists(self.path("run")))

    def test_ranks_of_two_configurations(self):
        x, y = regression_rows(40)
        self.write_h5("data.h5", x=x, y=y)
        config = self.write_config(regression_config())
        line = harness.mpirun(1) + [os.environ["LOCKSTEP"], "train", config]
        line += [":", "-n", "1", os.environ["LOCKSTEP"], "train", config, "train.seed=7"]
        done = subprocess.run(
            line, cwd=self.path(), env=harness.environment(), capture_output=True, text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 5, done.stderr)
        self.assertRegex(done.stderr, "rank 1 on .* has another (command line|configuration)")


class InstallTest(harness.ProgramTest):
    def setUp(self):
        super().setUp()
        build = os.path.dirname(os.path.dirname(os.environ["LOCKSTEP"]))
        if not os.path.exists(os.path.join(build, "cmake_install.cmake")):
            self.skipTest("the program under test lies in no build folder")
        first = self.path("first")
        self.tool("cmake", "--install", build, "--prefix", first)
        self.prefix = self.path("moved")
        shutil.move(first, self.prefix)

    def tool(self, *line, **options):
        done = subprocess.run(
            line, cwd=self.path(), capture_output=True, text=True, timeout=120, **options
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def library_folder(self):
        for folder, _, files in os.walk(self.prefix):
            if "liblockstep.so" in files:
                return folder
        self.fail("no liblockstep.so in the installation")

    def test_moved_program_runs(self):
        self.assertRegex(
            self.tool(os.path.join(self.prefix, "bin", "lockstep"), "--version"), "^lockstep "
        )

    def test_found_by_cmake(self):
        os.mkdir(self.path("consumer"))
        self.write_text("consumer/consumer.c", CONSUMER)
        self.write_text("consumer/CMakeLists.txt", CONSUMER_CMAKE)
        self.tool("cmake", "-S", "consumer", "-B", "built", f"-DCMAKE_PREFIX_PATH={self.prefix}")
        self.tool("cmake", "--build", "built")
        out = self.tool(self.path("built", "consumer"), env=harness.environment())
        self.assertRegex(out, r"^lockstep \d+\.\d+\.\d+, exit code 75$")

    def test_found_by_pkg_config(self):
        self.write_text("consumer.c", CONSUMER)
        folder = os.path.join(self.library_folder(), "pkgconfig")
        env = {**os.environ, "PKG_CONFIG_PATH": folder}
        flags = self.tool("pkg-config", "--cflags", "--libs", "lockstep", env=env).split()
        self.tool("cc", "consumer.c", "-o", "consumer", *flags)
        out = self.tool(self.path("consumer"), env=harness.environment())
        self.assertRegex(out, "^lockstep ")


if __name__ == "__main__":
    unittest.main()
