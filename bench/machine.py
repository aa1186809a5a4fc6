"""What a figure depends on and is told beside it."""

import datetime
import os
import platform
import re
import subprocess


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def first(pattern, text):
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1).strip() if found else "unknown"


def versions(program):
    """The program's, and those of the libraries that its speed hangs on."""
    line = [program, "--version", "--verbose"]
    shown = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    names = ("lockstep", "build", "mpi", "blas")
    named = {name: first(rf"^{name} +(.*)$", shown) for name in names}
    named["build"] = named["build"].split(", ids")[0]
    return named


def caches():
    """Sizes of the first processor's, such as "L1d 32K, L2 1024K, L3 32768K"."""
    found = []
    for index in range(8):
        folder = f"/sys/devices/system/cpu/cpu0/cache/index{index}"
        level, kind = read(f"{folder}/level").strip(), read(f"{folder}/type").strip()
        if level and kind != "Instruction":
            suffix = "d" if kind == "Data" else ""
            found.append(f"L{level}{suffix} {read(f'{folder}/size').strip()}")
    return ", ".join(found) or "unknown"


def facts(program, load):
    memory = first(r"^MemTotal:\s+(\d+)", read("/proc/meminfo"))
    processor = first(r"^model name\s*:\s*(.*)$", read("/proc/cpuinfo"))
    virtual = " (a virtual machine)" if re.search(r"\bhypervisor\b", read("/proc/cpuinfo")) else ""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor + virtual,
        "cores": len(os.sched_getaffinity(0)),
        "caches": caches(),
        "memory": f"{int(memory) / 2**20:.0f} GiB" if memory.isdigit() else memory,
        "system": f"{platform.system()} {platform.release()}",
        **versions(program),
        "load before": f"{load:.2f}",
    }
