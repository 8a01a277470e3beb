"""The next DIMM of a VM: how large, in which zone, and when one can leave."""

from typing import Final

from agent import wire
from host_controller.core.model import HOTADD
from host_controller.core.policy.spare import available_bytes, spare_bytes, untaken_bytes
from host_controller.core.vm.balloon import PAGE_BYTES
from host_controller.core.vm.record import Vm
from host_controller.units import MIB, format_size, round_down, round_up

MOVABLE_RATIO: Final = 3
"""Movable to kernel memory: above it the kernel starves (fact: movable-ratio)."""
MEMMAP_SHARE: Final = 32
"""A DIMM's page structures may take half of what the guest has free (fact: page-structures-need-memory)."""
MEMMAP_OF: Final = 64
"""Page structures are 1/64 of the memory that they describe."""
PLUG_SECONDS: Final = 0.5
"""From the guest's last word to the placing of page structures."""
KEPT_SHARE: Final = 3
"""A third of what a guest's kernel keeps free, or can drop, may go for page structures."""
SWAP_SHARE: Final = 4
"""And a quarter of its free swap."""
LEAST_GAIN_BYTES: Final = 32 * MIB
"""A DIMM that adds less to what can be paid for is not worth its page structures and its slot."""
HELD_BEYOND_BYTES: Final = 8 * MIB
"""What others cost changes a little until the DIMM is there."""
LAST_WORD_SECONDS: Final = 15.0
"""A guest at its floor that has said nothing for so long may have less by now, or hang."""
UNPLUG_SPARE_BYTES: Final = 64 * MIB
"""Beyond the DIMM's own size this much must be unused, or it would be plugged again soon."""
UNPLUG_SECONDS: Final = 5.0
"""What it may take a DIMM to leave, while nothing can be given to its guest (fact: unplug-may-be-refused)."""


def next_dimm_slack(vm: Vm, desired_bytes: int) -> int:
    """What is kept for a VM's next DIMM, which is paid at full size: a block while it is near the end of its
    RAM and none is paid for yet, and never more than it lacks of its maximum (rule: harm-stays-home).
    """
    most = vm.config.limits.maximum_bytes
    hot = vm.config.growth is HOTADD and vm.ram_bytes < most
    if not hot or vm.plug.pending_bytes or len(vm.dimms.plugged) >= vm.config.slots:
        return 0
    block = vm.guest.block_bytes
    near = desired_bytes > vm.ram_bytes - vm.offline_bytes - block
    return max(0, min(least_dimm(vm), most - desired_bytes)) if near else 0


def least_dimm(vm: Vm) -> int:
    """The smallest DIMM after which the slots that are left still reach maximum: one memory block, or more
    where they would not, though each of them added half of the RAM that there is by then.

    Half of RAM, since any guest can place page structures of 1/128 of what it has. No more is waited for
    where that leads to less than maximum, either: a guest that has run out would never come to bear it, and
    once it has room again it is given its part of the way. Only the last slot waits for all that is missing.
    """
    most, block = vm.config.limits.maximum_bytes, vm.guest.block_bytes
    missing, before_last = round_down(most - vm.ram_bytes, block), most
    left = vm.config.slots - len(vm.dimms.plugged)
    if left <= 1:
        return missing
    for _ in range(left - 1):
        before_last = before_last * 2 // 3
        if before_last <= vm.ram_bytes:
            return min(missing, block)
    size = min(before_last - vm.ram_bytes, vm.ram_bytes // 2)
    return min(missing, round_up(size, block))


def next_dimm(vm: Vm, wanted_bytes: int, payable_bytes: int, now: float) -> tuple[int, str | None]:
    """The size of the DIMM to plug now and what limits it; size 0 when none can be.

    At least what is wanted now, and an equal part of the way to maximum for each slot that is left; small
    enough for the guest to place its page structures and for the host to pay at full size. Where that makes
    it so small that the slots would run out below maximum, it waits (`least_dimm`). Not what it is going to
    want: the next DIMM follows within 0.2 s, and Linux before 6.8 keeps the page structures of no more than
    one block in the DIMM itself, and else looks for them in what the guest has run out of.
    """
    facts = vm.guest.facts
    assert facts is not None
    block = vm.guest.block_bytes
    remaining = round_down(vm.config.limits.maximum_bytes - vm.ram_bytes, block)
    slots_left = vm.config.slots - len(vm.dimms.plugged)
    if vm.config.growth is not HOTADD or remaining <= 0:
        return 0, "it has all of its maximum"
    if slots_left <= 0:
        return 0, "all its DIMM slots are used"
    fair_size = round_up(remaining // slots_left, block)
    size = min(remaining, max(round_up(wanted_bytes, block), fair_size))
    least = least_dimm(vm)
    for_slots = "" if least <= block else f"; the slots left, {slots_left}, are to reach its maximum"
    bearable = bearable_dimm(vm, now)
    if bearable < least:
        of = "another DIMM" if least <= block else f"a DIMM of {format_size(least)}"
        return 0, f"the guest has too little free memory for the page structures of {of}{for_slots}"
    if round_down(payable_bytes, block) < least:
        return 0, (
            f"a DIMM of {format_size(least)} must be paid for at full size, "
            f"and {format_size(max(0, payable_bytes))} is free{for_slots}"
        )
    return min(size, bearable, round_down(payable_bytes, block)), None


def held_back(vm: Vm, wanted_bytes: int, charged_bytes: int, headroom_bytes: int) -> int:
    """What its balloon keeps while DIMMs come, so that the last of them can be paid for at full size.

    wanted_bytes: what it is to have in all, QEMU's terms. Not more than a memory block. 0: nothing, as all of
    the DIMMs can be paid for, or as it is charged with too much already: what a guest has it may use.
    """
    beyond_ram = charged_bytes + headroom_bytes - vm.ram_bytes
    gain, least = min(wanted_bytes - vm.ram_bytes, beyond_ram), least_dimm(vm)
    if gain < LEAST_GAIN_BYTES or least <= 0:
        return 0
    block, holds = vm.guest.block_bytes, vm.ram_bytes - charged_bytes
    short = max(least, round_up(gain, block)) - beyond_ram
    return min(short + HELD_BEYOND_BYTES, holds) if 0 < short <= min(holds, block) else 0


def bearable_dimm(vm: Vm, now: float) -> int:
    """The largest DIMM whose page structures the guest can place now, in whole memory blocks.

    A DIMM comes whole. So its kernel is let make room for one, of the size of its RAM at most: it swaps, or
    uses what it keeps for such a time (fact: structures-by-reclaim). Only by its fresh word.
    """
    facts = vm.guest.facts
    assert facts is not None
    at_ease = bearable_step(vm, now)
    if not _still_so(vm, now):
        return at_ease
    kept = facts.free_bytes + facts.reclaimable_bytes
    room = MEMMAP_OF * max(kept // KEPT_SHARE, facts.swap_free_bytes // SWAP_SHARE)
    return max(at_ease, round_down(min(room, vm.ram_bytes), vm.guest.block_bytes))


def bearable_step(vm: Vm, now: float) -> int:
    """How much new memory the guest can describe of what it has available, in whole memory blocks."""
    facts = vm.guest.facts
    assert facts is not None
    block = vm.guest.block_bytes
    available = available_bytes(vm)
    taken_meanwhile = int(vm.guest.demand.slope * PLUG_SECONDS)
    bearable = MEMMAP_SHARE * max(0, available - facts.floor_bytes - taken_meanwhile)
    droppable = facts.free_bytes + facts.reclaimable_bytes
    if bearable < block <= MEMMAP_OF * droppable and _still_so(vm, now):
        # At its floor a guest is past waiting: one block's structures fit into what its kernel keeps free, or
        # can drop.
        bearable = block
    return round_down(bearable, block)


def _still_so(vm: Vm, now: float) -> bool:
    """What the guest last said of its free memory is lately said, and nobody has told of less since."""
    facts = vm.guest.facts
    assert facts is not None
    return now - facts.at <= LAST_WORD_SECONDS and available_bytes(vm) == facts.available_bytes


def unplug_raise(vm: Vm, dimm_bytes: int, goal: int) -> int | None:
    """The target under which the guest can give a DIMM up, QEMU's terms; None when it cannot.

    QEMU keeps the ballooned amount, so a target higher by the DIMM leaves the guest what it has. What the
    balloon cannot give back the guest must have free, and must not want.
    """
    estimate, facts = vm.guest.estimate, vm.guest.facts
    if estimate is None or facts is None:
        return None
    wanted = max(goal, min(estimate.desired_bytes, vm.growth_ceiling_bytes))
    wanted += int(vm.guest.demand.slope * UNPLUG_SECONDS)
    # A guest at its minimum has its spare memory within that: no DIMM stays for it.
    at_minimum = estimate.desired_bytes <= vm.config.limits.minimum_bytes
    spare = 0 if at_minimum else UNPLUG_SPARE_BYTES
    keeps = vm.ram_bytes - vm.offline_bytes - dimm_bytes
    if keeps < wanted + spare and not beyond_maximum(vm, dimm_bytes):
        return None
    entitled, has_spare = vm.entitled_bytes, spare_bytes(vm) - untaken_bytes(vm)
    raised = min(vm.ram_bytes, entitled + dimm_bytes)
    if beyond_maximum(vm, dimm_bytes):
        # It is to have no more than maximum, and what it has to spare the host need not have.
        lent = max(entitled, entitled + dimm_bytes - max(0, has_spare))
        least = max(lent, vm.config.limits.maximum_bytes + vm.offline_bytes)
        raised = min(raised, round_up(least, PAGE_BYTES))
    short = dimm_bytes - (raised - entitled)
    return raised if short <= 0 or has_spare >= short else None


def beyond_maximum(vm: Vm, dimm_bytes: int) -> bool:
    """Without this DIMM it has all that it may have, so the DIMM is of no use: its maximum was lowered, or it
    is being released.
    """
    return vm.ram_bytes - vm.offline_bytes - dimm_bytes >= vm.config.limits.maximum_bytes


def zone_for(vm: Vm, size_bytes: int) -> wire.Zone:
    """Movable, so that it can be unplugged again, up to 3:1; beyond that the kernel needs it."""
    facts = vm.guest.facts
    assert facts is not None
    kernel = max(0, facts.online_bytes - facts.movable_bytes)
    return "movable" if facts.movable_bytes + size_bytes <= MOVABLE_RATIO * kernel else "kernel"
