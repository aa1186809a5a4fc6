#!/usr/bin/env python3
"""The CUDA module as a file: what it exports, what it needs, where it looks for that.

One build must serve nodes with and without GPUs, so the module may need no driver and no MPI, and
nothing that it looks for may come from the current folder or from a toolkit's stubs.
"""

import os
import re
import subprocess
import unittest

import harness

MODULE = os.path.join(
    os.path.dirname(os.path.dirname(harness.PROGRAM)), "lib", "lockstep", "cuda.so"
)
NEEDED = {"libcudart", "libcublasLt", "libnccl", "libm", "libc"}
SANITIZERS = {"libasan", "libubsan", "libtsan", "libgcov", "libgcc_s"}


@unittest.skipUnless(os.path.exists(MODULE), f"this build has no CUDA module: {MODULE}")
class ModuleTest(unittest.TestCase):
    def tool(self, *line):
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=60, env={**os.environ, "LC_ALL": "C"}
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def dynamic(self, tag):
        text = self.tool("readelf", "-d", MODULE)
        return re.findall(rf"\({tag}\)[^\[]*\[(.*)\]", text)

    def test_exports_its_entry_alone(self):
        symbols = self.tool("nm", "-D", "--defined-only", MODULE).split("\n")
        names = [line.split()[-1] for line in symbols if line]
        self.assertEqual(names, ["lks_module_entry"])

    def test_needs_neither_driver_nor_mpi(self):
        libraries = {re.sub(r"\.so.*", "", name) for name in self.dynamic("NEEDED")}
        self.assertLessEqual({"libcudart", "libcublasLt", "libnccl"}, libraries)
        self.assertLessEqual(libraries, NEEDED | SANITIZERS)

    def test_takes_nothing_from_the_program_by_name(self):
        undefined = self.tool("nm", "-D", "--undefined-only", MODULE)
        self.assertNotRegex(undefined, r" (MPI_|H5|lks_)")

    def test_calls_no_driver_function(self):
        undefined = self.tool("nm", "-D", "--undefined-only", MODULE)
        self.assertNotRegex(undefined, r" cu[A-Z]")

    def test_looks_in_sound_places(self):
        self.assertEqual(self.dynamic("RPATH"), [])
        (runpath,) = self.dynamic("RUNPATH")
        for folder in runpath.split(":"):
            # An empty element would be the current folder.
            self.assertTrue(os.path.isabs(folder), f"'{folder}' of {runpath}")
            self.assertNotIn("stubs", folder)


if __name__ == "__main__":
    unittest.main()
