"""A guest's demand without its noise: what is over before memory could follow it."""

import math
import random

import pytest

from host_controller.core.vm.level import FORGET_SECONDS, LEARN_SECONDS, Level
from host_controller.units import MIB


def heard(demands_mib: list[float], seconds: float = 1.0) -> Level:
    demands = [round(demand * MIB) for demand in demands_mib]
    level = Level()
    before = demands[0]
    for demand in demands[1:]:
        level.follow(demand, demand - before, seconds)
        before = demand
    return level


def noise(deviation_mib: float, seconds: int = 600) -> list[float]:
    rng = random.Random(7)
    return [rng.gauss(3000, deviation_mib) for _ in range(seconds)]


@pytest.mark.parametrize("deviation_mib", [30, 150])
def test_noise_is_learnt_and_the_level_stays_where_its_middle_is(deviation_mib: int) -> None:
    demands = noise(deviation_mib)
    levels = [heard(demands[:count]) for count in range(100, 600, 20)]
    assert all(1.5 < level.peaks_bytes / MIB / deviation_mib < 4.5 for level in levels)
    away = [abs(level.demand_bytes / MIB - 3000) / deviation_mib for level in levels]
    assert sum(away) / len(away) < 0.5
    assert max(away) < 1.5


@pytest.mark.parametrize("height_mib", [100, 1340])
def test_what_turns_by_its_height_each_second_has_no_higher_peaks(height_mib: int) -> None:
    """A saw or a square of two seconds. Three and a half times its height was asked for, as if it were normal
    noise, and kept from others who stalled.
    """
    level = heard([2800 + height_mib * (at % 2) for at in range(300)])
    assert height_mib / 2 <= level.peaks_bytes / MIB <= 1.05 * height_mib


def test_normal_noise_has_its_rare_peaks() -> None:
    demands = noise(150)
    peaks = [heard(demands[:count]).peaks_bytes / MIB for count in range(150, 600, 30)]
    assert all(one > 2.5 * 150 for one in peaks)


@pytest.mark.parametrize("period", [5, 8, 10, 30, 60])
@pytest.mark.parametrize("phase", [0.0, 0.37])
def test_waves_are_no_noise_and_are_followed_at_once(period: int, phase: float) -> None:
    wave = [3000 + 900 * math.sin(2 * math.pi * (at + phase) / period) for at in range(300)]
    level = heard(wave)
    assert level.noise < 900 * MIB / 8
    if period > 5:
        assert not level.peaks_bytes or level.noise < 900 * MIB / 50
        assert level.demand_bytes == pytest.approx(wave[-1] * MIB, abs=level.peaks_bytes + 1)


@pytest.mark.parametrize(
    "demands_mib",
    [
        [1000] * 30 + [3000] * 30,
        [3000] * 30 + [1000] * 30,
        [1000 + 50 * at for at in range(60)],
        ([1000] * 15 + [3000] * 15) * 4,
        [1000 + 50 * (at % 20) for at in range(200)],
    ],
)
def test_steps_ramps_squares_and_saw_teeth_are_no_noise(demands_mib: list[float]) -> None:
    level = heard(demands_mib)
    assert level.peaks_bytes < (max(demands_mib) - min(demands_mib)) * MIB / 50
    assert abs(level.demand_bytes - demands_mib[-1] * MIB) <= level.peaks_bytes


LEARNT = 1.0 - math.exp(-1.0 / LEARN_SECONDS)
KEPT = math.exp(-1.0 / FORGET_SECONDS)
"""What of noise is learnt in a second, and what is left of it after one without."""


@pytest.mark.parametrize(
    ("changes", "noise"),
    [
        ([1000], 0.0),
        ([1000, -600], 600 * LEARNT),
        ([-600, 1000], 600 * LEARNT),
        ([1000, 600], 0.0),
        ([-1000, -600], 0.0),
        ([1000, 0, -1000], 0.0),  # what comes back later has stayed long enough to be served
        ([1000, -600, 600], 600 * LEARNT * (2.0 - LEARNT)),
        ([1000, -600, 0], 600 * LEARNT * KEPT),
        ([1000, -600, -600], 600 * (LEARNT * KEPT - (1.0 - KEPT))),  # and what goes on is none
    ],
)
def test_noise_is_what_a_seconds_change_takes_back_of_the_last_ones(changes: list[int], noise: float) -> None:
    """Bytes. It is learnt sooner than it is forgotten."""
    level, demand = Level(), 10_000
    for change in changes:
        demand += change
        level.follow(demand, change, 1.0)
    assert level.noise == pytest.approx(noise, rel=1e-9)


def test_the_level_is_never_further_from_demand_than_its_peaks() -> None:
    demands = [*noise(150, 200), *(at + 2000 for at in noise(150, 30))]
    for count in range(2, len(demands)):
        level = heard(demands[:count])
        assert abs(level.demand_bytes - demands[count - 1] * MIB) <= level.peaks_bytes + 1


def test_peaks_rise_with_the_noise_at_once_and_fall_slowly() -> None:
    """Goals are made from them: half a minute of luck moves none."""
    loud = heard(noise(150, 300))
    before = loud.peaks_bytes
    assert loud.lasting_noise >= loud.noise
    for _ in range(30):
        loud.follow(3000 * MIB, 0, 1.0)
    assert 0.8 * before < loud.peaks_bytes < before
    assert loud.noise < 0.7 * loud.lasting_noise
    for _ in range(90):
        loud.follow(3000 * MIB, 0, 1.0)
    assert loud.lasting_noise == loud.noise, "it has become calm"


def test_what_comes_and_goes_now_and_then_is_forgotten_like_its_noise() -> None:
    level = heard(([1000] * 20 + [1400, 1800, 1000]) * 3)
    assert 0 < level.lasting_noise == level.noise


def test_noise_that_has_ended_is_forgotten_and_the_level_is_the_demand_again() -> None:
    level = heard([*noise(150, 300), *[3000.0] * 600])
    assert level.peaks_bytes == 0
    assert level.demand_bytes == 3000 * MIB


def test_what_comes_and_goes_once_is_hardly_noise() -> None:
    level = heard([1000] * 30 + [2000] + [1000] * 10)
    assert 0 < level.noise < 1000 * MIB / 15


def test_reports_ten_times_a_second_say_the_same_as_one_a_second() -> None:
    once = heard(noise(150, 300))
    often = heard([demand for demand in noise(150, 300) for _ in range(10)], 0.1)
    assert often.noise == pytest.approx(once.noise, rel=0.15)
