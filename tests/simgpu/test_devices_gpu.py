"""lockstep devices over the simulated GPU: the module as nvcc built it, and each failure where the
runtime, cuBLASLt or NCCL would have it. LOCKSTEP is the program linked for the simulator."""

import json
import os
import sys
import unittest

import h5py

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "program"))

from harness import PROGRAM, ProgramTest, regression_config, regression_rows

LIBRARIES = os.path.join(os.path.dirname(os.path.dirname(PROGRAM)), "lib")
NAME = "Simulated GPU"
DRELU = 8 | 128  # of cublasLtEpilogue_t
UUID = r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def simulated(devices=1, fail=None, **settings):
    env = {"LD_LIBRARY_PATH": LIBRARIES, "LD_BIND_NOW": "1", "SIMGPU_DEVICES": str(devices)}
    if fail:
        env["SIMGPU_FAIL"] = fail
    return env | {name: str(value) for name, value in settings.items()}


class Simulated(ProgramTest):
    def json_of(self, *arguments, **options):
        return json.loads(self.succeed(*arguments, "--json", **options).outs[0])


class Devices(Simulated):
    def test_listing(self):
        for ranks in (1, 2):
            found = self.json_of("devices", ranks=ranks, env=simulated(2))
            self.assertEqual(found["gpus"], 2)
            self.assertIsNone(found["system"])
            gpus = [d for d in found["devices"] if d["ordinal"] >= 0]
            self.assertEqual([(d["rank"], d["ordinal"], d["name"]) for d in gpus],
                             [(r, o, NAME) for r in range(ranks) for o in (0, 1)])
            self.assertEqual(len({d["uuid"] for d in gpus}), 2)
            for gpu in gpus:
                self.assertRegex(gpu["uuid"], f"^{UUID}$")
                self.assertEqual(gpu["memory_total"], 64 << 20)
                self.assertLessEqual(gpu["memory_free"], gpu["memory_total"])

    def test_one_of_two_by_its_uuid(self):
        uuid = self.json_of("devices", env=simulated(2))["devices"][2]["uuid"]
        found = self.json_of("devices", env=simulated(2, CUDA_VISIBLE_DEVICES=uuid))
        self.assertEqual([d["uuid"] for d in found["devices"][1:]], [uuid])

    def test_usable(self):
        for ranks in (1, 2, 4):
            found = self.json_of("devices", "diagnose", ranks=ranks, env=simulated(ranks))
            self.assertTrue(found["usable"])
            for rank, one in enumerate(found["ranks"]):
                texts = {link["link"]: link["text"] for link in one["links"]}
                self.assertIn(f"on gpu:{rank} [[1, 2], [3, 4]] x [[5, 6], [7, 8]] = [[19, 22], "
                              "[43, 50]]", texts["product"])
                self.assertIn("equals the host's in double", texts["compare"])
                self.assertIn("libnccl.so.2", texts["libraries"])
                self.assertRegex(texts["sum"], "values right" if ranks > 1 else "for one rank")

    def test_products_by_name(self):
        for device in ("gpu:0", "gpu:1", "cpu"):
            result = self.succeed("devices", "product", "--device", device, env=simulated(2))
            self.assertRegex(result.out, rf"{device}( {NAME})?: \[\[19, 22\], \[43, 50\]\]\n$")

    def test_report(self):
        self.succeed("devices", "report", "devices.h5", "--device", "gpu", ranks=2,
                     env=simulated(2))
        with h5py.File(self.path("devices.h5")) as f:
            self.assertEqual([(r["backend"], r["ordinal"]) for r in f["ranks"]],
                             [(b"cuda", 0), (b"cuda", 1)])
            link = f["links"][0]
            self.assertEqual((link["way"], link["message"]), (b"gpu", 1 << 20))
            self.assertGreater(link["bandwidth"], 0)
            self.assertEqual(len(f["errors"]), 0)

    def test_training_reports_memory_and_algorithms(self):
        x, y = regression_rows()
        self.write_h5("data.h5", x=x, y=y)
        config = self.write_config(regression_config() | {"device": "gpu"})
        self.succeed("train", config, "train.epochs=1", "run.folder=run", ranks=2, env=simulated(2))
        with h5py.File(self.path("run", "devices.h5")) as f:
            self.assertEqual(f.attrs["got"], "2 x cuda on 1 node")
            self.assertEqual(list(f["memory"]["rank"]), [0, 1])
            for row in f["memory"]:
                self.assertEqual(row["device_total"], 64 << 20)
                parts = sum(int(row[part]) for part in ("parameters", "gradients", "slots",
                                                        "activations", "data", "workspace"))
                self.assertLessEqual(parts, row["total"])
                self.assertLessEqual(row["free_after"], row["free_before"] - row["total"])
            self.assertEqual(set(f["algorithms"]["rank"]), {0, 1})
            self.assertTrue(all(a["what"] and a["chosen"] for a in f["algorithms"]))
        self.assertRegex(self.succeed("inspect", "run/devices.h5").out,
                         r"memory +rank 1: .* free before, .* after; planned .*, limit none")


    def test_masks_that_are_wrong_at_zero_are_not_used(self):
        hidden = {"dense": {"units": 8, "activation": "relu"}}
        x, y = regression_rows()
        self.write_h5("data.h5", x=x, y=y)
        model = {"model": [hidden, hidden, {"dense": {"units": 2}}], "device": "gpu"}
        config = self.write_config(regression_config() | model)
        for at_zero in (0, 1):
            self.succeed("train", config, "train.epochs=1", f"run.folder=run{at_zero}",
                         env=simulated(SIMGPU_RELU_AT_ZERO=at_zero))
            with h5py.File(self.path(f"run{at_zero}", "devices.h5")) as f:
                chosen = [a["chosen"].decode() for a in f["algorithms"]]
            masked = [text for text in chosen if text.endswith(f"epilogue {DRELU}")]
            self.assertEqual(bool(masked), not at_zero, chosen)

    def measured(self, config, tune):
        """Products of a run whose algorithms were measured."""
        self.succeed("train", config, "train.epochs=1", f"device.tune={tune}", "--overwrite",
                     "run.folder=run", env=simulated())
        with h5py.File(self.path("run", "devices.h5")) as f:
            return {a["what"] for a in f["algorithms"] if a["seconds"] > 0}

    def test_products_are_measured_on_request(self):
        """Resuming bit for bit: else no clock has a say in the order of sums."""
        x, y = regression_rows(inputs=8, outputs=4)  # the simulator has a choice for such widths
        self.write_h5("data.h5", x=x, y=y)
        model = [{"dense": {"units": 8}}, {"dense": {"units": 4}}]
        config = self.write_config(regression_config() | {"model": model, "device": "gpu"})
        self.assertEqual(self.measured(config, "false"), set())
        measured = self.measured(config, "true")
        self.assertGreater(len(measured), 2)
        self.assertFalse([what for what in measured if b"(evaluation)" in what])


class Failures(Simulated):
    def stops(self, env, link, class_, words, advice, *flags, ranks=0):
        result = self.run_program("devices", "diagnose", "--json", *flags, ranks=ranks, env=env)
        self.assertEqual(set(result.codes), {4}, result)
        self.assertRegex(result.errs[0],
                         rf"^lockstep: error: .*{words}.* \[rank \d+, [^],]+, {link}\]; "
                         f".*{advice}")
        broken = [one for rank in json.loads(result.outs[0])["ranks"] for one in rank["links"]
                  if one["state"] == "broken"]
        self.assertEqual((broken[0]["link"], broken[0]["class"]), (link, class_))

    def test_no_driver(self):
        self.fail_with(4, "there is no NVIDIA driver here.*run on a node with an NVIDIA driver",
                       "devices", "--device", "gpu", env=simulated(SIMGPU_DRIVER=0))

    def test_old_driver(self):
        self.stops(simulated(SIMGPU_DRIVER=12020), "versions", "driver",
                   "cudaErrorInsufficientDriver .35.*serves CUDA 12.2, the runtime is 1[23].* "
                   "needs "
                   "driver", "install a newer driver")

    def test_codes_of_the_driver(self):
        for code, name, advice in ((802, "SystemNotReady", "fabricmanager"),
                                   (803, "SystemDriverMismatch", "of different versions"),
                                   (804, "CompatNotSupportedOnDevice", "compat folder")):
            with self.subTest(code=code):
                self.stops(simulated(fail=f"cudaGetDeviceCount:1+={code}"), "versions", "driver",
                           f"driver: CUDA cudaError{name} .{code}.", advice)

    def test_no_device(self):
        self.fail_with(4, "not found: CUDA cudaErrorNoDevice .100.*diagnose", "devices", "--device",
                       "gpu", env=simulated(CUDA_VISIBLE_DEVICES=""))

    def test_an_ordinal_past_the_end(self):
        self.stops(simulated(2), "place", "not found",
                   "gpu:2 is asked for, but rank 0 on .* sees 2",
                   "gpu:0 to gpu:1", "--device", "gpu:2")

    def test_shared_devices(self):
        self.stops(simulated(2), "place", "busy", rf"ranks 0 and 1 on .* would share gpu:0, {UUID}",
                   "use device: gpu", "--device", "gpu:0", ranks=2)
        self.stops(simulated(2), "place", "busy",
                   "has 3 ranks and 2 GPUs: ranks 0 and 2 would share",
                   "start 2 ranks a node", ranks=3)

    def test_devices_that_fail(self):
        for fault, link, class_, words, advice in (
            ("cudaSetDevice:1+=46", "place", "busy", "cudaErrorDevicesUnavailable .46.",
             "exclusive"),
            ("cudaLaunchKernel:1=2", "code", "out of memory", "cudaErrorMemoryAllocation .2.",
             "batch_size"),
            ("cudaLaunchKernel:1=209", "code", "code not for this device",
             "NoKernelImageForDevice .209.*the module has code for", "compute capability"),
            ("cudaLaunchKernel:1=222", "code", "code not for this device", "UnsupportedPtxVersion",
             "machine code"),
            ("cudaLaunchKernel:1=214", "code", "hardware", "ECCUncorrectable .214.",
             "this node out"),
            ("cudaLaunchKernel:1=719", "code", "internal", "LaunchFailure .719.", "report"),
            ("cudaMalloc:1+=2", "product", "out of memory", "cudaMalloc", "batch_size"),
            ("cublasLtCreate:1=1", "product", "driver", "CUBLAS_STATUS_NOT_INITIALIZED",
             "diagnose"),
            ("cublasLtMatmul:1=13", "product", "internal", "CUBLAS_STATUS_EXECUTION_FAILED",
             "report"),
        ):
            with self.subTest(fault=fault):
                self.stops(simulated(fail=fault), link, class_, rf"GPU 0 .{NAME}, .*{words}",
                           advice)

    def test_nccl(self):
        for fault, words, advice in (
            ("ncclGetUniqueId:1=2", "communication: NCCL ncclSystemError .2.",
             "NCCL_SOCKET_IFNAME"),
            ("ncclCommInitRankConfig:1=1", "ncclUnhandledCudaError .1.", "NCCL_DEBUG=WARN"),
            ("ncclCommInitRankConfig:1=5", "ncclInvalidUsage .5.", "a GPU of its own"),
            ("ncclAllReduce:1=3", "ncclInternalError .3.", "NCCL_DEBUG=WARN"),
        ):
            with self.subTest(fault=fault):
                self.stops(simulated(fail=fault), "sum", "communication", words, advice)

    def test_one_rank_of_two(self):
        self.stops(simulated(2, "cudaLaunchKernel@1:1=214"), "code", "hardware", "GPU 1 .*ECC",
                   "leave this node out", ranks=2)

    def test_in_training(self):
        x, y = regression_rows()
        self.write_h5("data.h5", x=x, y=y)
        config = self.write_config(regression_config() | {"device": "gpu"})
        self.fail_with(4,
                       "GPU 0 .*: hardware: CUDA cudaErrorECCUncorrectable .*leave this node out",
                       "train", config, env=simulated(fail="cudaLaunchKernel:1=214"))
        self.fail_with(4, "ranks 0 and 1 would share", "train", config, ranks=2, env=simulated(1))


if __name__ == "__main__":
    unittest.main()
