"""A hundred thousand random engine steps, half of them plugging without end; `make soak` makes a million."""

from host_controller.simulator.scenario import Scenario
from tests.simulated.generator import random_scenario, seesaw_scenario, swing_scenario
from tests.simulated.soak import explain, soak


def scenario_of(seed: int) -> Scenario:
    """As the soak's, of a quarter of the guests, and shorter where demand swings."""
    if seed % 4 == 1:
        return swing_scenario(seed, 150.0)
    return seesaw_scenario(seed, guests=12) if seed % 2 else random_scenario(seed)


def test_a_hundred_thousand_random_steps_break_no_rule() -> None:
    tally, found = soak(100_000, scenarios=scenario_of)
    print(f"\n{tally.table()}")
    assert not found, explain(found[0][0])
