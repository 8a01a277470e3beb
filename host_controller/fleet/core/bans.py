"""When a host that refused a VM's start is tried again.

The engine bans a host for a VM once a start has failed there, for good. Memory comes back: so the ban is
lifted when the host has room for the VM. When all hosts have refused a stopped VM, the one that lacks least
is tried again even so, by and by. A start that keeps failing is tried ever more seldom; where it fails though
there is room, again and again, memory is not why, and the ban stays for people to look at.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from host_controller.fleet.core.model import Cell, Resource, mib_up

AGAIN_SECONDS: Final = 60.0
"""Between the first two clean-ups of one ban. Each further pause is twice as long."""
REFUSED_SECONDS: Final = 300.0
"""The same where all hosts have refused and none has room, from the refusal on."""
LONGEST_SECONDS: Final = 1800.0
"""No pause is longer. A ban that has been away for so long is forgotten."""
MOST_IN_VAIN: Final = 5
"""Clean-ups of one ban where there was room, and yet the start failed again."""

Pair = tuple[str, str]
"""A VM and a node."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A ban, and what was done about it."""

    seen_at: float
    """When it was first seen."""
    lifted: int = 0
    """How often, since the VM last ran there."""
    lifted_at: float | None = None
    with_room: int = 0
    """How often of these the host had room."""

    def rests(self, pause_seconds: float, since: float | None, now: float) -> bool:
        """The pause after so many clean-ups, which began at `since`, is not over."""
        doublings = min(max(0, self.lifted - 1), 10)
        pause = min(LONGEST_SECONDS, pause_seconds * 2.0**doublings)
        return since is not None and now - since < pause


@dataclass(frozen=True, slots=True)
class Lift:
    """A ban that is to be lifted."""

    vm: str
    node: str
    reason: str
    room: bool = True
    """The host could take the VM."""


def follow_bans(before: Mapping[Pair, Tried], cell: Cell, now: float) -> dict[Pair, Tried]:
    """What is known of all bans by failed starts. One whose VM has run there since is forgotten, and one that
    has been away for longer than any pause.
    """
    after: dict[Pair, Tried] = {}
    for one in cell.resources:
        for node in one.failed_on:
            after[one.name, node] = before.get((one.name, node), Tried(now))
        for (vm, node), tried in before.items():
            if vm == one.name and one.node != node and tried.rests(LONGEST_SECONDS, tried.lifted_at, now):
                # A VM that runs elsewhere was not tried there in vain.
                after.setdefault((vm, node), replace(tried, with_room=0) if one.node else tried)
    return after


def hopeless(cell: Cell, known: Mapping[Pair, Tried]) -> frozenset[Pair]:
    """Bans that no memory lifts: starts have failed again and again where there was room."""
    bans = ((one.name, node) for one in cell.resources for node in one.failed_on)
    return frozenset(pair for pair in bans if pair in known and known[pair].with_room >= MOST_IN_VAIN)


def bans_to_lift(cell: Cell, known: Mapping[Pair, Tried], now: float) -> tuple[Lift, ...]:
    """At most one for each VM: the next is decided by what came of it."""
    found = (_lift(cell, one, known, now) for one in cell.resources if one.failed_on)
    return tuple(one for one in found if one is not None)


def lifted(before: Mapping[Pair, Tried], one: Lift, now: float, *, done: bool = True) -> dict[Pair, Tried]:
    """After this ban was lifted; not `done`: the engine would not let it be."""
    tried = before.get((one.vm, one.node), Tried(now))
    with_room = tried.with_room + int(done and one.room)
    more = replace(tried, lifted=tried.lifted + 1, lifted_at=now, with_room=with_room)
    return {**before, (one.vm, one.node): more}


def _lift(cell: Cell, one: Resource, known: Mapping[Pair, Tried], now: float) -> Lift | None:
    size = _size_mib(cell, one)
    if size is None or one.name in cell.doubted():
        return None
    vain = hopeless(cell, known)
    free = {node: free for node, free in _free(cell, one) if (one.name, node) not in vain}
    roomy = [node for node in free if free[node] >= size]
    for node in sorted(roomy, key=lambda name: (-free[name], name)):
        tried = known.get((one.name, node), Tried(now))
        if not tried.rests(AGAIN_SECONDS, tried.lifted_at, now):
            return Lift(one.name, node, f"{free[node]} MiB are free there by now, and it needs {size}")
    if roomy or one.node is not None or not free or not _all_refused(cell, one):
        return None
    node = max(free, key=lambda name: (free[name], name))
    tried = known.get((one.name, node), Tried(now))
    if tried.rests(REFUSED_SECONDS, tried.lifted_at or tried.seen_at, now):
        return None
    return Lift(one.name, node, "all hosts have refused it, and this one lacks least", room=False)


def _size_mib(cell: Cell, one: Resource) -> int | None:
    """What a host needs to take it; None: that is not known, so nothing is done on doubt."""
    if one.node is None:
        return max(one.published_mib or 0, one.startup_mib or 0) or None
    figures = cell.figures_of(one)
    return None if figures is None else mib_up(figures.arrival_bytes)


def _free(cell: Cell, one: Resource) -> Iterator[tuple[str, int]]:
    """Hosts where a start has failed and that would take one, with what is free there."""
    for node in cell.nodes:
        figures, free = cell.figures.get(node.name), cell.free_mib(node.name)
        if node.name not in one.failed_on or not node.takes or figures is None or free is None:
            continue
        if not figures.overdraft and figures.emergency is None:
            yield node.name, free


def _all_refused(cell: Cell, one: Resource) -> bool:
    return all(node.name in one.bans for node in cell.nodes if node.takes)
