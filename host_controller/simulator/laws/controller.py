"""Drives a law over simulated VMs through the balloon, as the engine is driven: events in, commands out."""

from collections.abc import Sequence
from typing import Final

from host_controller.core.interface import (
    Command,
    HypervisorEvent,
    SetPace,
    SetTarget,
    Tick,
    VmAppeared,
    VmGone,
)
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.hypervisor import SimulatedHypervisor
from host_controller.simulator.laws.views import GuestSight, HostSight, Law
from host_controller.units import round_up

GRANULE_BYTES: Final = 1 << 12
LAZY_PACE: Final = 3600.0
"""Laws look for themselves; what the hypervisor would sample for a controller, nobody reads."""


class LawController:
    """A `driver.Controller`. It sees guests as the law's own agents would, exactly and at once."""

    def __init__(self, law: Law, hypervisor: SimulatedHypervisor, capacity_bytes: int) -> None:
        self.law = law
        self.capacity_bytes = capacity_bytes
        self.commands = 0
        self._hypervisor = hypervisor
        self._targets: dict[str, float] = {}
        self._vms: dict[str, SimulatedVm] = {}
        self._due = 0.0
        self._paces: list[Command] = []

    def handle(self, event: HypervisorEvent | Tick, now: float) -> None:
        """Who is there is all that a law is told."""
        if isinstance(event, VmAppeared):
            vm = self._hypervisor.find(event.vm)
            assert vm is not None
            self._vms[event.vm] = vm
            self._paces.append(SetPace(event.vm, LAZY_PACE))
        elif isinstance(event, VmGone):
            self._vms.pop(event.vm, None)
            self._targets.pop(event.vm, None)

    def decide(self, now: float) -> Sequence[Command]:
        """When the law's period is over: look at everybody, and give out what it says."""
        commands, self._paces = self._paces, []
        if now < self._due - 1e-6:
            return commands
        self._due = now + self.law.period
        up = {vm.spec.name: vm for vm in self._vms.values() if vm.up}
        sights = [self._sight(vm, now) for vm in up.values()]
        for name, size in self.law.targets(self._host(), sights, now).items():
            vm = up[name]
            target = min(round_up(int(size), GRANULE_BYTES), vm.ram_bytes)
            if self._targets.get(vm.uuid) == target:
                continue
            self._targets[vm.uuid] = target
            self.commands += 1
            commands.append(SetTarget(vm.uuid, self.commands, target))
        return commands

    def _host(self) -> HostSight:
        for vm in self._vms.values():
            vm.advance()
        held = sum(vm.resident_bytes for vm in self._vms.values())
        given = sum(vm.actual_bytes for vm in self._vms.values())
        whole = self.capacity_bytes
        return HostSight(float(whole), max(0.0, float(whole - held)), float(whole - given))

    def _sight(self, vm: SimulatedVm, now: float) -> GuestSight:
        vm.advance()
        memory, limits = vm.memory, vm.config.limits
        current = float(vm.actual_bytes)
        return GuestSight(
            name=vm.spec.name,
            minimum=float(limits.minimum_bytes),
            maximum=float(limits.maximum_bytes),
            current=current,
            target=self._targets.get(vm.uuid, current),
            total=memory.total,
            free=memory.free,
            available=memory.available,
            cached=memory.cache,
            swapped=memory.swapped,
            committed=memory.ideal + memory.slab,
            weight=limits.weight,
            buffer_percent=float(limits.buffer_percent),
            booted=now - vm.up_at,
        )
