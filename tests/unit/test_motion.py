"""Growth that goes on, told apart from what comes and goes; and what stalls may ask for."""

import random
from itertools import pairwise

from host_controller.core.model import GuestFacts
from host_controller.core.vm.motion import Motion
from host_controller.core.vm.stalls import STALL_PATIENCE, Stalls
from host_controller.units import GIB, MIB


def moved(changes: list[int], seconds: float = 0.5) -> Motion:
    motion = Motion()
    for change in changes:
        motion.follow(change * MIB, seconds)
    return motion


def test_growth_that_goes_on_is_growth() -> None:
    assert moved([100] * 6).growth > 150 * MIB  # of 200 MiB/s


def test_noise_is_no_growth() -> None:
    rng = random.Random(3)
    levels = [rng.gauss(3000, 100) for _ in range(200)]
    motion = Motion()
    most = 0.0
    for before, after in pairwise(levels[20:]):
        motion.follow(round((after - before) * MIB), 1.0)
        most = max(most, motion.growth)
    assert motion.flutter > 50 * MIB
    assert motion.growth < 100 * MIB


def test_one_step_up_is_no_flutter() -> None:
    assert moved([0] * 10 + [1000] + [0] * 20).flutter < 20 * MIB


def stalling(share: float, at: float, before: int, usable: int = GIB) -> GuestFacts:
    return GuestFacts(
        at, "boot", int(at), True, usable, 0, 0, 0, usable, usable, 0, 0, 0,
        stall_us=before + int(share * 1e6),
    )  # fmt: skip


def stall(shares: list[float], *, given: bool = True) -> list[float]:
    """The raise after each second of a guest that stalls so much, and is given more each time."""
    stalls, told, usable = Stalls(), [], GIB
    last = stalling(0.0, 0.0, 0, usable)
    for second, share in enumerate(shares, 1):
        usable += 50 * MIB if given else 0
        facts = stalling(share, float(second), last.stall_us or 0, usable)
        stalls.follow(last, facts, 1.0, relievable=True)
        told.append(stalls.raise_bytes)
        last = facts
    return told


def test_a_raise_ends_when_the_stall_ends() -> None:
    told = stall([0.5, 0.3, 0.1, 0.0] + [0.0] * 20)
    assert max(told) > 50 * MIB
    assert told[-1] < max(told) / 8


def test_a_raise_that_relieved_nothing_ends_at_once_and_there_is_none_for_a_while() -> None:
    told = stall([0.8] * 30)
    assert max(told) > 50 * MIB
    assert told[STALL_PATIENCE + 2 :] == [0.0] * (len(told) - STALL_PATIENCE - 2)
