"""Random hosts, then small changes of the worst, then the simplest that is nearly as bad.

All is decided by the seed and by how many hosts may be played: equal ones give equal results.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bench.duel.hosts import Host, mutated, random_host, simpler
from bench.duel.judge import KINDS, Verdict

Judge = Callable[[Host], Mapping[str, Verdict]]
Enough = Callable[[int], bool]
"""Whether so many hosts are enough: a number in tests, a time by hand."""

EXPLORING: Final = 0.5
"""Share of the hosts that are new ones; the others are changes of the worst."""
KEPT: Final = 3
"""Worst hosts of each kind that are changed."""
NEARLY: Final = 0.8
"""A simpler host stays as long as it shows so much of what the worst showed above 1."""


@dataclass(slots=True)
class Worst:
    """The worst of each kind so far: (verdict, host), the worst first."""

    by_kind: dict[str, list[tuple[Verdict, Host]]] = field(default_factory=dict)
    played: int = 0

    def add(self, host: Host, found: Mapping[str, Verdict]) -> None:
        """Keep it where it is among the worst."""
        self.played += 1
        for kind, verdict in found.items():
            kept = self.by_kind.setdefault(kind, [])
            kept.append((verdict, host))
            kept.sort(key=lambda one: -one[0].ratio)
            del kept[KEPT:]


def search(seed: int, judge: Judge, enough: Enough, shrunk: Enough, kinds: tuple[str, ...] = KINDS) -> Worst:
    """The worst that is found until there is enough; then the worst of each kind as simple as it can be.

    shrunk: when a shrinking of one kind has played enough hosts.
    """
    rng = random.Random(f"duel {seed}")
    worst = Worst()
    while not enough(worst.played):
        host = _next(rng, worst, kinds)
        worst.add(host, judge(host))
    for kind in kinds:
        if kept := worst.by_kind.get(kind):
            kept.insert(0, _shrink(kind, *kept[0], judge, shrunk, worst))
    return worst


def _next(rng: random.Random, worst: Worst, kinds: tuple[str, ...]) -> Host:
    candidates = [host for kind in kinds for _, host in worst.by_kind.get(kind, ())]
    if not candidates or rng.random() < EXPLORING:
        return random_host(rng)
    return mutated(rng, rng.choice(candidates))


def _shrink(
    kind: str, verdict: Verdict, host: Host, judge: Judge, enough: Enough, worst: Worst
) -> tuple[Verdict, Host]:
    least = 1.0 + NEARLY * (verdict.ratio - 1.0)
    played = 0
    again = True
    while again:
        again = False
        for candidate in simpler(host):
            if enough(played):
                return verdict, host
            played += 1
            worst.played += 1
            found = judge(candidate).get(kind)
            if found is not None and found.ratio >= least:
                verdict, host, again = found, candidate, True
                break
    return verdict, host
