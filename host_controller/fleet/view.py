"""The whole cell at one moment: what the engine has, what the hosts say, and who did not answer."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from host_controller.fleet.core.model import Cell, HostFigures
from host_controller.fleet.pacemaker.cell import Engine, cell_of
from host_controller.fleet.pacemaker.cib import Cib
from host_controller.fleet.pacemaker.simulation import Simulation
from host_controller.fleet.startup import startup_mib


class Asks(Protocol):
    """Whoever asks hosts for their figures; `Hosts` is the real thing."""

    def figures(self, hosts: Iterable[str]) -> tuple[dict[str, HostFigures], dict[str, str]]:
        """Of those that answer, and why the others do not."""


@dataclass(frozen=True, slots=True)
class View:
    """What was seen of a cell."""

    cell: Cell
    silent: Mapping[str, str]
    cib: Cib
    simulation: Simulation


def look(engine: Engine, hosts: Asks, startup: Callable[[str | None], int | None] = startup_mib) -> View:
    """Ask everybody.

    Raises:
        FleetError: the engine cannot be asked.
    """
    cib = engine.query()
    simulation = engine.simulate(cib.text)
    found, silent = hosts.figures(cib.nodes)
    return View(cell_of(cib, simulation, found, startup), silent, cib, simulation)
