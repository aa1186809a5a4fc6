"""PyTorch, eager; with several ranks DistributedDataParallel over gloo, one process each.

    torch_ddp.py WORKLOAD RANKS THREADS
"""

import os
import sys
import tempfile

import numpy
import torch
from common import ALL, Epochs, report, rows_of
from torch import distributed, multiprocessing, nn


ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}


def make_model(work):
    layers = []
    for inputs, units in zip(work.widths, work.widths[1:]):
        layers += [nn.Linear(inputs, units), ACTIVATIONS[work.activation]()]
    return nn.Sequential(*layers[:-1])


def train(rank, ranks, name, threads, meeting):
    work = ALL[name]
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = make_model(work)
    if ranks > 1:
        where = f"file://{meeting}/meeting"
        distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=ranks)
        model = nn.parallel.DistributedDataParallel(model)
    loss = nn.CrossEntropyLoss() if work.classes else nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    features, targets = (torch.from_numpy(part[rank::ranks]) for part in rows_of(name, numpy))
    targets = targets.long() if work.classes else targets
    batch = work.batch // ranks
    epochs = Epochs(work.steps)
    for _ in range(work.epochs):
        epochs.begin()
        order = torch.randperm(len(features))
        for step in range(work.steps):
            chosen = order[step * batch : (step + 1) * batch]
            optimizer.zero_grad()
            loss(model(features[chosen]), targets[chosen]).backward()
            optimizer.step()
        epochs.end()
    if rank == 0:
        report(f"PyTorch {torch.__version__}", epochs)
    if ranks > 1:
        distributed.destroy_process_group()


def main():
    name, ranks, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if ranks == 1:
        train(0, 1, name, threads, None)
        return
    with tempfile.TemporaryDirectory() as meeting:
        multiprocessing.spawn(train, args=(ranks, name, threads, meeting), nprocs=ranks)


if __name__ == "__main__":
    main()
