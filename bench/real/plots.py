"""Draws what the benchmarks of the loop left: `python -m bench.real.plots`."""

import json
from collections.abc import Callable
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


FIGURES: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {"scale": scale}


def draw(name: str, directory: Path = RESULTS) -> None:
    """The plot of one benchmark, if it has one."""
    if name not in FIGURES:
        return
    figure = FIGURES[name](json.loads((directory / f"{name}.json").read_text()))
    figure.savefig(directory / f"{name}.png", dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    for each in FIGURES:
        draw(each)
