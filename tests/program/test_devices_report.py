"""The device report: written by ranks, read by h5py, h5dump and inspect."""

import json
import math
import os
import shutil
import socket
import subprocess
import unittest

import h5py
import numpy as np

from device_fixture import UUID, DeviceTest
from harness import ROOT, leftovers, regression_config, regression_rows

HOST = socket.gethostname()

# Members of the tables, with the units that their attributes state: the page docs/devices.md.
TABLES = {
    "ranks": {"rank": None, "host": None, "local_rank": None, "backend": None, "ordinal": None,
              "name": None, "uuid": None, "pci_bus_id": None, "compute_capability": None,
              "memory_total": "bytes", "memory_free": "bytes", "sm_count": None, "clock": "Hz",
              "memory_clock": "Hz", "driver": None, "cuda_runtime": None, "cublas": None,
              "nccl": None, "numa_node": None, "cores": None, "core_count": None, "threads": None,
              "library": None},
    "links": {"from": None, "to": None, "way": None, "peer_access": None, "message": "bytes",
              "bandwidth": "bytes/s"},
    "memory": {"rank": None, "parameters": "bytes", "gradients": "bytes", "slots": "bytes",
               "activations": "bytes", "data": "bytes", "workspace": "bytes", "total": "bytes",
               "limit": "bytes", "device_total": "bytes", "free_before": "bytes",
               "free_after": "bytes"},
    "algorithms": {"rank": None, "what": None, "chosen": None, "seconds": "s"},
    "errors": {"rank": None, "host": None, "subject": None, "class": None, "words": None,
               "advice": None},
}


class Report(DeviceTest):
    def write(self, ranks, env, *flags):
        return self.succeed("devices", "report", "devices.h5", *flags, ranks=ranks, env=env)

    def check_schema(self, file):
        self.assertEqual(set(file), set(TABLES))
        for name, members in TABLES.items():
            table = file[name]
            self.assertEqual(table.dtype.names, tuple(members), name)
            units = {f"{m}.unit": unit for m, unit in members.items() if unit}
            self.assertEqual(dict(table.attrs), units, name)
            self.assertEqual(table.ndim, 1)
        self.assertEqual(file.attrs["report"], "devices")
        self.assertEqual(file.attrs["format"], 1)
        self.assertRegex(file.attrs["created"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")

    def test_on_the_cpu(self):
        for ranks in (0, 1, 2, 4):
            with self.subTest(ranks=ranks):
                shutil.rmtree(self.path("root"), ignore_errors=True)
                result = self.write(ranks, self.nothing())
                count = max(ranks, 1)
                self.assertEqual(result.outs[0], f"devices.h5: devices of {count} rank"
                                                 f"{'s' if count > 1 else ''}, {count} x cpu\n")
                with h5py.File(self.path("devices.h5")) as f:
                    self.check_schema(f)
                    self.assertEqual(f.attrs["ranks"], count)
                    self.assertEqual(f.attrs["asked"], "auto, memory as needed")
                    rows = f["ranks"][()]
                    self.assertEqual(list(rows["rank"]), list(range(count)))
                    self.assertEqual(list(rows["local_rank"]), list(range(count)))
                    self.assertEqual({(r["host"].decode(), r["backend"],
                                       r["ordinal"]) for r in rows},
                                     {(HOST, b"cpu", -1)})
                    self.assertTrue((rows["memory_total"] > rows["memory_free"]).all())
                    links = f["links"][()]
                    pairs = {(a, b) for a in range(count) for b in range(a + 1, count)}
                    self.assertEqual({(k["from"], k["to"]) for k in links}, pairs)
                    self.assertEqual(len(links), len(pairs))
                    self.assertTrue(all(k["way"] == b"memory" for k in links))
                    self.assertTrue((links["bandwidth"] > 0).all())
                    self.assertEqual(len(f["memory"]), 0)
                    self.assertEqual({(e["subject"], e["class"]) for e in f["errors"]},
                                     {(b"module cuda", b"not found")})

    def test_nine_ranks_have_links_to_the_next(self):
        self.write(9, self.nothing())
        with h5py.File(self.path("devices.h5")) as f:
            links = [(int(k["from"]), int(k["to"])) for k in f["links"]]
        self.assertEqual(sorted(links), sorted([(r, r + 1) for r in range(8)] + [(0, 8)]))

    def test_on_gpus(self):
        self.write(2, self.machine(gpus=2, numa=(1, 0)), "--device", "gpu")
        with h5py.File(self.path("devices.h5")) as f:
            self.check_schema(f)
            self.assertEqual(f.attrs["asked"], "gpu, memory as needed")
            self.assertEqual(f.attrs["got"], "2 x cuda on 1 node")
            for rank, row in enumerate(f["ranks"]):
                wanted = {"rank": rank, "backend": b"cuda", "ordinal": rank, "name": b"Fake GPU",
                          "uuid": f"{UUID}{rank}".encode(),
                          "pci_bus_id": f"0000:0{rank + 1}:00.0".encode(),
                          "compute_capability": b"9.0", "memory_total": 1 << 30,
                          "memory_free": 1000 << 20, "sm_count": 132, "clock": 1980000000,
                          "memory_clock": 2619000000, "driver": b"580.65.06 (CUDA 13.0)",
                          "cuda_runtime": b"13.0", "cublas": b"13.1.0", "nccl": b"2.28.9",
                          "numa_node": 1 - rank}
                self.assertEqual({k: row[k] for k in wanted}, wanted)
            link = f["links"][0]
            self.assertEqual((link["way"], link["peer_access"], link["message"]),
                             (b"gpu", 1, 1 << 20))
            self.assertAlmostEqual(link["bandwidth"], 1e9, delta=1)  # as the fake module says
            self.assertEqual(len(f["errors"]), 0)

    def test_peers_that_are_not_seen_or_do_not_sum(self):
        env = self.machine(gpus=2) | {"FAKE_SEES": "own", "FAKE_SUM": "wrong"}
        self.write(2, env, "--device", "gpu")
        with h5py.File(self.path("devices.h5")) as f:
            link = f["links"][0]
            self.assertEqual((link["peer_access"], link["message"]), (-1, 0))
            self.assertTrue(math.isnan(link["bandwidth"]))

    def test_a_failing_device_is_what_it_reports(self):
        env = self.machine(gpus=2) | {"FAKE_FAIL": "launch=214"}
        result = self.write(2, env, "--device", "gpu")
        self.assertRegex(result.err, "lockstep: warning: GPU 0 .*: hardware: CUDA")
        with h5py.File(self.path("devices.h5")) as f:
            self.assertEqual(f.attrs["asked"], "gpu, memory as needed")
            self.assertEqual({r["backend"] for r in f["ranks"]}, {b"cpu"})
            for row in f["errors"]:
                self.assertEqual((row["subject"], row["class"]), (b"device", b"hardware"))
                self.assertIn(b"uncorrectable" if b"ECC" in row["words"] else b"fakeError214",
                              row["words"])
                self.assertIn(b"leave this node out", row["advice"])
            self.assertEqual(len(f["errors"]), 2)

    def test_h5dump_reads_it(self):
        self.write(2, self.nothing())
        result = subprocess.run(["h5dump", self.path("devices.h5")], check=True, text=True,
                                capture_output=True)
        for words in ('DATASET "ranks"', 'ATTRIBUTE "memory_total.unit"', '"bytes/s"',
                      'H5T_STD_I32LE "local_rank"', 'CSET H5T_CSET_UTF8'):
            self.assertIn(words, result.stdout)

    def test_the_page_names_every_member(self):
        with open(os.path.join(ROOT, "docs", "devices.md"), encoding="utf-8") as f:
            page = f.read()
        for name, members in TABLES.items():
            section = page.split(f"### `/{name}`")[1].split("\n##")[0]
            for member in members:
                self.assertIn(f"`{member}`", section, name)

    def test_inspect_shows_it(self):
        self.write(2, self.machine(gpus=2), "--device", "gpu")
        text = self.succeed("inspect", "devices.h5").out
        for words in ("devices.h5: device report, ", "  asked         gpu, memory as needed",
                      "  got           2 x cuda on 1 node",
                      f"rank 0        {HOST}, gpu:0 Fake GPU, {UUID}0",
                      "  link          rank 0 and 1: gpu, 953.7 MiB/s, peer access"):
            self.assertIn(words, text)
        found = json.loads(self.succeed("inspect", "devices.h5", "--json").out)
        self.assertEqual(found["kind"], "devices")
        with h5py.File(self.path("devices.h5")) as f:
            for name, key in (("ranks", "devices"), ("links", "links"), ("errors", "errors")):
                self.assertEqual([list(row) for row in found[key]],
                                 [list(TABLES[name])] * len(f[name]))
            self.assertEqual(found["devices"][1]["uuid"], f["ranks"]["uuid"][1].decode())

    def test_inspect_shows_what_failed(self):
        self.write(0, self.nothing())
        self.assertRegex(self.succeed("inspect", "devices.h5").out,
                         rf"error +rank 0 on {HOST}: module cuda \(not found\): this build has no")

    def test_a_report_that_is_none(self):
        self.write(0, self.nothing())
        with h5py.File(self.path("devices.h5"), "r+") as f:
            del f["links"]
        self.fail_with(3, "no dataset 'links'", "inspect", "devices.h5")
        with h5py.File(self.path("devices.h5"), "r+") as f:
            f["links"] = np.zeros(3)
        self.fail_with(3, "'links' is not a table", "inspect", "devices.h5")
        with h5py.File(self.path("devices.h5"), "r+") as f:
            f.attrs["format"] = 2
        self.fail_with(3, "device report format 2 is newer", "inspect", "devices.h5")

    def test_a_file_that_cannot_be_written(self):
        env = self.nothing()
        self.fail_with(7, "cannot write none/devices.h5", "devices", "report", "none/devices.h5",
                       ranks=2, env=env)
        os.mkdir(self.path("folder.h5"))
        self.fail_with(7, "folder.h5", "devices", "report", "folder.h5", env=env)
        self.assertEqual(leftovers(self.folder), [])

    def test_every_training_run_leaves_one(self):
        x, y = regression_rows()
        self.write_h5("data.h5", x=x, y=y)
        config = self.write_config(regression_config())
        self.succeed("train", config, "train.epochs=1", "run.folder=run", ranks=2,
                     env=self.nothing())
        with h5py.File(self.path("run", "devices.h5")) as f:
            self.check_schema(f)
            self.assertEqual(f.attrs["got"], "2 x cpu on 1 node")
            self.assertEqual(len(f["ranks"]), 2)
            self.assertEqual(len(f["links"]), 1)


if __name__ == "__main__":
    unittest.main()
