"""What was decided for a VM, whether it can be moved, and what it asks of the balance."""

from enum import StrEnum
from typing import Final, NamedTuple

from agent import wire
from host_controller.core.model import RUNNING, UNTRUSTED, VIRTIO_MEM, Settings
from host_controller.core.policy.balance import Claims
from host_controller.core.policy.dead_band import grow_dead_band as grow_dead_band
from host_controller.core.policy.dead_band import shrink_dead_band as shrink_dead_band
from host_controller.core.vm.demand import Estimate
from host_controller.core.vm.record import CONTRADICTED, HUNG, TAKEOVER, Vm

LIKELY_PERCENT: Final = 40
"""So much of its peaks a VM has before anybody has the rest: the heaviest one's highest peak, which hardly
ever comes, is worth less than what the lightest one meets all the time."""


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
    granted_bytes: int
    """What it may use now."""
    goal_bytes: int | None
    """What the balance gives it; None when it cannot be moved."""
    target_bytes: int | None = None
    """The balloon target sent, in QEMU's terms."""
    size_bytes: int | None = None
    """Of the DIMM, or of the change of virtio-mem."""
    zone: wire.Zone | None = None
    alias: str | None = None
    blocked_by: str | None = None
    """What keeps the VM from its goal, in words."""
    estimate: Estimate | None = None


def reachable(vm: Vm, now: float) -> bool:
    """A balloon target may be sent at all."""
    pauses = vm.pauses
    return now >= vm.balloon.retry_at and not (pauses.hands_off or pauses.left_alone or vm.balloon.sent)


def immovable(vm: Vm, settings: Settings, now: float) -> str | None:
    """Why nothing is asked of this VM now, in words; None when it can be moved."""
    pauses = vm.pauses
    if pauses.fault is not None:
        return f"left alone after an internal error ({pauses.fault}); restart the VM or the controller"
    if vm.config.huge_page_bytes is not None:
        return "its RAM lies in huge pages, which no balloon gives back"
    if pauses.paused:
        return "paused by the operator"
    if pauses.stopped:
        return "it stands still after its reset"
    if pauses.state is not RUNNING:
        return f"the VM is {pauses.state}"
    if pauses.job is not None:
        return f"{pauses.job} in progress"
    if now < vm.balloon.retry_at:
        return "a command failed a moment ago; it is tried again"
    if vm.phase is TAKEOVER:
        return "just taken over: its balloon has not confirmed its size"
    if vm.phase is HUNG:
        return "the guest does not answer"
    if vm.phase is CONTRADICTED:
        return f"not believed: {vm.evidence.contradiction or 'its claims must hold for a while first'}"
    if vm.guest.estimate is None:
        return "the guest has not reported yet"
    if not vm.fresh(now, settings.stale_seconds):
        return "nothing fresh is known about the guest"
    return None


def claims(vm: Vm, granted: int, aside: int, settings: Settings, now: float) -> Claims:
    """What a movable VM asks of the balance while it has been given `granted` bytes.

    aside: bytes that are plugged and not online, or on their way. It has them beside this.
    """
    config, estimate = vm.config, vm.guest.estimate
    assert estimate is not None
    startup = config.limits.startup_bytes
    ceiling = vm.growth_ceiling_bytes - aside
    irreducible, need = estimate.irreducible_bytes, estimate.need_bytes
    eased, desired = estimate.eased_bytes, estimate.desired_bytes
    level, lasting = vm.guest.demand.level, settings.shrink_after_seconds
    steady, likely = desired, eased
    if (peaks := level.peaks_bytes) or vm.guest.demand.awaited_bytes:
        apart = int(level.demand_bytes) - estimate.guest_bytes
        least = config.limits.minimum_bytes
        # What was raised to the minimum stays there.
        irreducible, need, steady = (
            max(least, size + apart) if size > least else size for size in (irreducible, need, desired)
        )
        asked = max(peaks, estimate.stall_bytes)
        # What its work needs, which may be far below the minimum: noise within that asks for nothing.
        works = estimate.demand_bytes + estimate.margin_bytes + estimate.ahead_bytes + apart
        likely, eased = max(need, works + asked * LIKELY_PERCENT // 100), max(need, works + asked)
        # Its noise takes from its buffer, but demand that goes on where it used to turn meets all of it.
        desired = max(eased, steady, desired)
    peak = vm.guest.demand.peak(desired, lasting, now)
    # A buffer does not follow noise: it stays where the last peak was, as far as that was noise.
    desired = max(desired, min(peak, steady + peaks))
    if desired > ceiling:
        irreducible, need = min(irreducible, ceiling), min(need, ceiling)
        eased, desired = min(eased, ceiling), ceiling
    if desired < startup and vm.starts_small(now, settings.settle_seconds):
        desired = max(desired, min(startup, ceiling))
    elif vm.awaits_startup(now, settings.settle_seconds):
        # What it boots with was chosen as what it needs until then, whatever its balloon's statistics say.
        boots = min(startup, ceiling, granted)
        need, eased, desired = max(need, boots), max(eased, boots), max(desired, boots)
    if config.pinned is not None or config.trust is UNTRUSTED:
        # Ballooning it frees nothing that could be given to others.
        irreducible, need = max(irreducible, granted), max(need, granted)
        eased, desired = max(eased, granted), max(desired, granted)
    if granted <= desired:
        keep = desired
    elif now - vm.grown_at < lasting or now - vm.booted_at < max(settings.settle_seconds, lasting):
        keep = granted if granted < ceiling else ceiling  # above its maximum nothing is kept
    else:
        lasts = granted <= peak + shrink_dead_band(granted)
        keep = max(desired, min(granted if lasts else peak, ceiling))
    likely = min(max(likely, need), eased)
    return Claims(config.limits.weight, irreducible, need, likely, eased, desired, keep)


def unmoved_bytes(vm: Vm, granted: int, now: float) -> int:
    """What of the `granted` bytes stays with a VM whose balloon does not move; 0 where it does.

    A virtio-mem device gives back without it, once it has been told to stay where it is: until then the
    balloon may still take what the device would.
    """
    if not vm.progress.stuck(now):
        return 0
    gives = vm.config.growth is VIRTIO_MEM and not (vm.balloon.resend or vm.balloon.sent)
    return granted - vm.virtio_mem.requested_bytes if gives else granted


def at_least(claims: Claims, size: int) -> Claims:
    """Of a VM that keeps so much whatever others need, and may grow."""
    weight, *sizes = claims
    return Claims(weight, *(max(claimed, size) for claimed in sizes))


def needs_at_least(claims: Claims, size: int) -> Claims:
    """Of a VM that needs so much in all, and could be left with as little as before."""
    weight, irreducible, *sizes = claims
    return Claims(weight, irreducible, *(max(claimed, size) for claimed in sizes))


def growth_bytes(vm: Vm) -> int:
    """How much it grows in a second, as far as others keep memory ready for it: at most its minimum.

    That much it is charged with whatever it says, so all that it can make others give up, its goal and what
    is kept ready for it, is within its maximum (rule: harm-stays-home).
    """
    growth, most = int(vm.guest.demand.motion.growth), vm.config.limits.minimum_bytes
    return growth if growth < most else most
