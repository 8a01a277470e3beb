"""The shapes that the plots of real guests share: bars, panels of them, and parts upon each other."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl

from bench.real.harness import number

mpl.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["BOUND", "OURS", "PEER", "bars", "goal_line", "panels", "plt", "stacked"]

OURS: Final = "tab:blue"
PEER: Final = "tab:orange"
BOUND: Final = "0.6"


def panels(ways: Sequence[str], shown: Mapping[str, Sequence[Any]], title: str = "") -> Any:
    """For each figure that is shown a panel: what each way took, median and ends; "" where it has none."""
    rows = 1 if len(shown) < 4 else 2
    height = 0.4 + rows * (0.8 + 0.33 * len(ways))
    figure, axes = plt.subplots(
        rows, -(-len(shown) // rows), figsize=(11, height), layout="constrained", sharey=True
    )
    for axis, (what, cells) in zip(axes.T.flat, shown.items(), strict=True):
        taken = {row: cell for row, cell in enumerate(cells) if cell}
        medians = [cell["median"] for cell in taken.values()]
        colours = [OURS if ways[row].startswith("dynmem") else BOUND for row in taken]
        axis.barh(list(taken), medians, color=colours)
        for row, cell in taken.items():
            axis.plot([cell["least"], cell["most"]], [row, row], "|-", color="black", linewidth=1)
            axis.text(cell["most"], row, f"  {_figure(cell['median'])}", va="center", fontsize="small")
        axis.set_yticks(range(len(ways)), ways)
        axis.set(title=what)
        axis.title.set_fontsize("small")
        most = max(cell["most"] for cell in taken.values())
        if min(medians) > 0 and max(medians) > 20 * min(medians):
            axis.set(xscale="log", xlim=(min(medians) / 3, 12 * most))
        else:
            axis.set(xlim=(0, 1.25 * most))
    axes.flat[0].invert_yaxis()
    what_is_what = "bar and figure: the median; line: from the least to the most"
    figure.suptitle("\n".join(filter(None, (title, what_is_what))), fontsize="medium")
    return figure


def goal_line(axis: Any, bound: float) -> None:
    """Left of it the goal is reached."""
    axis.axvline(bound, color="black", linestyle="--", linewidth=1)
    axis.text(
        bound, 0.97, "goal ", ha="right", va="top", fontsize="small", transform=axis.get_xaxis_transform()
    )


def stacked(
    ways: Sequence[str], parts: Mapping[str, Sequence[float]], title: str, texts: Sequence[str] = ()
) -> Any:
    """Seconds of a processor in each way, part upon part. `texts` stand at the bars' ends."""
    figure, axis = plt.subplots(figsize=(11, 1.2 + 0.4 * len(ways)), layout="constrained")
    ends = [0.0] * len(ways)
    for (what, seconds), colour in zip(parts.items(), mpl.color_sequences["tab10"], strict=False):
        axis.barh(ways, seconds, left=ends, label=what, color=colour)
        ends = [end + one for end, one in zip(ends, seconds, strict=True)]
    for row, text in enumerate(texts):
        axis.text(ends[row], row, f" {text}", va="center", fontsize="small")
    axis.set(xlabel="s of a processor", title=title, xlim=(0, 1.15 * max(ends)))
    axis.title.set_fontsize("medium")
    axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    axis.invert_yaxis()
    return figure


def bars(values: dict[str, list[float]], label: str, title: str, texts: Sequence[str] | None = None) -> Any:
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


def _figure(value: float) -> str:
    """Counts as they are, anything else with three figures."""
    return f"{value:,.0f}" if value == round(value) else number(value)
