"""One run of a fleet under one controller, and what is measured of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bench.workloads import MINIMUM_BYTES, Fleet
from host_controller.core import interface as hv
from host_controller.core.engine import Engine
from host_controller.core.model import Settings
from host_controller.core.policy.balance import fill
from host_controller.simulator.driver import Controller
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.laws.controller import LawController
from host_controller.simulator.laws.views import Foresight, Law
from host_controller.simulator.memory import UNRECLAIMABLE_CACHE
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

WARM_UP_SECONDS: Final = 60.0
"""Booting and the first reports are not measured."""

MakeLaw = Callable[["Fleet", World], Law]


@dataclass
class Run:
    """What was measured, in MiB and seconds."""

    unmet_mib_s: float = 0.0
    assigned: float = 0.0
    demanded: float = 0.0
    moved: float = 0.0
    changed: float = 0.0
    commands: int = 0
    vm_hours: float = 0.0
    distance: float = 0.0
    host_over_mib_s: float = 0.0
    twins_apart_mib: float = 0.0
    twins_unmet: tuple[float, float] = (0.0, 0.0)
    series: list[tuple[float, float, float]] = field(default_factory=list)
    """Second, Σ assigned, Σ demand, GiB."""

    @property
    def footprint(self) -> float:
        """∫assigned ÷ ∫max(demand, minimum)."""
        return self.assigned / self.demanded

    @property
    def churn(self) -> float:
        """MiB moved per MiB by which demand (not below minimum) changed."""
        return self.moved / max(1.0, self.changed)

    @property
    def commands_per_vm_hour(self) -> float:
        """Balloon targets, DIMMs plugged and unplugged."""
        return self.commands / self.vm_hours

    @property
    def twins_differ(self) -> float:
        """Of the twins' unmet demand, as a share of the larger; 0 when neither lacked a MiB·s."""
        high = max(self.twins_unmet)
        return (high - min(self.twins_unmet)) / high if high > 1.0 else 0.0


class _Commands:
    """A witness that counts."""

    def __init__(self) -> None:
        self.count = 0

    def submitted(self, command: hv.Command) -> None:
        if isinstance(command, hv.SetTarget | hv.AttachDimm | hv.DetachDimm):
            self.count += 1

    def delivered(self, event: hv.HypervisorEvent) -> None:
        """Not counted."""

    def happened(self, kind: str, vm: str) -> None:
        """Not counted."""


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


def run(fleet: Fleet, capacity_bytes: int, law: MakeLaw | None = None, told_bytes: int | None = None) -> Run:
    """Play the fleet under a law, or under ours when there is none.

    told_bytes: the size of host that a law is told, when it is not to use all that there is.
    """
    world = World(capacity_bytes, check=False, resolution=0.05, step=0.1)
    commands = _Commands()
    world.hypervisor.witnesses.append(commands)
    for spec in fleet.specs:
        world.define(spec)
    if law is None:
        world.control(ours)
    else:
        made = law(fleet, world)
        world.control(
            lambda capacity: LawController(made, world.hypervisor, told_bytes or capacity),
            tick_seconds=min(1.0, made.period),
        )
    vms = [world.start(spec.name) for spec in fleet.specs]
    world.run(WARM_UP_SECONDS)
    started = commands.count
    before = [_measures(vm) for vm in vms]
    unmet_before = [vm.memory.unmet_seconds for vm in vms]
    result = Run()
    while world.now < fleet.seconds:
        world.run(1.0)
        after = [_measures(vm) for vm in vms]
        _second(result, before, after, capacity_bytes, world.now)
        before = after
    result.commands = commands.count - started
    result.vm_hours = len(vms) * (fleet.seconds - WARM_UP_SECONDS) / 3600
    lacked = [(vm.memory.unmet_seconds - past) / MIB for vm, past in zip(vms, unmet_before, strict=True)]
    result.unmet_mib_s = sum(lacked) + result.host_over_mib_s
    by_name = {vm.spec.name: size for vm, size in zip(vms, lacked, strict=True)}
    result.twins_unmet = (by_name["twin0"], by_name["twin1"])
    seconds = fleet.seconds - WARM_UP_SECONDS
    result.distance /= seconds
    result.twins_apart_mib /= seconds
    return result


@dataclass
class _Measures:
    name: str
    assigned: float
    demand: float
    resident: float


def _measures(vm: SimulatedVm) -> _Measures:
    vm.advance()
    memory = vm.memory
    kernel = memory.reserved + memory.slab + memory.memmap + UNRECLAIMABLE_CACHE
    return _Measures(
        vm.spec.name, memory.usable / MIB, (kernel + memory.ideal) / MIB, vm.resident_bytes / MIB
    )


def _second(
    result: Run, before: list[_Measures], after: list[_Measures], capacity_bytes: int, now: float
) -> None:
    floor = MINIMUM_BYTES / MIB
    needs = [max(floor, one.demand) for one in after]
    result.assigned += sum(one.assigned for one in after)
    result.demanded += sum(needs)
    result.moved += sum(abs(b.assigned - a.assigned) for a, b in zip(before, after, strict=True))
    result.changed += sum(abs(need - max(floor, a.demand)) for a, need in zip(before, needs, strict=True))
    capacity = capacity_bytes // MIB
    result.host_over_mib_s += max(0.0, sum(one.resident for one in after) - capacity)
    whole = [int(need) for need in needs]
    fair = fill([100] * len(whole), [0] * len(whole), whole, capacity)
    short = sum(abs(min(one.assigned, need) - f) for one, need, f in zip(after, needs, fair, strict=True))
    result.distance += short / sum(fair)
    twins = [one.assigned for one in after if one.name.startswith("twin")]
    result.twins_apart_mib += abs(twins[0] - twins[1])
    total = sum(one.assigned for one in after) * MIB / GIB
    result.series.append((now, total, sum(needs) * MIB / GIB))
