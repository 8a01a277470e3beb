"""Dips of a guest that is short: what is over in a second is awaited back, and no work that has ended.

A reading: seconds, demand in MiB, and whether the guest was at its end.
"""

import pytest

from host_controller.core.vm.dips import DEEPEST_SHARE, HELD_SECONDS, OVER_SECONDS, WAVES_SECONDS, Dips
from host_controller.units import MIB

FULL = 800
DEEPEST = FULL // DEEPEST_SHARE
SHORT = [(0.0, FULL, True)]


def awaited(*readings: tuple[float, int, bool]) -> list[int]:
    """Bytes that are awaited back after each reading."""
    dips = Dips()
    return [dips.follow(mib * MIB, at, at_end=at_end) for at, mib, at_end in readings]


@pytest.mark.parametrize(
    ("readings", "mib"),
    [
        ([(0.0, FULL, False), (1.0, 750, False)], 0),  # it was never at its end: it shows all
        (SHORT, 0),
        ([*SHORT, (1.0, FULL, False)], 0),
        ([*SHORT, (1.0, 750, False)], 50),
        ([*SHORT, (1.0, FULL - DEEPEST, False)], DEEPEST),
        ([*SHORT, (1.0, FULL - DEEPEST - 1, False)], 0),  # no noise goes so far
        ([*SHORT, (1.0, 750, False), (1.0 + HELD_SECONDS, 760, False)], 40),
        ([*SHORT, (1.0, 750, False), (1.1 + HELD_SECONDS, 760, False)], 0),  # it lasts
        ([*SHORT, (1.0, 750, False), (2.0, FULL, False), (2.9, 750, False)], 50),  # the next one
        ([*SHORT, (1.0, 750, False), (2.0, FULL, True), (4.9, 750, False)], 50),
        ([*SHORT, (1.0, 750, False), (2.0, 750, True), (2.6, 750, False)], 0),  # given away, and still down
        ([*SHORT, (1.0, 750, False), (2.0, 750, True), (2.5, 740, False)], 60),  # what it has is not less yet
        ([*SHORT, (1.0, 750, False), (2.0, FULL, True), (4.5, FULL, False), (5.0, 750, False)], 50),
        ([*SHORT, (1.0, 820, False), (2.0, 750, False)], 50),  # it was given a little
        ([*SHORT, (OVER_SECONDS - 0.1, 820, False), (OVER_SECONDS, 750, False)], 50),
        ([*SHORT, (OVER_SECONDS, 820, False), (OVER_SECONDS + 1, 750, False)], 0),  # it has enough
        ([*SHORT, (1.0, 750, False), (0.9 + OVER_SECONDS, 760, True), (4.0, 720, False)], 0),
        (
            [
                *SHORT,
                (1.0, 750, False),
                (1.0 + OVER_SECONDS, 750, False),
                (4.1, 760, True),
                (5.0, 720, False),
            ],
            40,
        ),
    ],
)
def test_what_a_guest_that_is_short_may_need_again_at_once_is_awaited_back(
    readings: list[tuple[float, int, bool]], mib: int
) -> None:
    assert awaited(*readings)[-1] == mib * MIB


def test_who_works_in_waves_is_followed_at_once() -> None:
    deep, later = 1.0, 1.0 + WAVES_SECONDS
    wave = [*SHORT, (deep, 300, False), (20.0, FULL, True), (21.0, 750, False)]
    assert awaited(*wave)[-2:] == [0, 0]
    assert awaited(*wave, (later - 1.0, FULL, True), (later - 0.1, 750, False))[-1] == 0
    assert awaited(*wave, (later - 1.0, FULL, True), (later, 750, False))[-1] == 50 * MIB, "that is long ago"
