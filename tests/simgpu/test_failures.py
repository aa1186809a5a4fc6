#!/usr/bin/env python3
"""Devices that fail: the exit code, the words, that all ranks end, and that the last good
checkpoint goes on.

Failures are injected by call count (SIMGPU_FAIL; README.md).
"""

import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "program"))

import harness

TIMEOUT = 4  # run.timeout, in seconds
SILENCE = 15  # after which a rank that stands still is given up, at the least
NAME = r"GPU \d \(Simulated GPU, GPU-[0-9a-f-]+\): "


class FailureTest(harness.ProgramTest):
    def setUp(self):
        super().setUp()
        x, y = harness.regression_rows(96)
        self.write_h5("data.h5", x=x, y=y)
        self.config = self.write_config(
            harness.regression_config(
                train={"batch_size": 16, "epochs": 2},
                checkpoint={"every_epochs": 0, "every_steps": 2},
                device="gpu",
                run={"timeout": TIMEOUT},
            )
        )

    def train(self, *settings, fail=None, ranks=1, **env):
        if fail is not None:
            env["SIMGPU_FAIL"] = fail
        limit = harness.ERROR_SECONDS + TIMEOUT + SILENCE
        line = ("train", self.config, *settings)
        return self.run_program(*line, ranks=ranks, env=env, timeout=limit)

    def fails(self, code, words, *settings, **options):
        """One error line with all the words, and the code: of the launcher, for a rank that fails
        within an epoch ends all."""
        result = self.train(*settings, **options)
        self.assertEqual(result.code, code, result)
        self.assertEqual(len(result.error_lines), 1, result)
        for word in [words] if isinstance(words, str) else words:
            self.assertRegex(result.error_lines[0], word)


class StartTest(FailureTest):
    """Before the first step: exit code 4, nothing trained, never the CPU instead."""

    def fails_at_start(self, words, *settings, **options):
        self.fails(4, words, *settings, **options)
        self.assertEqual(harness.checkpoints(self.path("run")), [])

    def test_device_too_small(self):
        words = [
            NAME + r"out of memory: .*needed: [\d.]+ KiB \(parameters .*, gradients .*, "
            r"optimizer .*, activations .*\); free: 64\.0 KiB",
            r"use a smaller train\.batch_size, more ranks",
        ]
        self.fails_at_start(words, SIMGPU_MEMORY="64K")

    def test_limit_too_small(self):
        words = [r"device\.memory_limit: 32\.0 KiB", r"; raise device\.memory_limit"]
        self.fails_at_start(words, "device.memory_limit=32K")

    def test_allocation_fails(self):
        words = NAME + r"out of memory: CUDA cudaErrorMemoryAllocation \(2\), .*Malloc.*needed: "
        self.fails_at_start(words, fail="cudaMalloc:1=2")

    def test_no_code_for_the_device(self):
        words = NAME + r"code not for this device: CUDA cudaErrorNoKernelImageForDevice \(209\)"
        self.fails_at_start(words, fail="cudaLaunchKernel:1+=209")

    def test_no_driver(self):
        self.fails_at_start(r"there is no NVIDIA driver here", SIMGPU_DRIVER="0")

    def test_old_driver(self):
        words = [r"driver: CUDA cudaErrorInsufficientDriver \(35\)", r"install a newer driver"]
        self.fails_at_start(words, SIMGPU_DRIVER="12000")

    def test_no_device(self):
        self.fails_at_start(r"not found: CUDA cudaErrorNoDevice \(100\)", CUDA_VISIBLE_DEVICES="")

    def test_products_fail(self):
        words = NAME + r"internal: cuBLAS CUBLAS_STATUS_EXECUTION_FAILED \(13\)"
        self.fails_at_start(words, fail="cublasLtMatmul:1=13")


class NcclStartTest(FailureTest):
    def test_no_id(self):
        words = r"communication: NCCL .*\(2\).*ncclGetUniqueId"
        self.fails(5, words, ranks=2, fail="ncclGetUniqueId:1=2")

    def test_all_refused(self):
        words = r"communication: NCCL .*\(2\).*ncclCommInitRankConfig"
        self.fails(5, words, ranks=2, fail="ncclCommInitRankConfig:1=2")


    def test_one_refused(self):
        """The other one waits inside NCCL, where nothing but the watchdog ends it."""
        words = r"communication: NCCL .*\(2\).*ncclCommInitRankConfig|no progress for .* of rank"
        self.fails(5, words, ranks=2, fail="ncclCommInitRankConfig@1:1=2")


    def test_memory_for_sums(self):
        """NCCL takes memory at its first sum: before the run takes all that is free."""
        self.succeed("train", self.config, "device.memory_growth=false", ranks=2)


class StepTest(FailureTest):
    """Within an epoch, on the second of two ranks: all end in time, and a run goes on from the last
    checkpoint as if nothing had been."""

    def weights_of(self, run):
        return harness.read_log(self.path(run))[-1]["weights_hash"]

    def check(self, code, words, fail):
        self.succeed("train", self.config, "run.folder=whole", ranks=2)
        self.fails(code, words, ranks=2, fail=fail)
        self.assertNotEqual(harness.checkpoints(self.path("run")), [])
        self.succeed("train", self.config, "checkpoint.resume=required", ranks=2)
        self.assertEqual(self.weights_of("run"), self.weights_of("whole"))

    def test_launch_fails(self):
        words = NAME + r"internal: CUDA cudaErrorLaunchFailure \(719\), .*\[rank 1, .*epoch 2"
        self.check(4, words, "cudaGraphLaunch@1:9=719")

    def test_memory_error(self):
        words = NAME + r"hardware: CUDA cudaErrorECCUncorrectable \(214\), .*\[rank 1, .*epoch 2"
        self.check(4, words, "cudaGraphLaunch@1:9=214")

    def test_device_vanishes(self):
        words = NAME + r"busy: CUDA cudaErrorDevicesUnavailable \(46\), .*\[rank 1, .*epoch 2"
        self.check(4, words, "cudaGraphLaunch@1:9+=46")

    def test_sum_fails(self):
        words = r"communication: NCCL .*\(6\), remote process exited.*\[rank 1, .*epoch 2"
        self.check(5, words, "collective@1:11=6")


class DeathTest(FailureTest):
    """A rank that is killed, or stands still, inside a sum leaves its peers waiting in theirs."""

    def check(self, words, fail):
        self.fails(5, words, ranks=2, fail=fail)
        self.assertNotEqual(harness.checkpoints(self.path("run")), [])
        self.succeed("train", self.config, "checkpoint.resume=required", ranks=2)

    def test_killed_in_a_sum(self):
        self.check(r"rank 1 on \S+ died", "collective@1:11=kill")

    def test_stands_still_in_a_sum(self):
        self.check(r"no progress for .* of rank 1 on", "collective@1:11=hang")


if __name__ == "__main__":
    unittest.main()
