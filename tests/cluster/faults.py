"""Faults given to one long run on two nodes, which is resumed after each.

Which fault, under which launcher, when, and what must come of it: the table FAULTS. All of them
hit runs of 2 + 2 ranks, so the order of sums, and with it every bit, is that of a run left alone.
"""

import dataclasses
import os
import re
import signal
import time

import slurm
from cluster import harness, is_program, made_rows, send

JOBS = os.path.join(harness.ROOT, "jobs", "slurm")

# Seconds without progress after which the program gives up, and what it may take from there to the
# end of all ranks.
TIMEOUT = 5
LIMIT = TIMEOUT + 10

# Before MPI is up there is more at least (src/world/starting.c).
START_LIMIT = 35 + 10

# And the launcher after them: srun waits for a lost node's tasks until Slurm gives the node up,
# after the SlurmdTimeout of slurm.py.
LAUNCHER = 30

# Steps of an epoch, and between checkpoints within it.
STEPS, EVERY = 64, 16
BATCH = 64

# mpirun finds a lost node in ten seconds, not in eight minutes.
KEEPALIVE = {
    "OMPI_MCA_oob_tcp_keepalive_time": "5",
    "OMPI_MCA_oob_tcp_keepalive_intvl": "2",
    "OMPI_MCA_oob_tcp_keepalive_probes": "3",
}


def config():
    """Epochs of about a second, half of it validation; checkpoints large enough to be met."""
    hidden = {"dense": {"units": 512, "activation": "tanh"}}
    return harness.regression_config(
        data={
            "train": made_rows(STEPS * BATCH, 64),
            "validation": {"synthetic": {"rows": 20000, "inputs": 64, "outputs": 2}},
        },
        model=[hidden, hidden, {"dense": {"units": 2}}],
        train={"batch_size": BATCH, "epochs": 1000000},
        checkpoint={"every_steps": EVERY, "keep": 2},
        run={"timeout": TIMEOUT},
    )


@dataclasses.dataclass(frozen=True)
class Fault:
    """what: for people. act(case): gives it, in case.moment. outcome: `fails`, `stops` (code 75),
    `requeued` (75, and Slurm starts it again), `ends` (whatever code) or `goes on` (code 0).
    names: what the user must be told, a regular expression. short: in the short suite too."""

    what: str
    launcher: str
    moment: str
    act: object
    outcome: str = "fails"
    names: str = ""
    short: bool = False


# ---- what may be done to a run


def to_rank(rank, number):
    return lambda case: case.signal_rank(rank, number)


def to_node(node, number):
    """A signal to all ranks of a node at once."""

    def act(case):
        for where, pid in case.cluster.ranks().values():
            if where == node:
                send(pid, number)

    return act


def crash_node(case):
    """All that runs of the job on n2 dies: the launcher's own process there as well."""
    for pid in case.cluster.nodes["n2"].pids():
        name = harness.read_text_quietly(f"/proc/{pid}/comm").strip()
        if name in ("orted", "slurmstepd") or is_program(pid):
            send(pid, signal.SIGKILL)


def to_launcher(number):
    """To mpirun or srun itself, or to the batch script."""

    def act(case):
        if isinstance(case.run, slurm.Job):
            name = signal.Signals(number).name[3:]
            case.cluster.shell(f"scancel --batch --signal={name} {case.run.number}")
            return
        for pid in harness.children(case.run.process.pid):
            if harness.read_text_quietly(f"/proc/{pid}/comm").strip() in ("mpirun", "srun"):
                send(pid, number)
                return

    return act


def scancel(options=""):
    return lambda case: case.cluster.shell(f"scancel {options} {case.run.number}")


def requeue(case):
    case.cluster.shell(f"scontrol requeue {case.run.number}")


def cut(case):
    case.cluster.link("n2", "down")


def cut_for(seconds):
    def act(case):
        case.cluster.link("n2", "down")
        time.sleep(seconds)
        case.cluster.link("n2", "up")

    return act


def slow_link(case):
    case.cluster.rate("n2", "200mbit")


def stop_and_go(seconds):
    """A rank that is only slow: stopped for less than the timeout."""

    def act(case):
        case.signal_rank(3, signal.SIGSTOP)
        time.sleep(seconds)
        case.signal_rank(3, signal.SIGCONT)

    return act


def stop_file(case):
    os.makedirs(case.path("run"), exist_ok=True)
    with open(case.path("run", "STOP"), "w", encoding="utf-8"):
        pass


def twice(number):
    """A signal, and again when the user has lost patience."""

    def act(case):
        case.signal_rank(0, number)
        time.sleep(1.5)
        case.signal_rank(0, number)

    return act


KILL, STOP, TERM = signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM
INT, USR1, USR2, SEGV = signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGSEGV



def who(rank):
    """Names a rank and its host, as the program and the launchers do."""
    host = "n1" if rank < 2 else "n2"
    return f"rank {rank}.*{host}|{host}: task {rank}"


SAVED = "checkpoint written"
SBATCH_SRUN, SBATCH_MPIRUN = "sbatch, srun", "sbatch, mpirun"

FAULTS = (
    Fault("rank 3 killed", "mpirun", "start", to_rank(3, KILL), names=who(3)),
    Fault("rank 3 killed", "mpirun", "step", to_rank(3, KILL), names=who(3), short=True),
    Fault("rank 0 killed", "mpirun", "checkpoint", to_rank(0, KILL), names=who(0), short=True),
    Fault("rank 1 killed", "mpirun", "validation", to_rank(1, KILL), names=who(1)),
    Fault("rank 2 killed", "srun", "start", to_rank(2, KILL), names=who(2)),
    Fault("rank 2 killed", "srun", "step", to_rank(2, KILL), names=who(2), short=True),
    Fault("rank 0 killed", "srun", "checkpoint", to_rank(0, KILL), names=who(0)),
    Fault("rank 3 killed", "srun", "end", to_rank(3, KILL), "ends"),
    Fault("rank 1 killed", SBATCH_MPIRUN, "end", to_rank(1, KILL), "ends"),
    Fault("rank 1 crashes (SEGV)", "srun", "step", to_rank(1, SEGV), names=who(1)),
    Fault("rank 2 exits with code 3", "mpirun", "step", to_rank(2, USR2), names=who(2)),
    Fault("rank 2 exits with code 3", "srun", "validation", to_rank(2, USR2), names=who(2)),
    Fault("rank 2 stopped", "mpirun", "start", to_rank(2, STOP)),
    Fault("rank 2 stopped", "mpirun", "step", to_rank(2, STOP), names=who(2), short=True),
    Fault("rank 2 stopped", SBATCH_MPIRUN, "step", to_rank(2, STOP), names=who(2)),
    Fault("rank 3 stopped", "srun", "validation", to_rank(3, STOP), names=who(3), short=True),
    Fault("rank 0 stopped", "mpirun", "checkpoint", to_rank(0, STOP), names=who(0)),
    Fault("rank 0 stopped", "srun", "step", to_rank(0, STOP), names=who(0)),
    Fault("both ranks of n2 stopped", "mpirun", "step", to_node("n2", STOP), names="n2"),
    Fault("rank 3 stopped for 3 s", "mpirun", "step", stop_and_go(3), "goes on"),
    Fault("all of the job on n2 dies", "mpirun", "step", crash_node, names="n2"),
    Fault("all of the job on n2 dies", "srun", "step", crash_node, names="n2"),
    Fault("network of n2 cut", "srun", "start", cut, names="Node failure|MPI has not started"),
    Fault("network of n2 cut", "mpirun", "step", cut, names="n2"),
    Fault("network of n2 cut", "mpirun", "validation", cut, names="n2"),
    Fault("network of n2 cut", "srun", "step", cut, names="n2"),
    Fault("network of n2 cut for 1 s", "srun", "step", cut_for(1), "goes on"),
    Fault("link of n2 at 200 Mbit/s", "mpirun", "step", slow_link, "goes on"),
    Fault("mpirun killed", "mpirun", "step", to_launcher(KILL)),
    Fault("TERM to mpirun", "mpirun", "step", to_launcher(TERM), "ends", SAVED),
    Fault("INT to rank 0, twice", "srun", "step", twice(INT), "ends"),
    Fault("USR1 to rank 3", "mpirun", "validation", to_rank(3, USR1), "stops", SAVED),
    Fault("TERM to rank 2", "srun", "checkpoint", to_rank(2, TERM), "stops", SAVED),
    Fault("STOP file", "srun", "validation", stop_file, "stops", "STOP file"),
    Fault("scancel", SBATCH_SRUN, "step", scancel(), "ends", SAVED, short=True),
    Fault("scancel", SBATCH_MPIRUN, "checkpoint", scancel(), "ends"),
    Fault("scancel -s USR1", SBATCH_SRUN, "validation", scancel("-s USR1"), "requeued", SAVED),
    Fault("USR1 to the script", SBATCH_MPIRUN, "step", to_launcher(USR1), "requeued", SAVED),
    Fault("scontrol requeue", SBATCH_SRUN, "step", requeue, "requeued"),
)


# ---- a fault under way


class Case:
    """One fault, given to the run in folder/run."""

    def __init__(self, fault, cluster, folder, library):
        self.fault = fault
        self.cluster = cluster
        self.folder = folder
        self.library = library  # leave.c, built
        self.run = None
        self.code = self.seconds = self.launcher_seconds = None
        self.resumed = ""  # what resuming gave

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    # -- what the run shows

    def newest(self):
        """Step of the newest checkpoint, 0: none."""
        paths = harness.checkpoints(self.path("run"))
        return int(re.search(r"step-(\d+)", paths[-1])[1]) if paths else 0

    def events(self, kind):
        return [e for e in harness.read_log(self.path("run")) if e["event"] == kind]

    def signal_rank(self, rank, number):
        """Nothing where the rank has ended."""
        found = self.cluster.ranks().get(rank)
        if found is not None:
            send(found[1], number)

    def said(self):
        """What the user saw of the fault: the program's own words, else the launcher's."""
        lines = [line.strip() for line in self.run.text().splitlines()]
        own = [line for line in lines if re.match(r"lockstep: (error|stopped): ", line)]
        words = r"noticed that|^srun: error: (n\d.*task|Node f)|^Process name|lost communication"
        launcher = [line for line in lines if re.search(words, line)]
        return own[-1:] or launcher[:1] or [line for line in lines if line][-1:]

    def limit(self):
        """Seconds within which all ranks must have ended."""
        return START_LIMIT if self.fault.moment == "start" else LIMIT

    # -- start, moment, end

    def start(self):
        completed = len(self.events("epoch"))
        more = {"end": 1}.get(self.fault.moment) or {"goes on": 2, "requeued": 4}.get(
            self.fault.outcome, 1000000
        )
        arguments = ["config.yaml", f"train.epochs={completed + more}"]
        preload = f"LD_PRELOAD={self.library}"
        launcher = self.fault.launcher
        if launcher == "mpirun":
            self.run = self.cluster.mpirun(
                ["train", *arguments], self.folder, options=("-x", preload), env=KEEPALIVE
            )
        elif launcher == "srun":
            options = (f"--export=ALL,{preload}", "--kill-on-bad-exit=1")
            self.run = self.cluster.srun(["train", *arguments], self.folder, options)
        else:
            name = "multi_node" if launcher == SBATCH_SRUN else "multi_node_mpirun"
            self.run = self.cluster.submit(
                os.path.join(JOBS, f"{name}.sbatch"),
                [*arguments, "device=cpu"],
                self.folder,
                ("--ntasks-per-node=2", "--gpus-per-node=2", "--cpus-per-task=1"),
                {"LOCKSTEP": harness.PROGRAM},
            )

    def until_moment(self):
        starts, epochs, newest = len(self.events("start")), len(self.events("epoch")), self.newest()
        until, moment = self.run.until, self.fault.moment
        self.run.until_ranks(4)
        if moment == "start":
            return
        if moment == "end":
            until(lambda: len(self.events("epoch")) > epochs, "the last epoch")
            return
        until(lambda: len(self.events("start")) > starts, "the start of training")
        if moment == "step":
            until(lambda: self.newest() > newest and self.newest() % STEPS, "a step")
        elif moment == "checkpoint":
            until(lambda: self.newest() > newest, "a first checkpoint")
            until(lambda: harness.leftovers(self.path("run", "checkpoints")), "a write")
        else:
            # The last checkpoint within an epoch, the steps after it, a tenth of a second more.
            last = STEPS - EVERY
            until(lambda: self.newest() > newest and self.newest() % STEPS == last, "a late step")
            seconds = [event["seconds"] for event in self.events("epoch")][-1:] or [1.0]
            time.sleep(seconds[0] * EVERY / STEPS + 0.1)

    def give(self):
        """Gives the fault and sees the run to its end: exit code, and seconds from the fault to the
        end of all ranks and to that of the launcher."""
        given = time.monotonic()
        self.fault.act(self)
        patient = self.fault.outcome in ("goes on", "requeued")
        limit = 90 if patient else self.limit()
        if not patient:
            while self.cluster.ranks() and time.monotonic() < given + limit + 5:
                time.sleep(0.05)
            self.seconds = time.monotonic() - given
        self.code = self.run.wait(limit + LAUNCHER)
        self.launcher_seconds = time.monotonic() - given
        if patient:
            self.seconds = self.launcher_seconds

    def heal(self):
        """Undoes what a fault did to the cluster, and takes back a STOP that came too late."""
        if os.path.exists(self.path("run", "STOP")):
            os.unlink(self.path("run", "STOP"))
        self.cluster.link("n2", "up")
        if self.fault.act is slow_link:
            self.cluster.rate("n2")
        self.cluster.clear()

    def resume(self):
        """Runs to the end of the epoch under way; returns exit code and text."""
        starts = len(self.events("start"))
        epochs = len(self.events("epoch")) + 1
        again = self.cluster.mpirun(["train", "config.yaml", f"train.epochs={epochs}"], self.folder)
        try:
            code = again.wait(60)
            begun = self.events("start")[starts:]
            self.resumed = f"from step {begun[0]['step']:,}" if begun else "complete"
            return code, again.text()
        finally:
            again.close()
