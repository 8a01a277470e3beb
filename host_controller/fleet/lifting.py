"""Hosts that have refused a start: their bans, as the arbiter follows and lifts them, one in a turn."""

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from host_controller.fleet import metrics
from host_controller.fleet.core.bans import Lift, Pair, Tried, bans_to_lift, follow_bans, hopeless, lifted
from host_controller.fleet.core.drain import in_words
from host_controller.fleet.core.model import Cell
from host_controller.fleet.errors import EngineBusy, FleetError, RaceLost
from host_controller.fleet.metrics import Tally
from host_controller.fleet.pacemaker.cell import Engine
from host_controller.fleet.pacemaker.lifting import lift

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Lifting:
    """The bans of one cell, from turn to turn."""

    engine: Engine
    clock: Callable[[], float]
    tally: Tally
    known: dict[Pair, Tried] = field(default_factory=dict)
    hopeless: frozenset[Pair] = frozenset()
    """Those that stay, as no memory lifts them."""
    due: bool = False
    """One of them could be lifted when all was looked at last."""

    def follow(self, cell: Cell) -> tuple[Lift, ...]:
        """All was looked at; what can be lifted by now."""
        now = self.clock()
        self.known = follow_bans(self.known, cell, now)
        found = hopeless(cell, self.known)
        for vm, host in sorted(found - self.hopeless):
            log.error("starts fail again and again where there is room: memory is not why", vm=vm, host=host)
        self.hopeless = found
        lifts = bans_to_lift(cell, self.known, now)
        self.due = bool(lifts)
        return lifts

    def lift_one(self, cell: Cell) -> None:
        """Try a host again that has room by now. What that takes, no other is promised in this turn."""
        lifts = self.follow(cell)
        self.due = len(lifts) > 1
        if lifts:
            self._lift(lifts[0])

    def _lift(self, one: Lift) -> None:
        """Whatever comes of it, the others are next."""
        why = ""
        try:
            if disturbed := lift(self.engine, one):
                why = f"the engine would {in_words(disturbed)}"
        except (EngineBusy, RaceLost):
            return
        except FleetError as error:
            why = str(error)
        self.known = lifted(self.known, one, self.clock(), done=not why)
        if why:
            log.warning("a ban stays", vm=one.vm, host=one.node, why=why)
        else:
            self.tally.add(metrics.LIFTED)
            log.info("a ban is lifted", vm=one.vm, host=one.node, why=one.reason)
