"""Two nodes, n1 and n2, and a head node, made of one machine, as root.

Each has a network, host name, processes, shared memory and temporary folder of its own; n1 and n2
hang on a bridge of the head node. All of it lives in nested namespaces below one process that dies
with this one: no interface, mount, process or file outlives the tests, and no name of the machine's
own (an interface, a line of its hosts file) is touched. Other folders are shared, as on a cluster.
"""

import atexit
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "program"))

import harness

NODES = ("n1", "n2")
ADDRESSES = {"head": "10.77.0.254", "n1": "10.77.0.1", "n2": "10.77.0.2"}

# A tmpfs that the three share and nobody else sees, on a folder that hides nothing they need.
# STATE/local is each one's own.
NEEDED = (harness.ROOT, harness.PROGRAM, tempfile.gettempdir())
STATE = next(p for p in ("/mnt", "/srv", "/media") if not any(n.startswith(p) for n in NEEDED))
LOCAL = f"{STATE}/local"

NAMESPACES = ("--net", "--mount", "--uts", "--ipc", "--pid")

# The namespaces' first process. That it ignores CHLD has the kernel reap orphans for it.
INIT = "exec env --ignore-signal=CHLD sleep infinity"

# Seconds to wait for another test's cluster to come down.
PATIENCE = 800

COMMANDS = ("unshare", "nsenter", "setpriv", "ip", "tc", "mount", "hostname", "mpirun")


def why_not():
    """Why no cluster can be made here, None if one can."""
    if os.geteuid() != 0:
        return "a cluster of namespaces needs root"
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    probe = f"""mount -t tmpfs none {STATE}
ip link add name bridge type bridge
ip link add name v1 type veth peer name v2"""
    tried = subprocess.run(
        ["unshare", *NAMESPACES, "--fork", "--mount-proc", "sh", "-ec", probe],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode != 0:
        return f"no namespaces here: {(tried.stderr.strip().splitlines() or ['refused'])[-1]}"
    return None


def pids_by_space():
    """Process ids by the space of process ids that they are in."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                found.setdefault(os.readlink(f"/proc/{entry}/ns/pid"), []).append(int(entry))
            except OSError:
                pass  # it has ended
    return found


def read_environment(pid):
    text = harness.read_text_quietly(f"/proc/{pid}/environ")
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)


def is_program(pid):
    """True for a process that runs lockstep and has not ended."""
    try:
        same = os.path.samefile(f"/proc/{pid}/exe", harness.PROGRAM)
    except OSError:
        return False  # ended, or a zombie
    return same


class Node:
    """The namespaces of one node, by the process that holds them."""

    def __init__(self, name, holder):
        self.name = name
        self.holder = holder  # `unshare`, whose death ends everything in the node
        self.pid = self.find_init()

    def find_init(self):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for pid in harness.children(self.holder.pid):
                if harness.read_text_quietly(f"/proc/{pid}/comm").strip() == "sleep":
                    return pid
            if self.holder.poll() is not None:
                break
            time.sleep(0.005)
        raise AssertionError(f"cannot make node {self.name}")

    def pid_within(self, depth):
        """The init's number as a namespace sees it: 0 the machine's, 1 the head's, 2 its own."""
        status = harness.read_text_quietly(f"/proc/{self.pid}/status")
        return int(re.search(r"^NSpid:\s*(.*)$", status, re.MULTILINE)[1].split()[depth])

    def command(self, arguments, folder="/"):
        """What runs a command in this node."""
        enter = ["nsenter", "-t", str(self.pid), "-n", "-m", "-u", "-i", "-p"]
        return [*enter, "env", "-C", folder, *map(str, arguments)]

    def pids(self):
        """All processes within, as the machine numbers them."""
        return pids_by_space().get(os.readlink(f"/proc/{self.pid}/ns/pid"), [])


class Cluster:
    """Brought up by `with`, or by up() and down(). One at a time on a machine: it waits for another
    one's end."""

    def __init__(self):
        self.nodes = {}
        self.lock = None

    def __enter__(self):
        return self.up()

    def __exit__(self, *_):
        self.down()

    # ---- up and down

    def up(self):
        self.take_turn()
        atexit.register(self.down)
        try:
            self.make_head()
            for number, name in enumerate(NODES, 1):
                self.make_node(name, number)
        except BaseException:
            self.down()
            raise
        return self

    def take_turn(self):
        path = os.path.join(tempfile.gettempdir(), "lockstep-cluster.lock")
        self.lock = open(path, "a", encoding="utf-8")
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise AssertionError(f"another cluster holds {path}") from None
                time.sleep(0.2)

    def hold(self, within, script):
        """Starts a node's first process, in new namespaces below those of `within`."""
        line = ["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, "--fork", "--kill-child"]
        line += ["--mount-proc", "--propagation", "private", "sh", "-ec", f"{script}\n{INIT}"]
        return subprocess.Popen(
            within.command(line) if within is not None else line,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def make_head(self):
        hosts = "".join(f"{address} {name}\\n" for name, address in ADDRESSES.items())
        script = f"""
hostname head
mount -t tmpfs -o mode=755 none {STATE}
mkdir {LOCAL}
printf '127.0.0.1 localhost\\n{hosts}' >{STATE}/hosts
mount --bind {STATE}/hosts /etc/hosts
ip link set lo up
ip link add name bridge type bridge
ip address add {ADDRESSES["head"]}/24 dev bridge
ip link set bridge up"""
        self.nodes["head"] = Node("head", self.hold(None, script))
        self.write("rsh", self.remote_shell(), executable=True)

    def make_node(self, name, number):
        script = f"""
hostname {name}
mount -t tmpfs -o mode=1777 none {LOCAL}
mount -t tmpfs -o mode=1777 none /dev/shm
ip link set lo up"""
        node = Node(name, self.hold(self.nodes["head"], script))
        self.nodes[name] = node
        self.write(f"pid.{name}", str(node.pid_within(1)))
        self.shell(
            f"ip link add name v{number} type veth peer name eth0 netns {node.pid_within(1)}\n"
            f"ip link set v{number} master bridge up"
        )
        self.shell(
            f"ip address add {ADDRESSES[name]}/24 dev eth0\n"
            f"ip link set eth0 up\nip route add default via {ADDRESSES['head']}",
            name,
        )

    @staticmethod
    def remote_shell():
        """Stands in for ssh from the head node: `rsh HOST COMMAND...`."""
        return f"""#!/bin/sh
host=$1
shift
exec nsenter -t "$(cat {STATE}/pid.$host)" -n -m -u -i -p sh -c "$*"
"""

    def down(self):
        """Ends everything within; what hangs on the namespaces goes with them. Safe to repeat."""
        atexit.unregister(self.down)
        head = self.nodes.get("head")
        if head is not None:
            head.holder.kill()
            head.holder.wait()
            deadline = time.monotonic() + 10
            while os.path.exists(f"/proc/{head.pid}") and time.monotonic() < deadline:
                time.sleep(0.01)
        for node in self.nodes.values():
            node.holder.kill()
            node.holder.wait()
        self.nodes = {}
        if self.lock is not None:
            self.lock.close()
            self.lock = None

    # ---- files and commands within

    def write(self, name, text, executable=False):
        """A file in STATE, where the nodes see it."""
        path = f"/proc/{self.nodes['head'].pid}/root{STATE}/{name}"
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        if executable:
            os.chmod(path, 0o755)

    def read(self, name):
        return harness.read_text(f"/proc/{self.nodes['head'].pid}/root{STATE}/{name}")

    def environment(self, extra=None):
        return harness.environment(
            {
                "TMPDIR": LOCAL,
                # Both nodes are one machine: bound ranks of both would land on its first cores.
                "OMPI_MCA_hwloc_base_binding_policy": "none",
                **(extra or {}),
            }
        )

    def shell(self, script, node="head", timeout=30):
        """Runs a script to its end; returns what it printed, or fails with it."""
        with tempfile.TemporaryFile(mode="w+") as output:  # a daemon would keep a pipe open
            done = subprocess.run(
                self.nodes[node].command(["sh", "-ec", script]),
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
            output.seek(0)
            text = output.read()
        if done.returncode != 0:
            raise AssertionError(f"on {node}: {script}: exit {done.returncode}\n{text}")
        return text

    def start(self, arguments, folder, node="head", env=None):
        """Starts a command in a node, to be waited for."""
        return Launched(self, self.nodes[node].command(arguments, folder), folder, env)

    # ---- launchers

    def mpirun(self, arguments, folder, hosts="n1:2,n2:2", options=(), env=None):
        """The program under mpirun without a batch system, from the head node."""
        line = ["mpirun", "--host", hosts, "--mca", "plm_rsh_agent", f"{STATE}/rsh", *options]
        env = {"OMPI_MCA_rmaps_base_oversubscribe": "1", **(env or {})}
        return self.start([*line, harness.PROGRAM, *arguments], folder, env=env)

    # ---- who runs

    def ranks(self):
        """(node, pid) by rank, of all processes in the nodes that run the program."""
        found = {}
        for name, node in self.nodes.items():
            for pid in node.pids():
                if is_program(pid):
                    known = read_environment(pid)
                    if known:  # empty: on its way into the program, or out of it
                        found[int(known.get("PMIX_RANK", -pid))] = (name, pid)
        return found

    # ---- faults of the network

    def link(self, node, state):
        """`down` cuts a node off, `up` joins it again and waits until it is reached."""
        self.shell(f"ip link set v{NODES.index(node) + 1} {state}")
        if state == "up":
            # Nobody listens on that port, so a node that is there refuses.
            probe = f"timeout 1 bash -c ': >/dev/tcp/{ADDRESSES[node]}/9' 2>&1 | grep -q refused"
            for other in (name for name in self.nodes if name != node):
                self.shell(f"until {probe}; do sleep 0.05; done", other)

    def rate(self, node, rate=None):
        """Limits both directions of a node's link (`1gbit`); None: as fast as the machine."""
        for end, where in ((f"v{NODES.index(node) + 1}", "head"), ("eth0", node)):
            if rate is None:
                self.shell(f"tc qdisc del dev {end} root", where)
            else:
                shape = f"tbf rate {rate} burst 256k latency 50ms"
                self.shell(f"tc qdisc replace dev {end} root {shape}", where)


class Launched:
    """A launcher under way in a node."""

    def __init__(self, cluster, line, folder, env=None):
        self.cluster = cluster
        self.begun = time.monotonic()
        self.seconds = None  # how long it took, once it has ended
        self.said = None  # all of the output, once closed
        self.output = tempfile.TemporaryFile(dir=folder)
        self.process = subprocess.Popen(
            line,
            env=cluster.environment(env),
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def text(self):
        if self.said is not None:
            return self.said
        # At a place of its own: the launcher writes where the file stands.
        size = os.fstat(self.output.fileno()).st_size
        return os.pread(self.output.fileno(), size, 0).decode("utf-8", "replace")

    def running(self):
        return self.process.poll() is None

    def kill(self):
        """Ends launcher and ranks at once, and returns when none of them is there any more."""
        for _, pid in self.cluster.ranks().values():
            send(pid, signal.SIGKILL)
        harness.kill_all(self.process.pid)
        self.process.wait()
        deadline = time.monotonic() + 10  # a killed process takes a moment to give its memory back
        while self.cluster.ranks() and time.monotonic() < deadline:
            time.sleep(0.01)

    def wait(self, limit):
        """Exit code. Fails, and ends everything, when that takes longer than `limit` seconds."""
        try:
            self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no end after {limit:.0f} s:\n{self.text()}") from None
        self.seconds = time.monotonic() - self.begun
        return self.process.returncode

    def until(self, condition, what, limit=60):
        """Waits for condition() while the run goes on; fails when it ends before."""
        deadline = time.monotonic() + limit
        while not condition():
            if not self.running() and not condition():
                raise AssertionError(f"ended before {what}:\n{self.text()}")
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"waited in vain for {what}:\n{self.text()}")
            time.sleep(0.005)

    def until_ranks(self, count):
        """Waits until all ranks are there; returns them."""
        self.until(lambda: len(self.cluster.ranks()) == count, f"its {count} ranks")
        return self.cluster.ranks()

    def close(self):
        if self.said is None:
            if self.running():
                self.kill()
            self.said = self.text()
            self.output.close()


def made_rows(rows, inputs, outputs=2):
    """A table of a configuration: rows that every rank makes alike, in place of a file."""
    made = {"rows": rows, "inputs": inputs, "outputs": outputs}
    return {"synthetic": made, "file": None, "features": None, "targets": None}


def send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class ClusterTest(harness.ProgramTest):
    """Tests of one class share a cluster."""

    make = Cluster
    why_not = staticmethod(why_not)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        reason = cls.why_not()
        if reason is not None:
            raise unittest.SkipTest(reason)
        cls.cluster = cls.make()
        cls.cluster.up()
        cls.addClassCleanup(cls.cluster.down)

    def mpirun(self, *arguments, **options):
        launched = self.cluster.mpirun(arguments, self.folder, **options)
        self.addCleanup(launched.close)
        return launched
