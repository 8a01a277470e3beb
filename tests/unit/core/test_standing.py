"""Who was reset without room for all of its RAM stands still, each apart from the others."""

from collections.abc import Callable

import pytest

from host_controller.core import standing
from host_controller.core.books.ledger import Ledger
from host_controller.core.commands import Command, Resume, Suspend
from host_controller.core.interface import CommandDone
from host_controller.core.model import RunState
from host_controller.core.operations.standstill import Stage, Standstill
from host_controller.core.standing import stand_still, still_bytes
from host_controller.core.state import State
from host_controller.core.vm import phases
from host_controller.core.vm.record import Vm
from host_controller.units import MIB
from tests.support import build


def was_reset(name: str, ram_mib: int = 512, resident_mib: int = 100) -> Vm:
    vm = build.vm(200, resident_bytes=resident_mib * MIB, config={"uuid": name, "name": name})
    phases.reset(vm, 100.0)
    assert vm.ram_bytes == ram_mib * MIB
    return vm


def host(*vms: Vm, stage: Stage = Stage.DUE) -> State:
    settings = build.settings()
    state = State(settings, Ledger(settings), {vm.config.uuid: vm for vm in vms})
    for vm in vms:
        state.standstills[vm.config.uuid] = Standstill(100.0, 120.0, stage)
    return state


def said(commands: list[Command]) -> list[str]:
    return [f"{type(one).__name__} {one.vm}" for one in commands]


def test_nobody_stands_still_without_a_reset() -> None:
    assert stand_still(host(), -100 * MIB, 100.0) == []


def test_whoever_fits_in_what_is_free_runs_on_and_the_next_stands_still() -> None:
    web, db = was_reset("web"), was_reset("db")
    state = host(web, db)
    # 824 MiB are charged and not held; 412 of them are there.
    assert said(stand_still(state, -412 * MIB, 100.0)) == ["Suspend db"]
    assert list(state.standstills) == ["db"]
    assert state.standstills["db"].missing_bytes == 412 * MIB
    assert (web.pauses.stopped, db.pauses.stopped) == (False, True)
    [told] = state.notices
    assert (told.kind, told.vm, told.at) == ("reset", "db", 100.0)
    assert told.text == "db stands still after its reset: 412 MiB of its RAM are not free"
    assert state.standstills["db"].notices == []


def test_the_one_that_was_reset_first_goes_first() -> None:
    state = host(was_reset("web"), was_reset("db"), stage=Stage.STANDING)
    for vm in state.vms.values():
        vm.pauses.run_state(RunState.PAUSED, 100.0)
        vm.pauses.stand_still(True)
    assert said(stand_still(state, -412 * MIB, 101.0)) == ["Resume web"]
    assert said(stand_still(state, -412 * MIB, 101.1)) == [], "web is going to take what is free"
    assert state.vms["web"].pauses.stopped, "until it runs"
    state.standstills["web"].state_changed(RunState.RUNNING, "web")
    assert said(stand_still(state, -412 * MIB, 101.2)) == []
    assert list(state.standstills) == ["db"]
    assert not state.vms["web"].pauses.stopped


def test_whoever_stands_still_takes_nothing_from_the_next_that_fits() -> None:
    web, db = was_reset("web", resident_mib=100), was_reset("db", resident_mib=400)
    state = host(web, db)
    # 412 and 112 MiB may be taken, and 200 are there.
    assert said(stand_still(state, (200 - 412 - 112) * MIB, 100.0)) == ["Suspend web"]
    assert list(state.standstills) == ["web"]


def test_the_last_byte_counts() -> None:
    assert said(stand_still(host(was_reset("web")), 0, 100.0)) == []
    assert said(stand_still(host(was_reset("web")), -1, 100.0)) == ["Suspend web"]


def test_what_is_missing_is_no_more_than_what_it_may_take() -> None:
    state = host(was_reset("web"))
    stand_still(state, -5000 * MIB, 100.0)
    assert state.standstills["web"].missing_bytes == 412 * MIB


def test_who_is_let_run_without_room_is_the_cause_of_an_overdraft() -> None:
    state = host(was_reset("web"), stage=Stage.STANDING)
    stand_still(state, -100 * MIB, 110.0)
    assert state.last_cause == "start"
    assert said(stand_still(state, -100 * MIB, 120.0)) == ["Resume web"]
    assert state.last_cause == "web runs on, 20.0 s after its reset; 100 MiB could not be found"
    assert [one.kind for one in state.notices] == ["reset"]
    enough = host(was_reset("web"), stage=Stage.STANDING)
    stand_still(enough, 0, 110.0)
    assert enough.last_cause == "start"


def test_what_stands_still_cannot_take_what_it_is_charged_with() -> None:
    web, db, gone = was_reset("web"), was_reset("db", resident_mib=300), was_reset("running")
    state = host(web, db, gone, stage=Stage.STANDING)
    web.pauses.run_state(RunState.PAUSED, 100.0)
    db.pauses.run_state(RunState.PAUSED, 100.0)
    assert still_bytes(state, 101.0) == (412 + 212) * MIB
    state.standstills["web"].stage = Stage.STOPPING
    assert still_bytes(state, 101.0) == 212 * MIB


def missing_bytes(state: State, now: float) -> int:
    """What web lacks to be let run, where not a byte is free."""
    one = state.standstills["web"]
    stand_still(state, -1, now)
    return one.missing_bytes


@pytest.mark.parametrize("asks", [still_bytes, missing_bytes])
def test_of_whom_an_error_of_ours_hides_what_it_may_take_nothing_is_missing(
    asks: Callable[[State, float], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = host(was_reset("web"), stage=Stage.STANDING)
    state.vms["web"].pauses.run_state(RunState.PAUSED, 100.0)
    monkeypatch.setattr(standing.books, "unrealised", lambda _: 1 // 0)
    assert asks(state, 101.0) == 0
    told = state.notices[0]
    assert (told.kind, told.vm, told.at) == ("fault", "web", 101.0)


def test_every_command_has_a_ticket_of_its_own_by_which_it_is_answered() -> None:
    state = host(was_reset("web"))
    [suspend] = stand_still(state, -MIB, 100.0)
    assert isinstance(suspend, Suspend)
    assert suspend.ticket == 1
    one = state.standstills["web"]
    one.done(CommandDone("web", suspend.ticket, None, vcpu_seconds=3.5))
    one.state_changed(RunState.PAUSED, "web")
    assert (one.stage, one.vcpu_seconds) == (Stage.STANDING, 3.5)
    [resume] = stand_still(state, 0, 101.0)
    assert isinstance(resume, Resume)
    assert resume.ticket == 2
