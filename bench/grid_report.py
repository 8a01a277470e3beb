"""What the grid says: against the best peer, by weight, and at rest; the goals judge it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from bench.cells import SECONDS, STATIONARY, Cell
from host_controller.simulator.trial import OURS

NO_PEERS: Final = ("static", "peak", "clairvoyant", "clairvoyant-buffered")
"""One that never moves memory, and three that know the future."""
LITTLE_MIB_S: Final = 10.0 * SECONDS
"""A peer that gave out no more than 10 MiB beyond its host's memory, on average, kept to that."""
CLOSE_MIB_S: Final = 100.0
RATIO: Final = 1.1
CALM_COMMANDS: Final = 60.0

Figures = Mapping[str, Any]
Grid = Mapping[Cell, Mapping[str, Figures]]


def missing(found: Figures, beyond: str = "overcommitted") -> float:
    """Unmet demand, and what the host gave out that it does not have; MiB·s.

    beyond: "overcommitted" counts what guests touch of that, "promised" all of it.
    """
    return float(found["unmet"] + found[beyond])


def best_peer(
    laws: Mapping[str, Figures], beyond: str = "overcommitted", law: str = OURS
) -> tuple[str, float]:
    """The peer of a law under which least was missing, and how much that was."""
    peers = {peer: missing(found, beyond) for peer, found in laws.items() if peer not in (law, *NO_PEERS)}
    name = min(peers, key=lambda peer: peers[peer], default="none")
    return name, peers.get(name, 0.0)


def best_within(laws: Mapping[str, Figures]) -> float:
    """The least that was missing under a peer that kept to its host's memory; infinite where none did."""
    peers = (found for law, found in laws.items() if law not in (OURS, *NO_PEERS))
    return min((missing(one) for one in peers if one["promised"] <= LITTLE_MIB_S), default=math.inf)


def ratio(ours: float, peer: float) -> float:
    """Ours by the peer's; what is below 100 MiB·s is nothing."""
    return max(ours, CLOSE_MIB_S) / max(peer, CLOSE_MIB_S)


def behind(ours: float, peer: float) -> bool:
    """The goal is missed: by more than a tenth, and by more than 100 MiB·s."""
    return ours > RATIO * peer and ours > peer + CLOSE_MIB_S


def unfair(found: Figures) -> bool:
    """Somebody lacks more for its weight than somebody lighter; a MiB·s for a unit of weight is nothing."""
    per_weight = sorted(
        (int(weight), unmet / int(weight)) for weight, unmet in found["unmet_by_weight"].items()
    )
    return any(heavy > light + 1.0 for (_, light), (_, heavy) in pairwise(per_weight))


def times_behind(whole: Grid, law: str) -> int:
    """Cells in which one of a law's own peers, ours among them, is ahead of it."""
    return sum(_is_behind(laws, law) for laws in whole.values() if law in laws)


def _is_behind(laws: Mapping[str, Figures], law: str) -> bool:
    return behind(missing(laws[law]), best_peer(laws, law=law)[1])


@dataclass(frozen=True, slots=True)
class Standing:
    """Ours beside the peers, over all cells that have been measured. Counts are of cells."""

    cells: int
    lost: int
    """In which a peer is ahead, by what guests touch."""
    lost_within: int
    """In which one is ahead that keeps to its host's memory."""
    lost_by_promise: int
    """In which one is ahead, counting all that hosts gave out beyond their memory."""
    foreseen: int
    """Of `lost`: that peer is ahead of the clairvoyant, too."""
    level: int
    """In which no peer is ahead at all."""
    calm: Mapping[Cell, float]
    """Commands for an hour of a VM where demand is stationary."""
    weighted: int
    unjust: list[Cell]
    """In which a heavier VM lacks more for its weight."""

    @property
    def loud(self) -> list[Cell]:
        """The calm ones that are not at rest."""
        return [cell for cell, commands in self.calm.items() if commands > CALM_COMMANDS]


def standing(whole: Grid) -> Standing:
    """Of cells in which ours and some peer have been measured."""
    beside = {cell: (missing(laws[OURS]), best_peer(laws)[1]) for cell, laws in whole.items()}
    lost = [cell for cell, laws in whole.items() if _is_behind(laws, OURS)]
    weighted = [cell for cell in whole if cell.weights != "equal"]
    return Standing(
        cells=len(whole),
        lost=len(lost),
        lost_within=sum(behind(missing(laws[OURS]), best_within(laws)) for laws in whole.values()),
        lost_by_promise=sum(
            behind(missing(laws[OURS], "promised"), best_peer(laws, "promised")[1]) for laws in whole.values()
        ),
        foreseen=sum(
            behind(missing(whole[cell]["clairvoyant"]), beside[cell][1])
            for cell in lost
            if "clairvoyant" in whole[cell]
        ),
        level=sum(mine <= max(peer, CLOSE_MIB_S) for mine, peer in beside.values()),
        calm={cell: laws[OURS]["commands"] for cell, laws in whole.items() if cell.demand in STATIONARY},
        weighted=len(weighted),
        unjust=[cell for cell in weighted if unfair(whole[cell][OURS])],
    )


def report(grid: Grid, worst: int) -> int:
    """Print it. 1 when a goal is missed."""
    whole = {cell: laws for cell, laws in grid.items() if OURS in laws and len(laws) > 1}
    if not whole:
        return 0
    _print_worst(whole, worst)
    found = standing(whole)
    print(f"counting all that a host gave out beyond its memory: ahead in {found.lost_by_promise} cells")
    print(f"of peers that keep to their host's memory: ahead in {found.lost_within} cells")
    print(f"of the cells in which a peer is ahead: ahead of the clairvoyant, too, in {found.foreseen}")
    for cell in found.loud[:3]:
        print(f"  not at rest: {found.calm[cell]:.0f} commands per VM-hour, {cell.key}")
    for cell in found.unjust[:3]:
        print(f"  by weight: {whole[cell][OURS]['unmet_by_weight']}, {cell.key}")
    loud, calm, unjust = len(found.loud), len(found.calm), len(found.unjust)
    goals = {
        f"a peer is ahead by more than a tenth in {found.lost} of {found.cells} cells": not found.lost,
        f"no peer ahead in {found.level / found.cells:.0%} (goal 80 %)": found.level >= 0.8 * found.cells,
        f"more than {CALM_COMMANDS:.0f} commands per VM-hour at rest in {loud} of {calm}": not loud,
        f"heavier VMs lack more for their weight in {unjust} of {found.weighted}": not unjust,
    }
    for goal, met in goals.items():
        print(f"{'met   ' if met else 'MISSED'} {goal}")
    return 0 if all(goals.values()) else 1


def _print_worst(whole: Grid, worst: int) -> None:
    """The cells in which ours lacks most beside the best peer, a line each."""
    rows = []
    for cell, laws in whole.items():
        mine, (name, peer) = missing(laws[OURS]), best_peer(laws)
        rows.append((ratio(mine, peer), cell, mine, name, peer))
    rows.sort(key=lambda row: -row[0])
    print(f"{'ours ÷ peer':>11} {'ours':>9} {'peer':>9} {'bound':>9} {'foot':>5} {'cmds':>6}  cell")
    for by, cell, mine, name, peer in rows[:worst]:
        laws = whole[cell]
        bound = f"{missing(laws['clairvoyant']):9.0f}" if "clairvoyant" in laws else f"{'':9}"
        found = laws[OURS]
        print(
            f"{by:11.2f} {mine:9.0f} {peer:9.0f} {bound} {found['footprint']:5.2f} {found['commands']:6.0f}  "
            f"{cell.key}  ({name})"
        )
