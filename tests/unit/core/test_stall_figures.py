"""What a guest's stalls ask for, worked out by hand."""

import math
from typing import Any

import pytest

from host_controller.core.model import GuestFacts
from host_controller.core.vm.demand import Demand
from host_controller.core.vm.stalls import (
    STALL_HALF_LIFE,
    STALL_LIMIT,
    STALL_PATIENCE,
    STALL_REST,
    STALL_STEP,
)
from host_controller.units import MIB
from tests.support.build import facts, heard

SECOND = 1.0 - math.exp(-1.0)
"""What of a new rate is believed after a second, where the time constant is one."""


def stalled(seconds: list[float], usable_mib: int = 512, **changes: Any) -> list[GuestFacts]:
    """A guest with 24 MiB available that waits for memory for such a share of each second."""
    waited = [0.0]
    for share in seconds:
        waited.append(waited[-1] + share)
    base: dict[str, Any] = {"usable_mib": usable_mib, "demand_mib": usable_mib - 24} | changes
    return [facts(at=float(at), stall_us=round(total * 1e6), **base) for at, total in enumerate(waited)]


@pytest.mark.parametrize(
    ("shares", "believed"),
    [
        ([0.0], 0.0),
        ([0.4], 0.4 * SECOND),
        ([1.0], SECOND),
        ([1.7], SECOND),  # several at once: nobody waits for longer than always
        ([-0.5], 0.0),  # a counter that goes back has counted nothing
        ([0.4, 0.0], 0.4 * SECOND * math.exp(-1.0)),
    ],
)
def test_the_share_of_stalls_follows_the_counter(shares: list[float], believed: float) -> None:
    assert heard(*stalled(shares)).stall.share == pytest.approx(believed, rel=1e-4)


@pytest.mark.parametrize("missing", [0, 1])
def test_without_a_counter_there_is_no_share(missing: int) -> None:
    readings = [facts(at=float(at), stall_us=None if at == missing else 900_000 * at) for at in range(2)]
    assert heard(*readings).stall.share is None


def test_a_stalling_guest_is_raised_by_a_20th_a_second_and_what_was_raised_halves_in_5() -> None:
    step = 488 * MIB * STALL_STEP
    once = heard(*stalled([0.5])).stall
    assert once.raise_bytes == pytest.approx(step)
    twice = heard(*stalled([0.5, 0.5])).stall
    assert twice.raise_bytes == pytest.approx(step * 0.5 ** (1 / STALL_HALF_LIFE) + step)
    faded = heard(*stalled([0.5] + [0.0] * 30))
    assert not faded.stalls
    after_raises = heard(*stalled([0.5, 0.0])).stall  # stalls are still believed for a second
    assert faded.stall.raise_bytes == pytest.approx(after_raises.raise_bytes * 0.5 ** (29 / 5), rel=0.1)
    most = heard(*stalled([1.0] * 200))
    assert most.stall.raise_bytes <= 488 * MIB * STALL_LIMIT


def test_looks_that_come_sooner_than_a_second_after_a_raise_raise_nothing() -> None:
    readings = [
        facts(demand_mib=488, at=at, stall_us=round(at * 900_000)) for at in (0.0, 0.25, 0.5, 1.0, 1.2, 1.25)
    ]
    raised = [heard(*readings[: count + 1]).stall.raise_bytes for count in range(len(readings))]
    step = 488 * MIB * STALL_STEP
    assert raised[0] == 0.0
    assert raised[1] == pytest.approx(step)
    assert raised[1] > raised[2] > raised[3] > raised[4]
    assert raised[5] == pytest.approx(raised[1] * 0.5 ** (1 / STALL_HALF_LIFE) + step)


@pytest.mark.parametrize(
    ("changes", "raised"),
    [
        ({"available_bytes": 40 * MIB}, True),  # watermarks of 8, and a 16th of 512
        ({"available_bytes": 40 * MIB + 1}, False),
        ({"available_bytes": 300 * MIB, "free_bytes": 300 * MIB}, False),
    ],
)
def test_stalls_count_while_headroom_is_low(changes: dict[str, int], raised: bool) -> None:
    assert (heard(*stalled([0.5], **changes)).stall.raise_bytes > 0) is raised


@pytest.mark.parametrize("counter", ["refault_bytes", "swap_in_bytes"])
@pytest.mark.parametrize(("mib_a_second", "raised"), [(400, True), (0, False)])
def test_stalls_count_while_memory_is_read_back(counter: str, mib_a_second: int, raised: bool) -> None:
    readings = [
        facts(
            demand_mib=200,
            at=float(at),
            stall_us=at * 500_000,
            free_bytes=0,
            **{counter: at * mib_a_second * MIB},
        )
        for at in range(3)
    ]
    assert (heard(*readings).stall.raise_bytes > 0) is raised


def test_three_raises_in_vain_are_followed_by_a_minute_of_rest() -> None:
    """It is granted what it asks for, and stalls as before."""
    demand, raised_at, before = Demand(), [], 0.0
    for at in range(130):
        usable = 512 + 8 * at
        demand.observe(facts(usable, usable - 24, at=float(at), stall_us=at * 500_000))
        if demand.stall.raise_bytes > before:
            raised_at.append(at)
        before = demand.stall.raise_bytes
    ended = 1 + STALL_PATIENCE
    again = ended + STALL_REST
    assert raised_at == [1, 2, 3, again, again + 1, again + 2, *range(int(again + 3 + STALL_REST), 130)]


def raises(granted_mib: int, shares: list[float]) -> tuple[int, Demand]:
    """How often it is raised, where it is granted so much a second and stalls for such a share of each."""
    demand, last, waited, raised = Demand(), 0.0, 0.0, 0
    for at, share in enumerate([0.0, *shares]):
        waited += share
        usable = 512 + granted_mib * at
        demand.observe(facts(usable, usable - 24, at=float(at), stall_us=round(waited * 1e6)))
        raised += demand.stall.raise_bytes > last
        last = demand.stall.raise_bytes
    return raised, demand


def test_raises_that_nobody_granted_are_not_in_vain_and_end_at_a_quarter() -> None:
    raised, demand = raises(0, [0.9] * 12)
    assert raised > STALL_PATIENCE
    assert demand.stall.raise_bytes == pytest.approx(488 * MIB * STALL_LIMIT)


def test_stalls_that_become_a_fifth_less_were_not_in_vain() -> None:
    assert raises(8, [0.9, 0.0] * 6)[0] == 12
    assert raises(8, [0.9, 0.75] * 6)[0] == STALL_PATIENCE


def test_after_a_calm_moment_or_a_relief_the_count_begins_anew() -> None:
    assert raises(8, [0.5] * 5)[0] == STALL_PATIENCE
    assert raises(8, [0.5] * 5 + [0.0] * 5 + [1.0] * 8)[0] == 2 * STALL_PATIENCE
    assert raises(8, [0.9, 0.0] + [0.9] * 10)[0] == 1 + STALL_PATIENCE  # the first was relieved
