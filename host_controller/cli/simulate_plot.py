"""A simulated host as a picture. matplotlib is an extra (`pip install 'dynmem[plot]'`)."""

from pathlib import Path

from host_controller.errors import DynmemError
from host_controller.simulator.trial import Result
from host_controller.units import GIB


def draw(result: Result, path: Path) -> None:
    """Write a PNG: who had how much, stacked, and what all together needed.

    Raises:
        DynmemError: matplotlib is missing, or the file cannot be written.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise DynmemError("pictures need matplotlib", hint="pip install 'dynmem[plot]'") from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    hours = [at / 3600 for at in result.times]
    figure, axes = plt.subplots(figsize=(10, 4.5), layout="constrained")
    names = [vm.name for vm in result.vms]
    axes.stackplot(
        hours, [vm.assigned for vm in result.vms], labels=names if len(names) <= 12 else (), alpha=0.6
    )
    needed = [sum(values) for values in zip(*(vm.demand for vm in result.vms), strict=True)]
    axes.plot(hours, needed, color="black", linewidth=1.0, label="demand of all")
    axes.axhline(result.capacity_bytes / GIB, color="tab:red", linewidth=0.8, label="capacity")
    axes.set(xlabel="hours", ylabel="GiB", ylim=(0, None), title=f"law: {result.law}")
    axes.legend(loc="upper left", ncols=4, fontsize="small")
    try:
        figure.savefig(path, format="png", dpi=110)
    except OSError as error:
        raise DynmemError(f"{path}: {error.strerror}") from None
    finally:
        plt.close(figure)
