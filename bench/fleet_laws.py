"""Who moves VMs between hosts, and why: the laws that `bench.fleet_day` plays on the same demand.

    none         VMs stay where they are: publications move nobody
    dynmem       the arbiter's relief, by the code that runs on clusters
    threshold    as a balancing rule without patience has it: a host above 90 % gives its smallest VM to the
                 emptiest one, one in a cell at a time
    clairvoyant  knows what each VM will need for the next hour, and makes the move that saves most steps,
                 10 minutes of a host or more; it keeps dynmem's limits: one from a host, two in a cell, 30
                 minutes of rest
    frugal       a clairvoyant that moves only for 20 minutes

Static sizes move nobody either, but leave VMs out: `without_place`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from bench.fleet_cells import CAPACITY_MIB, OneCell, Way
from host_controller.fleet.core.relief import (
    MOST_MOVES,
    REST_SECONDS,
    SHORT_ABOVE,
    Move,
    Strain,
    relieve,
    relieved,
    watch,
)
from host_controller.units import MIB

Array = Any
THRESHOLD: Final = 0.9
LOOK_SECONDS: Final = 60
"""Between looks of the laws that are not the arbiter's, and between its own where no move helped."""
FORESIGHT_SECONDS: Final = 3600
SOURCES: Final = 4
"""The clairvoyant looks at so many hosts that will lack most."""


class Nobody:
    """Moves nobody."""

    def __call__(self, cell: OneCell, loads: Array) -> None:
        """Nothing."""


@dataclass(slots=True)
class Dynmem:
    """As the arbiter does it, at each of its turns."""

    strains: dict[str, Strain] = field(default_factory=dict)
    leaving: list[Way] = field(default_factory=list)
    asked: tuple[object, ...] = ()
    """What was asked when no move helped."""

    def __call__(self, cell: OneCell, loads: Array) -> None:
        """Watch and relieve."""
        for way in [one for one in self.leaving if one not in cell.ways]:
            self.strains = relieved(self.strains, way.move.source)
            self.leaving.remove(way)
        # Hosts that are not short, and were not of late, are as those of which nothing is known.
        strained = [int(host) for host, one in self.strains.items() if one.short_seconds or one.short]
        hosts = {*np.flatnonzero(loads > SHORT_ABOVE * CAPACITY_MIB).tolist(), *strained}
        self.strains = watch(self.strains, cell.figures(loads, hosts), cell.now)
        due = [int(host) for host, strain in self.strains.items() if strain.due(cell.now)]
        if not due or len(cell.ways) >= MOST_MOVES:
            return
        # Where no move helped, none helps a few seconds later: it need not be computed at each turn.
        question = (cell.now // LOOK_SECONDS, cell.tally.moves, len(cell.ways), *due)
        if question == self.asked:
            return
        view = cell.view(cell.figures(loads, range(cell.hosts), due))
        found = relieve(view, self.strains, cell.moved_at, cell.now, [way.move for way in cell.ways])
        self.asked = () if found.moves else question
        cell.tally.alerts += len(found.alerts)
        cell.begin(found.moves)
        self.leaving = list(cell.ways)


@dataclass(slots=True)
class Threshold:
    """A rule without patience."""

    def __call__(self, cell: OneCell, loads: Array) -> None:
        """The fullest gives to the emptiest."""
        if cell.now % LOOK_SECONDS or cell.ways:
            return
        full, empty = int(loads.argmax()), int(loads.argmin())
        here = np.flatnonzero(cell.where == full)
        if loads[full] <= THRESHOLD * CAPACITY_MIB or full == empty or not here.size:
            return
        vm = here[cell.need[here].argmin()]
        if loads[empty] + cell.need[vm] < CAPACITY_MIB:
            cell.begin([_move(cell, int(vm), empty)])


@dataclass(slots=True)
class Clairvoyant:
    """Sees an hour. `least`: the share of that hour by which a move has to shorten what hosts lack."""

    least: float

    def __call__(self, cell: OneCell, loads: Array) -> None:
        """Who saves most goes first."""
        every = max(LOOK_SECONDS, cell.demand.step_seconds)
        if cell.now % every or len(cell.ways) >= MOST_MOVES:
            return
        moments = np.arange(cell.now + every, cell.now + every + FORESIGHT_SECONDS, every)
        need = np.array([cell.drawn.need(cell.demand, at) for at in moments])
        ahead = np.array([np.bincount(cell.where, weights=one, minlength=cell.hosts) for one in need])
        busy: list[int] = []
        for way in cell.ways:
            source, destination = int(way.move.source), int(way.move.destination)
            ahead[:, source] -= need[:, way.vm]
            ahead[:, destination] += need[:, way.vm]
            busy += [source, destination]
        while len(cell.ways) < MOST_MOVES:
            found = self._best(cell, loads, need, ahead, busy)
            if found is None:
                return
            vm, source, destination = found
            busy += [source, destination]
            cell.begin([_move(cell, vm, destination)])

    def _best(
        self, cell: OneCell, loads: Array, need: Array, ahead: Array, busy: list[int]
    ) -> tuple[int, int, int] | None:
        """VM, source and destination. need: moments × VMs; ahead: moments × hosts."""
        best, most = None, self.least * len(need)
        over = (ahead > CAPACITY_MIB).sum(axis=0)
        for source in np.argsort(-over, kind="stable")[:SOURCES]:
            vms = _movable(cell, int(source))
            if over[source] <= most or source in busy or not vms.size:
                continue
            without = (ahead[:, source, None] - need[:, vms] > CAPACITY_MIB).sum(axis=0)
            adds = (ahead[:, :, None] + need[:, None, vms] > CAPACITY_MIB).sum(axis=0) - over[:, None]
            saves = (over[source] - without)[None, :] - adds
            saves[[int(source), *busy]] = -len(need)
            saves[loads[:, None] + cell.need[None, vms] > CAPACITY_MIB] = -len(need)
            # Of equals the smallest VM to the emptiest host.
            tie = (ahead.mean(axis=0)[:, None] + need[:, vms].mean(axis=0)[None, :]) / (4 * CAPACITY_MIB)
            destination, vm = divmod(int((saves - tie).argmax()), len(vms))
            if saves[destination, vm] > most:
                most = saves[destination, vm]
                best = int(vms[vm]), int(source), destination
        return best


def _movable(cell: OneCell, host: int) -> Array:
    """VMs that do not rest."""
    here = np.flatnonzero(cell.where == host)
    rested = [cell.now - cell.moved_at.get(str(vm), -REST_SECONDS) >= REST_SECONDS for vm in here]
    return here[np.array(rested, dtype=bool)]


def _move(cell: OneCell, vm: int, destination: int) -> Move:
    reserve = int(cell.need[vm]) * MIB
    return Move(str(vm), str(int(cell.where[vm])), str(destination), reserve, "")


def without_place(cell: OneCell) -> Array:
    """VMs for which static sizes have no room, each start on the emptiest host that has it."""
    free = np.full(cell.hosts, CAPACITY_MIB)
    left_out = []
    for vm, size in enumerate(cell.demand.largest[cell.drawn.curve]):
        host = free.argmax()
        if free[host] >= size:
            free[host] -= size
        else:
            left_out.append(vm)
    return np.array(left_out, dtype=np.int64)


Law = Callable[[OneCell, Array], None]
LAWS: Final[dict[str, Callable[[], Law]]] = {
    "none": Nobody,
    "dynmem": Dynmem,
    "threshold": Threshold,
    "clairvoyant": lambda: Clairvoyant(1 / 6),
    "frugal": lambda: Clairvoyant(1 / 3),
}
