"""The demo's plot: assigned, demand and target of each VM over time, and the sum against the capacity."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from host_controller.units import MIB
from host_controller.verify.observer import Sample

mpl.use("Agg")


def plot(
    path: Path, samples: list[Sample], rows: list[tuple[float, dict[str, Any]]], capacity_mib: int
) -> None:
    """Write a PNG. `samples` are the observer's, `rows` the controller's (both CLOCK_MONOTONIC)."""
    names = list(samples[-1].guests)
    start = rows[0][0] if rows else samples[0].at
    top = max(guest.ram for sample in samples for guest in sample.guests.values()) / MIB
    samples = [sample for sample in samples if sample.at >= start]
    figure = Figure(figsize=(11, 2.6 * (len(names) + 1)), layout="constrained")
    axes = figure.subplots(len(names) + 1, 1, sharex=True)
    for axis, name in zip(axes, names, strict=False):
        seen = [(sample.at - start, sample.guests[name]) for sample in samples if name in sample.guests]
        axis.fill_between(
            [at for at, _ in seen],
            [one.ram / MIB for _, one in seen],
            step="post",
            color="#e8e8e8",
            label="RAM",
        )
        axis.plot(
            [at for at, _ in seen], [one.actual / MIB for _, one in seen], color="#1f5fa8", label="assigned"
        )
        for key, colour, label in (
            ("demand_bytes", "#c0392b", "demand"),
            ("target_bytes", "#27814a", "target"),
        ):
            points = [
                (at - start, vm[key] / MIB)
                for at, status in rows
                for vm in status["vms"]
                if vm["name"] == name and vm[key] is not None
            ]
            axis.step(
                [at for at, _ in points],
                [size for _, size in points],
                where="post",
                color=colour,
                linewidth=1,
                linestyle="--" if key == "target_bytes" else "-",
                label=label,
            )
        axis.set_ylabel(f"{name}\nMiB")
        axis.set_ylim(0, top * 1.25)
        axis.legend(loc="upper left", ncols=4, fontsize=8, frameon=False)
    total = axes[-1]
    total.stackplot(
        [sample.at - start for sample in samples],
        [
            [sample.guests[name].charge / MIB if name in sample.guests else 0 for sample in samples]
            for name in names
        ],
        labels=names,
        alpha=0.75,
    )
    total.axhline(capacity_mib, color="black", linewidth=1.2, label=f"capacity {capacity_mib} MiB")
    total.set_ylabel("charge, seen from\noutside, MiB")
    total.set_xlabel("seconds")
    total.set_ylim(0, capacity_mib * 1.3)
    total.legend(loc="upper left", ncols=len(names) + 1, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
