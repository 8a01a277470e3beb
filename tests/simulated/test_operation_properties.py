"""Operations under any order of events: never stuck, never two commands at once, no debt at the end."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import wire
from host_controller.core.operations import Plug
from host_controller.core.operations.resize import ANSWER_LIMIT
from host_controller.core.operations.stages import HARMLESS, Outcome
from host_controller.core.operations.unplug import LATE_LIMIT, OFFLINE_LIMIT
from tests.support.lives import KINDS, Life, plugging

LONGEST = OFFLINE_LIMIT + LATE_LIMIT + 2 * ANSWER_LIMIT
"""Seconds after which every stage of one operation is over, whatever the guest does."""


EVENTS: st.SearchStrategy[tuple[Callable[..., None], tuple[object, ...]]] = st.one_of(
    st.tuples(st.just(Life.waits), st.tuples(st.sampled_from((0.05, 0.5, 4.0, 16.0, 40.0)))),
    st.tuples(st.just(Life.agent_answers), st.tuples(st.booleans())),
    st.tuples(st.just(Life.an_old_answer_comes), st.just(())),
    st.tuples(st.just(Life.agent_comes_or_leaves), st.just(())),
    st.tuples(st.just(Life.hypervisor_answers), st.tuples(st.sampled_from((None, None, "no")))),
    st.tuples(st.just(Life.hypervisor_is_late), st.just(())),
    st.tuples(st.just(Life.late_command_ends), st.tuples(st.booleans())),
    st.tuples(st.just(Life.dimm_leaves), st.just(())),
    st.tuples(st.just(Life.dimm_stays), st.just(())),
    st.tuples(
        st.just(Life.guest_says),
        st.tuples(st.sampled_from((0, 12, 300)), st.sampled_from((0, 256)), st.sampled_from((512, 768))),
    ),
    st.tuples(st.just(Life.device_has), st.tuples(st.sampled_from((0, 128, 200, 256, 512)))),
    st.tuples(st.just(Life.guest_starts_anew), st.just(())),
    st.tuples(st.just(Life.job_begins_or_ends), st.just(())),
)
STORY = st.lists(EVENTS, max_size=40)


@pytest.mark.parametrize("kind", KINDS)
@given(story=STORY)
@settings(max_examples=150, deadline=None)
def test_an_operation_ends_owes_nothing_and_never_commands_twice_without_an_answer(
    kind: str, story: list[tuple[Callable[..., None], tuple[object, ...]]]
) -> None:
    life = KINDS[kind]()
    life.guest_says(300, 0, 512)
    life.look()
    for event, details in story:
        event(life, *details)
        life.look()
    end_it(life)
    operation, vm = life.operation, life.vm
    assert life.ended, operation.describe()
    vm.virtio_mem.release()
    vm.virtio_mem.catch_up(life.now + 100.0)
    device = vm.virtio_mem
    if isinstance(operation, Plug):
        assert vm.plug.pending_bytes == 0 or operation.outcome is Outcome.DROPPED
    unsure = device.unsure or life.asked  # it stays charged until the hypervisor answers
    assert unsure or device.may_hold_bytes == max(device.current_bytes, device.requested_bytes)
    assert operation.note or operation.outcome is Outcome.DONE
    gone = [one for one in life.said if isinstance(one, wire.Offline)]
    back = [one for one in life.said if isinstance(one, wire.Online)]
    if life.restarted:
        assert operation.outcome is not Outcome.FAILED or len(back) == len(gone)
    elif operation.outcome is Outcome.FAILED:
        assert [(one.start_bytes, one.size_bytes) for one in back] == [
            (one.start_bytes, one.size_bytes) for one in gone
        ], "what was taken from the guest is given back"
    else:
        assert not back


def end_it(life: Life) -> None:
    """The job ends and the hypervisor says what became of every command. Nobody else does anything."""
    life.vm.pauses.job_is(None)
    began = life.now
    while not life.ended and life.now - began < LONGEST:
        if life.asked:
            life.hypervisor_answers(None)
        elif life.limbo:
            life.late_command_ends(False)
        life.look()
        life.waits(0.5)


@given(story=STORY)
@settings(max_examples=150, deadline=None)
def test_an_operation_that_was_held_back_before_it_changed_anything_has_commanded_nothing(
    story: list[tuple[Callable[..., None], tuple[object, ...]]],
) -> None:
    life = plugging()
    life.guest_says(300, 0, 512)
    for event, details in story:
        event(life, *details)
        life.look()
        if life.operation.stage in HARMLESS:
            assert not life.asked
            assert not life.limbo
