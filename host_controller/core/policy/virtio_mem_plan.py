"""The next size of a VM's virtio-mem device: in steps that the guest can bear, as for DIMMs and the balloon.

Memory comes from the balloon first, and leaves from the device first: what is unplugged takes its page
structures along, and what is plugged beside an inflated balloon pays for them in vain. Sizes are bytes.
"""

from typing import Final

from host_controller.core.model import VIRTIO_MEM, Settings
from host_controller.core.policy.dimm_plan import bearable_step
from host_controller.core.policy.spare import (
    FOLLOWED_BYTES,
    heard_lately,
    spare_bytes,
    ungiven_bytes,
    untaken_bytes,
)
from host_controller.core.vm.record import STARTING, Vm
from host_controller.core.vm.virtio_mem import LATE_SECONDS, PATIENCE
from host_controller.units import MIB, format_size, round_down, round_up

OFFLINE_SECONDS: Final = 5.0
"""Memory that nobody brought online may still come for so long."""
ASK_AGAIN_SECONDS: Final = 0.5
"""A device that has just refused a size, or whose QEMU is late, is not asked with every step."""


def bearable(vm: Vm, now: float) -> int:
    """How much the guest can be given at once.

    The rest of a memory block that is there already needs no page structures; whole blocks come one by one.
    """
    started = round_up(vm.virtio_mem.requested_bytes, vm.guest.block_bytes) - vm.virtio_mem.requested_bytes
    return started + bearable_step(vm, now)


def larger(vm: Vm, wanted_bytes: int, payable_bytes: int, now: float) -> tuple[int, str | None]:
    """The size to ask for so that the guest has `wanted_bytes` more, or 0 and the reason why not."""
    has, block = vm.virtio_mem.requested_bytes, vm.config.virtio_mem_block_bytes
    if vm.virtio_mem.unsure or vm.virtio_mem.unanswered:
        # Nor is anything paid for meanwhile: the answer gives back what is beyond the size it confirms.
        return 0, "nobody knows yet what became of its last size"
    room = min(vm.config.virtio_mem_bytes, vm.config.limits.maximum_bytes - vm.ram_bytes) - has
    if round_down(room, block) <= 0:
        return 0, "it has all of its maximum"
    bite = round_down(bearable(vm, now), block)
    if bite <= 0:
        return 0, "the guest has too little free memory for the page structures of more"
    payable = round_down(payable_bytes, block)
    if payable <= 0:
        return 0, f"{format_size(max(0, payable_bytes))} is free"
    return has + min(round_up(wanted_bytes, block), round_down(room, block), bite, payable), None


def kernels_bytes(vm: Vm) -> int:
    """What of its device the guest's kernel uses for itself: its blocks that are online and not movable, less
    those of its RAM. It may stay for good (fact: kernel-blocks-may-leave).

    0 where no agent tells. A block that is plugged in part counts whole.
    """
    facts = vm.guest.facts
    if facts is None or not facts.from_agent:
        return 0
    return max(0, facts.online_bytes - facts.movable_bytes - round_up(vm.ram_bytes, vm.guest.block_bytes))


def smaller(
    vm: Vm, excess_bytes: int, settings: Settings, now: float, squeezed: int, least_bytes: int = 0
) -> int | None:
    """The size to ask for so that the guest has up to `excess_bytes` less; None when it is not to shrink now.

    Not below `least_bytes`, nor by more than it has to spare and is squeezed by, nor by more than a second's
    work (rule: small-steps).
    """
    device = vm.virtio_mem
    if vm.config.growth is not VIRTIO_MEM or device.current_bytes > device.requested_bytes:
        return None  # what is leaving already, as somebody else has asked for, is not there to be spared
    return smaller_still(vm, excess_bytes, settings, now, squeezed, least_bytes)


def smaller_still(
    vm: Vm, excess_bytes: int, settings: Settings, now: float, squeezed: int = 0, least_bytes: int = 0
) -> int | None:
    """Likewise, where the guest's own kernel has just shown that all that was asked for before has left."""
    device = vm.virtio_mem
    if not device.requested_bytes or device.unsure or device.unanswered:
        return None  # nobody knows yet what became of its last size
    if not heard_lately(vm, now):
        return None
    if now < (rest := vm.unplug_rest).until:
        if not rest.kept_bytes:
            return None
        # What its kernel kept rests, and what has come since may leave.
        least_bytes = max(least_bytes, rest.kept_bytes, kernels_bytes(vm))
    rate = int(max(device.shrink_rate, vm.balloon.inflate_rate)) or settings.inflate_bytes_per_second
    # As with a balloon, from where its kernel was when it last spoke.
    can_give = max(0, spare_bytes(vm)) + squeezed - untaken_bytes(vm)
    most = min(excess_bytes - ungiven_bytes(vm), can_give, rate, device.requested_bytes - least_bytes)
    step = round_down(most, vm.config.virtio_mem_block_bytes)
    if step <= 0:
        return None
    # The guest's driver gives back a memory block in one request, and what is less than one in many.
    whole = round_up(device.requested_bytes - step, vm.guest.block_bytes)
    return whole if whole < device.requested_bytes else device.requested_bytes - step


def exchange(vm: Vm, now: float, least_bytes: int = 0) -> tuple[int, int] | None:
    """A smaller size, and the balloon's target under which the guest misses nothing; None without need.

    Not below `least_bytes`.

    After blocks that would not go the balloon took their place: when they may be asked for again, the two
    change places.
    """
    device, ballooned = vm.virtio_mem, vm.ram_bytes - vm.entitled_bytes
    if now < vm.unplug_rest.until or not device.settled or ballooned < vm.guest.block_bytes:
        return None
    if untaken_bytes(vm) > FOLLOWED_BYTES:
        return None  # the guest misses nothing only where its balloon has taken what it was told to
    # One memory block at a time: little is lent to a guest that refuses again.
    most = min(ballooned, device.requested_bytes - least_bytes, vm.guest.block_bytes)
    step = round_down(most, vm.config.virtio_mem_block_bytes)
    return (device.requested_bytes - step, vm.entitled_bytes + step) if step > 0 else None


def unfinished(vm: Vm, now: float, *, overdrawn: bool = False) -> int | None:
    """The size to ask for because what was asked for is not what should be; None when all is well.

    After a reset QEMU unplugs all, and the new kernel would plug at once what the old one was given, before
    anybody can say what it needs. A size that was asked for by somebody else, by a controller before this one
    or in a command that failed is followed to its end: what the guest does not take is asked for no more, or
    it would be charged with that for as long as it runs.

    overdrawn: nobody is told to have more than QEMU tells.
    """
    device = vm.virtio_mem
    if vm.phase is STARTING and vm.guest.facts is None:
        return 0 if device.requested_bytes or device.unsure else None
    quiet = device.quiet_seconds(now)
    late = quiet > LATE_SECONDS
    if device.unsure:
        # QEMU may not have told yet all that was plugged before the command that failed. What is leaving or
        # has left is not asked for again: it would have to be described anew, and the guest may have no room.
        if late:
            return device.current_bytes
        if now - device.asked_at < ASK_AGAIN_SECONDS:
            return None
        more = device.confirmed_bytes - _surely_plugged_bytes(vm)
        room = bearable_step(vm, now) if vm.guest.facts is not None and not overdrawn else 0
        return device.confirmed_bytes if 0 <= more <= room and _spares_what_may_have_come(vm) else None
    if device.settled:
        return None
    if device.current_bytes < device.requested_bytes:
        return device.current_bytes if quiet > PATIENCE else None
    return device.requested_bytes if late else None


def _surely_plugged_bytes(vm: Vm) -> int:
    """By QEMU's word, or by the guest's own where that is newer: its kernel may be giving back blocks, and
    QEMU tells that up to a second late.
    """
    facts, current = vm.guest.facts, vm.virtio_mem.current_bytes
    if facts is None or facts.at <= vm.virtio_mem.moved_at:
        return current
    return min(current, max(0, facts.usable_bytes + vm.offline_bytes - vm.present_bytes))


def _spares_what_may_have_come(vm: Vm) -> bool:
    """What its own kernel shows to have come beyond what was surely asked for, it has to spare.

    Else a growth that was carried out after all would be asked back of a guest that uses it
    (rule: small-steps).
    """
    facts = vm.guest.facts
    if facts is None:
        return True
    more = facts.usable_bytes - vm.present_bytes - vm.virtio_mem.confirmed_bytes
    return more <= 0 or spare_bytes(vm) >= more


def idle_bytes(vm: Vm) -> int:
    """What is plugged and not in the guest's MemTotal: by its memory blocks, which may be plugged in part.

    What its balloon's driver counts there is, whatever an agent says that may have stuck.
    """
    facts, stats, device = vm.guest.facts, vm.guest.stats, vm.virtio_mem
    if facts is None:
        return 0
    used, current = facts.usable_bytes, device.current_bytes
    if stats is not None and _counted_since_it_moved(vm):
        used = max(used, stats.total_bytes + facts.kernel_bytes)
    return max(0, min(vm.offline_bytes, current, vm.present_bytes + current - used))


def _counted_since_it_moved(vm: Vm) -> bool:
    """By its balloon's driver: its statistics are of the device as it is."""
    return vm.guest.stats_at > vm.virtio_mem.moved_at


def without_idle(vm: Vm, from_bytes: int, size_bytes: int, now: float) -> int:
    """The size that a growth `from_bytes` to `size_bytes` has come to, without what nobody brought online.

    Without an agent that is a guess, so what the guest can spare goes with it; from one that is not heard
    nothing is taken (rule: fresh-or-still).
    """
    facts = vm.guest.facts
    if facts is None or not heard_lately(vm, now):
        return size_bytes
    idle = idle_bytes(vm) + (0 if facts.from_agent else max(0, spare_bytes(vm)))
    return max(from_bytes, size_bytes - round_down(idle, vm.config.virtio_mem_block_bytes))


def unused(vm: Vm, now: float) -> int | None:
    """The size without what the guest plugged and did not bring online; None when there is no such thing."""
    device = vm.virtio_mem
    if now < vm.unplug_rest.until or not device.settled:
        return None
    if vm.guest.stats is not None and not _counted_since_it_moved(vm):
        return None  # they may count what an agent that has stuck does not
    idle = round_up(idle_bytes(vm), vm.config.virtio_mem_block_bytes)
    if idle < MIB or now - max(device.moved_at, device.asked_at, vm.since) < OFFLINE_SECONDS:
        return None
    return max(0, device.requested_bytes - idle)
