"""Who was reset without room for all of its RAM stands still, each apart from the others."""

from host_controller.core.books import charge as books
from host_controller.core.commands import Command, Resume
from host_controller.core.operations.standstill import Stage, Standstill
from host_controller.core.state import State
from host_controller.core.vm.record import Vm


def stand_still(state: State, headroom_bytes: int, now: float) -> list[Command]:
    """Stop who was reset without room, and let it run once there is; in the order of their resets, so that
    whoever fits in what is free goes first.
    """
    standstills = state.standstills
    if not standstills:
        return []
    commands: list[Command] = []
    # Of whom nobody can say what it may take nothing is missing: it is let run, and charged all of its RAM.
    may_take = {uuid: _unrealised(state, uuid, now) for uuid in standstills}
    free = headroom_bytes + sum(may_take.values())
    for uuid, standstill in list(standstills.items()):
        vm = state.vms[uuid]
        missing = max(0, may_take[uuid] - max(0, free))
        sent = state.apart(vm, now, _advance, standstill, state, missing, now)
        commands += _let_run(vm, standstill, state) if sent is None else sent
        if sent is None or standstill.stage in (Stage.OVER, Stage.STARTING):
            free -= may_take[uuid]
        if sent is None or standstill.stage is Stage.OVER:
            del standstills[uuid]
    return commands


def still_bytes(state: State, now: float) -> int:
    """What VMs that stand still are charged with and cannot take before they are let run."""
    return sum(
        _unrealised(state, uuid, now)
        for uuid, standstill in state.standstills.items()
        if standstill.holds_nothing_more(state.vms[uuid])
    )


def _advance(vm: Vm, standstill: Standstill, state: State, missing_bytes: int, now: float) -> list[Command]:
    commands = standstill.advance(vm, missing_bytes, state.ticket, now)
    vm.pauses.stand_still(standstill.stops_it)
    for text in standstill.notices:
        state.notice(now, "reset", vm, text)
    if standstill.stage is Stage.STARTING and standstill.missing_bytes and standstill.notices:
        state.last_cause = standstill.notices[-1]
    standstill.notices.clear()
    return commands


def _let_run(vm: Vm, standstill: Standstill, state: State) -> list[Command]:
    """After an error of ours."""
    vm.pauses.stand_still(False)
    return [Resume(vm.config.uuid, state.ticket())] if standstill.stops_it else []


def _unrealised(state: State, uuid: str, now: float) -> int:
    return state.apart(state.vms[uuid], now, books.unrealised) or 0
