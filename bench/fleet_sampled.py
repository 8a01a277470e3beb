"""What would need as utilization do? Pacemaker's scheduler on sampled cells: `python -m bench.fleet_sampled`.

Cells of 8 hosts with the demand of `bench.fleet_day`. Every five minutes the need of each VM is published as
its utilization and the memory of each host as its capacity, which is what everybody would write first.
crm_simulate says what the engine does then; that is done. `bench.fleet` asks the same of dynmem's figures.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench.fleet import RESULTS, commit
from bench.fleet_cells import CAPACITY_MIB
from bench.fleet_day import DEMANDS, cell_of, demand_of
from bench.fleet_xml import cib_of
from bench.traces import add_trace_arguments
from host_controller.fleet.pacemaker.tools import Tools

HOSTS: Final = 8
PUBLISH_SECONDS: Final = 300
FILE: Final = RESULTS / "fleet_sampled.json"


@dataclass(slots=True)
class Sampled:
    """What came of it."""

    publications: int = 0
    host_steps: int = 0
    short: int = 0
    moves: int = 0
    stopped: int = 0
    """Running VMs that were stopped."""
    vm_steps_stopped: int = 0
    """VMs that ran nowhere, at each publication."""
    vms: int = 0

    def measure(self, need: Sequence[float], where: Sequence[str | None], nodes: Sequence[str]) -> None:
        """After the engine has done what it does."""
        self.publications += 1
        self.host_steps += len(nodes)
        self.vm_steps_stopped += where.count(None)
        for node in nodes:
            here = sum(size for size, host in zip(need, where, strict=True) if host == node)
            self.short += here > CAPACITY_MIB


def naive(demand: str, folder: Path | None, month: str | None, load: float, publications: int) -> Sampled:
    """So many publications of one cell."""
    seconds, tools = publications * PUBLISH_SECONDS, Tools()
    cell = cell_of(demand_of(demand, folder, month), load, seconds, 0, HOSTS)
    nodes = [f"n{host}" for host in range(HOSTS)]
    names = [f"vm{vm}" for vm in range(len(cell.where))]
    where: list[str | None] = [nodes[host] for host in cell.where]
    found = Sampled(vms=len(names))
    for at in range(0, seconds, PUBLISH_SECONDS):
        need = cell.drawn.need(cell.demand, at).astype(int).tolist()
        text = cib_of(
            dict(zip(names, where, strict=True)),
            dict(zip(names, need, strict=True)),
            dict.fromkeys(nodes, int(CAPACITY_MIB)),
        )
        for one in tools.simulate(text).actions:
            vm = int(one.vm.removeprefix("vm"))
            found.stopped += one.kind == "stop"
            found.moves += one.kind in ("move", "migrate")
            where[vm] = None if one.kind == "stop" else one.destination or where[vm]
        found.measure(need, where, nodes)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Add what is measured to what was measured before."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_trace_arguments(parser)
    parser.add_argument("--demands", nargs="+", default=list(DEMANDS), choices=DEMANDS)
    parser.add_argument("--loads", type=float, nargs="+", default=[0.8, 0.95])
    parser.add_argument("--publications", type=int, default=50)
    options = parser.parse_args(arguments)
    told = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in options.demands:
        source = demand_of(name, options.traces, options.month).name
        for load in options.loads:
            one = naive(name, options.traces, options.month, load, options.publications)
            told.setdefault(source, {})[str(load)] = asdict(one) | {"commit": commit()}
            FILE.write_text(json.dumps(told, indent=1) + "\n")
            print(f"{source} at {load:.0%}: {one}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
