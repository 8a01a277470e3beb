"""The demo's plot: assigned, demand and target of each VM over time, and the sum against the capacity."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from host_controller.units import MIB
from host_controller.verify.observer import Sample

mpl.use("Agg")


Row = tuple[float, dict[str, Any]]
"""A status of the controller's, and when it was asked for."""
LINES = (("demand_bytes", "#c0392b", "demand", "-"), ("target_bytes", "#27814a", "target", "--"))


def plot(path: Path, samples: list[Sample], rows: list[Row], capacity_mib: int) -> None:
    """Write a PNG. `samples` are the observer's, `rows` the controller's (both CLOCK_MONOTONIC)."""
    names = list(samples[-1].guests)
    start = rows[0][0] if rows else samples[0].at
    top = max(guest.ram for sample in samples for guest in sample.guests.values()) / MIB
    samples = [sample for sample in samples if sample.at >= start]
    figure = Figure(figsize=(11, 2.6 * (len(names) + 1)), layout="constrained")
    *axes, total = figure.subplots(len(names) + 1, 1, sharex=True)
    for axis, name in zip(axes, names, strict=True):
        _plot_vm(axis, name, samples, rows, start)
        axis.set_ylim(0, top * 1.25)
    _plot_sum(total, names, samples, start, capacity_mib)
    figure.savefig(path, dpi=110)


def _plot_vm(axis: Any, name: str, samples: list[Sample], rows: list[Row], start: float) -> None:
    seen = [(sample.at - start, sample.guests[name]) for sample in samples if name in sample.guests]
    times, ram = [at for at, _ in seen], [one.ram / MIB for _, one in seen]
    axis.fill_between(times, ram, step="post", color="#e8e8e8", label="RAM")
    axis.plot(times, [one.actual / MIB for _, one in seen], color="#1f5fa8", label="assigned")
    told = [(at - start, vm) for at, status in rows for vm in status["vms"] if vm["name"] == name]
    for key, colour, label, style in LINES:
        points = [(at, vm[key] / MIB) for at, vm in told if vm[key] is not None]
        axis.step(
            [at for at, _ in points],
            [size for _, size in points],
            where="post",
            color=colour,
            linewidth=1,
            linestyle=style,
            label=label,
        )
    axis.set_ylabel(f"{name}\nMiB")
    axis.legend(loc="upper left", ncols=4, fontsize=8, frameon=False)


def _plot_sum(axis: Any, names: list[str], samples: list[Sample], start: float, capacity_mib: int) -> None:
    """What all hold together; a guest that is off holds nothing."""
    charges = [
        [sample.guests[name].charge / MIB if name in sample.guests else 0 for sample in samples]
        for name in names
    ]
    axis.stackplot([sample.at - start for sample in samples], charges, labels=names, alpha=0.75)
    axis.axhline(capacity_mib, color="black", linewidth=1.2, label=f"capacity {capacity_mib} MiB")
    axis.set_ylabel("charge, seen from\noutside, MiB")
    axis.set_xlabel("seconds")
    axis.set_ylim(0, capacity_mib * 1.3)
    axis.legend(loc="upper left", ncols=len(names) + 1, fontsize=8, frameon=False)
