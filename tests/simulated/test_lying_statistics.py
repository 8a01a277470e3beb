"""A guest without an agent lies by its balloon's statistics: they are its driver's words, and no truer."""

import random

import pytest

from host_controller.core.model import BalloonStats
from host_controller.simulator.guest import SimulatedVm
from tests.simulated import hostile

truth = SimulatedVm.statistics


def lie(rng: random.Random, told: BalloonStats) -> BalloonStats:
    """Half of the time near the truth, so that it is believed; now and then what no driver says."""
    total, available, updated = told.total_bytes, told.available_bytes, told.updated
    kind = rng.random()
    if kind < 0.3:
        available = rng.choice((0, total, rng.randrange(total + 1)))
    elif kind < 0.6:
        total = rng.choice((*hostile.SIZES, rng.randrange(1 << 33)))
        available = rng.choice((0, total, total // 2, total + 1))
    elif kind < 0.7:
        updated = rng.choice((0, -1, updated + 10**9, 1 << 63))
    return BalloonStats(total, available, updated)


@pytest.mark.parametrize("seed", range(8))
def test_a_guest_whose_statistics_say_anything_costs_nobody_else_anything(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    lies = 0

    def statistics(vm: SimulatedVm, now: float) -> BalloonStats | None:
        nonlocal lies
        told = truth(vm, now)
        if told is None or vm.spec.name != hostile.LIAR:
            return told
        lies += 1
        return lie(rng, told)

    monkeypatch.setattr(SimulatedVm, "statistics", statistics)
    outcome = hostile.play(seed, seconds=30.0, mute=True)
    assert lies > 20
    assert outcome.good, outcome
