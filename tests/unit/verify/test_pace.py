"""How quick a paced program in a lab guest is, and that it stays so when its guest could not run."""

from types import SimpleNamespace

import pytest

from host_controller.verify.inside import workloads
from host_controller.verify.inside.workloads import Pace


class Clock:
    """Sleeping is all that takes time here."""

    def __init__(self) -> None:
        self.now = 100.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(workloads, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=clock.sleep))
    return clock


def paced(pace: Pace, pieces: int) -> None:
    for _ in range(pieces):
        pace.wait()


def test_a_program_of_80_mib_a_second_takes_seven_seconds_for_560(clock: Clock) -> None:
    paced(Pace(80), 560)
    assert clock.now == pytest.approx(107.0)


def test_a_program_whose_guest_stood_still_does_not_make_up_for_it(clock: Clock) -> None:
    pace = Pace(80)
    paced(pace, 80)
    clock.now += 3
    begun = clock.now
    paced(pace, 80)
    assert clock.now - begun == pytest.approx(1 - Pace.CATCHES_UP, abs=1 / 80)


def test_a_piece_that_was_a_little_late_does_not_make_the_program_slower(clock: Clock) -> None:
    pace = Pace(80)
    for _ in range(80):
        clock.now += 0.01
        pace.wait()
    assert clock.now == pytest.approx(101.0)


def test_a_program_without_a_rate_never_waits(clock: Clock) -> None:
    paced(Pace(0), 1000)
    assert clock.now == 100.0
