"""A VM's size for the engine: up at once, down slowly."""

import pytest

from host_controller.fleet.core.booking import (
    HOUR,
    KEPT_HOURS,
    LOW_SECONDS,
    Booking,
    rebook,
    stopped_mib,
    usual_mib,
    wanted_mib,
)
from host_controller.units import GIB, MIB
from tests.unit.fleet.cells import vm

HALF = LOW_SECONDS / 2


@pytest.mark.parametrize(("floor", "wanted"), [(0, 0), (8 * MIB, 9), (8 * MIB + 1, 10), (GIB, 1152), (-1, 0)])
def test_what_is_wanted_is_the_floor_and_an_eighth_in_whole_mib(floor: int, wanted: int) -> None:
    assert wanted_mib(floor) == wanted


@pytest.mark.parametrize(
    ("more", "floor"),
    [
        ({"need_bytes": GIB}, GIB + 64 * MIB),
        ({"need_bytes": 0, "minimum_bytes": 2 * GIB}, 2 * GIB + 64 * MIB),
        ({"need_bytes": None}, 3 * GIB),
        ({"need_bytes": GIB, "settled": False}, 3 * GIB),
    ],
)
def test_a_floor_is_need_or_minimum_and_what_is_beside_or_else_the_whole_charge(
    more: dict[str, int], floor: int
) -> None:
    assert vm("web", 3 * GIB, **more).floor_bytes == floor


def test_a_need_that_grows_is_booked_at_once() -> None:
    assert rebook(Booking(1152), 2 * GIB, 0.0).size_mib == 2304


def test_a_need_that_falls_by_less_than_a_quarter_is_not_booked() -> None:
    before = Booking(1152)
    for minute in range(60):
        before = rebook(before, 768 * MIB, minute * 60.0)
    assert before.size_mib == 1152


def test_a_need_that_stays_low_for_ten_minutes_is_booked_by_the_most_of_them() -> None:
    before = rebook(Booking(4608), 1 * GIB, 0.0)
    before = rebook(before, 2 * GIB, HALF)
    assert rebook(before, 1 * GIB, LOW_SECONDS - 1).size_mib == 4608
    assert rebook(before, 1 * GIB, LOW_SECONDS).size_mib == 2304


def test_ten_minutes_begin_anew_when_it_was_not_low_in_between() -> None:
    before = rebook(Booking(4608), 1 * GIB, 0.0)
    before = rebook(before, 4 * GIB - 1, HALF)
    before = rebook(before, 1 * GIB, LOW_SECONDS)
    assert before.size_mib == 4608
    assert before.low_since == LOW_SECONDS


def test_a_clock_that_is_set_back_does_not_end_the_ten_minutes() -> None:
    before = rebook(Booking(4608), 1 * GIB, 1000.0)
    before = rebook(before, 1 * GIB, 0.0)
    assert rebook(before, 1 * GIB, LOW_SECONDS - 1).size_mib == 4608
    assert rebook(before, 1 * GIB, LOW_SECONDS).size_mib == 1152


def test_a_stopped_vm_has_the_size_of_its_start_or_of_its_usual_hours() -> None:
    booking = Booking(1, hours=tuple((hour, 100 * (hour + 1)) for hour in range(20)))
    assert usual_mib(booking) == 1900
    assert stopped_mib(booking, 1000) == 1900
    assert stopped_mib(booking, 2000) == 2000
    assert stopped_mib(None, 2000) == 2000
    assert usual_mib(Booking(500)) == 0


def test_hours_are_kept_for_a_week_with_the_most_of_each() -> None:
    before = rebook(Booking(0), 8 * MIB, 0.0)
    assert rebook(before, 16 * MIB, HOUR - 1).hours == ((0, 18),)
    for hour in range(1, 400):
        before = rebook(before, 8 * MIB, hour * HOUR)
    assert len(before.hours) == KEPT_HOURS
    assert before.hours[-1] == (399, 9)


@pytest.mark.parametrize("jump", [8 * 24 * HOUR, 20 * 365 * 24 * HOUR, -8 * 24 * HOUR, -HOUR])
def test_a_clock_that_jumps_and_comes_back_takes_nothing_of_what_was_usual(jump: float) -> None:
    before, now = Booking(0), 10_000 * HOUR
    for hour in range(48):
        before = rebook(before, 8 * GIB, now + hour * HOUR)
    now += 48 * HOUR
    low = rebook(rebook(before, GIB, now + jump), GIB, now + jump + LOW_SECONDS)
    assert usual_mib(low) == usual_mib(before)
    assert usual_mib(rebook(low, GIB, now)) == usual_mib(before)


def test_a_clock_that_goes_to_and_fro_has_no_more_hours_than_it_shows() -> None:
    before = rebook(Booking(0), 8 * MIB, 0.0)
    for turn in range(1000):
        before = rebook(before, 16 * MIB, (turn % 2) * 100 * HOUR)
    assert dict(before.hours) == {0: 18, 100: 18}
    assert len(before.hours) == 2
