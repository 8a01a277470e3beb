"""A VM that is taken on or let go while it runs: its RAM is counted in one place at any time."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from host_controller.core.engine import Engine
from host_controller.core.interface import HostSampled, HypervisorEvent, VmAppeared, VmGone
from host_controller.core.model import Limits, RunState, Settings
from host_controller.hypervisor import host_sampler
from host_controller.hypervisor.adapter import LibvirtHypervisor
from host_controller.units import GIB
from tests.support import build
from tests.support.fake_host import UUID, FakeHost

CAPACITY = 10 * GIB


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    found = FakeHost(tmp_path)
    monkeypatch.setattr(host_sampler, "HostWatch", lambda uri, meminfo: found.watch())
    return found


class Story(LibvirtHypervisor):
    """A libvirt that runs one VM of 8 GiB, and the engine that is told of it."""

    def __init__(self, *, managed: bool) -> None:
        super().__init__("qemu:///system")
        self.engine = Engine(Settings(CAPACITY, overhead_floor_bytes=0))
        self.told: list[HypervisorEvent] = []
        self._inbox = self._hear
        self.view: Any = SimpleNamespace(config=None, ordinary_bytes=8 * GIB, unmapped=False)
        known = SimpleNamespace(name="web", view=self.view, resident=None)
        worker: Any = SimpleNamespace(uuid=UUID, known=known, settled=True, untold=None)
        self._workers[UUID] = worker
        if managed:
            self.is_taken_on()

    def _hear(self, event: HypervisorEvent) -> None:
        self.told.append(event)
        self.engine.handle(event, 1.0)

    def is_taken_on(self) -> None:
        limits = Limits(GIB, GIB, 8 * GIB, buffer_percent=20, weight=100)
        self.view.config = build.config(uuid=UUID, limits=limits, boot_ram_bytes=8 * GIB)
        self._emit(VmAppeared(UUID, self.view.config, RunState.RUNNING, (), 8 * GIB, booted=False))

    def is_let_go(self) -> None:
        self.view.config = None
        self._emit(VmGone(UUID, "no longer managed"))

    def stops(self) -> None:
        del self._workers[UUID]
        self._emit(VmGone(UUID, "shut down"))

    async def looks(self) -> None:
        assert self._host is not None
        self._host._tell(await self._host._look(self._workers.values(), settled=True))

    @property
    def headroom(self) -> int:
        """What the engine may give to others now, bytes."""
        self.engine.decide(1.0)
        return self.engine.ledger.headroom(sum(self.engine.charges.values()))

    @property
    def unmanaged(self) -> list[str]:
        looks = [one for one in self.told if isinstance(one, HostSampled)]
        return [one.name for one in looks[-1].facts.unmanaged]


async def test_who_is_taken_on_is_not_counted_twice(host: FakeHost) -> None:
    """Else all others would be shrunk by as much, for a second."""
    story = Story(managed=False)
    await story.looks()
    assert story.headroom == 2 * GIB
    story.is_taken_on()
    assert story.headroom == 2 * GIB
    assert story.unmanaged == []
    await story.looks()
    assert story.headroom == 2 * GIB


async def test_who_is_let_go_is_counted_at_once(host: FakeHost) -> None:
    """Else others would be given its memory, for a second."""
    story = Story(managed=True)
    await story.looks()
    assert story.headroom == 2 * GIB
    story.is_let_go()
    assert story.headroom == 2 * GIB
    assert story.unmanaged == ["web"]
    await story.looks()
    assert story.headroom == 2 * GIB


async def test_who_stops_is_counted_no_more(host: FakeHost) -> None:
    story = Story(managed=True)
    await story.looks()
    story.stops()
    assert story.headroom == CAPACITY


async def test_a_look_that_was_under_way_does_not_undo_it(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    for managed in (False, True):
        story = Story(managed=managed)
        assert story._host is not None
        await story.looks()
        begun, may_end, read = threading.Event(), threading.Event(), story._host._watch.read

        def slowly(
            *given: Any, begun: Any = begun, may_end: Any = may_end, read: Any = read, **more: Any
        ) -> Any:
            found = read(*given, **more)
            begun.set()
            may_end.wait(20)
            return found

        monkeypatch.setattr(story._host._watch, "read", slowly)
        look = asyncio.create_task(story.looks())
        await asyncio.to_thread(begun.wait, 20)
        if managed:
            story.is_let_go()
        else:
            story.is_taken_on()
        may_end.set()
        await look
        assert story.headroom == 2 * GIB
        assert story.unmanaged == (["web"] if managed else [])


async def test_before_the_first_look_there_is_nothing_to_correct(host: FakeHost) -> None:
    story = Story(managed=True)
    story.is_let_go()
    assert not [one for one in story.told if isinstance(one, HostSampled)]
    await story.looks()
    assert story.unmanaged == ["web"]
