"""Slurm on the cluster of cluster.py: a controller on the head node, a slurmd on n1 and n2, each
with two devices that pass for GPUs, munge between them, PMIx for MPI."""

import glob
import os
import re
import shutil
import subprocess
import time

import cluster
import harness
from cluster import LOCAL, NODES, STATE

COMMANDS = ("slurmctld", "slurmd", "munged", "srun", "sbatch", "scontrol", "scancel")

# cred_expire is also how long a requeued job waits before it starts again, 120 s by default.
CONFIGURATION = f"""
ClusterName=lockstep
SlurmctldHost=head({cluster.ADDRESSES["head"]})
AuthInfo=socket={STATE}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
StateSaveLocation={STATE}/state
SlurmctldPidFile={STATE}/slurmctld.pid
SlurmctldLogFile={STATE}/slurmctld.log
SlurmdSpoolDir={LOCAL}/spool
SlurmdPidFile={LOCAL}/slurmd.pid
SlurmdLogFile={STATE}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
GresTypes=gpu
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=5
# When Slurm gives up a node, and with it srun: 300 s by default.
SlurmdTimeout=15
# Looks often, for a job's time limit, its signal before it, and the queue.
OverTimeLimit=0
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n[1-2] CPUs=4 RealMemory=4000 Gres=gpu:2
PartitionName=normal Nodes=n[1-2] Default=YES PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=n[1-2] PriorityTier=2 PreemptMode=OFF
"""

GPUS = f"""
NodeName=n1 Name=gpu File={STATE}/gpu[0-1]
NodeName=n2 Name=gpu File={STATE}/gpu[2-3]
"""

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY")


def why_not():
    """Why there can be no Slurm here, None if there can."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if not any(glob.glob(f"/usr/lib*/{between}slurm*/mpi_pmix*.so") for between in ("", "*/")):
        return "this Slurm has no PMIx plugin"
    return cluster.why_not()


class SlurmCluster(cluster.Cluster):
    def up(self):
        super().up()
        try:
            self.start_slurm()
        except BaseException:
            self.down()
            raise
        return self

    def environment(self, extra=None):
        return super().environment({"SLURM_CONF": f"{STATE}/slurm.conf", **(extra or {})})

    def start_slurm(self):
        self.write("slurm.conf", CONFIGURATION)
        self.write("gres.conf", GPUS)
        self.write("mpi.conf", f"PMIxCliTmpDirBase={LOCAL}\n")
        self.shell(
            f"""cd {STATE}
mkdir state
for k in 0 1 2 3; do mknod gpu$k c 1 3; done
(umask 077; head -c 128 /dev/urandom >munge.key)
munged --force --socket={STATE}/munge.socket --key-file={STATE}/munge.key \\
  --pid-file={STATE}/munged.pid --log-file={STATE}/munged.log --seed-file={STATE}/munged.seed
slurmctld"""
        )
        for name in NODES:
            self.shell(f"mkdir {LOCAL}/spool; slurmd -N {name}", name)
        self.wait_for_nodes()

    def wait_for_nodes(self, limit=30):
        """Until all are idle. One that was lost does not come back before it is told to."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            states = dict(re.findall(r"(\S+) (\S+)", self.shell("sinfo -h -N -o '%N %T' || true")))
            if states and set(states.values()) == {"idle"}:
                return
            for name in (name for name, state in states.items() if state.startswith("down")):
                self.shell(f"scontrol update node={name} state=resume || true")
            time.sleep(0.1)
        jobs = self.shell("sinfo -N -l; squeue -a || true")
        raise AssertionError(f"the nodes do not become idle:\n{jobs}\n{self.logs()}")

    def clear(self):
        """Cancels whatever is left of any job, and waits until the nodes are free."""
        self.shell("scancel --user=root")
        self.wait_for_nodes(60)

    def logs(self):
        """The end of what Slurm's daemons wrote."""
        names = ["slurmctld.log", *(f"slurmd.{name}.log" for name in NODES)]
        return "".join(f"--- {name}\n{self.read(name)[-2000:]}" for name in names)

    # ---- jobs

    def srun(self, arguments, folder, options=(), env=None):
        """The program under srun on 2 + 2 ranks, outside of a batch job."""
        line = ["srun", "--mpi=pmix", "-N2", "--ntasks-per-node=2", *options]
        line += [harness.PROGRAM, *arguments]
        return self.start(line, folder, env=env)

    def submit(self, script, arguments, folder, options=(), env=None):
        """Submits a batch script; returns the Job."""
        line = ["sbatch", "--parsable", *options, script, *map(str, arguments)]
        done = subprocess.run(
            self.nodes["head"].command(line, folder),
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(f"sbatch: exit {done.returncode}\n{done.stderr}")
        return Job(self, int(done.stdout), folder)


class Job:
    """A batch job."""

    def __init__(self, slurm, number, folder):
        self.slurm = slurm
        self.number = number
        self.folder = folder
        self.begun = time.monotonic()
        self.seconds = None

    def show(self):
        """What `scontrol show job` says, by name."""
        text = self.slurm.shell(f"scontrol show job {self.number}")
        return dict(re.findall(r"(\w+)=(\S*)", text))

    def state(self):
        return self.show()["JobState"]

    def text(self):
        found = self.show()
        return harness.read_text(found["StdOut"])

    def code(self):
        """Exit code, or the negated signal."""
        code, number = map(int, self.show()["ExitCode"].split(":"))
        return -number if number else code

    def until(self, condition, what, limit=60):
        deadline = time.monotonic() + limit
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited in vain for {what}:\n{self.show()}\n{self.text()}")
            time.sleep(0.02)

    def wait(self, limit):
        """Waits until it is over for good; returns its exit code."""
        self.until(lambda: self.state() in FINAL, "the job's end", limit)
        self.seconds = time.monotonic() - self.begun
        return self.code()

    def until_ranks(self, count):
        self.until(lambda: len(self.slurm.ranks()) == count, f"its {count} ranks")
        return self.slurm.ranks()

    def kill(self):
        self.slurm.shell(f"scancel -s KILL --full {self.number}; scancel {self.number}")

    def close(self):
        if self.state() not in FINAL:
            self.kill()
            self.until(lambda: self.state() in FINAL, "the job's end")


class SlurmTest(cluster.ClusterTest):
    make = SlurmCluster
    why_not = staticmethod(why_not)

    def srun(self, *arguments, **options):
        launched = self.cluster.srun(arguments, self.folder, **options)
        self.addCleanup(launched.close)
        return launched

    def submit(self, script, *arguments, **options):
        job = self.cluster.submit(script, arguments, self.folder, **options)
        self.addCleanup(job.close)
        return job
