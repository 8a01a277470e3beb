"""What is relief worth? Cells in virtual time, every law with the same demand: `python -m bench.fleet_day`.

    none       VMs stay where they are (publications move nobody)
    dynmem     the arbiter's relief
    threshold  the fullest host above 90 % gives its smallest VM to the emptiest one, each minute

A step is a minute. Short is a host whose VMs need more than its capacity; unmet is by how much, for so long.
"""

import argparse
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from bench.fleet import CAPACITY, RESULTS, STEP_SECONDS, RandomCell, commit
from host_controller.fleet.core.model import Cell, HostFigures, Node, Resource
from host_controller.fleet.core.relief import Strain, relieve, watch
from host_controller.units import MIB

STEPS_A_DAY: Final = round(86400 / STEP_SECONDS)
HOSTS, VMS = 32, 10
THRESHOLD: Final = 0.9


@dataclass(slots=True)
class Day:
    """What came of one law."""

    host_steps: int = 0
    short: int = 0
    unmet_mib_seconds: int = 0
    need_mib: int = 0
    """The sum of all hosts' needs in all steps: it says how loaded they really were."""
    moves: int = 0
    alerts: int = 0
    """Steps in which a host was short for long and no move helped."""
    strains: dict[str, Strain] = field(default_factory=dict)
    moved_at: dict[str, float] = field(default_factory=dict)

    def measure(self, figures: Mapping[str, HostFigures]) -> None:
        """A minute has passed."""
        self.host_steps += len(figures)
        for one in figures.values():
            self.need_mib += one.floor_bytes // MIB
            missing = one.floor_bytes - CAPACITY
            self.short += missing > 0
            self.unmet_mib_seconds += round(max(0, missing) / MIB * STEP_SECONDS)

    def plain(self) -> dict[str, float]:
        """For the results."""
        found = {key: value for key, value in asdict(self).items() if isinstance(value, int)}
        days = self.host_steps / STEPS_A_DAY
        load = self.need_mib * MIB / (self.host_steps * CAPACITY)
        return {**found, "load": round(load, 3), "moves_a_host_and_day": round(self.moves / days, 2)}


def none(_cell: RandomCell, _figures: Mapping[str, HostFigures], _day: Day) -> None:
    """Nobody moves."""


def dynmem(cell: RandomCell, figures: Mapping[str, HostFigures], day: Day) -> None:
    """As the arbiter does it."""
    day.strains = watch(day.strains, figures, cell.now)
    if not any(strain.due(cell.now) for strain in day.strains.values()):
        return
    resources = tuple(Resource(name, host) for name, host in cell.where.items())
    view = Cell(tuple(Node(host) for host in figures), resources, figures)
    found = relieve(view, day.strains, day.moved_at, cell.now)
    day.alerts += len(found.alerts)
    for move in found.moves:
        cell.where[move.vm] = move.destination
        day.moved_at[move.vm] = cell.now
        day.moves += 1


def threshold(cell: RandomCell, figures: Mapping[str, HostFigures], day: Day) -> None:
    """A rule without patience."""
    full = max(figures, key=lambda host: figures[host].load)
    empty = min(figures, key=lambda host: figures[host].load)
    if figures[full].load > THRESHOLD and full != empty and figures[full].vms:
        smallest = min(figures[full].vms, key=lambda vm: vm.floor_bytes)
        if figures[empty].floor_bytes + smallest.floor_bytes < CAPACITY:
            cell.where[smallest.name] = empty
            day.moves += 1


Law = Callable[[RandomCell, Mapping[str, HostFigures], Day], None]
LAWS: Final[dict[str, Law]] = {"none": none, "dynmem": dynmem, "threshold": threshold}


def run(law: str, load: float, cells: int, steps: int, seed: int = 0) -> Day:
    """So many cells of 32 hosts for so many minutes."""
    day = Day()
    for number in range(cells):
        cell = RandomCell(HOSTS, VMS, load, random.Random(f"{seed} {number}"), quiet=True)
        day.strains, day.moved_at = {}, {}
        for _ in range(steps):
            figures = cell.step()
            day.measure(figures)
            LAWS[law](cell, figures, day)
    return day


def main() -> None:
    """Measure all laws and write them down."""
    parser = argparse.ArgumentParser(description="What relief is worth.")
    parser.add_argument("--cells", type=int, default=32, help="of 32 hosts each; 32 are 1,024 hosts")
    parser.add_argument("--steps", type=int, default=STEPS_A_DAY, help="minutes")
    parser.add_argument("--loads", type=float, nargs="*", default=[0.82, 0.88])
    given = parser.parse_args()
    found = {"commit": commit(), "cells": given.cells, "steps": given.steps}
    for load in given.loads:
        for law in LAWS:
            one = run(law, load, given.cells, given.steps).plain()
            found[f"{law} at {load:.0%}"] = one
            print(law, load, one, flush=True)
            # A thousand hosts take long: what was measured is not lost when the rest is cut off.
            (RESULTS / "fleet_day.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
