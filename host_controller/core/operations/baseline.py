"""What a guest had when a change of its virtio-mem began: by that its own kernel shows what has left since.

QEMU tells a device's size once a second at most. The guest's kernel counts it sooner, and counts other things
with it: what its balloon takes or gives, and memory that was offline and leaves without having been counted.
"""

from dataclasses import dataclass, replace
from typing import Final, Self

from host_controller.core.policy.spare import total_bytes
from host_controller.core.vm.balloon import PAGE_BYTES
from host_controller.core.vm.record import Vm
from host_controller.units import round_down


@dataclass(frozen=True, slots=True)
class Baseline:
    """What one change of a device began with. All sizes in bytes; 0 before it begins."""

    requested_bytes: int = 0
    """What the device had been asked for in all."""
    came_bytes: int = 0
    """What had come of that."""
    there_bytes: int = 0
    """What the guest used of that: plugged by QEMU's last word, and online."""
    total_bytes: int = 0
    """What its kernel counted; 0 where that was unknown."""
    balloon_bytes: int = 0
    """The least that its balloon may have left to the guest, QEMU's terms."""
    settled: bool = False
    """Nothing was on its way: what QEMU had told was so."""
    shows: bool = False
    """Its kernel's count can show what leaves: nothing was offline or leaving, and its balloon rested."""

    @classmethod
    def of(cls, vm: Vm, there_bytes: int, now: float) -> Self:
        """As it is now; there_bytes: what the guest uses of what is requested."""
        device, facts = vm.virtio_mem, vm.guest.facts
        return cls(
            device.requested_bytes,
            device.came_bytes(now),
            there_bytes,
            0 if facts is None else facts.total_bytes,
            min(vm.followed_bytes(now)[0], vm.balloon.actual_bytes),
            device.settled,
            _countable(vm) and _rests(vm, now, vm.guest.actual_when_heard_bytes),
        )

    def further(self, vm: Vm, there_bytes: int, now: float) -> Self:
        """Of a next step, asked for when all of this one has left."""
        shows = self.shows and _rests(vm, now, vm.guest.actual_when_heard_bytes)
        return replace(self.of(vm, there_bytes, now), settled=self.settled, shows=shows)

    def has_left(self, vm: Vm, size_bytes: int, now: float) -> bool:
        """Whether the guest's own kernel counts so much less that the device has come to `size_bytes`, by its
        agent's word since the command.

        Not where anything else may have moved its count: what a balloon takes looks the same. It has to have
        had one size for a while, when this began and now.
        """
        facts = vm.guest.facts
        if facts is None or not facts.from_agent or facts.at <= vm.virtio_mem.asked_at:
            return False
        left = self.total_bytes - facts.total_bytes
        rests = _rests(vm, now, self.balloon_bytes)
        return self.shows and rests and left >= self.requested_bytes - size_bytes

    def still_there(self, vm: Vm, size_bytes: int, now: float) -> int:
        """The size, at least `size_bytes`, that the guest has not gone below yet, by its own kernel.

        What has left would have to be described anew, by a guest that has nothing to spare for that. What its
        balloon may have given it meanwhile hides as much that has left. What was offline leaves its kernel's
        count as it was, and is of no use to it.
        No more than QEMU told, and so no more than it is charged with (rule: within-capacity).
        """
        balloon = max(vm.followed_bytes(now)[1], vm.balloon.actual_bytes)
        given = max(0, balloon - self.balloon_bytes)
        left = max(0, self.total_bytes + given - total_bytes(vm))
        most = min(self.there_bytes - left, vm.virtio_mem.current_bytes)
        return max(size_bytes, round_down(most, vm.config.virtio_mem_block_bytes))


def _rests(vm: Vm, now: float, before_bytes: int) -> bool:
    """Whether its balloon has one size, is to have no other, and had that before."""
    sizes = *vm.followed_bytes(now), vm.balloon.actual_bytes, before_bytes
    return not vm.balloon.sent and max(sizes) - min(sizes) < PAGE_BYTES


NOTHING: Final = Baseline()
"""Of a change that has not begun."""


def _countable(vm: Vm) -> bool:
    """Whether what its kernel counts less from now on is part of what is asked for now.

    By its kernel's word: what has just come QEMU may not have told. What is still to come would only hide
    what leaves.
    """
    device, facts = vm.virtio_mem, vm.guest.facts
    if facts is None or facts.offline_bytes or device.unanswered or device.unsure:
        return False
    return facts.usable_bytes - vm.balloon.actual_bytes <= device.requested_bytes
