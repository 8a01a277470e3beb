"""Growth that goes on, told apart from what comes and goes."""

import random
from itertools import pairwise
from math import exp

import pytest

from host_controller.core.vm.motion import Motion, blend
from host_controller.units import MIB


def moved(changes: list[int], seconds: float = 0.5) -> Motion:
    motion = Motion()
    for change in changes:
        motion.follow(change * MIB, seconds)
    return motion


def test_growth_that_goes_on_is_growth() -> None:
    motion = moved([100] * 6)
    assert motion.growth == motion.slope == pytest.approx(200 * MIB * (1 - exp(-6)))
    assert motion.flutter == pytest.approx(0.0, abs=1.0)


def test_a_fall_is_no_growth() -> None:
    assert moved([-100] * 6).slope == 0.0
    assert moved([100, -1000]).growth == 0.0


@pytest.mark.parametrize("amplitude", [10, 100])
def test_noise_is_no_growth(amplitude: int) -> None:
    rng = random.Random(3)
    levels = [rng.gauss(3000, amplitude) for _ in range(1000)]
    motion, grew = Motion(), 0
    for second, (before, after) in enumerate(pairwise(levels)):
        motion.follow(round((after - before) * MIB), 1.0)
        grew += second > 30 and motion.growth > 0
    assert motion.flutter > amplitude * MIB / 4
    assert grew == 0


def test_growth_in_noise_is_seen_when_it_is_larger() -> None:
    motion = Motion()
    for _ in range(30):
        motion.follow(5 * MIB, 1.0)
        motion.follow(-5 * MIB, 1.0)
    motion.follow(500 * MIB, 1.0)
    assert motion.growth > 300 * MIB


def test_one_step_up_is_no_flutter_and_what_fluttered_is_forgotten() -> None:
    assert moved([0] * 10 + [1000] + [0] * 20).flutter < 1.0
    restless = moved([100, -100] * 20)
    before = restless.flutter
    for _ in range(60):
        restless.follow(0, 1.0)
    assert before > 100 * MIB
    assert restless.flutter < before / 100


def test_what_is_blended_goes_two_thirds_of_the_way_in_its_time() -> None:
    assert blend(10.0, 20.0, 2.0, 2.0) == pytest.approx(20 - 10 * exp(-1))
    assert blend(10.0, 20.0, 0.0, 2.0) == 10.0
