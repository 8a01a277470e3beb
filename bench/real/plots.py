"""Draws what the benchmarks of the loop left: `python -m bench.real.plots`."""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

from bench.real.harness import RESULTS

mpl.use("Agg")
from matplotlib import pyplot as plt

OURS: Final = "tab:blue"
PEER: Final = "tab:orange"
BOUND: Final = "0.6"


def scale(told: dict[str, Any]) -> Any:
    """CPU, memory and delay over the number of guests."""
    loads = list(told["series"].values())
    counts = [load["guests"] for load in loads]
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    for axis, title, values, goal in (
        (axes[0], "CPU of one core, %", [100 * load["cpu"] for load in loads], 20),
        (axes[1], "RSS, MiB", [load["rss_bytes"] / (1 << 20) for load in loads], 150),
        (axes[2], "report → command p99, ms", [1000 * load["p99_seconds"] for load in loads], 150),
    ):
        axis.plot(counts, values, marker="o", color=OURS)
        axis.axhline(goal, color=BOUND, linestyle="--", linewidth=1)
        axis.set(title=title, xscale="log", xlabel="guests, one report a second each", ylim=(0, None))
    return figure


def reaction(told: dict[str, Any]) -> Any:
    """Whole allocations beside the floor's, and the waits for a first command."""
    series = told["series"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
    steps = {name: one for name, one in series.items() if isinstance(one, dict)}
    for row, one in enumerate(steps.values()):
        for values, colour, offset in ((one["ours"], OURS, -0.15), (one["floor"], BOUND, 0.15)):
            left.plot(values, [row + offset] * len(values), "o", color=colour, alpha=0.5)
            left.plot(statistics.median(values), row + offset, "|", color=colour, markersize=16)
    left.plot([], [], "o", color=OURS, label="dynmem")
    left.plot([], [], "o", color=BOUND, label="all sent over QMP as it starts")
    left.set(yticks=range(len(steps)), yticklabels=[f"{name} MiB" for name in steps], xlim=(0, None))
    left.set(xlabel="s until all is allocated", title="The whole allocation")
    left.legend(fontsize="small")
    phases = {name.split()[1]: one for name, one in series.items() if name.startswith("phases")}
    for row, (name, values) in enumerate(phases.items()):
        colour = OURS if name == "dynmem" else PEER
        right.plot(values, [row] * len(values), "o", color=colour, alpha=0.5)
        right.plot(statistics.median(values), row, "|", color="black", markersize=18)
    right.set(yticks=range(len(phases)), yticklabels=list(phases), xscale="log")
    right.set(xlabel="s until the first command, 20 random phases", title="The first command")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.invert_yaxis()
    return figure


def small(told: dict[str, Any]) -> Any:
    """Each process's memory, and the agent's after reports and a hot add."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 2.6), layout="constrained")
    names = [row[0] for row in told["rows"]]
    processes = {name: row[1] for name, row in zip(names, told["rows"], strict=True)}
    over_time = {name: one / (1 << 20) for name, one in told["series"]["uss_bytes"].items()}
    for axis, values, title in (
        (left, processes, "after a calm hour"),
        (right, over_time, "the agent, asked without a pause"),
    ):
        axis.barh(
            list(values), list(values.values()), color=[OURS if "dynmem" in one else BOUND for one in values]
        )
        for row, one in enumerate(values.values()):
            axis.text(one, row, f" {one:.2f}", va="center", fontsize="small")
        axis.axvline(12, color=BOUND, linestyle="--", linewidth=1)
        axis.set(xlabel="USS, MiB", title=title, xlim=(0, 13))
        axis.invert_yaxis()
    for bar in right.patches:
        bar.set_color(OURS)
    return figure


def impact(told: dict[str, Any]) -> Any:
    """The job's time in every guest."""
    return _bars(told["series"], "s", told["title"])


def counted(told: dict[str, Any]) -> Any:
    """What the job's guest executes, or waits, in each."""
    return _bars(told["series"], "10^9 instructions", told["title"])


def memory(told: dict[str, Any]) -> Any:
    """What each way to move a GiB takes, by counts (on a scale of powers of ten) and by time."""
    rows = [row for row in told["rows"] if isinstance(row[1], dict)]
    figure, axes = plt.subplots(2, -(-len(rows) // 2), figsize=(11, 4.4), layout="constrained", sharey=True)
    ways = told["columns"][1:]
    for axis, (what, *cells) in zip(axes.T.flat, rows, strict=False):
        medians = [cell["median"] for cell in cells]
        axis.barh(ways, medians, color=[OURS if way.startswith("dynmem") else BOUND for way in ways])
        for row, cell in enumerate(cells):
            axis.plot([cell["least"], cell["most"]], [row, row], color="black", linewidth=1)
        axis.set(title=what)
        axis.title.set_fontsize("small")
        if min(medians) > 0 and max(medians) > 20 * min(medians):
            axis.set(xscale="log", xlim=(min(medians) / 3, None))
    axes.flat[0].invert_yaxis()
    return figure


def survival(told: dict[str, Any]) -> Any:
    """What each law survives."""
    rates = {name: [one["survived"]] for name, one in told["series"].items()}
    return _bars(rates, "MiB/s survived", told["title"], [row[1] for row in told["rows"]])


def _bars(values: dict[str, list[float]], label: str, title: str, texts: Sequence[str] | None = None) -> Any:
    """`texts` stand at the bars in the place of their medians."""
    figure, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
    names = list(values)
    medians = [statistics.median(one) for one in values.values()]
    colours = [OURS if name.startswith("dynmem") else BOUND if "start" in name else PEER for name in names]
    axis.barh(names, [0 if math.isinf(one) else one for one in medians], color=colours)
    texts = texts or ["killed" if math.isinf(one) else f"{one:.3g}" for one in medians]
    for row, text in enumerate(texts):
        axis.text(0, row, f" {text}", va="center", fontsize="small")
    axis.set(xlabel=label, title=title)
    axis.invert_yaxis()
    return figure


FIGURES: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    "scale": scale,
    "reaction": reaction,
    "small": small,
    "impact": impact,
    "counted": counted,
    "memory": memory,
    "survival": survival,
}


def draw(name: str, directory: Path = RESULTS) -> None:
    """The plot of one benchmark, if it has one."""
    if name not in FIGURES:
        return
    figure = FIGURES[name](json.loads((directory / f"{name}.json").read_text()))
    figure.savefig(directory / f"{name}.png", dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    for each in FIGURES:
        if (RESULTS / f"{each}.json").exists():
            draw(each)
