#!/usr/bin/env python3
"""Every file of configs/ runs as it stands, on two ranks, and learns what it claims to show."""

import os
import pathlib
import unittest

import harness

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
FASHION_IDX = pathlib.Path("/usr/share/datasets/fashion-mnist")


class ConfigsTest(harness.ProgramTest):
    def train(self, name, *overrides):
        """The history of configs/NAME.yaml; its run goes to a folder of this test's own."""
        run = self.path(name)
        self.succeed(
            "train", str(CONFIGS / f"{name}.yaml"), f"run.folder={run}", *overrides, ranks=2,
            timeout=300,
        )
        return harness.read_history(run)

    def test_all_are_tried_here(self):
        tried = {"seed_example", "digits", "digits_stratified", "climate", "autoencoder",
                 "fashion_mnist"}
        self.assertEqual({path.stem for path in CONFIGS.glob("*.yaml")}, tried)

    def test_seed_example(self):
        history = self.train("seed_example")
        self.assertEqual(len(history["loss"]), 10)
        self.assertLess(history["loss"][-1], history["loss"][0])

    def test_digits(self):
        self.assertGreaterEqual(max(self.train("digits")["val_accuracy"]), 0.95)

    def test_digits_stratified(self):
        self.assertGreaterEqual(max(self.train("digits_stratified")["val_accuracy"]), 0.95)

    def test_climate(self):
        # Targets have variance 1, so 0.1 is nine tenths of it explained; a linear fit stays at 0.7.
        self.assertLess(min(self.train("climate")["val_loss"]), 0.1)

    def test_autoencoder(self):
        history = self.train("autoencoder")
        self.assertLess(history["val_loss"][-1], 0.5 * history["val_loss"][0])

    @unittest.skipUnless(FASHION_IDX.is_dir(), f"needs {FASHION_IDX} (dataset-fashion-mnist)")
    def test_fashion_mnist(self):
        data = self.path("fashion.h5")
        names = {"x_train": "train-images-idx3", "y_train": "train-labels-idx1",
                 "x_test": "t10k-images-idx3", "y_test": "t10k-labels-idx1"}
        inputs = [f"{name}={FASHION_IDX}/{file}-ubyte.gz" for name, file in names.items()]
        self.succeed("convert", *inputs, data, timeout=120)
        history = self.train(
            "fashion_mnist", f"data.train.file={data}", f"data.validation.file={data}"
        )
        self.assertEqual(len(history["val_accuracy"]), 5)
        self.assertGreaterEqual(history["val_accuracy"][-1], 0.87)
        os.unlink(data)


if __name__ == "__main__":
    unittest.main()
