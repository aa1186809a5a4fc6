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

ROWS, EPOCHS = 16384, 4
# Two ranks: where, and how fast the link between them is.
PLACES = (
    ("one node", "n1:2", None),
    ("two nodes", "n1:1,n2:1", None),
    ("1 Gbit/s", "n1:1,n2:1", "1gbit"),
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


def epoch_seconds(made, folder, hosts):
    """Of the fastest epoch: the machine's other work only adds."""
    finish(made.mpirun(["train", "config.yaml", "--overwrite"], folder, hosts=hosts))
    events = harness.read_log(os.path.join(folder, "run"))
    return min(event["seconds"] for event in events if event["event"] == "epoch")


def print_epochs(made, folder):
    places = " | ".join(name for name, _, _ in PLACES)
    print(f"| network | gradient | batch | steps | {places} | of it exchange |")
    print("|---|---|---|---|---|---|---|---|")
    for hidden in NETWORKS:
        name = "-".join(map(str, (784, *hidden, 10)))
        megabytes = 4 * sum(parameters(hidden)) / 1e6
        for batch in BATCHES:
            write_config(folder, hidden, batch)
            seconds = []
            for _, hosts, rate in PLACES:
                if rate is not None:
                    made.rate("n2", rate)
                seconds.append(epoch_seconds(made, folder, hosts))
            made.rate("n2")
            cells = " | ".join(f"{value:.2f} s" for value in seconds)
            share = 100 * (1 - seconds[0] / seconds[2])
            sizes = f"{megabytes:.1f} MB | {batch} | {ROWS // batch}"
            print(f"| {name} | {sizes} | {cells} | {share:.0f}% |")


def print_messages(made, folder):
    """One message a step against one for each tensor and each number of the control block."""
    program = os.path.join(folder, "messages")
    subprocess.run(["mpicc", "-O2", "-o", program, os.path.join(HERE, "messages.c")], check=True)
    print("\n| network | link | one message | one a tensor | saved |")
    print("|---|---|---|---|---|")
    for hidden in NETWORKS:
        name = "-".join(map(str, (784, *hidden, 10)))
        for link, hosts, rate in PLACES[1:]:
            if rate is not None:
                made.rate("n2", rate)
            line = ["mpirun", "--host", hosts, "--mca", "plm_rsh_agent", f"{cluster.STATE}/rsh"]
            text = finish(made.start([*line, program, *map(str, parameters(hidden))], folder))
            one, many = map(float, text.split()[-2:])
            saved = 100 * (1 - one / many)
            print(f"| {name} | {link} | {one:.0f} us | {many:.0f} us | {saved:.0f}% |")
        made.rate("n2")


def main():
    reason = cluster.why_not()
    if reason is not None:
        raise SystemExit(f"measure.py: {reason}")
    with cluster.Cluster() as made, tempfile.TemporaryDirectory() as folder:
        print_epochs(made, folder)
        print_messages(made, folder)


if __name__ == "__main__":
    main()
