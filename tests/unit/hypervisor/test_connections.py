"""The connections of a lane, on libvirt's own test driver, which needs no daemon."""

import asyncio
import gc
import threading
import time
import weakref

import libvirt
import pytest

from host_controller.errors import CallFailed
from host_controller.hypervisor import lanes
from host_controller.hypervisor.connections import Connection, Late
from host_controller.hypervisor.eventloop import Mailbox
from host_controller.hypervisor.gate import Gate
from host_controller.hypervisor.lanes import Lane

AT_ONCE = 3


def threads() -> int:
    """How many connections are open: each has a thread."""
    return sum(one.name == "libvirt-lane" for one in threading.enumerate())


async def used_at_once(lane: Lane) -> None:
    """As many calls at a time as need a connection each."""
    together = threading.Barrier(AT_ONCE)

    def work(connection: Connection) -> str:
        together.wait(60)
        return str(connection.handle.getType())

    assert await asyncio.gather(*(lane.call(work, 60) for _ in range(AT_ONCE))) == ["TEST"] * AT_ONCE


async def until(count: int, limit: float = 60.0) -> None:
    end = time.monotonic() + limit
    while threads() != count:
        assert time.monotonic() < end, f"{threads()} connections"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(("keeps", "left"), [(False, 1), (True, AT_ONCE)])
async def test_spare_connections_are_closed_but_where_something_lives_on_them(
    keeps: bool, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "SPARE_SECONDS", 0.3)
    lane = Lane("lane", "test:///default", Mailbox(asyncio.get_running_loop()), Gate(), keeps=keeps)
    try:
        await used_at_once(lane)
        assert threads() == AT_ONCE
        if keeps:
            await asyncio.sleep(1.0)  # three times as long as a spare one would last
        await until(left)
        await used_at_once(lane)
        await until(left)
    finally:
        for thread in lane.close():
            await asyncio.to_thread(thread.join, 5)
    assert threads() == 0


class Held:
    """Something that a call has in its hands, as it has a domain."""


async def test_a_call_that_fails_holds_nothing_back() -> None:
    lane = Lane("lane", "test:///default", Mailbox(asyncio.get_running_loop()), Gate())
    held: list[weakref.ref[Held]] = []

    def work(connection: Connection) -> None:
        domain = Held()
        held.append(weakref.ref(domain))
        connection.handle.lookupByUUIDString("not a UUID")

    gc.disable()  # which comes at no known time, and until then the connection could not be closed
    try:
        with pytest.raises(CallFailed):
            await lane.call(work, 10)
        await lane.call(lambda connection: connection.handle.getType(), 10)
        assert held[0]() is None
    finally:
        gc.enable()
        for thread in lane.close():
            await asyncio.to_thread(thread.join, 5)


@pytest.mark.parametrize("again", [False, True], ids=["fails", "fails while it deals with a failure"])
async def test_what_a_late_call_held_goes_when_it_fails_though_its_error_is_kept(*, again: bool) -> None:
    lane = Lane("lane", "test:///default", Mailbox(asyncio.get_running_loop()), Gate())
    held: list[weakref.ref[Held]] = []
    go_on = threading.Event()

    def work(connection: Connection) -> None:
        domain = Held()
        held.append(weakref.ref(domain))
        go_on.wait(60)
        try:
            connection.handle.lookupByUUIDString("not a UUID")
        except libvirt.libvirtError:
            if again:
                connection.handle.lookupByName("no such name")
            raise

    gc.disable()
    try:
        with pytest.raises(Late) as late:
            await lane.call(work, 0.05)
        go_on.set()
        await asyncio.wait({late.value.outcome})
        await lane.call(lambda connection: connection.handle.getType(), 10)
        assert late.value.outcome.exception() is not None
        assert held[0]() is None
    finally:
        gc.enable()
        for thread in lane.close():
            await asyncio.to_thread(thread.join, 5)
