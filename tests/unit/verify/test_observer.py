"""How well the observer saw decides whether a run proves anything.."""

import pytest

from host_controller.verify.charge import GuestSample
from host_controller.verify.errors import InconclusiveError
from host_controller.verify.observer import Observer, Sample

GUEST = GuestSample(512, 0, 0, 512, 300, 10, True, True, 0.0, charge=522)


def seen(*times: float) -> Observer:
    observer = Observer()
    observer.samples += [Sample(at, 0.01, {"web": GUEST}) for at in times]
    return observer


def every(seconds: float, count: int, begin: float = 0.0) -> list[float]:
    return [begin + seconds * number for number in range(count)]


def test_a_short_blindness_in_a_long_run_is_counted_and_no_rule_broken() -> None:
    sight = seen(*every(0.2, 500), *every(0.2, 500, begin=100.3)).sight()
    assert sight.blind_seconds == pytest.approx(0.2)
    sight.demand_clear()


def test_a_run_that_was_blind_for_more_than_a_fiftieth_is_inconclusive() -> None:
    sight = seen(*every(0.2, 50), *every(0.2, 50, begin=10.8)).sight()
    with pytest.raises(InconclusiveError, match=r"the machine was busy.*blind for 0.7 of 21 s"):
        sight.demand_clear()


def test_what_one_observer_did_not_see_is_a_small_part_of_what_all_saw() -> None:
    blind, clear = seen(*every(0.2, 100), 23.1).sight(), seen(*every(0.2, 1000)).sight()
    assert not blind.clear
    together = blind + clear
    assert together.clear
    assert together.samples == 1101
    assert together.seconds == pytest.approx(blind.seconds + clear.seconds)
    assert together.blind_seconds == pytest.approx(3.0)
    assert together.largest_gap == blind.largest_gap
    assert not (together + seen(0.0, 10.0).sight()).clear


def test_what_was_seen_above_the_capacity_is_a_broken_rule_however_blind_the_run_was() -> None:
    with pytest.raises(AssertionError, match="exceed the capacity"):
        seen(0.0, 5.0, 50.0).assert_within(100)


def test_only_the_time_that_is_asked_about_counts() -> None:
    observer = seen(*every(0.2, 50), *every(0.2, 50, begin=60.0))
    assert observer.sight(since=60.0).blind_seconds == 0
