"""One simulated host for `dynmem simulate` and the benchmarks: run it, and say what became of everybody."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Final

from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Settings
from host_controller.simulator.laws import LAWS, Foresight, Knowledge, Law
from host_controller.simulator.laws.controller import LawController
from host_controller.simulator.memory import MEMMAP_SHARE, UNRECLAIMABLE_CACHE, Memory, reserved_bytes
from host_controller.simulator.meter import Meter
from host_controller.simulator.trial_file import Trial, TrialVm
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

OURS: Final = "dynmem"
POINTS: Final = 400
"""Points of a curve that is drawn."""
RESOLUTION_SECONDS: Final = 0.05

MakeLaw = Callable[[Knowledge], Law]
EachSecond = Callable[[World, Meter], None]


@dataclass(slots=True)
class VmResult:
    """What one VM had and lacked."""

    name: str
    weight: int = 100
    mean_assigned_bytes: float = 0.0
    largest_assigned_bytes: float = 0.0
    mean_demand_bytes: float = 0.0
    largest_demand_bytes: float = 0.0
    unmet_mib_seconds: float = 0.0
    commands: int = 0
    repaired_values: int = 0
    """Of its trace."""
    assigned: list[float] = field(default_factory=list)
    """GiB, at each of the result's times; so is the demand."""
    demand: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Result:
    """What became of a trial. What its figures mean stands in `meter`."""

    law: str
    seconds: float
    capacity_bytes: int
    vms: list[VmResult]
    footprint: float = 0.0
    churn: float = 0.0
    commands_per_vm_hour: float = 0.0
    distance: float = 0.0
    overcommitted_mib_seconds: float = 0.0
    promised_mib_seconds: float = 0.0
    unavoidable_mib_seconds: float = 0.0
    overdraft_seconds: float = 0.0
    violations: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    """Seconds since the measuring began."""

    @property
    def unmet_mib_seconds(self) -> float:
        """What all VMs wanted and did not have, MiB times seconds."""
        return sum(vm.unmet_mib_seconds for vm in self.vms)

    @property
    def missing_mib_seconds(self) -> float:
        """What guests wanted and did not have, and what they touched that the host does not have."""
        return self.unmet_mib_seconds + self.overcommitted_mib_seconds

    def as_json(self) -> dict[str, Any]:
        """For --json: everything, each curve with its unit in its name."""
        told = asdict(self) | {"unmet_mib_seconds": self.unmet_mib_seconds}
        told["times_seconds"] = told.pop("times")
        for vm in told["vms"]:
            vm["assigned_gib"], vm["demand_gib"] = vm.pop("assigned"), vm.pop("demand")
        return told


def simulate(trial: Trial, law: str = OURS) -> Result:
    """Run a trial under our engine, with all its rules checked, or under one of LAWS."""
    result = play(trial, None if law == OURS else LAWS[law], check=law == OURS)
    result.law = law
    return result


def play(
    trial: Trial,
    make: MakeLaw | None = None,
    *,
    settings: Settings | None = None,
    check: bool = False,
    told_bytes: int | None = None,
    each_second: EachSecond | None = None,
) -> Result:
    """Run a trial under a law, or under our engine when there is none.

    settings: of our engine, but for the capacity. check: watch that it breaks no rule. told_bytes: the size
    of host that a law is told, when it is not to use all that there is. Raises RuntimeError for an internal
    error of the engine: what is measured would be a host that holds still.
    """
    world = World(trial.capacity_bytes, seed=trial.seed, resolution=RESOLUTION_SECONDS, check=check)
    vms = [world.define(vm.spec) for vm in trial.vms]
    if make is None:
        base = settings or _settings(trial)
        world.control(lambda capacity: Engine(replace(base, capacity_bytes=capacity)))
    else:
        law = make(Knowledge(_peaks(trial), _foresight(trial, world)))
        world.control(
            lambda capacity: LawController(law, world.hypervisor, told_bytes or capacity),
            tick_seconds=min(1.0, law.period),
        )
    meter = Meter.of(world, vms)
    for vm in trial.vms:
        world.agenda.at(vm.start, partial(_start, world, vm.spec.name))
    if trial.warm_up_seconds:
        world.run(trial.warm_up_seconds)
    seconds = max(1, int(trial.seconds - trial.warm_up_seconds))
    found = [VmResult(vm.spec.name, vm.spec.limits.weight, repaired_values=vm.holes) for vm in trial.vms]
    result = Result("", float(seconds), trial.capacity_bytes, found)
    meter.begin()
    every = max(1, seconds // POINTS)
    for second in range(1, seconds + 1):
        world.run(1.0)
        meter.second()
        _take_down(result, meter, seconds, drawn=second % every == 0)
        if each_second is not None:
            each_second(world, meter)
    if errors := world.left_alone():
        raise RuntimeError("; ".join(map(str, errors)))
    _sum_up(result, meter)
    result.overdraft_seconds = world.checker.overdraft_seconds
    result.violations = [str(violation) for violation in world.violations]
    return result


def _settings(trial: Trial) -> Settings:
    """The defaults. Where QEMU's own memory is said to be nothing, nothing is charged for it, as under the
    other laws.
    """
    settings = Settings(trial.capacity_bytes)
    counted = any(vm.spec.overhead_bytes for vm in trial.vms)
    return settings if counted else replace(settings, overhead_floor_bytes=0)


def _start(world: World, name: str) -> None:
    world.start(name)


def _take_down(result: Result, meter: Meter, seconds: int, *, drawn: bool) -> None:
    if drawn:
        result.times.append(meter.world.now)
    for one, found in zip(meter.vms, result.vms, strict=True):
        has, wants = one.assigned * MIB, one.demand * MIB
        found.mean_assigned_bytes += has / seconds
        found.mean_demand_bytes += wants / seconds
        found.largest_assigned_bytes = max(found.largest_assigned_bytes, has)
        found.largest_demand_bytes = max(found.largest_demand_bytes, wants)
        if drawn:
            found.assigned.append(round(has / GIB, 4))
            found.demand.append(round(wants / GIB, 4))


def _sum_up(result: Result, meter: Meter) -> None:
    result.footprint, result.churn, result.distance = meter.footprint, meter.churn, meter.distance
    result.commands_per_vm_hour = meter.commands_per_vm_hour
    result.overcommitted_mib_seconds = meter.overcommitted_mib_seconds
    result.promised_mib_seconds = meter.promised_mib_seconds
    result.unavoidable_mib_seconds = meter.unavoidable_mib_seconds
    for one, found in zip(meter.vms, result.vms, strict=True):
        found.unmet_mib_seconds, found.commands = one.unmet_mib_seconds, one.commands


def needs(vm: TrialVm) -> Callable[[float], float]:
    """From what programs hold to what a guest must have so that they lack nothing, bytes: the kernel's own,
    its watermarks, and the page structures of what it did not boot with.
    """
    boot = float(vm.spec.config().boot_ram_bytes)
    memory = Memory(boot, float(reserved_bytes(int(boot), grows=vm.spec.growth is not Growth.BALLOON)))
    kernel = memory.reserved + memory.slab + UNRECLAIMABLE_CACHE + memory.high_mark

    def needed(programs: float) -> float:
        need = kernel + programs
        return need + max(0.0, need - boot) / (MEMMAP_SHARE - 1)

    return needed


def _peaks(trial: Trial) -> dict[str, float]:
    times = range(int(trial.seconds) + 1)
    return {
        vm.spec.name: needs(vm)(max(vm.spec.workload.anonymous.at(float(t)) for t in times))
        for vm in trial.vms
    }


def _foresight(trial: Trial, world: World) -> Foresight:
    known = {vm.spec.name: (needs(vm), vm.spec.workload.anonymous) for vm in trial.vms}

    def most(name: str, seconds: float) -> float:
        needed, curve = known[name]
        return needed(max(curve.at(world.now + i) for i in range(int(seconds) + 1)))

    return most
