"""What is relief worth on a thousand hosts? `python -m bench.fleet_day [TRACES]`, or `make bench-fleet-day`.

32 cells of 32 hosts of 64 GiB for a day in virtual time, in steps of 10 seconds, on three kinds of demand,
and as many hosts in cells of 8 for 100 minutes, as the goals were found (`bench.fleet_demand`); every law has
the same demand (`bench.fleet_laws`). Short is a step of a host whose VMs need more than there is; unmet is by
how much, for how long. What has been measured is kept, cell by cell, and not measured again: --fresh does.
"""

import argparse
import functools
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.fleet import RESULTS, commit
from bench.fleet_cells import CAPACITY_MIB, HOSTS, STEP_SECONDS, OneCell, Tally
from bench.fleet_demand import DAY_SECONDS, EVEN_SECONDS, Demand, bursts, even, filling, trace, walk
from bench.fleet_laws import LAWS, without_place
from bench.traces import add_trace_arguments

DEMANDS: Final = ("trace", "bursts", "walk")
LOADS: Final = (0.6, 0.7, 0.8, 0.95)
"""Mean need of a cell over the day, by its capacity."""
CELLS: Final = 32
STATIC: Final = "static"
SHORT_GOAL: Final = 0.4
"""Of what is short without relief."""
MOVES_GOAL: Final = 2.0
"""A host and day."""
FILE: Final = RESULTS / "fleet_day.json"


@dataclass(frozen=True, slots=True)
class World:
    """What is played of a demand."""

    seconds: int = DAY_SECONDS
    hosts: int = HOSTS
    """Of a cell."""
    loads: tuple[float, ...] = LOADS


WORLDS: Final = {
    **dict.fromkeys(DEMANDS, World()),
    # The one cell from which the goals come ended at 95 %, and had 87 % on average.
    "even": World(EVEN_SECONDS, 8, (0.87, 0.95)),
}

Kept = dict[str, Any]
"""By seconds, demand, load and law: the cells that were played, and their sums."""


@functools.lru_cache
def demand_of(name: str, folder: Path | None, month: str | None) -> Demand:
    """Made once in each process."""
    if name == "trace":
        return trace(folder, month)
    return {"bursts": bursts, "walk": walk, "even": even}[name]()


def cell_of(demand: Demand, load: float, seconds: float, number: int, hosts: int = HOSTS) -> OneCell:
    """The same one for every law."""
    rng = np.random.default_rng([number, round(load * 1000)])
    return OneCell(demand, filling(demand, load, hosts * CAPACITY_MIB, seconds, rng), hosts)


def play(law: str, cell: OneCell, seconds: float) -> Tally:
    """One cell under one law."""
    if law == STATIC:
        return _static(cell, seconds)
    decide = LAWS[law]()
    while cell.now < seconds:
        decide(cell, cell.step())
    return cell.tally


def _static(cell: OneCell, seconds: float) -> Tally:
    """Nothing is short but what has no place at all."""
    without = without_place(cell)
    tally = Tally(stopped=len(without))
    while cell.now < seconds:
        loads = cell.step()
        tally.host_steps += len(loads)
        tally.need_mib += float(loads.sum())
        tally.unmet_mib_seconds += float(cell.need[without].sum()) * STEP_SECONDS
    return tally


def _task(
    law: str, name: str, folder: Path | None, month: str | None, load: float, seconds: float, number: int
) -> Tally:
    demand, hosts = demand_of(name, folder, month), WORLDS[name].hosts
    return play(law, cell_of(demand, load, seconds, number, hosts), seconds)


def goals(kept: Mapping[str, Any]) -> list[tuple[str, float, str, float, float]]:
    """Demand, load, law, what is short by what is without relief, moves a host and day."""
    found = []
    for name, by_load in kept.items():
        for load, by_law in by_load.items():
            none = by_law.get("none", {"cells": 0, "sums": {}})
            base = Tally(**none["sums"])
            for law, one in by_law.items():
                # What was measured on other cells cannot be compared.
                if law not in ("none", STATIC) and base.short and one["cells"] == none["cells"]:
                    sums = Tally(**one["sums"])
                    found.append((name, float(load), law, sums.short / base.short, sums.moves_a_host_and_day))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 1 when dynmem misses a goal somewhere."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_trace_arguments(parser)
    parser.add_argument("--cells", type=int, default=CELLS, help="of 32 hosts each; 32 are 1,024 hosts")
    parser.add_argument("--seconds", type=int, help="by default a day, and 100 minutes of `even`")
    parser.add_argument("--demands", nargs="+", default=list(WORLDS), choices=WORLDS)
    parser.add_argument("--loads", type=float, nargs="+", help="by default several")
    parser.add_argument(
        "--laws", nargs="+", default=["none", STATIC, *list(LAWS)[1:]], choices=[STATIC, *LAWS]
    )
    parser.add_argument("--fresh", nargs="*", default=[], choices=LAWS, help="laws to be measured again")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    kept: Kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    worlds = {name: WORLDS[name] for name in options.demands}
    lengths = {name: options.seconds or world.seconds for name, world in worlds.items()}
    with ProcessPoolExecutor(options.jobs) as pool:
        for name, load, law in itertools.chain.from_iterable(
            itertools.product([name], options.loads or world.loads, options.laws)
            for name, world in worlds.items()
        ):
            source, seconds = demand_of(name, options.traces, options.month).name, lengths[name]
            by_law = kept.setdefault(str(seconds), {}).setdefault(source, {}).setdefault(str(load), {})
            one = {} if law in options.fresh else by_law.get(law, {})
            numbers = range(one.get("cells", 0), options.cells * HOSTS // worlds[name].hosts)
            task = functools.partial(_task, law, name, options.traces, options.month, load, seconds)
            sums = Tally(**one.get("sums", {}))
            for number, tally in zip(numbers, pool.map(task, numbers), strict=True):
                sums = sums.and_(tally)
                by_law[law] = {"commit": commit(), "cells": number + 1, "sums": sums.plain()}
                FILE.write_text(json.dumps(kept, indent=1) + "\n")
            print(f"{source} at {load:.0%}, {law}: {sums.said()}", flush=True)
    return max(judge(kept.get(str(seconds), {})) for seconds in sorted(set(lengths.values())))


def judge(kept: Mapping[str, Any]) -> int:
    """Say where the goals are met."""
    missed = 0
    for name, load, law, short, moves in goals(kept):
        met = short <= SHORT_GOAL and moves <= MOVES_GOAL
        missed += law == "dynmem" and not met
        told = f"short {short:.2f} × (goal {SHORT_GOAL} ×), {moves:.1f} moves a host and day (goal 2)"
        print(f"{name} at {load:.0%}, {law}: {told}: {'met' if met else 'missed'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
