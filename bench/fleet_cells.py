"""Cells of hosts in virtual time, all at once: where VMs are, what their hosts lack, and what moving takes.

Figures are MiB until the fleet's core is asked, which is given bytes as on real hosts. A host tells exactly
what its VMs need. A VM on its way is its source's for as long as it takes, and its destination has promised
what it needs to take it in.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, field, replace
from typing import Any, Final

import numpy as np

from bench.fleet_demand import BESIDE_MIB, DAY_SECONDS, Demand, Drawn
from host_controller.fleet.core.model import Cell, HostFigures, Node, Resource, VmFigures
from host_controller.fleet.core.relief import Move
from host_controller.units import MIB

Array = Any
HOSTS: Final = 32
CAPACITY_MIB: Final = 65_536.0
STEP_SECONDS: Final = 10
"""A turn of the arbiter."""
MOVE_SECONDS: Final = 60.0
ARRIVAL: Final = 1.25
"""The RAM of a VM, all of which a host must have free to take it in, by what it needs."""


@dataclass(slots=True)
class Tally:
    """What came of a law, summed over hosts and steps."""

    host_steps: int = 0
    short: int = 0
    """Steps of hosts whose VMs need more than there is."""
    unmet_mib_seconds: float = 0.0
    need_mib: float = 0.0
    """The sum over all steps: it says how loaded hosts really were."""
    moves: int = 0
    refused: int = 0
    """VMs that were on their way when their destination had no room any more."""
    alerts: int = 0
    """Times that a host was short for long, and no move helped."""
    stopped: int = 0
    """VMs that run nowhere any more."""

    def measure(self, need: Array, seconds: int) -> None:
        """A step of so many seconds has passed; need: of each host."""
        missing = np.maximum(0.0, need - CAPACITY_MIB)
        self.host_steps += len(need)
        self.short += int(np.count_nonzero(missing))
        self.unmet_mib_seconds += float(missing.sum()) * seconds
        self.need_mib += float(need.sum())

    def and_(self, other: "Tally") -> "Tally":
        """The sums of both."""
        return Tally(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def said(self) -> str:
        """In one line."""
        return (
            f"load {self.load:.1%}, {self.short:,} of {self.host_steps:,} host-steps short, "
            f"{self.unmet_mib_seconds / 1024:,.0f} GiB·s unmet, {self.moves_a_host_and_day:.2f} moves a host "
            f"and day, {self.alerts} alerts, {self.refused} refused, {self.stopped} VMs without a place"
        )

    def plain(self) -> dict[str, int]:
        """For the results."""
        return {name: round(value) for name, value in asdict(self).items()}

    @property
    def load(self) -> float:
        """Need by capacity."""
        return self.need_mib / (self.host_steps * CAPACITY_MIB)

    @property
    def moves_a_host_and_day(self) -> float:
        """Of VMs that arrived."""
        return self.moves * DAY_SECONDS / (self.host_steps * STEP_SECONDS)


@dataclass(slots=True)
class Way:
    """A VM that is being moved."""

    vm: int
    move: Move
    arrives: float


@dataclass(slots=True)
class OneCell:
    """Hosts and VMs by number."""

    demand: Demand
    drawn: Drawn
    hosts: int = HOSTS
    now: float = 0.0
    need: Array = None
    where: Array = None
    """The host of each VM; by default as starts by need place them, the largest first."""
    step_seconds: int = STEP_SECONDS
    ways: list[Way] = field(default_factory=list)
    moved_at: dict[str, float] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    told: dict[int, tuple[VmFigures, ...]] = field(default_factory=dict)
    """The VMs of hosts that were asked, while they need what they need."""

    def __post_init__(self) -> None:
        self.need = self.drawn.need(self.demand, self.now)
        if self.where is not None:
            return
        self.where = np.zeros(len(self.need), dtype=np.int64)
        free = np.full(self.hosts, CAPACITY_MIB)
        for vm in np.argsort(-self.need, kind="stable"):
            self.where[vm] = free.argmax()
            free[self.where[vm]] -= self.need[vm]

    @property
    def loads(self) -> Array:
        """What the VMs of each host need."""
        return np.bincount(self.where, weights=self.need, minlength=self.hosts)

    def step(self) -> Array:
        """Time passes; what the VMs of each host need then."""
        self.now += self.step_seconds
        if self.now % self.demand.step_seconds == 0:
            self.need = self.drawn.need(self.demand, self.now)
            self.told.clear()
        loads = self.loads
        for one in [way for way in self.ways if way.arrives <= self.now]:
            loads = self._arrive(one, loads)
        self.tally.measure(loads, self.step_seconds)
        return loads

    def begin(self, moves: Iterable[Move]) -> None:
        """VMs set out."""
        for move in moves:
            self.ways.append(Way(int(move.vm), move, self.now + MOVE_SECONDS))
            self.moved_at[move.vm] = self.now  # it rests, moved or not

    def figures(
        self, loads: Array, hosts: Iterable[int], detailed: Iterable[int] = ()
    ) -> dict[str, HostFigures]:
        """As these hosts tell them; VM by VM of those of which that is asked."""
        promised = np.zeros(self.hosts)
        for way in self.ways:
            promised[int(way.move.destination)] += way.move.reserve_bytes // MIB
        left = np.maximum(0.0, CAPACITY_MIB - loads - promised)
        capacity = int(CAPACITY_MIB) * MIB
        told = {
            str(host): HostFigures(capacity, int(loads[host] + promised[host]) * MIB, int(left[host]) * MIB)
            for host in hosts
        }
        for host in detailed:
            if host not in self.told:
                here = np.flatnonzero(self.where == host)
                self.told[host] = tuple(vm_figures(str(vm), self.need[vm]) for vm in here)
            one = told[str(host)]
            told[str(host)] = replace(one, reserved_bytes=int(promised[host]) * MIB, vms=self.told[host])
        return told

    def view(self, figures: Mapping[str, HostFigures]) -> Cell:
        """The engine's, with the VMs of which the figures tell."""
        resources = (Resource(vm.name, host) for host, one in figures.items() for vm in one.vms)
        return Cell(tuple(Node(host) for host in figures), tuple(resources), figures)

    def _arrive(self, way: Way, loads: Array) -> Array:
        """At the destination, if it still has the room; else it stays."""
        self.ways.remove(way)
        destination = int(way.move.destination)
        if loads[destination] + self.need[way.vm] > CAPACITY_MIB:
            self.tally.refused += 1
            return loads
        self.where[way.vm] = destination
        self.told.clear()
        self.tally.moves += 1
        return self.loads


def vm_figures(name: str, need_mib: float) -> VmFigures:
    """A VM that can be relied upon; its need has all that it costs its host."""
    need, beside = int(need_mib) * MIB, int(BESIDE_MIB) * MIB
    return VmFigures(name, name, need - beside, 0, need, beside, int(need * ARRIVAL), settled=True)
