#!/usr/bin/env python3
"""What bad input gets: one line that says what, where and what to do, and the documented exit code
on every rank, soon, with nothing left under a final name. Alone and on two ranks."""

import os
import shutil
import subprocess
import unittest

import h5py
import numpy as np

import harness
from harness import class_config, class_rows, regression_config, regression_rows

RANKS = (0, 2)

# The end of every such line: where it happened, and what to do.
WHERE = r"\[rank \d+, [^,\]]+, [^\]]+\]; ."


class ErrorTest(harness.ProgramTest):
    def fail_everywhere(self, code, words, *arguments, where=WHERE, **options):
        for ranks in RANKS:
            with self.subTest(ranks=ranks):
                self.fail_with(code, [*words, where], *arguments, ranks=ranks, **options)
                self.check_nothing_left()

    def check_nothing_left(self):
        """No result and no half of one: neither under a final name nor aside."""
        self.assertEqual(harness.leftovers(self.folder), [])
        self.assertEqual(harness.checkpoints(self.path("run")), [])
        for name in ("model.weights.h5", "history.h5"):
            self.assertFalse(os.path.exists(self.path("run", name)), name)


class DataErrorTest(ErrorTest):
    """Faults of the data file: exit code 3."""

    def refuse(self, words, config):
        self.fail_everywhere(3, words, "train", self.write_config(config))
        self.assertFalse(os.path.exists(self.path("run")), "a folder of a run that never was")

    def test_no_file(self):
        self.refuse(["data.h5", "no such file"], regression_config())

    def test_folder_for_a_file(self):
        os.mkdir(self.path("data.h5"))
        self.refuse(["data.h5", "folder"], regression_config())

    def test_empty_file(self):
        self.write_text("data.h5", "")
        self.refuse(["data.h5", "empty"], regression_config())

    def test_not_hdf5(self):
        self.write_text("data.h5", "x,y\n1,2\n" * 100)
        self.refuse(["data.h5", "not an HDF5 file", "convert"], regression_config())

    def test_truncated_file(self):
        x, y = regression_rows(2000)
        path = self.write_h5("data.h5", x=x, y=y)
        os.truncate(path, os.path.getsize(path) // 2)
        self.refuse(["data.h5", "truncated"], regression_config())

    def test_missing_dataset(self):
        x, y = regression_rows()
        self.write_h5("data.h5", x=x, y=y, group=np.zeros(3))
        config = regression_config(data={"train": {"targets": "label"}})
        self.refuse(["data.h5", r"no dataset 'label' \(has .*x.*y.*\)"], config)

    def test_group_for_a_dataset(self):
        x, y = regression_rows()
        path = self.write_h5("data.h5", x=x)
        with h5py.File(path, "a") as f:
            f["y/inner"] = y
        self.refuse(["data.h5", "'y' is not a dataset", "y/inner"], regression_config())

    def test_nothing_to_guess(self):
        x, y = regression_rows()
        self.write_h5("data.h5", inputs=x, outputs=y)
        config = regression_config(data={"train": {"features": None, "targets": None}})
        self.refuse(["data.h5", "features", "inputs", "data.train.features"], config)

    def test_row_counts_differ(self):
        x, y = regression_rows(100)
        self.write_h5("data.h5", x=x, y=y[:90])
        self.refuse(["data.h5", "'x'", "'y'", "100", "90"], regression_config())

    def test_zero_rows(self):
        x, y = regression_rows()
        self.write_h5("data.h5", x=x[:0], y=y[:0])
        self.refuse(["data.h5", "no rows"], regression_config())

    def test_nan_in_features(self):
        x, y = regression_rows()
        x[37, 4] = np.nan
        self.write_h5("data.h5", x=x, y=y)
        self.refuse(["data.h5", "'x'", "NaN", "row 37", "column 4"], regression_config())

    def test_infinity_in_targets(self):
        x, y = regression_rows()
        y[99, 1] = -np.inf
        self.write_h5("data.h5", x=x, y=y)
        self.refuse(["data.h5", "'y'", "infinity", "row 99", "column 1"], regression_config())

    def test_nan_met_while_streaming(self):
        x, y = regression_rows(20000)
        x[19999, 0] = np.nan
        self.write_h5("data.h5", x=x, y=y)
        data = {"order": "windows", "window": 1024, "memory_per_node": "256K"}
        config = regression_config(data=data, train={"batch_size": 512, "epochs": 1})
        self.refuse(["data.h5", "'x'", "NaN", "row 19999", "column 0"], config)

    def test_label_out_of_range(self):
        x, y = class_rows()
        y[41] = 7
        self.write_h5("data.h5", x=x, y=y)
        self.refuse(["data.h5", "label 7", "row 41", "3 outputs"], class_config())

    def test_class_numbers_for_one_hot(self):
        """Before their values are: none but 0 and 1 would be in the range of this loss."""
        self.write_h5("data.h5", **dict(zip("xy", class_rows())))
        config = class_config(loss="categorical_crossentropy")
        words = ["1 target column, but.* 3 outputs", "; use loss: sparse_categorical_crossentropy"]
        self.refuse(words, config)

    def test_label_that_is_no_class_number(self):
        for value in (-1.0, 1.5):
            x, y = class_rows()
            y = y.astype("f4")
            y[5] = value
            self.write_h5("data.h5", x=x, y=y)
            self.refuse(["data.h5", f"label {value:g}", "row 5"], class_config())

    def test_strings_for_numbers(self):
        x, y = class_rows(10)
        path = self.write_h5("data.h5", x=x)
        with h5py.File(path, "a") as f:
            f["y"] = ["cat", "dog"] * 5
        self.refuse(["data.h5", "'y'", "string", "number"], class_config())

    def test_compound_for_numbers(self):
        rows = np.zeros(10, dtype=[("a", "f4"), ("b", "f4")])
        self.write_h5("data.h5", x=rows, y=np.zeros(10, "f4"))
        self.refuse(["data.h5", "'x'", "compound", "number"], regression_config())

    def test_target_columns_do_not_fit_the_model(self):
        x, y = regression_rows(outputs=3)
        self.write_h5("data.h5", x=x, y=y)
        self.refuse(["3 target columns", "2 outputs"], regression_config())

    def test_one_hot_labels_for_a_sparse_loss(self):
        x, y = class_rows()
        self.write_h5("data.h5", x=x, y=np.eye(3, dtype="f4")[y])
        words = ["data.h5", "one column", "'y' has 3", r"\bcategorical_crossentropy"]
        self.refuse(words, class_config())

    def test_targets_outside_zero_to_one(self):
        x, y = regression_rows()
        y[3, 1] = 2.5
        self.write_h5("data.h5", x=x, y=np.abs(y))
        config = regression_config(loss="binary_crossentropy", metrics=[])
        self.refuse(["data.h5", "'y'", "row 3", "0 to 1"], config)

    def test_validation_of_nothing(self):
        words = ["neither a fraction above 0 nor a table", "remove data.validation"]
        x, y = regression_rows()
        self.write_h5("data.h5", x=x, y=y)
        config = self.write_config(regression_config())
        self.fail_with(2, words, "train", config, "data.validation=0")

    def test_variable_in_braces(self):
        """YAML takes the braces of ${NAME} for its own within a mapping in braces."""
        text = "data: {train: {file: ${HOME}/x.h5, features: x}}\nmodel: []\n"
        self.write_text("flow.yaml", text)
        words = ["flow.yaml:1", r"put quotes around a value with a variable .*\"\$\{NAME\}/x.h5\""]
        self.fail_with(2, words, "train", "flow.yaml")

    def test_validation_columns_differ(self):
        x, y = regression_rows()
        self.write_h5("data.h5", x=x, y=y, x_val=x[:, :5], y_val=y)
        table = {"file": "data.h5", "features": "x_val", "targets": "y_val"}
        self.refuse(["5", "6", "validation"], regression_config(data={"validation": table}))

    def test_predicting_from_other_columns(self):
        x, y = regression_rows()
        self.write_h5("data.h5", x=x, y=y)
        wide = self.write_h5("wide.h5", x=np.ones((10, 7), "f4"))
        self.succeed("train", self.write_config(regression_config()))
        line = ["predict", "run", "--in", wide, "--features", "x", "--out", "out.h5"]
        for ranks in RANKS:
            self.fail_with(3, ["wide.h5", "7", "6", WHERE], *line, ranks=ranks)
            self.assertFalse(os.path.exists(self.path("out.h5")))


class StorageErrorTest(ErrorTest):
    """What cannot be written, and checkpoints that cannot be used: exit code 7."""

    def setUp(self):
        super().setUp()
        x, y = regression_rows()
        self.data = self.write_h5("data.h5", x=x, y=y)
        self.config = self.write_config(regression_config())

    def test_run_folder_below_a_file(self):
        self.write_text("file", "")
        self.fail_everywhere(
            7, ["file", "[Nn]ot a (directory|folder)"], "train", self.config, "run.folder=file/run"
        )

    def test_run_folder_where_nothing_can_be_made(self):
        self.fail_everywhere(7, ["/proc/run"], "train", self.config, "run.folder=/proc/run")

    def test_output_that_cannot_be_written(self):
        self.succeed("train", self.config)
        out = ["--in", self.data, "--features", "x", "--out", "nowhere/out.h5"]
        for ranks in RANKS:
            self.fail_with(7, ["nowhere/out.h5", WHERE], "predict", "run", *out, ranks=ranks)

    def full_disk(self, after, folder="run"):
        """Environment in which this folder takes only so many more bytes."""
        return {
            "LD_PRELOAD": harness.build_library("full_disk", self.folder),
            "FULL_DISK": os.path.realpath(self.path(folder)),
            "FULL_DISK_AFTER": str(after),
            "ASAN_OPTIONS": "verify_asan_link_order=0",
        }

    def test_activations_beyond_memory(self):
        """More than an address space holds: refused when the backend opens, in one line."""
        layers = [{"dense": {"units": 5_000_000}}, {"dense": {"units": 1}}]
        data = {"train": {"synthetic": {"rows": 10_000_000, "inputs": 1}}}
        path = self.write_config({"data": data, "model": layers, "loss": "mse", "device": "cpu"})
        words = ("out of memory for \\d+ bytes of activations", "smaller train.batch_size")
        for ranks in (0, 2):
            self.fail_with(1, words, "train", path, "train.batch_size=10000000", ranks=ranks)

    def test_full_disk(self):
        """The run folder and its first lines fit, the first checkpoint does not. Where the next
        line of the log finds that out before the writer is asked, that is the line to see."""
        config = self.write_config(regression_config(model=[{"dense": {"units": 4000}}, "dense"]))
        units = ["model.1.units=2"]
        env = self.full_disk(60000)
        words = [r"step-\d{8}\.weights\.h5|log\.jsonl", "[Nn]o space left"]
        self.fail_everywhere(7, words, "train", config, *units, env=env)
        # With room again the same command does the whole run.
        self.succeed("train", config, *units)
        self.assertEqual(len(harness.checkpoints(self.path("run"))), 3)

    def test_full_disk_for_checkpoints(self):
        """The log's last line has no hash of parameters that nothing holds."""
        env = self.full_disk(1000, "run/checkpoints")
        for ranks in RANKS:
            line = ["train", self.config, "--overwrite", "train.epochs=1"]
            self.fail_with(7, ["No space left"], *line, env=env, ranks=ranks)
            end = harness.read_log(self.path("run"))[-1]
            self.assertEqual((end["event"], end["reason"]), ("end", "error"))
            self.assertIsNone(end["weights_hash"])
            self.assertEqual(harness.checkpoints(self.path("run")), [])

    def test_full_disk_for_the_output(self):
        self.succeed("train", self.config)
        line = ["predict", "run", "--in", self.data, "--features", "x", "--out", "run/out.h5"]
        for ranks in RANKS:
            words = [r"run/out\.h5", "[Nn]o space left", WHERE]
            self.fail_with(7, words, *line, ranks=ranks, env=self.full_disk(100))
            self.assertFalse(os.path.exists(self.path("run", "out.h5")))
            self.assertEqual(harness.leftovers(self.folder), [])

    def test_checkpoint_of_another_model(self):
        self.succeed("train", self.config, "run.folder=other", "model.0.units=5")
        other = self.path("other", "model.weights.h5")
        words = ["other/model.weights.h5", "dense", r"6, 5|6 x 5", r"6, 8|6 x 8"]
        self.fail_everywhere(7, words, "train", self.config, f"train.init_from={other}")
        self.succeed("train", self.config)
        for ranks in RANKS:
            self.fail_with(7, words, "evaluate", "run", "--checkpoint", other, ranks=ranks)

    def test_checkpoint_with_more_layers(self):
        deeper = self.write_config(
            regression_config(model=[{"dense": {"units": 8}}] * 2 + [{"dense": {"units": 2}}]),
            "deeper.yaml",
        )
        self.succeed("train", deeper, "run.folder=other")
        other = self.path("other", "model.weights.h5")
        self.fail_everywhere(
            7, ["other/model.weights.h5", "layer"], "train", self.config, f"train.init_from={other}"
        )

    def refuse_checkpoint(self, words, damage):
        """damage(path) spoils a copy of a good checkpoint, which every command must refuse."""
        self.succeed("train", self.config)
        path = self.path("bad.weights.h5")
        shutil.copy(self.path("run", "model.weights.h5"), path)
        damage(path)
        line = ["--in", self.data, "--features", "x", "--out", "out.h5"]
        for ranks in RANKS:
            with self.subTest(ranks=ranks):
                all_words = ["bad.weights.h5", *words, WHERE]
                self.fail_with(
                    7, all_words, "evaluate", "run", "--checkpoint", path, ranks=ranks
                )
                self.fail_with(7, all_words, "predict", path, *line, ranks=ranks)
        result = self.run_program("inspect", path)
        self.assertIn(result.code, (3, 7), str(result))
        self.assertRegex(result.error_lines[0], rf"bad\.weights\.h5.*({words[0]})")
        self.fail_with(
            7,
            ["bad.weights.h5", *words],
            "train", self.config, "run.folder=new", f"train.init_from={path}",
        )  # fmt: skip

    def test_one_flipped_bit(self):
        def flip(path):
            with open(path, "r+b") as f:
                f.seek(os.path.getsize(path) // 3)
                byte = f.read(1)[0]
                f.seek(-1, os.SEEK_CUR)
                f.write(bytes([byte ^ 0x10]))

        self.refuse_checkpoint(["damaged"], flip)

    def test_cut_off_checkpoint(self):
        def cut(path):
            os.truncate(path, os.path.getsize(path) - 1000)

        self.refuse_checkpoint(["truncated|damaged"], cut)

    def test_seal_cut_off(self):
        def cut(path):
            os.truncate(path, os.path.getsize(path) - 32)

        self.refuse_checkpoint(["truncated|damaged|seal"], cut)

    def test_no_checkpoint(self):
        self.refuse_checkpoint(["no such file|missing|is no file"], os.remove)

    def test_checkpoint_that_is_no_hdf5(self):
        def scribble(path):
            with open(path, "w", encoding="utf-8") as f:
                f.write("not a checkpoint\n" * 100)

        self.refuse_checkpoint(["HDF5"], scribble)

    def test_no_run(self):
        """No run was ever begun there: no advice to look at its checkpoints."""
        for line in (["evaluate"], ["predict", "--in", self.data, "--out", "out.h5"]):
            words = ["no such file: no run was begun in this folder", "train first"]
            self.fail_with(7, words, line[0], self.config, *line[1:])

    def test_hdf5_that_is_no_checkpoint(self):
        """A data file named as one: told apart from damage."""

        def replace(path):
            shutil.copy(self.data, path)

        self.succeed("train", self.config)
        path = self.path("foreign.h5")
        replace(path)
        for ranks in RANKS:
            words = ["foreign.h5", "checkpoint|weights|layers", WHERE]
            self.fail_with(7, words, "evaluate", "run", "--checkpoint", path, ranks=ranks)

    def test_damaged_newest_checkpoint_is_passed_over(self):
        self.succeed("train", self.config)
        newest = harness.checkpoints(self.path("run"))[-1]
        os.truncate(newest, os.path.getsize(newest) // 2)
        os.remove(self.path("run", "model.weights.h5"))
        result = self.succeed("train", self.config, ranks=2)
        self.assertIn(os.path.basename(newest), result.out + result.err)
        self.assertEqual(len(harness.read_history(self.path("run"))["loss"]), 3)


class OtherErrorTest(ErrorTest):
    """Not finite, no such device, a launcher that started strangers."""

    def setUp(self):
        super().setUp()
        x, y = regression_rows()
        self.write_h5("data.h5", x=x, y=y)

    def test_not_finite(self):
        """The step is named, and the parameters of before are kept."""
        optimizer = {"name": "sgd", "learning_rate": 1e6}
        config = self.write_config(
            regression_config(optimizer=optimizer, checkpoint={"every_steps": 1})
        )
        for ranks in RANKS:
            with self.subTest(ranks=ranks):
                run = self.path(f"run-{ranks}")
                words = [r"step \d+", "finite|NaN|infinit", r"\[rank \d+", "learning_rate"]
                self.fail_with(6, words, "train", config, f"run.folder={run}", ranks=ranks)
                log = harness.read_log(run)
                self.assertEqual(log[-1]["event"], "end")
                self.assertEqual(log[-1]["reason"], "error")
                for path in harness.checkpoints(run):
                    for name, values in harness.read_layers(path).items():
                        self.assertTrue(np.isfinite(values).all(), f"{path}: {name}")

    def test_loss_that_no_float_holds(self):
        """The square of a value is beyond 32-bit floats before its gradient is."""
        x, y = regression_rows()
        self.write_h5("large.h5", x=x, y=np.full(y.shape, 3e19))
        config = self.write_config(regression_config("large.h5"))
        for ranks in RANKS:
            words = [r"loss .*not finite at step 1 of epoch 1", "scale of the data"]
            self.fail_with(6, words, "train", config, "--overwrite", ranks=ranks)

    def test_evaluation_that_is_not_finite(self):
        config = self.write_config(regression_config(model=[{"dense": {"units": 2}}]))
        x, y = regression_rows()
        self.write_h5("data.h5", x=x, y=y)
        self.succeed("train", config)
        self.write_h5("large.h5", x=np.full(x.shape, 3e38), y=y)
        line = ("evaluate", "run", "data.train.file=large.h5", "--data", "train")
        for ranks in RANKS:
            self.fail_with(6, "loss of the train set is not finite", *line, ranks=ranks)

    def test_losses_whose_sum_no_float_holds(self):
        """Each row's is below 3.4e38, and so is a rank's; that of all ranks is not."""
        x, y = regression_rows()
        self.write_h5("large.h5", x=x, y=np.full(y.shape, 1.4e19 / np.sqrt(32)))
        config = self.write_config(regression_config("large.h5"))
        for ranks in RANKS:
            words = [r"loss .*not finite at step 1 of epoch 1", "scale of the data"]
            options = ("--overwrite", "train.batch_size=64", "device.gradients=rows")
            self.fail_with(6, words, "train", config, *options, ranks=ranks)

    @unittest.skipIf(harness.DEVICE != "cpu", "there is a GPU here")
    def test_no_gpu(self):
        config = self.write_config(regression_config())
        self.fail_everywhere(4, ["gpu|GPU"], "train", config, "device=gpu", where="; .")

    def test_current_folder_that_was_removed(self):
        config = self.write_config(regression_config())
        for operand in (config, "config.yaml", "run"):
            os.mkdir(self.path("gone"))
            result = subprocess.run(
                ["sh", "-c", 'rmdir ../gone && exec "$@"', "sh", harness.PROGRAM, "train", operand],
                cwd=self.path("gone"),
                env=harness.environment(),
                capture_output=True,
                text=True,
                timeout=harness.TIMEOUT,
            )
            self.assertEqual(result.returncode, 2, result.stderr)
            words = "error: the current folder.* removed .*; cd to a folder"
            self.assertRegex(result.stderr.splitlines()[-1], words)
            self.check_nothing_left()

    def test_singletons_of_a_job_step(self):
        """Two tasks of a step that MPI takes for two runs of one rank each."""
        config = self.write_config(regression_config())
        env = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}
        self.fail_with(5, ["2", r"--mpi=\w+|mpirun"], "train", config, env=env)
        self.check_nothing_left()


if __name__ == "__main__":
    unittest.main()
