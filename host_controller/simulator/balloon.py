"""QEMU's balloon device and the guest's driver for it.

The accounting is QEMU's, with what is odd about it (docs/facts.md, balloon): the target is a logical size
of all RAM with DIMMs, turned into an amount to be ballooned when the command is given; that amount
outlives resets and unplugged DIMMs; `actual` is what a driver wrote last, whether or not it still exists.
"""

from typing import TYPE_CHECKING, Final

from host_controller.core import interface as hv
from host_controller.core.model import OFF

if TYPE_CHECKING:
    from host_controller.simulator.guest import SimulatedVm

EVENT_SECONDS: Final = 1.0
"""QEMU sends at most one BALLOON_CHANGE in this time."""
PAGE_BYTES: Final = 4096.0


class Balloon:
    """Of one VM. Sizes are bytes."""

    def __init__(self, vm: "SimulatedVm") -> None:
        self.wanted = 0.0
        """QEMU's num_pages: what the driver is asked to hold."""
        self.claimed = 0.0
        """QEMU's copy of what a driver last wrote: `actual` is RAM less this."""
        self.alive = False
        """A driver is up."""
        self._vm = vm
        self._written = 0.0
        self._event_at = -EVENT_SECONDS
        self._event_actual = -1
        self._event_due = False

    def come_up(self) -> None:
        """A kernel's driver begins: with an empty balloon, which it says."""
        self.alive = True
        self.claimed = self._written = 0.0

    def forge(self, actual_bytes: int) -> None:
        """Root in the guest writes in the driver's place; the driver writes again when it moves
        (fact: actual-is-a-claim).
        """
        self.claimed = float(self._vm.ram_bytes - actual_bytes)
        self._tell()

    def aim(self, target_bytes: int) -> None:
        """The balloon command: the amount is worked out from the RAM of now."""
        ram = self._vm.ram_bytes
        self.wanted = float(min(ram, max(0, ram - target_bytes)))

    def step(self, seconds: float) -> float:
        """How far the driver would move in that time: above 0 inflates."""
        memory, how = self._vm.memory, self._vm.behaviour
        if how.takes_back_bytes_per_second:
            return -min(memory.ballooned, how.takes_back_bytes_per_second * seconds)
        whole = memory.boot + memory.online
        wanted = min(self.wanted, whole)
        if how.floor_bytes:
            wanted = min(wanted, max(0.0, whole - how.floor_bytes))
        gap = wanted - memory.ballooned
        if abs(gap) < PAGE_BYTES or not how.balloon_speed:
            return 0.0
        speeds = self._vm.spec.speeds
        if gap < 0:
            return max(gap, -speeds.deflate * how.balloon_speed * seconds)
        swap_room = memory.swap_size - memory.swapped
        if memory.free + memory.droppable + swap_room <= 1.3 * memory.min_mark:
            return 0.0  # out of puff, until something is freed (fact: unreachable-target-retries)
        return min(gap, speeds.inflate * how.balloon_speed * seconds)

    def move(self, seconds: float) -> None:
        """Let the driver work for that time."""
        vm = self._vm
        puff = vm.behaviour.puff_seconds
        if puff and vm.agenda.now % (2 * puff) >= puff:
            return
        by = self.step(seconds)
        if by > 0:
            vm.memory.inflate(by, seconds, vm.spec.speeds)
        elif by < 0:
            vm.memory.deflate(-by)

    def announce(self) -> None:
        """The driver that has moved writes what it holds, in whole pages."""
        held = self._vm.memory.ballooned // PAGE_BYTES * PAGE_BYTES
        claims = held + (self._vm.behaviour.claims_bytes if held else 0)
        if claims != self._written:
            self.claimed = self._written = claims
        self._tell()

    def _tell(self) -> None:
        """QEMU passes it on, once a second at most."""
        vm = self._vm
        if self._event_due or vm.actual_bytes == self._event_actual:
            return
        if vm.agenda.now - self._event_at >= EVENT_SECONDS:
            self._send()
        else:
            self._event_due = True
            vm.agenda.at(self._event_at + EVENT_SECONDS, self._send)

    def _send(self) -> None:
        vm = self._vm
        self._event_due = False
        if vm.state is OFF:
            return
        self._event_at = vm.agenda.now
        self._event_actual = vm.actual_bytes
        vm.emit(hv.BalloonChanged(vm.uuid, self._event_actual))
