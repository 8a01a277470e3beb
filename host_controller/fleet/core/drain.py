"""Is it safe to empty a host? The engine's own plan is read before anything is done."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from host_controller.fleet.core.model import Cell, Resource, VmFigures, mib_up
from host_controller.fleet.core.relief import Move, Way
from host_controller.fleet.core.why import Obstacle, why
from host_controller.units import MIB


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that the engine would do."""

    kind: Literal["start", "stop", "move", "migrate", "other"]
    """`move` stops a VM and starts it elsewhere; `migrate` moves it while it runs."""
    vm: str
    source: str | None = None
    destination: str | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A VM that would be stopped, and what each other host lacks for it."""

    vm: str
    reason: str
    size_mib: int
    obstacles: tuple[Obstacle, ...]


@dataclass(frozen=True, slots=True)
class Closed:
    """A way that a VM does not go, because its destination would not have it."""

    vm: str
    destination: str
    said: str


@dataclass(frozen=True, slots=True)
class Drain:
    """What a drain would do."""

    moves: tuple[Move, ...]
    refusals: tuple[Refusal, ...]
    """With any of them nothing is begun."""
    closed: tuple[Closed, ...] = ()
    """Ways to be left out. With more of them than the plan was made without, it has to be made anew."""


def harm(actions: Collection[Action], before: Collection[Action] = ()) -> tuple[Action, ...]:
    """What would disturb a running VM and was not to be done anyway: all but starts."""
    return tuple(one for one in actions if one.kind != "start" and one not in before)


def in_words(actions: Collection[Action]) -> str:
    """The first of them, as a sentence about the engine goes on after "would"."""
    return ", ".join(f"{one.text} {one.vm}" for one in list(actions)[:5])


def hung(cell: Cell, host: str | None) -> str | None:
    """Why nothing can leave or reach a host, though the engine would try."""
    figures = None if host is None else cell.figures.get(host)
    return None if figures is None or figures.connected else f"the libvirt of {host} does not answer"


def unfit_to_go(cell: Cell, host: str | None, vm: VmFigures | None) -> str | None:
    """Why a VM should not leave this host now, though the engine would move it."""
    if vm is not None and vm.stands_still:
        return "it stands still after a reset, until its host has room"
    return hung(cell, host)


def plan_drain(
    cell: Cell,
    host: str,
    actions: Collection[Action],
    closed: tuple[Closed, ...] = (),
    promised: Collection[Way] = (),
) -> Drain:
    """From the engine's plan for a standby of the host, made without the ways that are closed.

    `promised`: what no longer is in a destination's figures, as it keeps the memory already.
    """
    found = [_judge(cell, one, host, actions, closed) for one in cell.on(host)]
    moves = tuple(one for one in found if isinstance(one, Move))
    refusals = (one for one in found if isinstance(one, Refusal))
    unfit = _unfit(cell, [one for one in moves if (one.vm, one.destination) not in promised])
    return Drain(moves, (*refusals, *_disturbed(cell, host, actions, moves)), (*closed, *unfit))


def _judge(
    cell: Cell, resource: Resource, host: str, actions: Collection[Action], closed: tuple[Closed, ...]
) -> Move | Refusal:
    """What the plan means for a VM of the host."""
    vm, figures = resource.name, cell.figures_of(resource)
    does = next((one for one in actions if one.vm == vm), None)
    size = mib_up(figures.arrival_bytes) if figures is not None else resource.published_mib or 0
    said = {one.destination: one.said for one in closed if one.vm == vm}
    reason = _why_not(does, figures is not None, host) or unfit_to_go(cell, host, figures)
    if reason is None and (other := cell.doubted().get(vm)) is not None:
        reason = f"{other} tells that it runs there: two hosts may not both be believed"
    if reason is None and does is not None and does.destination is not None:
        if does.destination not in said:
            huge = None if figures is None else figures.huge
            return Move(vm, host, does.destination, size * MIB, f"drain of {host}", huge)
        reason = f"{does.destination} has refused to take it"
    known = replace(resource, bans={**resource.bans, **said})
    others = tuple(one for one in why(cell, known, size) if one.host != host)
    return Refusal(vm, reason or "the engine does not move it", size, others)


def _disturbed(
    cell: Cell, host: str, actions: Collection[Action], moves: Collection[Move]
) -> Iterator[Refusal]:
    """VMs that the plan would harm beside those that are to move."""
    moved = {one.vm for one in moves}
    for one in harm(actions):
        if one.source != host and one.vm not in moved:
            text = f"the engine would {one.text or one.kind} it, though it is not on {host}"
            yield Refusal(one.vm, text, 0, ())
        elif one.vm in cell.strangers and (reason := _why_not(one, True, host) or hung(cell, host)):
            yield Refusal(one.vm, reason, 0, ())


def _why_not(does: Action | None, known: bool, host: str) -> str | None:
    if does is None:
        return "the engine would leave it there"
    if does.kind == "stop":
        return "it would be stopped: no other host has room for it"
    if does.kind == "move":
        return "it would be stopped and started again: it cannot be migrated live"
    if does.kind != "migrate":
        return f"the engine would {does.text or does.kind} it"
    return None if known else f"the controller of {host} does not tell of it"


def _unfit(cell: Cell, moves: Collection[Move]) -> Iterator[Closed]:
    """What destinations do not admit by their own figures; the largest VMs come first."""
    left = {name: figures.admits_bytes for name, figures in cell.figures.items()}
    for one in sorted(moves, key=lambda move: (-move.reserve_bytes, move.vm)):
        free = left.get(one.destination)
        if free is None:
            yield Closed(one.vm, one.destination, "its controller does not answer")
        elif (why := hung(cell, one.destination)) is not None:
            yield Closed(one.vm, one.destination, why)
        elif one.reserve_bytes > free:
            missing = mib_up(one.reserve_bytes - free)
            yield Closed(one.vm, one.destination, f"{missing} MiB are missing beside what else would arrive")
        else:
            left[one.destination] = free - one.reserve_bytes
