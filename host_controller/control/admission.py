"""May this VM start? Its memory is taken from the others within the rules, and promised before it starts.

While a VM waits, the budget of the others is smaller by what it needs (MakeRoom), so they shrink as they
would for each other. Once that much is free it is reserved (Reserve), which outlives a restart of the
controller; the reservation ends when the VM runs, when libvirt says that it does not (Release), or when it
expires. What was promised to it before, to its asker in the fleet or to an earlier attempt, is its own: it
stays in the books until the start has it, so that nobody else is admitted by it meanwhile.
"""

import asyncio
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from host_controller.config.rule import RuleSection
from host_controller.control.controller import Controller
from host_controller.core.books.capacity import left_over_bytes
from host_controller.core.books.pools import made_bytes, page_size, room_bytes, to_make_bytes
from host_controller.core.operator_events import MakeRoom, Release, Reserve
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.values import parse_xml
from host_controller.rules.matching import is_managed
from host_controller.units import format_size

LIMIT_SECONDS: Final = 20.0
LOOK_SECONDS: Final = 0.05
TAKEN_SECONDS: Final = 1.0
START_SECONDS: Final = 120.0
"""QEMU has so long to come up, restoring included, until its reservation expires."""
NAMED_HOLDERS: Final = 5


@dataclass(frozen=True, slots=True)
class Start:
    """A VM that is about to start."""

    name: str
    managed: bool
    need_bytes: int
    """Of ordinary memory, beside what huge pages are yet to be made of."""
    huge_page_bytes: int | None = None
    """The size of the huge pages that its RAM lies in; 0: the host's default; None: in none."""
    huge_bytes: int = 0
    """What it needs of their pool."""


def read_start(xml: str, overhead_bytes: int, rules: tuple[RuleSection, ...] = ()) -> Start:
    """What a start needs, from the XML on the hook's input.

    All RAM that the guest can touch before its balloon driver speaks, and QEMU's own; and startup, where it
    boots with less and is given the rest from its virtio-mem. For a restore or an incoming migration the XML
    has what was plugged. rules: one of them may be for it, and whoever is managed is charged all of its RAM.

    Raises:
        DomainUnsuitable: not a domain's XML.
    """
    domain = read_domain(xml)
    devices = parse_xml(xml).findall("./devices/memory[@model='virtio-mem']/target")
    ram = domain.could_take_bytes if _has_run(devices) else domain.starts_with_bytes
    managed = is_managed(xml, domain, rules)
    if domain.huge_page_bytes is not None:
        return Start(domain.name, managed, overhead_bytes, domain.huge_page_bytes, ram)
    if not managed:
        ram = domain.ordinary_bytes
    return Start(domain.name, managed, ram + overhead_bytes)


def _has_run(devices: list[Element]) -> bool:
    """It is restored or comes from another host: libvirt then tells what its devices have plugged."""
    return any(one.find("current") is not None for one in devices)


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
        self._waiting: dict[str, object] = {}
        """The latest request for each VM: whoever asked for the same VM before is not waited for any more."""

    def waits(self, name: str) -> bool:
        """A start of it, or a promise, is asked for and not in the books yet."""
        return name in self._waiting

    async def admit(self, start: Start, by: dict[str, object] | None = None, token: str = "") -> Answer:
        """Wait until the start is paid for, for the limit at most. `by`: who asked, for the events.

        `token`: of a promise; a start has none.
        """
        controller = self._controller
        begun = controller.now()
        if controller.dry_run:
            return Answer(start.name, start.need_bytes, 0, 0.0, "dry run: everything may start")
        name = start.name
        mine = self._waiting[name] = object()
        promised: Reserve | None = None
        try:
            asked = None
            while not self._fits(start):
                # What can never fit is refused before anybody is asked to give.
                if controller.now() - begun >= self.limit_seconds or self._hopeless(start):
                    return self._refuse(start, begun, by)
                if controller.settled() and self._to_free(start) != asked:
                    if asked is None:
                        controller.journal.said("admission", self._waits(start), begun, name=name, detail=by)
                    # Huge pages that were free for it may have gone to somebody else.
                    asked = self._to_free(start)
                    controller.put(MakeRoom(name, asked))
                await asyncio.sleep(LOOK_SECONDS)
                if self._waiting.get(name) is not mine:
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
            if self._waiting.get(name) is not mine:
                return self._outdated(start, begun)
            return Answer(name, need, 0, now - begun, text)
        finally:
            if self._waiting.get(name) is mine:
                del self._waiting[name]
                if promised is None:  # refused, or whoever asked has gone
                    controller.put(Release(name))

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

    def _fits(self, start: Start) -> bool:
        # By the books, also while libvirt cannot be reached: it takes no connections until it has started
        # what starts with the host. But not before they have all who run.
        if self._controller.engine.state.why_nobody():
            return False
        enough = self._room(start) >= self._need(start) and self._pool_room(start) >= start.huge_bytes
        return self._controller.settled() and enough

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

    def _pool_room(self, start: Start) -> int:
        """What is free of its huge pages. Without a word of the host's kernel QEMU finds out by itself."""
        state = self._controller.engine.state
        if start.huge_page_bytes is None or state.host is None:
            return start.huge_bytes
        return room_bytes(start.huge_page_bytes, state.host.facts, self._others(start))

    def _waits(self, start: Start) -> str:
        need = self._need(start)
        if why := self._controller.engine.state.why_nobody():
            return f"{start.name} waits to start: {why}"
        missing = format_size(max(0, need - self._room(start)))
        return f"{start.name} waits to start: {missing} of {format_size(need)} are missing"

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
