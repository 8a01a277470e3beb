"""The end of a drain: its host takes VMs again, and destinations that had refused are no longer banned.

A constraint that prefers the host has the engine send VMs back there at once, and one that prefers a banned
destination sends a VM on. So the scheduler is asked first, and whoever would move has its memory promised.
Where it is not, or a VM would be stopped, nothing is changed.
"""

from collections.abc import Callable
from contextlib import suppress

from host_controller.errors import InputError
from host_controller.fleet.clearing import clear_pins, forget_moves, unpin
from host_controller.fleet.clock import REAL, Clock
from host_controller.fleet.core.drain import Action, in_words, unfit_to_go
from host_controller.fleet.core.model import Cell
from host_controller.fleet.core.relief import Move
from host_controller.fleet.errors import EngineBusy, FleetError, RaceLost
from host_controller.fleet.moving import Asked, Promised
from host_controller.fleet.pacemaker.cell import Engine, commit, disturbed_by, require_quorum, require_rest
from host_controller.fleet.pacemaker.cib import Cib, strangers
from host_controller.fleet.pacemaker.pins import active, allowed, avoided, drained, marks, pins
from host_controller.fleet.patience import patiently
from host_controller.fleet.progress import Tell, follow

CellOf = Callable[[], Cell]


def undrain(
    engine: Engine,
    hosts: Asked,
    cell_of: CellOf,
    host: str,
    tell: Tell = lambda _: None,
    clock: Clock = REAL,
) -> bool:
    """Let a host take VMs again, once the engine rests; False when it did already.

    Raises:
        InputError: it is in standby by somebody else's wish.
        FleetError
    """
    cib = engine.query()
    ours = our_wish(cib, host)
    if ours or avoided(cib, host):
        end_standby(engine, hosts, cell_of, host, tell, clock)
    else:
        clear_pins(engine, clock)
    forget_moves(engine, [vm for vm, node in marks(engine.query()).items() if node == host], clock)
    return ours


def our_wish(cib: Cib, host: str) -> bool:
    """Whether it is drained.

    Raises:
        InputError: it is in standby by somebody else's wish.
    """
    ours = drained(cib, host)
    if ours is None:
        hint = f"crm_standby -D -N {host} ends it, with -l reboot one that lasts until the node starts again"
        raise InputError(f"{host} is in standby by somebody else's wish", hint=hint)
    return ours


def end_standby(
    engine: Engine,
    hosts: Asked,
    cell_of: CellOf,
    host: str,
    tell: Tell,
    clock: Clock,
    *,
    again: bool = False,
) -> None:
    """End it. VMs that are on their way from there arrive first; none is sent back by a pin, or unpromised.
    `again`: it is drained again at once, so none comes back.

    Raises:
        InputError: it is in standby by somebody else's wish.
        FleetError: nothing was changed, or VMs that would come back do not.
    """
    promised = Promised(hosts, clock)
    try:
        moves = patiently(lambda: _activate(engine, cell_of, host, promised, clock, again=again), clock)
        if moves:
            hint = f"{host} takes VMs again; crm_mon -1 shows why they stay"
            follow(engine, {one.vm: one.source for one in moves}, promised, tell, clock, hint)
    finally:
        promised.give_back()


def allow(engine: Engine, host: str, clock: Clock) -> None:
    """End the bans of a drain that is over, if nobody moves for that. Else `undrain` does it."""

    def attempt() -> None:
        cib = engine.query()
        if avoided(cib, host):
            new = allowed(cib, host)
            if not _disturbed(engine, cib, new):
                commit(engine, cib, new)

    with suppress(EngineBusy, RaceLost):
        patiently(attempt, clock)


def without_pins(engine: Engine, clock: Clock) -> Cib:
    """Of an engine at rest. Where an arbiter has died, a pin would send a VM back after the drain."""
    require_rest(engine)
    unpin(engine, clock)
    cib = engine.query()
    require_quorum(cib)
    if pins(cib):
        raise EngineBusy("the engine is at work")
    return cib


def _activate(
    engine: Engine, cell_of: CellOf, host: str, promised: Promised, clock: Clock, *, again: bool
) -> list[Move]:
    cib = without_pins(engine, clock)
    our_wish(cib, host)
    new = active(cib, host)
    disturbed = _disturbed(engine, cib, new)
    if again and disturbed:
        new = active(cib, host, [(one.vm, host) for one in disturbed if one.destination == host])
        disturbed = _disturbed(engine, cib, new)
    moves = _moves(disturbed, cib, cell_of, host)
    promised.keep(moves)
    promised.renew()
    for move in moves:
        if (move.vm, move.destination) in promised.ways():
            continue
        answer = promised.ask(move)
        if not answer.given:
            text = f"{host} stays drained: {move.vm} would go back to {move.destination}"
            raise FleetError(f"{text}, which does not promise the memory: {answer.said}", hint=_by_hand(host))
    commit(engine, cib, new)
    return moves


def _disturbed(engine: Engine, cib: Cib, new: bytes) -> list[Action]:
    """What the engine would do because of this change, to VMs and not to other resources."""
    vms = {one.name for one in cib.vms} | strangers(cib)
    return [one for one in disturbed_by(engine, cib, new) if one.vm in vms]


def _moves(actions: list[Action], cib: Cib, cell_of: CellOf, host: str) -> list[Move]:
    """Of our VMs; what is not placed by demand is promised nothing."""
    stopped = [one for one in actions if one.kind != "migrate"]
    if stopped:
        raise FleetError(f"{host} stays drained: the engine would {in_words(stopped)}", hint=_by_hand(host))
    ours = {one.name for one in cib.vms}
    going = [one for one in actions if one.vm in ours]
    if not going:
        return []
    cell = cell_of()
    resources, doubted = {one.name: one for one in cell.resources}, cell.doubted()
    moves = []
    for one in going:
        if one.vm in doubted:
            told = f"{doubted[one.vm]} tells that {one.vm} runs there, and the engine has it on {one.source}"
            raise FleetError(f"{host} stays drained: {told}", hint="virsh domstate on both hosts tells")
        resource = resources.get(one.vm)
        figures = None if resource is None else cell.figures_of(resource)
        why = unfit_to_go(cell, one.source, figures)
        if figures is None or why is not None:
            text = f"{host} stays drained: {one.vm} would go back to {one.destination}"
            why = why or f"the controller of {one.source} does not tell of it"
            raise FleetError(f"{text}, and {why}")
        reason = f"{host} takes VMs again"
        way = (str(one.source), str(one.destination))
        moves.append(Move(one.vm, *way, figures.arrival_bytes, reason, figures.huge))
    return moves


def _by_hand(host: str) -> str:
    return (
        "take the constraint that prefers the host away, or make room there; "
        f"crm_standby -D -N {host} ends the standby all the same"
    )
