#!/usr/bin/env python3
"""The convert command on CSV, NPY and IDX, plain and gzipped, and the inspect command on every kind
of file that the program writes."""

import gzip
import json
import os
import re
import struct
import unittest

import h5py
import numpy as np

import harness
from harness import regression_config, regression_rows


class ConvertTest(harness.ProgramTest):
    def convert(self, *line):
        return self.succeed("convert", *line)

    def read(self, name):
        with h5py.File(self.path(name)) as f:
            return {key: f[key][()] for key in f}

    def write_bytes(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(gzip.compress(data) if name.endswith(".gz") else data)
        return self.path(name)

    def idx(self, values):
        kinds = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}
        code = kinds[values.dtype.str[1:]]
        head = struct.pack(">BBBB", 0, 0, code, values.ndim)
        head += struct.pack(f">{values.ndim}I", *values.shape)
        return head + values.astype(values.dtype.newbyteorder(">")).tobytes()

    def test_idx(self):
        rng = np.random.default_rng(1)
        images = rng.integers(0, 256, size=(20, 5, 4)).astype("u1")
        labels = rng.integers(0, 10, size=20).astype("u1")
        self.write_bytes("images.idx.gz", self.idx(images))
        self.write_bytes("labels.idx", self.idx(labels))
        self.convert("x_train=images.idx.gz", "y_train=labels.idx", "out.h5")
        out = self.read("out.h5")
        np.testing.assert_array_equal(out["x_train"], images)
        np.testing.assert_array_equal(out["y_train"], labels)
        self.assertEqual(out["x_train"].dtype, np.uint8)

    def test_npy(self):
        values = np.random.default_rng(1).normal(size=(15, 3))
        np.save(self.path("plain.npy"), values.astype("f4"))
        with gzip.open(self.path("packed.npy.gz"), "wb") as f:
            np.save(f, values)
        self.convert("plain.npy", "x=packed.npy.gz", "out.h5")
        out = self.read("out.h5")
        np.testing.assert_array_equal(out["plain"], values.astype("f4"))
        np.testing.assert_array_equal(out["x"], values)

    def test_csv_columns(self):
        text = "a,b,c,kind\n1,2.5,3,oak\n4,5,6,elm\n7,8,9,oak\n"
        self.write_text("table.csv", text)
        self.write_bytes("packed.csv.gz", text.encode())
        for name in ("table.csv", "packed.csv.gz"):
            line = [name, "out.h5", "--features", "a,b", "--targets", "kind"]
            self.convert(*line, "--overwrite")
            out = self.read("out.h5")
            np.testing.assert_array_equal(out["x"], [[1, 2.5], [4, 5], [7, 8]])
            np.testing.assert_array_equal(out["y"], [1, 0, 1])  # elm, oak

    def test_converted_csv_trains(self):
        x, y = regression_rows(50, outputs=1)
        lines = [",".join(f"{v:.9g}" for v in (*a, *b)) for a, b in zip(x, y)]
        self.write_text("table.csv", "\n".join(["a,b,c,d,e,f,out", *lines]) + "\n")
        self.convert("table.csv", "data.h5", "--targets", "out")
        config = regression_config(model=[{"dense": {"units": 1}}])
        self.succeed("train", self.write_config(config), ranks=2)

    def test_header_that_is_too_long(self):
        for columns in (4000, 4001):
            header = ",".join(f"c{i}" for i in range(columns))
            self.write_text("wide.csv", f"{header}\n{','.join(['1'] * columns)}\n")
            told = self.convert("wide.csv", f"{columns}.h5").err
            with h5py.File(self.path(f"{columns}.h5")) as f:
                names = list(f["wide"].attrs.get("columns", []))
            if columns == 4000:
                self.assertEqual(told, "")
                self.assertEqual(names, header.split(","))
            else:
                words = "note: .*wide.csv: the header's names of 'wide' are left out: .* 4001"
                self.assertRegex(told, words)
                self.assertEqual(names, [])

    def test_says_what_it_wrote(self):
        np.save(self.path("x.npy"), np.zeros((15, 3), "f4"))
        out = self.convert("x.npy", "out.h5").out
        self.assertRegex(out, r"\bx\b.*15.*3")

    def refuse(self, code, words, *line):
        self.fail_with(code, words, "convert", *line)
        self.assertFalse(os.path.exists(self.path("out.h5")))
        self.assertEqual(harness.leftovers(self.folder), [])

    def test_errors(self):
        self.write_text("bad.csv", "a,b\n1,2\n3,x\n")
        self.write_text("ragged.csv", "a,b\n1,2\n3\n")
        self.write_text("good.csv", "a,b\n1,2\n")
        np.save(self.path("good.npy"), np.zeros(100))
        size = os.path.getsize(self.path("good.npy"))
        with open(self.path("good.npy"), "rb") as f:
            self.write_bytes("cut.npy", f.read()[: size - 8])
        self.refuse(3, ["bad.csv", ":3", "'x'|\"x\"", "not a number"], "bad.csv", "out.h5")
        self.refuse(3, ["ragged.csv", ":3", "1 column", "2|where"], "ragged.csv", "out.h5")
        self.refuse(3, ["cut.npy", "truncated"], "cut.npy", "out.h5")
        self.refuse(3, ["none.csv", "no such file"], "none.csv", "out.h5")
        line = ["good.csv", "out.h5", "--features", "nosuch"]
        self.refuse(2, ["good.csv", "nosuch", "a, b"], *line)
        self.refuse(2, r"OUT\.h5|\.h5", "good.csv")
        np.save(self.path("array.npy"), np.zeros(3))
        for name, sign, said in (("s.csv", ";", ";"), ("t.csv", "\t", r"\\t")):
            words = f"if '{said}' separates the columns, say --delimiter '{said}'"
            self.write_text(name, "a,b,y\n1,2,3\n".replace(",", sign))
            self.refuse(3, words, name, "out.h5")
            self.refuse(2, words, name, "out.h5", "--header", "yes", "--targets", "y")
        np.save(self.path("deep.npy"), np.zeros((3,) + (1,) * 31))
        self.refuse(3, ["deep.npy", "32 dimensions, at most 31", "reshape"], "deep.npy", "out.h5")
        np.save(self.path("fits.npy"), np.zeros((3,) + (1,) * 30))
        self.succeed("convert", "fits.npy", "fits.h5")
        for flag, value in (("--delimiter", ";"), ("--header", "no")):
            words = ["array.npy", "no CSV", f"leave {flag} out"]
            self.refuse(2, words, "array.npy", "out.h5", flag, value)
        self.refuse(2, "out.txt", "good.csv", "out.txt")

    def test_output_that_exists_is_kept(self):
        self.write_text("good.csv", "a,b\n1,2\n")
        path = self.write_h5("there.h5", x=np.zeros(3))
        self.fail_with(2, ["there.h5", "exists", "--overwrite"], "convert", "good.csv", path)
        self.assertEqual(set(self.read("there.h5")), {"x"})

    def test_several_ranks_are_refused(self):
        self.write_text("good.csv", "a,b\n1,2\n")
        result = self.run_program("convert", "good.csv", "out.h5", ranks=2)
        self.assertEqual(set(result.codes), {2}, str(result))
        self.assertEqual(len(result.error_lines), 1, str(result))


class InspectTest(harness.ProgramTest):
    def setUp(self):
        super().setUp()
        x, y = regression_rows(100)
        self.data = self.write_h5("data.h5", x=x, y=y)
        config = self.write_config(regression_config())
        self.succeed("train", config)
        line = ["--in", self.data, "--features", "x", "--out", "out.h5"]
        self.succeed("predict", "run", *line)

    def inspect(self, name, *words):
        plain = self.succeed("inspect", name).out
        for word in words:
            self.assertRegex(plain, re.compile(word), name)
        parsed = json.loads(self.succeed("inspect", name, "--json").out)
        self.assertIsInstance(parsed, dict)
        return parsed

    def test_checkpoint(self):
        words = ["(?i)checkpoint", "step.*21", "epoch.*3", "dense", r"6.*8", r"\b74\b"]
        for name in ("run/model.weights.h5", "run/checkpoints/latest.weights.h5"):
            parsed = self.inspect(name, *words)
            end = harness.read_log(self.path("run"))[-1]
            self.assertIn(end["weights_hash"], json.dumps(parsed))

    def test_history(self):
        self.inspect("run/history.h5", "(?i)history", r"\bloss\b", r"\bmae\b", r"\b3\b")

    def test_predictions(self):
        self.inspect("out.h5", "(?i)predictions", r"100.*2")

    def test_data(self):
        self.inspect("data.h5", r"\bx\b.*100.*6", r"\by\b.*100.*2", "float32")

    def test_errors(self):
        self.fail_with(3, ["none.h5", "no such file"], "inspect", "none.h5")
        self.write_text("text.h5", "no HDF5\n" * 100)
        self.fail_with(3, ["text.h5", "HDF5"], "inspect", "text.h5")
        self.fail_with(2, "FILE", "inspect")


if __name__ == "__main__":
    unittest.main()
