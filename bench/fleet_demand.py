"""What the VMs of a whole fleet need over a day: curves that VMs share, each beginning elsewhere in them.

walk    a random walk of 12 % a minute that comes back within 20: more restless than most VMs are
trace   a month of Bitbrains from where it lies, or one of its statistics, in slots of five minutes
bursts  servers with peaks of seconds, and builds that grow by 3 to 5 GiB within 10 s (`bench.workloads`)
even    100 minutes of such a walk whose VMs have just been placed by what they need; ten or so to a host
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import traces
from bench.workloads import MAXIMUM_BYTES, MINIMUM_BYTES, build, server
from host_controller.units import GIB, MIB

Array = Any
DAY_SECONDS: Final = 86_400
BESIDE_MIB: Final = 64.0
"""What a VM costs its host beside what its guest can use."""
SLOT_SECONDS: Final = 300
WALK_SECONDS: Final = 60
BURST_SECONDS: Final = 10
CURVES: Final = 1024
"""Of the walk."""
EVEN_SECONDS: Final = 6000
EVEN_CURVES: Final = 4096
BURST_CURVES: Final = 160
SERVERS_TO_A_BUILD: Final = 4


@dataclass(frozen=True)
class Demand:
    """curves: steps × curves, MiB that VMs cannot do without; they go round."""

    name: str
    source: str
    step_seconds: int
    """For so long a value holds."""
    curves: Array
    largest: Array
    """Of each curve: the size of a VM that is never resized, MiB."""
    apart: int
    """VMs begin a multiple of so many steps apart: a day, where the time of day matters."""


@dataclass(frozen=True)
class Drawn:
    """VMs by number: the curve of each, and where it begins."""

    curve: Array
    begins: Array

    def need(self, demand: Demand, now: float) -> Array:
        """MiB of each VM."""
        at = int(now // demand.step_seconds)
        return demand.curves[(self.begins + at) % len(demand.curves), self.curve]

    def first(self, count: int) -> "Drawn":
        """So many of them."""
        return Drawn(self.curve[:count], self.begins[:count])


def draw(demand: Demand, count: int, rng: np.random.Generator) -> Drawn:
    """VMs at random; no two are the same at the same time while there are others."""
    starts = max(1, len(demand.curves) // demand.apart)
    ways = starts * demand.curves.shape[1]
    chosen = rng.choice(ways, count, replace=count > ways)
    return Drawn(chosen // starts, chosen % starts * demand.apart)


def filling(
    demand: Demand, load: float, capacity_mib: float, seconds: float, rng: np.random.Generator
) -> Drawn:
    """VMs that need that share of the capacity on average over so many seconds."""
    steps = -(-int(seconds) // demand.step_seconds)
    whole = np.cumsum(np.vstack([np.zeros((1, demand.curves.shape[1])), *[demand.curves] * 2]), axis=0)
    drawn = draw(demand, 4 * int(capacity_mib / demand.curves.mean()), rng)
    mean = (whole[drawn.begins + steps, drawn.curve] - whole[drawn.begins, drawn.curve]) / steps
    enough = int(np.searchsorted(np.cumsum(mean), load * capacity_mib))
    return drawn.first(enough)


def walk(seed: int = 0) -> Demand:
    """As the random cells of `bench.fleet` wander."""
    rng = np.random.default_rng(seed)
    base = np.clip(rng.lognormal(np.log(4800.0), 0.8, CURVES), 512, 16384)
    curves = _walking(rng, base, 2 * DAY_SECONDS // WALK_SECONDS)
    return Demand("walk", "random walk", WALK_SECONDS, curves + BESIDE_MIB, np.full(CURVES, 16384.0), 60)


def even(seed: int = 0) -> Demand:
    """All begin with their first step: at first a cell is as even as starts can make it.

    The demand from which the goals of relief were taken, where what a VM needs is all that it costs.
    """
    rng = np.random.default_rng(seed)
    base = rng.lognormal(8.55, 0.6, EVEN_CURVES)
    steps = EVEN_SECONDS // WALK_SECONDS
    curves = np.vstack([np.clip(base, 512, 16384), _walking(rng, base, steps)])
    largest = np.full(EVEN_CURVES, 16384.0)
    return Demand("even walk", "random walk", WALK_SECONDS, curves, largest, steps + 1)


def _walking(rng: np.random.Generator, base: Array, steps: int) -> Array:
    curves = np.empty((steps, len(base)))
    now = np.clip(base, 512, 16384)
    for step in range(steps):
        now = np.clip(now * rng.lognormal(0, 0.12, len(base)) * (base / now) ** 0.05, 512, 16384)
        curves[step] = now
    return curves


def trace(folder: Path | None, month: str | None = None) -> Demand:
    """Whole days of it: VMs begin at the same time of different days.

    Raises:
        ValueError: there is none in that folder, or it is not clear which.
    """
    found = traces.load(folder, month)
    day = DAY_SECONDS // SLOT_SECONDS
    curves = np.maximum(found.demand[: len(found.demand) // day * day], traces.FLOOR_MIB)
    return Demand(found.name, found.source, SLOT_SECONDS, curves + BESIDE_MIB, found.provisioned, day)


def bursts() -> Demand:
    """The most that each needs in each 10 seconds."""
    seconds = np.arange(DAY_SECONDS, dtype=float)
    curves = np.empty((DAY_SECONDS // BURST_SECONDS, BURST_CURVES))
    for number in range(BURST_CURVES):
        make = server if number % (SERVERS_TO_A_BUILD + 1) else build
        at, size = zip(*make(float(DAY_SECONDS), 1000 + number), strict=True)
        found = np.interp(seconds, at, size) / MIB
        curves[:, number] = found.reshape(-1, BURST_SECONDS).max(axis=1)
    least, most = MINIMUM_BYTES / MIB, MAXIMUM_BYTES / MIB
    source = f"builds and {SERVERS_TO_A_BUILD} times as many servers, up to {MAXIMUM_BYTES // GIB} GiB"
    largest = np.full(BURST_CURVES, most)
    curves = np.clip(curves, least, most) + BESIDE_MIB
    return Demand("bursts", source, BURST_SECONDS, curves, largest, 60)
