"""The hosts of the grid: what each cell stands for, as the tables that `dynmem simulate` reads.

A VM holds 3 GiB on average, whatever its demand does; a host has a share of the mean of what all need.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from host_controller.simulator.trial import needs
from host_controller.simulator.trial_file import Trial, parse
from host_controller.units import GIB, MIB

WARM_UP_SECONDS: Final = 60
SECONDS: Final = 300
"""Measured after that."""
MEAN: Final = 3 * GIB
HOSTS: Final = (1.25, 1.1, 1.02, 0.9)
"""Memory of the host, by the mean sum of what its VMs need."""
VMS: Final = (4, 12, 40)
WEIGHTS: Final = {"equal": (100,), "1:10:100": (1, 10, 100)}
GROWTHS: Final = ("balloon", "hotadd", "virtio-mem")
STATIONARY: Final = ("noise 1 %", "noise 5 %")
WAVES: Final = {
    "sine 10 s": ("sine", 10), "sine 60 s": ("sine", 60), "sine 300 s": ("sine", 300),
    "saw 60 s": ("saw", 60), "square 30 s": ("square", 30),
}  # fmt: skip
DEMANDS: Final = (
    *STATIONARY,
    *(f"{name} ± {share} %" for name in WAVES for share in (10, 30)),
    "ramps",
    "bursts",
)
Table = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cell:
    """One host of the grid."""

    host: float
    vms: int
    demand: str
    weights: str = "equal"
    growth: str = "balloon"

    @property
    def key(self) -> str:
        """By which it is found in the results."""
        return f"{self.host} × / {self.vms} VMs / {self.demand} / {self.weights} / {self.growth}"

    def tables(self) -> Table:
        """As a file for `dynmem simulate` has it; the capacity comes from what its VMs need on average."""
        weights = WEIGHTS[self.weights]
        vms = [
            {
                "name": f"vm{i}",
                "weight": weights[i % len(weights)],
                "growth": self.growth,
                "startup": "2GiB", "minimum": "1GiB", "maximum": "8GiB", "overhead": 0, "boot": 2,
                "reporting": False,
                "demand": _demand(self.demand, i / self.vms),
            }
            for i in range(self.vms)
        ]  # fmt: skip
        duration = WARM_UP_SECONDS + SECONDS
        host: Table = {"capacity": "1GiB", "duration": duration, "warm_up": WARM_UP_SECONDS}
        whole: Table = {"host": host, "vm": vms}
        host["capacity"] = f"{int(self.host * mean_need(parse(whole, self.key, Path())) / MIB)}MiB"
        return whole

    def trial(self) -> Trial:
        """The trial that is played on it."""
        return parse(self.tables(), self.key, Path())


def mean_need(trial: Trial) -> float:
    """Bytes that all its VMs together need, mean over the measured seconds."""
    total = 0.0
    times = range(int(trial.warm_up_seconds), int(trial.seconds))
    for vm in trial.vms:
        needed, curve = needs(vm), vm.spec.workload.anonymous
        total += sum(needed(curve.at(float(at))) for at in times)
    return total / len(times)


def whole_grid() -> Iterator[Cell]:
    """All of it, small hosts first."""
    for vms in VMS:
        for growth in GROWTHS:
            for weights in WEIGHTS:
                for demand in DEMANDS:
                    for host in HOSTS:
                        yield Cell(host, vms, demand, weights, growth)


def quick_grid() -> Iterator[Cell]:
    """Every kind of demand on every size of host once; the ways to grow, weights and VMs go by turns.

    So each demand and each size of host meets every way to grow and both kinds of weights, and a dozen VMs;
    one has forty, which take as long as ten others. Each quarter of the cells has every demand.
    """
    weights = list(WEIGHTS)
    for turn in range(len(HOSTS)):
        for row, demand in enumerate(DEMANDS):
            column = (row + turn) % len(HOSTS)
            vms = 12 if turn == 0 else 40 if (row, column) == (0, 2) else 4
            growth, weighted = GROWTHS[(row + column) % len(GROWTHS)], weights[(row + column // 2) % 2]
            yield Cell(HOSTS[column], vms, demand, weighted, growth)


def _demand(name: str, phase: float) -> Table:
    """Of one VM, which is at another point of it than the others are."""
    if name in STATIONARY:
        return {"kind": "steady", "level": MEAN, "noise": int(name.split()[1]) / 100}
    if name == "ramps":
        first = WARM_UP_SECONDS + round(phase * 120, 1)
        return {"kind": "burst", "base": "2GiB", "peak": "5GiB", "every": 120, "rise": 40, "hold": 30,
                "first": first}  # fmt: skip
    if name == "bursts":
        first = WARM_UP_SECONDS + round(phase * 60, 1)
        return {"kind": "burst", "base": "2560MiB", "peak": "5GiB", "every": 60, "rise": 2, "hold": 10,
                "first": first}  # fmt: skip
    wave, share = name.split(" ± ")
    kind, period = WAVES[wave]
    swing = int(share.split()[0]) / 100
    low, high = int(MEAN * (1 - swing)), int(MEAN * (1 + swing))
    return {"kind": kind, "low": low, "high": high, "period": period, "phase": round(phase, 4)}
