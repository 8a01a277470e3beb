"""What an error of ours about one VM leaves behind: whom, when, what and where; and the others go on."""

from host_controller.core.books.ledger import Ledger
from host_controller.core.state import Notice, State
from host_controller.core.vm.record import Vm
from tests.support import build

SETTINGS = build.settings()


def bad_step(vm: Vm, key: str) -> int:
    return {}[key]  # type: ignore[no-any-return]


PLACE = f"(test_state.py:{bad_step.__code__.co_firstlineno + 1})"
TOLD = f"web is left alone after an internal error: KeyError: 'actual' {PLACE}"


def test_one_step_that_fails_is_told_with_its_vm_its_time_and_its_place() -> None:
    vm, state = build.vm(300), State(SETTINGS, Ledger(SETTINGS))
    assert state.apart(vm, 5.0, bad_step, "actual") is None
    assert list(state.notices) == [Notice(5.0, "fault", vm.config.uuid, "web", TOLD)]
    assert vm.pauses.fault == f"KeyError: 'actual' {PLACE}"
    assert state.dirty == {vm.config.uuid}, "what it costs from now on is worked out in the next step"


def test_of_many_steps_one_that_fails_is_told_and_the_others_are_taken() -> None:
    web, db = build.vm(300), build.vm(300, config={"uuid": "db", "name": "db"})
    state, taken = State(SETTINGS, Ledger(SETTINGS)), []

    def step(vm: Vm) -> None:
        taken.append(vm.name if vm is db else bad_step(vm, "actual"))

    assert state.each_apart((web, db), 5.0, step) == [web]
    assert taken == ["db"]
    assert list(state.notices) == [Notice(5.0, "fault", web.config.uuid, "web", TOLD)]
    assert db.pauses.fault is None


def test_a_second_error_about_a_vm_that_is_left_alone_is_not_told_again() -> None:
    vm, state = build.vm(300), State(SETTINGS, Ledger(SETTINGS))
    for now in (5.0, 6.0):
        state.apart(vm, now, bad_step, "actual")
    assert len(state.notices) == 1
