"""What moves in a VM's memory, by the host's word, and how our commands about it ended."""

import re
from typing import Final, assert_never

from host_controller.core import interface as hv
from host_controller.core.books import charge as books
from host_controller.core.intake import words
from host_controller.core.state import State
from host_controller.core.vm import phases
from host_controller.core.vm.balloon import RATE_WINDOW
from host_controller.core.vm.record import LIVE, Vm
from host_controller.units import MIB, format_size

TELL_AGAIN_SECONDS: Final = 60.0
_NUMBER: Final = re.compile(r"\d+")


def take(vm: Vm, event: hv.MemoryEvent, state: State, now: float) -> None:
    """Take in one of them."""
    match event:
        case hv.BalloonSampled():
            _balloon_sampled(vm, event, state, now)
        case hv.ResidentSampled():
            phases.confirm(vm, event.guest_bytes, event.overhead_bytes, now, event.huge_bytes)
        case hv.BalloonChanged():
            _balloon_moved(vm, unwrapped(vm, event.actual_bytes), state, now)
        case hv.CommandDone():
            _done(vm, event, state, now)
        case hv.DimmsChanged():
            _dimms_changed(vm, event, state, now)
        case hv.DimmRefused():
            if (operation := state.operations.get(event.vm)) is not None:
                operation.refused(vm, event.alias)
        case hv.VirtioMemChanged():
            _virtio_mem_changed(vm, event, state, now)
        case _:
            assert_never(event)


def unwrapped(vm: Vm, actual_bytes: int) -> int:
    """QEMU counts what the kernel before a reset had ballooned from the RAM of now: with its DIMMs gone that
    is less than nothing, and wraps to millions of TiB. Then the balloon says nothing.
    """
    most = max(vm.ram_bytes, vm.config.limits.maximum_bytes)
    return actual_bytes if actual_bytes <= most else vm.ram_bytes


def _balloon_sampled(vm: Vm, event: hv.BalloonSampled, state: State, now: float) -> None:
    actual = unwrapped(vm, event.actual_bytes)
    if actual != vm.balloon.actual_bytes:
        _balloon_moved(vm, actual, state, now)
    else:
        vm.balloon.read(actual, now)
    stats = event.stats
    if stats is None:
        return
    answered = vm.guest.answered_stats(stats, actual, now)
    if answered and not vm.has_agent(now, state.settings.stale_seconds):
        words.judge_by_stats(vm, stats, now)
    vm.guest.keep_stats(stats)


def _balloon_moved(vm: Vm, actual_bytes: int, state: State, now: float) -> None:
    balloon = vm.balloon
    asked = balloon.target_bytes is not None and actual_bytes >= balloon.target_bytes - MIB
    if asked and vm.phase is LIVE and now - max(vm.since, vm.dimms.changed_at) > RATE_WINDOW[1]:
        balloon.measure(actual_bytes, now)
    if actual_bytes > books.guest_charge(vm):
        state.last_cause = f"{vm.name} took memory back from its balloon"
        state.unseen_seconds = phases.unseen_seconds(vm, now)
    phases.balloon_moved(vm, actual_bytes, now)


def _dimms_changed(vm: Vm, event: hv.DimmsChanged, state: State, now: float) -> None:
    added, removed = vm.replug(event.dimms, now)
    operation = state.operations.get(event.vm)
    if operation is not None:
        operation.dimms_changed(vm, added=bool(added))
    if added and vm.plug.awaited:
        phases.plug_came(vm, now)
    if operation is None and (added or removed):
        if added:
            state.last_cause = f"{vm.name} got a DIMM from somebody else"
        state.notice(now, "foreign", vm, f"somebody else changed the DIMMs of {vm.name}")


def _virtio_mem_changed(vm: Vm, event: hv.VirtioMemChanged, state: State, now: float) -> None:
    device = vm.virtio_mem
    if not device.observe(event.current_bytes, event.requested_bytes, now):
        return
    if event.vm not in state.operations:
        device.release()
    asked = format_size(event.requested_bytes or 0)
    state.last_cause = f"somebody else asked the virtio-mem device of {vm.name} for {asked}"
    state.notice(now, "foreign", vm, state.last_cause)


def _done(vm: Vm, event: hv.CommandDone, state: State, now: float) -> None:
    vm.balloon.answered(event.ticket, event.error, now)
    vm.virtio_mem.answered(event.ticket, event.error, now)
    if (standstill := state.standstills.get(event.vm)) is not None:
        standstill.done(event)
    if (operation := state.operations.get(event.vm)) is not None:
        operation.done(vm, event.ticket, event.error, event.timed_out, now)
    # A VM that does not answer fails many commands, which differ in their figures.
    if event.error is not None and vm.is_news(_NUMBER.sub("N", event.error), TELL_AGAIN_SECONDS, now):
        state.notice(now, "command", vm, f"a command to {vm.name} failed: {event.error}")
