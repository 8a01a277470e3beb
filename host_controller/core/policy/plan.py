"""From what a VM should have to what is done about it: the next step, small enough to be safe.

Everything here is about one VM. `settle` turns the goal into at most one action; the engine pays for
it. Sizes called `…target` and `aim` are in QEMU's terms (offline DIMMs count as given), all others are
usable memory.
"""

from enum import StrEnum
from typing import Final, NamedTuple

from agent import wire
from host_controller.core.model import HOTADD, RUNNING, UNTRUSTED, BalloonStats, Settings
from host_controller.core.policy.balance import Claims
from host_controller.core.vm.demand import Estimate, margin_bytes
from host_controller.core.vm.record import CONTRADICTED, HUNG, TAKEOVER, Vm
from host_controller.units import KIB, MIB, format_size, round_down, round_up

MOVABLE_RATIO: Final = 3
"""Movable to kernel memory: above it the kernel starves (fact: movable-ratio)."""
MEMMAP_SHARE: Final = 32
"""A DIMM's page structures may take half of what the guest has free (fact: page-structures-need-memory)."""
MEMMAP_OF: Final = 64
"""Page structures are 1/64 of the memory that they describe."""
PLUG_SECONDS: Final = 0.5
"""From the guest's last word to the placing of page structures."""
UNPLUG_SPARE_BYTES: Final = 64 * MIB
"""Beyond the DIMM's own size this much must be unused, or it would be plugged again soon."""
UNPLUG_SECONDS: Final = 5.0
"""What it may take a DIMM to leave, while nothing can be given to its guest (fact: unplug-may-be-refused)."""
HEARD_SECONDS: Final = 7.5
ANSWER_SECONDS: Final = 1.5
AGENTLESS_EXTRA: Final = 16
"""1/16 of usable stays free on top where only balloon statistics speak: they come late and say less."""


class Action(StrEnum):
    """What was decided for a VM."""

    HOLD = "hold"
    GROW = "grow"
    SHRINK = "shrink"
    PLUG = "plug"
    UNPLUG = "unplug"
    CORRECT = "correct"
    WAIT = "wait"


HOLD, GROW, SHRINK, PLUG, UNPLUG, CORRECT, WAIT = Action
"""Quicker to look up, as in `model.py`."""


class Decision(NamedTuple):
    """What was decided for one VM, why, and from what: explain, log, history and metrics render this."""

    at: float
    vm: str
    action: Action
    reason: str
    held_bytes: int
    """What it may use now."""
    goal_bytes: int | None
    """What the balance gives it; None when it cannot be moved."""
    target_bytes: int | None = None
    """The balloon target sent, in QEMU's terms."""
    size_bytes: int | None = None
    """Of the DIMM, or of the change of virtio-mem."""
    zone: wire.Zone | None = None
    alias: str | None = None
    held_back: str | None = None
    """What keeps the VM from its goal, in words."""
    estimate: Estimate | None = None


SMALLEST_DEAD_BAND: Final = 4 * MIB
LEAST_SHRINK_BYTES: Final = 16 * MIB


def grow_dead_band(usable_bytes: int) -> int:
    """Growth smaller than this is not worth a command."""
    share = usable_bytes // 128
    return share if share > SMALLEST_DEAD_BAND else SMALLEST_DEAD_BAND  # `max` takes thrice as long


def shrink_dead_band(usable_bytes: int) -> int:
    """An excess smaller than this is left alone: hysteresis against the growth just granted."""
    share = usable_bytes // 24
    return share if share > LEAST_SHRINK_BYTES else LEAST_SHRINK_BYTES


def reachable(vm: Vm, now: float) -> bool:
    """A balloon target may be sent at all."""
    return now >= vm.retry_at and not (vm.hands_off or vm.held or vm.fault or vm.sent)


def immovable(vm: Vm, settings: Settings, now: float) -> str | None:
    """Why nothing is asked of this VM now, in words; None when it can be moved."""
    if vm.fault is not None:
        return f"left alone after an internal error ({vm.fault}); restart the VM or the controller"
    if vm.config.huge_page_bytes is not None:
        return "its RAM lies in huge pages, which no balloon gives back"
    if vm.held:
        return "paused by the operator"
    if vm.stopped:
        return "it stands still after its reset"
    if vm.state is not RUNNING:
        return f"the VM is {vm.state}"
    if vm.job is not None:
        return f"{vm.job} in progress"
    if now < vm.retry_at:
        return "a command failed a moment ago; it is tried again"
    if vm.phase is TAKEOVER:
        return "just taken over: its balloon has not confirmed its size"
    if vm.phase is HUNG:
        return "the guest does not answer"
    if vm.phase is CONTRADICTED:
        return f"not believed: {vm.contradiction or 'its claims must hold for a while first'}"
    if vm.estimate is None:
        return "the guest has not reported yet"
    if not vm.fresh(now, settings.stale_seconds):
        return "nothing fresh is known about the guest"
    return None


def claims(vm: Vm, held: int, settings: Settings, now: float) -> Claims:
    """What a movable VM asks of the balance while it has been given `held` bytes."""
    estimate = vm.estimate
    assert estimate is not None
    # What is plugged and not online, or on its way, it has beside this.
    ceiling = vm.growth_ceiling_bytes - vm.pending_plug_bytes - vm.offline_bytes
    lower, need, desired = estimate.lower_bytes, estimate.need_bytes, estimate.desired_bytes
    if desired > ceiling:
        lower, need, desired = min(lower, ceiling), min(need, ceiling), ceiling
    if vm.config.pinned is not None or vm.config.trust is UNTRUSTED:
        # Ballooning it frees nothing that could be given to others.
        lower, need, desired = max(lower, held), max(need, held), max(desired, held)
    lasting = settings.shrink_after_seconds
    peak = vm.demand.peak(desired, lasting, now)
    if held <= desired:
        keep = desired
    elif now - vm.grown_at < lasting or now - vm.booted_at < max(settings.settle_seconds, lasting):
        keep = held
    else:
        keep = held if held <= peak + shrink_dead_band(held) else max(desired, min(peak, ceiling))
    return Claims(vm.config.limits.weight, lower, need, desired, keep)


def next_dimm_slack(vm: Vm, desired_bytes: int) -> int:
    """What is kept for a VM's next DIMM, which is paid at full size: a block while it is near the end of its
    RAM and none is paid for yet, and never more than it lacks of its maximum (rule: harm-stays-home).
    """
    most = vm.config.limits.maximum_bytes
    hot = vm.config.growth is HOTADD and vm.ram_bytes < most
    if not hot or vm.pending_plug_bytes:
        return 0
    near = desired_bytes > vm.ram_bytes - vm.offline_bytes - vm.block_bytes
    return max(0, min(vm.block_bytes, most - desired_bytes)) if near else 0


def growth_bytes(vm: Vm) -> int:
    """How much it grows in a second, as far as others keep memory ready for it: at most its minimum.

    That much it is charged with whatever it says, so all that it can make others give up, its goal and what
    is kept ready for it, is within its maximum (rule: harm-stays-home).
    """
    return min(int(vm.demand.slope), vm.config.limits.minimum_bytes)


def heard_lately(vm: Vm, now: float) -> bool:
    """The guest has spoken recently enough to take memory from it (rule: fresh-or-still).

    At rest that is within one and a half heartbeats. Once a step has been sent its memory moves, so its
    agent speaks several times a second: a guest that has fallen silent since is not shrunk further.
    """
    facts = vm.facts
    if facts is None or now - facts.at > HEARD_SECONDS or facts.at < vm.virtio_mem.moved_at:
        return False
    return facts.at >= vm.sent_at or now - max(facts.at, vm.sent_at) <= ANSWER_SECONDS


def newer_stats(vm: Vm) -> BalloonStats | None:
    """What the balloon's driver has said since the agent's last word; None if nothing."""
    facts, stats = vm.facts, vm.stats
    return stats if facts is not None and facts.from_agent and vm.stats_at > facts.at else None


def available_bytes(vm: Vm) -> int:
    """What the guest has available: the less of what its agent and, since then, its balloon's driver said."""
    assert vm.facts is not None
    available, stats = vm.facts.available_bytes, newer_stats(vm)
    return available if stats is None else min(available, stats.available_bytes)


def spare_bytes(vm: Vm) -> int:
    """What the guest has available beyond a margin, by whoever spoke last; negative below that."""
    facts = vm.facts
    assert facts is not None
    kept = margin_bytes(facts.usable_bytes)
    spare = available_bytes(vm) - kept
    if not facts.from_agent:
        spare -= facts.usable_bytes // AGENTLESS_EXTRA
        if vm.kernel_bytes is None and (vm.dimms or vm.virtio_mem.current_bytes):
            # How much of it is offline is a guess, by up to a block: only what its kernel shows is sure.
            spare = min(spare, facts.total_bytes - vm.config.limits.minimum_bytes)
        return spare
    if (stats := newer_stats(vm)) is not None:
        used = stats.total_bytes - stats.available_bytes
        spare = min(spare, facts.total_bytes - used - kept)
    return spare


def seen_bytes(vm: Vm) -> int:
    """What the host sees a guest hold that says less, QEMU's terms; 0 where the two are near each other."""
    seen = vm.resident_bytes - vm.virtio_mem.may_hold_bytes
    return seen if seen > vm.actual_bytes + vm.resident_tolerance_bytes() else 0


def lowest_target(vm: Vm, settings: Settings) -> int:
    """The lowest balloon target that one command may name now (rule: small-steps), QEMU's terms.

    Not further below where the guest is than what it has to spare, nor than its
    balloon inflates in a second: a controller that dies leaves no guest shrinking far.
    """
    facts = vm.facts
    assert facts is not None
    rate = int(vm.inflate_rate) or settings.inflate_bytes_per_second
    if not facts.from_agent:
        rate //= 2
    # Where it is, its balloon says, and its kernel: of two moments, so the larger one is sure.
    by_kernel = facts.usable_bytes - vm.virtio_mem.current_bytes + vm.offline_bytes
    present = vm.present_bytes
    return max(max(by_kernel, present) - max(0, spare_bytes(vm)), present - rate)


def shrink_target(vm: Vm, aim: int, settings: Settings, now: float) -> int | None:
    """The next target of a shrinking balloon; None while the last one is still being followed.

    The next step is named before the last one ends, so that the driver never stops in between.
    """
    if not heard_lately(vm, now) or (vm.config.virtio_mem_bytes and not vm.virtio_mem.steady(now)):
        return None  # which of the two gave or took what it has now, only time shows
    rate = int(vm.inflate_rate) or settings.inflate_bytes_per_second
    target = round_up(max(aim, lowest_target(vm, settings)), 4 * KIB)
    entitled = vm.entitled_bytes
    ahead = vm.present_bytes - entitled
    worthwhile = min(entitled - aim, shrink_dead_band(entitled), rate // 4)
    if entitled - target < max(1, worthwhile) or (ahead > rate // 2 and target > aim):
        return None
    return target


def next_dimm(vm: Vm, wanted_bytes: int, payable_bytes: int) -> tuple[int, str | None]:
    """The size of the DIMM to plug now and what limits it; size 0 when none can be.

    At least what is wanted now, in whole memory blocks, and large enough that the slots left reach maximum;
    small enough for the guest to place its page structures and for the host to pay at full size. Not what it
    is going to want: the next DIMM follows within 0.2 s, and Linux before 6.8 keeps the page structures of
    no more than one block in the DIMM itself, and else looks for them in what the guest has run out of.
    """
    facts = vm.facts
    assert facts is not None
    block = vm.block_bytes
    remaining = round_down(vm.config.limits.maximum_bytes - vm.ram_bytes, block)
    slots_left = vm.config.slots - len(vm.dimms)
    if vm.config.growth is not HOTADD or remaining <= 0:
        return 0, "it has all of its maximum"
    if slots_left <= 0:
        return 0, "all its DIMM slots are used"
    fair_size = round_up(remaining // slots_left, block)
    size = min(remaining, max(round_up(wanted_bytes, block), fair_size))
    bearable = bearable_dimm(vm)
    if bearable < block:
        return 0, "the guest has too little free memory for the page structures of another DIMM"
    if round_down(payable_bytes, block) < block:
        return 0, (
            f"a DIMM of {format_size(block)} must be paid for at full size, "
            f"and {format_size(max(0, payable_bytes))} is free"
        )
    return min(size, bearable, round_down(payable_bytes, block)), None


def bearable_dimm(vm: Vm) -> int:
    """The largest DIMM whose page structures the guest can place now, in whole memory blocks."""
    facts = vm.facts
    assert facts is not None
    block = vm.block_bytes
    available = available_bytes(vm)
    taken_meanwhile = int(vm.demand.slope * PLUG_SECONDS)
    bearable = MEMMAP_SHARE * max(0, available - facts.floor_bytes - taken_meanwhile)
    droppable = facts.free_bytes + facts.reclaimable_bytes
    if available == facts.available_bytes and bearable < block <= MEMMAP_OF * droppable:
        # At its floor a guest is past waiting: one block's structures fit into what its kernel keeps free, or
        # can drop; unless it has come to have less since it said so.
        bearable = block
    return round_down(bearable, block)


def unplug_raise(vm: Vm, dimm_bytes: int, goal: int) -> int | None:
    """The target under which the guest can give a DIMM up, QEMU's terms; None when it cannot.

    QEMU keeps the ballooned amount, so a target higher by the DIMM leaves the guest what it has. What the
    balloon cannot give back the guest must have free, and must not want.
    """
    estimate, facts = vm.estimate, vm.facts
    if estimate is None or facts is None:
        return None
    wanted = max(goal, min(estimate.desired_bytes, vm.growth_ceiling_bytes))
    wanted += int(vm.demand.slope * UNPLUG_SECONDS)
    # A guest at its minimum has its spare memory within that: no DIMM stays for it.
    at_minimum = estimate.desired_bytes <= vm.config.limits.minimum_bytes
    spare = 0 if at_minimum else UNPLUG_SPARE_BYTES
    if vm.ram_bytes - vm.offline_bytes - dimm_bytes < wanted + spare:
        return None
    raised = min(vm.ram_bytes, vm.entitled_bytes + dimm_bytes)
    short = dimm_bytes - (raised - vm.entitled_bytes)
    return raised if short <= 0 or spare_bytes(vm) >= short else None


def misses(vm: Vm) -> bool:
    """Whether a guest that memory is leaving has come to need it.

    What is available tells, and not the estimate: the kernel sets the free pages of a block that it takes
    offline aside at once, which looks like demand, and like sudden growth.
    """
    facts = vm.facts
    if facts is None:
        return False
    return available_bytes(vm) < facts.floor_bytes + margin_bytes(facts.usable_bytes)


def zone_for(vm: Vm, size_bytes: int) -> wire.Zone:
    """Movable, so that it can be unplugged again, up to 3:1; beyond that the kernel needs it."""
    facts = vm.facts
    assert facts is not None
    kernel = max(0, facts.online_bytes - facts.movable_bytes)
    return "movable" if facts.movable_bytes + size_bytes <= MOVABLE_RATIO * kernel else "kernel"
