"""What is not about one VM: the host's memory, the connection, the operator's words."""

from typing import assert_never

from host_controller.core import interface as hv
from host_controller.core.books.capacity import why_smaller
from host_controller.core.operator_events import MakeRoom, Release, Reserve, SettingsChanged
from host_controller.core.state import State

HostEvent = (
    hv.Tick
    | hv.HostSampled
    | hv.ConnectionChanged
    | hv.VmsAwaited
    | SettingsChanged
    | MakeRoom
    | Reserve
    | Release
)


def take(state: State, event: HostEvent, now: float) -> None:
    """Take in one of them."""
    ledger = state.ledger
    match event:
        case hv.Tick():
            state.dirty.update(uuid for uuid, vm in state.vms.items() if vm.pace.look_at <= now)
            if not state.connected:
                ledger.look_out(now)
            for reservation in ledger.expire(now):
                state.notice(now, "reservation", None, f"the reservation for {reservation.name} ran out")
            if text := state.awaited.lasts(state.in_no_book(), now):
                state.notice(now, "connection", None, text)
        case hv.HostSampled():
            _sampled(state, event, now)
        case hv.ConnectionChanged():
            state.connected = event.up
            if event.up:
                ledger.look_out(now)
            word = "reached" if event.up else "lost"
            state.notice(now, "connection", None, f"the hypervisor was {word}: {event.detail}")
        case hv.VmsAwaited():
            state.awaited.take(event.names, now)
        case SettingsChanged():
            state.settings = event.settings
            _measure(state, "capacity was lowered")
            state.dirty.update(state.vms)
        case MakeRoom():
            ledger.room_wanted[event.name] = event.size_bytes
        case Reserve():
            _reserve(state, event)
        case Release():
            ledger.room_wanted.pop(event.name, None)
            ledger.reservations.pop(event.name, None)
        case _:
            assert_never(event)


def _reserve(state: State, event: Reserve) -> None:
    ledger = state.ledger
    ledger.room_wanted.pop(event.name, None)
    if event.started_at is None or all(vm.name != event.name for vm in state.vms.values()):
        ledger.reservations[event.name] = event
    else:  # it was seen before its hook was heard
        ledger.reservations.pop(event.name, None)


def _sampled(state: State, event: hv.HostSampled, now: float) -> None:
    before = state.host.facts if state.host else None
    state.host = event
    _measure(state, why_smaller(before, event.facts))
    state.ledger.seen((one.name for one in event.facts.unmanaged), event.facts.at)
    emergency = state.emergency
    if emergency.observe(event.facts, state.ledger.host.spare_bytes):
        text = f"emergency: {emergency.cause}" if emergency.cause else "the emergency is over"
        state.notice(now, "emergency", None, text)
    known = {} if before is None else dict(before.unread)
    for uuid, why in event.facts.unread:
        vm = state.vms.get(uuid)
        if vm is not None and uuid not in known:
            text = f"what {vm.name} holds cannot be read, so nothing that it gives back is believed: {why}"
            state.notice(now, "unread", vm, text)


def _measure(state: State, cause: str) -> None:
    """The capacity follows the host and the settings; if it falls, overdrafts come from that."""
    facts = state.host.facts if state.host else None
    if state.ledger.measure(state.settings, facts) > 0:
        state.last_cause = cause
