"""A host emptied: the engine's plan first, promises at every destination, then its standby, then patience.

A destination that does not promise is left out and the engine plans anew, until all is promised or some VM
has no place left. Cut off anywhere, the host is in standby or not: a drain that is said again goes on,
`undrain` ends it (`undraining`). VMs that nobody has moved are marked by the change that ends the standby,
so that whoever comes next has the engine look after them (`clearing`).
"""

from collections.abc import Collection, Iterable

from host_controller.fleet.clearing import forget_moves
from host_controller.fleet.clock import REAL, Clock
from host_controller.fleet.core.drain import Closed, Drain, plan_drain
from host_controller.fleet.core.model import Cell
from host_controller.fleet.core.relief import Move, Way
from host_controller.fleet.errors import EngineBusy, FleetError
from host_controller.fleet.moving import Asked, Promised
from host_controller.fleet.pacemaker.cell import Engine, commit, require_rest
from host_controller.fleet.pacemaker.cib import failed_moves
from host_controller.fleet.pacemaker.pins import drained, in_standby, pins
from host_controller.fleet.patience import patiently
from host_controller.fleet.progress import Tell, follow
from host_controller.fleet.undraining import CellOf, allow, end_standby, our_wish, without_pins


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
    our_wish(cib, host)
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
    tell: Tell,
    clock: Clock = REAL,
) -> Drain:
    """Empty a host. Returns the plan; one with refusals was not begun.

    Raises:
        FleetError: it was begun and cannot go on; the host stays in standby.
    """
    _start_afresh(engine, hosts, cell_of, host, tell, clock)
    patiently(lambda: require_rest(engine), clock)
    promised = Promised(hosts, clock)
    try:
        found = plan(engine, cell_of(), host)
        while not found.refusals and (refused := _ask_all(promised, found)):
            found = plan(engine, cell_of(), host, (*found.closed, *refused), promised.ways())
        if found.refusals:
            return found
        patiently(lambda: _begin(engine, cell_of, host, found, promised), clock)
        sources = {move.vm: host for move in found.moves}
        hint = f"crm_mon -1 shows why; dynmem fleet undrain {host} ends it, drain goes on with it"
        follow(engine, sources, promised, tell, clock, hint)
        allow(engine, host, clock)
        return found
    finally:
        promised.give_back()


def _begin(engine: Engine, cell_of: CellOf, host: str, found: Drain, promised: Promised) -> None:
    """What was promised is what is done, or nothing: the plan is made of what is committed."""
    promised.renew()
    require_rest(engine)
    cell, cib = cell_of(), engine.query()
    our_wish(cib, host)  # it may have been another's for as long as destinations were asked
    if pins(cib):
        raise EngineBusy("another VM is being moved", hint="try again when it has arrived")
    new = in_standby(cib, host, _ways(found.closed))
    again = plan_drain(cell, host, engine.simulate(new).actions, promised=promised.ways())
    if again.refusals or again.closed or _ways(again.moves) != _ways(found.moves):
        raise FleetError("the engine's plan has changed meanwhile", hint="nothing was begun: say it again")
    commit(engine, cib, new)


def _blocked(engine: Engine, host: str) -> tuple[str, ...]:
    """VMs that run on there since their destination refused them; the engine leaves them alone."""
    return tuple(vm for vm, node in failed_moves(engine.query()).items() if node == host)


def _start_afresh(
    engine: Engine,
    hosts: Asked,
    cell_of: CellOf,
    host: str,
    tell: Tell,
    clock: Clock,
) -> None:
    """What a drain before could not move goes again, and only by a promise: so the standby ends first."""
    patiently(lambda: without_pins(engine, clock), clock)
    if not _blocked(engine, host):
        return
    if drained(engine.query(), host):
        end_standby(engine, hosts, cell_of, host, tell, clock, again=True)
    forget_moves(engine, _blocked(engine, host), clock)


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


def _ways(them: Iterable[Move | Closed]) -> set[Way]:
    return {(one.vm, one.destination) for one in them}
