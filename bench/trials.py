"""Runs of the program, and what all that is measured here runs in."""

import json
import os
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.abspath(
    os.environ.get("LOCKSTEP", os.path.join(ROOT, "build", "release", "bin", "lockstep"))
)

# What would change the measured programs unseen: a kernel chosen for another processor, threads,
# and a waiting MPI that gives its core away.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "XLA_FLAGS", "TF_CONFIG")
UNSET_PREFIXES = ("OMP_", "OMPI_", "PMIX_", "PRTE_", "MKL_", "TF_NUM_", "GOTO_")


def environment(threads):
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in UNSET and not key.startswith(UNSET_PREFIXES)
    }
    kept.pop("OPENBLAS_NUM_THREADS", None)
    if threads > 0:
        kept.update(OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads))
    if os.geteuid() == 0:
        kept.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    return kept


def mpirun(ranks):
    bound = ranks <= len(os.sched_getaffinity(0))
    return ["mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "core" if bound else "none"]


def train(folder, config, threads, *more, ranks=1):
    """Trains anew in `folder`; the log's events of its epochs."""
    line = [PROGRAM, "train", config, "--overwrite", "run.folder=run", "run.progress=none", *more]
    line = mpirun(ranks) + line if ranks > 1 else line
    env = environment(threads)
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(line)}: exit {done.returncode}: {done.stderr.strip()}")
    with open(os.path.join(folder, "run", "log.jsonl"), encoding="utf-8") as file:
        events = [json.loads(text) for text in file]
    return [event for event in events if event["event"] == "epoch"]


def epochs(folder, config, threads, *more):
    """The seconds of each epoch of a training."""
    return [event["seconds"] for event in train(folder, config, threads, *more)]


def told(samples):
    """"median (least to most)" of seconds, in milliseconds."""
    middle, *ends = (1e3 * x for x in (statistics.median(samples), min(samples), max(samples)))
    return f"{middle:,.0f} ({ends[0]:,.0f} to {ends[1]:,.0f})"


def told_machine(facts):
    names = ("date", "processor", "cores", "caches", "memory", "system", "lockstep", "build",
             "load before")  # fmt: skip
    return ", ".join(f"{name}: {facts[name]}" for name in names if name in facts)
