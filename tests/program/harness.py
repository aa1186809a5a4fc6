"""Runs the program as users type it: alone or under mpirun, in a fresh folder.

The program is $LOCKSTEP, else build/release/bin/lockstep of this tree. Ranks 0 means started
without a launcher. Nothing is written outside the test's own folder, which is removed.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import h5py
import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.path.abspath(
    os.environ.get("LOCKSTEP", os.path.join(ROOT, "build", "release", "bin", "lockstep"))
)

# A run that takes longer hangs. Failing runs are held to five seconds from meeting the fault;
# the rest is for the launcher on a loaded machine and for sanitizer builds.
TIMEOUT = float(os.environ.get("LOCKSTEP_TEST_TIMEOUT", "120"))
ERROR_SECONDS = 5 + float(os.environ.get("LOCKSTEP_TEST_START", "10"))

ERROR_LINE = "lockstep: error: "

# Each rank's output goes to files of its own: mpirun adds lines to stderr, mixes those of ranks,
# and gives one exit code for all. Nor does it hear of any rank's end before all have ended, for it
# terminates the others when one has failed: here each must end by itself.
RANK_SCRIPT = """folder=$1; shift
rank=${OMPI_COMM_WORLD_RANK:-0}
"$@" >"$folder/out.$rank" 2>"$folder/err.$rank"
code=$?
echo $code >"$folder/.code.$rank"
mv "$folder/.code.$rank" "$folder/code.$rank"
while [ $(ls "$folder" | grep -c ^code) -lt ${OMPI_COMM_WORLD_SIZE:-1} ]; do sleep 0.02; done
exit $code
"""

# What the runs of a test train on, unless the test says otherwise: cpu, or gpu with the module of
# LOCKSTEP_BACKEND_DIR (else the one beside the program). So the same tests hold for every backend.
DEVICE = os.environ.get("LOCKSTEP_TEST_DEVICE", "cpu")

# Else the machine's GPUs are out of sight, for `device: auto` would take one: this folder, which
# stands in for /, has no device node, and no CUDA module lies in it.
BARE = os.path.join(ROOT, "tests", "fakes", "bare")
SIGHT = ("LOCKSTEP_SYSTEM_ROOT", "LOCKSTEP_BACKEND_DIR")

# How many GPUs there are to test on: a test that needs more skips. 0: enough.
GPUS = int(os.environ.get("LOCKSTEP_TEST_GPUS", "0"))

LAUNCHER_PREFIXES = ("OMPI_", "PMIX_", "PMI_", "SLURM_", "LOCKSTEP_", "OMP_", "PRTE_")


def environment(extra=None):
    """This process' environment without what a launcher left in it, and MPI set for tests."""
    result = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHER_PREFIXES)}
    result.update(
        OMPI_ALLOW_RUN_AS_ROOT="1",
        OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
        OMPI_MCA_mpi_yield_when_idle="1",
        OMPI_MCA_btl_vader_single_copy_mechanism="none",
        OPENBLAS_NUM_THREADS="1",
        LC_ALL="C.UTF-8",
    )
    for name in SIGHT:
        if DEVICE == "cpu":
            result[name] = BARE
        elif name in os.environ:
            result[name] = os.environ[name]
    result.update(extra or {})
    return result


def command(arguments, ranks):
    line = [PROGRAM, *map(str, arguments)]
    return mpirun(ranks) + line if ranks > 0 else line


def mpirun(ranks):
    if 0 < GPUS < ranks:
        raise unittest.SkipTest(f"{ranks} ranks need as many GPUs, and there are {GPUS}")
    return ["mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "none"]


class Result:
    """What a finished run left: code of the whole, and code, out and err of each rank."""

    def __init__(self, code, seconds, codes, outs, errs):
        self.code = code
        self.seconds = seconds
        self.codes = codes
        self.outs = outs
        self.errs = errs
        self.out = "".join(outs)
        self.err = "".join(errs)

    def __str__(self):
        return f"exit {self.code} of ranks {self.codes}\n--- out\n{self.out}--- err\n{self.err}"

    @property
    def error_lines(self):
        return [line for line in self.err.splitlines() if line.startswith(ERROR_LINE)]


def read_text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def run(arguments, ranks=0, folder=".", env=None, timeout=None, restore_signals=True):
    """Runs to the end. Kills the run and fails where it takes longer than timeout.

    All ranks have ended when mpirun hears of it, so it need not wait before it kills the rest.
    """
    capture = tempfile.mkdtemp(prefix="capture-", dir=folder)
    wrapped = ["/bin/sh", "-c", RANK_SCRIPT, "rank", capture, *command(arguments, 0)]
    line = (mpirun(ranks) if ranks > 0 else []) + wrapped
    begun = time.monotonic()
    process = subprocess.Popen(
        line,
        cwd=folder,
        env=environment({"OMPI_MCA_odls_base_sigkill_timeout": "0", **(env or {})}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        restore_signals=restore_signals,
    )
    limit = timeout or TIMEOUT
    try:
        process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        kill_all(process.pid)
        process.communicate()
        err = "".join(read_text(f"{capture}/err.{rank}") for rank in range(max(ranks, 1)))
        raise AssertionError(f"no end after {limit:.0f} s: {' '.join(line[-8:])}\n{err}") from None
    seconds = time.monotonic() - begun
    numbers = range(max(ranks, 1))
    codes = [int(read_text(f"{capture}/code.{rank}") or "-1") for rank in numbers]
    outs = [read_text(f"{capture}/out.{rank}") for rank in numbers]
    errs = [read_text(f"{capture}/err.{rank}") for rank in numbers]
    shutil.rmtree(capture)
    return Result(process.returncode, seconds, codes, outs, errs)


# ---- runs under way


def children(pid):
    """Processes that `pid` started, and theirs."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            text = read_text_quietly(f"/proc/{entry}/stat")
            if text:
                parents.setdefault(int(text.rsplit(")", 1)[1].split()[1]), []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        mine = parents.get(todo.pop(), [])
        found += mine
        todo += mine
    return found


def read_text_quietly(path):
    try:
        with open(path, "rb") as f:
            return f.read().decode("utf-8", "replace")
    except OSError:
        return ""


def kill_all(pid):
    """SIGKILL to everything under pid, then to pid itself."""
    for target in [*children(pid), pid]:
        try:
            os.kill(target, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Running:
    """A run under way, whose ranks can be signalled one by one."""

    def __init__(self, arguments, ranks=0, folder=".", env=None):
        self.ranks = max(ranks, 1)
        self.alone = ranks == 0
        self.output = tempfile.TemporaryFile(mode="w+", dir=folder)
        self.process = subprocess.Popen(
            command(arguments, ranks),
            cwd=folder,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def rank_pids(self):
        """Process ids by rank, of those that run the program."""
        if self.alone:
            return {0: self.process.pid}
        found = {}
        for pid in children(self.process.pid):
            if os.path.realpath(f"/proc/{pid}/exe") == os.path.realpath(PROGRAM):
                for entry in read_text_quietly(f"/proc/{pid}/environ").split("\0"):
                    if entry.startswith("OMPI_COMM_WORLD_RANK="):
                        found[int(entry.split("=")[1])] = pid
        return found

    def signal_rank(self, rank, number):
        os.kill(self.rank_pids()[rank], number)

    def kill_ranks(self):
        """SIGKILL to every rank at once, as a power cut would, and to mpirun where that hangs: Open
        MPI 4.1 can, when ranks die while they first connect to it."""
        pids = self.rank_pids()
        assert len(pids) == self.ranks, f"ranks under way: {pids} of {self.ranks}"
        for pid in pids.values():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            kill_all(self.process.pid)
            self.process.wait()

    def text(self):
        self.output.seek(0)
        return self.output.read()

    def wait(self, timeout=None):
        try:
            self.process.wait(timeout or TIMEOUT)
        except subprocess.TimeoutExpired:
            kill_all(self.process.pid)
            self.process.wait()
            raise AssertionError(f"the run does not end:\n{self.text()}") from None
        return self.process.returncode

    def until(self, condition, what):
        """Waits for condition() while the run goes on; fails when the run ends before."""
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            if self.process.poll() is not None:
                if condition():
                    return
                raise AssertionError(f"ended before {what}:\n{self.text()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"waited in vain for {what}:\n{self.text()}")
            time.sleep(0.01)

    def close(self):
        if self.process.poll() is None:
            kill_all(self.process.pid)
            self.process.wait()
        self.output.close()


# ---- files


def scalar(value):
    """A scalar of YAML; text is quoted only where it would read as something else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and (is_number(value) or not re.fullmatch(r"[\w./+:-]+", value)):
        return json.dumps(value)
    return str(value)


def is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def yaml(value, indent=0):
    """Block YAML of dictionaries, lists and scalars."""
    pad = "  " * indent
    lines = []
    pairs = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    for key, item in pairs:
        head = f"{pad}{key}:" if key is not None else f"{pad}-"
        if isinstance(item, (dict, list)) and item:
            if key is None:
                lines.append(f"{pad}- {yaml(item, indent + 1).lstrip()}")
            else:
                lines.append(f"{head}\n{yaml(item, indent + 1)}")
        elif isinstance(item, (dict, list)):
            lines.append(f"{head} {'{}' if isinstance(item, dict) else '[]'}")
        else:
            lines.append(f"{head} {scalar(item)}")
    return "\n".join(lines)


def merged(base, changes):
    """A copy of a nested configuration with changes; a change to None leaves the key out."""
    result = dict(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def read_log(run):
    """Events of a run's log.jsonl, [] where there is none yet. An unfinished line is left out."""
    text = read_text(os.path.join(run, "log.jsonl"))
    return [json.loads(line) for line in text.split("\n")[:-1]]


def read_history(run):
    with h5py.File(os.path.join(run, "history.h5"), "r") as f:
        return {name: f["epoch"][name][()] for name in f["epoch"]}


def checkpoints(run):
    """Numbered checkpoints of a run, oldest first."""
    folder = os.path.join(run, "checkpoints")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    pattern = re.compile(r"step-\d{8,}\.weights\.h5")
    return [os.path.join(folder, n) for n in sorted(names) if pattern.fullmatch(n)]


def read_layers(path):
    """Parameters of a checkpoint by their path under /layers."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path, "r") as f:
        f["layers"].visititems(visit)
    return found


def build_library(name, folder, compiler=None):
    """A library to preload, of NAME.c beside this file; its path."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.c")
    library = os.path.join(folder, f"{name}.so")
    flags = ["-std=c11", "-D_GNU_SOURCE", "-fno-builtin", "-shared", "-fPIC", "-o", library]
    compiler = compiler or os.environ.get("CC", "cc")
    subprocess.run([compiler, *flags, source, "-ldl"], check=True)
    return library


def leftovers(folder):
    """Temporary files under a folder: what a write aside leaves when it is not cleaned up."""
    found = []
    for base, _, names in os.walk(folder):
        found += [os.path.join(base, n) for n in names if ".tmp" in n]
    return found


# ---- tests


class ProgramTest(unittest.TestCase):
    """A test with a fresh folder, where the program runs."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        if not os.access(PROGRAM, os.X_OK):
            raise AssertionError(f"no program at {PROGRAM}: build it, or set LOCKSTEP")

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="lockstep-test-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def run_program(self, *arguments, ranks=0, **options):
        return run(arguments, ranks, self.folder, **options)

    def succeed(self, *arguments, ranks=0, **options):
        result = self.run_program(*arguments, ranks=ranks, **options)
        self.assertEqual(result.code, 0, f"{arguments}: {result}")
        self.assertEqual(set(result.codes), {0}, f"{arguments}: {result}")
        return result

    def start(self, *arguments, ranks=0, env=None):
        running = Running(arguments, ranks, self.folder, env)
        self.addCleanup(running.close)
        return running

    def stop_in_the_middle(self, config, ranks):
        """Trains without end, and asks one rank to stop after two epochs; the step they saved."""
        running = self.start("train", config, "train.epochs=1000000", ranks=ranks)
        running.until(lambda: len(read_log(self.path("run"))) > 2, "two epochs")
        running.signal_rank(1, signal.SIGTERM)
        self.assertEqual(running.wait(), 75, running.text())
        end = read_log(self.path("run"))[-1]
        self.assertEqual(end["reason"], "stopped")
        return end["step"]

    def fail_with(self, code, words, *arguments, ranks=0, **options):
        """Runs what must fail: code on every rank, one error line, last, with all the words."""
        options.setdefault("timeout", ERROR_SECONDS)
        result = self.run_program(*arguments, ranks=ranks, **options)
        self.assertEqual(result.code, code, f"{arguments}: {result}")
        self.assertEqual(set(result.codes), {code}, f"{arguments}: {result}")
        self.assertEqual(len(result.error_lines), 1, f"{arguments}: {result}")
        failing = [err for err in result.errs if ERROR_LINE in err]
        last = failing[0].splitlines()[-1]
        self.assertTrue(last.startswith(ERROR_LINE), f"{arguments}: {result}")
        for word in [words] if isinstance(words, str) else words:
            self.assertRegex(last, re.compile(word), f"{arguments}")
        return last

    # -- inputs

    def write_h5(self, name, **datasets):
        """A new HDF5 file; returns its path."""
        path = self.path(name)
        with h5py.File(path, "w") as f:
            for key, values in datasets.items():
                f[key] = values
        return path

    def write_config(self, config, name="config.yaml"):
        path = self.path(name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(yaml(config) + "\n")
        return path

    def write_text(self, name, text):
        path = self.path(name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path


def regression_rows(rows=100, inputs=6, outputs=2, seed=1):
    """Smooth targets of normal features, float32."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, inputs)).astype("f4")
    y = np.tanh(x @ rng.normal(size=(inputs, outputs)).astype("f4") * 0.5)
    return x, (y + 0.1 * rng.normal(size=y.shape)).astype("f4")


def class_rows(rows=100, inputs=6, classes=3, seed=1):
    """Class numbers of noisy linear scores, uint8."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, inputs)).astype("f4")
    scores = x @ rng.normal(size=(inputs, classes)) + 0.5 * rng.normal(size=(rows, classes))
    return x, scores.argmax(axis=1).astype("u1")


def regression_config(file="data.h5", **changes):
    """A tiny regression on datasets x and y of one file."""
    base = {
        "data": {"train": {"file": file, "features": "x", "targets": "y"}},
        "model": [{"dense": {"units": 8, "activation": "tanh"}}, {"dense": {"units": 2}}],
        "loss": "mean_squared_error",
        "optimizer": "adam",
        "metrics": ["mae"],
        "train": {"batch_size": 16, "epochs": 3},
        "run": {"folder": "run"},
        "device": DEVICE,
    }
    return merged(base, changes)


def class_config(file="data.h5", **changes):
    """A tiny classifier of three classes on datasets x and y of one file."""
    base = regression_config(
        file,
        model=[{"dense": {"units": 8, "activation": "relu"}}, {"dense": {"units": 3}}],
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return merged(base, changes)
