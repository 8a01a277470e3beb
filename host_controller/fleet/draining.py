"""A host emptied: the engine's plan first, promises at every destination, then its standby, then patience.

Cut off anywhere, the host is in standby or not: a drain that is said again goes on, `undrain` ends it.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree

from host_controller.errors import InputError
from host_controller.fleet.core.drain import Drain, plan_drain
from host_controller.fleet.core.model import Cell
from host_controller.fleet.errors import FleetError
from host_controller.fleet.moving import Asked, Promised
from host_controller.fleet.pacemaker.cell import Engine
from host_controller.fleet.pacemaker.pins import active, drained, in_standby

LOOK_SECONDS: Final = 1.0
STALLED_SECONDS: Final = 60.0
"""The engine rests and VMs are still there."""

CellOf = Callable[[], Cell]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a drain is."""

    left: tuple[str, ...]
    moved: tuple[str, ...]


def plan(engine: Engine, cell: Cell, host: str, refused: dict[str, set[str]] | None = None) -> Drain:
    """What draining would do.

    Raises:
        InputError: there is no such host, or it is empty or in standby by somebody else's wish.
        FleetError
    """
    cib = engine.query()
    if drained(cib, host) is None:
        hint = f"crm_standby -D -N {host} ends it"
        raise InputError(f"{host} is in standby by somebody else's wish", hint=hint)
    return plan_drain(cell, host, engine.simulate(in_standby(cib, host)).actions, refused)


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
    if not engine.idle():
        raise FleetError("the engine is at work", hint="try again when crm_mon shows no action under way")
    promised = Promised(hosts, clock)
    try:
        found = plan(engine, cell_of(), host)
        refused: dict[str, set[str]] = {}
        for move in found.moves if not found.refusals else ():
            answer = promised.ask(move)
            if not answer.given:
                refused.setdefault(move.vm, set()).add(move.destination)
        if refused:
            found = plan(engine, cell_of(), host, refused)
        if found.refusals:
            return found
        cib = engine.query()
        old, new = ElementTree.tostring(cib.root), in_standby(cib, host)
        # What was promised is what is done, or nothing: the plan is made of what is committed.
        again = plan_drain(cell_of(), host, engine.simulate(new).actions)
        if again.refusals or _ways(again) != _ways(found):
            raise FleetError(
                "the engine's plan has changed meanwhile", hint="nothing was begun: say it again"
            )
        engine.replace(old, new)
        _follow(engine, host, [move.vm for move in found.moves], promised, tell, clock, sleep)
        return found
    finally:
        promised.give_back()


def undrain(engine: Engine, host: str) -> bool:
    """Let a host take VMs again; False when it did already.

    Raises:
        InputError: it is in standby by somebody else's wish.
        FleetError
    """
    cib = engine.query()
    ours = drained(cib, host)
    if ours is None:
        hint = f"crm_standby -D -N {host} ends it"
        raise InputError(f"{host} is in standby by somebody else's wish", hint=hint)
    if not ours:
        return False
    engine.replace(ElementTree.tostring(cib.root), active(cib, host))
    return True


def _ways(found: Drain) -> set[tuple[str, str]]:
    return {(move.vm, move.destination) for move in found.moves}


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
        idle = engine.idle()
        places = engine.simulate(ElementTree.tostring(engine.query().root)).running
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
