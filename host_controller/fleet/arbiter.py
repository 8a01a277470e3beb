"""The one that publishes and relieves, run once in a cell by the engine (`ocf:dynmem:fleet`).

It holds nothing that matters: what is booked and when VMs were moved is in the engine's configuration, and
how long VMs were low or what they used to need is kept in a file for the next start on the same host. Dead
or lying, it can harm no host: it publishes figures and asks for memory and moves, each of which hosts and
engine judge for themselves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog

from host_controller.errors import DynmemError
from host_controller.fleet import metrics
from host_controller.fleet.bookings import keep_bookings, read_bookings
from host_controller.fleet.clearing import Clearing
from host_controller.fleet.clock import REAL, Clock
from host_controller.fleet.core.booking import Booking, go_on
from host_controller.fleet.core.model import Cell, HostFigures
from host_controller.fleet.core.relief import (
    REST_SECONDS,
    Move,
    Relief,
    Strain,
    Way,
    relieve,
    relieved,
    watch,
)
from host_controller.fleet.errors import FleetError, NotBegun, WayClosed, WayRefused
from host_controller.fleet.expiry import ending
from host_controller.fleet.hosts import Hosts
from host_controller.fleet.lifting import Lifting
from host_controller.fleet.metrics import Tally
from host_controller.fleet.moving import carry_out
from host_controller.fleet.news import News
from host_controller.fleet.pacemaker.cell import Engine, Known, Turn, publish
from host_controller.fleet.pacemaker.cib import Cib, failed_moves
from host_controller.fleet.pacemaker.pins import moved_at, pins
from host_controller.fleet.startup import startup_mib
from host_controller.fleet.status import status_of
from host_controller.fleet.view import look
from host_controller.records import fleet_figures

TURN_SECONDS: Final = 10.0
PUBLISH_SECONDS: Final = 30.0
REFUSED_SECONDS: Final = 300.0
"""A destination that refused a VM is not asked again for so long: it squeezes its VMs at each asking."""
CLOSED_SECONDS: Final = 1800.0
"""The same of a way that the engine refuses: constraints do not change by themselves."""
MOST_TRIES: Final = 8
"""Ways in a turn, each of which the engine's scheduler is asked about. The next turn goes on with others."""
WARN_SECONDS: Final = 86_400.0
STATE: Final = Path("/var/lib/dynmem/fleet/bookings.json")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Arbiter:
    """One arbiter at work."""

    engine: Engine
    hosts: Hosts
    state: Path = STATE
    clock: Clock = REAL
    """Bookings are by its wall clock, which outlives this process."""
    bookings: Mapping[str, Booking] = field(default_factory=dict)
    strains: dict[str, Strain] = field(default_factory=dict)
    refused: dict[Way, float] = field(default_factory=dict)
    """Until when a way is not tried again."""
    published_at: float = float("-inf")
    tally: Tally = field(default_factory=Tally)
    notes: tuple[str, ...] = ()
    """What was not believed when all was looked at last."""
    cell: Cell | None = None
    """What was found when all was looked at last."""
    known: Known | None = None
    """What the scheduler made of it."""
    left: Mapping[str, int | None] = field(default_factory=dict)
    """The sizes that were published when all was looked at for publishing last."""
    looked_at: float = float("-inf")
    silent: dict[str, str] = field(default_factory=dict)
    """Hosts that are not believed, and why."""
    warned_at: float = float("-inf")
    """When it said last that certificates expire soon."""
    lifting: Lifting = field(init=False)
    clearing: Clearing = field(init=False)
    news: News = field(default_factory=News)
    alerted: frozenset[str] = frozenset()
    """Hosts that are short, that no move helps, and of which that was said."""
    quorate: bool = True
    """Whether there was quorum in the last turn."""

    def __post_init__(self) -> None:
        self.lifting = Lifting(self.engine, self.clock.now, self.tally)
        self.clearing = Clearing(self.engine, self.clock)

    def start(self) -> None:
        """Go on from what was left behind.

        Raises:
            FleetError: the engine cannot be asked.
        """
        cib = self.engine.query()
        self.bookings = go_on(read_bookings(self.state), {one.name: one.size_mib for one in cib.vms})
        self.clearing.clear(cib)

    def turn(self) -> bool:
        """Look at all hosts; publish if it is time; relieve who was short long enough. Raises nothing.

        False: it failed, or nothing may be decided here, or figures were due and the engine was at work: they
        wait for the next turn.
        """
        done = True
        try:
            cib = self.engine.query()
            if not self._may_decide(cib):
                return False
            self.clearing.clear(cib)
            figures, silent = self.hosts.figures(cib.nodes)
            self._tell_silent(silent)
            self._warn(figures)
            self.strains = watch(self.strains, figures, self.clock.now())
            if self.clock.now() - self.published_at >= PUBLISH_SECONDS:
                done = self._publish(figures)
            # Before what takes long: figures of now are not told as those of an hour later.
            if self.cell is None or self.clock.now() - self.looked_at >= PUBLISH_SECONDS:
                self._look_again()
            else:
                self._keep_figures(self.cell, figures, silent)
            if any(strain.due(self.clock.now()) for strain in self.strains.values()):
                self._relieve()
            if self.lifting.due and self.engine.idle():
                self.lifting.lift_one(look(self.engine, self.hosts).cell)
        except DynmemError as error:
            self.tally.add(metrics.TURNS, "failed")
            if self.news.is_new("turn", str(error)):
                log.warning("turns are left out", problem=str(error))
            return False
        if self.news.over("turn"):
            log.info("turns go on")
        return done

    def _may_decide(self, cib: Cib) -> bool:
        """Whether there is quorum. What there is is told without it, too: it is no failure of ours."""
        if cib.quorate:
            if not self.quorate:
                log.info("there is quorum again")
            self.quorate = True
            return True
        if self.quorate:
            log.warning("without quorum nothing is published, and nothing moved")
        self.quorate = False
        self.tally.add(metrics.TURNS, "no_quorum")
        if self.clock.now() - self.looked_at >= PUBLISH_SECONDS:
            self._look_again()
        return False

    def _tell_silent(self, silent: Mapping[str, str]) -> None:
        """Who begins to be silent, or for another reason, and who speaks again: not at each turn."""
        for host, why in silent.items():
            self.tally.add(metrics.SILENT, host)
            if self.silent.get(host) != why:
                log.warning("a host is silent: it offers nothing", host=host, why=why)
        for host in self.silent.keys() - silent.keys():
            log.info("a host is believed again", host=host)
        self.silent = dict(silent)

    def _warn(self, figures: Mapping[str, HostFigures]) -> None:
        """Of certificates that expire soon, once a day."""
        if self.clock.now() - self.warned_at < WARN_SECONDS:
            return
        for text in ending(figures, self.clock.wall()):
            self.warned_at = self.clock.now()
            log.warning("a certificate expires soon", what=text)

    def _keep_figures(
        self, cell: Cell, figures: Mapping[str, HostFigures], silent: Mapping[str, str]
    ) -> None:
        """For Prometheus and the page, with what the engine had when it was looked at last."""
        known = {node.name for node in cell.nodes}
        now = replace(cell, figures={name: one for name, one in figures.items() if name in known})
        status = status_of(now, silent, self.notes, self.clock.wall())
        told = {
            fleet_figures.METRICS: metrics.render(now, silent, len(self.notes), self.tally),
            fleet_figures.STATUS: msgspec.json.encode(status),
        }
        for file, text in told.items():
            self._keep(partial(fleet_figures.keep, text), self.state.with_name(file.name))

    def _keep(self, write: Callable[[Path], None], file: Path) -> None:
        """What cannot be kept is learnt again, or told by the next turn."""
        try:
            write(file)
        except OSError as error:
            if self.news.is_new(str(file), str(error.strerror)):
                log.warning("a file of the fleet cannot be kept", file=str(file), problem=error.strerror)
        else:
            if self.news.over(str(file)):
                log.info("a file of the fleet is kept again", file=str(file))

    def _look_again(self) -> None:
        """At an engine that is at work for long: nothing is published, but what there is is told."""
        self.looked_at = self.clock.now()
        view = look(self.engine, self.hosts)
        self.cell = view.cell
        self._keep_figures(view.cell, view.cell.figures, view.silent)

    def _wait(self, seconds: float) -> None:
        """For a move, which may take an hour: what there is is told meanwhile."""
        self.clock.sleep(seconds)
        if self.clock.now() - self.looked_at >= PUBLISH_SECONDS:
            try:
                self._look_again()
            except DynmemError as error:  # the node that decides may just be changing
                log.info("not looked at during a move", problem=str(error))

    def _publish(self, figures: Mapping[str, HostFigures]) -> bool:
        """Publish. False: the engine is at work, and figures wait for the next turn."""
        done = publish(
            self.engine, figures, self.bookings, startup_mib, self.clock.wall(), self.known, self.left
        )
        self.bookings, self.known = done.bookings, done.known
        if done.cell is None:
            self.tally.add(metrics.TURNS, "engine_busy")
            return False
        self.left = done.left
        if done.others and self.news.is_new("others", ""):
            log.warning("somebody else publishes, too: is there another arbiter?", vms=", ".join(done.others))
        for note in done.notes:
            if note not in self.notes:
                log.warning("not believed", what=note)
        self.cell, self.notes = done.cell, done.notes
        self.tally.add(
            metrics.TURNS, "held_back" if done.harm else "published" if done.published else "unchanged"
        )
        self.published_at = self.looked_at = self.clock.now()
        self.lifting.follow(done.cell)
        self._keep(partial(keep_bookings, done.bookings), self.state)
        self._tell(done)
        return True

    def _relieve(self) -> None:
        """By fresh figures: moves are few, and none is made by what was true a while ago.

        A way that is refused is left out, and the rest is thought over: there are not many.
        """
        for _ in range(MOST_TRIES):
            now = self.clock.now()
            self.refused = {way: until for way, until in self.refused.items() if now < until}
            view = look(self.engine, self.hosts)
            relief = relieve(view.cell, self.strains, self._rest(view.cib), now, refused=self.refused)
            self._alert(relief)
            # A move takes long: the next is decided by what is true then.
            if not relief.moves or self._move(relief.moves[0]):
                return

    def _rest(self, cib: Cib) -> dict[str, float]:
        """When VMs were moved last, by our clock. An arbiter before us may have had a wrong one.

        The engine leaves a VM alone whose move has failed: no host is squeezed for it.
        """
        now, wall = self.clock.now(), self.clock.wall()
        told = {vm: now - max(0.0, wall - at) for vm, at in moved_at(cib).items() if at - wall < REST_SECONDS}
        return told | dict.fromkeys((*pins(cib), *failed_moves(cib)), now)

    def _alert(self, relief: Relief) -> None:
        for alert in relief.alerts:
            if alert.host not in self.alerted:
                log.error("a host is short, and no move helps", host=alert.host, why=alert.reason)
        self.alerted = frozenset(alert.host for alert in relief.alerts)

    def _move(self, move: Move) -> bool:
        """Whether that is all for this turn; not so, when this way was refused and another may be open."""
        log.info("relief", vm=move.vm, source=move.source, destination=move.destination, why=move.reason)
        try:
            problem = carry_out(self.engine, self.hosts, move, replace(self.clock, sleep=self._wait))
        except NotBegun as error:
            self.tally.add(metrics.MOVES, "not_begun")
            log.warning("not begun", vm=move.vm, destination=move.destination, why=str(error))
            if not isinstance(error, WayRefused):
                return True
            rest = CLOSED_SECONDS if isinstance(error, WayClosed) else REFUSED_SECONDS
            self.refused[move.vm, move.destination] = self.clock.now() + rest
            return False
        except FleetError as error:
            problem = str(error)
        self.tally.add(metrics.MOVES, "done" if problem is None else "not_done")
        if problem is None:
            self.strains = relieved(self.strains, move.source)
            log.info("relieved", vm=move.vm, host=move.source)
        else:
            log.warning("not moved", vm=move.vm, why=problem)
        return True

    def _tell(self, done: Turn) -> None:
        if done.harm:
            if self.news.is_new("harm", done.said):
                log.error(done.said)
            return
        self.news.over("harm")
        if done.published is not None:
            log.info("published", vms=len(done.published.vms), hosts=len(done.published.hosts))
