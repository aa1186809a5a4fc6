#!/usr/bin/env python3
"""The inspect command: what it says of each kind of file against what h5py reads there, and what
it refuses."""

import json
import os
import shutil
import struct
import unittest

import h5py
import numpy as np

import harness
from harness import regression_config, regression_rows

KERAS = os.path.join(harness.ROOT, "tests", "keras", "values")
SEAL_BYTES = 32
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def xxh64(data):
    """XXH64 with seed 0, from its specification."""
    p1, p2, p3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
    p4, p5, mask = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5, (1 << 64) - 1

    def rotate(x, n):
        return ((x << n) | (x >> (64 - n))) & mask

    def mix(lane, word):
        return rotate((lane + word * p2) & mask, 31) * p1 & mask

    at, size = 0, len(data)
    if size >= 32:
        lanes = [(p1 + p2) & mask, p2, 0, -p1 & mask]
        while at + 32 <= size:
            lanes = [mix(v, w) for v, w in zip(lanes, struct.unpack_from("<4Q", data, at))]
            at += 32
        h = sum(rotate(v, n) for v, n in zip(lanes, (1, 7, 12, 18))) & mask
        for v in lanes:
            h = ((h ^ mix(0, v)) * p1 + p4) & mask
    else:
        h = p5
    h = (h + size) & mask
    for width, form in ((8, "<Q"), (4, "<I"), (1, "B")):
        while at + width <= size:
            (word,) = struct.unpack_from(form, data, at)
            at += width
            if width == 8:
                h = (rotate(h ^ mix(0, word), 27) * p1 + p4) & mask
            elif width == 4:
                h = (rotate(h ^ (word * p1 & mask), 23) * p2 + p3) & mask
            else:
                h = rotate(h ^ (word * p5 & mask), 11) * p1 & mask
    h = (h ^ (h >> 33)) * p2 & mask
    h = (h ^ (h >> 29)) * p3 & mask
    return h ^ (h >> 32)


def seal(path):
    """Gives a changed checkpoint a seal that is right again."""
    with open(path, "rb") as f:
        body = f.read()
    with open(path, "ab") as f:
        f.write(struct.pack("<8sQQQ", b"LKSSEAL1", len(body), xxh64(body), 0))


def unseal(path):
    os.truncate(path, os.path.getsize(path) - SEAL_BYTES)


class InspectTest(harness.ProgramTest):
    def inspect(self, name):
        """Text and JSON of a file."""
        plain = self.succeed("inspect", name)
        parsed = self.succeed("inspect", name, "--json")
        self.assertEqual((plain.err, parsed.err), ("", ""))
        found = json.loads(parsed.out)
        self.assertEqual(found["file"], name)
        self.assertEqual(found["bytes"], os.path.getsize(self.path(name)))
        self.assertTrue(plain.out.startswith(f"{name}: "), plain.out)
        return plain.out, found


class CheckpointTest(InspectTest):
    def setUp(self):
        super().setUp()
        x, y = regression_rows(100)
        self.write_h5("data.h5", x=x, y=y)
        self.config = self.write_config(regression_config(data={"scaling": "standardize"}))

    def train(self, *line, code=0):
        result = self.run_program("train", self.config, *line)
        self.assertEqual(result.code, code, str(result))

    def test_against_h5py(self):
        self.train()
        text, found = self.inspect("run/model.weights.h5")
        with h5py.File(self.path("run/model.weights.h5")) as f:
            about = f["lockstep"].attrs
            progress = {name: f["lockstep/progress"][name][()] for name in f["lockstep/progress"]}
            self.assertEqual(found["weights_hash"], about["weights_hash"])
            self.assertEqual(found["config"].encode(), f["lockstep/config"][()])
            for key, value in f["lockstep/provenance"].attrs.items():
                if key in ("data_hash", "validation_hash"):
                    self.assertEqual(found["data"][key.removeprefix("data_")], value)
                elif not key.startswith("data_"):
                    self.assertEqual(found["provenance"][key], value, key)
            last = {name: f["lockstep/history"][name][-1] for name in f["lockstep/history"]}
            weights = [f["layers"][layer]["vars"][i][()] for layer in ("dense", "dense_1")
                       for i in "01"]
        self.assertEqual(found["kind"], "checkpoint")
        self.assertEqual((found["format"], found["seal"]), (1, "sound"))
        for key in ("step", "epoch", "epoch_row", "complete"):
            self.assertEqual(found["progress"][key], progress[key], key)
        self.assertEqual(found["best"]["monitor"], "loss")
        self.assertEqual(found["best"]["value"], progress["best"])
        self.assertEqual(found["history"], {"epochs": 3, "last": last})
        self.assertEqual(found["scaling"], {"features": 6, "targets": 0})
        self.assertEqual(found["optimizer"], {"name": "adam", "stored": True, "slots": 2})
        self.assertEqual(found["parameters"], 74)
        shapes = [v["shape"] for layer in found["layers"] for v in layer["variables"]]
        self.assertEqual(shapes, [list(w.shape) for w in weights])
        computed = xxh64(b"".join(w.astype("<f4").tobytes() for w in weights))
        self.assertEqual(found["weights_hash_computed"], f"{computed:016x}")
        self.assertTrue(found["weights_hash_matches"])
        for words in ("seal +sound", "step +21", "epoch +3 done", "training +complete",
                      r"kernel \[6, 8\], bias \[8\]: 56", "adam, 2 slots", "ranks +1",
                      "6 feature and 0 target columns", found["weights_hash"]):
            self.assertRegex(text, words)

    def test_layers_without_parameters_keep_their_place(self):
        self.train("model=[{dense: {units: 8}}, {dropout: {rate: 0.5}}, {dense: {units: 2}}]")
        text, found = self.inspect("run/model.weights.h5")
        self.assertEqual([layer["name"] for layer in found["layers"]],
                         ["dense", "dropout", "dense_1"])
        self.assertEqual([layer["parameters"] for layer in found["layers"]], [56, 0, 18])
        self.assertTrue(found["weights_hash_matches"])
        self.assertRegex(text, "dropout +no parameters")

    def test_unfinished_epoch(self):
        self.train("checkpoint.every_steps=3")
        _, found = self.inspect("run/checkpoints/step-00000018.weights.h5")
        self.assertEqual(found["progress"], {"step": 18, "epoch": 2, "epoch_row": 64,
                                             "complete": False, "stopped_early": False})
        text, _ = self.inspect("run/checkpoints/step-00000018.weights.h5")
        self.assertRegex(text, "epoch +2 done, and 64 rows of the next")
        self.assertRegex(text, "training +not complete")

    def test_early_stopping(self):
        self.train("early_stopping={monitor: loss, patience: 1, min_delta: 100}",
                   "train.epochs=9")
        text, found = self.inspect("run/checkpoints/latest.weights.h5")
        self.assertTrue(found["progress"]["stopped_early"])
        self.assertEqual(found["early_stopping"]["monitor"], "loss")
        self.assertEqual(found["early_stopping"]["epoch"], 1)
        self.assertRegex(text, "complete, by early stopping")

    def test_damage(self):
        self.train()
        whole = self.path("run/model.weights.h5")
        size = os.path.getsize(whole)
        path = self.path("bad.weights.h5")

        def refuse(words, change):
            shutil.copyfile(whole, path)
            with open(path, "r+b") as f:
                change(f)
            self.fail_with(7, ["bad.weights.h5", words, "; "], "inspect", path)
            self.fail_with(7, words, "inspect", path, "--json")

        def flip(at):
            def change(f):
                f.seek(at)
                byte = f.read(1)
                f.seek(at)
                f.write(bytes([byte[0] ^ 1]))

            return change

        refuse("damaged", flip(0))  # no HDF5 file any more, but the seal is there
        refuse("damaged: its checksum", flip(size // 2))
        refuse("damaged", flip(size - SEAL_BYTES))
        refuse("damaged", flip(size - 1))
        refuse("seal is missing", lambda f: f.truncate(size - SEAL_BYTES))
        refuse("truncated", lambda f: f.truncate(size // 2))
        refuse("truncated|damaged", lambda f: f.truncate(20))

    def test_newer_format(self):
        self.train()
        path = self.path("run/model.weights.h5")
        unseal(path)
        with h5py.File(path, "r+") as f:
            f["lockstep"].attrs.modify("format", 2)
        seal(path)
        self.fail_with(7, ["format 2 is newer", "newer version"], "inspect", path)

    def test_other_weights_than_stated(self):
        self.train()
        path = self.path("run/model.weights.h5")
        unseal(path)
        with h5py.File(path, "r+") as f:
            f["layers/dense/vars/0"][0, 0] += 1
        seal(path)
        text, found = self.inspect("run/model.weights.h5")
        self.assertFalse(found["weights_hash_matches"])
        self.assertNotEqual(found["weights_hash"], found["weights_hash_computed"])
        self.assertRegex(text, "but the weights have [0-9a-f]{16}")

    def test_checkpoint_that_lacks_a_part(self):
        self.train()
        path = self.path("run/model.weights.h5")
        unseal(path)
        with h5py.File(path, "r+") as f:
            del f["lockstep/progress/step"]
        seal(path)
        self.fail_with(7, "progress/step", "inspect", path)

    def test_configuration_of_another_version(self):
        """Names that come out of it stay unsaid; all else is there."""
        self.train()
        path = self.path("run/model.weights.h5")
        unseal(path)
        with h5py.File(path, "r+") as f:
            del f["lockstep/config"]
            f["lockstep/config"] = "key_to_come: 1\n"
        seal(path)
        _, found = self.inspect("run/model.weights.h5")
        self.assertIsNone(found["best"]["monitor"])
        self.assertEqual(found["optimizer"], {"name": None, "stored": True, "slots": 2})

    def test_history(self):
        self.train()
        wanted = harness.read_history(self.path("run"))
        text, found = self.inspect("run/history.h5")
        self.assertEqual((found["kind"], found["epochs"]), ("history", 3))
        self.assertEqual(set(found["columns"]), set(wanted))
        for name, values in wanted.items():
            self.assertEqual(found["columns"][name], list(values), name)
        rows = [line.split() for line in text.splitlines() if line.split()[0] in "123"]
        self.assertEqual([row[0] for row in rows], ["1", "2", "3"])
        header = next(line.split() for line in text.splitlines() if line.startswith("    epoch"))
        self.assertEqual(header, ["epoch", *found["columns"]])
        loss = header.index("loss")
        np.testing.assert_allclose([float(row[loss]) for row in rows], wanted["loss"], rtol=1e-5)

    def test_predictions(self):
        self.train()
        self.succeed("predict", "run", "--in", "data.h5", "--out", "out.h5")
        text, found = self.inspect("out.h5")
        with h5py.File(self.path("out.h5")) as f:
            values = f["predictions"][()].astype("f8")
            self.assertEqual(found["weights_hash"], f["predictions"].attrs["weights_hash"])
            self.assertEqual(found["checkpoint"], f["predictions"].attrs["checkpoint"])
        self.assertEqual((found["kind"], found["rows"], found["outputs"]), ("predictions", 100, 2))
        self.assertNotIn("layer", found)
        for column, about in zip(values.T, found["columns"]):
            self.assertEqual((about["min"], about["max"]), (column.min(), column.max()))
            np.testing.assert_allclose(about["mean"], column.mean(), rtol=1e-12)
            self.assertEqual(about["not_finite"], 0)
        self.assertRegex(text, "100 rows of 2 values")
        self.succeed("predict", "run", "--in", "data.h5", "--out", "in.h5", "--layer", "dense")
        self.assertEqual(self.inspect("in.h5")[1]["layer"], "dense")


class OtherFilesTest(InspectTest):
    def test_many_columns_and_values_that_are_not_finite(self):
        values = np.arange(30.0).reshape(3, 10)
        values[1, 0] = np.nan
        values[:, 1] = np.inf
        with h5py.File(self.path("p.h5"), "w") as f:
            f["predictions"] = values
            f["predictions"].attrs["weights_hash"] = "0" * 16
        text, found = self.inspect("p.h5")
        self.assertEqual(len(found["columns"]), 8)
        self.assertEqual(found["columns"][0],
                         {"min": 0.0, "mean": 10.0, "max": 20.0, "not_finite": 1})
        self.assertEqual(found["columns"][1],
                         {"min": None, "mean": None, "max": None, "not_finite": 3})
        for words in ("1 not finite", "column 1 +no finite value", "2 columns more"):
            self.assertRegex(text, words)

    def test_predictions_of_another_shape(self):
        with h5py.File(self.path("p.h5"), "w") as f:
            f["predictions"] = np.zeros(3)
            f["predictions"].attrs["weights_hash"] = "0" * 16
        self.fail_with(3, ["p.h5", "rows, outputs"], "inspect", "p.h5")

    def test_any_hdf5(self):
        with h5py.File(self.path("any.h5"), "w") as f:
            f["plain"] = np.zeros((4, 3), "f4")
            f.create_dataset("deep/er/packed", data=np.zeros((100, 2), "u1"), chunks=(10, 2),
                             compression="gzip")
            f["ranks"] = np.zeros(2, [("rank", "i4"), ("host", "S8")])
            f["words"] = "text"
            f["mask"] = np.zeros(3, bool)
            f["null"] = h5py.Empty("f4")
            f["gone"] = h5py.SoftLink("/nowhere")
            f["round"] = h5py.SoftLink("/round")
            circle = f.create_group("circle")
            circle["back"] = circle
        text, found = self.inspect("any.h5")
        self.assertEqual(found["kind"], "hdf5")
        items = {item["name"]: item for item in found["datasets"]}
        self.assertEqual(items["plain"], {"name": "plain", "type": "float32", "shape": [4, 3],
                                          "chunk_rows": None, "compressed": False})
        self.assertEqual(items["deep/er/packed"],
                         {"name": "deep/er/packed", "type": "uint8", "shape": [100, 2],
                          "chunk_rows": 10, "compressed": True})
        self.assertEqual(items["ranks"]["type"], "compound")
        self.assertEqual((items["words"]["type"], items["words"]["shape"]), ("string", []))
        self.assertEqual(items["mask"]["type"], "bool")
        self.assertIsNone(items["null"]["type"])
        self.assertIsNone(items["gone"]["type"])
        self.assertIsNone(items["round"]["type"])
        self.assertTrue(found["cut"])  # the circle was left
        for words in (r"plain +float32 \[4, 3\], contiguous", "chunks of 10 rows, compressed",
                      "gone +.no dataset", "not listed"):
            self.assertRegex(text, words)

    def test_links_that_multiply(self):
        """Two circles make a tree of 2^32 paths: the walk gives up in time."""
        with h5py.File(self.path("tree.h5"), "w") as f:
            f["a"] = np.zeros(2)
            circle = f.create_group("circle")
            circle["back"] = circle["again"] = circle
        _, found = self.inspect("tree.h5")
        self.assertTrue(found["cut"])
        self.assertEqual(found["datasets"][0]["name"], "a")

    def test_no_datasets(self):
        with h5py.File(self.path("none.h5"), "w"):
            pass
        _, found = self.inspect("none.h5")
        self.assertEqual((found["count"], found["datasets"]), (0, []))
        self.assertNotIn("cut", found)

    def test_names_are_not_enough(self):
        """Datasets called as the program's own files are still data."""
        self.write_h5("own.h5", epoch=np.zeros(3), predictions=np.zeros((3, 1)),
                      layers=np.zeros(2))
        _, found = self.inspect("own.h5")
        self.assertEqual((found["kind"], found["count"]), ("hdf5", 3))

    def test_converted_data_of_any_name(self):
        """As above, by `convert`, which gives datasets an attribute `columns`."""
        for name in ("epoch", "lockstep", "predictions", "ranks", "layers", "model_weights"):
            self.write_text(name + ".csv", "a,b\n1,2\n3,4\n")
            self.succeed("convert", name + ".csv", name + "-data.h5")
            _, found = self.inspect(name + "-data.h5")
            self.assertEqual((found["kind"], found["datasets"][0]["name"]), ("hdf5", name))

    def test_names_that_are_no_utf8(self):
        with h5py.File(self.path("latin.h5"), "w") as f:
            f[b"gr\xfcn"] = np.zeros(2)
        _, found = self.inspect("latin.h5")
        self.assertEqual(found["datasets"][0]["name"], "gr?n")

    def test_behind_a_user_block(self):
        with h5py.File(self.path("block.h5"), "w", userblock_size=512) as f:
            f["x"] = np.zeros(2)
        self.assertEqual(self.inspect("block.h5")[1]["count"], 1)

    def test_keras(self):
        for name, layout, model in (("trained.weights.h5", "v3", False),
                                    ("trained.legacy.h5", "legacy", True)):
            shutil.copyfile(os.path.join(KERAS, name), self.path(name))
            text, found = self.inspect(name)
            with h5py.File(self.path(name)) as f:
                root = f["layers"] if layout == "v3" else f["model_weights"]
                sizes = []
                root.visititems(lambda _, item: sizes.append(getattr(item, "size", 0)))
            self.assertEqual((found["kind"], found["layout"]), ("keras", layout))
            self.assertEqual(found["has_model"], model)
            self.assertEqual(found["parameters"], sum(sizes))
            self.assertEqual(len(found["variables"]), sum(size > 0 for size in sizes))
            self.assertRegex(text, r"(?i)keras")

    def test_errors(self):
        self.fail_with(3, ["none.h5", "no such file"], "inspect", "none.h5")
        self.fail_with(3, "is a folder", "inspect", self.folder)
        self.write_text("empty.h5", "")
        self.fail_with(3, "empty", "inspect", "empty.h5")
        self.write_text("text.h5", "no HDF5\n" * 100)
        self.fail_with(3, "not an HDF5 file", "inspect", "text.h5")
        with open(self.path("head.h5"), "wb") as f:
            f.write(SIGNATURE + b"\0" * 100)
        self.fail_with(3, ["head.h5", "damaged|truncated", "; "], "inspect", "head.h5")
        path = self.write_h5("cut.h5", x=np.zeros(1000))
        os.truncate(path, 1000)
        self.fail_with(3, ["cut.h5", "truncated"], "inspect", path)
        shutil.copyfile(path, self.path("cut.weights.h5"))
        self.fail_with(7, ["cut.weights.h5", "truncated"], "inspect", "cut.weights.h5")

    def test_open_elsewhere(self):
        words = "another program has it open for writing"
        with h5py.File(self.path("busy.h5"), "w") as f:
            f["x"] = np.zeros(3)
            self.fail_with(3, [words, "wait until that program"], "inspect", "busy.h5")
        with h5py.File(self.path("swmr.h5"), "w", libver="latest") as f:
            f.create_dataset("x", data=np.zeros(3), maxshape=(None,))
            f.swmr_mode = True
            wait = "wait until that program has closed it; if it has ended without.* h5clear -s"
            self.fail_with(3, [words, wait], "inspect", "swmr.h5")
        self.inspect("swmr.h5")

    def test_usage(self):
        path = self.write_h5("x.h5", x=np.zeros(1))
        self.fail_with(2, ["missing", r"FILE\.h5"], "inspect")
        self.fail_with(2, "too many", "inspect", path, path)
        self.fail_with(2, ["--jsom", "--json"], "inspect", path, "--jsom")
        result = self.run_program("inspect", path, ranks=2)
        self.assertEqual(set(result.codes), {2}, str(result))


if __name__ == "__main__":
    unittest.main()
