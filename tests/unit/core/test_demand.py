"""What a guest needs, from what its own kernel says."""

import math
from dataclasses import replace

import pytest

from host_controller.core.model import GuestFacts, Limits
from host_controller.core.vm.demand import (
    CACHE_HALF_LIFE,
    Demand,
    Estimate,
    Transit,
    margin_bytes,
    swappable_bytes,
)
from host_controller.units import GIB, MIB
from tests.support.build import facts

LIMITS = Limits(512 * MIB, 64 * MIB, 4096 * MIB, buffer_percent=20)


def after(*readings: GuestFacts, limits: Limits = LIMITS) -> Estimate:
    demand = Demand()
    for reading in readings:
        demand.observe(reading)
    estimate = demand.estimate(limits, readings[-1].at)
    assert estimate is not None
    return estimate


def test_nothing_is_estimated_before_the_guest_has_spoken() -> None:
    assert Demand().estimate(LIMITS, 0.0) is None


def test_the_kernels_own_memory_is_demand() -> None:
    # Trap 22: a 512 MiB guest shows MemTotal 404 and MemAvailable 369.
    estimate = after(facts(usable_mib=512, demand_mib=143, total_bytes=404 * MIB))
    assert estimate.demand_bytes == 143 * MIB


def test_desired_is_demand_with_its_buffer_and_a_margin() -> None:
    estimate = after(facts(usable_mib=512, demand_mib=200))
    # The kernel's watermarks are no part of what is available, so they are part of demand already.
    margin = margin_bytes(512 * MIB)
    assert estimate.need_bytes == 200 * MIB + margin
    assert estimate.desired_bytes == 240 * MIB + margin


def test_pressure_at_rest_under_a_buffer_of_20_percent_is_that_of_hyper_v() -> None:
    estimate = after(facts(usable_mib=240, demand_mib=200, online_bytes=240 * MIB))
    assert estimate.pressure_percent == pytest.approx(83.3, abs=0.1)


def test_what_is_wanted_stays_within_the_limits() -> None:
    small = after(facts(usable_mib=512, demand_mib=10))
    large = after(facts(usable_mib=4096, demand_mib=4000))
    assert small.irreducible_bytes == small.desired_bytes == LIMITS.minimum_bytes
    assert large.desired_bytes == LIMITS.maximum_bytes


def test_a_growing_guest_is_granted_a_second_of_growth_ahead() -> None:
    calm = after(facts(demand_mib=200, at=1.0), facts(demand_mib=200, at=1.5))
    growing = after(facts(demand_mib=200, at=1.0), facts(demand_mib=250, at=1.5))
    assert calm.ahead_bytes == 0
    assert growing.ahead_bytes == pytest.approx(100 * MIB * (1 - math.exp(-1)), rel=0.01)


def test_cold_swap_is_not_demand_and_swap_that_is_read_back_is() -> None:
    cold = after(*(facts(at=t, swap_used_bytes=100 * MIB) for t in (1.0, 2.0)))
    hot = after(
        *(facts(at=t, swap_used_bytes=100 * MIB, swap_in_bytes=int(t * 30 * MIB)) for t in range(1, 60))
    )
    assert cold.hot_swap_bytes == 0
    assert hot.hot_swap_bytes == 100 * MIB


def thrash(seconds: int, *, free_mib: int) -> list[GuestFacts]:
    """A guest that reads 50 MiB/s back that was just dropped, with MemAvailable flat."""
    return [
        facts(
            usable_mib=512,
            demand_mib=200,
            at=float(t),
            free_bytes=free_mib * MIB,
            reclaimable_bytes=280 * MIB,
            refault_bytes=t * 50 * MIB,
        )
        for t in range(1, seconds + 1)
    ]


def test_a_thrashing_file_cache_raises_demand_though_available_memory_is_flat() -> None:
    estimate = after(*thrash(10, free_mib=12))
    assert estimate.guest_bytes == 200 * MIB
    assert estimate.cache_bytes > 280 * MIB
    assert estimate.irreducible_bytes < estimate.need_bytes - 280 * MIB  # cache can be done without


def test_a_container_that_thrashes_within_its_own_limit_raises_nothing() -> None:
    # Trap 21: PSI 76 % and refaults, with plenty free at the root.
    readings = thrash(10, free_mib=300)
    stalled = [
        GuestFacts(**{f: getattr(r, f) for f in r.__slots__} | {"stall_us": int(r.at * 760_000)})
        for r in readings
    ]
    estimate = after(*stalled)
    assert (estimate.cache_bytes, estimate.stall_bytes) == (0, 0)


def test_a_working_set_of_cache_fades_slowly() -> None:
    readings = thrash(10, free_mib=12)
    at_end = after(*readings)
    quiet = [
        facts(demand_mib=200, at=10.0 + t, refault_bytes=500 * MIB)
        for t in range(1, int(CACHE_HALF_LIFE) + 1)
    ]
    later = after(*readings, *quiet)
    assert later.cache_bytes == pytest.approx(at_end.cache_bytes / 2, rel=0.02)


def stalls(seconds: int, *, granted: bool) -> list[GuestFacts]:
    """A guest at its floor that stalls half of the time, whatever it is given."""
    return [
        facts(
            usable_mib=512 + (t * 10 if granted else 0),
            demand_mib=500 + (t * 10 if granted else 0),
            at=float(t),
            stall_us=t * 500_000,
        )
        for t in range(1, seconds + 1)
    ]


def test_stalls_with_low_headroom_raise_demand_within_a_bound() -> None:
    estimate = after(*stalls(60, granted=False))
    assert 0 < estimate.stall_bytes <= estimate.guest_bytes // 4


def test_raises_end_when_they_bring_no_relief() -> None:
    in_vain = after(*stalls(20, granted=True))
    hopeful = after(*stalls(20, granted=False))
    assert in_vain.stall_bytes < hopeful.stall_bytes


def test_another_boot_starts_afresh() -> None:
    estimate = after(*thrash(10, free_mib=12), facts(at=11.0, boot_id="another"))
    assert estimate.cache_bytes == 0


def test_the_peak_of_desired_forgets_what_is_older_than_its_window() -> None:
    demand = Demand()
    assert demand.peak(3 * GIB, 60.0, 0.0) == 3 * GIB
    assert demand.peak(1 * GIB, 60.0, 30.0) == 3 * GIB
    assert demand.peak(1 * GIB, 60.0, 61.0) == 1 * GIB


@pytest.mark.parametrize(
    ("usable", "margin"),
    [
        (256 * MIB, 16 * MIB),
        (1 * GIB, 16 * MIB),
        (2 * GIB, 32 * MIB),
        (8 * GIB + 63, 128 * MIB),  # whole bytes
    ],
)
def test_the_margin_is_a_64th_and_no_less_than_16_mib(usable: int, margin: int) -> None:
    assert margin_bytes(usable) == margin
    assert type(margin_bytes(usable)) is int


def test_a_guest_cannot_go_without_what_it_uses_and_a_margin() -> None:
    estimate = after(facts(usable_mib=512, demand_mib=200))
    assert estimate.margin_bytes == 16 * MIB
    assert estimate.irreducible_bytes == 216 * MIB
    assert after(facts(least_usable_bytes=300 * MIB)).irreducible_bytes == 300 * MIB


def test_demand_is_the_guests_and_what_is_read_back_from_swap_and_of_its_cache() -> None:
    swapping = after(
        *(facts(at=t, swap_used_bytes=100 * MIB, swap_in_bytes=int(t * 30 * MIB)) for t in range(1, 60))
    )
    assert swapping.demand_bytes == swapping.guest_bytes + 100 * MIB
    thrashing = after(*thrash(10, free_mib=12))
    assert thrashing.demand_bytes == thrashing.guest_bytes + thrashing.cache_bytes


def test_swap_that_comes_in_where_none_is_in_use_any_more_is_no_demand() -> None:
    readings = [facts(at=t, swap_in_bytes=int(t * 30 * MIB)) for t in range(1, 10)]
    assert after(*readings).hot_swap_bytes == 0


@pytest.mark.parametrize("counter", ["swap_in_bytes", "refault_bytes"])
def test_a_counter_that_goes_back_has_counted_nothing(counter: str) -> None:
    demand = Demand()
    for at, count in ((1.0, 4 * GIB), (2.0, 0), (3.0, 0)):
        demand.observe(facts(at=at, free_bytes=0, reclaimable_bytes=0, **{counter: count}))
    assert (demand.swap_in_rate, demand.refault_rate, demand.cache_bytes) == (0.0, 0.0, 0.0)


def test_rates_come_near_to_what_the_counters_grow_by_in_a_second() -> None:
    demand = Demand()
    for step in range(240):
        at = step * 0.5
        counts = {"swap_in_bytes": int(at * 30 * MIB), "refault_bytes": int(at * 50 * MIB)}
        demand.observe(facts(demand_mib=100 + step, at=at, **counts))
    assert demand.slope == pytest.approx(2 * MIB, rel=0.01)
    assert demand.swap_in_rate == pytest.approx(30 * MIB, rel=0.05)
    assert demand.refault_rate == pytest.approx(50 * MIB, rel=0.01)


def test_a_peak_that_comes_again_counts_from_then_and_one_of_just_the_window_still_counts() -> None:
    demand = Demand()
    assert demand.peak(3 * GIB, 60.0, 0.0) == 3 * GIB
    assert demand.peak(1 * GIB, 60.0, 60.0) == 3 * GIB
    assert demand.peak(1 * GIB, 60.0, 60.1) == 1 * GIB
    assert demand.peak(2 * GIB, 60.0, 70.0) == 2 * GIB
    assert demand.peak(2 * GIB, 60.0, 80.0) == 2 * GIB
    assert demand.peak(1 * GIB, 60.0, 139.0) == 2 * GIB


# --- the three floors ---


@pytest.mark.parametrize(
    ("held_mib", "free_swap_mib", "swappable_mib"),
    [
        (400, 0, 0),
        (400, 63, 0),
        (400, 64, 0),  # so much is left to it
        (400, 65, 1),
        (400, 200, 136),
        (400, 256, 192),
        (1000, 400, 300),  # a quarter of it is left to it
        (400, 400, 200),  # no more than half of what its programs hold
        (400, 4096, 200),
        (-10, 4096, 0),
    ],
)
def test_what_could_go_to_its_own_swap_is_a_part_of_both(
    held_mib: int, free_swap_mib: int, swappable_mib: int
) -> None:
    reading = facts(2048, 108 + held_mib, online_bytes=2048 * MIB, total_bytes=1940 * MIB)
    assert reading.kernel_bytes == 108 * MIB
    one = replace(reading, swap_free_bytes=free_swap_mib * MIB)
    assert swappable_bytes(one) == swappable_mib * MIB
    assert type(swappable_bytes(one)) is int


def test_its_own_swap_lowers_what_it_cannot_go_without_and_nothing_else() -> None:
    without = after(facts(512, 400))
    estimate = after(facts(512, 400, swap_free_bytes=164 * MIB))
    assert without.irreducible_bytes == without.unswapped_bytes == without.need_bytes == 416 * MIB
    assert estimate == without._replace(irreducible_bytes=316 * MIB)


def test_where_its_kernel_refuses_or_a_daemon_kills_swap_is_of_no_use() -> None:
    estimate = after(facts(512, 400, swap_free_bytes=164 * MIB, least_usable_bytes=390 * MIB))
    assert (estimate.irreducible_bytes, estimate.unswapped_bytes) == (390 * MIB, 416 * MIB)
    assert after(facts(512, 400, least_usable_bytes=430 * MIB)).unswapped_bytes == 430 * MIB


def test_stalls_ask_for_more_than_need_and_are_part_of_no_buffer() -> None:
    estimate = after(*stalls(3, granted=False))
    assert estimate.stall_bytes > 0
    assert estimate.demand_bytes == estimate.guest_bytes
    assert estimate.eased_bytes == estimate.need_bytes + estimate.stall_bytes
    assert estimate.desired_bytes == estimate.need_bytes + estimate.demand_bytes // 5
    bare = after(*stalls(3, granted=False), limits=replace(LIMITS, buffer_percent=5))
    assert bare.desired_bytes == bare.eased_bytes, "a buffer is no smaller than what they ask for"


@pytest.mark.parametrize(
    ("limits", "floors_mib"),
    [
        (LIMITS, (316, 416, 416, 416, 496)),
        (replace(LIMITS, minimum_bytes=400 * MIB), (400, 416, 416, 416, 496)),
        (replace(LIMITS, minimum_bytes=500 * MIB), (500, 500, 500, 500, 500)),
        (replace(LIMITS, maximum_bytes=450 * MIB), (316, 416, 416, 416, 450)),
        (replace(LIMITS, maximum_bytes=410 * MIB), (316, 410, 410, 410, 410)),
        (replace(LIMITS, maximum_bytes=300 * MIB), (300, 300, 300, 300, 300)),
    ],
)
def test_all_of_it_lies_within_the_limits(limits: Limits, floors_mib: tuple[int, ...]) -> None:
    one = after(facts(512, 400, swap_free_bytes=164 * MIB), limits=limits)
    floors = one.irreducible_bytes, one.unswapped_bytes, one.need_bytes, one.eased_bytes, one.desired_bytes
    assert tuple(size // MIB for size in floors) == floors_mib


def learnt(used_mib: list[float], aside_mib: int, seconds: float = 0.5, ahead_mib: int = 0) -> Demand:
    """Of a guest of which so much may be set aside, or be available before it is counted, all the time."""
    demand = Demand()
    for count, used in enumerate(used_mib):
        transit = Transit(aside_mib * MIB, ahead_mib * MIB)
        demand.observe(facts(2048, used, at=count * seconds), transit)
    return demand


BLOCKS_LEAVE = [200.0, 328.0, 200.0] * 20


def test_what_its_kernel_sets_aside_before_it_leaves_is_neither_noise_nor_growth() -> None:
    """A memory block at a time, as recorded: 128 MiB more, and then all as before."""
    demand = learnt(BLOCKS_LEAVE, 128)
    assert demand.level.peaks_bytes == 0
    assert demand.motion.flutter == demand.slope == 0.0
    assert demand.followed_bytes == demand.level.demand_bytes == 200 * MIB
    noisy = learnt(BLOCKS_LEAVE, 0)
    assert noisy.level.peaks_bytes > 32 * MIB
    assert noisy.motion.flutter > 32 * MIB


def test_what_is_available_before_it_is_counted_is_neither_noise_nor_a_fall() -> None:
    """As recorded while blocks come: up to 41 MiB less seem to be used, and then all as before."""
    blocks_come = [200.0, 160.0, 200.0] * 20
    demand = learnt(blocks_come, 0, ahead_mib=128)
    assert demand.level.peaks_bytes == 0
    assert demand.motion.flutter == demand.slope == 0.0
    assert demand.followed_bytes == 200 * MIB
    assert learnt(blocks_come, 0).level.peaks_bytes > 10 * MIB
    assert learnt([400.0, 200.0], 0, ahead_mib=128).followed_bytes == 328 * MIB, "what it does not explain"


def test_what_that_does_not_explain_is_demand_also_while_memory_leaves() -> None:
    ups_and_downs = [1000.0, 1500.0] * 30
    assert learnt(ups_and_downs, 128, 1.0).level.noise == pytest.approx(
        learnt([1000.0, 1372.0] * 30, 0, 1.0).level.noise
    )
    assert learnt([1000.0 + 200 * step for step in range(8)], 128).slope > 300 * MIB
    # The middle of what it may be is not known: what it was last is believed, within that.
    assert learnt([200.0, 400.0], 128).followed_bytes == 272 * MIB
    assert learnt([200.0, 150.0], 128).followed_bytes == 150 * MIB


def test_what_was_set_aside_hides_what_a_guest_came_to_use_no_longer_than_it_is() -> None:
    demand = learnt([200.0, 300.0], 128)
    assert demand.followed_bytes == 200 * MIB
    estimate = demand.estimate(LIMITS, 0.5)
    assert estimate is not None
    assert estimate.guest_bytes == 300 * MIB, "what it needs goes by its own word all the time"
    demand.observe(facts(2048, 300, at=1.0))
    assert demand.followed_bytes == 300 * MIB
    assert demand.slope > 100 * MIB


def test_another_boot_has_nothing_of_what_the_last_one_was_followed_by() -> None:
    demand = learnt([200.0], 0)
    demand.observe(facts(2048, 250, at=1.0, boot_id="another"), Transit(128 * MIB))
    assert demand.followed_bytes == 250 * MIB
