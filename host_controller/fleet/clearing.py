"""What a move leaves behind in the engine, cleared by whoever comes first: the mover, an arbiter, `undrain`.

A VM that was moved is pinned, and the engine leaves one whose migration failed alone for good. The pin goes
first: while it is there, the engine would begin the migration anew as soon as its failure is forgotten. The
configuration says after each step what the next one is (`pacemaker.pins`).
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

import structlog

from host_controller.fleet.clock import REAL, Clock
from host_controller.fleet.core.relief import REST_SECONDS
from host_controller.fleet.errors import EngineBusy, EngineError, FleetError, RaceLost
from host_controller.fleet.pacemaker.cell import Engine, commit
from host_controller.fleet.pacemaker.cib import Cib, failed_moves
from host_controller.fleet.pacemaker.history import forget_move, look_there
from host_controller.fleet.pacemaker.pins import marks, pins, unmarked, unpinned

LOOK_SECONDS: Final = 1.0
TRIES: Final = 10
REST_LOOKS: Final = 30
"""For the engine to end what it does."""
CLEAR_SECONDS: Final = 300.0
"""Between two tries of an arbiter's to have a VM's failed move forgotten."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Clearing:
    """An arbiter's, in each of its turns: after moves that nobody follows any more, once the engine rests."""

    engine: Engine
    clock: Clock
    tried: dict[str, float] = field(default_factory=dict)
    """When it was tried to have a VM's failed move forgotten."""
    unclean: dict[str, str] = field(default_factory=dict)
    """Why that did not help, as it was told; of the pins: under no name."""

    def clear(self, cib: Cib) -> None:
        """All that can be cleared now.

        A VM whose failed move the engine cannot be made to forget runs on. That is told, and tried again by
        and by: one such in a turn, as each takes up to a minute, in which nothing is published.
        """
        now = self.clock.now()
        self.tried = {vm: at for vm, at in self.tried.items() if now - at < CLEAR_SECONDS}
        found = {*pins(cib), *(marks(cib).keys() - self.tried.keys())}
        if not found or not cib.quorate or not self.engine.idle():
            return
        vm = ""
        try:
            clear_pins(self.engine, self.clock)
            cib = self.engine.query()
            if pins(cib):
                return
            for vm in sorted(marks(cib).keys() - self.tried.keys()):
                self.tried[vm] = self.clock.now()
                forget_moves(self.engine, [vm], self.clock)
                self.unclean.pop(vm, None)
        except FleetError as error:
            if str(error) != self.unclean.get(vm):
                log.error("what was left of moves is not cleared", why=str(error))
            self.unclean[vm] = str(error)
            return
        self.unclean.pop("", None)
        log.warning("what was left of moves is cleared", vms=", ".join(sorted(found)))


def clear_up(engine: Engine, vm: str | None = None, clock: Clock = REAL) -> tuple[str, ...]:
    """Clear pins of ours, and let the engine look after VMs whose move failed: they run on where they were.

    A VM that is still on its way keeps its pin, and all is left for the next time. `vm`: no failed move but
    that of this one is looked after. Returns the names of those that were pinned or marked.

    Raises:
        FleetError: of those that are still marked. The others are cleared.
    """
    before = engine.query()
    clear_pins(engine, clock)
    cib = engine.query()
    if pins(cib):
        return ()
    forget_moves(engine, [one for one in marks(cib) if vm in (None, one)], clock)
    return tuple(sorted({*pins(before), *marks(before)}))


def clear_pins(engine: Engine, clock: Clock = REAL) -> None:
    """Take away pins of ours, also of an arbiter that died. While the engine is at work they stay.

    Their VMs rest from then on, moved or not; the configuration says so to every arbiter.

    Raises:
        FleetError
    """
    for left in reversed(range(TRIES)):
        try:
            unpin(engine, clock)
        except EngineBusy:
            return
        except RaceLost:
            if not left:
                raise
            clock.sleep(LOOK_SECONDS)
        else:
            return


def unpin(engine: Engine, clock: Clock) -> None:
    """The same once: for whoever waits and tries again by himself.

    Raises:
        EngineBusy, RaceLost, EngineError: they stay.
    """
    cib = engine.query()
    if found := pins(cib):
        commit(engine, cib, unpinned(cib, found, clock.wall(), REST_SECONDS))


def forget_moves(engine: Engine, vms: Collection[str], clock: Clock = REAL) -> None:
    """Let the engine look after those of these VMs whose migration failed, once it rests; their marks go.

    Raises:
        FleetError: the first of what went wrong. One VM does not keep the others from it.
    """
    forgotten, problems = set(), []
    for vm in sorted(vms):
        try:
            _forget(engine, vm, clock)
            forgotten.add(vm)
        except EngineBusy:
            raise  # for all of them
        except FleetError as error:
            problems.append(error)
    _unmark(engine, forgotten, clock)
    if problems:
        raise problems[0]


def _forget(engine: Engine, vm: str, clock: Clock) -> None:
    looked = False
    for left in reversed(range(REST_LOOKS)):
        cib = engine.query()
        node = failed_moves(cib).get(vm)
        if node is None:
            return
        try:
            if not looked:
                look_there(engine, cib, vm, node)
                looked = True
                continue
            if forget_move(engine, cib, vm, node):
                return
        except (EngineBusy, RaceLost):
            if not left:
                raise
        clock.sleep(LOOK_SECONDS)
    raise EngineError(
        f"the failed migration of {vm} is not cleaned up: another host goes on remembering it",
        hint="crm_mon -1 shows it; it runs on, and the engine leaves it alone",
    )


def _unmark(engine: Engine, forgotten: Collection[str], clock: Clock) -> None:
    """Once the engine says so, too. What takes longer is left for the next time: a mark does no harm."""
    for _ in range(REST_LOOKS):
        cib = engine.query()
        marked = marks(cib).keys() & forgotten
        if not marked:
            return
        try:
            if done := marked - failed_moves(cib).keys():
                commit(engine, cib, unmarked(cib, done))
                continue
        except (EngineBusy, RaceLost):
            pass
        clock.sleep(LOOK_SECONDS)
