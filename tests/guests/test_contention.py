"""Three guests that want more than there is get their weighted max-min share, and never more in sum."""

from collections.abc import Iterator

import pytest

from host_controller.units import MIB
from lab.controller import Limits
from tests.guests.conftest import Rig, RigFactory

BLOCK = 128 * MIB
CAPACITY = 2200
WEIGHTS = {"light": 100, "even": 100, "heavy": 300}


@pytest.fixture(scope="module")
def rig(make_shared_rig: RigFactory) -> Iterator[Rig]:
    rig = make_shared_rig(CAPACITY, keep_ready=32)
    guests = [
        rig.define(name, Limits(minimum=160, maximum=1024, buffer=100, weight=weight))
        for name, weight in WEIGHTS.items()
    ]
    rig.start(*guests)
    rig.controller.wait_managed(*guests)
    yield rig
    rig.assert_within()


def water_level(
    total: float, weights: dict[str, int], lo: dict[str, float], hi: dict[str, float]
) -> dict[str, float]:
    """The oracle: weighted max-min by bisection in floating point. It shares no code with the product."""
    low, high = 0.0, max(hi[name] / weights[name] for name in weights)
    for _ in range(200):
        level = (low + high) / 2
        given = sum(min(hi[name], max(lo[name], level * weights[name])) for name in weights)
        low, high = (level, high) if given <= total else (low, level)
    return {name: min(hi[name], max(lo[name], low * weights[name])) for name in weights}


def needs_inside(rig: Rig) -> tuple[dict[str, float], dict[str, float]]:
    """What each guest needs, and needs with its buffer, by its own /proc and QEMU's word alone, bytes."""
    need, desired = {}, {}
    sample = rig.observer.latest()
    for name, guest in rig.guests.items():
        actual = sample.guests[name].actual
        demand = actual - guest.workload.memory().available_bytes
        margin = max(16 * MIB, actual / 64)
        need[name] = demand + margin
        desired[name] = min(2 * demand + margin, 1024 * MIB)
    return need, desired


def test_a_contention_is_split_as_weighted_max_min_and_a_weight_counts(rig: Rig) -> None:
    for guest in rig.guests.values():
        guest.workload.allocate(250, rate=50)
    for guest in rig.guests.values():
        guest.workload.wait_event("done", "memory", 60)
    rig.controller.wait_at_rest(*rig.guests.values(), limit=90)
    sample = rig.observer.latest()
    need, desired = needs_inside(rig)
    got = {name: float(sample.guests[name].actual) for name in WEIGHTS}
    total = sum(got.values())
    fair = water_level(total, WEIGHTS, need, desired)
    print()
    for name in WEIGHTS:
        print(
            f"{name:6} need {need[name] / MIB:4.0f}, desired {desired[name] / MIB:4.0f}, "
            f"oracle {fair[name] / MIB:4.0f}, got {got[name] / MIB:4.0f} MiB"
        )
    assert total < sum(desired.values()) - BLOCK, "they contend"
    budget = CAPACITY * MIB - sum(guest.overhead for guest in sample.guests.values())
    assert total > budget - 3 * BLOCK, "nothing is wasted but the next DIMM's room, dead bands"
    for name in WEIGHTS:
        assert abs(got[name] - fair[name]) <= max(0.05 * fair[name], BLOCK)
    assert got["heavy"] > got["light"] + 100 * MIB
    assert abs(got["light"] - got["even"]) <= 0.05 * got["light"] + 16 * MIB


def test_memory_that_one_guest_frees_goes_to_the_others(rig: Rig) -> None:
    before = rig.observer.latest().guests
    rig.guests["heavy"].workload.free()
    rig.observer.wait_for(
        lambda sample: (
            sample.guests["heavy"].actual < before["heavy"].actual - BLOCK
            and sample.guests["light"].actual > before["light"].actual + 50 * MIB
            and sample.guests["even"].actual > before["even"].actual + 50 * MIB
        ),
        60,
        "heavy smaller, light and even larger",
    )


def test_nobody_was_killed_for_memory(rig: Rig) -> None:
    for guest in rig.guests.values():
        assert guest.workload.memory().vmstat["oom_kill"] == 0
