"""What a guest that waits for memory may ask for, second by second."""

from math import exp

import pytest

from host_controller.core.model import GuestFacts
from host_controller.core.vm.stalls import STALL_HALF_LIFE, STALL_PATIENCE, STALL_REST, Stalls
from host_controller.units import GIB, MIB
from tests.support import build


def reading(at: float, stall_us: int | None, usable_mib: int = 1024) -> GuestFacts:
    """Of a guest that uses all that it has."""
    return build.facts(usable_mib, usable_mib, at=at, stall_us=stall_us)


def stalling(
    shares: list[float], *, given_mib: int = 50, relievable: bool = True, seconds: float = 1.0
) -> list[float]:
    """What it asks for after each reading, in MiB: it waits for such a share of the time since the last, and
    is given more each time.
    """
    stalls, told = Stalls(), []
    last, usable = reading(0.0, 0), 1024
    for count, share in enumerate(shares, 1):
        usable += given_mib
        facts = reading(count * seconds, (last.stall_us or 0) + int(share * seconds * 1e6), usable)
        stalls.follow(last, facts, seconds, relievable=relievable)
        told.append(stalls.raise_bytes / MIB)
        last = facts
    return told


def test_a_stall_asks_for_a_twentieth_of_demand() -> None:
    assert stalling([0.5], given_mib=0) == [pytest.approx(1024 / 20)]


def test_a_short_one_asks_for_nothing() -> None:
    assert stalling([0.15]) == [0.0], "in a second two thirds of it are seen"
    assert stalling([0.16]) != [0.0]


def test_what_memory_would_not_relieve_asks_for_nothing() -> None:
    assert stalling([0.9] * 10, relievable=False) == [0.0] * 10


def test_it_asks_once_a_second() -> None:
    told = stalling([0.9] * 4, given_mib=0, seconds=0.5)
    assert told[1] < told[0] < told[2]
    assert told[3] < told[2]


def test_it_asks_for_a_quarter_at_the_most() -> None:
    told = stalling([0.5] * 60, given_mib=0)
    assert 1024 / 5 < max(told) <= 1024 / 4


def test_it_ends_with_the_stall() -> None:
    told = stalling([0.5, 0.0, 0.0, 0.0] + [0.0] * 20, given_mib=0)
    assert told[-1] == pytest.approx(told[10] * 0.5 ** (13 / STALL_HALF_LIFE))
    assert told[-1] < max(told) / 8


def test_what_relieved_nothing_ends_at_once_and_is_not_asked_for_again_for_a_while() -> None:
    told = stalling([0.8] * 80)
    ended = STALL_PATIENCE
    assert told[:ended] == sorted(told[:ended])
    assert told[0] > 0.0
    assert told[ended:][: int(STALL_REST)] == [0.0] * int(STALL_REST)


def test_what_was_relieved_is_asked_for_again() -> None:
    assert all(stalling([0.9, 0.3, 0.2, 0.2, 0.9]))


def test_a_pause_without_stalls_begins_anew() -> None:
    told = stalling([0.8] * 6 + [0.0] * 5 + [0.8] * 3)
    assert told[5] == 0.0
    assert told[-1] > 0.0


@pytest.mark.parametrize(("before", "after"), [(None, 10), (10, None), (None, None)])
def test_without_psi_nothing_is_known(before: int | None, after: int | None) -> None:
    stalls = Stalls()
    stalls.follow(reading(0.0, before), reading(1.0, after), 1.0, relievable=True)
    assert (stalls.share, stalls.now, stalls.raise_bytes) == (None, False, 0.0)


def test_its_share_follows_the_last_second_and_lies_between_none_and_all() -> None:
    stalls = Stalls()
    stalls.follow(reading(0.0, 0), reading(1.0, 5_000_000), 1.0, relievable=False)
    assert stalls.share == pytest.approx(1 - exp(-1))
    assert stalls.now
    stalls.follow(reading(1.0, 5_000_000), reading(61.0, 0), 60.0, relievable=False)
    assert stalls.share == pytest.approx(0.0, abs=1e-9)
    assert not stalls.now


def test_a_tenth_is_a_stall() -> None:
    assert Stalls(share=0.1).now
    assert not Stalls(share=0.0999).now
    assert reading(0.0, 0).usable_bytes == GIB


def test_a_guest_that_tells_no_stalls_any_more_has_none() -> None:
    stalls = Stalls()
    stalls.follow(reading(0.0, 0), reading(1.0, 900_000), 1.0, relievable=True)
    assert stalls.now
    assert stalls.raise_bytes > 0.0
    stalls.follow(reading(1.0, 900_000), reading(2.0, None), 1.0, relievable=True)
    assert (stalls.now, stalls.share, stalls.raise_bytes) == (False, None, 0.0)
