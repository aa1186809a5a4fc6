#!/usr/bin/env python3
"""The module's own sources, each with one thing broken on purpose.

    doctored.py                    lists the cases, each with the source that it changes
    doctored.py CASE SOURCE OUT    writes the broken form of that source

CASES says what is replaced, and what the simulated GPU finds when the conformance suite runs on the
module that results. A text that is not in the source exactly once is an error: the table follows
the code. `buckets` is not broken: it only makes several buckets of small networks, as several cases
need them.
"""

import sys


class Case:
    def __init__(self, source, changes, ranks, finding):
        self.source = source
        self.changes = changes
        self.ranks = ranks
        self.finding = finding


SMALL_BUCKETS = ("#define BUCKET_LEAST ((size_t)1 << 20)", "#define BUCKET_LEAST ((size_t)1 << 8)")

CASES = {
    "buckets": Case("exchange.c", [SMALL_BUCKETS], 2, None),
    # a pinned buffer refilled while its copy is in flight
    "feed_refilled": Case(
        "feed.c",
        [("TRY(lks_wait_cuda(cuda, staging->copied[slot], err));", ";")],
        1,
        r"race: .*the host writes .* pinned block",
    ),
    # rows used before they are there
    "feed_early": Case(
        "feed.c",
        [("TRY_CUDA(cudaStreamWaitEvent(cuda->main, staging->copied[slot], 0));", ";")],
        1,
        r"race: .*(lks_gather.*copy to the device|copy to the device.*lks_gather)",
    ),
    # a device slot overwritten while a step still reads it
    "feed_overwritten": Case(
        "feed.c",
        [("TRY_CUDA(cudaStreamWaitEvent(cuda->copy, free, 0));", ";")],
        1,
        r"race: .*(copy to the device.*lks_gather|lks_gather.*copy to the device)",
    ),
    # the host reads a control block before its step is done
    "step_early": Case(
        "step.c",
        [("TRY(lks_wait_cuda(cuda, cuda->done[slot], err));", ";")],
        1,
        r"race: .*(the host reads|writes) .* pinned block .*which '(kernel lks_|the host)",
    ),
    # the order of a step overwritten while its copy is in flight: one slot for all
    "step_order": Case(
        "step.c",
        [("&cuda->mailbox.orders[n % LKS_RING_SLOTS];", "&cuda->mailbox.orders[0];")],
        1,
        r"race: .*the host writes .* pinned block",
    ),
    # gradients and state that nothing wrote
    "memory_uncleared": Case(
        "memory.c",
        [("TRY_CUDA(cudaMemsetAsync(cuda->base, 0, layout->cleared, cuda->main));", ";")],
        1,
        r"uninitialised: ",
    ),
    # the communicator goes before the graphs that hold its sums
    "backend_order": Case(
        "backend.c",
        [
            (
                "  lks_graphs_free(&cuda->graphs);\n  lks_nccl_close(cuda, cuda->broken);\n",
                "  lks_nccl_close(cuda, cuda->broken);\n  lks_graphs_free(&cuda->graphs);\n",
            )
        ],
        2,
        r"handle: .*ncclCommDestroy while a graph holds collectives",
    ),
    # a step of one rank sums one value less
    "exchange_count": Case(
        "exchange.c",
        [("b->count + tail,", "b->count + tail - (cuda->rank == 1),")],
        2,
        r"collective: .* sums \d+ elements, but \d+ on rank",
    ),
    # ranks sum their buckets in another order
    "exchange_order": Case(
        "exchange.c",
        [
            SMALL_BUCKETS,
            (
                "const lks_bucket *b = &exchange->buckets[bucket];",
                "const lks_bucket *b = &exchange->buckets"
                "[cuda->rank == 1 ? exchange->bucket_count - 1 - bucket : bucket];",
            ),
        ],
        2,
        r"collective: .* sums \d+ elements, but \d+ on rank",
    ),
    # gradients summed before backward has made them
    "exchange_early": Case(
        "exchange.c",
        [SMALL_BUCKETS, ("TRY_CUDA(cudaStreamWaitEvent(exchange->stream, b->ready, 0));", ";")],
        2,
        r"race: .*nccl",
    ),
    # the update before the sum
    "exchange_late": Case(
        "exchange.c",
        [SMALL_BUCKETS, ("TRY_CUDA(cudaStreamWaitEvent(cuda->main, exchange->done, 0));", ";")],
        2,
        r"race: .*nccl",
    ),
}


def doctor(case, text):
    for old, new in CASES[case].changes:
        if text.count(old) != 1:
            raise SystemExit(f"{case}: {text.count(old)} of this in {CASES[case].source}: {old}")
        text = text.replace(old, new)
    return text


def main():
    if len(sys.argv) == 1:
        for name, case in CASES.items():
            print(name, case.source)
        return
    case, source, out = sys.argv[1:]
    with open(source, encoding="utf-8") as f:
        text = doctor(case, f.read())
    with open(out, "w", encoding="utf-8") as f:
        f.write(text)


if __name__ == "__main__":
    main()
