"""Balloons that follow their target, that do not, and that somebody else moves."""

from typing import Any

import pytest

from host_controller.core.model import Growth
from host_controller.core.vm.balloon import SETTLING
from host_controller.core.vm.check_progress import (
    NUDGE_BYTES,
    PATIENCE,
    PATIENCE_IN_NEED,
    Astray,
    Stuck,
    check_progress,
)
from host_controller.core.vm.phases import CONTRADICTION_SECONDS
from host_controller.core.vm.progress import FIRST_REST, REST
from host_controller.core.vm.record import Phase
from host_controller.units import MIB
from tests.support import build


def test_a_balloon_on_its_target_is_left_alone() -> None:
    vm = build.vm(300)
    assert check_progress(vm, needed=True, now=100.0) is None
    assert not vm.balloon.resend


def test_a_balloon_that_moves_slowly_is_given_time() -> None:
    vm = build.vm(512)
    check_progress(vm, needed=True, now=0.0)
    vm.balloon.starts_with(300 * MIB)
    for second in range(1, 60):
        vm.balloon.read(vm.balloon.actual_bytes - MIB, float(second))
        assert check_progress(vm, needed=True, now=float(second)) is None


def stuck_at(now: float, *, needed: bool) -> bool:
    vm = build.vm(512)
    check_progress(vm, needed=needed, now=0.0)
    vm.balloon.starts_with(300 * MIB)
    found = check_progress(vm, needed=needed, now=now)
    assert (found is not None) == vm.balloon.resend
    if found is not None:
        assert vm.balloon.target_bytes == 512 * MIB  # it backs off to what was reached
        assert vm.progress.stuck_until > now
    return found is not None


def test_a_stuck_balloon_is_left_at_what_it_reached_sooner_when_somebody_waits() -> None:
    assert not stuck_at(PATIENCE_IN_NEED, needed=True)
    assert stuck_at(PATIENCE_IN_NEED + 0.1, needed=True)
    assert not stuck_at(PATIENCE_IN_NEED + 0.1, needed=False)
    assert stuck_at(PATIENCE + 0.1, needed=False)


def test_a_stuck_guest_is_forgiven_when_it_moves() -> None:
    vm = build.vm(512)
    check_progress(vm, needed=True, now=0.0)
    vm.balloon.starts_with(300 * MIB)
    vm.progress.give_up(512 * MIB, 0.0, growing=False)
    assert vm.progress.stuck_until > 11.0
    vm.balloon.read(462 * MIB, 11.0)
    check_progress(vm, needed=True, now=11.0)
    assert vm.progress.stuck_until <= 11.0


def test_a_balloon_that_somebody_else_moved_is_corrected() -> None:
    vm = build.vm(300)
    check_progress(vm, needed=False, now=0.0)
    vm.balloon.read(400 * MIB, 10.0)
    found = check_progress(vm, needed=False, now=10.0)
    assert found is not None
    assert "without us" in found.describe(vm.name)
    assert vm.balloon.resend
    assert vm.balloon.target_bytes == 300 * MIB


def test_a_target_of_ours_does_not_hide_that_somebody_else_moved_the_balloon_just_before() -> None:
    vm = build.vm(300)
    check_progress(vm, needed=False, now=0.0)
    vm.balloon.read(420 * MIB, 10.0)
    vm.send_target(1, 280 * MIB, now=9.9)
    found = check_progress(vm, needed=False, now=10.0)
    assert found is not None
    assert "420 MiB without us: 280 MiB was sent again" in found.describe(vm.name)
    assert vm.balloon.resend


def test_a_balloon_that_still_follows_an_earlier_target_of_ours_was_moved_by_nobody_else() -> None:
    vm = build.vm(300)
    check_progress(vm, needed=False, now=0.0)
    for ticket, target_mib in enumerate((420, 350, 280)):
        vm.send_target(ticket, target_mib * MIB, now=8.0 + ticket)
    vm.balloon.read(418 * MIB, 10.0)
    assert check_progress(vm, needed=False, now=10.5) is None
    assert check_progress(vm, needed=False, now=10.0 + SETTLING + 0.1) is not None


def test_targets_of_long_ago_explain_nothing_however_many_came_since() -> None:
    vm = build.vm(1000)
    for step in range(11):
        vm.send_target(step, (1000 - 50 * step) * MIB, now=float(step))
    vm.balloon.read(520 * MIB, 10.0)
    check_progress(vm, needed=False, now=10.5)
    vm.balloon.read(900 * MIB, 10.0)
    assert vm.followed_bytes(10.6) == (500 * MIB, 600 * MIB)
    assert check_progress(vm, needed=False, now=10.6) is not None


def test_who_moves_it_again_is_corrected_only_after_a_while() -> None:
    vm = build.vm(300)
    check_progress(vm, needed=False, now=0.0)
    vm.balloon.read(200 * MIB, 10.0)
    assert check_progress(vm, needed=False, now=10.0) is not None
    for second in (12.5, 14.0):
        vm.balloon.read(300 * MIB, second)
        vm.memory_moves(second - 2.1, grows=False)
        assert check_progress(vm, needed=False, now=second) is None
        vm.balloon.read(200 * MIB, 10.0)
        assert check_progress(vm, needed=False, now=second) is None
    assert check_progress(vm, needed=False, now=16.2) is not None


def test_a_balloon_that_leaves_its_new_target_is_corrected_before_its_guest_is_disbelieved() -> None:
    vm = build.vm(300)
    check_progress(vm, needed=False, now=0.0)
    vm.send_target(1, 300 * MIB, now=9.9)
    vm.balloon.read(64 * MIB, 10.0)
    at_once = 10.0
    assert at_once < 9.9 + CONTRADICTION_SECONDS
    assert check_progress(vm, needed=False, now=at_once) is not None


def test_a_driver_whose_word_was_forged_is_asked_for_a_page_so_that_it_writes_the_truth() -> None:
    vm = build.vm(300)
    check_progress(vm, needed=False, now=0.0)
    vm.balloon.read(64 * MIB, 10.0)
    assert check_progress(vm, needed=False, now=10.0) is not None
    assert vm.balloon.target_bytes == 300 * MIB + NUDGE_BYTES
    full = build.vm(512)
    check_progress(full, needed=False, now=0.0)
    full.balloon.read(64 * MIB, 10.0)
    assert check_progress(full, needed=False, now=10.0) is not None
    assert full.balloon.target_bytes == 512 * MIB - NUDGE_BYTES


def test_a_guest_that_is_not_believed_is_asked_for_a_page_and_back_so_that_its_driver_writes() -> None:
    vm = build.vm(300, phase=Phase.CONTRADICTED, sent_at=0.0)
    asked = set()
    for second in range(1, 20):
        assert check_progress(vm, needed=True, now=float(second)) is None
        if vm.balloon.resend:
            target = vm.balloon.target_bytes
            assert target is not None
            vm.send_target(second, target, float(second))
            asked.add(target)
    assert asked == {300 * MIB, 300 * MIB + NUDGE_BYTES}


@pytest.mark.parametrize(
    ("gap_kib", "since_seconds", "needed", "found"),
    [
        (1024, 100.0, True, None),
        (1025, PATIENCE_IN_NEED, True, None),
        (1025, PATIENCE_IN_NEED + 0.1, True, Stuck),
        (1025, PATIENCE_IN_NEED + 0.1, False, None),
        (1025, PATIENCE, False, None),
        (1025, PATIENCE + 0.1, False, Stuck),
        (-1024, 100.0, True, None),
        (-1025, PATIENCE_IN_NEED, False, None),
        (-1025, PATIENCE_IN_NEED + 0.1, False, Stuck),  # it waits for what it can be given beside it
    ],
)
@pytest.mark.parametrize("clock", ["at", "sent_at"])
def test_a_balloon_is_stuck_when_it_has_not_moved_for_longer_than_patience(
    clock: str, gap_kib: int, since_seconds: float, needed: bool, found: type | None
) -> None:
    present = 300 * MIB
    target = present - gap_kib * 1024
    times = {"at": -1000.0, "sent_at": -1000.0} | {clock: 100.0 - since_seconds}
    vm = build.vm(300, target_bytes=target, present_bytes=present, **times)
    stuck = check_progress(vm, needed=needed, now=100.0)
    assert (type(stuck) if stuck else None) is found
    if isinstance(stuck, Stuck):
        assert (stuck.present_bytes, stuck.target_bytes) == (present, target)
        assert (vm.balloon.target_bytes, vm.balloon.resend) == (present, True)
        assert vm.progress.stuck_until == 100.0 + (REST if gap_kib > 0 else FIRST_REST)
        assert vm.progress.stuck_until == 100.0 + stuck.seconds
        assert vm.progress.present_bytes == present
        assert vm.progress.stuck_growing is (gap_kib < 0)


@pytest.mark.parametrize(("since_seconds", "found"), [(PATIENCE, False), (PATIENCE + 0.1, True)])
def test_one_that_has_nothing_but_its_balloon_is_given_time_to_take_it_while_nobody_else_waits(
    since_seconds: float, found: bool
) -> None:
    at, config = 100.0 - since_seconds, {"growth": Growth.BALLOON}
    vm = build.vm(300, target_bytes=400 * MIB, present_bytes=300 * MIB, at=at, config=config)
    assert (check_progress(vm, needed=False, now=100.0) is not None) == found


@pytest.mark.parametrize(("before_kib", "forgiven"), [(299 * 1024, True), (299 * 1024 + 769, False)])
def test_a_balloon_that_has_gone_all_the_way_between_two_looks_moves(before_kib: int, forgiven: bool) -> None:
    """It was stuck on its way down, was to have more and took it at once: it is alive."""
    vm = build.vm(300, present_bytes=before_kib * 1024, at=95.0, stuck_until=150.0)
    assert check_progress(vm, needed=True, now=100.0) is None
    assert vm.progress.stuck(101.0) is not forgiven
    assert (vm.progress.at, vm.progress.present_bytes) == (100.0, 300 * MIB)


@pytest.mark.parametrize(("moved_kib", "moves"), [(256, True), (255, False)])
@pytest.mark.parametrize("inflates", [True, False])
def test_a_balloon_that_moves_towards_its_target_by_a_step_goes_on(
    inflates: bool, moved_kib: int, moves: bool
) -> None:
    way = 1 if inflates else -1
    before = 300 * MIB + way * moved_kib * 1024
    vm = build.vm(300, target_bytes=(300 - 50 * way) * MIB, present_bytes=before, at=95.0, stuck_until=150.0)
    assert check_progress(vm, needed=True, now=100.0) is None
    assert (vm.progress.at, vm.progress.stuck_until) == ((100.0, 100.0) if moves else (95.0, 150.0))


@pytest.mark.parametrize(
    "changes",
    [
        {"paused": True},
        {"job": "save"},
        {"phase": Phase.TAKEOVER},
        {"phase": Phase.STARTING, "moved": True},
        {"phase": Phase.HUNG, "facts": build.facts()},
    ],
)
def test_whom_we_may_not_tell_where_to_go_is_not_judged(changes: dict[str, Any]) -> None:
    vm = build.vm(300, target_bytes=200 * MIB, **changes)
    assert check_progress(vm, needed=True, now=1000.0) is None
    assert (vm.progress.at, vm.progress.present_bytes) == (1000.0, 300 * MIB)
    assert not vm.balloon.resend


def test_a_balloon_without_a_target_stands_where_it_is() -> None:
    vm = build.vm(300, target_bytes=None)
    assert check_progress(vm, needed=True, now=1000.0) is None
    assert (vm.progress.at, vm.progress.present_bytes) == (1000.0, 300 * MIB)


def test_a_guest_that_starts_is_judged_once_it_has_spoken() -> None:
    vm = build.vm(300, target_bytes=200 * MIB, phase=Phase.STARTING, facts=build.facts(), at=0.0)
    assert check_progress(vm, needed=True, now=1000.0) is not None


@pytest.mark.parametrize(
    ("since_sent", "corrected_before", "asked"),
    [
        (SETTLING, False, False),
        (SETTLING + 0.1, False, True),
        (SETTLING + 0.1, True, False),
        (0.5, False, False),
    ],
)
def test_a_guest_that_is_not_believed_is_asked_once_its_last_answer_is_due_and_not_all_the_time(
    since_sent: float, corrected_before: bool, asked: bool
) -> None:
    vm = build.vm(300, phase=Phase.CONTRADICTED, sent_at=100.0 - since_sent)
    if corrected_before:
        vm.progress.correct(99.9)
    check_progress(vm, needed=True, now=100.0)
    assert vm.balloon.resend is asked


@pytest.mark.parametrize(
    ("present_kib", "astray"),
    [(301 * 1024, False), (301 * 1024 + 1, True), (279 * 1024, False), (279 * 1024 - 1, True)],
)
def test_within_a_mib_of_what_its_targets_explain_a_balloon_was_moved_by_nobody_else(
    present_kib: int, astray: bool
) -> None:
    vm = build.vm(300)
    vm.send_target(1, 280 * MIB, now=9.9)
    way = 1 if present_kib > 290 * 1024 else -1
    vm.progress.stands(290 * MIB, 9.9)
    if way < 0:
        vm.send_target(2, 285 * MIB, now=9.95)
    vm.balloon.read(present_kib * 1024, 10.0)
    found = check_progress(vm, needed=False, now=10.0)
    assert isinstance(found, Astray) is astray
    if astray:
        assert (vm.progress.present_bytes, vm.progress.at) == (present_kib * 1024, 10.0)


@pytest.mark.parametrize(("target_pages", "asked_pages"), [(0, 1), (1, 0), (2, 3), (3, 2)])
@pytest.mark.parametrize("beyond_bytes", [0, 4096])
def test_it_is_asked_for_a_page_more_or_that_page_back(
    target_pages: int, asked_pages: int, beyond_bytes: int
) -> None:
    base = 300 * MIB + beyond_bytes
    target = base + target_pages * NUDGE_BYTES
    vm = build.vm(300, phase=Phase.CONTRADICTED, sent_at=0.0, target_bytes=target)
    check_progress(vm, needed=True, now=100.0)
    assert vm.balloon.target_bytes == base + asked_pages * NUDGE_BYTES
