"""May this VM start? Its memory is taken from the others within the rules, and promised before it starts.

While a VM waits, the budget of the others is smaller by what it needs (MakeRoom), so they shrink as they
would for each other. Once that much is free it is reserved (Reserve), which outlives a restart of the
controller; the reservation ends when the VM runs, when libvirt says that it does not (Release), or when it
expires. What was promised to it before, to its asker in the fleet or to an earlier attempt, is its own: it
stays in the books until the start has it, so that nobody else is admitted by it meanwhile.

Whoever was asked for first comes first, as long as room for it can be made: small starts, each of which fits
at once, would take what the others give up for a large one, until its time is over. Nobody who fits is
refused for that.
"""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from host_controller.config.rule import RuleSection
from host_controller.control.controller import Controller
from host_controller.control.giving import all_give_bytes
from host_controller.control.start_queue import Asked, Queue, Start
from host_controller.core.books.capacity import left_over_bytes
from host_controller.core.books.pools import made_bytes, page_size, room_bytes, to_make_bytes
from host_controller.core.operator_events import MakeRoom, Release, Reserve
from host_controller.units import format_size

LIMIT_SECONDS: Final = 20.0
LOOK_SECONDS: Final = 0.05
TAKEN_SECONDS: Final = 1.0
START_SECONDS: Final = 120.0
"""QEMU has so long to come up, restoring included, until its reservation expires."""
GIVEN_SECONDS: Final = 1.0
"""It takes a while to ask a thousand VMs what they can give."""
NAMED_HOLDERS: Final = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a VM may start."""

    name: str
    need_bytes: int
    shortfall_bytes: int
    """What was still missing when the time was over; 0 when it may start."""
    waited_seconds: float
    message: str

    @property
    def admitted(self) -> bool:
        """Whether it may start."""
        return self.shortfall_bytes == 0


class Admission:
    """Admits starts on one controller's host."""

    def __init__(self, controller: Controller, limit_seconds: float = LIMIT_SECONDS) -> None:
        self.limit_seconds = limit_seconds
        self.rules: tuple[RuleSection, ...] = ()
        """Those of the configuration."""
        self._controller = controller
        self._queue = Queue()
        self._given: tuple[float, int] = (-math.inf, 0)
        """When it was worked out last what all VMs can give, and that."""

    def waits(self, name: str) -> bool:
        """A start of it, or a promise, is asked for and not in the books yet."""
        return name in self._queue

    def first_bytes(self) -> int:
        """What those who wait are to have before another start, of ordinary memory."""
        return _sum(self._first(None))

    async def admit(self, start: Start, by: dict[str, object] | None = None, token: str = "") -> Answer:
        """Wait until the start is paid for, for the limit at most. `by`: who asked, for the events.

        `token`: of a promise; a start has none.
        """
        controller = self._controller
        begun = controller.now()
        if controller.dry_run:
            return Answer(start.name, start.need_bytes, 0, 0.0, "dry run: everything may start")
        name = start.name
        mine = self._queue.enter(start)
        promised: Reserve | None = None
        try:
            asked = None
            while not self._fits(start, first := self._first(mine)):
                over = controller.now() - begun >= self.limit_seconds
                if over and self._fits(start):
                    break
                # What can never fit is refused before anybody is asked to give.
                if over or self._hopeless(start):
                    return self._refuse(start, begun, by)
                if controller.settled() and self._to_free(start) != asked:
                    if asked is None:
                        text = self._waits(start, first)
                        controller.journal.said("admission", text, begun, name=name, detail=by)
                    # Huge pages that were free for it may have gone to somebody else.
                    asked = self._to_free(start)
                    controller.put(MakeRoom(name, asked))
                await asyncio.sleep(LOOK_SECONDS)
                if not self._queue.has(mine):
                    return self._outdated(start, begun)
            now, need = controller.now(), self._need(start)
            promised = self._reservation(start, need, now + START_SECONDS, token)
            controller.put(promised)
            text = f"{name} may start: {format_size(need)} are reserved"
            controller.journal.said("admission", text, now, name=name, detail=by)
            # It is in the books before the hook goes on, and with it in the state directory.
            end = now + TAKEN_SECONDS
            # The engine is pure and rings no bell.
            while not self._in_books(promised) and controller.now() < end:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_SECONDS)
            if not self._queue.has(mine):
                return self._outdated(start, begun)
            return Answer(name, need, 0, now - begun, text)
        finally:
            if self._queue.has(mine) and promised is None:  # refused, or whoever asked has gone
                controller.put(Release(name))
            self._queue.leave(mine)

    def started(self, name: str) -> None:
        """Libvirt says that it runs. What is reserved stays so until the VM is seen: that takes minutes while
        libvirt is away, or starts what starts with the host.
        """
        reservation = self._controller.engine.ledger.reservations.get(name)
        if reservation is not None:
            now = self._controller.now()
            # What was made for it is in its pool by now, whose pages it has.
            size = reservation.size_bytes - reservation.made_bytes
            self._controller.put(Reserve(name, size, now + START_SECONDS, started_at=now))

    def stopped(self, name: str) -> None:
        """It does not run, whether it did or not."""
        self._controller.put(Release(name))

    def _room(self, start: Start) -> int:
        """What is free and promised to nobody else; negative in an overdraft."""
        engine = self._controller.engine
        return engine.headroom_bytes + engine.ledger.reserved_for(start.name)

    def _others(self, start: Start) -> dict[str, Reserve]:
        """What is promised to others."""
        reservations = self._controller.engine.ledger.reservations
        return {name: one for name, one in reservations.items() if name != start.name}

    def _to_free(self, start: Start) -> int:
        """What has to be free beside what is promised to it."""
        return max(0, self._need(start) - self._controller.engine.ledger.reserved_for(start.name))

    def _in_books(self, promised: Reserve) -> bool:
        found = self._controller.engine.ledger.reservations.get(promised.name)
        return found is not None and found.expires == promised.expires

    def _first(self, mine: Asked | None) -> dict[str, Reserve]:
        """What those are to have that were asked for earlier and wait, as if it were promised to them.

        One for which not enough can be freed, as things are, is waited for by nobody.
        """
        found: dict[str, Reserve] = {}
        for other in self._queue.before(mine):
            size = self._to_free(other)
            if size and size <= self._controller.engine.headroom_bytes + self._can_be_given() - _sum(found):
                found[other.name] = Reserve(other.name, size, 0.0, other.huge_page_bytes, other.huge_bytes)
        return found

    def _can_be_given(self) -> int:
        """By all VMs within the time that a start waits."""
        now, (at, size) = self._controller.now(), self._given
        if now - at >= GIVEN_SECONDS:
            size = all_give_bytes(self._controller.engine, self.limit_seconds, now)
            self._given = now, size
        return size

    def _fits(self, start: Start, first: Mapping[str, Reserve] = MappingProxyType({})) -> bool:
        # By the books, also while libvirt cannot be reached: it takes no connections until it has started
        # what starts with the host. But not before they have all who run.
        if self._controller.engine.state.why_nobody():
            return False
        enough = self._room(start) - _sum(first) >= self._need(start)
        return self._controller.settled() and enough and self._pool_room(start, first) >= start.huge_bytes

    def _hopeless(self, start: Start) -> bool:
        if not self._controller.settled():  # what an earlier attempt has left may still count
            return False
        # Nobody can be made to give huge pages back.
        missing = start.huge_bytes > self._pool_room(start)
        return missing or self._need(start) > self._controller.engine.ledger.capacity()

    def _reservation(self, start: Start, need_bytes: int, expires: float, token: str) -> Reserve:
        made, page = need_bytes - start.need_bytes, start.huge_page_bytes
        if not made:
            return Reserve(start.name, need_bytes, expires, page, start.huge_bytes, token=token)
        state = self._controller.engine.state
        page = page_size(page, None if state.host is None else state.host.facts)
        others = [one for one in self._others(start).values() if one.huge_page_bytes == page]
        # What comes first is made of what nobody was to have, and for those who were promised it first.
        pool = state.ledger.pools.get(page or 0, 0) + sum(one.made_bytes for one in others)
        pool += 0 if state.host is None else left_over_bytes(state.ledger.host, state.host.facts)
        return Reserve(start.name, need_bytes, expires, page, start.huge_bytes, made, pool, token)

    def _need(self, start: Start) -> int:
        """Of ordinary memory. Where its pool grows on demand (nr_overcommit_hugepages), pages that are not
        there yet are made of that, at the moment at which it starts; first of what nobody was to have.
        """
        state = self._controller.engine.state
        if start.huge_page_bytes is None or state.host is None:
            return start.need_bytes
        facts, promised = state.host.facts, self._others(start)
        made = made_bytes(start.huge_page_bytes, start.huge_bytes, facts, promised)
        uncharged = to_make_bytes(facts, promised) - sum(one.made_bytes for one in promised.values())
        left_over = left_over_bytes(state.ledger.host, facts) - max(0, uncharged)
        return start.need_bytes + max(0, made - max(0, left_over))

    def _pool_room(self, start: Start, first: Mapping[str, Reserve] = MappingProxyType({})) -> int:
        """What is free of its huge pages. Without a word of the host's kernel QEMU finds out by itself."""
        state = self._controller.engine.state
        if start.huge_page_bytes is None or state.host is None:
            return start.huge_bytes
        return room_bytes(start.huge_page_bytes, state.host.facts, {**self._others(start), **first})

    def _waits(self, start: Start, first: Mapping[str, Reserve]) -> str:
        need = self._need(start)
        if why := self._controller.engine.state.why_nobody():
            return f"{start.name} waits to start: {why}"
        missing = max(0, need - self._room(start))
        if first and not missing:
            return f"{start.name} waits to start: memory is made free for {next(iter(first))} first"
        return f"{start.name} waits to start: {format_size(missing)} of {format_size(need)} are missing"

    def _missing(self, start: Start) -> int:
        return max(1, self._need(start) - max(0, self._room(start)))

    def _outdated(self, start: Start, begun: float) -> Answer:
        """The later request answers for the VM, and what is reserved or wanted for it is that one's."""
        waited = self._controller.now() - begun
        text = f"the start of {start.name} was asked for again meanwhile"
        return Answer(start.name, self._need(start), self._missing(start), waited, text)

    def _refuse(self, start: Start, begun: float, by: dict[str, object] | None) -> Answer:
        controller = self._controller
        now = controller.now()
        short = start.huge_bytes - self._pool_room(start)
        if short > 0:
            text = self._short_of_pages(start, short)
            controller.journal.said("admission", text, now, name=start.name, detail=by)
            return Answer(start.name, start.huge_bytes, short, now - begun, text)
        need = self._need(start)
        missing = self._missing(start)
        text = (
            f"{start.name} cannot start: it needs {format_size(need)} and "
            f"{format_size(missing)} of that are missing; {self._holders()}"
        )
        if (why := controller.engine.state.why_nobody()) and not self._hopeless(start):
            text = f"{start.name} cannot start: {why}, so nobody can say what is free"
        controller.journal.said("admission", text, now, name=start.name, detail=by)
        return Answer(start.name, need, missing, now - begun, text)

    def _short_of_pages(self, start: Start, short: int) -> str:
        host = self._controller.engine.state.host
        size = page_size(start.huge_page_bytes, None if host is None else host.facts)
        pages = f"huge pages of {format_size(size)}" if size else "huge pages of the default size"
        return (
            f"{start.name} cannot start: it needs {format_size(start.huge_bytes)} in {pages}, and "
            f"{format_size(short)} of that are missing; reserve more (vm.nr_hugepages, or hugepages=), "
            "or stop a VM that has some"
        )

    def _holders(self) -> str:
        engine = self._controller.engine
        capacity = engine.ledger.capacity()
        held = sorted(engine.charges.items(), key=lambda one: -one[1])
        names = [f"{engine.vms[uuid].name} {format_size(size)}" for uuid, size in held[:NAMED_HOLDERS]]
        promised = engine.ledger.reservations.values()
        names += [f"{one.name} (starting) {format_size(one.size_bytes)}" for one in promised]
        if len(held) > NAMED_HOLDERS:
            names.append(f"{len(held) - NAMED_HOLDERS} more VMs")
        held_by = f"these are held: {', '.join(names)}" if names else "nothing is held"
        return f"of {format_size(capacity)} {held_by}"


def _sum(promised: Mapping[str, Reserve]) -> int:
    return sum(one.size_bytes for one in promised.values())
