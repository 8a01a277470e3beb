"""What is told of the host, and of whom libvirt has yet to tell once the controller has just started."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from host_controller.core.interface import HostSampled, HypervisorEvent, VmsAwaited
from host_controller.host import identity
from host_controller.hypervisor.host_sampler import Asked, HostSampler
from host_controller.units import GIB
from tests.support.fake_host import OTHER_UUID, UUID, FakeHost

PERIOD = 0.02


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    monkeypatch.setattr(identity, "SCAN_SECONDS", -1.0)
    return FakeHost(tmp_path)


def worker(uuid: str, name: str, *, managed: bool = False) -> Any:
    """Of a VM of 4 GiB that libvirt has told of."""
    view = SimpleNamespace(config=object() if managed else None, ordinary_bytes=4 * GIB, unmapped=False)
    known = SimpleNamespace(uuid=uuid, name=name, view=view, resident=None)
    return SimpleNamespace(known=known, settled=True, untold=None)


class Story:
    """The looks of one controller, and what they have told."""

    def __init__(self, host: FakeHost | None) -> None:
        self.workers: dict[str, Any] = {}
        self.told: list[HypervisorEvent] = []
        watch = None if host is None else host.watch()
        self.looks = HostSampler(watch, self.workers, self.told.append, PERIOD)

    @property
    def awaited(self) -> tuple[str, ...] | None:
        said = [one.names for one in self.told if isinstance(one, VmsAwaited)]
        return said[-1] if said else None

    @property
    def facts(self) -> Any:
        return [one.facts for one in self.told if isinstance(one, HostSampled)][-1]

    async def looks_again(self) -> None:
        enough = len(self.told) + 3
        await self.until(lambda: len(self.told) >= enough)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 # what is looked at rings no bell
                await asyncio.sleep(0.005)


def tell(story: Story, steps: Any) -> None:
    async def main() -> None:
        looking = asyncio.create_task(story.looks.run())
        try:
            await steps()
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
            story.looks.close()

    asyncio.run(main())


def test_while_libvirt_answers_nobody_its_pid_files_say_who_runs(host: FakeHost) -> None:
    """So it is while it starts what starts with the host."""
    host.qemu(40, UUID, 3 * GIB, vm="web")
    host.qemu(41, OTHER_UUID, GIB, vm="db")
    story = Story(host)

    async def steps() -> None:
        await story.until(lambda: story.awaited == ("db", "web"))
        host.end(41)
        await story.until(lambda: story.awaited == ("web",))

    tell(story, steps)


def test_while_its_list_is_held_up_those_count_that_it_has_told_of_alone(host: FakeHost) -> None:
    host.qemu(40, UUID, 3 * GIB, vm="web")
    host.qemu(41, OTHER_UUID, GIB, vm="db")
    story = Story(host)

    async def steps() -> None:
        assert await story.looks.named() == {"web": UUID, "db": OTHER_UUID}
        story.workers.update({UUID: worker(UUID, "web", managed=True), OTHER_UUID: worker(OTHER_UUID, "db")})
        story.workers[OTHER_UUID].settled = False
        story.looks.asked = Asked.NAMED
        await story.looks_again()
        assert story.facts.unmanaged == ()
        story.workers[OTHER_UUID].settled = True
        await story.until(lambda: story.facts.unmanaged_bytes == 4 * GIB)
        assert [one.name for one in story.facts.unmanaged] == ["db"]
        assert story.awaited == ("db", "web"), "others may run"
        story.looks.asked = Asked.ALL
        await story.until(lambda: story.awaited == ())

    tell(story, steps)


def test_everybody_is_told_of_once_each_was_looked_into_and_counted(host: FakeHost) -> None:
    host.qemu(40, UUID, 3 * GIB, vm="web")
    story = Story(host)

    async def steps() -> None:
        story.workers[UUID] = worker(UUID, "web")
        story.workers[UUID].settled = False
        story.looks.asked = Asked.ALL
        await story.looks_again()
        assert story.awaited == ("web",)
        story.workers[UUID].settled = True
        await story.until(lambda: story.awaited == ())
        before = story.told.index(VmsAwaited(()))
        counted = [one.facts.unmanaged_bytes for one in story.told[:before] if isinstance(one, HostSampled)]
        assert counted[-1] == 4 * GIB, "what it holds is known before"

    tell(story, steps)


def test_a_restart_of_libvirt_makes_nobody_unknown(host: FakeHost) -> None:
    host.qemu(40, UUID, 3 * GIB, vm="web")
    story = Story(host)

    async def steps() -> None:
        story.workers[UUID] = worker(UUID, "web")
        story.looks.asked = Asked.ALL
        await story.until(lambda: story.awaited == ())
        story.looks.asked = Asked.NOBODY
        story.workers.clear()
        await story.looks_again()
        story.looks.asked = Asked.NAMED
        await story.looks_again()
        assert [one.name for one in story.facts.unmanaged] == ["web"]
        assert story.awaited == ()

    tell(story, steps)


def test_a_qemu_that_libvirt_has_forgotten_is_awaited_no_more_and_counts_as_somebody_elses(
    host: FakeHost,
) -> None:
    host.qemu(40, UUID, 3 * GIB, vm="web")
    host.use(3 * GIB)
    story = Story(host)

    async def steps() -> None:
        await story.until(lambda: story.awaited == ("web",))
        story.looks.asked = Asked.NAMED
        story.looks.denied(UUID)
        await story.until(lambda: story.awaited == () and story.facts.foreign_bytes == 3 * GIB)

    tell(story, steps)


def test_who_is_denied_and_runs_after_all_is_awaited_again(host: FakeHost) -> None:
    host.qemu(40, UUID, 3 * GIB, vm="web")
    story = Story(host)

    async def steps() -> None:
        story.looks.denied(UUID)
        await story.until(lambda: story.awaited == ())
        story.looks.runs(UUID)
        await story.until(lambda: story.awaited == ("web",))

    tell(story, steps)


def test_before_the_first_look_that_succeeds_nobody_counts_as_told_of(host: FakeHost) -> None:
    host.qemu(40, UUID, 3 * GIB, vm="web")
    host.write("proc/meminfo", "")
    story = Story(host)

    async def steps() -> None:
        story.workers[UUID] = worker(UUID, "web")
        story.looks.asked = Asked.ALL
        await story.until(lambda: story.awaited == ("web",))
        await asyncio.sleep(5 * PERIOD)
        assert len(story.told) == 1
        host.meminfo()
        await story.until(lambda: story.awaited == ())
        assert story.facts.unmanaged_bytes == 4 * GIB

    tell(story, steps)


def test_where_nobody_can_say_who_runs_libvirts_list_does(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(directory: Path) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(identity.libvirt_run, "pid_files", fails)
    for story in (Story(host), Story(None)):

        async def steps(story: Story = story) -> None:
            await asyncio.sleep(5 * PERIOD)
            assert story.awaited is None
            story.looks.asked = Asked.NAMED
            await asyncio.sleep(5 * PERIOD)
            assert story.awaited is None
            story.looks.asked = Asked.ALL
            await story.until(lambda: story.awaited == ())

        tell(story, steps)
