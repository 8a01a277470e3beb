"""What a guest says: its agent's messages, or the statistics of its balloon where no agent speaks."""

from typing import assert_never

from agent import wire
from host_controller.core import interface as hv
from host_controller.core.model import BalloonStats
from host_controller.core.state import State
from host_controller.core.vm import phases
from host_controller.core.vm.record import STARTING, Vm
from host_controller.core.vm.report_validation import (
    Contradiction,
    counts_back,
    facts_from_report,
    facts_from_stats,
)


def take(vm: Vm, event: hv.GuestEvent, state: State, now: float) -> None:
    """Take in one of them."""
    match event:
        case hv.GuestSpoke():
            _spoke(vm, event.untrusted_message, state, now)
        case hv.GuestNoise():
            vm.guest.count(event.kind, event.count)
        case hv.GuestRead():
            _read(vm, event.untrusted_reading, state, now)
        case hv.GuestGone():
            vm.guest.agent_left()
            state.notice(now, "agent", vm, f"the agent of {vm.name} left")
        case hv.ChannelChanged():
            vm.guest.channel_is(event.error)
            what = "is open" if event.error is None else f"cannot be opened on this host: {event.error}"
            state.notice(now, "channel", vm, f"the agent's port of {vm.name} {what}")
        case _:
            assert_never(event)


def judge_by_stats(
    vm: Vm, untrusted: BalloonStats, now: float, untrusted_reading: hv.GuestReading | None = None
) -> None:
    """No agent speaks: the balloon's statistics stand in for it, or a reading of the same moment."""
    guest = vm.guest
    # A stale `actual` of an earlier boot says nothing about this one (fact: actual-survives-reset).
    actual = vm.balloon.actual_bytes if vm.balloon.moved or vm.phase is not STARTING else vm.ram_bytes
    plugged, last = vm.virtio_mem.current_bytes, guest.stats
    grown = vm.dimms.plugged or plugged
    at_rest = actual == vm.balloon.target_bytes and last and last.total_bytes == untrusted.total_bytes
    if not grown and at_rest:
        # Then the two figures are of one moment.
        guest.keeps_for_its_kernel(max(0, actual - untrusted.total_bytes))
        if guest.actual_when_heard_bytes == actual:
            guest.is_seen_at_rest(untrusted.total_bytes, actual)
    if guest.counts_balloon and not grown:
        # What is on its way into the balloon may be in one of the two figures and not yet in the other.
        actual = max(actual, vm.followed_bytes(now)[1])
        total = min(untrusted.total_bytes, actual)
        untrusted = BalloonStats(total, min(untrusted.available_bytes, total), untrusted.updated)
    facts = facts_from_stats(
        untrusted,
        config=vm.config,
        ram_bytes=vm.ram_bytes + plugged,
        actual_bytes=actual + plugged,
        unseen_bytes=vm.virtio_mem.may_hold_bytes - plugged,
        now=now,
        sequence=untrusted.updated,
        kernel_bytes=guest.kernel_bytes,
        block_bytes=guest.block_bytes,
    )
    if isinstance(facts, Contradiction):
        guest.count(facts.kind)
        return
    if untrusted_reading is not None:
        guest.was_read(untrusted_reading, now)
    phases.heard(vm, guest.with_reading(facts, now))


def _read(vm: Vm, untrusted: hv.GuestReading, state: State, now: float) -> None:
    """Through its QEMU guest agent: as statistics, with counters besides."""
    if vm.has_agent(now, state.settings.stale_seconds):
        return
    was_read = vm.guest.is_read(now)
    stats = BalloonStats(untrusted.total_bytes, untrusted.available_bytes, int(now))
    judge_by_stats(vm, stats, now, untrusted)
    if vm.guest.is_read(now) and not was_read:
        state.notice(now, "agent", vm, f"{vm.name} is read through its QEMU guest agent")


def _spoke(vm: Vm, untrusted: wire.GuestMessage, state: State, now: float) -> None:
    match untrusted:
        case wire.Report():
            _reported(vm, untrusted, state, now)
        case wire.Hello():
            if vm.guest.agent_version != untrusted.agent_version:
                state.notice(now, "agent", vm, f"{vm.name} runs dynmem-agent {untrusted.agent_version}")
            vm.guest.greeted(untrusted, now)
        case wire.Ack():
            if (operation := state.operations.get(vm.config.uuid)) is not None:
                operation.acknowledged(vm, untrusted)
        case wire.Held():
            pass  # no decision depends on it: `control.attribution` hears it
        case wire.Error():
            vm.guest.count("error-from-agent")
        case _:
            assert_never(untrusted)


def _reported(vm: Vm, untrusted: wire.Report, state: State, now: float) -> None:
    guest = vm.guest
    if guest.facts is not None and untrusted.sequence <= guest.facts.sequence:
        guest.forget_zone()  # an agent that has just started, and whose Hello was lost
    if not guest.may_be_of(untrusted.boot_id_prefix):
        guest.count("boot-id")
        return
    back = counts_back(untrusted, guest.facts)
    facts = facts_from_report(
        untrusted,
        config=vm.config,
        ram_bytes=vm.ram_bytes,
        now=now,
        previous=guest.facts,
        block_bytes=guest.block_bytes,
        virtio_mem=vm.virtio_mem if vm.config.virtio_mem_bytes else None,
        may_count_anew=guest.may_count_anew,
    )
    if isinstance(facts, Contradiction):
        guest.count(facts.kind)
        return
    if back:
        guest.counted_anew()
    if guest.booted(facts.boot_id):
        _another_kernel(vm, state, now)
    phases.heard(vm, facts)


def _another_kernel(vm: Vm, state: State, now: float) -> None:
    """A kexec, or so it says: counters start anew, and what was under way for the last kernel ends.

    Nothing else follows from a guest's word. A reset comes from the hypervisor, and what a new kernel takes
    shows in the balloon, which its driver empties, and in resident memory.
    """
    vm.guest.counts_anew()
    vm.guest.forget_zone()
    if (operation := state.operations.get(vm.config.uuid)) is not None:
        operation.restarted(vm)
    state.notice(now, "reset", vm, f"{vm.name} runs another kernel")
