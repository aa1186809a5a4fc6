"""Runs of the program alone, for what is measured without peers."""

import json
import os
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.abspath(
    os.environ.get("LOCKSTEP", os.path.join(ROOT, "build", "release", "bin", "lockstep"))
)

# A kernel chosen for another processor, and threads: they would change what is measured unseen.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def epochs(folder, config, threads, *more):
    """Trains anew in `folder`; the seconds of each epoch, as the run's log says."""
    env = {key: value for key, value in os.environ.items() if key not in UNSET}
    env.update(OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads))
    line = [PROGRAM, "train", config, "--overwrite", "run.folder=run", "run.progress=none", *more]
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(line)}: exit {done.returncode}: {done.stderr.strip()}")
    with open(os.path.join(folder, "run", "log.jsonl"), encoding="utf-8") as file:
        events = [json.loads(text) for text in file]
    return [event["seconds"] for event in events if event["event"] == "epoch"]


def told(samples):
    """"median (least to most)" of seconds, in milliseconds."""
    middle, *ends = (1e3 * x for x in (statistics.median(samples), min(samples), max(samples)))
    return f"{middle:,.0f} ({ends[0]:,.0f} to {ends[1]:,.0f})"


def told_machine(facts):
    names = ("date", "processor", "cores", "caches", "memory", "system", "lockstep", "build",
             "load before")  # fmt: skip
    return ", ".join(f"{name}: {facts[name]}" for name in names if name in facts)
