"""Whom to move away from a host that is short of memory, and whereto.

A host is relieved only after it was short for long, by one VM, to a host that stays well below full with it.
Pressure that would only wander, or a move on doubt, is worse than none: then there is an alert, and nothing
is stopped.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from host_controller.fleet.core.booking import wanted_mib
from host_controller.fleet.core.model import Cell, HostFigures, Huge, Resource, VmFigures
from host_controller.units import MIB

SHORT_ABOVE: Final = 0.97
"""A host whose VMs cannot do without more than this share of its capacity is short."""
SHORT_SECONDS: Final = 300.0
RECOVERS: Final = 0.5
"""A second in which a host is not short makes up for so many in which it was. A need that swings within
seconds is lower for moments, and the host is no better for it."""
UNSEEN_SECONDS: Final = 60.0
"""What was seen last is believed for so long, until it is looked at again."""
MOST_SECONDS: Final = SHORT_SECONDS + UNSEEN_SECONDS
"""No more is remembered, so that a host recovers within minutes; and not less, so that it may swing."""
STRICKEN_SECONDS: Final = 30.0
"""An overdraft or an emergency has lasted so long."""
RELIEVED_TO: Final = 0.92
TAKES_BELOW: Final = 0.88
"""A destination stays below this share with the VM."""
MOST_MOVES: Final = 2
"""At a time in a cell, and one from a host and to a host."""
REST_SECONDS: Final = 1800.0
"""A VM that was moved stays where it is for so long."""


Way = tuple[str, str]
"""A VM and a destination."""


@dataclass(frozen=True, slots=True)
class Strain:
    """For how long a host was short of late, and since when it is stricken; None: it is not."""

    short: bool = False
    short_seconds: float = 0.0
    """At most `MOST_SECONDS`; what it recovers is taken off."""
    stricken_since: float | None = None
    seen_at: float | None = None
    """When that was; None: it is looked at for the first time."""

    def due(self, now: float) -> bool:
        """It is so, and has lasted long enough."""
        stricken = self.stricken_since is not None and now - self.stricken_since >= STRICKEN_SECONDS
        return stricken or (self.short and self.short_seconds >= SHORT_SECONDS)


@dataclass(frozen=True, slots=True)
class Move:
    """A VM to be moved. `reserve_bytes`: what its destination has to promise first; `huge`: what beside."""

    vm: str
    source: str
    destination: str
    reserve_bytes: int
    reason: str
    huge: Huge | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """A host that is short, and that no move helps."""

    host: str
    reason: str


@dataclass(frozen=True, slots=True)
class Relief:
    """What is to be done now."""

    moves: tuple[Move, ...] = ()
    alerts: tuple[Alert, ...] = ()


def watch(before: Mapping[str, Strain], figures: Mapping[str, HostFigures], now: float) -> dict[str, Strain]:
    """How long each host is short by now. A host that does not answer is not known to be short."""
    return {name: _strain(before.get(name, Strain()), one, now) for name, one in figures.items()}


def relieved(strains: Mapping[str, Strain], host: str) -> dict[str, Strain]:
    """After a VM has left a host: its time begins anew, as it is seen only then what that was worth."""
    return {name: one for name, one in strains.items() if name != host}


def relieve(
    cell: Cell,
    strains: Mapping[str, Strain],
    moved_at: Mapping[str, float],
    now: float,
    under_way: Collection[Move] = (),
    refused: Collection[Way] = (),
) -> Relief:
    """Moves for hosts that were short long enough, the fullest first. `moved_at`: when a VM moved last;
    `refused`: ways that were refused a moment ago.
    """
    resting = {name for name, at in moved_at.items() if now - at < REST_SECONDS}
    involved = {host for one in under_way for host in (one.source, one.destination)}
    moves: list[Move] = []
    alerts: list[Alert] = []
    takers = _takers(cell)
    lasting = {name: one for name, one in strains.items() if one.due(now)}
    due = [name for name, one in watch(lasting, cell.figures, now).items() if one.due(now)]
    for host in sorted(due, key=lambda name: -cell.figures[name].load):
        if len(under_way) + len(moves) >= MOST_MOVES:
            break
        if host in involved:
            continue
        free = [name for name in takers if name not in involved]
        found = _best(cell, host, free, resting, refused) if free else None
        if found is None:
            alerts.append(Alert(host, _no_way(cell, host, free, resting, refused)))
            continue
        moves.append(found)
        involved |= {found.source, found.destination}
    return Relief(tuple(moves), tuple(alerts))


def _strain(before: Strain, figures: HostFigures, now: float) -> Strain:
    passed = 0.0 if before.seen_at is None else min(max(0.0, now - before.seen_at), UNSEEN_SECONDS)
    lasted = before.short_seconds + (passed if before.short else -RECOVERS * passed)
    since = before.stricken_since
    if not (figures.overdraft or figures.emergency is not None):
        since = None
    elif since is None:
        since = now
    short = figures.load > SHORT_ABOVE
    return Strain(short, min(max(0.0, lasted), MOST_SECONDS), since, now)


def _best(
    cell: Cell,
    host: str,
    takers: Collection[str],
    resting: Collection[str],
    refused: Collection[Way],
) -> Move | None:
    """The smallest VM that brings the host down far enough, or else the largest that can go at all."""
    figures, doubted = cell.figures[host], cell.doubted()
    if not figures.connected:
        return None
    excess = figures.floor_bytes - RELIEVED_TO * figures.capacity_bytes
    going = [
        (vm, destination)
        for resource, vm in cell.running_on(host)
        if vm.settled and vm.name not in resting and vm.name not in doubted
        if (destination := _destination(cell, resource, vm, takers, refused)) is not None
    ]
    if not going:
        return None
    enough = [one for one in going if one[0].floor_bytes >= excess]
    vm, destination = (
        min(enough, key=lambda one: (one[0].floor_bytes, one[0].name))
        if enough
        else max(going, key=lambda one: (one[0].floor_bytes, one[0].name))
    )
    return Move(vm.name, host, destination, vm.arrival_bytes, _said(figures), vm.huge)


def _takers(cell: Cell) -> tuple[str, ...]:
    """Hosts that are well below full as they are: few, where memory is short."""
    return tuple(
        node.name
        for node in cell.nodes
        if node.takes and (host := cell.figures.get(node.name)) is not None
        if not host.overdraft and host.emergency is None and host.load < TAKES_BELOW
    )


def _destination(
    cell: Cell,
    resource: Resource,
    vm: VmFigures,
    takers: Collection[str],
    refused: Collection[Way],
) -> str | None:
    """The emptiest host that stays well below full with the VM as it is booked, and can take it in, also by
    what the engine knows: it would make room there by moving others, or not move the VM at all.
    """
    fit = _fitting(cell, resource, vm, takers, refused)
    return next((name for _, name in fit if cell.takes_mib(name, resource.published_mib or 0)), None)


def _fitting(
    cell: Cell,
    resource: Resource,
    vm: VmFigures,
    takers: Collection[str],
    refused: Collection[Way],
) -> list[tuple[float, str]]:
    """Hosts that it can go to by their own figures, with the load that they then have, the emptiest first."""
    booked_bytes = max(vm.floor_bytes, wanted_mib(vm.floor_bytes) * MIB)
    fit: list[tuple[float, str]] = []
    for name in takers:
        banned = name in resource.bans and name not in resource.unsure
        if name == resource.node or banned or (vm.name, name) in refused:
            continue
        host = cell.figures[name]
        load = (host.floor_bytes + booked_bytes) / host.capacity_bytes
        if load < TAKES_BELOW and host.admits_bytes >= vm.arrival_bytes:
            fit.append((load, name))
    return sorted(fit)


def _said(figures: HostFigures) -> str:
    if figures.emergency is not None:
        return f"emergency: {figures.emergency}"
    state = "overdraft" if figures.overdraft else "short"
    return f"{state}: its VMs need {figures.load:.0%} of its capacity"


def _no_way(
    cell: Cell, host: str, takers: Collection[str], resting: Collection[str], refused: Collection[Way]
) -> str:
    if not cell.figures[host].connected:
        return "its libvirt does not answer: none of its VMs can be moved"
    doubted = cell.doubted()
    movable = [one for one in cell.running_on(host) if one[1].settled and one[1].name not in doubted]
    if not movable:
        return "none of its VMs can be moved"
    left = [one for one in movable if one[1].name not in resting]
    if not left:
        return f"all of its VMs were moved within the last {REST_SECONDS / 60:.0f} minutes"
    if any(_fitting(cell, *one, takers, refused) for one in left):
        return "the engine does not know yet that other hosts have room: its figures are older"
    if any(vm.name == name for _, vm in movable for name, _ in refused):
        return "the hosts that have room for one of its VMs have refused it"
    return f"no other host stays below {TAKES_BELOW:.0%} with any of its VMs"
