"""Machines with GPUs, made up: a folder that stands in for /, modules whose answers are scripted.

What is scripted by which variable is said in tests/fakes/fake_module.c and fake_nvml.c.
"""

import json
import os

from harness import PROGRAM, ProgramTest

FAKES = os.path.join(os.path.dirname(os.path.dirname(PROGRAM)), "tests", "fakes")
MODULE = os.path.join(FAKES, "module")
NEEDY = os.path.join(FAKES, "needy")  # needs libcublasLt.so.99
DRIVER = os.path.join(FAKES, "driver")  # libcuda.so.1, libnvidia-ml.so.1
TOOLKIT = os.path.join(FAKES, "toolkit")  # lib64/libcublasLt.so.99

UUID = "GPU-00000000-0000-0000-0000-00000000000"

# What this process was started with must not reach the program.
for _name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_HOME", "LD_LIBRARY_PATH"):
    os.environ.pop(_name, None)


def write(path, text=""):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def make_root(folder, gpus=1, driver="580.65.06", bound="nvidia", nodes=None, control=True,
              libcuda=True, numa=(), node_cores=()):
    """What Linux shows of a machine with so many GPUs, below a folder; returns its path.

    driver: version of the kernel driver, None: not loaded; bound: which holds the GPUs; nodes: how
    many device nodes; numa: NUMA node of each GPU; node_cores: cores of each NUMA node.
    """
    root = os.path.join(folder, "root")
    os.makedirs(os.path.join(root, "sys/bus/pci/devices"))
    for i in range(gpus):
        device = f"{root}/sys/bus/pci/devices/0000:0{i + 1}:00.0"
        write(f"{device}/vendor", "0x10de\n")
        write(f"{device}/class", "0x030200\n")
        write(f"{device}/numa_node", f"{numa[i] if i < len(numa) else -1}\n")
        if bound:
            os.symlink(f"../../../bus/pci/drivers/{bound}", f"{device}/driver")
        if driver:
            write(f"{root}/proc/driver/nvidia/gpus/0000:0{i + 1}:00.0/information",
                  f"Model: \t\t Fake GPU\nIRQ:   \t\t 1\nGPU UUID: \t {UUID}{i}\n")
    # Devices that are none of ours: a network card of the vendor, another vendor's display.
    write(f"{root}/sys/bus/pci/devices/0000:0a:00.0/vendor", "0x10de\n")
    write(f"{root}/sys/bus/pci/devices/0000:0a:00.0/class", "0x020000\n")
    write(f"{root}/sys/bus/pci/devices/0000:0b:00.0/vendor", "0x1002\n")
    write(f"{root}/sys/bus/pci/devices/0000:0b:00.0/class", "0x030000\n")
    for i, cores in enumerate(node_cores):
        write(f"{root}/sys/devices/system/node/node{i}/cpulist", f"{cores}\n")
    if driver:
        write(f"{root}/proc/driver/nvidia/version",
              f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Wed Jan  1\nGCC\n")
    for i in range(gpus if nodes is None else nodes):
        write(f"{root}/dev/nvidia{i}")
    if control and (nodes is None or nodes > 0) and gpus > 0:
        write(f"{root}/dev/nvidiactl")
        write(f"{root}/dev/nvidia-uvm")
    if libcuda:
        os.makedirs(f"{root}/usr/lib64")
        os.symlink(f"{DRIVER}/libcuda.so.1", f"{root}/usr/lib64/libcuda.so.1")
        os.symlink(f"{DRIVER}/libnvidia-ml.so.1", f"{root}/usr/lib64/libnvidia-ml.so.1")
    return root


class DeviceTest(ProgramTest):
    """A test on a machine that is made up."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if not os.path.exists(os.path.join(MODULE, "cuda.so")):
            raise AssertionError(f"no {MODULE}/cuda.so: build the tests")

    def machine(self, module=MODULE, **options):
        """Variables of a machine with GPUs, and of a module that sees them."""
        return {
            "LOCKSTEP_SYSTEM_ROOT": make_root(self.folder, **options),
            "LOCKSTEP_BACKEND_DIR": module,
            "FAKE_GPUS": str(options.get("gpus", 1)),
        }

    def nothing(self):
        """Variables of a machine with none of CUDA."""
        return {
            "LOCKSTEP_SYSTEM_ROOT": make_root(self.folder, gpus=0, driver=None, libcuda=False),
            "LOCKSTEP_BACKEND_DIR": self.folder,
        }

    def json_of(self, *arguments, **options):
        return json.loads(self.succeed(*arguments, "--json", **options).outs[0])
