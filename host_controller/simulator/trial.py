"""One simulated host for `dynmem simulate`: run it, and say what became of everybody."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final

from host_controller.core import interface as hv
from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Settings
from host_controller.simulator.laws import LAWS, Foresight, Knowledge
from host_controller.simulator.laws.controller import LawController
from host_controller.simulator.memory import Memory, reserved_bytes
from host_controller.simulator.trial_file import Trial, TrialVm
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

OURS: Final = "dynmem"
POINTS: Final = 400
"""Points of a curve that is drawn."""


@dataclass(slots=True)
class VmResult:
    """What one VM had and lacked. Sizes are bytes."""

    name: str
    mean_assigned_bytes: float = 0.0
    largest_assigned_bytes: float = 0.0
    mean_demand_bytes: float = 0.0
    largest_demand_bytes: float = 0.0
    unmet_mib_seconds: float = 0.0
    commands: int = 0
    repaired_values: int = 0
    """Of its trace."""
    assigned: list[float] = field(default_factory=list)
    demand: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Result:
    """What became of a trial."""

    law: str
    seconds: float
    capacity_bytes: int
    vms: list[VmResult]
    footprint: float = 0.0
    """∫assigned ÷ ∫max(demand, minimum)."""
    overdraft_seconds: float = 0.0
    violations: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @property
    def unmet_mib_seconds(self) -> float:
        """Of all VMs."""
        return sum(vm.unmet_mib_seconds for vm in self.vms)

    def as_json(self) -> dict[str, Any]:
        """For --json: everything."""
        return asdict(self) | {"unmet_mib_seconds": self.unmet_mib_seconds}


class _Counter:
    def __init__(self, results: Mapping[str, VmResult]) -> None:
        self.results = results

    def submitted(self, command: hv.Command) -> None:
        if isinstance(command, hv.SetTarget | hv.AttachDimm | hv.DetachDimm | hv.ResizeVirtioMem):
            self.results[command.vm].commands += 1

    def delivered(self, event: hv.HypervisorEvent) -> None:
        pass

    def happened(self, kind: str, vm: str) -> None:
        pass


def simulate(trial: Trial, law: str = OURS) -> Result:
    """Run a trial under our engine, or under one of LAWS."""
    world = World(trial.capacity_bytes, seed=trial.seed, resolution=0.05, check=law == OURS)
    for vm in trial.vms:
        world.define(vm.spec)
    if law == OURS:
        world.control(lambda capacity: Engine(Settings(capacity)))
    else:
        made = LAWS[law](Knowledge(_peaks(trial), _foresight(trial, world)))
        world.control(
            lambda capacity: LawController(made, world.hypervisor, capacity),
            tick_seconds=min(1.0, made.period),
        )
    results = {vm.spec.config().uuid: VmResult(vm.spec.name, repaired_values=vm.holes) for vm in trial.vms}
    world.hypervisor.witnesses.append(_Counter(results))
    for vm in trial.vms:
        world.agenda.at(vm.start, partial(_start, world, vm.spec.name))
    result = Result(law, trial.seconds, trial.capacity_bytes, list(results.values()))
    _run(world, trial, result)
    result.overdraft_seconds = world.checker.overdraft_seconds
    result.violations = [str(violation) for violation in world.violations]
    return result


def _start(world: World, name: str) -> None:
    world.start(name)


def _run(world: World, trial: Trial, result: Result) -> None:
    seconds = max(1, int(trial.seconds))
    every = max(1, seconds // POINTS)
    assigned = needed = 0.0
    for second in range(1, seconds + 1):
        world.run(1.0)
        drawn = second % every == 0
        if drawn:
            result.times.append(world.now)
        for vm, found in zip(trial.vms, result.vms, strict=True):
            running = world.vm(vm.spec.name)
            memory, up = running.memory, running.up
            has = memory.usable if up else 0.0
            wants = memory.reserved + memory.slab + memory.memmap + memory.ideal if up else 0.0
            found.mean_assigned_bytes += has / seconds
            found.mean_demand_bytes += wants / seconds
            found.largest_assigned_bytes = max(found.largest_assigned_bytes, has)
            found.largest_demand_bytes = max(found.largest_demand_bytes, wants)
            found.unmet_mib_seconds += memory.unmet / MIB if up else 0.0
            if up:
                assigned += has
                needed += max(wants, vm.spec.limits.minimum_bytes)
            if drawn:
                found.assigned.append(round(has / GIB, 4))
                found.demand.append(round(wants / GIB, 4))
    result.footprint = assigned / needed if needed else 0.0


def _kernel_bytes(vm: TrialVm) -> float:
    boot = vm.spec.config().boot_ram_bytes
    reserved = reserved_bytes(boot, grows=vm.spec.growth is not Growth.BALLOON)
    memory = Memory(float(boot), float(reserved))
    return memory.reserved + memory.slab + 2 * memory.high_mark + 16 * MIB


def _peaks(trial: Trial) -> dict[str, float]:
    times = range(int(trial.seconds) + 1)
    return {
        vm.spec.name: _kernel_bytes(vm) + max(vm.spec.workload.anonymous.at(float(t)) for t in times)
        for vm in trial.vms
    }


def _foresight(trial: Trial, world: World) -> Foresight:
    by_name = {vm.spec.name: vm for vm in trial.vms}

    def most(name: str, seconds: float) -> float:
        vm = by_name[name]
        curve = vm.spec.workload.anonymous
        return _kernel_bytes(vm) + max(curve.at(world.now + i) for i in range(int(seconds) + 1))

    return most
