#!/usr/bin/env python3
"""Datasets whose values lie in other files: HDF5 gives zeros, without a word, for what it cannot
find there. All of it is refused; what is sound trains as if it lay in one file."""

import os
import shutil
import unittest

import h5py
import numpy as np

import harness
from harness import regression_config, regression_rows

UNLIMITED = h5py.h5s.UNLIMITED


class ElsewhereTest(harness.ProgramTest):
    def setUp(self):
        super().setUp()
        self.x, self.y = regression_rows(40)
        self.parts = [self.write_h5(f"part-{i}.h5", d=self.x[20 * i : 20 * i + 20]) for i in (0, 1)]
        self.write_h5("plain.h5", x=self.x, y=self.y)

    def config(self, name):
        return self.write_config(regression_config(name))

    def trained(self, name):
        self.succeed("train", self.config(name), "--overwrite")
        return harness.read_log(self.path("run"))[-1]["weights_hash"]

    def is_plain(self, name):
        self.assertEqual(self.trained(name), self.trained("plain.h5"))

    def refuse(self, name, words):
        self.fail_with(3, words, "train", self.config(name), "run.folder=none")


class VirtualTest(ElsewhereTest):
    def virtual(self, name, sources, shape=(20, 6)):
        """One above the other: (file, dataset) of each."""
        layout = h5py.VirtualLayout(shape=self.x.shape, dtype="f4")
        for i, (file, dataset) in enumerate(sources):
            rows = slice(shape[0] * i, shape[0] * (i + 1))
            layout[rows] = h5py.VirtualSource(file, dataset, shape=shape)
        with h5py.File(self.path(name), "w") as f:
            f.create_virtual_dataset("x", layout)
            f["y"] = self.y

    def mapped(self, name, maxshape, mappings):
        """Of hyperslabs (start, count, stride, block), those of the dataset and of the source."""
        made_by = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made_by.set_layout(h5py.h5d.VIRTUAL)
        for virtual, file, dataset, source in mappings:
            spaces = [h5py.h5s.create_simple(self.x.shape, maxshape) for _ in range(2)]
            spaces[0].select_hyperslab(*virtual)
            if source is None:
                spaces[1] = h5py.h5s.create_simple((20, 6))
            else:
                spaces[1].select_hyperslab(*source)
            made_by.set_virtual(spaces[0], file.encode(), dataset.encode(), spaces[1])
        space = h5py.h5s.create_simple(self.x.shape, maxshape)
        with h5py.File(self.path(name), "w") as f:
            h5py.h5d.create(f.id, b"x", h5py.h5t.IEEE_F32LE, space, made_by)
            f["y"] = self.y

    def test_sources_that_cannot_be_read(self):
        os.truncate(shutil.copyfile(self.parts[1], self.path("cut.h5")), 1000)
        self.write_text("empty.h5", "")
        self.write_text("text.h5", "no HDF5\n" * 100)
        with h5py.File(self.path("group.h5"), "w") as f:
            f.create_group("d")
        first = (self.parts[0], "d")
        for file, dataset, words in (
            ("cut.h5", "d", "cannot be read: .*cut.h5: truncated: 1000 of"),
            ("empty.h5", "d", "cannot be read: .*empty.h5: the file is empty"),
            ("text.h5", "d", "cannot be read: .*text.h5: not an HDF5 file"),
            ("part-1.h5", "none", "part-1.h5 has no dataset 'none' with rows of it"),
            ("group.h5", "d", "group.h5 has no dataset 'd' with rows of it"),
            (".", "none", "data.h5 has no dataset 'none' with rows of it"),
            ("gone.h5", "d", "is not there: gone.h5 "),
        ):
            with self.subTest(file=file):
                self.virtual("data.h5", [first, (file, dataset)])
                self.refuse("data.h5", r"data\.h5: dataset 'x' is virtual, and .*" + words)

    def test_virtual_in_virtual(self):
        parts = [("part-0.h5", "d"), ("part-1.h5", "d")]
        self.virtual("inner.h5", parts)
        self.virtual("outer.h5", [("inner.h5", "x")], self.x.shape)
        self.is_plain("outer.h5")
        self.virtual("inner.h5", [parts[0], ("gone.h5", "d")])
        self.refuse("outer.h5", r"inner\.h5: dataset 'x' is virtual, .* not there: gone\.h5")
        self.virtual("circle.h5", [(".", "x")], self.x.shape)
        self.refuse("circle.h5", r"circle\.h5: dataset 'x' .* lies in itself")

    def test_a_damaged_file_is_passed_by(self):
        """HDF5 looks for an absolute name beside the file too."""
        os.mkdir(self.path("moved"))
        os.rename(self.parts[1], self.path("moved", "part-1.h5"))
        self.write_text("part-1.h5", "")
        sources = [(self.parts[0], "d"), (self.parts[1], "d")]
        self.virtual("moved/data.h5", sources)
        self.is_plain("moved/data.h5")

    def test_rows_that_lie_nowhere(self):
        self.virtual("gap.h5", [("part-0.h5", "d")])
        self.refuse("gap.h5", r"gap\.h5: dataset 'x' is virtual, and 120 of its 240 values lie no")
        # As many values as there are, but rows 10 to 19 twice.
        both = [((10 * i, 0), (1, 1), (20, 6), (20, 6)) for i in (0, 1)]
        names = ["part-0.h5", "part-1.h5"]
        self.mapped("twice.h5", self.x.shape, [(both[i], names[i], "d", None) for i in (0, 1)])
        self.refuse("twice.h5", "60 of its 240 values lie nowhere")

    def test_sound_mappings(self):
        self.virtual("rows.h5", [("part-0.h5", "d"), ("part-1.h5", "d")])
        self.is_plain("rows.h5")
        for i in (0, 1):
            self.write_h5(f"odd-{i}.h5", d=self.x[i::2])
        odd = [(((i, 0), (20, 1), (2, 1), (1, 6)), f"odd-{i}.h5", "d", None) for i in (0, 1)]
        self.mapped("odd.h5", self.x.shape, odd)
        self.is_plain("odd.h5")

    def test_mappings_without_end(self):
        numbered = ((0, 0), (UNLIMITED, 1), (20, 6), (20, 6))
        self.mapped("numbered.h5", (UNLIMITED, 6), [(numbered, "part-%b.h5", "d", None)])
        self.is_plain("numbered.h5")
        with h5py.File(self.path("grows.h5"), "w") as f:
            f.create_dataset("d", data=self.x, maxshape=(None, 6))
        row_by_row = ((0, 0), (UNLIMITED, 1), (1, 6), (1, 6))
        mapping = (row_by_row, "grows.h5", "d", row_by_row)
        self.mapped("endless.h5", (UNLIMITED, 6), [mapping])
        self.is_plain("endless.h5")

class RawTest(ElsewhereTest):
    """Values in files without any format; relative names are HDF5's: from the current folder."""

    def raw(self, name, files):
        """files: (file, offset, bytes) of each part of x."""
        with h5py.File(self.path(name), "w") as f:
            f.create_dataset("x", self.x.shape, "f4", external=files)
            f["y"] = self.y

    def setUp(self):
        super().setUp()
        values = self.x.astype("<f4").tobytes()
        with open(self.path("one.raw"), "wb") as f:
            f.write(b"head" + values[:400])
        with open(self.path("two.raw"), "wb") as f:
            f.write(values[400:])
        self.files = [("one.raw", 4, 400), ("two.raw", 0, h5py.h5f.UNLIMITED)]

    def test_sound(self):
        self.raw("data.h5", self.files)
        self.is_plain("data.h5")
        self.raw("data.h5", [("one.raw", 4, 400), (self.path("two.raw"), 0, 10000)])
        self.is_plain("data.h5")  # room for more rows than there are

    def test_too_short(self):
        self.raw("data.h5", self.files)
        for name, size in (("one.raw", 404), ("two.raw", 560)):
            os.truncate(self.path(name), size - 4)
            words = rf"data\.h5: values of dataset 'x' lie in .* {size - 4} of {size} bytes: "
            self.refuse("data.h5", rf"{words}{name} .*; copy or write")
            os.truncate(self.path(name), size)
        self.succeed("train", self.config("data.h5"), "--overwrite")
        with h5py.File(self.path("outer.h5"), "w") as f:
            layout = h5py.VirtualLayout(shape=self.x.shape, dtype="f4")
            layout[:] = h5py.VirtualSource("data.h5", "x", shape=self.x.shape)
            f.create_virtual_dataset("x", layout)
            f["y"] = self.y
        os.truncate(self.path("two.raw"), 0)
        self.refuse("outer.h5", r"data\.h5: values of dataset 'x' lie in .* 0 of 560 bytes")

    def test_not_there(self):
        self.raw("data.h5", self.files)
        os.mkdir(self.path("raw"))
        os.rename(self.path("two.raw"), self.path("raw", "two.raw"))
        self.refuse("data.h5", r"'x' lie in .*not there\): two\.raw .*; .*HDF5_EXTFILE_PREFIX")
        os.rename(self.path("one.raw"), self.path("raw", "one.raw"))
        wanted = self.trained("plain.h5")
        for prefix in (self.path("raw"), "raw", "${ORIGIN}/raw"):
            env = {"HDF5_EXTFILE_PREFIX": prefix}
            self.succeed("train", self.config("data.h5"), "--overwrite", env=env)
            self.assertEqual(harness.read_log(self.path("run"))[-1]["weights_hash"], wanted)
        self.raw("data.h5", [(self.path("gone.raw"), 0, h5py.h5f.UNLIMITED)])
        self.refuse("data.h5", r"'x' lie in .*not there\): /.*/gone\.raw .*; copy or link")


class ShorterTest(harness.ProgramTest):
    """A file that loses its end while a run streams it: HDF5 gives zeros for what is gone."""

    def begin(self, cut, ranks, **data):
        x, y = regression_rows(6000)
        self.write_h5("data.h5", x=x, y=y)
        self.write_h5("other.h5", x=x, y=y)
        order = {"order": "windows", "window": 500, "memory_per_node": "64K", **data}
        config = regression_config(data=order, train={"epochs": 1000000})
        running = self.start("train", self.write_config(config), ranks=ranks)
        log = self.path("run")
        running.until(lambda: len(harness.read_log(log)) > 1, "an epoch")
        os.truncate(self.path(cut), 9000)
        self.assertEqual(running.wait(), 3, running.text())
        words = rf"{cut}: became shorter while it was in use: 9000 of \d+ bytes are there"
        self.assertRegex(running.text(), words)

    def test_training_rows(self):
        for ranks in (0, 2):
            self.begin("data.h5", ranks)
            shutil.rmtree(self.path("run"))

    def test_validation_rows(self):
        file = {"file": "other.h5", "features": "x", "targets": "y"}
        self.begin("other.h5", 2, validation=file)


if __name__ == "__main__":
    unittest.main()
