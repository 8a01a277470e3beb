"""What holds of every operation's table, whatever its rows say."""

from collections.abc import Iterable

import pytest

from host_controller.core.operations import Plug, Resize, Unplug, standstill
from host_controller.core.operations.operation import Steps
from host_controller.core.operations.stages import HARMLESS, UNANSWERED, Heard, Outcome, Stage

OPERATIONS = (Plug, Unplug, Resize)
AT_ONCE = {Stage.NEW, Stage.NAMED, Stage.OFFLINED, Stage.TURNING_BACK}
"""Left with the next look."""
UNTIL_ANSWERED = {Stage.ATTACHING, Stage.OVERDUE, Stage.ABANDONED, Stage.ABANDONED_LATE}
"""A DIMM may come as long as the hypervisor has not said what became of it."""
FROM_OTHERS = {
    Heard.CONFIRMED, Heard.DECLINED, Heard.CARRIED_OUT, Heard.REFUSED, Heard.OUTRUN, Heard.TIMED_OUT,
    Heard.DIMM_CAME, Heard.DIMMS_TOLD, Heard.DIMM_STAYS, Heard.RESTARTED,
}  # fmt: skip

each = pytest.mark.parametrize("operation", OPERATIONS)


def reached(operation: type[Steps]) -> set[Stage | Outcome]:
    found: set[Stage | Outcome] = {Stage.NEW}
    while more := {move.to for (stage, _), move in operation.TABLE.items() if stage in found} - found:
        found |= more
    return found


def stages(found: Iterable[Stage | Outcome]) -> set[Stage]:
    return {stage for stage in found if isinstance(stage, Stage)}


@each
def test_every_row_of_a_table_can_come_to_be_used(operation: type[Steps]) -> None:
    assert {stage for stage, _ in operation.TABLE} == stages(reached(operation))


@each
def test_every_stage_that_waits_for_somebody_ends_by_time_but_for_a_hot_add_without_an_answer(
    operation: type[Steps],
) -> None:
    for stage in stages(reached(operation)) - AT_ONCE:
        limited = (stage, Heard.LATE) in operation.TABLE
        assert limited or (operation is Plug and stage in UNTIL_ANSWERED), stage


@each
def test_a_stage_with_a_time_of_its_own_says_what_follows_when_it_is_over(operation: type[Steps]) -> None:
    for stage in operation.LIMITS:
        assert (stage, Heard.LATE) in operation.TABLE


@each
def test_an_end_that_is_not_the_wanted_one_says_why(operation: type[Steps]) -> None:
    for (stage, heard), (to, note) in operation.TABLE.items():
        if to in (Outcome.FAILED, Outcome.DROPPED):
            assert note or stage in (Stage.TURNING_BACK, Stage.SETTLING), (stage, heard)


@each
def test_every_operation_can_end_well_fail_and_be_given_up(operation: type[Steps]) -> None:
    assert {Outcome.DONE, Outcome.FAILED, Outcome.DROPPED} <= reached(operation)


def test_what_is_given_up_when_a_job_begins_has_had_no_command_that_changes_memory() -> None:
    assert not set(HARMLESS) & set(UNANSWERED)
    for operation in OPERATIONS:
        for stage, heard in operation.TABLE:
            assert not (stage in HARMLESS and heard in (Heard.CARRIED_OUT, Heard.TIMED_OUT)), stage


def test_only_a_look_leads_to_a_stage_that_begins_with_a_command() -> None:
    commands = {Stage.NAMING, Stage.NAMING_AGAIN, Stage.DEFLATING, Stage.ATTACHING, Stage.OFFLINING,
                Stage.DETACHING, Stage.DETACHING_AGAIN, Stage.ASKING, Stage.SETTLING}  # fmt: skip
    for operation in OPERATIONS:
        for (stage, heard), (to, _) in operation.TABLE.items():
            assert not (heard in FROM_OTHERS and to in commands), (stage, heard)


def test_a_standstill_ends_from_every_stage() -> None:
    over, table = standstill.Stage.OVER, standstill.TABLE
    for stage in set(standstill.Stage) - {over}:
        found = {stage}
        while more := {to for (at, _), to in table.items() if at in found} - found:
            found |= more
        assert over in found
