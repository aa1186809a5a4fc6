#!/usr/bin/env python3
"""Every MPI call of the program that may wait for another rank drives the simulated device.

SIMGPU_LIBRARIES names the program's library and libsimmpi. A call that is neither driven nor known
to wait for nobody is an error here: it would be a run that hangs now and then.
"""

import os
import subprocess
import unittest

# These wait for no other rank, or only before the first device call or after the last.
LOCAL = {
    "MPI_Comm_compare",
    "MPI_Ibarrier",
    "MPI_Test",
    "MPI_Abort",
    "MPI_Comm_rank",
    "MPI_Comm_set_errhandler",
    "MPI_Comm_size",
    "MPI_Error_string",
    "MPI_Finalized",
    "MPI_Get_library_version",
    "MPI_Get_version",
    "MPI_Info_create",
    "MPI_Info_free",
    "MPI_Info_set",
    "MPI_Init_thread",
    "MPI_Initialized",
    "MPI_Win_free",
    "MPI_Win_shared_query",
}


def symbols(path, which):
    line = ["nm", "--dynamic", "--format=posix", which, path]
    text = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    names = {row.split()[0].split("@")[0] for row in text.splitlines() if row}
    return {name for name in names if name.startswith("MPI_")}


class DrivenTest(unittest.TestCase):
    def test_every_call_is_known(self):
        program, driver = os.environ["SIMGPU_LIBRARIES"].split(":")
        called = symbols(program, "--undefined-only")
        driven = symbols(driver, "--defined-only")
        self.assertIn("MPI_Allreduce", called)
        self.assertEqual(called - driven - LOCAL, set(), "neither driven nor local")
        self.assertEqual(driven - called, set(), "driven, but never called")


if __name__ == "__main__":
    unittest.main()
