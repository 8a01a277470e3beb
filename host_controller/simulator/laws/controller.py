"""Drives a law over simulated VMs, as the engine is driven: events in, commands out."""

from collections.abc import Iterator, Sequence
from typing import Final

from agent import wire
from host_controller.core.interface import (
    Command,
    GuestSpoke,
    HypervisorEvent,
    SendToGuest,
    SetPace,
    Tick,
    VmAppeared,
    VmGone,
)
from host_controller.simulator.hypervisor import SimulatedHypervisor
from host_controller.simulator.laws.sizing import Sizing, charged_bytes, size_bytes
from host_controller.simulator.laws.views import GuestSight, HostSight, Law

SELDOM_SECONDS: Final = 3600.0
"""Laws look for themselves: what hypervisor and agents would tell a controller, nobody reads."""


class LawController:
    """A `driver.Controller`. It sees guests as the law's own agents would, exactly and at once."""

    def __init__(self, law: Law, hypervisor: SimulatedHypervisor, capacity_bytes: int) -> None:
        self.law = law
        self.capacity_bytes = capacity_bytes
        self.commands = 0
        self._hypervisor = hypervisor
        self._vms: dict[str, Sizing] = {}
        self._unfinished: dict[str, None] = {}
        """VMs that need more than one command, in the order in which they began."""
        self._due = 0.0
        self._first: list[Command] = []

    def handle(self, event: HypervisorEvent | Tick, now: float) -> None:
        """Who is there is all that a law is told; that new memory is to be used, agents are told for it."""
        if isinstance(event, VmAppeared):
            vm = self._hypervisor.find(event.vm)
            assert vm is not None
            self._vms[event.vm] = Sizing(vm)
            self._first.append(SetPace(event.vm, SELDOM_SECONDS))
        elif isinstance(event, VmGone):
            self._vms.pop(event.vm, None)
            self._unfinished.pop(event.vm, None)
        elif isinstance(event, GuestSpoke):
            message = event.untrusted_message
            if isinstance(message, wire.Hello) and not message.welcomed:
                seldom = wire.Welcome("law", SELDOM_SECONDS, SELDOM_SECONDS, SELDOM_SECONDS)
                self._first.append(SendToGuest(event.vm, seldom))
                self._first.append(SendToGuest(event.vm, wire.OnlineZone(1, "movable")))

    def decide(self, now: float) -> Sequence[Command]:
        """When the law's period is over: look at everybody, and do what it says. DIMMs follow in between."""
        commands, self._first = self._first, []
        chosen: list[str] = []
        if now >= self._due - 1e-6:
            self._due = now + self.law.period
            chosen = self._ask(now)
        # Once each: what is given out here is under way only when all of it has been.
        for uuid in dict.fromkeys([*chosen, *self._unfinished]):
            commands += self._carry_out(self._vms[uuid])
        return commands

    def _ask(self, now: float) -> list[str]:
        """What the law wants of whom, in its order."""
        up = {one.vm.spec.name: one for one in self._vms.values() if one.vm.up}
        sights = [self._sight(one, now) for one in up.values()]
        wanted = self.law.targets(self._host(), sights, now)
        for name, size in wanted.items():
            up[name].want(size)
        return [up[name].vm.uuid for name in wanted]

    def _carry_out(self, one: Sizing) -> Iterator[Command]:
        vm = one.vm
        if vm.up and not self._hypervisor.pending(vm.uuid):
            vm.advance()
            for command in one.commands(self.commands + 1):
                self.commands += 1
                yield command
        self._unfinished.pop(vm.uuid, None)
        if not one.finished:
            self._unfinished[vm.uuid] = None

    def _host(self) -> HostSight:
        """QEMU's own memory is nobody's to give: it is taken off, as for ours."""
        vms = [one.vm for one in self._vms.values()]
        for vm in vms:
            vm.advance()
        whole = self.capacity_bytes - sum(vm.spec.overhead_bytes for vm in vms)
        held = sum(vm.resident_bytes for vm in vms)
        given = sum(charged_bytes(vm) for vm in vms)
        return HostSight(float(whole), max(0.0, float(whole - held)), float(whole - given))

    def _sight(self, one: Sizing, now: float) -> GuestSight:
        vm = one.vm
        vm.advance()
        memory, limits = vm.memory, vm.config.limits
        current = float(size_bytes(vm))
        return GuestSight(
            name=vm.spec.name,
            minimum=float(limits.minimum_bytes),
            maximum=float(limits.maximum_bytes),
            current=current,
            target=current if one.wanted_bytes is None else float(one.wanted_bytes),
            total=memory.total,
            free=memory.free,
            available=memory.available,
            cached=memory.cache,
            swapped=memory.swapped,
            committed=memory.ideal + memory.slab,
            weight=limits.weight,
            buffer_percent=float(limits.buffer_percent),
            booted=now - vm.boot.up_at,
        )
