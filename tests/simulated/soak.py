"""Random steps by the hundred thousand: `python -m tests.simulated.soak [--steps N] [--pairs N] [--seed S]`.

At least so many engine steps, and until every kind of command has met every guest behaviour so often, or the
minutes are over. Prints how often they met, and for the first violation the shortest history that leads
to it. With `--keep FILE` it can be stopped at any time, and goes on where it was; other first seeds add up.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from host_controller.core.engine import Engine
from host_controller.core.model import Settings
from host_controller.simulator.scenario import Scenario, play, shortest, violations_of
from host_controller.simulator.world import MakeController
from tests.simulated.generator import (
    meddled_scenario,
    random_scenario,
    rough_scenario,
    seesaw_scenario,
    swing_scenario,
    tight_scenario,
)
from tests.simulated.tally import Kept, Tally


def make_engine(capacity_bytes: int) -> Engine:
    """The production engine, impatient, so that plugging and unplugging are met often."""
    return Engine(
        Settings(
            capacity_bytes=capacity_bytes,
            shrink_after_seconds=5.0,
            settle_seconds=2.0,
            unplug_after_seconds=3.0,
            rest_seconds=1.0,
        )
    )


def patient_engine(capacity_bytes: int) -> Engine:
    """The production engine as it comes."""
    return Engine(Settings(capacity_bytes))


def scenario_of(seed: int) -> Scenario:
    """Of any kind: plugging and unplugging without end, guests that do anything, demand that swings by GiB,
    and virtio-mem that comes and goes while QEMU is late, and somebody else asks for sizes of his own, and
    DIMMs of which the last is seldom free whole.
    """
    match seed % 8:
        case 0 | 4:
            return random_scenario(seed)
        case 1 | 5:
            return swing_scenario(seed)
        case 3:
            return rough_scenario(seed) if seed % 16 == 3 else meddled_scenario(seed)
        case 7:
            return tight_scenario(seed)
        case _:
            return seesaw_scenario(seed)


def engine_for(scenario: Scenario) -> MakeController:
    """Every second host whose demand swings has the engine as it comes."""
    return patient_engine if scenario.seed % 8 == 1 or scenario.seed % 32 in (3, 7, 11) else make_engine


def soak(
    steps: int,
    seed: int = 0,
    ignored: frozenset[str] = frozenset(),
    *,
    pairs: int = 0,
    minutes: float = math.inf,
    scenarios: Callable[[int], Scenario] = scenario_of,
    tally: Tally | None = None,
    played: Callable[[], None] = lambda: None,
) -> Tally:
    """Play random scenarios from a seed on until so many engine steps were made.

    Longer, but for so many minutes more at most, until every pair of command and behaviour met so often.
    tally: what was met from that seed on before; it goes on after it. played: called after each.
    """
    tally = Tally() if tally is None else tally
    end = math.inf
    while tally.steps < steps or (tally.rarest < pairs and time.monotonic() < end):
        scenario = scenarios(seed + tally.runs)
        tally.add(play(scenario, engine_for(scenario), ignored=ignored), scenario.seed)
        if tally.steps >= steps:
            end = min(end, time.monotonic() + 60 * minutes)
        played()
    return tally


def explain(scenario: Scenario, ignored: frozenset[str] = frozenset(), lines: int = 30) -> str:
    """The shortest history that leads to a scenario's first violation."""
    short = shortest(scenario, violations_of(engine_for(scenario), ignored))
    world = play(short, engine_for(scenario), ignored=ignored)
    if not world.violations:
        return "the violation went away: the run is not deterministic"
    violation = world.violations[0]
    about = violation.vm if violation.vm in {g.name for g in short.guests} else None
    return "\n".join(["", short.describe(), *world.history.tail(about, lines), str(violation)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 0 without a violation, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=0, help="least number of meetings of each pair")
    parser.add_argument("--minutes", type=float, default=20.0, help="beyond the steps, for the pairs")
    parser.add_argument("--seed", type=int, default=0, help="the first; others follow it")
    parser.add_argument("--keep", type=Path, help="a file: go on where it ends, and add up all its seeds")
    parser.add_argument("--explain", type=int, default=1, help="violations to shorten and print")
    parser.add_argument("--ignore", nargs="*", default=[], help="rules to look behind")
    options = parser.parse_args(arguments)
    ignored = frozenset(options.ignore)
    began = time.monotonic()
    kept = Kept(options.keep) if options.keep else None
    tally = soak(
        options.steps, options.seed, ignored, pairs=options.pairs, minutes=options.minutes,
        tally=kept and kept.part(options.seed), played=kept.save if kept else lambda: None,
    )  # fmt: skip
    whole = kept.whole() if kept else tally
    print(whole.table())
    print(f"{time.monotonic() - began:.0f} s, {len(whole.violations)} runs with violations")
    for seed, violation in whole.violations.items():
        print(f"seed {seed}: {violation}")
    for seed in list(tally.violations)[: options.explain]:
        print(explain(scenario_of(seed), ignored))
    if whole.rarest < options.pairs:
        print(f"some pair met {whole.rarest} times only, not {options.pairs}")
    return 1 if whole.violations or whole.rarest < options.pairs else 0


if __name__ == "__main__":
    sys.exit(main())
