"""The real daemon with somebody else's law in the engine's place: `python -m bench.real.law_daemon LAW …`

The law sees guests as our agents report them and acts through our balloon commands, at its own period; all
else (ports, libvirt, recording) is the daemon's. Balloons are read as often as the law looks, which also
wakes one whose period is shorter than the daemon's second.
"""

import argparse
import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from host_controller.core.engine import Engine, Event
from host_controller.core.interface import Command, SetPace, VmAppeared
from host_controller.core.model import Settings
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

    def handle(self, event: Event, now: float) -> None:
        """As ever; a VM that appears is ours to look at only."""
        super().handle(event, now)
        if isinstance(event, VmAppeared):
            super().handle(HoldVm(event.vm, True), now)

    def decide(self, now: float) -> list[Command]:
        """When the law's period is over: show it everybody, and send what it says."""
        commands = super().decide(now)
        for vm in self.vms.values():
            if vm.phase is Phase.TAKEOVER and vm.target_bytes is None and vm.actual_at > vm.since:
                # Ours would confirm its size, were it not paused.
                commands.append(vm.send_target(self.state.ticket(), vm.actual_bytes, now))
        if now < self._due - 1e-3:
            return commands
        self._due = now + self._law.period
        live = {vm.name: vm for vm in self.vms.values() if vm.phase is Phase.LIVE and vm.facts is not None}
        sights = [sight(vm, now) for vm in live.values()]
        for name, size in self._law.targets(self._host(), sights, now).items():
            vm = live[name]
            target = min(round_up(int(size), GRANULE_BYTES), vm.ram_bytes)
            if target != vm.target_bytes:
                commands.append(vm.send_target(self.state.ticket(), target, now))
        return commands

    def _pace(self, vm: Vm, now: float) -> list[Command]:
        if vm.pace_seconds == self._pace_seconds:
            return []
        vm.pace_seconds = self._pace_seconds
        return [SetPace(vm.config.uuid, self._pace_seconds)]

    def _host(self) -> HostSight:
        capacity = self.ledger.capacity()
        held = sum(vm.resident_bytes for vm in self.vms.values())
        given = sum(vm.actual_bytes for vm in self.vms.values())
        return HostSight(float(capacity), max(0.0, float(capacity - held)), float(capacity - given))


def sight(vm: Vm, now: float) -> GuestSight:
    """What its agent last said."""
    facts, limits = vm.facts, vm.config.limits
    assert facts is not None
    current = float(vm.actual_bytes)
    return GuestSight(
        name=vm.name,
        minimum=float(limits.minimum_bytes),
        maximum=float(limits.maximum_bytes),
        current=current,
        target=current if vm.target_bytes is None else float(vm.target_bytes),
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
