"""A hundred thousand random engine steps, half of them plugging without end; `make soak` makes a million."""

from pathlib import Path

from host_controller.simulator.scenario import Scenario
from tests.simulated.generator import random_scenario, rough_scenario, seesaw_scenario, swing_scenario
from tests.simulated.soak import explain, soak
from tests.simulated.tally import Kept


def scenario_of(seed: int) -> Scenario:
    """As the soak's, of a quarter of the guests, and shorter where demand swings."""
    if seed % 8 == 3:
        return rough_scenario(seed, 100.0)
    if seed % 4 == 1:
        return swing_scenario(seed, 150.0)
    return seesaw_scenario(seed, guests=12) if seed % 2 else random_scenario(seed)


def test_a_hundred_thousand_random_steps_break_no_rule() -> None:
    tally = soak(100_000, scenarios=scenario_of)
    print(f"\n{tally.table()}")
    assert not tally.violations, explain(scenario_of(min(tally.violations)))


def short(seed: int) -> Scenario:
    return rough_scenario(seed, 20.0)


def test_a_soak_that_was_stopped_goes_on_where_it_was_and_other_seeds_add_up(tmp_path: Path) -> None:
    at_once = soak(2000, scenarios=short)
    for steps in (1, 1000, 2000):
        kept = Kept(tmp_path / "soak.json")
        soak(steps, scenarios=short, tally=kept.part(0), played=kept.save)
    assert kept.part(0) == at_once
    soak(1, 100, scenarios=short, tally=kept.part(100), played=kept.save)
    whole = Kept(tmp_path / "soak.json").whole()
    assert whole.runs == at_once.runs + 1
    assert whole.steps > at_once.steps


def test_what_another_law_has_met_counts_no_more(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "soak.json")
    soak(1, scenarios=short, tally=kept.part(0), played=kept.save)
    text = kept.path.read_text()
    assert Kept(kept.path).part(0).runs == 1
    kept.path.write_text(text.replace(kept.mark, "another"))
    assert Kept(kept.path).part(0).runs == 0
