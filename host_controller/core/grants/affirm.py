"""A target is said again: to take over, after QEMU changed it behind our back, or after an error."""

from typing import Final

from host_controller.core.grants.purse import Purse
from host_controller.core.policy import plan, spare
from host_controller.core.policy.plan import CORRECT
from host_controller.core.vm.record import STARTING, Vm
from host_controller.units import KIB, round_down

PAGE_BYTES: Final = 4 * KIB


def must_be_affirmed(vm: Vm, now: float) -> bool:
    """Its balloon's target is not, or may not be, what it should be, and can be said."""
    balloon = vm.balloon
    if balloon.target_bytes is not None:
        return balloon.resend and plan.reachable(vm, now)
    # What the XML calls current memory misses DIMMs: a takeover waits for QEMU's own word.
    heard = vm.evidence.resident_at >= balloon.actual_at > vm.since
    return heard and plan.reachable(vm, now)


def affirm(vm: Vm, purse: Purse, goal: int | None) -> None:
    """Say its target again, or for the first time where it is."""
    last = vm.balloon.target_bytes
    target = _still_right(vm, purse, last)
    purse.pay(vm, purse.cost(vm, target))
    reason = "its size is confirmed before anything else" if last is None else "its target is sent again"
    purse.send(vm, target)
    purse.say(vm, CORRECT, goal, reason, target_bytes=target)


def _still_right(vm: Vm, purse: Purse, last: int | None) -> int:
    """An old target in the light of what is known now: the guest and the host may have changed since."""
    target = min(vm.ram_bytes, vm.balloon.actual_bytes if last is None else last)
    booting = vm.phase is STARTING and vm.guest.facts is None and not vm.balloon.moved
    if booting:
        return target  # its kernel touches what it likes, and is charged with it
    present = vm.present_bytes
    heard = spare.heard_lately(vm, purse.now)
    # `actual` may be forged: what the guest's kernel uses counts, too, or what the host sees.
    lowest = spare.lowest_target(vm, purse.state.settings) if heard else spare.seen_bytes(vm)
    # A kernel tells its memory in KiB, and a balloon moves by pages: less than one is no difference.
    lowest = round_down(min(vm.ram_bytes, lowest), PAGE_BYTES)
    target, present = max(target, lowest), max(present, lowest)
    if target < present:
        return target if heard else present
    if purse.headroom_bytes < 0:
        kept = min(present, purse.accounts[vm.config.uuid].guest_charge)
        # What it was told last stands, or where it is: a guest's other figures lift it no further.
        return kept if last is None else min(kept, max(last, vm.balloon.actual_bytes))
    return target - max(0, purse.cost(vm, target) - purse.headroom_bytes)
