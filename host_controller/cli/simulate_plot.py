"""A simulated host as a picture."""

from pathlib import Path

from host_controller.cli.plot import pyplot, save
from host_controller.neutral import neutral
from host_controller.simulator.trial import Result
from host_controller.units import GIB


def draw(result: Result, path: Path) -> None:
    """Write a picture: who had how much, stacked, and what all together needed.

    Raises:
        DynmemError: matplotlib is missing, or the file cannot be written.
    """
    hours = [at / 3600 for at in result.times]
    figure, axes = pyplot().subplots(figsize=(10, 4.5), layout="constrained")
    # A label that begins with `_` is none to matplotlib.
    names = [f" {name}" if name.startswith("_") else name for name in (neutral(vm.name) for vm in result.vms)]
    axes.stackplot(
        hours, [vm.assigned for vm in result.vms], labels=names if len(names) <= 12 else (), alpha=0.6
    )
    needed = [sum(values) for values in zip(*(vm.demand for vm in result.vms), strict=True)]
    axes.plot(hours, needed, color="black", linewidth=1.0, label="demand of all")
    axes.axhline(result.capacity_bytes / GIB, color="tab:red", linewidth=0.8, label="capacity")
    axes.set(xlabel="hours", ylabel="GiB", ylim=(0, None), title=f"law: {result.law}")
    axes.legend(loc="upper left", ncols=4, fontsize="small")
    save(figure, path)
