"""A hundred thousand random engine steps; `make soak` makes a million, and plugs without end too."""

from tests.simulated.generator import random_scenario
from tests.simulated.soak import explain, soak


def test_a_hundred_thousand_random_steps_break_no_rule() -> None:
    tally, found = soak(100_000, scenarios=random_scenario)
    print(f"\n{tally.table()}")
    assert not found, explain(found[0][0])
