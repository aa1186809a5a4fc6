"""From samples to figures: medians, spread, ratios; as a page's tables and as a plot."""

import math
import os
import statistics
import sys
from html import escape

from workloads import ALL

BEGIN = "<!-- bench/run: begin -->"
END = "<!-- bench/run: end -->"
PLOT = "performance.svg"


# ---- figures


def spread(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def ratio(ours, theirs, key):
    """Theirs to ours: the median of the ratios within each repeat, when both ran side by side."""
    pairs = [(a[key], b[key]) for a, b in zip(ours, theirs) if a is not None and b is not None]
    return statistics.median(b / a for a, b in pairs) if pairs else None


def best_settings(entries, samples):
    """For each name its setting of the least median step, as (entry, samples)."""
    best = {}
    for i, entry in enumerate(entries):
        done = [sample["step_us"] for sample in samples[i] if sample is not None]
        if not done:
            continue
        median = statistics.median(done)
        if entry.name not in best or median < best[entry.name][0]:
            best[entry.name] = (median, entry, samples[i])
    return [(entry, found) for _, entry, found in best.values()]


def lines_of(entries, samples, keys):
    chosen = best_settings(entries, samples)
    bases = [(entry, found) for entry, found in chosen if entry.environment == ""]
    ours = {entry.ranks: found for entry, found in bases if entry.threads == 1}
    lines = []
    for entry, found in chosen:
        line = {"name": entry.name, "setting": entry.setting, "ranks": entry.ranks}
        line["ours"] = entry.environment == ""
        for key in keys:
            line[key] = spread([sample[key] for sample in found if sample is not None])
            line[key]["to"] = {str(n): ratio(base, found, key) for n, base in ours.items()}
        lines.append(line)
    return lines


def gather(names, entries, samples, repeats, machine, split):
    """All that the tables, the plot and bench.json show."""
    every = [s for name in names for found in samples[name].values() for s in found]
    return {
        "machine": machine,
        "versions": sorted({s["version"] for s in every if s is not None and "version" in s}),
        "repeats": repeats,
        "failures": sum(s is None for s in every),
        "step": {name: lines_of(entries, samples[name], ["step_us"]) for name in names},
        "whole_job": {
            name: lines_of(entries, samples[name], ["seconds", "memory_mib"])
            for name in names
            if name == "seed"  # of the others, most is training
        },
        "split": split,
        "samples": {
            name: [
                {"name": entry.name, "setting": entry.setting, "runs": samples[name][i]}
                for i, entry in enumerate(entries)
            ]
            for name in names
        },
    }


# ---- tables


def digits(value):
    """Three digits, or all before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if value < 10 else 1}f}"


def seconds(value):
    for unit, scale in (("us", 1e6), ("ms", 1e3)):
        if value * scale < 1000:
            return f"{digits(value * scale)} {unit}"
    return f"{digits(value)} s"


def shape(name):
    work = ALL[name]
    return f"{'-'.join(map(str, work.widths))}, batch {work.batch:,}"


def table(heads, rows):
    lines = [heads, ["---" if i == 0 else "---:" for i in range(len(heads))], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def times(value):
    return "-" if value is None else f"{digits(value)} x"


def named(line):
    return line["name"] + (f" ({line['setting']})" if line["setting"] else "")


def measured(line, key):
    found = line[key]
    return [digits(found["median"]), f"{digits(found['least'])} to {digits(found['most'])}"]


def step_table(name, lines):
    heads = [f"{name}: {shape(name)}", "us a step", "least to most", "to 1 rank", "to 2 ranks"]
    rows = []
    for line in lines:
        to = line["step_us"]["to"]
        rows.append([named(line), *measured(line, "step_us"), times(to.get("1")),
                     times(to.get("2"))])  # fmt: skip
    return [*table(heads, rows), ""]


def whole_table(name, lines):
    heads = [f"{name}, start to exit", "s", "least to most", "to 1 rank", "MiB", "to 1 rank"]
    rows = []
    for line in lines:
        memory = line["memory_mib"]
        rows.append([named(line), *measured(line, "seconds"), times(line["seconds"]["to"].get("1")),
                     digits(memory["median"]), times(memory["to"].get("1"))])  # fmt: skip
    return [*table(heads, rows), ""]


LIMITS = ("peak", "memory", "exchange")


def split_tables(split):
    lines = []
    for limits in split["limits"]:
        ranks = limits["ranks"]
        product, memory = limits["product_flops_per_s"] * 1e-9, limits["memory_bytes_per_s"] * 1e-9
        lines += [
            f"A rank's limits with {ranks} rank{'s' * (ranks > 1)} busy: {product:.0f} Gflop/s in "
            f"a product of 1024x1024, {memory:.1f} GB/s of memory."
        ]
    lines += [
        f"An exchange among the {ranks} takes {seconds(limits['exchange_1000_s'])} for 1,000 "
        f"parameters and {seconds(limits['exchange_10000000_s'])} for 10 million.",
        "",
    ]
    parts = ("input", "compute", "exchange", "update")
    rows = []
    for step in split["steps"]:
        label = f"{step['workload']}, {step['ranks']} rank{'s' * (step['ranks'] > 1)}"
        shares = [seconds(step[f"{part}_s"]) for part in ("step", *parts)]
        ratios = [step[f"of_{limit}"] for limit in LIMITS]
        rows.append([label, *shares, *(f"{100 * r:.0f} %" if r > 0 else "-" for r in ratios)])
    heads = ["where a step goes", "step", *parts, *(f"of {limit}" for limit in LIMITS)]
    return [*lines, *table(heads, rows), ""]


def markdown(results):
    machine = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines = [f"Machine: {machine}.", ""]
    if results["versions"]:
        lines += [f"Peers: {', '.join(results['versions'])}.", ""]
    lines += [f"Medians of {results['repeats']} runs.", ""]
    if results["failures"]:
        lines += [f"Runs that failed and are left out: {results['failures']}.", ""]
    for name, found in results["step"].items():
        lines += step_table(name, found)
    for name, found in results["whole_job"].items():
        lines += whole_table(name, found)
    if results["split"] is not None:
        lines += split_tables(results["split"])
    return "\n".join(lines).rstrip() + "\n"


# ---- the plot: a panel for each workload, time to the right on a logarithmic scale

WIDTH, LEFT, RIGHT, BAR, GAP, HEAD = 760, 200, 90, 14, 6, 34
OURS, PEER, INK = "#1b6ca8", "#b9bec4", "#222222"


def words(x, y, text, anchor="start", weight="normal"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="{INK}">{escape(text)}</text>'
    )


def bar(line, scale, y):
    """A bar to the median, a thin line from the least to the most, and the figure."""
    found = line["step_us"]
    middle = y + BAR / 2
    least, most = scale(found["least"]), scale(found["most"])
    colour = OURS if line["ours"] else PEER
    return [
        words(LEFT - 8, y + BAR - 3, line["name"], "end"),
        f'<rect x="{LEFT}" y="{y}" width="{scale(found["median"]) - LEFT:.1f}" height="{BAR}" '
        f'fill="{colour}"/>',
        f'<line x1="{least:.1f}" y1="{middle}" x2="{most:.1f}" y2="{middle}" stroke="{INK}"/>',
        words(most + 6, y + BAR - 3, digits(found["median"])),
    ]


def panel(name, lines, top):
    low = min(line["step_us"]["least"] for line in lines) / 2
    high = max(line["step_us"]["most"] for line in lines)

    def scale(value):
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(value / low) / math.log(high / low)

    shapes = [words(8, top + 20, f"{name} ({shape(name)}): us a step", weight="bold")]
    for i, line in enumerate(lines):
        shapes += bar(line, scale, top + HEAD + i * (BAR + GAP))
    return shapes


def plot(results):
    """SVG, in the order of the tables."""
    shapes, top = [], 0
    for name, lines in results["step"].items():
        if lines:
            shapes += panel(name, lines, top)
            top += HEAD + len(lines) * (BAR + GAP) + 12
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" '
        f'viewBox="0 0 {WIDTH} {top}" font-family="sans-serif" font-size="12">'
    )
    ground = f'<rect width="{WIDTH}" height="{top}" fill="white"/>'
    return "\n".join([head, ground, *shapes, "</svg>"]) + "\n"


# ---- the page


def check_page(path):
    """Stops before measuring for a page that has no place for the results."""
    try:
        with open(path, encoding="utf-8") as file:
            page = file.read()
    except OSError as error:
        sys.exit(f"bench/run: --write: {error}")
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        sys.exit(f"bench/run: --write: {path} needs one line {BEGIN} and after it one {END}")


def write_page(path, tables, picture):
    """Replaces what is between the markers; the plot goes beside the page, which shows it."""
    with open(path, encoding="utf-8") as file:
        page = file.read()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    shown = f"![Microseconds a step, of Lockstep and its peers]({PLOT})"
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n{tables.rstrip()}\n\n{shown}\n{END}{after}")
    with open(os.path.join(os.path.dirname(path), PLOT), "w", encoding="utf-8") as file:
        file.write(picture)
