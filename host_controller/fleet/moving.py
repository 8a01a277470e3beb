"""VMs moved one by one: promised at the destination, then moved by the engine, then let go.

Nothing begins that the engine's scheduler would not do exactly so, and nothing begins without a promise of
the destination. A move that fails leaves the VM where it was: its promise is taken back and its pin cleared.
"""

import secrets
from collections.abc import Collection
from concurrent.futures import wait
from dataclasses import dataclass, field
from typing import Final, Protocol

from host_controller.beside import begun
from host_controller.fleet.clearing import clear_up
from host_controller.fleet.clock import REAL, Clock
from host_controller.fleet.core.drain import Action, harm, in_words
from host_controller.fleet.core.model import Huge
from host_controller.fleet.core.relief import Move, Way
from host_controller.fleet.errors import EngineBusy, FleetError, NotBegun, RaceLost, WayClosed, WayRefused
from host_controller.fleet.hosts import Promise
from host_controller.fleet.pacemaker.cell import Engine, commit
from host_controller.fleet.pacemaker.cib import Cib, failed_moves
from host_controller.fleet.pacemaker.history import arrived
from host_controller.fleet.pacemaker.pins import pinned

RENEW_SECONDS: Final = 40.0
"""A promise lasts for two minutes."""
LOOK_SECONDS: Final = 1.0
MOVE_SECONDS: Final = 3600.0
BEGIN_SECONDS: Final = 30.0
"""By then the engine has seen a change of its configuration."""


class Asked(Protocol):
    """The hosts' controllers; `Hosts` is the real thing."""

    def promise(self, host: str, vm: str, size_bytes: int, token: str, huge: Huge | None) -> Promise:
        """Keep memory for a VM, or go on keeping it."""

    def renew(self, host: str, vm: str, size_bytes: int, token: str, huge: Huge | None) -> bool:
        """Go on keeping it. False: the host does not answer."""

    def take_back(self, host: str, vm: str, token: str) -> None:
        """The VM does not come: its memory need not be kept."""


@dataclass(slots=True)
class Promised:
    """Promises at destinations, renewed while VMs are on their way. All are taken back at the end."""

    hosts: Asked
    clock: Clock = REAL
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    _moves: dict[str, Move] = field(default_factory=dict)
    _renewed_at: float = 0.0

    def ask(self, move: Move) -> Promise:
        """Have a VM's memory promised where it is to go. A host may think for longer than a promise lasts, so
        the others' are renewed meanwhile.
        """
        way = move.destination, move.vm, move.reserve_bytes, self.token, move.huge
        asked = begun(lambda: self.hosts.promise(*way), f"promise of {move.destination}")
        while wait([asked], LOOK_SECONDS).not_done:
            self.renew()
        answer = asked.result()
        if answer.given:
            if not self._moves:  # else the older ones would wait for as long as others are asked
                self._renewed_at = self.clock.now()
            self._moves[move.vm] = move
        return answer

    def renew(self) -> None:
        """Now and then. A host that refuses by now has the VM already, or the engine will see it refuse."""
        if self.clock.now() - self._renewed_at < RENEW_SECONDS:
            return
        self._renewed_at = self.clock.now()
        silent: set[str] = set()
        for move in tuple(self._moves.values()):
            # One that hangs is not waited for again: the promises of others would end meanwhile.
            if move.destination not in silent and not self.hosts.renew(
                move.destination, move.vm, move.reserve_bytes, self.token, move.huge
            ):
                silent.add(move.destination)
                # Others go first the next time: it may hang for this VM alone, whose promise has ended.
                self._moves[move.vm] = self._moves.pop(move.vm)

    def ways(self) -> frozenset[Way]:
        """The moves whose destination has promised the memory."""
        return frozenset((one.vm, one.destination) for one in self._moves.values())

    def keep(self, moves: Collection[Move]) -> None:
        """Take back the promises of all other moves."""
        wanted = {(one.vm, one.destination) for one in moves}
        self.let_go([vm for vm, one in self._moves.items() if (vm, one.destination) not in wanted])

    def let_go(self, vms: Collection[str]) -> None:
        """Take back the promises of these VMs: they do not come."""
        for vm in self._moves.keys() & set(vms):
            self.hosts.take_back(self._moves.pop(vm).destination, vm, self.token)

    def give_back(self) -> None:
        """Take back all promises: a VM that has arrived has taken up its own."""
        self.keep(())


def carry_out(
    engine: Engine,
    hosts: Asked,
    move: Move,
    clock: Clock = REAL,
) -> str | None:
    """Move one VM; None when it is there, or why it is not.

    Raises:
        NotBegun, WayRefused: nothing was changed.
        FleetError: the engine cannot be asked. What is left is cleared by whoever comes next.
    """
    if not engine.idle():
        raise NotBegun("the engine is at work")
    judged = _judged(engine, move)
    promised = Promised(hosts, clock)
    answer = promised.ask(move)
    if not answer.given:
        raise WayRefused(f"{move.destination} does not promise the memory: {answer.said}")
    try:
        _begin(engine, move, judged)
        try:
            return _follow(engine, move, promised, clock)
        finally:
            clear_up(engine, move.vm, clock)
    finally:
        promised.give_back()


def _begin(engine: Engine, move: Move, judged: Cib) -> None:
    """Pin the VM, in the configuration that was judged, or in one that is judged anew.

    Raises:
        FleetError: nothing was changed.
    """
    cib = engine.query()
    if cib.version != judged.version:
        # A destination may squeeze its VMs for minutes, and somebody may have set a constraint meanwhile.
        if not engine.idle():
            raise NotBegun("the engine is at work")
        cib = _judged(engine, move)
    try:
        commit(engine, cib, pinned(cib, move.vm, move.destination))
    except (EngineBusy, RaceLost) as error:
        raise NotBegun(error.message) from None


def _judged(engine: Engine, move: Move) -> Cib:
    """A configuration in which the engine would migrate the VM and leave it there, and disturb no other. One
    that waits for memory may start where the VM leaves some: that host still has the last word about it.

    No host is squeezed for a VM that does not go there, or not for good: a constraint of somebody's may
    forbid it, or send the VM back once the pin is gone. However that is said, the scheduler understands it.

    Raises:
        WayClosed: it is none. Nothing was changed.
    """
    cib = engine.query()
    before = engine.simulate(cib.text).actions
    _would_go(engine, move, pinned(cib, move.vm, move.destination), before)
    after = harm(engine.simulate(arrived(cib, move.vm, move.source, move.destination)).actions, before)
    if after:
        raise WayClosed(f"it would not stay on {move.destination}: the engine would {in_words(after)}")
    return cib


def _would_go(engine: Engine, move: Move, new: bytes, before: Collection[Action]) -> None:
    does = harm(engine.simulate(new).actions, before)
    if not _only(does, move):
        raise WayClosed(f"the engine would not just migrate it: {in_words(does) or 'do nothing'}")


def _only(actions: Collection[Action], move: Move) -> bool:
    return [(one.kind, one.vm, one.source, one.destination) for one in actions] == [
        ("migrate", move.vm, move.source, move.destination)
    ]


def _follow(
    engine: Engine,
    move: Move,
    promised: Promised,
    clock: Clock,
) -> str | None:
    begun = clock.now()
    end = begun + MOVE_SECONDS
    while clock.now() < end:
        clock.sleep(LOOK_SECONDS)
        promised.renew()
        try:
            if not engine.idle():
                continue
            cib = engine.query()
            found = engine.simulate(cib.text)
        except FleetError:
            continue  # the node that decides may just be changing
        if move.vm in found.several or move.vm in failed_moves(cib):
            return f"its migration failed, and it stays on {move.source}: {move.destination} tells why"
        where = found.running.get(move.vm)
        if where == move.destination:
            return None
        if clock.now() - begun < BEGIN_SECONDS and any(one.vm == move.vm for one in found.actions):
            continue  # a busy engine has not looked at the change yet
        return f"it is {'on ' + where if where else 'stopped'} after the move: crm_mon -1 shows why"
    return f"it was not over after {MOVE_SECONDS / 60:.0f} minutes"
