"""Whom libvirt has yet to tell of once the controller has just started, and when it has told of everybody."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from host_controller.core.interface import HostSampled, HypervisorEvent, VmsAwaited
from host_controller.host import identity
from host_controller.hypervisor import adapter, awaiting, host_sampler, libvirt_calls
from host_controller.hypervisor.adapter import LibvirtHypervisor
from host_controller.units import GIB
from tests.support.fake_host import OTHER_UUID, UUID, FakeHost

PERIOD = 0.02


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    found = FakeHost(tmp_path)
    monkeypatch.setattr(identity, "SCAN_SECONDS", -1.0)
    monkeypatch.setattr(awaiting, "LOOK_SECONDS", PERIOD)
    monkeypatch.setattr(host_sampler, "HostWatch", lambda uri, meminfo: found.watch())
    return found


def worker(uuid: str, name: str, *, settled: bool = True) -> Any:
    """Of an unmanaged VM of 4 GiB."""
    view = SimpleNamespace(config=None, ordinary_bytes=4 * GIB, unmapped=False)
    known = SimpleNamespace(uuid=uuid, name=name, view=view, resident=None)
    return SimpleNamespace(uuid=uuid, known=known, settled=settled, untold=None)


class Story(LibvirtHypervisor):
    """One controller's, without a libvirt: a test says what that has answered."""

    def __init__(self, uri: str = "qemu:///system") -> None:
        super().__init__(uri, host_period_seconds=PERIOD)
        self.told: list[HypervisorEvent] = []
        self._inbox = self.told.append

    def answers(self, *workers: Any, all_of_them: bool = False) -> None:
        """Libvirt was asked about those whom its pid files name, or has listed all."""
        self._workers.update({one.uuid: one for one in workers})
        self._named, self._listed = True, all_of_them

    @property
    def awaited(self) -> tuple[str, ...] | None:
        """As it was said last."""
        said = [one.names for one in self.told if isinstance(one, VmsAwaited)]
        return said[-1] if said else None

    def unmanaged(self, before: int | None = None) -> list[str]:
        """Names, by the last look at the host."""
        looks = [one for one in self.told[:before] if isinstance(one, HostSampled)]
        return [one.name for one in looks[-1].facts.unmanaged]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 # what is looked at rings no bell
                await asyncio.sleep(0.005)

    async def looks_again(self) -> None:
        enough = len(self.told) + 3
        await self.until(lambda: len(self.told) >= enough)

    def tell(self, steps: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            looking = [asyncio.create_task(self._awaiting.run(self._told))]
            if self._host is not None:
                look = self._host.run(self._workers.values, self._all_are_there)
                looking.append(asyncio.create_task(look))
            try:
                await steps()
            finally:
                for one in looking:
                    one.cancel()
                await asyncio.gather(*looking, return_exceptions=True)
                if self._host is not None:
                    self._host.close()

        asyncio.run(main())


@contextmanager
def without_descriptors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fails(directory: Path) -> None:
        raise OSError("too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(identity.libvirt_run, "pid_files", fails)
        yield


def test_while_libvirt_answers_nobody_its_pid_files_say_who_runs(host: FakeHost) -> None:
    """So it is while it starts what starts with the host."""
    host.qemu(40, UUID, 3 * GIB, vm="web")
    host.qemu(41, OTHER_UUID, GIB, vm="db")
    story = Story()

    async def steps() -> None:
        await story.until(lambda: story.awaited == ("db", "web"))
        host.end(41)
        await story.until(lambda: story.awaited == ("web",))

    story.tell(steps)


def test_while_its_list_is_held_up_those_count_that_it_has_told_of_alone(host: FakeHost) -> None:
    host.qemu(40, UUID, 3 * GIB, vm="web")
    story = Story()

    async def steps() -> None:
        slow = worker(UUID, "web", settled=False)
        story.answers(slow)
        await story.looks_again()
        assert story.unmanaged() == []
        slow.settled = True
        await story.until(lambda: story.unmanaged() == ["web"])
        await story.looks_again()
        assert story.awaited == ("web",), "others may run"
        story.answers(all_of_them=True)
        await story.until(lambda: story.awaited == ())

    story.tell(steps)


def test_everybody_is_told_of_once_each_was_looked_into_and_counted(host: FakeHost) -> None:
    story = Story()

    async def steps() -> None:
        slow = worker(UUID, "web", settled=False)
        story.answers(slow, all_of_them=True)
        await story.looks_again()
        assert story.awaited == (), "no pid file names it"
        assert not story._awaiting.over
        slow.settled = True
        await story.until(lambda: story._awaiting.over)
        assert story.unmanaged() == ["web"]

    story.tell(steps)


def test_who_is_counted_is_counted_before_everybody_is_said_to_be_told_of(host: FakeHost) -> None:
    host.qemu(40, UUID, 3 * GIB, vm="web")
    story = Story()

    async def steps() -> None:
        await story.until(lambda: story.awaited == ("web",))
        story.answers(worker(UUID, "web"), all_of_them=True)
        await story.until(lambda: story.awaited == ())
        assert story.unmanaged(before=story.told.index(VmsAwaited(()))) == ["web"]

    story.tell(steps)


def test_before_the_first_look_that_succeeds_nobody_counts_as_told_of(host: FakeHost) -> None:
    host.write("proc/meminfo", "")
    for workers in ((), (worker(UUID, "web"),)):
        story = Story()

        async def steps(story: Story = story, workers: tuple[Any, ...] = workers) -> None:
            story.answers(*workers, all_of_them=True)
            await asyncio.sleep(5 * PERIOD)
            assert not story._awaiting.over
            host.meminfo()
            await story.until(lambda: story._awaiting.over)
            host.write("proc/meminfo", "")

        story.tell(steps)


def test_whose_qemus_are_somebody_elses_is_known_before_nobody_is_awaited(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awaiting, "LOOK_SECONDS", PERIOD / 20)
    host.process(50, 3 * GIB)
    host.use(3 * GIB)
    story = Story()

    async def steps() -> None:
        await story.looks_again()
        story.answers(all_of_them=True)
        await story.until(lambda: story._awaiting.over)
        assert [one for one in story.told if isinstance(one, HostSampled)][-1].facts.foreign_bytes == 3 * GIB

    story.tell(steps)


def test_a_restart_of_libvirt_makes_nobody_unknown(host: FakeHost) -> None:
    host.qemu(40, UUID, 3 * GIB, vm="web")
    story = Story()

    async def steps() -> None:
        story.answers(worker(UUID, "web"), all_of_them=True)
        await story.until(lambda: story._awaiting.over)
        story._workers.clear()
        story._listed = story._named = False
        await story.looks_again()
        story.answers()
        await story.looks_again()
        assert story.unmanaged() == ["web"]
        assert story.awaited == ()

    story.tell(steps)


def test_where_nobody_can_say_who_runs_libvirts_list_does(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    with without_descriptors(monkeypatch):
        for uri in ("qemu:///system", "qemu+ssh://elsewhere/system"):
            story = Story(uri)

            async def steps(story: Story = story) -> None:
                await asyncio.sleep(5 * PERIOD)
                assert story.awaited is None
                story.answers(worker(UUID, "web"))
                await asyncio.sleep(5 * PERIOD)
                assert story.awaited is None
                story.answers(all_of_them=True)
                await story.until(lambda: story.awaited == ())

            story.tell(steps)


def test_a_look_that_hangs_keeps_nobody_from_being_told_of(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awaiting, "FILES_SECONDS", PERIOD)
    story = Story()
    assert story._host is not None
    monkeypatch.setattr(story._host, "running", asyncio.Event().wait)

    async def steps() -> None:
        story.answers(worker(UUID, "web"), all_of_them=True)
        await story.until(lambda: story.awaited == ())

    story.tell(steps)


def test_another_hosts_vms_are_told_of_once_each_was_looked_into() -> None:
    story = Story("qemu+ssh://elsewhere/system")

    async def steps() -> None:
        slow = worker(UUID, "web", settled=False)
        story.answers(slow, all_of_them=True)
        await asyncio.sleep(5 * PERIOD)
        assert story.awaited is None
        slow.settled = True
        await story.until(lambda: story.awaited == ())

    story.tell(steps)


def test_who_runs_is_asked_for_one_by_one_while_a_start_hook_that_waits_holds_the_list_up(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.qemu(40, UUID, 3 * GIB, vm="web")
    host.qemu(41, OTHER_UUID, GIB, vm="db")
    story, added = Story(), list[str]()

    async def main() -> None:
        waits = asyncio.Event()

        async def call(question: object, limit: float) -> object:
            if question is libvirt_calls.active_uuids:
                await waits.wait()
                return [UUID, "uuid-of-new"]
            return (0, 0)

        def add(uuid: str, *, booted: bool) -> None:
            assert not booted
            added.append(uuid)
            story._workers[uuid] = worker(uuid, uuid)

        lanes = SimpleNamespace(events=SimpleNamespace(call=call))
        monkeypatch.setattr(adapter, "Lanes", lambda uri, mailbox: lanes)
        monkeypatch.setattr(story, "_mailbox", SimpleNamespace())
        monkeypatch.setattr(story, "_add", add)
        connecting = asyncio.create_task(story._connect())
        await story.until(lambda: story._named)
        assert set(added) == {UUID, OTHER_UUID}
        assert not story._listed
        waits.set()
        await connecting
        assert story._listed
        assert added[2:] == ["uuid-of-new"]

    asyncio.run(main())
