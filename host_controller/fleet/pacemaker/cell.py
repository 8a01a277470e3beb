"""The cell as Pacemaker and its hosts see it, put together; and what is published there."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Protocol, Self

from host_controller.fleet.core.booking import Booking, follow_others
from host_controller.fleet.core.drain import Action, harm, in_words
from host_controller.fleet.core.model import Cell, HostFigures, Node, Resource
from host_controller.fleet.core.publication import Publication, publication
from host_controller.fleet.errors import EngineBusy, NoQuorum, RaceLost
from host_controller.fleet.pacemaker.cib import MAINTENANCE, Cib, changed, strangers
from host_controller.fleet.pacemaker.simulation import Simulation
from host_controller.fleet.pacemaker.unmanaged import as_managed
from host_controller.fleet.pacemaker.values import FALSE

Startup = Callable[[str | None], int | None]
"""MiB that a VM starts with, by the file of its domain; None where that cannot be told."""


KNOWN_SECONDS: Final = 120.0
_STAMPS: Final = re.compile(rb' (?:admin_epoch|epoch|num_updates|cib-last-written|update-[a-z]+)="[^"]*"')
"""Of the configuration's version, and who made it."""


class Engine(Protocol):
    """Pacemaker, as far as it is asked here; `Tools` is the real one."""

    def query(self) -> Cib:
        """The configuration as it is now."""

    def idle(self) -> bool:
        """Whether nothing is under way."""

    def simulate(self, text: bytes) -> Simulation:
        """What the scheduler would do with this configuration."""

    def replace(self, before: bytes, after: bytes) -> None:
        """Change the configuration, if it still is what it was."""

    def clean_up(self, vm: str, node: str, operation: str = "start") -> None:
        """Forget that this operation of the VM has failed there."""

    def refresh(self, vm: str, node: str) -> None:
        """Forget all that has happened to the VM there, and look."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the scheduler made of a configuration in which it found nothing to do.

    To ask takes a second of a processor for 640 VMs, and what was published is looked at next. It is believed
    for two minutes, as some of the engine's rules go by time. Each publication is asked about.
    """

    content: bytes
    simulation: Simulation
    at: float

    @classmethod
    def of(cls, text: bytes, simulation: Simulation, now: float) -> Self | None:
        """None: it found something to do."""
        return None if simulation.actions else cls(_content(text), simulation, now)

    def holds(self, text: bytes, now: float) -> bool:
        """Whether that is this configuration, and not too long ago."""
        return 0 <= now - self.at < KNOWN_SECONDS and _content(text) == self.content


def _content(text: bytes) -> bytes:
    """A digest of a configuration without its version."""
    head, _, rest = text.partition(b">")
    return hashlib.sha256(_STAMPS.sub(b"", head) + rest).digest()


@dataclass(frozen=True, slots=True)
class Turn:
    """What came of one turn of publishing."""

    said: str
    published: Publication | None
    """What was committed; None: nothing was."""
    bookings: Mapping[str, Booking]
    cell: Cell | None = None
    notes: tuple[str, ...] = ()
    """What was not believed, and why."""
    harm: tuple[Action, ...] = ()
    """Why it was not: what the scheduler would have done."""
    known: Known | None = None
    """For the next turn."""
    others: tuple[str, ...] = ()
    """VMs whose sizes somebody else has published since the turn before."""

    @property
    def left(self) -> dict[str, int | None]:
        """The sizes that are published now, for the next turn."""
        resources = () if self.cell is None else self.cell.resources
        set_now = {} if self.published is None else self.published.vms
        return {one.name: set_now.get(one.name, one.published_mib) for one in resources}


def cell_of(cib: Cib, simulation: Simulation, figures: Mapping[str, HostFigures], startup: Startup) -> Cell:
    """What the engine has, what its scheduler makes of it, and what the hosts say."""
    ours = {one.name for one in cib.vms}
    others: Counter[str] = Counter()
    for name, node_name, size in simulation.weights:
        if name not in ours:
            others[node_name] += size
    nodes = tuple(
        replace(_as_it_is(node, cib), published_mib=cib.nodes.get(node.name), others_mib=others[node.name])
        for node in simulation.nodes
        if node.name in cib.nodes
    )
    resources = tuple(
        Resource(
            one.name,
            place := _place(one.name, simulation, figures),
            one.size_mib,
            startup(one.config) if place is None else None,
            one.bans,
            one.failed_on,
            one.unsure,
            _where(one.name, simulation) - {place},
        )
        for one in cib.vms
    )
    known = {node.name for node in nodes}
    believed = {name: one for name, one in figures.items() if name in known}
    return Cell(nodes, resources, believed, strangers(cib))


def _as_it_is(node: Node, cib: Cib) -> Node:
    """The scheduler does not tell of each node that all of them are in maintenance."""
    if not node.takes or cib.options.get(MAINTENANCE, "false").lower() in (*FALSE, ""):
        return node
    return replace(node, takes=False, trouble="the cluster is in maintenance")


def _place(vm: str, simulation: Simulation, figures: Mapping[str, HostFigures]) -> str | None:
    """Where the engine has a VM. Where it cannot tell, the hosts can: the one that has it tells of it."""
    for name in simulation.several.get(vm, ()):
        host = figures.get(name)
        if host is not None and any(one.name == vm for one in host.running):
            return name
    return simulation.places.get(vm)


def _where(vm: str, simulation: Simulation) -> frozenset[str]:
    """All nodes where a VM may run now."""
    running = simulation.running.get(vm)
    return frozenset((*simulation.several.get(vm, ()), *(() if running is None else (running,))))


def require_quorum(cib: Cib) -> None:
    """Whoever has quorum decides. Without it a change is made all the same, for this part of the cluster
    alone, and where the parts meet again it can win over what the others have decided meanwhile.

    Raises:
        NoQuorum
    """
    if not cib.quorate:
        hint = "crm_mon -1 shows which hosts are missing; VMs go on, and so do hosts by their own rules"
        raise NoQuorum("this part of the cluster has no quorum", hint=hint)


def commit(engine: Engine, cib: Cib, new: bytes) -> None:
    """Change the configuration that was read, unless the engine is at work.

    A VM on its way whose destination is no longer the best for it is stopped on both hosts, and no simulation
    tells of that before its memory has arrived. So the engine is asked after the configuration was read: what
    it has begun by then it says, and what it begins later changes the configuration, so the patch is refused.

    Raises:
        EngineBusy, RaceLost, EngineError: nothing was changed.
    """
    require_quorum(cib)
    require_rest(engine)
    engine.replace(cib.text, new)


def disturbed_by(engine: Engine, cib: Cib, new: bytes) -> tuple[Action, ...]:
    """What the scheduler would do to running VMs because of a change, beside what it would do anyway: now, or
    else as soon as it manages what it leaves alone for now.

    Raises:
        EngineError: it cannot be asked.
    """
    found = harm(engine.simulate(new).actions, engine.simulate(cib.text).actions)
    managed = as_managed(cib.text)
    if found or managed == cib.text:
        return found
    return harm(engine.simulate(as_managed(new)).actions, engine.simulate(managed).actions)


def require_rest(engine: Engine) -> None:
    """Nothing is under way. Of an engine that is at work the scheduler plans what is half done, too.

    Raises:
        EngineBusy
    """
    if not engine.idle():
        hint = "a VM on its way would be stopped; try again when crm_mon shows no action under way"
        raise EngineBusy("the engine is at work", hint=hint)


def require_unchanged(engine: Engine, cib: Cib) -> None:
    """The engine rests, and nothing has changed since this was read.

    Its tools that clean up take no version to check against. So what was thought over may still change in the
    moment between this look and the tool's own.

    Raises:
        EngineBusy, RaceLost
    """
    require_quorum(cib)
    require_rest(engine)
    if engine.query().version != cib.version:
        raise RaceLost("the cluster's configuration was changed meanwhile", hint="try again")


def forget(engine: Engine, cib: Cib, vm: str, node: str, operation: str = "start") -> None:
    """Have the engine forget a failure, unless it is at work or anything has changed since it was read.

    Raises:
        EngineBusy, RaceLost, EngineError: nothing was changed.
    """
    require_unchanged(engine, cib)
    engine.clean_up(vm, node, operation)


def publish(
    engine: Engine,
    figures: Mapping[str, HostFigures],
    before: Mapping[str, Booking],
    startup: Startup,
    now: float,
    known: Known | None = None,
    left: Mapping[str, int | None] = MappingProxyType({}),
) -> Turn:
    """One turn: nothing is committed unless the engine rests, and its scheduler would leave all VMs alone.
    `known`, `left`: of the turn before.

    Raises:
        EngineError, NoQuorum, RaceLost: nothing was changed.
    """
    cib = engine.query()
    require_quorum(cib)
    if not engine.idle():  # asked second, as in `commit`
        return Turn("the engine is at work", None, before)
    old = cib.text
    if known is None or not known.holds(old, now):
        known = Known.of(old, simulation := engine.simulate(old), now)
    else:
        simulation = known.simulation
    cell = cell_of(cib, simulation, figures, startup)
    before, others = follow_others(before, left, {one.name: one.size_mib for one in cib.vms})
    wanted, bookings = publication(cell, before, now)
    wanted = replace(wanted.changes(cell), notes=(*cib.notes, *wanted.notes))
    if not wanted:
        return Turn("nothing has changed", None, bookings, cell, wanted.notes, known=known, others=others)
    new = changed(cib, wanted.vms, wanted.hosts)
    would = engine.simulate(new)
    disturbed = harm(would.actions, simulation.actions)
    if disturbed and known is not None and known.at != now:
        # What goes by time may have come since: then it is not because of what is published.
        simulation = engine.simulate(old)
        known = Known.of(old, simulation, now)
        disturbed = harm(would.actions, simulation.actions)
    if disturbed:
        said = f"held back: the engine would {in_words(disturbed)}"
        return Turn(said, None, bookings, cell, wanted.notes, disturbed, known, others)
    engine.replace(old, new)
    known = Known.of(new, would, now)
    return Turn("published", wanted, bookings, cell, wanted.notes, known=known, others=others)
