"""A target is said again: to take over, after QEMU changed it behind our back, or after an error."""

from host_controller.core.books.charge import in_force
from host_controller.core.grants.purse import Purse
from host_controller.core.policy import plan, spare
from host_controller.core.policy.plan import CORRECT
from host_controller.core.vm.balloon import PAGE_BYTES
from host_controller.core.vm.check_progress import NUDGE_BYTES
from host_controller.core.vm.record import STARTING, Vm
from host_controller.units import round_down, round_up


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
    told = vm.balloon.target_bytes
    target = _still_right(vm, purse, vm.balloon.actual_bytes if told is None else told)
    purse.pay(vm, purse.cost(vm, target))
    reason = "its size is confirmed before anything else" if told is None else "its target is sent again"
    purse.send(vm, target)
    purse.say(vm, CORRECT, goal, reason, target_bytes=target)


def _still_right(vm: Vm, purse: Purse, target: int) -> int:
    """An old target in the light of what is known now: the guest and the host may have changed since."""
    told = target = min(vm.ram_bytes, target)
    booting = vm.phase is STARTING and vm.guest.facts is None and not vm.balloon.moved
    if booting:
        return target  # its kernel touches what it likes, and is charged with it
    present = vm.present_bytes
    heard = spare.heard_lately(vm, purse.now)
    # `actual` may be forged: what the guest's kernel uses counts, too, or what the host sees.
    lowest = spare.lowest_target(vm, purse.state.settings) if heard else spare.seen_bytes(vm)
    lowest = min(vm.ram_bytes, round_up(lowest, PAGE_BYTES))
    target, present = max(target, lowest, _least(vm)), max(present, lowest)
    if target < present:
        return target if heard else present
    if purse.headroom_bytes < 0:
        # Nobody is told to have more than it may have already, however little its kernel can spare
        # (rule: overdraft-named). Doubts charge it with more, and that is no consent of ours; nor is what the
        # host sees it hold beyond both, or what it lacks on its way down, be it into its own swap.
        # What was never sent, such as a page more that makes a driver write, is not what it was told.
        stays = min(present, in_force(vm), max(min(told, vm.balloon.ceiling_bytes), vm.present_bytes))
        return stays - NUDGE_BYTES if abs(told - stays) == NUDGE_BYTES else stays
    unpaid = max(0, purse.cost(vm, target) - purse.headroom_bytes)
    return round_down(target - unpaid, PAGE_BYTES) if unpaid else target


def _least(vm: Vm) -> int:
    """Its minimum, which may have been raised since it was told its target; QEMU's terms."""
    if vm.balloon.target_bytes is None:
        return 0  # a takeover begins with where it is
    return min(vm.ram_bytes, round_up(spare.target_with(vm, vm.config.limits.minimum_bytes), PAGE_BYTES))
