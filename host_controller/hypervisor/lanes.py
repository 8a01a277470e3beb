"""The connections to libvirt by purpose, so that VMs that hang hold up nobody else.

libvirtd serves five requests of one connection at a time (fact: five-requests), and a connection of ours
serves one (connections.py). So each purpose has its own connections, as many as it needs at once.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import libvirt

from host_controller.errors import HypervisorUnreachable
from host_controller.hypervisor.connections import Connection, Late, open_connection
from host_controller.hypervisor.eventloop import Mailbox
from host_controller.hypervisor.failure import call_failed
from host_controller.hypervisor.gate import Gate

PLACES: Final = 4
"""Calls of one lane at a time, not counting those that hang."""
GUEST_AGENTS_AT_ONCE: Final = 2
HANGING_SECONDS: Final = 0.25
"""A call takes milliseconds. One that takes longer gives up its place, long before its limit has passed."""
SPARE_SECONDS: Final = 5.0
"""For so long a connection beside a lane's first may have nothing to do before it is closed."""

T = TypeVar("T")


class Lane:
    """One purpose (control, statistics, streams, events, quarantine) and the connections for it.

    There are as many connections as calls at the same time, and for a while after. A lane that `keeps` closes
    none of them: what was opened on a connection (a stream, a callback) lives no longer than that.
    """

    def __init__(self, name: str, uri: str, mailbox: Mailbox, gate: Gate, *, keeps: bool = False) -> None:
        self.name = name
        self._keeps = keeps
        self._gate = gate
        self._uri = uri
        self._mailbox = mailbox
        self._places = asyncio.Semaphore(PLACES)
        self._idle: dict[Connection, float] = {}
        """Since when; the one that was used last is the next to be used."""
        self._retiring: asyncio.TimerHandle | None = None
        self._all: set[Connection] = set()
        self._closed = False

    async def call(self, work: Callable[[Connection], T], limit_seconds: float) -> T:
        """Make a blocking call in a thread. The limit runs from its start, not while it waits for a place.

        Raises:
            Late: when the limit has passed; the call goes on.
            CallFailed: libvirt said no.
            HypervisorUnreachable: there is no connection, or it broke under the call.
        """
        await self._places.acquire()
        place = _Place(self._places)
        try:
            connection = await self._connection()
            try:
                await self._gate.enter()
            except asyncio.CancelledError:
                self._give_back(connection)
                raise
            future = connection.start(lambda: work(connection))
        except BaseException:
            place.free()
            raise
        call = _Call(self._gate, place)
        future.add_done_callback(lambda done: self._returned(connection, call, done))
        try:
            await asyncio.wait({future}, timeout=limit_seconds)
        except asyncio.CancelledError:
            if not future.done():
                call.is_late()
            raise
        if not future.done():
            call.is_late()
            raise Late(future)
        try:
            return future.result()
        except libvirt.libvirtError as error:
            if not connection.alive:
                raise HypervisorUnreachable("the connection was lost during the call") from None
            raise call_failed(error) from None
        finally:
            # Its error's traceback leads back to it, and to all that the call had in its hands.
            del future

    async def _connection(self) -> Connection:
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.alive:
                return connection
            self._drop(connection)
        connection = await open_connection(self._uri, self._mailbox, self.name)
        if self._closed:
            connection.close()
            raise HypervisorUnreachable("the connection is closed")
        self._all.add(connection)
        return connection

    def _returned(self, connection: Connection, call: "_Call", future: "asyncio.Future[Any]") -> None:
        # The exception is looked at here, so that nobody complains if the waiter has left.
        failed = future.cancelled() or future.exception() is not None
        call.returned(failed=failed)
        self._give_back(connection)

    def _give_back(self, connection: Connection) -> None:
        if connection.alive and not self._closed:
            loop = asyncio.get_running_loop()
            self._idle[connection] = loop.time()
            if self._retiring is None and not self._keeps:
                self._retiring = loop.call_later(SPARE_SECONDS, self._retire)
        else:
            self._drop(connection)

    def _retire(self) -> None:
        """Close what has not been needed for a while, but for one."""
        self._retiring = None
        loop = asyncio.get_running_loop()
        while len(self._idle) > 1:
            connection, since = next(iter(self._idle.items()))
            left = since + SPARE_SECONDS - loop.time()
            if left > 0:
                self._retiring = loop.call_later(left, self._retire)
                return
            del self._idle[connection]
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._all.discard(connection)
        connection.close()

    def forget(self, uuid: str) -> None:
        """Let go of the handles of a domain that has stopped: they would keep it known for ever."""
        for connection in self._all:
            connection.forget(uuid)

    def close(self) -> list[threading.Thread]:
        """Close all connections; calls that hang are cut off. Returns the threads that are about to end."""
        self._closed = True
        if self._retiring is not None:
            self._retiring.cancel()
        connections, self._all = self._all, set()
        for connection in connections - set(self._idle):
            connection.sever()
        self._idle.clear()
        return [connection.close() for connection in connections]


class _Place:
    """A place in a lane; given up once, by whoever comes first."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places: asyncio.Semaphore | None = places

    def free(self) -> None:
        places, self._places = self._places, None
        if places is not None:
            places.release()


class _Call:
    """The accounts of one call under way."""

    def __init__(self, gate: Gate, place: _Place) -> None:
        self._gate = gate
        self._place = place
        self._late = False
        self._timer = asyncio.get_running_loop().call_later(HANGING_SECONDS, place.free)

    def is_late(self) -> None:
        """Note that the call has passed its limit."""
        self._late = True
        self._gate.late += 1

    def returned(self, *, failed: bool) -> None:
        """It has come back, in time or late."""
        self._timer.cancel()
        self._place.free()
        if self._late:
            self._gate.late -= 1
        self._gate.leave(served=not failed and not self._late)


class Lanes:
    """Events, control, statistics and streams; and quarantine, for VMs that do not answer."""

    def __init__(self, uri: str, mailbox: Mailbox) -> None:
        gate = Gate()
        self.events = Lane("events", uri, mailbox, gate, keeps=True)
        self.control = Lane("control", uri, mailbox, gate)
        self.statistics = Lane("statistics", uri, mailbox, gate)
        self.streams = Lane("streams", uri, mailbox, gate, keeps=True)
        self.quarantine = Lane("quarantine", uri, mailbox, gate)
        # Of its own, gate included: a guest agent that hangs is no VM that hangs, and holds up nobody.
        self.guest_agents = Lane("guest agents", uri, mailbox, Gate())
        self.guest_agent_turns = asyncio.Semaphore(GUEST_AGENTS_AT_ONCE)
        """Held until a call is really over: each that hangs holds one of libvirtd's twenty workers."""

    def close(self) -> list[threading.Thread]:
        """Close every connection. Returns the threads that are about to end."""
        return [thread for lane in self.all() for thread in lane.close()]

    def all(self) -> tuple[Lane, ...]:
        """Every lane; that of the events last, so that it is closed last."""
        return (
            self.control,
            self.statistics,
            self.streams,
            self.quarantine,
            self.guest_agents,
            self.events,
        )
