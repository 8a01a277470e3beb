"""The real daemon with somebody else's law in the engine's place: `python -m bench.real.law_daemon LAW …`

The law sees guests as our agents report them and acts through our balloon commands, at its own period; all
else (ports, libvirt, recording) is the daemon's. Balloons are read as often as the law looks, which also
wakes one whose period is shorter than the daemon's second.
"""

import argparse
import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import structlog

from host_controller.core.engine import Engine, Event
from host_controller.core.interface import Command, SetPace, VmAppeared
from host_controller.core.model import GuestFacts, Settings
from host_controller.core.operator_events import HoldVm
from host_controller.core.vm.record import Phase, Vm
from host_controller.hypervisor.adapter import LibvirtHypervisor
from host_controller.service import Options, Service
from host_controller.simulator.laws import GuestSight, HostSight, Law
from host_controller.simulator.laws.mom import Mom
from host_controller.simulator.laws.proxmox import Proxmox
from host_controller.simulator.laws.qmemman import Qmemman
from host_controller.units import round_up

LAWS: Final[dict[str, Callable[[], Law]]] = {"mom": Mom, "proxmox": Proxmox, "qmemman": Qmemman}
GRANULE_BYTES: Final = 1 << 12
QUICKEST_PACE: Final = 0.1
SLOWEST_PACE: Final = 1.0


class LawEngine(Engine):
    """Our engine with every VM paused, so that it only keeps the books; the law moves the balloons."""

    def __init__(self, settings: Settings, law: Law) -> None:
        super().__init__(settings)
        self._law = law
        self._due = 0.0
        self._pace_seconds = min(SLOWEST_PACE, max(QUICKEST_PACE, law.period))
        self._paces: list[Command] = []

    def handle(self, event: Event, now: float) -> None:
        """As ever; a VM that appears is ours to look at only, as often as the law looks."""
        super().handle(event, now)
        if isinstance(event, VmAppeared):
            super().handle(HoldVm(event.vm, True), now)
            self._paces.append(SetPace(event.vm, self._pace_seconds))

    def decide(self, now: float) -> list[Command]:
        """When the law's period is over: show it everybody, and send what it says."""
        decided = super().decide(now)
        commands: list[Command] = [one for one in decided if not isinstance(one, SetPace)]
        if not self.state.connected:
            return commands
        commands += self._paces
        self._paces.clear()
        for vm in self.vms.values():
            balloon = vm.balloon
            if vm.phase is Phase.TAKEOVER and balloon.target_bytes is None and balloon.actual_at > vm.since:
                # Ours would confirm its size, were it not paused.
                commands.append(vm.send_target(self.state.ticket(), balloon.actual_bytes, now))
        if now >= self._due - 1e-3:
            self._due = now + self._law.period
            commands += self._ask(now)
        return commands

    def _ask(self, now: float) -> Iterator[Command]:
        """What the law wants of whom."""
        live: dict[str, Vm] = {}
        sights = []
        for vm in self.vms.values():
            if vm.phase is Phase.LIVE and (facts := vm.guest.facts) is not None:
                live[vm.name] = vm
                sights.append(sight(vm, facts, now))
        for name, size in self._law.targets(self._host(), sights, now).items():
            vm = live[name]
            target = min(round_up(int(size), GRANULE_BYTES), vm.ram_bytes)
            if target != vm.balloon.target_bytes:
                yield vm.send_target(self.state.ticket(), target, now)

    def _host(self) -> HostSight:
        capacity = self.ledger.capacity()
        held = sum(vm.evidence.resident_bytes for vm in self.vms.values())
        given = sum(vm.balloon.actual_bytes for vm in self.vms.values())
        return HostSight(float(capacity), max(0.0, float(capacity - held)), float(capacity - given))


def sight(vm: Vm, facts: GuestFacts, now: float) -> GuestSight:
    """A VM with what its agent last said."""
    limits, balloon = vm.config.limits, vm.balloon
    current = float(balloon.actual_bytes)
    return GuestSight(
        name=vm.name,
        minimum=float(limits.minimum_bytes),
        maximum=float(limits.maximum_bytes),
        current=current,
        target=current if balloon.target_bytes is None else float(balloon.target_bytes),
        total=float(facts.total_bytes),
        free=float(facts.free_bytes),
        available=float(facts.available_bytes),
        cached=float(facts.reclaimable_bytes),
        swapped=float(facts.swap_used_bytes),
        weight=limits.weight,
        buffer_percent=float(limits.buffer_percent),
        booted=now - vm.booted_at,
    )


def main() -> None:
    """The daemon, until a signal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("law", choices=LAWS)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(20))
    law = LAWS[options.law]()
    service = Service(
        Options(options.config, record=options.record),
        lambda config: LibvirtHypervisor(config.libvirt.uri),
        engine=lambda settings: LawEngine(settings, law),
    )
    asyncio.run(service.run())


if __name__ == "__main__":
    main()
