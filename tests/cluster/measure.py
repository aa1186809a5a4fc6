#!/usr/bin/env python3
"""Measures what a network between two nodes costs, and prints the tables of docs/cluster.md.

    python3 tests/cluster/measure.py
Both nodes are one machine, which should have nothing else to do.
"""

import os
import subprocess
import tempfile

import cluster
from cluster import harness, made_rows

HERE = os.path.dirname(os.path.abspath(__file__))

ROWS, EPOCHS, REPEATS = 16384, 2, 3

# Two ranks: where, how fast the link between them is, and what MPI is told.
TWO_STREAMS = {"OMPI_MCA_btl_tcp_links": "2"}
PLACES = (
    ("one node", "n1:2", None, {}),
    ("two nodes", "n1:1,n2:1", None, {}),
    ("1 Gbit/s", "n1:1,n2:1", "1gbit", {}),
    ("1 Gbit/s, two streams", "n1:1,n2:1", "1gbit", TWO_STREAMS),
)

# Hidden units of networks from 784 inputs to 10 outputs, and global batches.
NETWORKS = ((128,), (1024, 1024))
BATCHES = (128, 1024)


def parameters(hidden):
    """Floats of each tensor."""
    sizes = (784, *hidden, 10)
    return [n for a, b in zip(sizes, sizes[1:]) for n in (a * b, b)]


def write_config(folder, hidden, batch):
    layers = [{"dense": {"units": units, "activation": "relu"}} for units in (*hidden, 10)]
    config = harness.regression_config(
        data={"train": made_rows(ROWS, 784, 10)},
        model=layers,
        train={"batch_size": batch, "epochs": EPOCHS},
    )
    with open(os.path.join(folder, "config.yaml"), "w", encoding="utf-8") as f:
        f.write(harness.yaml(config) + "\n")


def finish(launched):
    code = launched.wait(600)
    launched.close()
    if code != 0:
        raise SystemExit(launched.text())
    return launched.text()


def epoch_seconds(made, folder, hosts, env):
    """Of the fastest epoch: the machine's other work only adds."""
    line = ["train", "config.yaml", "--overwrite"]
    finish(made.mpirun(line, folder, hosts=hosts, env=env))
    events = harness.read_log(os.path.join(folder, "run"))
    return min(event["seconds"] for event in events if event["event"] == "epoch")


def set_rate(made, rate):
    """Of the link between the nodes; None: as fast as the machine."""
    made.rate("n2", rate or "100gbit")


def print_epochs(made, folder):
    places = " | ".join(place[0] for place in PLACES)
    print(f"| network | gradient | batch | steps | {places} |")
    print("|---|---|---|---|---|---|---|---|")
    for hidden in NETWORKS:
        name = "-".join(map(str, (784, *hidden, 10)))
        megabytes = 4 * sum(parameters(hidden)) / 1e6
        for batch in BATCHES:
            write_config(folder, hidden, batch)
            seconds = [1e9] * len(PLACES)
            for _ in range(REPEATS):
                for i, (_, hosts, rate, env) in enumerate(PLACES):
                    set_rate(made, rate)
                    seconds[i] = min(seconds[i], epoch_seconds(made, folder, hosts, env))
            sizes = f"{megabytes:.1f} MB | {batch} | {ROWS // batch}"
            print(f"| {name} | {sizes} | " + " | ".join(f"{s:.2f} s" for s in seconds) + " |")


def print_messages(made, folder):
    """One message a step against one for each tensor and each number of the control block."""
    program = os.path.join(folder, "messages")
    subprocess.run(["mpicc", "-O2", "-o", program, os.path.join(HERE, "messages.c")], check=True)
    print("\n| network | link | one message | one a tensor | saved |")
    print("|---|---|---|---|---|")
    for hidden in NETWORKS:
        name = "-".join(map(str, (784, *hidden, 10)))
        for link, hosts, rate, env in PLACES[1:]:
            set_rate(made, rate)
            line = ["mpirun", "--host", hosts, "--mca", "plm_rsh_agent", f"{cluster.STATE}/rsh"]
            line += [program, *map(str, parameters(hidden))]
            text = finish(made.start(line, folder, env=env))
            one, many = map(float, text.split()[-2:])
            saved = 100 - 100 * one / many
            print(f"| {name} | {link} | {one:.0f} us | {many:.0f} us | {saved:.0f}% |")


def main():
    reason = cluster.why_not()
    if reason is not None:
        raise SystemExit(f"measure.py: {reason}")
    with cluster.Cluster() as made, tempfile.TemporaryDirectory() as folder:
        print_epochs(made, folder)
        print_messages(made, folder)


if __name__ == "__main__":
    main()
