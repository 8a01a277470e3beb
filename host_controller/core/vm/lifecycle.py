"""How far the claims of a guest's balloon can be relied upon, from start to stop.

A balloon's `actual` is what the guest's driver wrote, and it survives the guest that wrote it: after a
reset it is stale until the new kernel's driver is up (fact: actual-survives-reset), and root in the guest
can forge it
(fact: actual-is-a-claim). So a VM costs all of its RAM until three witnesses agree: the driver answers,
the balloon has
moved since the boot, and the host's own count of resident memory is not above the claim.
"""

import math

from host_controller.core.model import RUNNING, GuestFacts, Settings
from host_controller.core.vm.record import CONTRADICTED, HUNG, LIVE, STARTING, TAKEOVER, Phase, Vm
from host_controller.units import MIB

LATE_NEWS_SECONDS = 1.0
"""QEMU holds a BALLOON_CHANGE back for so long after the last one."""
MOVE_GRACE_SECONDS = 1.5
"""So a BALLOON_CHANGE this soon after a reset may be older than the reset."""
CONTRADICTION_SECONDS = 3.0
"""A claim and a sample of another moment differ while memory moves; longer is a contradiction."""
RECONCILED_SECONDS = 10.0
LATE_PLUG_SECONDS = 10.0
"""For so long a QEMU that answers may still be plugging a DIMM."""
REFILL_BYTES = 16 * MIB
REFILL_SECONDS = 10.0
"""The host's khugepaged makes whole huge pages of those that a balloon has punched holes into, and fills them
with memory: by default it scans so much at once, so often."""


def reset(vm: Vm, now: float) -> None:
    """The guest's kernel starts again: nothing that its driver once said holds."""
    _enter(vm, STARTING, now)
    vm.booted_at = vm.reset_at = now
    vm.moved = False
    vm.facts = vm.boot_id = vm.zone = None
    vm.estimate = None
    vm.stats = None
    vm.claim_bytes = vm.ram_bytes
    vm.demand = type(vm.demand)()


def take_over(vm: Vm, now: float) -> None:
    """We do not know what it was last told."""
    _enter(vm, TAKEOVER, now)
    vm.target_bytes = None


def balloon_moved(vm: Vm, actual_bytes: int, now: float) -> None:
    """The driver wrote `actual`: it can rise at once, and falls only once resident memory agrees."""
    if now - vm.reset_at >= MOVE_GRACE_SECONDS or vm.phase is not STARTING:
        vm.moved = True
    claim(vm, actual_bytes, now)


def claim(vm: Vm, actual_bytes: int, now: float) -> None:
    """Take in a reading of `actual`."""
    vm.actual_bytes, vm.actual_at = actual_bytes, now
    vm.claim_bytes = max(vm.claim_bytes, actual_bytes)


def unseen_seconds(vm: Vm, now: float) -> float:
    """For how long its balloon may already have been what it is seen to be only now."""
    return min(now - vm.actual_at, LATE_NEWS_SECONDS)


def confirm(vm: Vm, guest_bytes: int, overhead_bytes: int, now: float, huge_bytes: int = 0) -> None:
    """Take in the host's own count; a claim made before it may be spent if the two agree."""
    vm.resident_bytes, vm.resident_at, vm.huge_bytes = guest_bytes, now, huge_bytes
    vm.overhead_bytes = max(vm.overhead_bytes, overhead_bytes)
    if vm.actual_at <= now:
        vm.claim_bytes = vm.actual_bytes


def await_plug(vm: Vm, size_bytes: int, now: float) -> None:
    """A controller before us asked for a DIMM: it is paid for until it comes or QEMU, which may hang, goes on
    without it. No other is asked for meanwhile.
    """
    vm.pending_plug_bytes = size_bytes
    vm.awaited_until = now + LATE_PLUG_SECONDS
    vm.plug_refused_until = math.inf


def plug_came(vm: Vm, now: float) -> None:
    """Or will not come any more."""
    vm.pending_plug_bytes, vm.awaited_until, vm.plug_refused_until = 0, math.inf, now


def heard(vm: Vm, facts: GuestFacts) -> None:
    """Take in the guest's own view."""
    vm.facts, vm.actual_when_heard_bytes = facts, vm.actual_bytes
    vm.demand.observe(facts)
    if facts.from_agent:
        vm.reported_at = facts.at


def advance(vm: Vm, settings: Settings, now: float) -> None:
    """Move the phase as far as the evidence goes."""
    _weigh_evidence(vm, now)
    if vm.actual_at >= vm.awaited_until:
        plug_came(vm, now)
    phase = vm.phase
    if phase is LIVE:
        if vm.contradiction and now - vm.contradicted_at >= CONTRADICTION_SECONDS:
            _enter(vm, CONTRADICTED, now)
        elif (
            now - vm.reported_at > settings.hang_seconds  # of few; what follows takes longer
            and now - _last_sign(vm) > settings.hang_seconds
            and vm.state is RUNNING
        ):
            _enter(vm, HUNG, now)
    elif phase is STARTING:
        if _answers_since(vm, vm.since) and (vm.moved or vm.actual_bytes >= vm.ram_bytes):
            _enter(vm, LIVE, now)
    elif phase is TAKEOVER:
        if (
            vm.target_bytes is not None
            and not vm.sent
            and not vm.resend  # a confirmation that failed or timed out is none
            and _answers_since(vm, vm.since)
            and vm.actual_at > vm.since
            and vm.resident_at >= vm.actual_at
            and vm.actual_bytes <= vm.target_bytes + MIB
            and vm.contradiction is None
        ):
            _enter(vm, LIVE, now)
    elif phase is HUNG:
        if _answers_since(vm, vm.since):
            take_over(vm, now)
    elif vm.contradiction is None and now - max(vm.agreed_at, vm.since) >= RECONCILED_SECONDS:
        take_over(vm, now)


def _enter(vm: Vm, phase: Phase, now: float) -> None:
    vm.phase, vm.since = phase, now


def _last_sign(vm: Vm) -> float:
    """Of life. While its vCPUs stand still a VM owes none, and can take nothing."""
    return max(vm.stats_at, vm.reported_at, vm.since, vm.ran_at)


def _answers_since(vm: Vm, when: float) -> bool:
    return max(vm.stats_at, vm.reported_at) > when


def _unexplained(vm: Vm, above: int) -> int:
    """What of these bytes above a claim virtio-mem does not explain."""
    return max(0, above - vm.virtio_mem.may_hold_bytes) if above > 0 else 0


def _borne_out(vm: Vm, excess: int) -> bool:
    """Whether resident memory may lie so far above the claim: what the host filled in by itself is charged,
    and no lie of the guest's.

    A guest that grows for a while hides it. It is still there, as long as there are holes and huge pages to
    hold it, and shows again when the guest shrinks.
    """
    if not excess and not vm.refilled_bytes:  # of most VMs, in every step
        vm.borne_out_at = vm.resident_at
        return True
    tolerance = vm.resident_tolerance_bytes()
    seconds = vm.resident_at - vm.borne_out_at
    filled = vm.refilled_bytes + REFILL_BYTES * (1.0 + seconds / REFILL_SECONDS)
    if excess > tolerance + min(vm.huge_bytes, filled):
        return False
    beyond = max(0, excess - tolerance)
    holes = max(0, vm.ram_bytes - vm.claim_bytes)
    kept = min(vm.refilled_bytes, vm.huge_bytes, holes)
    if seconds >= REFILL_SECONDS or beyond <= kept:
        vm.refilled_bytes, vm.borne_out_at = max(beyond, kept), vm.resident_at
    return True


def _weigh_evidence(vm: Vm, now: float) -> None:
    """Compare what the guest claims with what the host and the guest's own kernel say."""
    found = None
    facts = vm.facts
    excess = _unexplained(vm, vm.resident_bytes - vm.claim_bytes)
    if not _borne_out(vm, excess) and vm.resident_at >= vm.actual_at:
        found = "resident memory is above what the balloon claims to leave"
    if found is None and vm.phase is LIVE and facts is not None and facts.from_agent:
        # A balloon that has inflated since the kernel spoke is no lie.
        claimed = max(vm.actual_bytes, vm.actual_when_heard_bytes)
        above = _unexplained(vm, facts.usable_bytes + vm.offline_bytes - claimed)
        if above > vm.resident_tolerance_bytes():
            found = "the guest's kernel has more memory than its balloon claims to leave"
    if found is None:
        if vm.contradiction is not None:
            vm.agreed_at = now
        vm.contradiction = None
    elif vm.contradiction is None:
        vm.contradiction, vm.contradicted_at = found, now
