"""Draws what the benchmarks of the loop left: `python -m bench.real.plots`."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.real.harness import RESULTS
from bench.real.shapes import BOUND, OURS, PEER, bars, goal_line, panels, plt, stacked


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
    """Whole allocations beside the floor's, the waits for a first command, and what guests took meanwhile."""
    series = told["series"]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 3.6), layout="constrained")
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
    _by_law(middle, series, "phases ")
    middle.set(xscale="log", xlabel="s until the first command, 20 random phases", title="The first command")
    _by_law(right, series, "MiB taken until the first command, ")
    right.set(
        yticklabels=[], xlabel="MiB that its guest had taken by then, of 192", title="The same by a count"
    )
    for axis in (left, middle, right):
        axis.grid(alpha=0.3)
        axis.invert_yaxis()
    return figure


def _by_law(axis: Any, series: dict[str, Any], what: str) -> None:
    """A row of points for each law, and their median."""
    rows = {name.removeprefix(what): one for name, one in series.items() if name.startswith(what)}
    for row, (name, values) in enumerate(rows.items()):
        axis.plot(
            values, [row] * len(values), "o", color=OURS if name.startswith("dynmem") else PEER, alpha=0.5
        )
        axis.plot(statistics.median(values), row, "|", color="black", markersize=18)
    axis.set(yticks=range(len(rows)), yticklabels=[name.replace(", ", ",\n") for name in rows])


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
            axis.text(0, row, f" {one:.2f}", va="center", fontsize="small", color="white")
        goal_line(axis, told["goals"][0]["bound"])
        axis.set(xlabel="USS, MiB", title=title, xlim=(0, 7))
        axis.invert_yaxis()
    for bar in right.patches:
        bar.set_color(OURS)
    return figure


def impact(told: dict[str, Any]) -> Any:
    """The job's time in every guest."""
    return bars(told["series"], "s", told["title"])


def counted(told: dict[str, Any]) -> Any:
    """What the job's guest executes, or waits, in each."""
    return bars(told["series"], "10^9 instructions", told["title"])


def memory(told: dict[str, Any]) -> Any:
    """What each way to move a GiB takes, by counts (on a scale of powers of ten) and by time."""
    rows = [row for row in told["rows"] if isinstance(row[1], dict)]
    return panels(told["columns"][1:], {what: cells for what, *cells in rows})


def giver(told: dict[str, Any]) -> Any:
    """What it costs a guest to give; what is 0 for all has no panel, and is named."""
    spreads = {what: cells for what, cells in _columns(told).items() if isinstance(cells[1], dict)}
    seen = {what: cells for what, cells in spreads.items() if any(cell and cell["most"] for cell in cells)}
    unseen = "; ".join(what for what in spreads if what not in seen)
    return panels(_ways(told), seen, f"{told['title']} (0 for all: {unseen})")


def growth(told: dict[str, Any]) -> Any:
    """How long each way to grow took, and what was swapped on it."""
    columns = _columns(told)
    ways = [
        f"dynmem, {way.replace('hotadd', 'hot add')}\n{there} at maximum, {killed} killed"
        for way, there, killed, *_ in told["rows"]
    ]
    shown = {"s until all is allocated": columns["s"], "pages swapped": columns["pages swapped"]}
    return panels(ways, shown, told["title"])


def agents(told: dict[str, Any]) -> Any:
    """What each agent executes in the job; the goal is a share of what the first one does."""
    columns = _columns(told)
    ways = [way.replace("this agent", "dynmem, this agent") for way in _ways(told)]
    shown = {what: columns[what] for what in ("agent's, 10^9 instructions", "job, 10^9")}
    figure = panels(ways, shown, told["title"])
    goal_line(figure.axes[0], told["goals"][0]["bound"] * columns["agent's, 10^9 instructions"][0]["median"])
    return figure


def price(told: dict[str, Any]) -> Any:
    """Whose processor time it was, in each way; what a guest's agent takes lies within its QEMU's."""
    told = told | {"rows": [row for row in told["rows"] if isinstance(row[1], dict)]}
    columns = _columns(told)
    qemu, agent, controller, libvirtd = (
        [cell["median"] for cell in columns[what]]
        for what in ("QEMU, s", "agent, s", "controller, s", "libvirtd, s")
    )
    parts = {
        "QEMU without its guest's agent": [all_ - its for all_, its in zip(qemu, agent, strict=True)],
        "the guest's agent, inside QEMU": agent,
        "controller": controller,
        "libvirtd": libvirtd,
    }
    return stacked(_ways(told), parts, told["title"], [f"{one:.2f} ×" for one in columns["all ÷ unmanaged"]])


def sampled(told: dict[str, Any]) -> Any:
    """What the host's processors did, unmanaged and under dynmem, by each way to grow."""
    parts: dict[str, dict[str, float]] = {}
    for name, unmanaged, ours, *_ in told["rows"]:
        way, _, what = name.partition(": ")
        if way.startswith("by "):
            parts.setdefault(what, {}).update({f"unmanaged, {way}": unmanaged, f"dynmem, {way}": ours})
    ways = list(dict.fromkeys(way for seconds in parts.values() for way in seconds))
    laid_out = {what: [seconds.get(way, 0.0) for way in ways] for what, seconds in parts.items()}
    return stacked(ways, laid_out, told["title"])


def four_jobs(told: dict[str, Any]) -> Any:
    """Each of four jobs at once, round by round, by the median of those with fixed shares."""
    found = {name: one for name, one in told["series"].items() if name.startswith("job seconds")}
    size = (4 + 3.5 * len(found), 2.8)
    figure, axes = plt.subplots(1, len(found), figsize=size, layout="constrained", squeeze=False)
    goal = next((one["bound"] for one in told["goals"] if "÷ fixed shares" in one["text"]), None)
    for axis, (name, rounds) in zip(axes[0], found.items(), strict=True):
        fixed = statistics.median([seconds for jobs in rounds["bare"] for seconds in jobs])
        names: list[str] = []
        for who, label, colour in (("ours", "dynmem", OURS), ("bare", "fixed shares", BOUND)):
            for turn, jobs in enumerate(rounds[who], 1):
                ratios = [seconds / fixed for seconds in jobs]
                axis.plot(ratios, [len(names)] * len(jobs), "o", color=colour, alpha=0.6)
                names.append(f"{label}, round {turn}\nslowest ÷ quickest {max(jobs) / min(jobs):.2f}")
        if goal:
            goal_line(axis, goal)
        axis.set_yticks(range(len(names)), names, fontsize="small")
        axis.set(xlabel="a job ÷ the median with fixed shares")
        axis.set(title=name.replace("job seconds", "four jobs"))
        axis.grid(alpha=0.3)
        axis.margins(y=0.2)
        axis.invert_yaxis()
    figure.suptitle(told["title"], fontsize="medium")
    return figure


def survival(told: dict[str, Any]) -> Any:
    """What each law survives."""
    rates = {name: [one["survived"]] for name, one in told["series"].items()}
    return bars(rates, "MiB/s survived", told["title"], [row[1] for row in told["rows"]])


def _ways(told: dict[str, Any]) -> list[str]:
    """A table's first column."""
    return [row[0] for row in told["rows"]]


def _columns(told: dict[str, Any]) -> dict[str, list[Any]]:
    """A table's columns but the first, by name."""
    return {what: [row[at] for row in told["rows"]] for at, what in enumerate(told["columns"]) if at}


FIGURES: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    "scale": scale,
    "reaction": reaction,
    "small": small,
    "impact": impact,
    "counted": counted,
    "counted_four": four_jobs,
    "evenness": four_jobs,
    "memory": memory,
    "giver": giver,
    "growth": growth,
    "agents": agents,
    "price": price,
    "sampled": sampled,
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
