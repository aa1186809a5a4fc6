"""Failures of devices, each with the link that is broken, its class, the exit code and what to do.

docs/devices.md has the same table for readers.
"""

import json
import os
import re
import shutil
import subprocess
import unittest

from device_fixture import DRIVER, MODULE, NEEDY, TOOLKIT, UUID, DeviceTest, write
from harness import PROGRAM, environment


class Failures(DeviceTest):
    def check(self, env, link, class_, words, advice, *flags, ranks=0):
        """diagnose stops at that link and says so twice: as the end of a rank's chain, and as the
        error that ends the program."""
        result = self.run_program("devices", "diagnose", "--json", *flags, ranks=ranks, env=env)
        self.assertEqual(set(result.codes), {4}, result)
        self.assertEqual("".join(result.outs[1:] + result.errs[1:]), "")
        self.assertEqual(len(result.errs[0].splitlines()), 1, result)
        self.assertRegex(result.err,
                         rf"^lockstep: error: .*{words}.* \[rank \d+, [^],]+, {link}\]; "
                         f".*{advice}")
        found = json.loads(result.outs[0])
        self.assertFalse(found["usable"])
        broken = [one for rank in found["ranks"] for one in rank["links"]
                  if one["state"] == "broken"]
        self.assertEqual((broken[0]["link"], broken[0]["class"]), (link, class_))
        self.assertRegex(broken[0]["text"], words)
        self.assertRegex(broken[0]["to_do"], advice)
        for rank in found["ranks"]:  # nothing is looked at behind a broken link
            self.assertNotIn("broken", [one["state"] for one in rank["links"][:-1]])
        return result.err

    def again(self, **options):
        """A machine in place of the one before."""
        shutil.rmtree(self.path("root"), ignore_errors=True)
        return self.machine(**options)

    # ---- what the system shows

    def test_no_gpu(self):
        self.check(self.nothing(), "pci", "not found", "no NVIDIA GPU on the PCI bus",
                   "run on a machine with an NVIDIA GPU")

    def test_driver_not_loaded(self):
        env = self.machine(driver=None, bound=None, module="/nowhere")
        self.check(env, "driver", "driver", "kernel driver is not loaded", "modprobe nvidia")

    def test_another_driver_holds_the_gpu(self):
        env = self.machine(driver=None, bound="nouveau", module="/nowhere")
        self.check(env, "driver", "driver", "kernel driver nouveau holds the GPU", "blacklist")

    def test_old_kernel_driver(self):
        env = self.machine(driver="470.82.01") | {"FAKE_FAIL": "count=35", "FAKE_DRIVER": "11040"}
        self.check(env, "driver", "driver", "470.82.01 is too old: CUDA 13.0 needs 580",
                   "install driver 580 or newer")

    def test_no_device_node(self):
        env = self.machine(nodes=0, module="/nowhere")
        self.check(env, "nodes", "not found", "no device node /dev/nvidia0",
                   "docker run --gpus all")

    def test_a_node_that_may_not_be_opened(self):
        """Run as somebody else than root, who may open everything."""
        env = self.machine(module="/nowhere")
        for name in ("nvidiactl", "nvidia-uvm", "nvidia0"):
            os.chmod(self.path("root/dev", name), 0o000 if name == "nvidia0" else 0o666)
        other = {"user": 65534, "group": 65534} if os.geteuid() == 0 else {}
        os.chmod(self.folder, 0o755)
        if other and not reachable(PROGRAM):
            self.skipTest("the program lies in a folder of root's own")
        result = subprocess.run([PROGRAM, "devices", "diagnose"], cwd="/", check=False, text=True,
                                env=environment(env | {"HOME": self.folder, "TMPDIR": "/tmp"}),
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **other)
        self.assertEqual(result.returncode, 4, result)
        self.assertRegex(result.stderr,
                         r"/dev/nvidia0 \(mode 0000\) may not be opened by this user: "
                         r"Permission denied .*, nodes\]; let the administrator")

    def test_a_node_that_a_cgroup_withholds(self):
        """A folder does not open to write either, and not for want of permission."""
        env = self.machine(nodes=0, module="/nowhere")
        os.makedirs(self.path("root/dev/nvidia0"))
        self.check(env, "nodes", "driver", "/dev/nvidia0 does not open: .*withholds it",
                   "srun --gres=gpu:1")

    def test_hidden_by_an_empty_variable(self):
        for value in ("", "-1", "NoDevFiles"):
            with self.subTest(value=value):
                env = self.again() | {"CUDA_VISIBLE_DEVICES": value, "FAKE_FAIL": "count=100"}
                self.check(env, "visible", "not found",
                           f"CUDA_VISIBLE_DEVICES={value}: it hides every GPU",
                           "unset CUDA_VISIBLE_DEVICES")

    def test_an_invalid_variable(self):
        env = self.machine() | {"CUDA_VISIBLE_DEVICES": "first,0", "FAKE_FAIL": "count=100",
                                "SLURM_JOB_GPUS": "0"}
        self.check(env, "visible", "not found",
                   "CUDA_VISIBLE_DEVICES=first,0: first names no device.*SLURM_JOB_GPUS=0",
                   "ordinals .0,1. or UUIDs")

    def test_a_stale_ordinal(self):
        env = self.machine(gpus=2) | {"CUDA_VISIBLE_DEVICES": "5", "FAKE_FAIL": "count=100"}
        self.check(env, "visible", "not found", "5 is not on this node, which has 2",
                   "another node or job")

    def test_a_stale_uuid(self):
        env = self.machine() | {"CUDA_VISIBLE_DEVICES": "GPU-aaaa", "FAKE_FAIL": "count=100"}
        self.check(env, "visible", "not found", "GPU-aaaa is not on this node, which has 1",
                   "another node or job")

    def test_several_slices_for_one_rank(self):
        env = self.machine() | {"CUDA_VISIBLE_DEVICES": "MIG-1111,MIG-2222"}
        self.check(env, "visible", "not found",
                   "MIG-2222 is a second MIG slice: CUDA gives a process",
                   "one MIG slice for each rank")
        self.fail_with(4, "several MIG slices for one rank.*; give each rank one slice", "devices",
                       "--device", "gpu", env=env)

    def test_slices_of_one_gpu(self):
        """NCCL joins no two devices of one PCI address. One rank may take a slice."""
        env = self.machine(gpus=2) | {"FAKE_BUS": "one"}
        words = ("ranks 0 and 1 on .* have MIG slices of the same GPU, 0000:01:00.0, which NCCL "
                 "does not join .*; start one rank a GPU")
        self.fail_with(4, words, "devices", "--device", "gpu", ranks=2, env=env)
        self.succeed("devices", "--device", "gpu", ranks=1, env=env)

    def test_libcuda_missing(self):
        env = self.machine(libcuda=False, module="/nowhere")
        self.check(env, "libcuda", "not found", "libcuda.so.1: cannot open shared object file",
                   "libcuda1|lies in")

    def test_libcuda_is_the_stub(self):
        env = self.machine(module="/nowhere")
        stubs = self.path("lib", "stubs")
        os.makedirs(stubs)
        shutil.copy(f"{DRIVER}/libcuda.so.1", stubs)
        env["LD_LIBRARY_PATH"] = stubs
        self.check(env, "libcuda", "driver", f"libcuda.so.1 is the toolkit's stub: {stubs}",
                   "stubs folder out of LD_LIBRARY_PATH")

    def test_libcuda_is_no_library(self):
        env = self.machine(libcuda=False, module="/nowhere")
        write(self.path("root/usr/lib64/libcuda.so.1"),
              "not an ELF file, but long enough to look at")
        self.check(env, "libcuda", "not found", "libcuda.so.1: (invalid ELF header|file too short)",
                   "libcuda1|lies in")

    # ---- the module and its libraries

    def test_no_module(self):
        env = self.machine(module="/nowhere")
        self.check(env, "libraries", "not found", "no CUDA module for GPUs: /nowhere/cuda.so",
                   "LOCKSTEP_BACKEND_DIR")

    def test_a_library_is_missing(self):
        env = self.machine(module=NEEDY) | {"LD_LIBRARY_PATH": "/nowhere"}
        self.check(env, "libraries", "not found",
                   "libcublasLt.so.99: cannot open shared object file: No such file or directory "
                   r"\(LD_LIBRARY_PATH is /nowhere\)", "install libcublasLt.so.99")

    def test_a_missing_library_lies_elsewhere(self):
        env = self.machine(module=NEEDY) | {"CUDA_HOME": TOOLKIT}
        self.check(env, "libraries", "not found", r"LD_LIBRARY_PATH is not set",
                   f"libcublasLt.so.99 lies in {TOOLKIT}/lib64: "
                   f"export LD_LIBRARY_PATH={TOOLKIT}/lib64")
        env["LD_LIBRARY_PATH"] = f"{TOOLKIT}/lib64"
        self.succeed("devices", "diagnose", env=env)

    def test_a_damaged_module(self):
        folder = self.path("module")
        write(f"{folder}/cuda.so", "no ELF file at all, though it has the name of one")
        env = self.machine(module=folder)
        self.check(env, "libraries", "internal", "refused by the loader: .*(invalid ELF|too short)",
                   "install the module again")

    def test_a_truncated_module(self):
        folder = self.path("module")
        os.makedirs(folder)
        with open(f"{MODULE}/cuda.so", "rb") as whole, open(f"{folder}/cuda.so", "wb") as part:
            part.write(whole.read(3000))
        self.check(self.machine(module=folder), "libraries", "internal",
                   "refused by the loader: the file is cut off", "install the module again")

    def test_a_module_of_another_build(self):
        for way, words in (("version", "its version is 0.0.0"), ("abi", "its module ABI"),
                           ("magic", "it is no module of lockstep"), ("size", "its table has"),
                           ("plan", "plan and model"), ("refuse", "it refuses this program")):
            with self.subTest(way=way):
                env = self.again() | {"FAKE_HANDSHAKE": way}
                self.fail_with(4, f"is of another build: {words}.*install the CUDA module",
                               "devices", "diagnose", env=env)

    # ---- driver and runtime

    def test_no_driver_at_all(self):
        env = self.machine() | {"FAKE_FAIL": "count=35", "FAKE_DRIVER": "0"}
        self.check(env, "devices", "not found", "there is no NVIDIA driver here",
                   "run on a node with an NVIDIA driver")

    def test_driver_older_than_the_runtime(self):
        env = self.machine() | {"FAKE_FAIL": "count=35", "FAKE_DRIVER": "12020"}
        self.check(env, "versions", "driver",
                   "driver: CUDA fakeError35 .35., words of the library.*the driver serves "
                   "CUDA 12.2, "
                   "the runtime is 13.0 and needs driver 580", "install a newer driver")

    def test_codes_of_the_driver(self):
        for code, class_, advice in ((3, "driver", "dmesg"), (34, "driver", "stubs"),
                                     (802, "driver", "fabricmanager"),
                                     (803, "driver", "of different versions"),
                                     (804, "driver", "compat folder"), (805, "busy", "MPS")):
            with self.subTest(code=code):
                env = self.again() | {"FAKE_FAIL": f"count={code}"}
                self.check(env, "versions", class_, f"{class_}: CUDA fakeError{code}", advice)

    def test_a_driver_that_fails_is_there(self):
        """Where the system shows nothing, as in some containers, but CUDA meets a driver."""
        env = self.nothing() | {"LOCKSTEP_BACKEND_DIR": MODULE, "FAKE_FAIL": "count=803"}
        self.check(env, "versions", "driver", "driver: CUDA fakeError803", "of different versions")

    def test_no_device_and_no_device_told(self):
        env = self.machine() | {"FAKE_FAIL": "count=100"}
        self.check(env, "devices", "not found", "not found: CUDA fakeError100", "--gres=gpu:1")
        env = self.again() | {"FAKE_GPUS": "0"}
        self.check(env, "devices", "not found", "the driver shows no device", "--gres=gpu:1")

    def test_a_code_that_nobody_knows_keeps_its_words(self):
        env = self.machine() | {"FAKE_FAIL": "count=7777"}
        self.check(env, "versions", "internal", "internal: CUDA fakeError7777 .7777., words of the "
                   "library, in fake_count", "report it")

    def test_a_code_without_words(self):
        env = self.machine() | {"FAKE_FAIL": "count=802", "FAKE_SILENT": "1"}
        self.check(env, "versions", "driver", "driver: CUDA code 802, in fake_count",
                   "fabricmanager")

    # ---- places

    def test_an_ordinal_past_the_end(self):
        env = self.machine(gpus=2)
        self.check(env, "place", "not found", "gpu:2 is asked for, but rank 0 on .* sees 2 GPUs",
                   "gpu:0 to gpu:1", "--device", "gpu:2")

    def test_more_ranks_than_gpus(self):
        env = self.machine(gpus=2)
        self.check(env, "place", "busy",
                   f"has 3 ranks and 2 GPUs: ranks 0 and 2 would share {UUID}0",
                   "start 2 ranks a node", ranks=3)

    def test_two_ranks_shown_the_same_gpu(self):
        env = self.machine(gpus=2) | {"FAKE_SEES": "first"}
        self.check(env, "place", "busy", f"ranks 0 and 1 would share {UUID}0",
                   "start 1 rank a node",
                   ranks=2)

    def test_enough_gpus_but_two_ranks_shown_the_same(self):
        env = self.machine(gpus=3) | {"FAKE_SEES": "first,first,all"}
        self.check(env, "place", "busy", f"ranks 0 and 1 on .* are left with the same GPU, {UUID}0",
                   "srun --gpu-bind=none", ranks=3)

    def test_ranks_that_chose_differently(self):
        env = self.machine(gpus=2) | {"FAKE_NCCL": "22809,22703"}
        self.fail_with(5, "rank 1 on .* NCCL 2.27.3; rank 0 on .*2.28.9.*; give all nodes the same "
                       "CUDA, cuBLAS and NCCL", "devices", "--device", "gpu", ranks=2, env=env)

    # ---- devices

    def test_devices_that_fail(self):
        for code, class_, advice in ((2, "out of memory", "smaller train.batch_size"),
                                     (46, "busy", "exclusive compute mode"),
                                     (209, "code not for this device", "build of lockstep"),
                                     (214, "hardware", "leave this node out"),
                                     (222, "code not for this device", "machine code"),
                                     (719, "internal", "CUDA_LAUNCH_BLOCKING")):
            with self.subTest(code=code):
                env = self.again() | {"FAKE_FAIL": f"launch={code}"}
                last = self.check(env, "code", class_, f"GPU 0 .Fake GPU, {UUID}0.: {class_}: CUDA",
                                  advice)
                self.assertEqual("compute capability 9.0, the module has code for 80 90" in last,
                                 class_ == "code not for this device")

    def test_one_rank_of_two(self):
        env = self.machine(gpus=2) | {"FAKE_FAIL": "launch=214@1"}
        last = self.check(env, "code", "hardware", f"GPU 1 .*{UUID}1.: hardware",
                          "leave this node out",
                          ranks=2)
        self.assertIn("[rank 1, ", last)
        result = self.run_program("devices", "diagnose", ranks=2, env=env)
        self.assertIn("rank 0 on", result.outs[0])
        self.assertNotIn("  sum ", result.outs[0])  # no rank waits in a sum for one that cannot

    def test_the_device_is_gone_when_described(self):
        env = self.machine() | {"FAKE_FAIL": "describe=46"}
        self.check(env, "place", "busy", "busy: CUDA fakeError46", "exclusive compute mode")

    def test_products(self):
        env = self.machine() | {"FAKE_PRODUCT": "wrong"}
        self.check(env, "product", "hardware", r"gave \[\[20, 23\], \[44, 51\]\]",
                   "do not compute on this device")
        env["FAKE_PRODUCT"] = "tf32"
        self.check(env, "compare", "hardware", "differs from the host's by more than fp32",
                   "NVIDIA_TF32_OVERRIDE")
        del env["FAKE_PRODUCT"]
        for code, class_, advice in ((1, "driver", "diagnose"), (3, "out of memory", "batch_size"),
                                     (13, "internal", "report"), (8, "code not for this", "build"),
                                     (15, "internal", "report")):
            with self.subTest(code=code):
                env["FAKE_FAIL"] = f"product=cublas:{code}"
                self.fail_with(4, f"GPU 0: {class_}.*cuBLAS fakeError{code}.*{advice}", "devices",
                               "diagnose", env=env)

    # ---- sums

    def test_sums(self):
        env = self.machine(gpus=2) | {"FAKE_SUM": "wrong"}
        self.check(env, "sum", "communication", "a sum over 2 ranks by NCCL is wrong",
                   "NCCL_P2P_DISABLE", ranks=2)
        del env["FAKE_SUM"]
        for code, class_, advice in ((1, "communication", "NCCL_DEBUG=WARN"),
                                     (2, "communication", "NCCL_SOCKET_IFNAME"),
                                     (5, "communication", "a GPU of its own"),
                                     (6, "communication", "other ranks"),
                                     (4, "internal", "report")):
            with self.subTest(code=code):
                env["FAKE_FAIL"] = f"collective=nccl:{code}"
                self.fail_with(4, f"{class_}: NCCL fakeError{code}.*{advice}", "devices",
                               "diagnose",
                               env=env)
        env["FAKE_FAIL"] = "collective_id=nccl:2"
        self.check(env, "sum", "communication", "NCCL fakeError2", "NCCL_SOCKET_IFNAME", ranks=2)

    # ---- health

    def test_what_nvml_tells(self):
        for variables, words, advice in (
            ({"FAKE_NVML": "ecc=15"}, "hardware: NVML code 15, NVML's words for 15",
             "leave this node"),
            ({"FAKE_NVML": "ecc=16"}, "hardware: NVML code 16", "reset the GPU"),
            ({"FAKE_NVML_NO_ROWS": "1"}, "gpu:0 has no spare memory rows", "leave this node out"),
        ):
            with self.subTest(variables=variables):
                self.check(self.again() | variables, "health", "hardware", words, advice)

    def test_what_nvml_warns_of(self):
        for variables, words in (
            ({"FAKE_NVML_ECC": "3"}, "look    health     gpu:0 had 3 uncorrectable memory errors"),
            ({"FAKE_NVML_ECC": "1", "FAKE_NVML_PENDING": "1"},
             "had 1 uncorrectable memory error .*; faulty rows wait for a reset\n.*to do: reset"),
            ({"FAKE_NVML_PROCESSES": "2"},
             r"2 other processes hold memory on gpu:0: 4000000 \(1.0 GiB\), 4000001 \(1.0 GiB\)\n"
             ".*to do: wait for them"),
            ({"FAKE_NVML_MIG": "1"}, "ok      health .* a MIG slice of GPU-whole"),
            ({"FAKE_NVML": "init=18"},
             "unseen  health     NVML does not tell: NVML's words for 18"),
            ({"FAKE_NVML": "handle=28"},
             "unseen  health     NVML does not tell: NVML's words for 28"),
            ({"FAKE_NVML": "ecc=3"}, "ok      health     no memory error, nobody else on it"),
            ({"FAKE_MEMORY": "1024,100"},
             "look    place .* 100.0 MiB of 1.0 GiB free\n.*nvidia-smi"),
        ):
            with self.subTest(variables=variables):
                result = self.succeed("devices", "diagnose", env=self.again() | variables)
                self.assertRegex(result.out, words)

    # ---- nothing is wrong

    def test_usable(self):
        for ranks in (1, 2, 4):
            with self.subTest(ranks=ranks):
                result = self.succeed("devices", "diagnose", ranks=ranks, env=self.again(gpus=4))
                text = result.outs[0]
                self.assertEqual("".join(result.outs[1:]) + result.err, "")
                self.assertEqual(text.splitlines()[-1],
                                 "Usable: every rank has a GPU that computes")
                for rank in range(max(ranks, 1)):
                    self.assertIn(f"on gpu:{rank} [[1, 2], [3, 4]] x [[5, 6], [7, 8]] = [[19, 22], "
                                  "[43, 50]]", text)
                self.assertIn("needs driver 580 or newer", text)
                self.assertIn("cuDNN is not used", text)
                names = re.findall(r"^  ok      (\w+) ", text, re.M)
                self.assertEqual(names,
                                 ["pci", "driver", "nodes", "visible", "libcuda", "libraries",
                                         "versions", "place", "health", "code", "product",
                                         "compare",
                                         "sum"] * max(ranks, 1))

    def test_links_that_are_not_to_be_seen_are_passed(self):
        env = self.nothing() | {"LOCKSTEP_BACKEND_DIR": MODULE}
        result = self.succeed("devices", "diagnose", env=env)
        self.assertEqual(re.findall(r"^  unseen  (\w+) ", result.out, re.M),
                         ["pci", "driver", "nodes", "libcuda", "health"])

    def test_check_includes_it(self):
        env = self.machine() | {"FAKE_FAIL": "launch=209"}
        self.fail_with(4, "code not for this device", "check", env=env)


def reachable(path):
    """Whether anybody may go to a path: all folders on the way can be entered by others."""
    folders = []
    while path != "/":
        path = os.path.dirname(path)
        folders.append(path)
    return all(os.stat(folder).st_mode & 1 for folder in folders)


if __name__ == "__main__":
    unittest.main()
