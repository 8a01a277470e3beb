"""A host emptied: the engine's plan first, promises at every destination, then its standby, then patience.

A destination that does not promise is left out and the engine plans anew, until all is promised or some VM
has no place left. Cut off anywhere, the host is in standby or not: a drain that is said again goes on,
`undrain` ends it. VMs that nobody has moved are marked by the change that ends the standby, so that whoever
comes next has the engine look after them (`clearing`).
"""

import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree

from host_controller.errors import InputError
from host_controller.fleet.clearing import clear_pins, forget_moves, unpin
from host_controller.fleet.core.drain import Closed, Drain, plan_drain
from host_controller.fleet.core.model import Cell
from host_controller.fleet.core.relief import Move, Way
from host_controller.fleet.errors import EngineBusy, FleetError, RaceLost
from host_controller.fleet.moving import Asked, Promised
from host_controller.fleet.pacemaker.cell import Engine, commit, quorate, rested
from host_controller.fleet.pacemaker.cib import Cib, failed_moves
from host_controller.fleet.pacemaker.pins import active, allowed, avoided, drained, in_standby, marks, pins
from host_controller.fleet.patience import patiently

LOOK_SECONDS: Final = 1.0
STALLED_SECONDS: Final = 60.0
"""The engine rests and VMs are still there, or it does not answer."""

CellOf = Callable[[], Cell]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a drain is."""

    left: tuple[str, ...]
    moved: tuple[str, ...]


def plan(
    engine: Engine,
    cell: Cell,
    host: str,
    closed: tuple[Closed, ...] = (),
    promised: Collection[Way] = (),
) -> Drain:
    """What draining would do without the ways that are closed, and those that destinations have no room for.

    Raises:
        InputError: there is no such host, or it is empty or in standby by somebody else's wish.
        FleetError
    """
    cib = engine.query()
    _our_wish(cib, host)
    while True:
        actions = engine.simulate(in_standby(cib, host, _ways(closed))).actions
        found = plan_drain(cell, host, actions, closed, promised)
        if found.refusals or len(found.closed) == len(closed):
            return found
        closed = found.closed


def drain(
    engine: Engine,
    hosts: Asked,
    cell_of: CellOf,
    host: str,
    tell: Callable[[Progress], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Drain:
    """Empty a host. Returns the plan; one with refusals was not begun.

    Raises:
        FleetError: it was begun and cannot go on; the host stays in standby.
    """
    _start_afresh(engine, host, sleep)
    patiently(lambda: rested(engine), sleep)
    promised = Promised(hosts, clock)
    try:
        found = plan(engine, cell_of(), host)
        while not found.refusals and (refused := _ask_all(promised, found)):
            found = plan(engine, cell_of(), host, (*found.closed, *refused), promised.ways())
        if found.refusals:
            return found
        patiently(lambda: _begin(engine, cell_of, host, found, promised), sleep)
        _follow(engine, host, [move.vm for move in found.moves], promised, tell, clock, sleep)
        _allow(engine, host, sleep)
        return found
    finally:
        promised.give_back()


def _begin(engine: Engine, cell_of: CellOf, host: str, found: Drain, promised: Promised) -> None:
    """What was promised is what is done, or nothing: the plan is made of what is committed."""
    promised.renew()
    rested(engine)
    cell, cib = cell_of(), engine.query()
    _our_wish(cib, host)  # it may have been another's for as long as destinations were asked
    if pins(cib):
        raise EngineBusy("another VM is being moved", hint="try again when it has arrived")
    new = in_standby(cib, host, _ways(found.closed))
    again = plan_drain(cell, host, engine.simulate(new).actions, promised=promised.ways())
    if again.refusals or again.closed or _ways(again.moves) != _ways(found.moves):
        raise FleetError("the engine's plan has changed meanwhile", hint="nothing was begun: say it again")
    commit(engine, cib, new)


def undrain(engine: Engine, host: str, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Let a host take VMs again, once the engine rests; False when it did already.

    Raises:
        InputError: it is in standby by somebody else's wish.
        FleetError
    """
    cib = engine.query()
    ours = _our_wish(cib, host)
    if ours or avoided(cib, host):
        _activate(engine, host, sleep)
    else:
        clear_pins(engine, sleep)
    forget_moves(engine, [vm for vm, node in marks(engine.query()).items() if node == host], sleep)
    return ours


def _our_wish(cib: Cib, host: str) -> bool:
    """Whether it is drained.

    Raises:
        InputError: it is in standby by somebody else's wish.
    """
    ours = drained(cib, host)
    if ours is None:
        hint = f"crm_standby -D -N {host} ends it"
        raise InputError(f"{host} is in standby by somebody else's wish", hint=hint)
    return ours


def _blocked(engine: Engine, host: str) -> tuple[str, ...]:
    """VMs that run on there since their destination refused them; the engine leaves them alone."""
    return tuple(vm for vm, node in failed_moves(engine.query()).items() if node == host)


def _start_afresh(engine: Engine, host: str, sleep: Callable[[float], None]) -> None:
    """What a drain before could not move goes again, and only by a promise: so the standby ends first."""
    patiently(lambda: _without_pins(engine), sleep)
    if not _blocked(engine, host):
        return
    if drained(engine.query(), host):
        _activate(engine, host, sleep)
    forget_moves(engine, _blocked(engine, host), sleep)


def _activate(engine: Engine, host: str, sleep: Callable[[float], None]) -> None:
    """End its standby. VMs that are on their way from there arrive first; none is sent back by a pin."""

    def attempt() -> None:
        cib = _without_pins(engine)
        _our_wish(cib, host)
        commit(engine, cib, active(cib, host))

    patiently(attempt, sleep)


def _without_pins(engine: Engine) -> Cib:
    """Of an engine at rest. Where an arbiter has died, a pin would send a VM back after the drain."""
    rested(engine)
    unpin(engine)
    cib = engine.query()
    quorate(cib)
    if pins(cib):
        raise EngineBusy("the engine is at work")
    return cib


def _ask_all(promised: Promised, found: Drain) -> tuple[Closed, ...]:
    """Have everything promised; returns what was refused, and with which words."""
    refused = []
    promised.keep(found.moves)
    for move in found.moves:
        promised.renew()
        answer = promised.ask(move)
        if not answer.given:
            refused.append(Closed(move.vm, move.destination, answer.said))
    return tuple(refused)


def _allow(engine: Engine, host: str, sleep: Callable[[float], None]) -> None:
    """End the bans of a drain that is over. Where that fails, `undrain` does it."""

    def attempt() -> None:
        cib = engine.query()
        if avoided(cib, host):
            commit(engine, cib, allowed(cib, host))

    with suppress(EngineBusy, RaceLost):
        patiently(attempt, sleep)


def _ways(them: Iterable[Move | Closed]) -> set[Way]:
    return {(one.vm, one.destination) for one in them}


def _follow(
    engine: Engine,
    host: str,
    vms: Collection[str],
    promised: Promised,
    tell: Callable[[Progress], None],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    moved_at, before = clock(), len(vms)
    while True:
        sleep(LOOK_SECONDS)
        promised.renew()
        try:
            idle = engine.idle()
            places = engine.simulate(ElementTree.tostring(engine.query().root)).running
        except FleetError:
            if clock() - moved_at >= STALLED_SECONDS:
                raise
            continue  # the node that decides may just be changing; VMs on their way need their promises
        left = tuple(sorted(one for one in vms if places.get(one) == host))
        tell(Progress(left, tuple(sorted(set(vms) - set(left)))))
        if not left:
            return
        if len(left) != before or not idle:
            moved_at, before = clock(), len(left)
        if clock() - moved_at >= STALLED_SECONDS:
            names = ", ".join(left)
            hint = f"crm_mon -1 shows why; dynmem fleet undrain {host} ends it, drain goes on with it"
            raise FleetError(f"the engine rests and leaves {names} on {host}", hint=hint)
