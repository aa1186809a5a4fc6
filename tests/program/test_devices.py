"""lockstep devices: listing, counting, placing, a product, and hosts that are left out."""

import os
import re
import socket
import subprocess
import unittest

from device_fixture import UUID, DeviceTest, make_root
from harness import PROGRAM, ROOT, environment, mpirun, regression_config, regression_rows

HOST = socket.gethostname()


class Listing(DeviceTest):
    def test_without_a_gpu(self):
        for ranks in (0, 1, 2, 4):
            with self.subTest(ranks=ranks):
                folder = os.path.join(self.folder, str(ranks))
                os.mkdir(folder)
                env = {"LOCKSTEP_SYSTEM_ROOT": make_root(folder, 0, None, libcuda=False),
                       "LOCKSTEP_BACKEND_DIR": folder}
                result = self.succeed("devices", ranks=ranks, env=env)
                lines = result.outs[0].splitlines()
                count = max(ranks, 1)
                self.assertEqual([x for x in lines if x.startswith("rank")],
                                 [f"rank {r} on {HOST}" for r in range(count)])
                self.assertEqual(sum(x.startswith("  cpu ") for x in lines), count)
                self.assertIn("Num GPUs Available: 0", lines)
                self.assertIn("no NVIDIA GPU on the PCI bus", result.outs[0])
                self.assertRegex(result.outs[0], "to do: run on a machine with an NVIDIA GPU")
                self.assertEqual("".join(result.outs[1:]) + result.err, "")

    def test_a_cpu_is_a_device(self):
        cpu = self.json_of("devices", env=self.nothing())["devices"][0]
        self.assertEqual(cpu["backend"], "cpu")
        self.assertEqual(cpu["ordinal"], -1)
        cores = os.sched_getaffinity(0)
        self.assertEqual(cpu["core_count"], len(cores))
        listed = set()
        for part in cpu["cores"].split(","):
            first, _, last = part.partition("-")
            listed |= set(range(int(first), int(last or first) + 1))
        self.assertEqual(listed, cores)
        self.assertEqual(cpu["threads"], 1)  # OPENBLAS_NUM_THREADS of the tests
        self.assertGreater(cpu["memory_total"], cpu["memory_free"])

    def test_gpus(self):
        env = self.machine(gpus=2, numa=(0, 1))
        result = self.succeed("devices", env=env)
        text = result.outs[0]
        self.assertIn("Num GPUs Available: 2\n", text)
        self.assertRegex(text, rf"gpu:1 +Fake GPU, {UUID}1, 0000:02:00.0, compute capability 9.0, "
                               r"512.0 MiB free of 1.0 GiB, 132 SMs, NUMA node 1\n")
        self.assertIn("driver 580.65.06 (CUDA 13.0), CUDA runtime 13.0, cuBLAS 13.1.0, NCCL 2.28.9",
                      text)
        self.assertNotIn("broken", text)
        gpu = self.json_of("devices", env=env)["devices"][2]
        self.assertEqual(gpu["uuid"], UUID + "1")
        self.assertEqual(gpu["memory_total"], 1 << 30)
        self.assertEqual(gpu["memory_free"], 1 << 29)  # as NVML tells
        self.assertEqual(gpu["clock"], 1980000000)
        self.assertEqual(gpu["numa_node"], 1)

    def test_free_memory_without_nvml(self):
        env = self.machine(libcuda=False)
        env["FAKE_MEMORY"] = "2048,300"
        gpu = self.json_of("devices", env=env)["devices"][1]
        self.assertEqual(gpu["memory_total"], 2048 << 20)
        self.assertEqual(gpu["memory_free"], 300 << 20)

    def test_ranks_count_a_gpu_once(self):
        for ranks in (2, 4):
            env = self.machine(gpus=2) if ranks == 2 else env
            found = self.json_of("devices", ranks=ranks, env=env)
            self.assertEqual(found["gpus"], 2)
            self.assertEqual([(d["rank"], d["ordinal"]) for d in found["devices"]],
                             [(r, o) for r in range(ranks) for o in (-1, 0, 1)])

    def test_each_rank_shown_its_own(self):
        env = self.machine(gpus=2) | {"FAKE_SEES": "own"}
        found = self.json_of("devices", ranks=2, env=env)
        self.assertEqual(found["gpus"], 2)
        self.assertEqual([d["uuid"] for d in found["devices"] if d["ordinal"] >= 0],
                         [UUID + "0", UUID + "1"])

    def test_a_gpu_that_fails_beside_one_that_works(self):
        env = self.machine(gpus=2) | {"FAKE_FAIL": "identify=214*1"}
        result = self.succeed("devices", env=env)
        self.assertIn("Num GPUs Available: 1", result.out)
        self.assertRegex(result.out,
                         r"rank 0 on \S+: gpu:1: GPU 1: hardware: CUDA .*leave this node")
        errors = self.json_of("devices", env=env)["errors"]
        self.assertEqual([(e["subject"], e["class"]) for e in errors], [("gpu:1", "hardware")])

    def test_without_the_module_the_system_is_shown(self):
        env = self.machine(module="/nowhere")
        text = self.succeed("devices", env=env).out
        self.assertIn("Num GPUs Available: 0", text)
        for words in ("ok      pci        1 NVIDIA GPU on the bus: 0000:01:00.0 Fake GPU",
                      "ok      driver     kernel driver 580.65.06 is loaded",
                      "ok      nodes      1 of GPUs",
                      "ok      libcuda    libcuda.so.1 is",
                      "broken  libraries  this build has no CUDA module for GPUs: /nowhere/cuda.so"):
            self.assertIn(words, text)
        found = self.json_of("devices", env=env)
        self.assertEqual(found["system"][-1]["class"], "not found")
        self.assertEqual(found["errors"][0]["subject"], "module cuda")

    def test_words_that_are_none(self):
        env = self.nothing()
        self.fail_with(2, "there is nothing called 'diagnos'.*did you mean devices diagnose",
                       "devices", "diagnos", env=env)
        self.fail_with(2, "devices report: the file to write is missing", "devices", "report",
                       env=env)
        self.fail_with(2, "devices product: there are too many arguments", "devices", "product",
                       "x", env=env)
        for word in ("gpu:", "gpu:-1", "gpu:x", "tpu", "cpu:0", "gpu:1024"):
            self.fail_with(2, f"--device: there is no device '{word}'.*write auto, cpu, gpu",
                           "devices", "--device", word, env=env)


class Placing(DeviceTest):
    def places(self, result):
        return re.findall(r"^rank (\d+) on \S+ takes (\S+?),? ?(?:Fake GPU)?$", result.out, re.M)

    def test_auto_without_a_node_takes_the_cpu_and_says_so(self):
        result = self.succeed("devices", "--device", "auto", ranks=2, env=self.nothing())
        self.assertEqual(self.places(result), [("0", "cpu"), ("1", "cpu")])
        self.assertIn("note: no GPU on", result.out)

    def test_auto_takes_gpus(self):
        result = self.succeed("devices", "--device", "auto", ranks=2, env=self.machine(gpus=2))
        self.assertEqual(self.places(result), [("0", "gpu:0"), ("1", "gpu:1")])

    def test_auto_and_a_failing_driver_is_an_error(self):
        env = self.machine() | {"FAKE_FAIL": "count=803"}
        self.fail_with(4, "driver: CUDA .*803.*reboot", "devices", "--device", "auto", env=env)
        self.fail_with(4, "driver: CUDA .*803.*reboot", "devices", "--device", "gpu", env=env)
        result = self.succeed("devices", "--device", "cpu", env=env)
        self.assertEqual(self.places(result), [("0", "cpu")])

    def test_auto_takes_the_cpu_where_gpus_are_hidden_on_purpose(self):
        env = self.machine() | {"CUDA_VISIBLE_DEVICES": "", "FAKE_FAIL": "count=100"}
        result = self.succeed("devices", "--device", "auto", env=env)
        self.assertEqual(self.places(result), [("0", "cpu")])
        self.assertIn("note: CUDA_VISIBLE_DEVICES hides all GPUs", result.out)
        self.fail_with(4, "not found: CUDA", "devices", "--device", "gpu", env=env)

    def test_auto_without_a_module_takes_the_cpu_and_says_so(self):
        env = self.machine(module="/nowhere")
        result = self.succeed("devices", "--device", "auto", env=env)
        self.assertIn("has a GPU, but this build of lockstep has no CUDA module", result.out)
        self.fail_with(4, "no CUDA module for GPUs: /nowhere/cuda.so", "devices", "--device", "gpu", env=env)

    def test_each_rank_shown_its_own(self):
        env = self.machine(gpus=2) | {"FAKE_SEES": "own"}
        result = self.succeed("devices", "--device", "gpu", ranks=2, env=env)
        self.assertEqual(self.places(result), [("0", "gpu:0"), ("1", "gpu:0")])
        self.assertIn("note: each rank sees one GPU only", result.out)

    def test_a_rank_without_a_choice_goes_first(self):
        env = self.machine(gpus=2) | {"FAKE_SEES": "all,first"}
        result = self.succeed("devices", "--device", "gpu", ranks=2, env=env)
        self.assertEqual(self.places(result), [("0", "gpu:1"), ("1", "gpu:0")])

    def test_a_stated_ordinal(self):
        env = self.machine(gpus=2)
        result = self.succeed("devices", "--device", "gpu:1", env=env)
        self.assertEqual(self.places(result), [("0", "gpu:1")])
        self.fail_with(4, f"ranks 0 and 1 on {HOST} would share gpu:1, {UUID}1.*use device: gpu",
                       "devices", "--device", "gpu:1", ranks=2, env=env)

    def test_nearest_numa_node_first(self):
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        env = self.machine(gpus=2, numa=(0, 1), node_cores=("4000-4001", cores))
        result = self.succeed("devices", "--device", "gpu", env=env)
        self.assertEqual(self.places(result), [("0", "gpu:1")])
        # Both ranks are near GPU 1: the first takes it, the other what is left.
        result = self.succeed("devices", "--device", "gpu", ranks=2, env=env)
        self.assertEqual(self.places(result), [("0", "gpu:1"), ("1", "gpu:0")])

    def test_one_numa_node_is_near_to_everything(self):
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        env = self.machine(gpus=2, numa=(1, 0), node_cores=(cores,))
        result = self.succeed("devices", "--device", "gpu", env=env)
        self.assertEqual(self.places(result), [("0", "gpu:0")])

    def touched(self):
        """Calls that gave a device a context, as (rank, call, device)."""
        with open(self.path("log"), encoding="utf-8") as f:
            return [(int(r), call, int(d)) for r, call, d in map(str.split, f)]

    def test_a_rank_touches_no_device_but_its_own(self):
        env = self.machine(gpus=2) | {"FAKE_LOG": self.path("log")}
        self.succeed("devices", "product", "--device", "gpu", ranks=2, env=env)
        calls = self.touched()
        self.assertEqual({rank for rank, _, _ in calls}, {0, 1})
        self.assertEqual([one for one in calls if one[0] != one[2]], [])

    def test_the_device_is_current_before_mpi_starts(self):
        """The module cannot train, so the run ends behind the choice. Under mpirun in a Slurm job
        SLURM_LOCALID is 0 for all."""
        self.write_h5("data.h5", **dict(zip("xy", regression_rows())))
        config = self.write_config(regression_config() | {"device": "gpu"})
        env = self.machine(gpus=2) | {"FAKE_LOG": self.path("log"), "SLURM_LOCALID": "0"}
        self.fail_with(1, "backend 'cuda' lacks a required function", "train", config, ranks=2,
                       env=env)
        for rank in (0, 1):
            calls = [call for r, call, device in self.touched() if r == rank and device == rank]
            self.assertEqual(calls, ["launch", "describe", "launch"])
        self.assertEqual(len(self.touched()), 6)

    def test_nearness_is_judged_with_the_others(self):
        """Near ranks may want the same GPU: nothing is touched before they know of each other."""
        self.write_h5("data.h5", **dict(zip("xy", regression_rows())))
        config = self.write_config(regression_config() | {"device": "gpu"})
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        env = self.machine(gpus=2, numa=(0, 1), node_cores=("4000-4001", cores))
        self.fail_with(1, "lacks a required function", "train", config, ranks=2,
                       env=env | {"FAKE_LOG": self.path("log")})
        self.assertEqual(sorted(self.touched()),
                         [(0, "describe", 1), (0, "launch", 1), (1, "describe", 0),
                          (1, "launch", 0)])

    def test_train_places_before_it_reads(self):
        x, y = regression_rows()
        self.write_h5("data.h5", x=x, y=y)
        config = self.write_config(regression_config() | {"device": "gpu:7"})
        self.fail_with(4, "gpu:7 is asked for, but rank 0 on .* sees 1 GPU.*use device: gpu:0",
                       "train", config, env=self.machine())
        self.assertFalse(os.path.exists(self.path("runs")))


class Product(DeviceTest):
    """The matrix product, placed by name."""

    def test_on_every_device(self):
        env = self.machine(gpus=2)
        for device, name in (("cpu", "cpu"), ("gpu:0", "gpu:0 Fake GPU"),
                             ("gpu:1", "gpu:1 Fake GPU")):
            result = self.succeed("devices", "product", "--device", device, env=env)
            self.assertEqual(result.out, "[[1, 2], [3, 4]] x [[5, 6], [7, 8]]\n"
                                         f"rank 0 on {HOST}, {name}: [[19, 22], [43, 50]]\n")

    def test_on_ranks(self):
        for ranks in (1, 2, 4):
            result = self.succeed("devices", "product", "--device", "cpu", ranks=ranks)
            self.assertEqual(result.outs[0].splitlines()[1:],
                             [f"rank {r} on {HOST}, cpu: [[19, 22], [43, 50]]"
                              for r in range(ranks)])
            self.assertEqual("".join(result.outs[1:]), "")
        found = self.json_of("devices", "product", "--device", "cpu", ranks=2)
        self.assertEqual([one["product"] for one in found], [[[19, 22], [43, 50]]] * 2)

    def test_a_wrong_product(self):
        env = self.machine() | {"FAKE_PRODUCT": "wrong"}
        self.fail_with(4, r"gpu:0: \[\[1, 2\].* gave \[\[20, 23\], \[44, 51\]\], not \[\[19, 22\]",
                       "devices", "product", "--device", "gpu", env=env)


class ExcludedHosts(DeviceTest):
    def test_a_rank_there_is_refused_with_the_command(self):
        last = self.fail_with(4,
                              f"--exclude-host {HOST}: 2 of 2 ranks run there, the first is rank 0",
                              "devices", "--exclude-host", HOST, ranks=2)
        self.assertIn(f"start it on another host (mpirun --host NAME, sbatch --exclude={HOST})",
                      last)
        self.fail_with(4, f"1 of 1 rank runs there.*sbatch --exclude=n7,{HOST}", "check",
                       "--exclude-host", f"n7,{HOST}", env={"SLURM_JOB_ID": "1"})

    def test_in_training(self):
        x, y = regression_rows()
        self.write_h5("data.h5", x=x, y=y)
        config = self.write_config(regression_config())
        self.fail_with(4, f"--exclude-host {HOST}", "train", config, "--exclude-host", HOST)
        self.assertFalse(os.path.exists(self.path("runs")))

    def test_other_hosts_change_nothing(self):
        for hosts in ("n7", f"{HOST}x", HOST[:-1] if len(HOST) > 1 else "n7", f"x{HOST},,n8"):
            self.succeed("devices", "--exclude-host", hosts, ranks=2)

    def on_hosts(self, script, *arguments):
        """stderr of three ranks, each with the host name that the script gives it."""
        inner = ["unshare", "--uts", "/bin/sh", "-c", script + '; exec "$0" "$@"', PROGRAM,
                 *arguments]
        result = subprocess.run([*mpirun(3), *inner], cwd=self.folder, env=environment(),
                                check=False,
                                stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                timeout=60)
        self.assertEqual(result.returncode, 4, result)
        return result.stderr

    @unittest.skipIf(os.geteuid() != 0, "only root may name hosts")
    def test_the_hosts_that_are_left(self):
        name = "hostname n$((OMPI_COMM_WORLD_RANK / 2 + 1)).site"
        text = self.on_hosts(name, "devices", "--exclude-host", "n7,n2")
        self.assertRegex(text,
                         r"--exclude-host n7,n2: 1 of 3 ranks runs there, the first is rank 2 on "
                         r"n2.site .*; start it with mpirun -n 2 --host n1.site:2\n")
        text = self.on_hosts(f"{name}; export SLURM_JOB_ID=5", "devices", "--exclude-host",
                             "n1.site")
        self.assertRegex(text,
                         r"2 of 3 ranks run there, the first is rank 0 on n1.site .*; start it "
                         r"with mpirun -n 1 --host n2.site:1; for the next job: sbatch "
                         r"--exclude=n1.site\n")


class Readme(DeviceTest):
    """The three examples of README.md: verify, several devices, explicit placement."""

    def commands(self):
        with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
            section = f.read().split("\n## GPUs\n")[1].split("```")[1]
        return [line.split("#")[0].split() for line in section.strip().splitlines()]

    def test_its_commands(self):
        env = self.machine(gpus=2)
        shown = [r"\nNum GPUs Available: 2\n", "sum .*over 2 ranks by NCCL, values right.*\n(.*\n)*"
                 "Usable: every rank has a GPU that computes",
                 r"gpu:0 .*: \[\[19, 22\], \[43, 50\]\]"]
        commands = self.commands()
        self.assertEqual(len(commands), len(shown))
        for words, wanted in zip(commands, shown):
            ranks = int(words[2]) if words[0] == "mpirun" else 0
            arguments = words[words.index("lockstep") + 1:]
            self.assertRegex(self.succeed(*arguments, ranks=ranks, env=env).outs[0], wanted)


class Texts(unittest.TestCase):
    def test_no_words_about_devices_are_written_twice(self):
        """String literals of some length, adjacent ones joined, in the code about devices."""
        seen = {}
        for base, _, names in os.walk(os.path.join(ROOT, "src", "device")):
            for name in sorted(n for n in names if n.endswith(".c")):
                with open(os.path.join(base, name), encoding="utf-8") as f:
                    code = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
                for run in re.findall(r'(?:"(?:[^"\\\n]|\\.)*"\s*)+', code):
                    text = "".join(re.findall(r'"((?:[^"\\\n]|\\.)*)"', run))
                    if len(text) >= 30 and " " in text and "out of memory" not in text:
                        seen.setdefault(text, []).append(name)
        self.assertGreater(len(seen), 100)
        self.assertEqual({t: w for t, w in seen.items() if len(w) > 1}, {})


if __name__ == "__main__":
    unittest.main()
