"""Does a balloon follow its target? One that does not is charged with what it holds and left in peace."""

from dataclasses import dataclass
from typing import Final

from host_controller.core.model import BALLOON
from host_controller.core.vm.balloon import PAGE_BYTES, SETTLING
from host_controller.core.vm.record import CONTRADICTED, LIVE, STARTING, Vm
from host_controller.units import KIB, MIB, format_size, round_up

ON_TARGET_BYTES: Final = 1 * MIB
STEP_BYTES: Final = 256 * KIB
"""A driver that moves less than this between two looks is not moving."""
PATIENCE_IN_NEED: Final = 5.0
PATIENCE: Final = 20.0
"""Seconds without progress after which a VM counts as uncooperative; peers: squeezed."""
NUDGE_BYTES: Final = PAGE_BYTES
"""A driver writes `actual` when it moves: told to stay where it is it would leave a forged one there."""


@dataclass(frozen=True, slots=True)
class Astray:
    """Somebody else moved the balloon: its target is sent again."""

    present_bytes: int
    target_bytes: int

    def describe(self, name: str) -> str:
        """For people."""
        return (
            f"the balloon of {name} went to {format_size(self.present_bytes)} without us: "
            f"{format_size(self.target_bytes)} was sent again"
        )


@dataclass(frozen=True, slots=True)
class Stuck:
    """It did not follow for long: it is left where it is for a while."""

    present_bytes: int
    target_bytes: int
    seconds: float
    """How long it is left there."""

    def describe(self, name: str) -> str:
        """For people."""
        return (
            f"{name} did not follow its balloon target of {format_size(self.target_bytes)}; it is left at "
            f"{format_size(self.present_bytes)} for {self.seconds:.0f} s"
        )


def check_progress(vm: Vm, *, needed: bool, now: float) -> Astray | Stuck | None:
    """Compare the balloon with its target, and correct the target where they part; None where all is well.

    needed: somebody waits for memory, so patience is short.
    """
    balloon, progress = vm.balloon, vm.progress
    target, present = balloon.target_bytes, vm.present_bytes
    gap = 0 if target is None else present - target
    on_target = -ON_TARGET_BYTES <= gap <= ON_TARGET_BYTES
    if target is None or (on_target and vm.phase is not CONTRADICTED):  # most of them
        _is_there(vm, now)
        return None
    if not _may_move(vm):
        if vm.phase is CONTRADICTED:
            _ask_for_the_truth(vm, target, now)
        progress.stands(present, now)
        return None
    towards = progress.present_bytes - present if gap > 0 else present - progress.present_bytes
    if towards >= STEP_BYTES:
        progress.goes_on(present, now)
        return None
    if towards <= -ON_TARGET_BYTES and _astray(vm, present, now) and progress.may_correct(now):
        progress.stands(present, now)
        progress.correct(now)
        balloon.aim(_nudged(vm, target) if gap < 0 else target)
        return Astray(present, target)
    if now - max(progress.at, vm.sent_at) <= _patience(vm, gap, needed=needed):
        return None
    # An unreachable target makes the driver try five times a second for ever
    # (fact: unreachable-target-retries).
    progress.give_up(present, now, growing=gap < 0)
    balloon.aim(min(vm.ram_bytes, round_up(present, KIB)))
    return Stuck(present, target, progress.stuck_until - now)


def _is_there(vm: Vm, now: float) -> None:
    """On its target; it may have come all the way between two looks."""
    progress, present = vm.progress, vm.present_bytes
    if abs(present - progress.present_bytes) >= STEP_BYTES:
        progress.goes_on(present, now)
    else:
        progress.stands(present, now)


def _patience(vm: Vm, gap: int, *, needed: bool) -> float:
    """Seconds. One that can be given memory beside its balloon waits for that itself."""
    waits = needed or (gap < 0 and vm.config.growth is not BALLOON)
    return PATIENCE_IN_NEED if waits else PATIENCE


def _may_move(vm: Vm) -> bool:
    """Its driver is up, and we may tell it where to go."""
    up = vm.phase is LIVE or (vm.phase is STARTING and vm.guest.facts is not None)
    return up and not (vm.pauses.hands_off or vm.pauses.paused)


def _ask_for_the_truth(vm: Vm, target: int, now: float) -> None:
    """Whatever was forged stays until its driver writes: an honest one does, and is believed again."""
    if now - vm.sent_at > SETTLING and vm.progress.may_correct(now):
        vm.progress.correct(now)
        vm.balloon.aim(_nudged(vm, target))


def _astray(vm: Vm, present: int, now: float) -> bool:
    """No target of ours explains where the balloon is: a new one does not hide what somebody else has set."""
    lowest, highest = vm.followed_bytes(now)
    return not lowest - ON_TARGET_BYTES <= present <= highest + ON_TARGET_BYTES


def _nudged(vm: Vm, target: int) -> int:
    """A page more, or that page back: asked for again and again it is still the same target."""
    up = target // NUDGE_BYTES % 2 == 0 and target < vm.ram_bytes
    return target + (NUDGE_BYTES if up else -NUDGE_BYTES)
