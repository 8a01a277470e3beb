"""A VM's history as a picture. matplotlib is an extra (`pip install 'dynmem[plot]'`)."""

from datetime import datetime
from pathlib import Path
from typing import Any, Final

from host_controller.api.answer import known
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
    """Write a PNG of a HistoryView.

    Raises:
        DynmemError: matplotlib is missing, or the file cannot be written.
        InputError: there is nothing to draw.
    """
    samples = history["samples"] or history.get("spans") or []
    if not samples:
        raise InputError("nothing is known of that time", vm=history["name"], hint="a longer --since")
    try:
        import matplotlib as mpl
    except ImportError:
        raise DynmemError("pictures need matplotlib", hint="pip install 'dynmem[plot]'") from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    samples = [one for one in samples if known(one["at"], None) is not None]
    times: Any = [datetime.fromtimestamp(one["at"]).astimezone() for one in samples]
    figure, axes = plt.subplots(figsize=(10, 4.5), layout="constrained")
    for key, label, colour, width in SERIES:
        if key not in samples[0]:
            continue  # the goal is kept in detail only
        values = [known(one[key], float("nan")) / GIB for one in samples]
        axes.step(times, values, where="post", label=label, color=colour, linewidth=width)
    axes.set_ylabel("GiB")
    axes.set_ylim(bottom=0)
    # A name is no formula: `$x^$` is one to matplotlib.
    axes.set_title(neutral(history["name"], 100), parse_math=False)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", ncols=len(SERIES))
    figure.autofmt_xdate()
    try:
        figure.savefig(path, format="png", dpi=110)
    except OSError as error:
        raise DynmemError(f"{path}: {error.strerror}") from None
    finally:
        plt.close(figure)
