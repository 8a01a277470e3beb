"""What a guest can do without, by all that is known of it: the bound of every command that takes memory.

Everything here is about one VM. Sizes called `…target` and `aim` are in QEMU's terms (offline DIMMs count as
given), all others are usable memory.
"""

from enum import Enum, auto
from typing import Final

from host_controller.core.model import BalloonStats, Settings
from host_controller.core.policy.dead_band import SMALLEST_DEAD_BAND, shrink_dead_band
from host_controller.core.vm.balloon import PAGE_BYTES
from host_controller.core.vm.demand import is_at_end, margin_bytes, swappable_bytes
from host_controller.core.vm.record import Vm
from host_controller.core.vm.squeeze import step_bytes
from host_controller.units import MIB, round_down, round_up

SMALL_STEP_SECONDS: Final = 30.0
"""A step that is small since no more is to be given is named so long after the last one, at the earliest."""
SMALL_SECONDS: Final = 1.0
"""Less than is worth a command is asked for no more often, however urgent it is."""
HEARD_SECONDS: Final = 7.5
ANSWER_SECONDS: Final = 1.5
FOLLOWED_BYTES: Final = 4 * MIB
"""A balloon this close to its target has followed it."""
AGENTLESS_EXTRA: Final = 16
"""1/16 of usable stays free on top where only balloon statistics speak: they come late and say less."""


def heard_lately(vm: Vm, now: float) -> bool:
    """The guest has spoken recently enough to take memory from it (rule: fresh-or-still).

    At rest that is within one and a half heartbeats. Once a step has been sent its memory moves, so its
    agent speaks several times a second: a guest that has fallen silent since is not shrunk further.
    """
    facts = vm.guest.facts
    if facts is None or now - facts.at > HEARD_SECONDS or facts.at < vm.virtio_mem.moved_at:
        return False
    return facts.at >= vm.sent_at or now - max(facts.at, vm.sent_at) <= ANSWER_SECONDS


def newer_stats(vm: Vm) -> BalloonStats | None:
    """What the balloon's driver has said since the agent's last word; None if nothing.

    The first statistics of all count: where they are older, they can only make a guest seem to have less.
    """
    facts, stats = vm.guest.facts, vm.guest.stats
    return stats if facts is not None and facts.from_agent and vm.guest.stats_came_at > facts.at else None


def available_bytes(vm: Vm) -> int:
    """What the guest has available: the less of what its agent and, since then, its balloon's driver said."""
    assert vm.guest.facts is not None
    available, stats = vm.guest.facts.available_bytes, newer_stats(vm)
    return available if stats is None else min(available, stats.available_bytes)


def total_bytes(vm: Vm) -> int:
    """What its kernel manages: the less of what its agent and, since then, its balloon's driver said."""
    assert vm.guest.facts is not None
    total, stats = vm.guest.facts.total_bytes, newer_stats(vm)
    return total if stats is None else min(total, stats.total_bytes)


def spare_bytes(vm: Vm) -> int:
    """What the guest has available beyond a margin, by whoever spoke last; negative below that."""
    facts = vm.guest.facts
    assert facts is not None
    kept = margin_bytes(facts.usable_bytes)
    spare = facts.available_bytes - kept
    if facts.from_agent:
        if (stats := newer_stats(vm)) is not None:
            used = stats.total_bytes - stats.available_bytes
            spare = min(spare, stats.available_bytes - kept, facts.total_bytes - used - kept)
        return spare
    spare -= facts.usable_bytes // AGENTLESS_EXTRA
    if vm.guest.kernel_bytes is None and (vm.dimms.plugged or vm.virtio_mem.current_bytes):
        # How much of it is offline is a guess, by up to a block: only what its kernel shows is sure.
        spare = min(spare, facts.total_bytes - vm.config.limits.minimum_bytes)
    return spare


def by_kernel_bytes(vm: Vm) -> int:
    """Where its balloon was by its kernel's last word, QEMU's terms; its driver may have said less since."""
    facts = vm.guest.facts
    assert facts is not None
    shown = facts.usable_bytes - vm.virtio_mem.current_bytes + vm.offline_bytes
    # What newer statistics say is available was so where the balloon was by then.
    return shown if newer_stats(vm) is None else max(shown, vm.guest.actual_with_stats_bytes)


def untaken_bytes(vm: Vm) -> int:
    """What its balloon was told to take and had not when its kernel last spoke: it is not spare any more."""
    present = max(vm.present_bytes, vm.guest.actual_when_heard_bytes, by_kernel_bytes(vm))
    return max(0, present - vm.entitled_bytes)


def ungiven_bytes(vm: Vm) -> int:
    """What its balloon was told to give back and has not: it does not have that, and may never come to."""
    return max(0, vm.entitled_bytes - max(vm.present_bytes, by_kernel_bytes(vm)))


def leaving_bytes(vm: Vm) -> int:
    """What it has of its virtio-mem and was asked to give back, be it by somebody else: that is not spare."""
    device = vm.virtio_mem
    asked = min(device.requested_bytes, device.confirmed_bytes) if device.unsure else device.requested_bytes
    return max(0, device.current_bytes - vm.offline_bytes - asked)


def seen_bytes(vm: Vm) -> int:
    """What the host sees a guest hold that says less, QEMU's terms; 0 where the two are near each other."""
    seen = vm.evidence.resident_bytes - vm.virtio_mem.may_hold_bytes
    return seen if seen > vm.balloon.actual_bytes + vm.resident_tolerance_bytes() else 0


def runs_short(vm: Vm) -> bool:
    """Whether a guest that memory is leaving has come to need it.

    What is available tells, and not the estimate: the kernel sets the free pages of a block that it takes
    offline aside at once, which looks like demand, and like sudden growth.
    """
    facts = vm.guest.facts
    if facts is None:
        return False
    return available_bytes(vm) < facts.floor_bytes + margin_bytes(facts.usable_bytes)


def at_its_end(vm: Vm) -> bool:
    """Whether a guest that is to give back what it had to spare has used that up itself."""
    facts = vm.guest.facts
    return facts is not None and is_at_end(available_bytes(vm), facts.usable_bytes)


def works_with_bytes(vm: Vm) -> int:
    """What is taken of a guest by steps alone: what its programs hold, and cache that it reads again.

    0 where nobody counts what is read again.
    """
    facts, estimate = vm.guest.facts, vm.guest.estimate
    if facts is None or estimate is None or not facts.from_agent:
        return 0
    again = min(estimate.cache_bytes, estimate.need_bytes - estimate.unswapped_bytes)
    return estimate.unswapped_bytes + again if again > 0 else 0


def rested_bytes(vm: Vm) -> int:
    """Below it the guest reads back at once what it puts away. It is brought there only for who stalls."""
    facts, estimate = vm.guest.facts, vm.guest.estimate
    assert facts is not None
    assert estimate is not None
    return estimate.unswapped_bytes - max(0, swappable_bytes(facts) - estimate.hot_swap_bytes)


def squeezed_bytes(vm: Vm, keeps_bytes: int, now: float, *, starved: bool) -> int:
    """What may be taken now beyond what the guest can do without, so that it comes down to `keeps_bytes`.

    0 but where others need what it works with, its cache or its swap gives it, and its balloon has followed
    the last step. starved: one of them stalls.
    """
    facts, estimate = vm.guest.facts, vm.guest.estimate
    assert facts is not None
    if estimate is None or not facts.from_agent:
        return 0
    most = max(estimate.unswapped_bytes, works_with_bytes(vm))
    if keeps_bytes >= most:
        return 0
    followed = vm.present_bytes <= vm.entitled_bytes + FOLLOWED_BYTES and facts.at >= vm.sent_at
    if not vm.squeeze.ask(now) or not followed:
        return 0
    lowest = estimate.irreducible_bytes if starved else max(estimate.irreducible_bytes, rested_bytes(vm))
    # What it has come to use since its agent spoke may be put away nowhere.
    lowest += max(0, facts.available_bytes - available_bytes(vm))
    room = min(most - max(keeps_bytes, lowest), facts.usable_bytes - lowest)
    return max(0, min(room, step_bytes(facts.usable_bytes, vm.guest.demand.stall.share)))


def lowest_target(vm: Vm, settings: Settings, squeezed: int = 0) -> int:
    """The lowest balloon target that one command may name now (rule: small-steps), QEMU's terms.

    Not further below where the guest is than what it has to spare and is squeezed by, nor than its
    balloon inflates in a second: a controller that dies leaves no guest shrinking far.
    """
    facts = vm.guest.facts
    assert facts is not None
    rate = int(vm.balloon.inflate_rate) or settings.inflate_bytes_per_second
    if not facts.from_agent:
        rate //= 2
    present, spare = vm.present_bytes, spare_bytes(vm) - leaving_bytes(vm)
    # Its balloon says where it is, and its kernel: of two moments, so the larger one is sure.
    lowest = max(by_kernel_bytes(vm), present) - squeezed
    return max(lowest - spare if spare > 0 else lowest, present - rate)


def target_with(vm: Vm, usable_bytes: int) -> int:
    """The balloon's target under which the guest has so much, QEMU's terms.

    While virtio-mem stays, the balloon takes its place, but not the memory that a kernel boots with.
    """
    return max(
        usable_bytes + vm.offline_bytes - vm.virtio_mem.requested_bytes, vm.config.limits.minimum_bytes
    )


class Urgency(Enum):
    """How small a step may be that is taken at once."""

    NONE = auto()
    AT_ONCE = auto()
    """A small step does not wait."""
    EVERY_PAGE = auto()
    """Nor does a single page for long: the overdraft lasts."""


def _device_moves(vm: Vm, now: float, *, stands_in: bool) -> bool:
    """Which of balloon and virtio-mem gave or took what the guest has now, only time shows."""
    device = vm.virtio_mem
    return vm.config.virtio_mem_bytes > 0 and not (device.rests(now) if stands_in else device.steady(now))


def shrink_target(
    vm: Vm,
    aim: int,
    settings: Settings,
    now: float,
    urgency: Urgency = Urgency.NONE,
    squeezed: int = 0,
    *,
    stands_in: bool = False,
) -> int | None:
    """The next target of a shrinking balloon; None while the last one is still being followed.

    The next step is named before the last one ends, so that the driver never stops in between.
    stands_in: it gives what the guest's virtio-mem device does not, as soon as that one rests.
    """
    if not heard_lately(vm, now) or _device_moves(vm, now, stands_in=stands_in):
        return None
    rate = int(vm.balloon.inflate_rate) or settings.inflate_bytes_per_second
    if urgency is Urgency.EVERY_PAGE:
        aim = round_down(aim, PAGE_BYTES)
    target = round_up(max(aim, lowest_target(vm, settings, squeezed)), PAGE_BYTES)
    entitled = vm.entitled_bytes
    ahead = vm.present_bytes - entitled
    worthwhile = min(entitled - aim, shrink_dead_band(entitled), rate // 4)
    if squeezed:
        # What is left of a page is no reason to wait here either: it would be for ever.
        worthwhile = min(worthwhile, squeezed // 2) - PAGE_BYTES
    elif urgency is Urgency.EVERY_PAGE and now - vm.sent_at >= SMALL_SECONDS:
        worthwhile = 1
    elif urgency is not Urgency.NONE or now - vm.sent_at >= SMALL_STEP_SECONDS:
        worthwhile -= PAGE_BYTES  # what is left of a page is no reason to wait any longer
    if entitled - target < max(1, worthwhile) or (ahead > rate // 2 and target > aim):
        return None
    if entitled - target < SMALLEST_DEAD_BAND and now - vm.sent_at < SMALL_SECONDS:
        return None  # its need falls by a little with each report: that makes a step in a second
    return target
