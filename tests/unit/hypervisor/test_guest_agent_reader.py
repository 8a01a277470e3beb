"""When a guest's files are read through its QEMU guest agent, and when not."""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from host_controller.core.interface import GuestRead, HypervisorEvent
from host_controller.core.model import RunState
from host_controller.domain_xml.read import read_domain
from host_controller.hypervisor import guest_agent_reader
from host_controller.hypervisor.connections import Late
from host_controller.hypervisor.guest_agent_reader import (
    AGENT_SILENT_SECONDS,
    LAST_PACE_SECONDS,
    PACE_SECONDS,
    GuestAgentReader,
)
from host_controller.hypervisor.known_vm import KnownVm
from host_controller.hypervisor.lanes import GUEST_AGENTS_AT_ONCE
from tests.support.fake_guest_agent import FakeGuestAgent
from tests.unit.hypervisor.domains import LIVE

UUID = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
TARGET = "<target type='virtio' name='org.qemu.guest_agent.0' state='{}'/>"
PORT = f"<channel type='unix'>{TARGET}</channel></devices>"
FILES = {
    "/proc/meminfo": b"MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 400 kB\n",
    "/proc/vmstat": b"pswpin 3\n",
}


def live(state: str) -> str:
    return LIVE.replace("</devices>", PORT.format(state))


class Connection:
    def domain(self, uuid: str) -> str:
        return uuid


class Lane:
    """Carries out what it is given, at once."""

    def __init__(self) -> None:
        self.calls = 0
        self.late: asyncio.Future[Any] | None = None

    async def call(self, work: Callable[[Any], Any], _limit: float) -> Any:
        self.calls += 1
        if self.late is not None:
            raise Late(self.late)
        return work(Connection())


class Lanes:
    def __init__(self) -> None:
        self.guest_agents = Lane()
        self.guest_agent_turns = asyncio.Semaphore(GUEST_AGENTS_AT_ONCE)


class Story:
    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, state: str = "connected", allowed: bool = True
    ) -> None:
        self.said: list[HypervisorEvent] = []
        self.guest = FakeGuestAgent(files=dict(FILES))
        self.job: str | None = None
        monkeypatch.setattr(guest_agent_reader, "ask", lambda _domain, request, _limit: self.guest(request))
        monkeypatch.setattr(guest_agent_reader, "running_job", lambda _domain: self.job)
        self.known = KnownVm(UUID, self.said.append, booted=False)
        self.known.view = read_domain(live(state))
        self.known.managed = True
        self.lanes: Any = Lanes()
        self.reader = GuestAgentReader(self.known, self.said.append, allowed=allowed)
        self.now = time.monotonic()

    async def pass_by(self, seconds: float, heard_at: float = -math.inf) -> None:
        """So much later a sample is taken."""
        self.now += seconds
        self.reader.sampled(self.lanes, heard_at, self.now)
        for _ in range(5):
            await asyncio.sleep(0)

    @property
    def readings(self) -> list[GuestRead]:
        return [one for one in self.said if isinstance(one, GuestRead)]


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Story:
    return Story(monkeypatch)


async def test_a_guest_without_our_agent_is_read_at_a_slow_pace(story: Story) -> None:
    await story.pass_by(1.0)
    assert story.readings == [], "our agent may only be starting"
    await story.pass_by(AGENT_SILENT_SECONDS)
    assert len(story.readings) == 1
    assert story.readings[0].untrusted_reading.available_bytes == 400 << 10
    assert story.readings[0].untrusted_reading.stall_us is None, "this kernel has no PSI"
    await story.pass_by(PACE_SECONDS / 2)
    assert len(story.readings) == 1
    await story.pass_by(PACE_SECONDS)
    assert len(story.readings) == 2


async def test_the_cache_of_a_guest_with_zfs_is_no_demand(story: Story) -> None:
    story.guest.files["/proc/spl/kstat/zfs/arcstats"] = b"size 4 307200\nc_min 4 102400\n"
    await story.pass_by(AGENT_SILENT_SECONDS + 1.0)
    assert story.readings[0].untrusted_reading.available_bytes == 600 << 10


async def test_while_our_agent_speaks_nobody_is_asked(story: Story) -> None:
    for _ in range(5):
        await story.pass_by(60.0, heard_at=story.now + 55.0)
    assert story.guest.asked == []


@pytest.mark.parametrize("state", ["disconnected", ""])
async def test_without_a_guest_agent_nobody_is_asked(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(monkeypatch, state=state)
    await story.pass_by(100.0)
    assert story.lanes.guest_agents.calls == 0


async def test_whoever_wants_no_taint_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(monkeypatch, allowed=False)
    await story.pass_by(100.0)
    assert story.lanes.guest_agents.calls == 0


async def test_no_reading_during_a_job_known_or_just_begun_or_while_its_vcpus_stand(story: Story) -> None:
    story.known.job = "migration"
    await story.pass_by(100.0)
    story.known.job, story.known.state = None, RunState.PAUSED
    await story.pass_by(100.0)
    assert story.lanes.guest_agents.calls == 0
    story.known.state, story.job = RunState.RUNNING, "snapshot"
    await story.pass_by(100.0)
    assert story.lanes.guest_agents.calls == 1
    assert story.guest.asked == []


async def test_a_guest_agent_that_refuses_or_talks_nonsense_is_asked_ever_more_seldom(story: Story) -> None:
    story.guest.forbidden = frozenset({"guest-file-open"})  # as while a backup has frozen its file systems
    for _ in range(200):
        await story.pass_by(PACE_SECONDS)
    asked = story.lanes.guest_agents.calls
    assert asked <= 2000 / LAST_PACE_SECONDS + math.log2(LAST_PACE_SECONDS / PACE_SECONDS) + 1
    story.guest.forbidden = frozenset()
    await story.pass_by(LAST_PACE_SECONDS)
    await story.pass_by(PACE_SECONDS)
    assert len(story.readings) == 2, "it falls back by itself, both ways"


async def test_guest_agents_that_hang_hold_up_two_calls_and_no_vm(story: Story) -> None:
    story.lanes.guest_agents.late = asyncio.get_running_loop().create_future()
    readers = [GuestAgentReader(story.known, story.said.append, allowed=True) for _ in range(10)]
    for reader in readers:
        reader.sampled(story.lanes, -math.inf, story.now + 100.0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert story.lanes.guest_agents.calls == GUEST_AGENTS_AT_ONCE
    for reader in readers:
        reader.stop()


async def test_what_was_read_of_a_vm_that_is_no_longer_managed_is_not_told(story: Story) -> None:
    story.known.managed = False
    await story.pass_by(100.0)
    assert story.readings == []


def test_the_port_must_be_open_in_the_guest() -> None:
    assert read_domain(live("connected")).guest_agent
    assert not read_domain(live("disconnected")).guest_agent
    assert not read_domain(LIVE).guest_agent
