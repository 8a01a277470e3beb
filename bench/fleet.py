"""Do publications disturb running VMs? Pacemaker's own scheduler is asked: `make bench-fleet`.

Cells in which VMs' needs, hosts' answers, starts and stops are random. Each publication is made by the code
that runs on clusters, and crm_simulate says what the engine would do because of it. The same cells are
published naively (need as utilization, capacity as capacity) for comparison. No cluster is needed.
"""

import argparse
import json
import os
import random
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from bench.fleet_xml import cib_of
from host_controller.fleet.core.booking import Booking
from host_controller.fleet.core.drain import Action, harm
from host_controller.fleet.core.model import HostFigures, Node, VmFigures, mib_up
from host_controller.fleet.core.publication import publication
from host_controller.fleet.pacemaker.cell import cell_of
from host_controller.fleet.pacemaker.cib import Cib, changed, read_cib
from host_controller.fleet.pacemaker.simulation import Simulation
from host_controller.fleet.pacemaker.tools import Tools
from host_controller.units import GIB, MIB

RESULTS: Final = Path(__file__).parent / "results"
STEP_SECONDS: Final = 60.0
IN_A_CELL: Final = 100
"""Publications in each cell, unless others are asked for."""
STARTUP_MIB: Final = 1024
ARRIVAL: Final = 1.25
"""A VM's RAM, all of which a host must have free to take it in, by what it needs."""
CAPACITY: Final = 64 * GIB
VM_BYTES: Final = (512 * MIB, 16 * GIB)
LOADS: Final = (0.6, 0.8, 0.95, 1.05)
"""Mean need of a cell by its capacity. Above 1 hosts are short, and a publication may still stop nobody."""


@dataclass(slots=True)
class RandomCell:
    """A cell whose VMs wander; the engine's word moves them."""

    hosts: int
    vms: int
    load: float
    rng: random.Random
    need: dict[str, float] = field(default_factory=dict)
    base: dict[str, float] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    capacities: dict[str, int] = field(default_factory=dict)
    bookings: dict[str, Booking] = field(default_factory=dict)
    now: float = 0.0
    quiet: bool = False
    """No bursts, no VM stops, and no host falls silent."""

    def __post_init__(self) -> None:
        names = [f"vm{one}" for one in range(self.hosts * self.vms)]
        drawn = {name: self.rng.lognormvariate(0, 0.8) for name in names}
        scale = self.load * self.hosts * CAPACITY / sum(drawn.values())
        self.base = {name: min(VM_BYTES[1], max(VM_BYTES[0], scale * one)) for name, one in drawn.items()}
        self.need = dict(self.base)
        self.capacities = {f"h{one}": 0 for one in range(self.hosts)}
        free = dict.fromkeys(self.capacities, float(CAPACITY))
        for name in sorted(names, key=lambda one: -self.need[one]):
            host = max(free, key=lambda one: free[one])
            self.where[name] = host
            free[host] -= self.need[name]
        self.sizes = {name: mib_up(int(self.need[name])) for name in names}

    def step(self) -> dict[str, HostFigures]:
        """A minute: needs wander and burst, VMs stop and are started, hosts fall silent and come back."""
        self.now += STEP_SECONDS
        for name, need in self.need.items():
            drawn = self.rng.lognormvariate(0, 0.12) * (self.base[name] / need) ** 0.05
            if not self.quiet and self.rng.random() < 0.01:
                drawn *= self.rng.uniform(1.5, 3)
            self.need[name] = min(VM_BYTES[1], max(VM_BYTES[0], need * drawn))
        if self.quiet:
            return {host: self._figures(host) for host in self.capacities}
        for name in self.rng.sample(sorted(self.where), min(2, len(self.where))):
            if self.rng.random() < 0.3:
                del self.where[name]
        answering = [host for host in self.capacities if self.rng.random() > 0.05]
        return {host: self._figures(host) for host in answering}

    def xml(self, sizes: Mapping[str, int], capacities: Mapping[str, int]) -> bytes:
        """The engine's configuration and status."""
        return cib_of({name: self.where.get(name) for name in self.need}, sizes, capacities)

    def obey(self, actions: tuple[Action, ...]) -> None:
        """What the engine does is done."""
        for one in actions:
            if one.kind == "stop":
                self.where.pop(one.vm, None)
            elif one.destination is not None:
                self.where[one.vm] = one.destination

    def publish(self, cib: Cib) -> None:
        """The configuration has these figures now."""
        self.sizes = {one.name: one.size_mib or 0 for one in cib.vms}
        self.capacities = {host: size or 0 for host, size in cib.nodes.items()}

    def ask(self, tools: Tools, count: "Count") -> None:
        """What does the scheduler do with these figures? It is counted, and done."""
        actions = tools.simulate(self.xml(self.sizes, self.capacities)).actions
        count.add(actions)
        self.obey(actions)

    def _figures(self, host: str) -> HostFigures:
        vms = tuple(
            VmFigures(
                name, name, int(need), VM_BYTES[0], int(need), 64 * MIB, int(need * ARRIVAL), settled=True
            )
            for name, need in self.need.items()
            if self.where.get(name) == host
        )
        admits = CAPACITY - sum(one.floor_bytes for one in vms)
        return HostFigures(CAPACITY, 0, max(0, admits), vms, overdraft=admits < 0)


@dataclass(slots=True)
class Count:
    """What came of publications."""

    publications: int = 0
    moved: int = 0
    stopped: int = 0
    started: int = 0

    def add(self, actions: tuple[Action, ...]) -> None:
        """What the engine would do because of one more."""
        self.publications += 1
        self.stopped += sum(one.kind == "stop" for one in actions)
        self.started += sum(one.kind == "start" for one in actions)
        self.moved += len(harm(actions)) - sum(one.kind == "stop" for one in actions)


def ours(cell: RandomCell, tools: Tools, count: Count) -> None:
    """One publication as the arbiter makes it, without its guard: what the property alone is worth."""
    figures = cell.step()
    cib = read_cib(cell.xml(cell.sizes, cell.capacities))
    # At rest the engine has each VM where it runs.
    rests = Simulation(tuple(Node(host) for host in cell.capacities), dict(cell.where), ())
    view = cell_of(cib, rests, figures, lambda _: STARTUP_MIB)
    wanted, cell.bookings = publication(view, cell.bookings, cell.now)
    cell.publish(read_cib(changed(cib, wanted.vms, wanted.hosts)))
    cell.ask(tools, count)


def naive(cell: RandomCell, tools: Tools, count: Count) -> None:
    """Need as utilization, capacity as capacity: what everybody would write first."""
    cell.step()
    cell.sizes = {name: mib_up(int(need)) for name, need in cell.need.items()}
    cell.capacities = dict.fromkeys(cell.capacities, mib_up(CAPACITY))
    cell.ask(tools, count)


LAWS: Final = {"dynmem": ours, "naive": naive}


def run(law: str, hosts: int, vms: int, publications: int, seed: int, in_a_cell: int = IN_A_CELL) -> Count:
    """So many random publications, some in each cell, as many cells at a time as processors."""
    rng, cells = random.Random(seed), []
    for first in range(0, publications, in_a_cell):
        cell = RandomCell(hosts, vms, rng.choice(LOADS), random.Random(rng.random()))
        cells.append((cell, min(in_a_cell, publications - first)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = list(pool.map(lambda one: _in_cell(law, *one), cells))
    return Count(*(sum(column) for column in zip(*(asdict(one).values() for one in counts), strict=True)))


def _in_cell(law: str, cell: RandomCell, publications: int) -> Count:
    count, tools = Count(), Tools()
    for _ in range(publications):
        LAWS[law](cell, tools, count)
    return count


def main() -> None:
    """Run a share of the publications, and add it to the shares of other seeds that were measured before."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--publications", type=int, default=10_000, help="in all")
    parser.add_argument("--first", type=int, default=0, help="seed; others add to what is there")
    parser.add_argument("--cell", default="8x20", help="hosts × VMs on each")
    parser.add_argument("--in-a-cell", type=int, default=IN_A_CELL, help="publications in each cell")
    parser.add_argument("--law", choices=LAWS, default="dynmem")
    given = parser.parse_args()
    hosts, vms = (int(one) for one in given.cell.split("x"))
    begun = time.monotonic()
    count = run(given.law, hosts, vms, given.publications, given.first, given.in_a_cell)
    share = asdict(count) | {"seconds": round(time.monotonic() - begun), "commit": commit()}
    file = RESULTS / "fleet.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    shares = found.setdefault(f"{given.law} {given.cell}", {})
    shares[f"seed {given.first}"] = share
    file.write_text(json.dumps(found, indent=2) + "\n")
    total = {name: sum(one[name] for one in shares.values()) for name in asdict(count)}
    print(f"{given.law} {given.cell} seed {given.first}: {share}; with all other seeds: {total}")


def commit() -> str:
    """What was measured."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
