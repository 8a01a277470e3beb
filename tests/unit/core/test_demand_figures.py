"""What each reading adds to a guest's demand, worked out by hand: cache, growth ahead, and the sum."""

import math
from typing import Any

import pytest

from host_controller.core.model import Limits
from host_controller.core.vm.demand import (
    LEAST_MARGIN_BYTES,
    REFAULT_NOISE,
    Demand,
    Estimate,
)
from host_controller.units import MIB
from tests.support.build import facts, heard

WIDE = Limits(64 * MIB, 16 * MIB, 65536 * MIB)
SECOND = 1.0 - math.exp(-1.0)
"""What of a new rate is believed after a second, where the time constant is one."""


# --- cache ---


def dropping(*refaulted_mib: int, free_mib: float = 12, **changes: Any) -> Demand:
    """A guest of 512 MiB with 280 MiB of cache that has read back so much after each second."""
    total = [sum(refaulted_mib[:count]) for count in range(len(refaulted_mib) + 1)]
    base: dict[str, Any] = {"free_bytes": int(free_mib * MIB), "reclaimable_bytes": 280 * MIB} | changes
    return heard(*(facts(at=float(at), refault_bytes=mib * MIB, **base) for at, mib in enumerate(total)))


@pytest.mark.parametrize(
    ("refaulted_mib", "cache_mib"),
    [(20, 300), (32, 312), (50, 312), (1, 0)],  # by a 16th of what it has at most
)
def test_cache_was_too_small_by_what_came_back(refaulted_mib: int, cache_mib: int) -> None:
    assert dropping(refaulted_mib).cache_bytes == cache_mib * MIB


@pytest.mark.parametrize(("free_mib", "counts"), [(32, True), (32.1, False), (300, False)])
def test_refaults_count_where_little_is_free(free_mib: float, counts: bool) -> None:
    assert (dropping(50, free_mib=free_mib).cache_bytes > 0) is counts


@pytest.mark.parametrize(("free_mib", "counts"), [(40, True), (40.1, False)])
def test_little_is_twice_the_watermarks_where_those_are_high(free_mib: float, counts: bool) -> None:
    assert (dropping(50, free_mib=free_mib, floor_bytes=20 * MIB).cache_bytes > 0) is counts


def test_the_rate_of_refaults_is_that_of_the_last_seconds() -> None:
    demand = heard(
        facts(at=0.0, refault_bytes=5 * MIB),
        facts(at=2.0, refault_bytes=25 * MIB),
    )
    assert demand.refault_rate == pytest.approx(10 * MIB * (1.0 - math.exp(-2.0)))
    assert demand.refault_rate > REFAULT_NOISE


def test_a_counter_is_compared_with_one_that_was_read() -> None:
    demand = heard(facts(at=0.0, counted=False), facts(at=1.0, refault_bytes=500 * MIB))
    assert demand.refault_rate == 0.0


# --- growth ahead, and the sum ---


def grown(before_mib: int, by_mib: float, usable_mib: int = 4096) -> Estimate:
    """By so much within half a second."""
    first = facts(usable_mib, before_mib, at=1.0)
    left = first.available_bytes - int(by_mib * MIB)
    found = heard(first, facts(usable_mib, before_mib, at=1.5, available_bytes=left)).estimate(WIDE, 1.5)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("before_mib", "by_mib", "ahead_mib"),
    [
        (200, 0, 0.0),
        (200, 6, 0.0),  # 7.6 MiB/s: noise
        (200, 7, 14 * SECOND),
        (200, 50, 100 * SECOND),
        (200, 300, 250.0),  # half of what it has come to use
        (40, 60, 64.0),
    ],
)
def test_a_second_of_growth_is_granted_ahead_up_to_half_of_what_it_uses(
    before_mib: int, by_mib: float, ahead_mib: float
) -> None:
    found = grown(before_mib, by_mib)
    assert found.ahead_bytes == pytest.approx(ahead_mib * MIB, rel=1e-6)
    assert found.need_bytes == found.irreducible_bytes + found.ahead_bytes


def test_an_estimate_is_the_sum_of_its_parts_in_whole_bytes() -> None:
    readings = [
        facts(
            1101, 801, at=float(at), stall_us=at * 500_000, free_bytes=0, reclaimable_bytes=100 * MIB + at,
            refault_bytes=at * 20 * MIB + at, swap_used_bytes=90 * MIB, swap_in_bytes=at * 33 * MIB + at,
        )
        for at in range(12)
    ]  # fmt: skip
    found = heard(*readings).estimate(WIDE, 11.0)
    assert found is not None
    assert min(found.hot_swap_bytes, found.cache_bytes, found.stall_bytes) > 0
    parts = found.guest_bytes + found.hot_swap_bytes + found.cache_bytes
    assert found.demand_bytes == parts
    assert found.margin_bytes == 1101 * MIB // 64 > LEAST_MARGIN_BYTES
    assert found.need_bytes == parts + found.margin_bytes + found.ahead_bytes
    assert found.irreducible_bytes == found.unswapped_bytes == found.guest_bytes + found.margin_bytes
    assert found.eased_bytes == found.need_bytes + found.stall_bytes
    assert all(type(size) is int for size in found[1:])


def test_a_guest_that_shrinks_has_no_growth() -> None:
    assert heard(facts(demand_mib=300, at=1.0), facts(demand_mib=200, at=2.0)).slope == 0.0
