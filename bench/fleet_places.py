"""How many VMs does a cell hold, when starts go where memory is? `python -m bench.fleet_places [TRACES]`.

VMs start one after another on 8 hosts of 64 GiB, in random orders, until more than 0.1 % of what they want in
the weeks after that goes unmet. That is counted by VM-slots and by MiB, as `bench.density` does for one host.

    static       each VM has its largest size; they fit by their sum, as if the hosts were one
    placed       as Pacemaker's `balanced` makes of what dynmem publishes; nobody moves after
    relieved     and the arbiter's relief
    clairvoyant  knows the weeks, and starts each VM where least goes unmet; nobody moves after
    one host     of 512 GiB, which shares fairly: no law that keeps VMs on hosts can pass it

What has been measured is kept, order by order. --scheduler N asks Pacemaker's own (crm_simulate)
where N starts of an order go, and counts how often that is where `balanced` here says.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.density import ALLOWED
from bench.fleet import RESULTS, STARTUP_MIB, commit
from bench.fleet_cells import CAPACITY_MIB, OneCell, vm_figures
from bench.fleet_demand import BESIDE_MIB, DAY_SECONDS, SLOT_SECONDS, Demand, Drawn, draw, trace
from bench.fleet_laws import Dynmem
from bench.fleet_xml import cib_of
from bench.traces import add_trace_arguments
from host_controller.fleet.core.booking import Booking
from host_controller.fleet.core.model import Cell, HostFigures, Node, Resource, VmFigures
from host_controller.fleet.core.publication import publication
from host_controller.fleet.pacemaker.tools import Tools
from host_controller.units import MIB

Array = Any
HOSTS: Final = 8
ORDERS: Final = 10
MOST: Final = 520
"""VMs that are started in each order."""
START_SECONDS: Final = SLOT_SECONDS
"""From one start to the next."""
STARTED_SECONDS: Final = 2 * DAY_SECONDS
"""Then all are started, and what goes unmet is counted to the end of the trace."""
STEP_SECONDS: Final = 60
"""Of the weeks after that: a sixth of the arbiter's turns."""
COUNTS: Final = ("slots", "mib")
LAWS: Final = ("static", "placed", "relieved", "clairvoyant", "one host")
CLAIRVOYANT_GOAL: Final = 0.95
STATIC_GOAL: Final = 5.0


@dataclass(slots=True)
class Starts:
    """VMs of one order that are started one after another, as dynmem publishes and the engine places."""

    demand: Demand
    drawn: Drawn
    ask: "Ask | None" = None
    """Who is asked where a start goes beside `balanced`."""
    where: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    capacities: dict[str, int] = field(default_factory=dict)
    bookings: dict[str, Booking] = field(default_factory=dict)
    agreed: int = 0

    def run(self) -> Array:
        """The host of each VM that found one."""
        now = 0.0
        while len(self.where) < len(self.drawn.curve) and now < STARTED_SECONDS:
            self._publish(now)
            vm = str(len(self.where))
            node = balanced(self.where, self.sizes, self.capacities, vm)
            if self.ask is not None:
                self.agreed += self.ask(self.where, self.sizes, self.capacities, vm) == node
            if node is not None:
                self.where.append(node)
            now += START_SECONDS
        return np.array([int(node) for node in self.where])

    def _publish(self, now: float) -> None:
        need = self.drawn.need(self.demand, now)
        told: dict[str, list[VmFigures]] = {str(host): [] for host in range(HOSTS)}
        for vm, node in enumerate(self.where):
            told[node].append(vm_figures(str(vm), need[vm]))
        figures = {}
        for node, vms in told.items():
            free = CAPACITY_MIB * MIB - sum(one.floor_bytes for one in vms)
            figures[node] = HostFigures(int(CAPACITY_MIB) * MIB, 0, max(0, int(free)), tuple(vms))
        running = [Resource(str(vm), node, self.sizes.get(str(vm))) for vm, node in enumerate(self.where)]
        new = Resource(str(len(self.where)), startup_mib=STARTUP_MIB + int(BESIDE_MIB))
        nodes = tuple(Node(node, published_mib=self.capacities.get(node)) for node in told)
        found, self.bookings = publication(Cell(nodes, (*running, new), figures), self.bookings, now)
        self.sizes, self.capacities = dict(found.vms), dict(found.hosts)


Ask = Callable[[Sequence[str], Mapping[str, int], Mapping[str, int], str], str | None]


def balanced(
    where: Sequence[str], sizes: Mapping[str, int], capacities: Mapping[str, int], vm: str
) -> str | None:
    """Where Pacemaker's `balanced` starts a VM: on the node with most free capacity, if that holds it."""
    free = dict(capacities)
    for name, node in enumerate(where):
        free[node] -= sizes[str(name)]
    best = max(free, key=lambda node: free[node])
    return best if free[best] >= sizes[vm] else None


def scheduled(
    where: Sequence[str], sizes: Mapping[str, int], capacities: Mapping[str, int], vm: str
) -> str | None:
    """Where Pacemaker's scheduler starts it."""
    nodes = {name: f"n{name}" for name in capacities}
    placed: dict[str, str | None] = {f"vm{name}": nodes[node] for name, node in enumerate(where)}
    text = cib_of(
        placed | {f"vm{vm}": None},
        {f"vm{name}": size for name, size in sizes.items()},
        {nodes[name]: size for name, size in capacities.items()},
    )
    found = [one for one in Tools().simulate(text).actions if one.kind == "start"]
    return found[0].destination.removeprefix("n") if found and found[0].destination else None


def foreseen(needs: Array) -> Array:
    """The host of each VM by the clairvoyant: where least goes unmet then, and else where the peak is least.

    needs: moments × VMs.
    """
    loads = np.zeros((len(needs), HOSTS))
    where = []
    for need in needs.T:
        after = loads + need[:, None]
        over = np.maximum(0.0, after - CAPACITY_MIB).sum(axis=0)
        over -= np.maximum(0.0, loads - CAPACITY_MIB).sum(axis=0)
        where.append(int(np.lexsort((after.max(axis=0), over))[0]))
        loads[:, where[-1]] = after[:, where[-1]]
    return np.array(where)


def lacking(need: Array, capacity_mib: float) -> Array:
    """How many VMs of a host that shares fairly lack something, and how much they lack."""
    over = float(need.sum()) - capacity_mib
    if over <= 0:
        return np.zeros(2)
    down = np.sort(need)[::-1]
    # With the k largest cut to one size the others have what they need.
    level = (capacity_mib - (need.sum() - np.cumsum(down))) / np.arange(1, len(down) + 1)
    return np.array([int(np.argmax(level >= np.append(down[1:], 0.0))) + 1, over])


def staying(needs: Array, where: Array, hosts: int = HOSTS) -> Array:
    """What goes unmet of VMs that stay, as shares of VM-slots and of MiB."""
    unmet = np.zeros(2)
    for host in range(hosts):
        here = needs[:, where == host]
        for moment in np.flatnonzero(here.sum(axis=1) > CAPACITY_MIB * HOSTS / hosts):
            unmet += lacking(here[moment], CAPACITY_MIB * HOSTS / hosts)
    return unmet / (needs.size, needs.sum())


def relieved(demand: Demand, drawn: Drawn, where: Array) -> Array:
    """What goes unmet of VMs that the arbiter relieves, as the same shares."""
    cell = OneCell(demand, drawn, HOSTS, STARTED_SECONDS, where=where.copy(), step_seconds=STEP_SECONDS)
    decide, unmet, steps, needed = Dynmem(), np.zeros(2), 0, 0.0
    while cell.now < len(demand.curves) * demand.step_seconds:
        loads = cell.step()
        for host in np.flatnonzero(loads > CAPACITY_MIB):
            unmet += lacking(cell.need[cell.where == host], CAPACITY_MIB)
        steps, needed = steps + 1, needed + float(loads.sum())
        decide(cell, loads)
    return unmet / (steps * len(where), needed)


def largest(unmet: Callable[[int], Array], least: int, most: int, count: int) -> int:
    """The largest number of VMs of which little enough goes unmet; so little does of `least`."""
    low, high = least, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if unmet(middle)[count] <= ALLOWED else (low, middle)
    return low


def one_order(folder: Path | None, month: str | None, number: int) -> dict[str, dict[str, int]]:
    """VMs by law and count."""
    demand = trace(folder, month)
    drawn = draw(demand, MOST, np.random.default_rng(number))
    last = len(demand.curves) * demand.step_seconds
    needs = np.array([drawn.need(demand, at) for at in range(STARTED_SECONDS, last, demand.step_seconds)])
    placed, ahead, alone = Starts(demand, drawn).run(), foreseen(needs), np.zeros(MOST, dtype=np.int64)
    found: dict[str, Callable[[int], Array]] = {
        "placed": lambda n: staying(needs[:, :n], placed[:n]),
        "clairvoyant": lambda n: staying(needs[:, :n], ahead[:n]),
        "one host": lambda n: staying(needs[:, :n], alone[:n], 1),
    }
    vms = {
        name: [largest(one, 0, len(placed) if name == "placed" else MOST, count) for count in (0, 1)]
        for name, one in found.items()
    }
    relief = functools.cache(lambda n: relieved(demand, drawn.first(n), placed[:n]))
    ways = zip(vms["placed"], vms["one host"], (0, 1), strict=True)
    vms["relieved"] = [largest(relief, least, most, count) for least, most, count in ways]
    vms["static"] = [static(demand, drawn)] * len(COUNTS)
    return {name: dict(zip(COUNTS, each, strict=True)) for name, each in vms.items()}


def static(demand: Demand, drawn: Drawn) -> int:
    """VMs of fixed sizes that fit by their sum, as if no host's end were in the way."""
    sizes = np.cumsum(demand.largest[drawn.curve])
    return int(np.searchsorted(sizes, HOSTS * CAPACITY_MIB, side="right"))


def ask_scheduler(demand: Demand, count: int) -> int:
    """How many of so many first starts Pacemaker's scheduler makes where `balanced` here does."""
    starts = Starts(demand, draw(demand, MOST, np.random.default_rng(0)).first(count), scheduled)
    starts.run()
    return starts.agreed


def judge(orders: Sequence[Mapping[str, Mapping[str, int]]]) -> int:
    """Say whether the goals are met; 1 where not."""
    missed = 0
    for count in COUNTS:
        mean = {law: float(np.mean([one[law][count] for one in orders])) for law in LAWS}
        print(f"by {count}: " + ", ".join(f"{law} {vms:.1f}" for law, vms in mean.items()))
        for law in ("placed", "relieved"):
            told = [f"{mean[law] / mean[other]:.1%} of {other}" for other in ("clairvoyant", "one host")]
            print(f"  {law}: {', '.join(told)}; {mean[law] / mean['static']:.2f} × static")
        share = mean["relieved"] / mean["clairvoyant"]
        missed += share < CLAIRVOYANT_GOAL or mean["relieved"] / mean["static"] < STATIC_GOAL
    return 1 if missed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 1 when a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_trace_arguments(parser)
    parser.add_argument("--orders", type=int, default=ORDERS)
    parser.add_argument("--fresh", action="store_true", help="measure all orders again")
    parser.add_argument("--scheduler", type=int, default=0, help="starts of which Pacemaker's is asked")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    demand = trace(options.traces, options.month)
    path = RESULTS / f"fleet_places-{demand.name}.json"
    told: dict[str, Any] = {"orders": []}
    if path.exists() and not options.fresh:
        told = json.loads(path.read_text())
    with ProcessPoolExecutor(options.jobs) as pool:
        task = functools.partial(one_order, options.traces, options.month)
        for found in pool.map(task, range(len(told["orders"]), options.orders)):
            told |= {"trace": demand.source, "commit": commit(), "orders": [*told["orders"], found]}
            path.write_text(json.dumps(told, indent=1) + "\n")
            print(found, flush=True)
    if options.scheduler:
        agreed = ask_scheduler(demand, options.scheduler)
        told |= {"starts": options.scheduler, "agreed": agreed}
        path.write_text(json.dumps(told, indent=1) + "\n")
        print(f"Pacemaker's scheduler: {agreed} of {options.scheduler} starts where `balanced` says")
    return judge(told["orders"])


if __name__ == "__main__":
    sys.exit(main())
