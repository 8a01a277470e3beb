"""One VM's worker: what becomes of its commands when something goes wrong."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from host_controller.core.interface import (
    AttachDimm,
    CommandDone,
    DimmsChanged,
    HypervisorEvent,
    Suspend,
    VmAppeared,
    VmGone,
)
from host_controller.core.model import LARGEST_MAXIMUM_BYTES, RunState
from host_controller.domain_xml.read import read_domain
from host_controller.errors import CallFailed
from host_controller.hypervisor import libvirt_calls
from host_controller.hypervisor.eventloop import Mailbox
from host_controller.hypervisor.worker import REFUSALS_TO_TELL, VmWorker
from host_controller.rules.taking import take
from tests.unit.hypervisor.domains import LIVE
from tests.unit.rules.test_rules import ROOMY, rule

UUID = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
SEEN = libvirt_calls.Inspection(read_domain(LIVE), RunState.RUNNING)


class Lane:
    """A connection to libvirt. Commands end as they are told to; the rest goes well, and there is no port."""

    def __init__(self) -> None:
        self.answers: list[Exception] = []
        self.refused = ""
        """Why libvirt gives no sample."""
        self.free = asyncio.Event()
        self.free.set()

    async def call(self, work: Callable[..., object], _limit: float) -> object:
        match getattr(getattr(work, "func", work), "__name__", ""):
            case "_call_inspect":
                return SEEN
            case "_call_sample":
                if self.refused:
                    raise CallFailed(self.refused)
                return libvirt_calls.Sample(None, None, None), None
            case "open":
                raise CallFailed("no port")
        await self.free.wait()
        if self.answers:
            raise self.answers.pop(0)
        return libvirt_calls.Done()


class Lanes:
    def __init__(self) -> None:
        self.control = self.statistics = self.streams = self.quarantine = Lane()


class Story:
    """A worker, and what it said."""

    def __init__(self) -> None:
        self.said: list[HypervisorEvent] = []
        self.lanes: Any = Lanes()
        mailbox = Mailbox(asyncio.get_running_loop())
        self.worker = VmWorker(UUID, self.lanes, mailbox, self.said.append, lambda _: None, None, booted=True)

    async def until(self, kind: type, count: int = 1) -> list[Any]:
        found: list[Any] = []

        async with asyncio.timeout(10.0):
            while len(found) < count:
                await asyncio.sleep(0)
                found = [one for one in self.said if isinstance(one, kind)]
        return found

    def ended(self) -> dict[int, tuple[str | None, bool]]:
        return {one.ticket: (one.error, one.timed_out) for one in self.said if isinstance(one, CommandDone)}


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    made = Story()
    await made.until(VmAppeared)
    yield made
    made.worker.stop("the test is over", gone=False)


async def test_a_command_that_is_carried_out_is_told_as_done(story: Story) -> None:
    story.worker.submit(Suspend(UUID, 1))
    await story.until(CommandDone)
    assert story.ended() == {1: (None, False)}


async def test_a_mistake_of_ours_in_a_command_is_told_as_one_of_which_nobody_knows_what_it_did(
    story: Story,
) -> None:
    story.lanes.control.answers = [KeyError("slot")]
    story.worker.submit(AttachDimm(UUID, 1, 128 << 20))
    await story.until(CommandDone)
    assert story.ended() == {1: ("an internal error: KeyError: 'slot'", True)}
    assert not [one for one in story.said if isinstance(one, DimmsChanged)]
    story.worker.look_again()
    assert await story.until(DimmsChanged), "what came of it is told, changed or not"
    story.worker.submit(Suspend(UUID, 2))
    await story.until(CommandDone, 2)
    assert story.ended()[2] == (None, False), "the worker goes on"


async def test_a_command_that_libvirt_refuses_is_told_with_its_words(story: Story) -> None:
    story.lanes.control.answers = [CallFailed("no free slot")]
    story.worker.submit(AttachDimm(UUID, 1, 128 << 20))
    await story.until(CommandDone)
    assert story.ended() == {1: ("no free slot", False)}


async def test_commands_that_are_lost_with_the_connection_are_told_so_and_the_vm_is_not_gone(
    story: Story,
) -> None:
    story.lanes.control.free.clear()
    story.worker.submit(Suspend(UUID, 1))
    await asyncio.sleep(0.01)
    story.worker.submit(Suspend(UUID, 2))
    why = "the connection to libvirt was lost: libvirtd closed the connection"
    story.worker.stop(why, gone=False)
    assert story.ended() == {1: (why, True), 2: (why, False)}
    assert not [one for one in story.said if isinstance(one, VmGone)]


async def test_a_vm_is_gone_only_after_the_ends_of_its_commands_are_told(story: Story) -> None:
    story.lanes.control.free.clear()
    story.worker.submit(Suspend(UUID, 1))
    await asyncio.sleep(0.01)
    story.worker.stop("saved", gone=True)
    assert [type(one) for one in story.said[-2:]] == [CommandDone, VmGone]


async def test_samples_that_libvirt_refuses_again_and_again_are_told_until_it_gives_one(
    story: Story,
) -> None:
    story.lanes.control.refused = "unable to get balloon info"
    for count in range(1, REFUSALS_TO_TELL + 2):
        with pytest.raises(CallFailed):
            await story.worker._sample(story.lanes.statistics)
        assert bool(story.worker.untold) is (count >= REFUSALS_TO_TELL), "one refusal is no news"
    assert story.worker.untold == "libvirt does not tell of its balloon: unable to get balloon info"
    story.lanes.control.refused = ""
    await story.worker._sample(story.lanes.statistics)
    assert story.worker.untold is None


async def test_a_vm_that_is_not_managed_any_more_is_not_asked_and_not_told_as_silent(story: Story) -> None:
    story.lanes.control.refused = "unable to get balloon info"
    for _ in range(REFUSALS_TO_TELL):
        with pytest.raises(CallFailed):
            await story.worker._sample(story.lanes.statistics)
    assert story.worker.untold
    unmanaged = replace(read_domain(LIVE), config=None)
    story.worker._described(libvirt_calls.Inspection(unmanaged, RunState.RUNNING), state_is_fresh=True)
    assert story.worker.untold is None


async def test_what_a_vm_without_a_definition_was_started_with_is_kept_while_it_runs(story: Story) -> None:
    worker = story.worker
    assert worker.known.started_with == read_domain(LIVE).actual_bytes
    worker.appeared(booted=True)
    assert worker.known.started_with is None, "it has just started, and its XML says it"
    by_rule = take(ROOMY, None, rule("name = '*'")).view
    worker._described(libvirt_calls.Inspection(by_rule, RunState.RUNNING), state_is_fresh=True)
    assert worker.known.started_with == 2 << 30
    lower = take(ROOMY, None, rule("name = '*'", 'minimum = "512MiB"\nmaximum = "1GiB"')).view
    worker._described(libvirt_calls.Inspection(lower, RunState.RUNNING), state_is_fresh=True)
    assert worker.known.started_with == 2 << 30, "a rule that lowers it for a while does not do so for ever"
    worker.appeared(booted=False)
    found = worker.known.started_with
    assert found == LARGEST_MAXIMUM_BYTES, "it was found running: it is what it boots with"
    worker._described(libvirt_calls.Inspection(by_rule, RunState.RUNNING), state_is_fresh=True)
    assert worker.known.started_with == LARGEST_MAXIMUM_BYTES
