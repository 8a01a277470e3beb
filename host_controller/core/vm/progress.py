"""Does a balloon follow its target? One that does not is charged with what it holds and left in peace."""

from typing import Final

from host_controller.core.vm.record import CONTRADICTED, LIVE, SETTLING, STARTING, Vm
from host_controller.units import KIB, MIB, format_size, round_up

ON_TARGET_BYTES: Final = 1 * MIB
STEP_BYTES: Final = 256 * KIB
"""A driver that moves less than this between two looks is not moving."""
PATIENCE_IN_NEED: Final = 5.0
PATIENCE: Final = 20.0
"""Seconds without progress after which a VM counts as uncooperative; peers: squeezed."""
REST: Final = 60.0
"""Seconds before an uncooperative VM is asked again, unless it moves by itself."""
CORRECTION: Final = 5.0
"""Seconds between two corrections of a balloon that somebody else moved: who forges `actual` again and again
is found out within them, since each correction is followed by a moment of truth."""
NUDGE_BYTES: Final = 4 * KIB
"""A driver writes `actual` when it moves: told to stay where it is it would leave a forged one there."""


def follow(vm: Vm, *, needed: bool, now: float) -> str | None:
    """Compare the balloon with its target; corrects the target where they part and says what happened.

    needed: somebody waits for memory, so patience is short.
    """
    target = vm.target_bytes
    present = vm.present_bytes
    moves = vm.phase is LIVE or (vm.phase is STARTING and vm.facts is not None)
    if target is None or not moves or vm.hands_off or vm.held:
        settled = now - vm.sent_at > SETTLING
        if target is not None and vm.phase is CONTRADICTED and settled and _may_correct(vm, now):
            # Whatever was forged stays until its driver writes: an honest one does, and is believed again.
            _correct(vm, now)
            _nudge(vm, target)
        _moves(vm, present, now)
        return None
    gap = present - target
    if -ON_TARGET_BYTES <= gap <= ON_TARGET_BYTES:
        _moves(vm, present, now)
        return None
    towards = vm.progress_bytes - present if gap > 0 else present - vm.progress_bytes
    if towards >= STEP_BYTES:
        vm.stuck_until = min(vm.stuck_until, now)
        _moves(vm, present, now)
        return None
    if towards <= -ON_TARGET_BYTES and _astray(vm, present, now) and _may_correct(vm, now):
        _moves(vm, present, now)
        _correct(vm, now)
        if gap < 0:
            _nudge(vm, target)
        return (
            f"the balloon of {vm.name} went to {format_size(present)} without us: "
            f"{format_size(target)} was sent again"
        )
    patience = PATIENCE_IN_NEED if needed else PATIENCE
    if now - max(vm.progress_at, vm.sent_at) <= patience:
        return None
    # An unreachable target makes the driver try five times a second for ever
    # (fact: unreachable-target-retries).
    _moves(vm, present, now)
    vm.stuck_until = now + REST
    vm.target_bytes = min(vm.ram_bytes, round_up(present, KIB))
    vm.resend = True
    return (
        f"{vm.name} did not follow its balloon target of {format_size(target)}; it is left at "
        f"{format_size(present)} for {REST:.0f} s"
    )


def _astray(vm: Vm, present: int, now: float) -> bool:
    """No target of ours explains where the balloon is: a new one does not hide what somebody else has set."""
    lowest, highest = vm.followed_bytes(now)
    return not lowest - ON_TARGET_BYTES <= present <= highest + ON_TARGET_BYTES


def _may_correct(vm: Vm, now: float) -> bool:
    return now - vm.corrected_at > CORRECTION


def _correct(vm: Vm, now: float) -> None:
    vm.corrected_at, vm.resend = now, True


def _nudge(vm: Vm, target: int) -> None:
    """Ask for a page more, or for that page back: again and again it is still the same target."""
    up = target // NUDGE_BYTES % 2 == 0 and target < vm.ram_bytes
    vm.target_bytes = target + (NUDGE_BYTES if up else -NUDGE_BYTES)


def _moves(vm: Vm, present_bytes: int, now: float) -> None:
    vm.progress_at, vm.progress_bytes = now, present_bytes
