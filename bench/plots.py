"""Draw what the benchmarks left in bench/results: `python -m bench.plots`."""

import json
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

from bench.cells import DEMANDS, quick_grid, whole_grid
from bench.density import by_law
from bench.fleet_cells import Tally
from bench.fleet_day import MOVES_GOAL, SHORT_GOAL
from bench.fleet_report import days
from bench.grid_report import best_peer, missing
from bench.tables import NAMES
from host_controller.simulator.trial import OURS as OUR_LAW

RESULTS: Final = Path(__file__).parent / "results"
OURS: Final = "tab:blue"
BOUND: Final = "0.75"
PEER: Final = "tab:orange"


def density(path: Path) -> None:
    """VMs per host in each way of counting, by law: the mean, and the spread over the orders."""
    told = json.loads(path.read_text())
    counts = {
        "slots": "at most 0.1 % of VM-slots short",
        "mib": "at most 0.1 % of MiB missing",
        "touched": "VM-slots, by what is touched",
    }
    measured = [count for count in counts if count in told["vms"]]
    figure, axes = plt.subplots(
        len(measured), 2, figsize=(11, 4.2 * len(measured)), layout="constrained", sharey="row", squeeze=False
    )
    for row, count in zip(axes, measured, strict=True):
        vms = by_law(told["vms"], count)
        laws = sorted(vms, key=lambda law: float(np.mean(vms[law]["64"])))
        names = [NAMES[law].strip("*") for law in laws]
        for axis, host in zip(row, ("64", "128"), strict=True):
            found = [vms[law][host] for law in laws]
            means = [float(np.mean(one)) for one in found]
            spreads = [np.std(one) for one in found]
            axis.barh(names, means, xerr=spreads, color=[_colour(law) for law in laws])
            for place, mean in enumerate(means):
                axis.text(1, place, f"{mean:.1f}", va="center", fontsize="small")
            axis.set(title=f"{host} GiB: {counts[count]}", xlabel="VMs")
            axis.title.set_fontsize("medium")
    figure.suptitle(f"{told['trace']}: mean of 40 orders, and their standard deviation", fontsize="medium")
    _save(figure, f"{path.stem}.png")


def fast() -> None:
    """Unmet demand against footprint, and what our law assigned over time."""
    told = json.loads((RESULTS / "fast.json").read_text())["hosts"]["1.1"]["runs"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for name, one in told.items():
        published = name.endswith("published")
        missing = max(1.0, one["unmet_mib_s"] + one["overcommitted_mib_s"])
        left.scatter(
            one["footprint"], missing, color=_colour(name.split(",")[0]),
            marker="x" if published else "o", zorder=3,
        )  # fmt: skip
        label = name.split(",")[0] + (" (as published)" if published else "")
        left.annotate(label, (one["footprint"], missing), fontsize=6, xytext=(3, 3),
                      textcoords="offset points")  # fmt: skip
    left.set(yscale="log", xlabel="footprint: assigned ÷ demanded", ylabel="missing MiB·s (0 is drawn as 1)")
    left.grid(alpha=0.3)
    for name, label, colour in (
        ("dynmem", "assigned by dynmem", OURS),
        ("mom, published", "assigned by MOM", PEER),
    ):
        series = told[name]["series"]
        right.plot([p[0] for p in series], [p[1] for p in series], label=label, color=colour, linewidth=1)
    series = told["dynmem"]["series"]
    right.plot([p[0] for p in series], [p[2] for p in series], label="demand", color="black", linewidth=0.8)
    right.set(xlabel="s", ylabel="GiB, all VMs")
    right.legend(fontsize="small")
    _save(figure, "fast.png")


def grid(path: Path) -> None:
    """Ours ÷ the best peer in what is missing, cell by cell: red where a peer is ahead."""
    kept = json.loads(path.read_text())["cells"]
    whole = path.stem == "grid"
    values: dict[tuple[str, str], float] = {}
    kinds: dict[tuple[str, str], str] = {}
    for cell in whole_grid() if whole else quick_grid():
        laws = kept.get(cell.key, {})
        if OUR_LAW in laws and len(laws) > 1:
            ratio = (missing(laws[OUR_LAW]) + 100) / (best_peer(laws)[1] + 100)
            kind, host = f"{cell.vms} VMs, {cell.growth}, {cell.weights}", f"{cell.host} ×"
            column = f"{kind}, {host}" if whole else host
            values[cell.demand, column] = float(np.log10(ratio))
            kinds[cell.demand, column] = f"{ratio:.2f}   {kind}"
    columns = list(dict.fromkeys(column for _, column in values))
    drawn = np.array([[values.get((demand, column), np.nan) for column in columns] for demand in DEMANDS])
    size = (3.5 + (0.22 if whole else 2.2) * len(columns), 6.5)
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    picture = axis.imshow(drawn, cmap="RdBu_r", vmin=-1.5, vmax=1.5, aspect="auto")
    axis.set_xticks(range(len(columns)), columns, rotation=90 if whole else 0, fontsize=6 if whole else 8)
    axis.set_yticks(range(len(DEMANDS)), DEMANDS, fontsize=7)
    for (demand, column), text in kinds.items() if not whole else ():
        dark = abs(values[demand, column]) > 1.0
        place = columns.index(column), DEMANDS.index(demand)
        axis.text(*place, text, ha="center", va="center", fontsize=6, color="white" if dark else "black")
    bar = figure.colorbar(picture, ticks=[-1, 0, 1])
    bar.ax.set_yticklabels(["a tenth", "the same", "ten times"])
    axis.set_title("MiB·s missing under dynmem ÷ under the best peer", fontsize="medium")
    _save(figure, f"{path.stem}.png")


def scale() -> None:
    """What a step costs."""
    told: dict[str, Any] = json.loads((RESULTS / "scale.json").read_text())
    counts = [int(count) for count in told]
    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for key, label in (
        ("all", "everything changed"),
        ("few", "1 % changed"),
        ("fill", "bare three-tier fill"),
    ):
        axis.plot(counts, [told[str(count)][key] for count in counts], marker="o", label=label)
    base = np.array(counts) * np.log2(counts)
    axis.plot(counts, base * told[str(counts[0])]["all"] / base[0], "k:", label="N log N")
    axis.set(xscale="log", yscale="log", xlabel="VMs", ylabel="ms")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    _save(figure, "scale.png")


def fleet_day() -> None:
    """What is short against what moves, for each demand; a line joins a law's loads."""
    found = days()
    figure, axes = plt.subplots(
        1, len(found), figsize=(4.2 * len(found), 4), layout="constrained", squeeze=False, sharey=True
    )
    colours = {"dynmem": OURS, "threshold": PEER, "clairvoyant": "0.45", "frugal": "0.7"}
    for axis, (demand, by_load) in zip(axes[0], found.items(), strict=True):
        axis.axhspan(0, SHORT_GOAL, 0, 1, color="tab:green", alpha=0.08)
        axis.axvline(MOVES_GOAL, color="tab:green", linewidth=0.8)
        for law, colour in colours.items():
            told = [(load, one) for load, one in by_load.items() if law in one]
            sums = [(Tally(**one[law]["sums"]), Tally(**one["none"]["sums"])) for _, one in told]
            moves = [mine.moves_a_host_and_day for mine, _ in sums]
            short = [mine.short / base.short for mine, base in sums]
            axis.plot(moves, short, marker="o", color=colour, label=law, linewidth=1)
            for (load, _), x, y in zip(told, moves, short, strict=True):
                axis.annotate(
                    f"{float(load):.0%}", (x, y), fontsize=6, xytext=(3, 3), textcoords="offset points"
                )
        axis.set(xscale="symlog", xlim=0, ylim=(0, 1), title=demand, xlabel="moves a host and day")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("host-steps short ÷ without relief")
    axes[0][0].legend(fontsize="small", loc="lower right")
    _save(figure, "fleet_day.png")


def _colour(name: str) -> str:
    if name in ("dynmem", "adopted"):
        return OURS
    return BOUND if name.startswith(("clairvoyant", "starving")) else PEER


def _save(figure: Any, name: str) -> None:
    figure.savefig(RESULTS / name, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    for found in sorted(RESULTS.glob("density-*.json")):
        density(found)
    for found in sorted(RESULTS.glob("grid*.json")):
        grid(found)
    fast()
    scale()
    fleet_day()
