"""A VM's history as a picture, and what every picture needs: matplotlib, which may be missing, and a file."""

import warnings
from bisect import bisect_right
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from host_controller.api.answer import known
from host_controller.cli.options import picture_format
from host_controller.cli.plot_events import STYLES, Mark, marks, told
from host_controller.errors import DynmemError, InputError
from host_controller.neutral import neutral
from host_controller.units import GIB

SERIES: Final = (
    ("assigned_bytes", "assigned", "tab:blue", 1.8),
    ("demand_bytes", "demand", "tab:orange", 1.2),
    ("goal_bytes", "goal", "tab:green", 1.0),
    ("charge_bytes", "charge", "tab:grey", 0.8),
)


def draw(history: dict[str, Any], path: Path) -> None:
    """Draw a HistoryView: its curves, what happened on them, and the words of what matters below.

    Raises:
        DynmemError: matplotlib is missing, or the file cannot be written.
        InputError: there is nothing to draw.
    """
    samples = history["samples"] or history.get("spans") or []
    samples = [one for one in samples if known(one["at"], None) is not None]
    if not samples:
        raise InputError("nothing is known of that time", vm=history["name"], hint="a longer --since")
    plt = pyplot()
    found = marks(history["entries"])
    words = told(found)
    figure, axes = plt.subplots(figsize=(10, 4.5 + 0.2 * len(words)), layout="constrained")
    times: Any = [_local(one["at"]) for one in samples]
    for key, label, colour, width in SERIES:
        if not any(key in one for one in samples):
            continue  # the goal is kept in detail only
        values = [known(one[key], float("nan")) / GIB for one in samples]
        axes.step(times, values, where="post", label=label, color=colour, linewidth=width)
    _mark(axes, samples, found, words)
    axes.set_ylabel("GiB")
    axes.set_ylim(bottom=0)
    axes.set_title(neutral(history["name"], 100))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", ncols=5, fontsize="small")
    if words:
        lines = (f"{place} {_local(one.at):%m-%d %H:%M:%S}  {one.text}" for place, one in enumerate(words, 1))
        axes.set_xlabel("\n".join(lines), loc="left", fontsize="small")
    save(figure, path)


def pyplot() -> Any:
    """matplotlib, drawing into files.

    Raises:
        DynmemError: it is missing.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise DynmemError("pictures need matplotlib", hint="install python3-matplotlib") from None
    mpl.use("Agg")
    # A name is no formula, wherever it stands: `$x^$` is one to matplotlib.
    mpl.rcParams["text.parse_math"] = False
    # Names may be in any script: what the font lacks is drawn as a box, and not told letter by letter.
    warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
    from matplotlib import pyplot as plt

    return plt


def save(figure: Any, path: Path) -> None:
    """Write it as what its name says, a PNG where it says nothing, and let go of the figure.

    Raises:
        DynmemError: the file cannot be written.
    """
    try:
        figure.savefig(path, format=picture_format(path), dpi=110)
    except OSError as error:
        raise DynmemError(f"{path}: {error.strerror}") from None
    finally:
        pyplot().close(figure)


def _mark(axes: Any, samples: list[dict[str, Any]], found: list[Mark], words: list[Mark]) -> None:
    """Put each event on the curve of what the VM had; events from before the first sample have no place."""
    at = [one["at"] for one in samples]
    placed = [(one, bisect_right(at, one.at) - 1) for one in found if one.at >= at[0]]
    heights = [known(one["assigned_bytes"], 0) / GIB for one in samples]
    for kind, (marker, colour) in STYLES.items():
        mine = [(_local(one.at), heights[place]) for one, place in placed if one.kind == kind]
        if mine:
            axes.scatter(*zip(*mine, strict=True), marker=marker, color=colour, s=22, zorder=3, label=kind)
    for number, one in enumerate(words, 1):
        place = bisect_right(at, one.at) - 1
        if place >= 0:
            where = (_local(one.at), heights[place])
            axes.annotate(str(number), where, textcoords="offset points", xytext=(3, 6), fontsize="small")


def _local(at: float) -> datetime:
    return datetime.fromtimestamp(at).astimezone()
