"""One run of a fleet under one controller, and what is measured of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bench.workloads import Fleet
from host_controller.core.engine import Engine
from host_controller.core.model import Settings
from host_controller.simulator.driver import Controller
from host_controller.simulator.laws.controller import LawController
from host_controller.simulator.laws.views import Foresight, Law
from host_controller.simulator.memory import UNRECLAIMABLE_CACHE
from host_controller.simulator.meter import Meter
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

WARM_UP_SECONDS: Final = 60.0
"""Booting and the first reports are not measured."""

MakeLaw = Callable[["Fleet", World], Law]


@dataclass
class Run:
    """What was measured, in MiB and seconds; what it means stands in `simulator.meter`."""

    unmet_mib_s: float = 0.0
    """What guests wanted and did not have."""
    overcommitted_mib_s: float = 0.0
    """What they touched of what the host gave out beyond its memory."""
    footprint: float = 0.0
    churn: float = 0.0
    commands_per_vm_hour: float = 0.0
    distance: float = 0.0
    twins_apart_mib: float = 0.0
    twins_unmet: tuple[float, float] = (0.0, 0.0)
    series: list[tuple[float, float, float]] = field(default_factory=list)
    """Second, Σ assigned, Σ demand, GiB."""

    @property
    def missing_mib_s(self) -> float:
        """Both."""
        return self.unmet_mib_s + self.overcommitted_mib_s

    @property
    def twins_differ(self) -> float:
        """Of the twins' unmet demand, as a share of the larger; 0 when neither lacked a MiB·s."""
        high = max(self.twins_unmet)
        return (high - min(self.twins_unmet)) / high if high > 1.0 else 0.0


def foresight(fleet: Fleet, world: World) -> Foresight:
    """What a guest will need within some seconds: programs, kernel, and the marks that reclaim works from."""

    def most(name: str, seconds: float) -> float:
        vm, curve = world.vm(name), fleet.curves[name]
        memory, steps = vm.memory, int(seconds) + 1
        wanted = max(curve.at(world.now + i) for i in range(steps))
        return memory.reserved + memory.slab + UNRECLAIMABLE_CACHE + memory.high_mark + wanted

    return most


def ours(capacity_bytes: int) -> Controller:
    """The production engine with nothing but its defaults; overheads are counted for no law."""
    return Engine(Settings(capacity_bytes, overhead_floor_bytes=0))


def begun(
    fleet: Fleet, capacity_bytes: int, law: MakeLaw | None = None, told_bytes: int | None = None
) -> tuple[World, Meter]:
    """A host on which the fleet runs under a law, or under ours when there is none, warmed up, and its meter.

    told_bytes: the size of host that a law is told, when it is not to use all that there is.
    """
    world = World(capacity_bytes, check=False, resolution=0.05, step=0.1)
    vms = [world.define(spec) for spec in fleet.specs]
    meter = Meter.of(world, vms)
    if law is None:
        world.control(ours)
    else:
        made = law(fleet, world)
        world.control(
            lambda capacity: LawController(made, world.hypervisor, told_bytes or capacity),
            tick_seconds=min(1.0, made.period),
        )
    for spec in fleet.specs:
        world.start(spec.name)
    world.run(WARM_UP_SECONDS)
    meter.begin()
    return world, meter


def run(fleet: Fleet, capacity_bytes: int, law: MakeLaw | None = None, told_bytes: int | None = None) -> Run:
    """Play the fleet to its end, likewise."""
    world, meter = begun(fleet, capacity_bytes, law, told_bytes)
    twins = [one for one in meter.vms if one.vm.spec.name.startswith("twin")]
    result = Run()
    while world.now < fleet.seconds:
        world.run(1.0)
        meter.second()
        result.twins_apart_mib += abs(twins[0].assigned - twins[1].assigned)
        sums = sum(one.assigned for one in meter.vms), sum(one.need for one in meter.vms)
        result.series.append((world.now, sums[0] * MIB / GIB, sums[1] * MIB / GIB))
    result.twins_apart_mib /= meter.seconds
    result.twins_unmet = twins[0].unmet_mib_seconds, twins[1].unmet_mib_seconds
    result.unmet_mib_s, result.overcommitted_mib_s = meter.unmet_mib_seconds, meter.overcommitted_mib_seconds
    result.footprint, result.churn, result.distance = meter.footprint, meter.churn, meter.distance
    result.commands_per_vm_hour = meter.commands_per_vm_hour
    return result
