#!/usr/bin/env python3
"""Data as people have them: any number of rows on any number of ranks, any numeric type and
layout, several datasets, sets apart by fraction, resident or streamed."""

import os
import re
import shutil
import unittest

import h5py
import numpy as np

import harness
from harness import class_config, class_rows, regression_config, regression_rows


class RowCountTest(harness.ProgramTest):
    """Every N from 1 to twice the batch of 8: each row exactly once an epoch, whoever has it.

    With a learning rate too small to change a weight, an epoch's loss is the mean over all rows of
    the initial model's: a row left out or taken twice shows. Rows differ much in size for that.
    """

    PAIRS = [(1, 1), (1, 8), (2, 3), (3, 2), (5, 8), (7, 5), (8, 8), (9, 2)]
    PAIRS += [(11, 7), (12, 6), (15, 4), (16, 3), (16, 8)]

    def check(self, rows, ranks):
        x, y = regression_rows(rows)
        y *= 2.0 ** np.arange(rows, dtype="f4")[:, None]
        path = self.write_h5(f"data-{rows}.h5", x=x, y=y)
        optimizer = {"name": "sgd", "learning_rate": 1e-30}
        config = regression_config(path, optimizer=optimizer, train={"batch_size": 8})
        folder = f"run-{rows}-{ranks}"
        self.succeed("train", self.write_config(config), f"run.folder={folder}", ranks=ranks)
        weights = harness.read_layers(self.path(folder, "model.weights.h5"))
        hidden = np.tanh(x.astype("f8") @ weights["dense/vars/0"] + weights["dense/vars/1"])
        errors = hidden @ weights["dense_1/vars/0"] + weights["dense_1/vars/1"] - y
        history = harness.read_history(self.path(folder))
        np.testing.assert_allclose(history["loss"], [np.mean(errors**2)] * 3, rtol=1e-5)
        np.testing.assert_allclose(history["mae"], [np.mean(np.abs(errors))] * 3, rtol=1e-5)
        self.assertEqual(harness.read_log(self.path(folder))[-1]["step"], 3 * -(-rows // 8))

    def test_row_counts(self):
        for rows, ranks in self.PAIRS:
            with self.subTest(rows=rows, ranks=ranks):
                self.check(rows, ranks)

    def test_more_ranks_than_rows_validate(self):
        x, y = regression_rows(5)
        self.write_h5("data.h5", x=x, y=y)
        config = self.write_config(regression_config(data={"validation": 0.2}))
        self.succeed("train", config, ranks=8)
        self.assertTrue(np.isfinite(harness.read_history(self.path("run"))["val_loss"]).all())


class LayoutTest(harness.ProgramTest):
    """The same numbers stored in other ways train to the same weights."""

    def train(self, name, write, **changes):
        path = self.path(name + ".h5")
        with h5py.File(path, "w") as f:
            write(f)
        config = regression_config(path, model=[{"dense": {"units": 4}}, {"dense": {"units": 1}}])
        config = self.write_config(harness.merged(config, changes))
        self.succeed("train", config, f"run.folder={name}")
        return harness.read_log(self.path(name))[-1]["weights_hash"]

    def setUp(self):
        super().setUp()
        rng = np.random.default_rng(3)
        # Whole numbers that every type below holds exactly.
        self.x = rng.integers(0, 2, size=(60, 12))
        self.y = rng.integers(0, 100, size=60)

    def write_as(self, x_type, y_type="f4"):
        def write(f):
            f["x"] = self.x.astype(x_type)
            f["y"] = self.y.astype(y_type)

        return write

    def test_types(self):
        wanted = self.train("plain", self.write_as("<f4"))
        types = ["u1", "i1", "<i2", ">u4", "<i8", "<f2", ">f4", "<f8", "?"]
        for number, kind in enumerate(types):
            with self.subTest(kind=kind):
                other = "i8" if number % 2 else ">f8"
                ours = self.train(f"type-{number}", self.write_as(kind, other))
                self.assertEqual(ours, wanted)

    def test_shapes(self):
        wanted = self.train("plain", self.write_as("f4"))

        def column(f):
            f["x"] = self.x.astype("f4")
            f["y"] = self.y.astype("f4").reshape(60, 1)

        def image(f):
            f["x"] = self.x.astype("u1").reshape(60, 3, 4)
            f["y"] = self.y.astype("f4").reshape(60, 1, 1)

        self.assertEqual(self.train("column", column), wanted)
        self.assertEqual(self.train("image", image), wanted)

    def test_storage(self):
        wanted = self.train("plain", self.write_as("f4"))

        def write(**options):
            def inner(f):
                f.create_dataset("x", data=self.x.astype("f4"), **options)
                f.create_dataset("y", data=self.y.astype("f4"))

            return inner

        layouts = {
            "chunked": {"chunks": (7, 5)},
            "gzip": {"chunks": (16, 12), "compression": "gzip", "shuffle": True},
            "checked": {"chunks": (60, 12), "fletcher32": True},
            "extendible": {"chunks": (8, 12), "maxshape": (None, 12)},
        }
        for name, options in layouts.items():
            with self.subTest(layout=name):
                self.assertEqual(self.train(name, write(**options)), wanted)

    def test_virtual(self):
        """Rows in other files, which are looked for beside the file and where they are named."""
        x, y = regression_rows(60)
        os.mkdir(self.path("set"))
        layout = h5py.VirtualLayout(shape=x.shape, dtype="f4")
        for part, name in enumerate(("a.h5", self.path("set", "b.h5"))):
            rows = slice(30 * part, 30 * part + 30)
            self.write_h5(os.path.join("set", os.path.basename(name)), x=x[rows])
            layout[rows] = h5py.VirtualSource(name, "x", shape=(30, 6))
        with h5py.File(self.path("set", "data.h5"), "w") as f:
            f.create_virtual_dataset("x", layout)
            f["y"] = y
        self.write_h5("plain.h5", x=x, y=y)
        hashes = []
        for name in ("plain.h5", "set/data.h5"):
            config = self.write_config(regression_config(name))
            self.succeed("train", config, "--overwrite")
            hashes.append(harness.read_log(self.path("run"))[-1]["weights_hash"])
        os.rename(self.path("set"), self.path("moved"))  # an absolute name is looked for beside too
        config = self.write_config(regression_config("moved/data.h5"))
        self.succeed("train", config, "--overwrite")
        hashes.append(harness.read_log(self.path("run"))[-1]["weights_hash"])
        self.assertEqual(len(set(hashes)), 1)
        os.rename(self.path("moved", "a.h5"), self.path("moved", "c.h5"))
        words = r"moved/data\.h5: dataset 'x' is virtual, .* not there: a\.h5 .*; copy or link"
        self.fail_with(3, words, "train", config, "run.folder=none", ranks=2)

    def test_two_ways_to_a_file(self):
        """Rows of a virtual dataset, or behind a link, in a file that is also a table itself."""
        x, y = regression_rows(60)
        self.write_h5("plain.h5", x=x, y=y)
        self.write_h5("part.h5", x=x[:30], y=y[:30])
        layout = h5py.VirtualLayout(shape=x.shape, dtype="f4")
        layout[:30] = h5py.VirtualSource("part.h5", "x", shape=(30, 6))
        layout[30:] = h5py.VirtualSource(".", "rest", shape=(30, 6))
        with h5py.File(self.path("virtual.h5"), "w") as f:
            f["rest"] = x[30:]
            f.create_virtual_dataset("x", layout)
            f["y"] = y
            f["part"] = h5py.ExternalLink("part.h5", "x")
            f["targets"] = h5py.ExternalLink("part.h5", "y")
        part = {"file": self.path("part.h5"), "features": "x", "targets": "y"}
        linked = {"file": self.path("virtual.h5"), "features": "part", "targets": "targets"}
        last = []
        for train, validation in (("plain.h5", part), ("virtual.h5", part), ("plain.h5", linked),
                                  ("virtual.h5", linked), ("part.h5", linked)):
            with self.subTest(train=train, validation=validation["file"]):
                config = regression_config(train, data={"validation": validation})
                self.succeed("train", self.write_config(config), "--overwrite")
                history = harness.read_history(self.path("run"))
                last.append((list(history["loss"]), list(history["val_loss"])))
        self.assertEqual(last[1:4], last[:1] * 3)

    def test_paths_with_dots(self):
        """HDF5 passes over them."""

        def write(f):
            f["group/x"], f["y"] = self.x, self.y

        plain, dotted = (
            {"data": {"train": {"features": x, "targets": y}}}
            for x, y in (("group/x", "y"), ("./group/./x", "/./y"))
        )
        self.assertEqual(self.train("dots", write, **dotted), self.train("plain", write, **plain))
        words = r"no dataset './group/./z' \(has group/x, y\)"
        line = ["data.train.features=./group/./z", "run.folder=none"]
        self.fail_with(3, words, "train", self.path("config.yaml"), *line)

    def test_links_that_lead_nowhere(self):
        x, y = regression_rows(20)
        self.write_h5("other.h5", x=x)
        self.write_text("cut.h5", "")
        links = {
            "soft": (h5py.SoftLink("/nowhere"), "'soft' is a link to '/nowhere', .*; mend"),
            "file": (h5py.ExternalLink("gone.h5", "/x"), "'file' .* '/x' .* not there: gone.h5 .*;"
                     " copy or link"),
            "path": (h5py.ExternalLink("other.h5", "none"), "'none' in other.h5, which is not"),
            "cut": (h5py.ExternalLink("cut.h5", "x"), "'x' in another file: .*cut.h5: the file is"),
            "group": (h5py.ExternalLink("gone.h5", "/"), "'group' .* not there: gone.h5 "),
        }
        with h5py.File(self.path("data.h5"), "w") as f:
            f["y"] = y
            for name, (link, _) in links.items():
                f[name] = link
            f["x"] = h5py.ExternalLink("gone.h5", "x")
        config = self.write_config(regression_config())
        for name, (_, words) in links.items():
            with self.subTest(name=name):
                given = f"data.train.features={name + '/x' if name == 'group' else name}"
                self.fail_with(3, r"data\.h5: .*" + words, "train", config, given)
        # Of the usual names the first that is there is meant.
        self.fail_with(3, "'x' is a link", "train", config, "data.train.features=[]")

    def test_filter_that_hdf5_lacks(self):
        with h5py.File(self.path("data.h5"), "w") as f:
            for name, values in (("x", np.zeros((40, 3), "f4")), ("y", np.zeros((40, 1), "f4"))):
                f.create_dataset(name, data=values, compression="lzf")
        config = self.write_config(regression_config(model=[{"dense": {"units": 1}}]))
        words = r"dataset 'x' is packed with filter lzf \(32000\), which .*; copy .* h5repack .* "
        for folder in (None, "/none/folder", self.folder):
            env = {"HDF5_PLUGIN_PATH": folder} if folder else None
            for line in ("--dry-run", "data.train.features=[]", "run.folder=none"):
                self.fail_with(3, words + "HDF5_PLUGIN_PATH", "train", config, line, env=env)

    def test_filter_that_was_left_out(self):
        """One that could be left out, and was, is not needed."""
        x, y = regression_rows(60)
        self.write_h5("plain.h5", x=x, y=y)
        with h5py.File(self.path("data.h5"), "w") as f:
            f["y"] = y
            made = f.create_dataset("x", x.shape, "f4", chunks=x.shape, compression="lzf")
            made.id.write_direct_chunk((0, 0), x.tobytes(), filter_mask=1)
        hashes = []
        for name in ("plain.h5", "data.h5"):
            self.succeed("train", self.write_config(regression_config(name)), "--overwrite")
            hashes.append(harness.read_log(self.path("run"))[-1]["weights_hash"])
        self.assertEqual(hashes[0], hashes[1])

    def test_one_feature(self):
        def write(f):
            f["x"] = self.x[:, 0].astype("f4")
            f["y"] = self.y.astype("f4")

        self.train("one", write)

    def test_list_of_datasets(self):
        wanted = self.train("plain", self.write_as("f4"))

        def parts(f):
            f["a"] = self.x[:, :5].astype("u1")
            f["inner/b"] = self.x[:, 5].astype("f8")
            f["c"] = self.x[:, 6:].astype("i4").reshape(60, 2, 3)
            f["y"] = self.y.astype("f4")

        features = {"data": {"train": {"features": ["a", "inner/b", "c"]}}}
        self.assertEqual(self.train("parts", parts, **features), wanted)

    def test_usual_names_are_guessed(self):
        wanted = self.train("plain", self.write_as("f4"))

        def named(x, y):
            def write(f):
                f[x], f[y] = self.x.astype("f4"), self.y.astype("f4")

            return write

        for number, (x, y) in enumerate([("X", "labels"), ("data", "label"), ("features", "y")]):
            config = {"data": {"train": {"features": None, "targets": None}}}
            self.assertEqual(self.train(f"guess-{number}", named(x, y), **config), wanted)

    def test_locked_by_a_reader(self):
        """A file that another process reads is read; training never writes to it."""
        path = self.path("held.h5")
        with h5py.File(path, "w") as f:
            self.write_as("f4")(f)
        config = regression_config(path, model=[{"dense": {"units": 1}}])
        with h5py.File(path, "r"):
            self.succeed("train", self.write_config(config), ranks=2)


class FractionTest(harness.ProgramTest):
    """Which rows validate, seen by a model that always answers class 0 and never learns: its
    val_accuracy is the share of class 0 in the validation set."""

    def share(self, y, validation, ranks=0, *line):
        rows = len(y)
        x = np.random.default_rng(5).normal(size=(rows, 6)).astype("f4")
        self.write_h5("data.h5", x=x, y=y)
        with h5py.File(self.path("zero.weights.h5"), "w") as f:
            f["layers/dense/vars/0"] = np.zeros((6, 3), "f4")
            f["layers/dense/vars/1"] = np.array([1, 0, 0], "f4")
            f.create_group("vars")
        config = class_config(
            model=[{"dense": {"units": 3}}],
            optimizer={"name": "sgd", "learning_rate": 1e-30},
            data={"validation": validation},
            train={"init_from": "zero.weights.h5", "epochs": 1},
        )
        path = self.write_config(config)
        self.succeed("train", path, "--overwrite", *line, ranks=ranks)
        history = harness.read_history(self.path("run"))
        return history["accuracy"][0], history["val_accuracy"][0]

    def test_last_rows(self):
        y = np.array([0] * 90 + [1] * 30, "u1")
        for ranks in (0, 3):
            self.assertEqual(self.share(y, 0.25, ranks), (1.0, 0.0))

    def test_random_rows(self):
        y = np.array([0] * 90 + [1] * 30, "u1")
        validation = {"fraction": 0.25, "rows": "random"}
        shares = [self.share(y, validation, ranks) for ranks in (0, 2, 3)]
        self.assertEqual(shares[0], shares[1])
        self.assertEqual(shares[0], shares[2])
        train, held = shares[0]
        self.assertAlmostEqual(train * 90 + held * 30, 90, delta=1e-4)
        self.assertGreater(held, 0.3)  # of 30 rows; all of the last ones would be 0
        self.assertLess(held, 1.0)

    def test_stratified_rows(self):
        """Each class in its own proportion, whatever the order of the rows."""
        y = np.array([0] * 60 + [1] * 40 + [2] * 20, "u1")
        validation = {"fraction": 0.2, "rows": "stratified"}
        for seed in (1, 2, 3):
            train, held = self.share(y, validation, 2, f"train.seed={seed}")
            self.assertAlmostEqual(held, 0.5, delta=1e-6)
            self.assertAlmostEqual(train, 0.5, delta=1e-6)


class StreamTest(harness.ProgramTest):
    """Where rows lie is a matter of memory, and changes no result."""

    def setUp(self):
        super().setUp()
        x, y = regression_rows(3000)
        path = self.path("data.h5")
        with h5py.File(path, "w") as f:
            f.create_dataset("x", data=x, chunks=(100, 6), compression="gzip")
            f.create_dataset("y", data=y, chunks=(100, 2))
        data = {"order": "windows", "window": 500, "validation": 0.1}
        data["scaling"] = {"features": "standardize", "targets": "standardize"}
        config = regression_config(data=data, train={"batch_size": 64, "epochs": 2})
        self.config = self.write_config(config)

    def test_streamed_is_resident(self):
        # Two windows of 500 rows of 8 floats are 32 kB, the whole set is 96 kB.
        outs = {}
        for ranks in (0, 2, 3):
            for memory in ("0", "64K"):
                folder = f"run-{ranks}-{memory}"
                line = [f"data.memory_per_node={memory}", f"run.folder={folder}"]
                outs[memory] = self.succeed("train", self.config, *line, ranks=ranks).out
            logs = [harness.read_log(self.path(f"run-{ranks}-{m}"))[-1] for m in ("0", "64K")]
            self.assertEqual(logs[0]["weights_hash"], logs[1]["weights_hash"])
        self.assertRegex(outs["64K"], "(?i)stream")
        self.assertNotRegex(outs["0"], "(?i)stream")

    def test_budget_below_two_windows(self):
        line = ["data.memory_per_node=20K"]
        made = r"data\.window=500 \(with train\.batch_size=64 and chunks of 100 rows\) makes "
        words = made + r"windows of up to 500 rows, of which two need .*; lower data\.window, or"
        for ranks in (0, 2):
            self.fail_with(2, words, "train", self.config, *line, ranks=ranks)

    def test_what_makes_windows_large(self):
        """Advice contradicts nothing that was set, and helps."""
        for window, batch, memory, words in (
            (20, 64, "4K", "makes windows of up to 100 rows, .*; raise data.* in chunks of fewer"),
            (20, 450, "20K", "makes windows of up to 700 rows, .*; lower train.batch_size, or"),
            (5000, 64, "20K", "makes one window of all 2700 rows, .*; lower data.window, or"),
        ):
            line = [f"data.memory_per_node={memory}", f"data.window={window}"]
            line.append(f"train.batch_size={batch}")
            self.fail_with(2, rf"data\.window={window} .*" + words, "train", self.config, *line)

    def test_all_rows_shuffled_need_memory(self):
        line = ["data.memory_per_node=64K", "data.order=rows"]
        words = r"data\.order=rows needs all .* data\.memory_per_node allows 64\.0 KiB"
        self.fail_with(2, words, "train", self.config, *line)
        # What was not written is not spoken of as if it were.
        words = words.replace("=rows", "=auto, which is rows below 4 GiB,")
        self.fail_with(2, words, "train", self.config, line[0], "data.order=auto")

    def test_order_is_stored(self):
        self.succeed("train", self.config, "data.order=auto")
        with open(self.path("run", "config.yaml"), encoding="utf-8") as f:
            self.assertRegex(f.read(), re.compile(r"order: rows"))


class TablesTest(harness.ProgramTest):
    """Which rows train, validate and test, where only files are named."""

    def setUp(self):
        super().setUp()
        x, y = regression_rows(90)
        for i, name in enumerate(("train", "val", "test")):
            rows = np.hstack([x, y])[30 * i : 30 * i + 30]
            text = "\n".join(",".join(map(repr, row.tolist())) for row in rows)
            self.write_text(name + ".csv", "a,b,c,d,e,f,g,h\n" + text + "\n")
        line = ["--targets", "g,h", "data.h5"]
        self.succeed("convert", "train=train.csv", "val=val.csv", "test=test.csv", *line)

    def tables(self, **data):
        tables = {"train": {"file": "data.h5"}, **data}
        config = harness.merged(regression_config(), {"data": tables})
        config["data"]["train"] = tables["train"]
        return self.write_config(config)

    def results(self, config):
        self.succeed("train", config, "--overwrite")
        return (harness.read_history(self.path("run"))["val_loss"].tolist(),
                self.succeed("evaluate", "run").out.splitlines()[-3:])

    def named(self, kind):
        return {"file": "data.h5", "features": "x_" + kind, "targets": "y_" + kind}

    def test_each_takes_its_own(self):
        only = {"file": "data.h5"}
        named = {kind: self.named(kind) for kind in ("train", "val", "test")}
        wanted = self.results(self.tables(train=named["train"], validation=named["val"],
                                          test=named["test"]))
        self.assertEqual(self.results(self.tables(validation=only, test=only)), wanted)
        half = {"file": "data.h5", "features": "x_test"}
        self.assertEqual(self.results(self.tables(validation=only, test=half)), wanted)
        other = self.results(self.tables(validation=named["test"], test=named["train"]))
        self.assertNotEqual(other[0], wanted[0])
        self.assertNotEqual(other[1], wanted[1])

    def test_the_training_rows_once_more(self):
        with h5py.File(self.path("data.h5"), "a") as f:
            for kind in ("val", "test"):
                del f["x_" + kind], f["y_" + kind]
        os.symlink("data.h5", self.path("again.h5"))
        for name in ("data.h5", "again.h5"):
            words = r"data\.validation names no features, .*\(x_train\) are the rows of data\.train"
            self.fail_with(2, words + r".*; set data\.validation\.features and", "train",
                           self.tables(validation={"file": name}), ranks=2)
        self.succeed("train", self.tables(test={"file": "data.h5"}))
        self.fail_with(2, r"data\.test names .*; set data\.test\.features", "evaluate", "run")
        # Who names them means them.
        named = self.named("train")
        self.results(self.tables(validation=named, test=named))

    def test_evaluation_without_the_training_file(self):
        shutil.copyfile(self.path("data.h5"), self.path("test.h5"))
        self.succeed("train", self.tables(test={"file": "test.h5"}))
        os.remove(self.path("data.h5"))
        self.succeed("evaluate", "run")


class ScalingTest(harness.ProgramTest):
    def test_labels_are_not_scaled(self):
        x, y = class_rows()
        self.write_h5("data.h5", x=x, y=y)
        scaling = {"features": "standardize", "targets": "standardize"}
        config = self.write_config(class_config(data={"scaling": scaling}))
        self.fail_with(2, [r"data\.scaling\.targets|scaling", "label|class"], "train", config)

    def test_constant_column(self):
        x, y = regression_rows()
        x[:, 2] = 5.0
        self.write_h5("data.h5", x=x, y=y)
        for kind in ("standardize", "minmax", {"divide": 255}):
            config = self.write_config(regression_config(data={"scaling": kind}))
            self.succeed("train", config, "--overwrite", ranks=2)
            loss = harness.read_history(self.path("run"))["loss"]
            self.assertTrue(np.isfinite(loss).all())

    def test_divide_is_the_divided_data(self):
        x, y = class_rows()
        x = np.abs(x * 50).astype("u1")
        self.write_h5("bytes.h5", x=x, y=y)
        self.write_h5("floats.h5", x=(x / 255.0).astype("f4"), y=y)
        hashes = []
        for name, scaling in (("bytes", {"divide": 255}), ("floats", "none")):
            config = self.write_config(class_config(name + ".h5", data={"scaling": scaling}))
            self.succeed("train", config, f"run.folder={name}")
            hashes.append(harness.read_history(self.path(name))["loss"])
        # x * (1 / 255) and x / 255 may differ in the last bit before they are rounded.
        np.testing.assert_allclose(hashes[0], hashes[1], rtol=1e-6)


if __name__ == "__main__":
    unittest.main()
