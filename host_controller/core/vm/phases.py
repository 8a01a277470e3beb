"""How far the claims of a guest's balloon can be relied upon, from start to stop.

A balloon's `actual` is what the guest's driver wrote, and it survives the guest that wrote it: after a
reset it is stale until the new kernel's driver is up (fact: actual-survives-reset), and root in the guest
can forge it (fact: actual-is-a-claim). So a VM costs all of its RAM until three witnesses agree: the driver
answers, the balloon has moved since the boot, and the host's own count of resident memory is not above the
claim.
"""

import math
from typing import Final

from host_controller.core.model import RUNNING, GuestFacts, Settings
from host_controller.core.vm.demand import Transit
from host_controller.core.vm.record import CONTRADICTED, HUNG, LIVE, STARTING, TAKEOVER, Vm
from host_controller.units import MIB

LATE_NEWS_SECONDS: Final = 1.0
"""QEMU holds a BALLOON_CHANGE back for so long after the last one."""
MOVE_GRACE_SECONDS: Final = 1.5
"""So a BALLOON_CHANGE this soon after a reset may be older than the reset."""
CONTRADICTION_SECONDS: Final = 3.0
"""A claim and a sample of another moment differ while memory moves; longer is a contradiction."""
RECONCILED_SECONDS: Final = 10.0


def reset(vm: Vm, now: float) -> None:
    """The guest's kernel starts again: nothing that its driver once said holds.

    The new kernel's driver obeys the old target at once, counted from RAM that it may not see (facts:
    dimm-counts-at-once, dimms-survive-reset): it is given all of that RAM, which it is charged with anyway.
    """
    vm.reboot(now)
    vm.guest.forget()
    vm.dimms.survive()
    vm.virtio_mem.starts_anew(now)
    vm.balloon.start_anew(vm.ram_bytes, vm.boot_target_bytes)
    vm.progress.forgive(now)


def take_over(vm: Vm, now: float) -> None:
    """We do not know what it was last told."""
    vm.enter(TAKEOVER, now)
    vm.balloon.forget_target()


def balloon_moved(vm: Vm, actual_bytes: int, now: float) -> None:
    """The driver wrote `actual`: it can rise at once, and falls only once resident memory agrees."""
    if now - vm.reset_at >= MOVE_GRACE_SECONDS or vm.phase is not STARTING:
        vm.balloon.seen_moving()
    vm.balloon.read(actual_bytes, now)


def unseen_seconds(vm: Vm, now: float) -> float:
    """For how long its balloon may already have been what it is seen to be only now."""
    return min(now - vm.balloon.actual_at, LATE_NEWS_SECONDS)


def confirm(vm: Vm, guest_bytes: int, overhead_bytes: int, now: float, huge_bytes: int = 0) -> None:
    """Take in the host's own count; a claim made before it may be spent if the two agree."""
    vm.evidence.count(guest_bytes, overhead_bytes, huge_bytes, now)
    vm.balloon.confirm(now)
    vm.evidence.set_apart(vm.balloon.claim_bytes, vm.virtio_mem, now)


def await_plug(vm: Vm, size_bytes: int, now: float) -> None:
    """A controller before us asked for a DIMM; no other is asked for until it is there or will not come."""
    vm.plug.inherit(size_bytes, now)
    vm.plug_rest.hold(math.inf)


def plug_came(vm: Vm, now: float) -> None:
    """Or will not come any more."""
    vm.plug.arrived()
    vm.plug_rest.hold(now)


def heard(vm: Vm, facts: GuestFacts) -> None:
    """Take in the guest's own view."""
    vm.guest.heard(facts, vm.balloon.actual_bytes, _transit(vm, facts))
    if facts.from_agent:
        vm.reports(facts.at)


def _transit(vm: Vm, facts: GuestFacts) -> Transit:
    """What its kernel may tell of virtio-mem on its way: one memory block at a time.

    It is bounded by what the device may hold by the host's word (QEMU's may be of before a growth): so
    nobody's demand is taken for that for longer than what was asked for may be on its way.
    """
    device, block = vm.virtio_mem, vm.guest.block_bytes
    counted = facts.usable_bytes - vm.balloon.actual_bytes
    # Set aside is a whole block, as long as by its own count one is still to leave.
    leaves = min(device.may_hold_bytes, counted) - device.requested_bytes
    comes = 0 if device.steady(facts.at) else min(max(0, device.requested_bytes - counted), block)
    return Transit(block if leaves > block - MIB else 0, comes)


def advance(vm: Vm, settings: Settings, now: float) -> None:
    """Move the phase as far as the evidence goes."""
    found = _contradiction(vm)
    if found is not None or vm.evidence.contradiction is not None:
        vm.evidence.find(found, now)
    if _goes_on_without_plug(vm):
        plug_came(vm, now)
    phase = vm.phase
    if phase is LIVE:
        if vm.evidence.contradiction is not None or now - vm.guest.reported_at > settings.hang_seconds:
            _from_live(vm, settings, now)
    elif phase is STARTING:
        if _answers_since(vm, vm.since) and (vm.balloon.moved or vm.balloon.actual_bytes >= vm.ram_bytes):
            _started(vm, now)
    elif phase is TAKEOVER:
        if _taken_over(vm):
            vm.enter(LIVE, now)
    elif phase is HUNG:
        if _answers_since(vm, vm.since):
            take_over(vm, now)
    elif _reconciled(vm, now):
        take_over(vm, now)


def _goes_on_without_plug(vm: Vm) -> bool:
    """Commands to one VM are carried out in order: after one of ours nothing is left of those before."""
    return vm.balloon.ours and vm.balloon.actual_at >= vm.plug.awaited_until


def _started(vm: Vm, now: float) -> None:
    if vm.balloon.ours:
        vm.enter(LIVE, now)
    else:
        take_over(vm, now)  # it was reset before it had answered us: an old target may still come


def _from_live(vm: Vm, settings: Settings, now: float) -> None:
    """Of those that are contradicted, or whose agent is silent."""
    evidence = vm.evidence
    if evidence.contradiction and now - evidence.contradicted_at >= CONTRADICTION_SECONDS:
        vm.enter(CONTRADICTED, now)
    elif now - _last_sign(vm) > settings.hang_seconds and vm.pauses.state is RUNNING:
        vm.enter(HUNG, now)


def _taken_over(vm: Vm) -> bool:
    """A target of ours is in force, and driver, balloon and host agree about it."""
    balloon, evidence = vm.balloon, vm.evidence
    return (
        balloon.target_bytes is not None
        and not balloon.sent
        and not balloon.resend  # a confirmation that failed or timed out is none
        and _answers_since(vm, vm.since)
        and balloon.actual_at > vm.since
        and evidence.resident_at >= balloon.actual_at
        and balloon.actual_bytes <= balloon.target_bytes + MIB
        and evidence.contradiction is None
    )


def _reconciled(vm: Vm, now: float) -> bool:
    evidence = vm.evidence
    return evidence.contradiction is None and now - max(evidence.agreed_at, vm.since) >= RECONCILED_SECONDS


def _last_sign(vm: Vm) -> float:
    """Of life. While its vCPUs stand still a VM owes none, and can take nothing."""
    return max(vm.guest.stats_at, vm.guest.reported_at, vm.since, vm.pauses.ran_at)


def _answers_since(vm: Vm, when: float) -> bool:
    return max(vm.guest.stats_at, vm.guest.reported_at) > when


def _unexplained(vm: Vm, above: int) -> int:
    """What of these bytes above a claim virtio-mem does not explain."""
    return max(0, above - vm.virtio_mem.may_hold_bytes) if above > 0 else 0


def _contradiction(vm: Vm) -> str | None:
    """Compare what the guest claims with what the host and the guest's own kernel say."""
    balloon, evidence = vm.balloon, vm.evidence
    excess = _unexplained(vm, evidence.resident_bytes - balloon.claim_bytes)
    if not excess and not evidence.refilled_bytes:
        evidence.agrees()  # most VMs, in every step
    else:
        holes = max(0, vm.ram_bytes - balloon.claim_bytes)
        borne_out = evidence.bears_out(excess, vm.resident_tolerance_bytes(), holes)
        if not borne_out and evidence.resident_at >= balloon.actual_at:
            return "resident memory is above what the balloon claims to leave"
    facts = vm.guest.facts
    if vm.phase is LIVE and facts is not None and facts.from_agent:
        # A balloon that has inflated since the kernel spoke is no lie.
        claimed, before = balloon.actual_bytes, vm.guest.actual_when_heard_bytes
        claimed = claimed if claimed > before else before
        above = _unexplained(vm, facts.usable_bytes + vm.offline_bytes - claimed)
        if above and above > vm.resident_tolerance_bytes():
            return "the guest's kernel has more memory than its balloon claims to leave"
    return None
