"""Judges the sizes that guests are told, for the checker: within limits, by small steps, by fresh figures.

A size is a balloon's target, a DIMM, or a request of a virtio-mem device. What is judged is what could be
known when it was told.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from host_controller.core import interface as hv
from host_controller.core.model import MEMORY_BLOCK_BYTES
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.hypervisor import SimulatedHypervisor
from host_controller.simulator.shown import SLACK_BYTES, Seen, Shown
from host_controller.units import GIB, MIB, format_size, round_up

STALE_SECONDS: Final = 16.0
"""Three missed heartbeats and a second for the decision (rule: fresh-or-still)."""
INFLATION_BYTES: Final = 1.1 * GIB
"""One second of the fastest balloon there is here (rule: small-steps)."""
MARGIN_BYTES: Final = 16 * MIB
"""What a shrinking command leaves available at the least (rule: small-steps)."""
SQUEEZE_SHARE: Final = 32
"""Of what a guest has: so much that it uses one command may take, where its swap has room
(rule: small-steps)."""
SQUEEZE_SECONDS: Final = 0.9
"""Between two such commands."""
SWAP_KEPT_BYTES: Final = 63 * MIB
"""Of a guest's free swap that is left to it."""


@dataclass(slots=True)
class Sizes:
    """Of one world. `found` is told each rule that was broken, the VM's name, and how."""

    hypervisor: SimulatedHypervisor
    shown: Shown
    found: Callable[[str, str, str], None]

    def target(self, vm: SimulatedVm, target: int, pending: Sequence[hv.Command], shown_actual: int) -> None:
        """No guest is told to be smaller than it is, by its driver's word, without having that to spare.

        To be told to stay there, while an overdraft keeps every VM from growing, is no shrinking
        (rule: overdraft-named): what a driver gave back since and has not told yet, nobody could know.
        """
        if not vm.up:
            return
        in_force = _last_target(vm, pending)
        seen = self.shown.of(vm.uuid)
        offline = min(vm.offline_bytes, seen.offline) if seen.deceived else vm.offline_bytes
        usable = target - offline + vm.virtio_mem.current
        limits = vm.config.limits
        # One whose maximum was lowered may be above it until it has given memory up, and a DIMM that is to
        # leave must find room for what lies in it.
        dimms = [one.dimm.size_bytes for one in vm.slots.dimms] if vm.ram_bytes > limits.maximum_bytes else []
        most = max(limits.maximum_bytes, in_force - offline + vm.virtio_mem.current) + max(dimms, default=0)
        if usable > most + SLACK_BYTES:
            self.found("below-maximum", vm.spec.name, f"a target of {format_size(usable)} is above maximum")
        if target >= min(in_force, vm.actual_bytes, shown_actual) - SLACK_BYTES:
            return
        step = min(seen.actual, vm.actual_bytes) - target
        self._shrinking(vm, usable - self._leaving(vm, pending), step)

    def resize(self, vm: SimulatedVm, requested: int, pending: Sequence[hv.Command]) -> None:
        """A virtio-mem device grows up to maximum, as a DIMM would, and shrinks as a balloon does."""
        device, seen = vm.virtio_mem, self.shown.of(vm.uuid)
        told = seen.device
        there = max(device.requested, device.current, told or 0, seen.told_plugged)
        more = requested - there
        if vm.ram_bytes + requested > vm.config.limits.maximum_bytes + SLACK_BYTES and more > 0:
            self.found(
                "below-maximum", vm.spec.name, f"virtio-mem of {format_size(requested)} is above maximum"
            )
        # A block of which something is plugged has its page structures.
        whole = round_up(requested, MEMORY_BLOCK_BYTES) - round_up(there, MEMORY_BLOCK_BYTES)
        if more > 0 and whole > 0:
            self.plug(vm, whole, may_make_room=False)
        lost = (device.online if told is None else min(device.online, told)) - requested
        # What it was asked for already, by all that was told, is taken from it by whoever asked for that.
        asked = device.requested if told is None else min(device.requested, seen.asked)
        if vm.up and requested < asked and lost > 0:
            # What its balloon has been told to take and has not taken yet goes, too.
            ahead = max(0, vm.actual_bytes - _last_target(vm, self._knowable(pending)))
            self._shrinking(vm, int(vm.memory.usable) - lost - ahead, lost)

    def plug(self, vm: SimulatedVm, size: int, *, may_make_room: bool) -> None:
        """A guest has room for the page structures of what is added, 1/64 of it.

        may_make_room: its kernel may reclaim and swap for them.
        """
        seen = self.shown.of(vm.uuid)
        spare = seen.spare
        heard = self.hypervisor.agenda.now - seen.spoke_at <= STALE_SECONDS
        free = seen.free if heard else 0.0
        last_resort = size <= MEMORY_BLOCK_BYTES and size / 64 <= free
        if may_make_room and heard and size <= vm.ram_bytes:
            last_resort = last_resort or size / 64 <= max(free / 3, seen.swap_free / 4)
        if size / 32 > spare + SLACK_BYTES and not last_resort:
            self.found(
                "plan",
                vm.spec.name,
                f"a DIMM of {format_size(size)} for a guest with {format_size(int(spare))} above its floor",
            )

    def _leaving(self, vm: SimulatedVm, pending: Sequence[hv.Command]) -> int:
        """What is online of its virtio-mem and was asked for back, by all that was told."""
        if self.shown.of(vm.uuid).device is not None:
            return 0
        requested = vm.virtio_mem.requested
        for command in self._knowable(pending):
            if isinstance(command, hv.ResizeVirtioMem):
                requested = command.requested_bytes
        return max(0, vm.virtio_mem.online - requested)

    def _knowable(self, pending: Sequence[hv.Command]) -> list[hv.Command]:
        """What this controller has given itself."""
        return [command for command in pending if not self.shown.is_left_over(command)]

    def _shrinking(self, vm: SimulatedVm, usable: int, step: int) -> None:
        limits = vm.config.limits
        now = self.hypervisor.agenda.now
        seen = self.shown.of(vm.uuid)
        age = now - seen.informed_at
        if seen.booting and usable >= limits.startup_bytes:
            return
        if age > STALE_SECONDS:
            self.found(
                "fresh-or-still", vm.spec.name, f"shrunk with nothing fresh known of it for {age:.0f} s"
            )
            return
        if usable < limits.minimum_bytes - SLACK_BYTES:
            self.found(
                "small-steps", vm.spec.name, f"a target of {format_size(usable)} usable is below minimum"
            )
        least = seen.least_usable + MARGIN_BYTES
        below = usable < least - SLACK_BYTES and not seen.deceived
        if below and not self._may_squeeze(seen, least - usable):
            short, left = format_size(int(least - usable)), format_size(MARGIN_BYTES)
            self.found(
                "small-steps",
                vm.spec.name,
                f"a target of {format_size(usable)} usable is {short} below what it uses and {left}",
            )
        if step > INFLATION_BYTES:
            self.found(
                "small-steps",
                vm.spec.name,
                f"one command takes {format_size(step)}: more than a second's inflation",
            )

    def _may_squeeze(self, seen: Seen, short: float) -> bool:
        """Below what it uses a guest goes by small steps, a second apart, into swap that it says is free."""
        now = self.hypervisor.agenda.now
        heard = now - seen.spoke_at <= STALE_SECONDS
        room = heard and short + SWAP_KEPT_BYTES <= seen.swap_free
        small = short <= seen.usable / SQUEEZE_SHARE + MARGIN_BYTES + SLACK_BYTES
        if not (room and small) or now - seen.squeezed_at < SQUEEZE_SECONDS:
            return False
        seen.squeezed_at = now
        return True


def _last_target(vm: SimulatedVm, pending: Sequence[hv.Command]) -> int:
    """What its balloon is told by the last command, carried out or not, QEMU's terms."""
    target = vm.ram_bytes - int(vm.balloon.wanted)
    for command in pending:
        if isinstance(command, hv.SetTarget):
            target = command.target_bytes
    return target
