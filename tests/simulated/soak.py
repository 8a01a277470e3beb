"""Random steps by the hundred thousand: `python -m tests.simulated.soak [--steps N] [--pairs N] [--seed S]`.

At least so many engine steps, and until every kind of command has met every guest behaviour so often, or the
minutes are over. Prints how often they met, and for the first violation the shortest history that leads
to it.
"""

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from host_controller.core.engine import Engine
from host_controller.core.model import Settings
from host_controller.simulator.behaviours import BEHAVIOURS
from host_controller.simulator.checker import Violation
from host_controller.simulator.scenario import Scenario, play, shortest, violations_of
from host_controller.simulator.world import MakeController, World
from tests.simulated.generator import random_scenario, seesaw_scenario, swing_scenario

KINDS = ("Grow", "Shrink", "AttachDimm", "DetachDimm", "ResizeVirtioMem", "SendToGuest", "SetPace")


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
    """Of any kind: half of plugging and unplugging without end, a quarter of demand that swings by GiB."""
    if seed % 4 == 0:
        return random_scenario(seed)
    return swing_scenario(seed) if seed % 4 == 1 else seesaw_scenario(seed)


def engine_for(scenario: Scenario) -> MakeController:
    """Every second host whose demand swings has the engine as it comes."""
    return patient_engine if scenario.seed % 8 == 1 else make_engine


class Tally:
    """What a soak has met."""

    def __init__(self) -> None:
        self.steps = 0
        self.runs = 0
        self.met: Counter[tuple[str, str]] = Counter()
        self.overdraft_seconds = 0.0
        self.seconds = 0.0

    def add(self, world: World) -> None:
        """Count a world that has been played."""
        self.runs += 1
        self.steps += world.decisions
        self.met += world.history.met
        self.overdraft_seconds += world.checker.overdraft_seconds
        self.seconds += world.now

    @property
    def rarest(self) -> int:
        """How often the pair met that met least often."""
        return min(self.met[kind, name] for kind in KINDS for name in BEHAVIOURS)

    def table(self) -> str:
        """Commands against behaviours."""
        lines = [f"{'':16}" + "".join(f"{kind:>17}" for kind in KINDS)]
        lines += [
            f"{name:16}" + "".join(f"{self.met[kind, name]:17d}" for kind in KINDS) for name in BEHAVIOURS
        ]
        share = self.overdraft_seconds / max(1.0, self.seconds)
        lines.append(f"{self.steps} steps, {self.runs} runs, overdraft in {share:.1%} of the time")
        return "\n".join(lines)


def soak(
    steps: int,
    seed: int = 0,
    ignored: frozenset[str] = frozenset(),
    *,
    pairs: int = 0,
    minutes: float = math.inf,
    scenarios: Callable[[int], Scenario] = scenario_of,
) -> tuple[Tally, list[tuple[Scenario, Violation]]]:
    """Play random scenarios until so many engine steps were made; the violating ones are returned.

    Longer, but for so many minutes more at most, until every pair of command and behaviour met so often.
    """
    tally = Tally()
    found = []
    end = math.inf
    while tally.steps < steps or (tally.rarest < pairs and time.monotonic() < end):
        scenario = scenarios(seed + tally.runs)
        world = play(scenario, engine_for(scenario), ignored=ignored)
        tally.add(world)
        if tally.steps >= steps:
            end = min(end, time.monotonic() + 60 * minutes)
        if world.violations:
            found.append((scenario, world.violations[0]))
    return tally, found


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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--explain", type=int, default=1, help="violations to shorten and print")
    parser.add_argument("--ignore", nargs="*", default=[], help="rules to look behind")
    options = parser.parse_args(arguments)
    ignored = frozenset(options.ignore)
    began = time.monotonic()
    tally, found = soak(options.steps, options.seed, ignored, pairs=options.pairs, minutes=options.minutes)
    print(tally.table())
    print(f"{time.monotonic() - began:.0f} s, {len(found)} runs with violations")
    shown: set[str] = set()
    for scenario, violation in found:
        print(f"seed {scenario.seed}: {violation}")
    for scenario, violation in found:
        if violation.rule not in shown and len(shown) < options.explain:
            shown.add(violation.rule)
            print(explain(scenario, ignored))
    if tally.rarest < options.pairs:
        print(f"some pair met {tally.rarest} times only, not {options.pairs}")
    return 1 if found or tally.rarest < options.pairs else 0


if __name__ == "__main__":
    sys.exit(main())
