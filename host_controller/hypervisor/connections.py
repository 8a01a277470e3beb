"""Connections to libvirt, one call at a time on each, so that hung VMs hold up nobody else.

Libvirt's client (9.0, and all before 9.10) is not safe when several threads wait for answers on one
connection: a source of its event loop that was interrupted stays behind, points into the stack of a thread
that has left, and swallows the next answer; a healthy VM's answer lay unread for five seconds here, until a
keepalive came. And libvirtd serves five requests at a time per connection (fact: five-requests). Therefore
every
connection has one thread, and one call in flight; a call that hangs keeps its connection to itself until it
comes back.
"""

import asyncio
import os
import queue
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import libvirt

from host_controller.errors import CallFailed, DynmemError, HypervisorUnreachable
from host_controller.hypervisor.eventloop import Mailbox

PLACES: Final = 4
"""Calls of one lane at a time, not counting those that hang."""
HANGING_SECONDS: Final = 0.25
"""A call takes milliseconds; one that takes longer gives up its place, long before its limit has passed."""
KEEPALIVE_SECONDS: Final = 5
KEEPALIVE_COUNT: Final = 3
OPEN_LIMIT_SECONDS: Final = 10.0
SPARE_SECONDS: Final = 5.0
"""For so long a connection beside a lane's first may have nothing to do before it is closed."""

T = TypeVar("T")

_OPENING: Final = threading.Lock()


class Late(Exception):  # noqa: N818 # read as what happened
    """A call has passed its limit; `outcome` is how it ends one day."""

    def __init__(self, outcome: "asyncio.Future[Any]") -> None:
        super().__init__("no answer in time")
        self.outcome = outcome


def call_failed(error: "libvirt.libvirtError") -> CallFailed:
    """What libvirt said, as an error of ours."""
    return CallFailed(error.get_error_message() or str(error))


class Connection:
    """One libvirt connection with its thread. Domains are looked up once per connection."""

    def __init__(self, handle: Any, sockets: list[socket.socket], mailbox: Mailbox, name: str) -> None:
        self.handle = handle
        self._sockets = sockets
        self._mailbox = mailbox
        self._domains: dict[str, Any] = {}
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._closing = False
        self.thread = threading.Thread(target=self._serve, name=f"libvirt-{name}", daemon=True)
        self.thread.start()

    def domain(self, uuid: str) -> Any:
        """The handle of a domain on this connection. To be called in this connection's thread."""
        found = self._domains.get(uuid)
        if found is None:
            found = self._domains[uuid] = self.handle.lookupByUUIDString(uuid)
        return found

    def forget(self, uuid: str) -> None:
        """Let go of a domain that has stopped."""
        self._domains.pop(uuid, None)

    @property
    def alive(self) -> bool:
        """False when libvirt has seen the connection break."""
        try:
            return not self._closing and bool(self.handle.isAlive())
        except libvirt.libvirtError:
            return False

    def start(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Run `work` in the thread, after what was started before."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._closing:
            future.set_exception(HypervisorUnreachable("the connection is closed"))
        else:
            self._work.put((work, future))
        return future

    def sever(self) -> None:
        """Break the connection under the call that waits on it, so that it returns now."""
        for one in self._sockets:
            with suppress(OSError):  # the other end may have been quicker
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> threading.Thread:
        """Close, without waiting; the thread ends when its call has."""
        if not self._closing:
            self._closing = True
            self._work.put(None)
        return self.thread

    def _serve(self) -> None:
        while (job := self._work.get()) is not None:
            work, future = job
            try:
                result = work()
            except (libvirt.libvirtError, DynmemError) as error:
                # Else what the call had in its hands lives on in the traceback, or in that of an error that
                # was met before, with whoever keeps this one.
                error.__context__ = error.__cause__ = None
                self._mailbox.post(_set_exception, future, error.with_traceback(None))
            except BaseException as error:  # noqa: BLE001 # handed over to whoever waits for the call
                self._mailbox.post(_set_exception, future, error)
            else:
                self._mailbox.post(_set_result, future, result)
                del result
            # Nothing of the call may keep a domain, and with it the connection, from being freed.
            del job, work, future
        self._domains.clear()
        with suppress(libvirt.libvirtError):  # when it was broken already, that is as good
            self.handle.close()
        self.handle = None
        for one in self._sockets:
            one.close()


def _set_result(future: "asyncio.Future[Any]", result: object) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _open_sockets() -> dict[int, str]:
    """This process's sockets, each with the kernel's name for it."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing's own descriptor is closed by now
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith("socket:"):
                found[int(name)] = target
    return found


def _sockets_to_libvirt(before: dict[int, str]) -> list[socket.socket]:
    """Duplicates of the sockets to libvirt that are new since `before`.

    Libvirt gives no way to interrupt a call. Shutting its socket down does; only unix sockets with a libvirt
    daemon at the other end are taken, others (ssh) are left to end by themselves.
    """
    found = []
    for fd in _open_sockets().items() - before.items():
        try:
            one = socket.socket(fileno=os.dup(fd[0]))
        except OSError:
            continue
        peer: object = None
        with suppress(OSError):
            peer = one.getpeername() if one.family == socket.AF_UNIX else None
        if isinstance(peer, str) and os.path.basename(peer).startswith(("libvirt", "virtqemud")):
            found.append(one)
        else:
            one.close()
    return found


async def open_connection(uri: str, mailbox: Mailbox, name: str) -> Connection:
    """Connect, in a thread of its own that may hang without harm.

    Raises:
        HypervisorUnreachable: with libvirt's reason, or after 10 s.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[Any, list[socket.socket]]] = loop.create_future()

    def work() -> None:
        try:
            with _OPENING:
                before = _open_sockets()
                handle = libvirt.open(uri)
                sockets = _sockets_to_libvirt(before)
            with suppress(libvirt.libvirtError):  # drivers without a daemon have nothing to keep alive
                handle.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
        except libvirt.libvirtError as error:
            mailbox.post(_set_exception, future, error)
        else:
            mailbox.post(_deliver, future, handle, sockets)

    threading.Thread(target=work, name=f"libvirt-open-{name}", daemon=True).start()
    try:
        done, _ = await asyncio.wait({future}, timeout=OPEN_LIMIT_SECONDS)
    except asyncio.CancelledError:
        future.cancel()
        raise
    if not done:
        future.cancel()
        raise HypervisorUnreachable(f"{uri}: no answer for {OPEN_LIMIT_SECONDS:g} s")
    try:
        handle, sockets = future.result()
    except libvirt.libvirtError as error:
        raise HypervisorUnreachable(f"{uri}: {error.get_error_message() or error}") from None
    return Connection(handle, sockets, mailbox, name)


def _deliver(future: "asyncio.Future[Any]", handle: Any, sockets: list[socket.socket]) -> None:
    if not future.done():
        future.set_result((handle, sockets))
        return
    for one in sockets:
        one.close()
    threading.Thread(target=handle.close, name="libvirt-close", daemon=True).start()


class Gate:
    """Keeps libvirtd's worker threads from running out behind our calls; all lanes share it.

    Libvirtd (9.0 and its neighbours) begins with five workers for all its clients and adds one when a job
    comes while all are busy, up to 20, but no more once two jobs have come so close together that the first
    was not picked up yet: it compares `freeWorkers - jobQueueDepth <= 0` in unsigned arithmetic. With five
    hung VMs that freezes the daemon for everybody. So: up to `workers` calls at once, that is four, or as
    many as were seen to be served at the same time; beyond that calls begin SPACING_SECONDS apart. And never
    more than MOST, so that others can still reach the daemon.
    """

    SPACING_SECONDS: Final = 0.025
    MOST: Final = 15

    def __init__(self) -> None:
        self.in_flight = 0
        self.late = 0
        self._workers = PLACES
        self._last_start = 0.0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    async def enter(self) -> None:
        """Wait until one more call may begin, in order of arrival."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            while self.in_flight >= self._workers:
                wait = self._last_start + self.SPACING_SECONDS - loop.time()
                if wait <= 0 and self.in_flight < self.MOST:
                    break
                self._freed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait if wait > 0 else None):
                        await self._freed.wait()
            self.in_flight += 1
            self._last_start = loop.time()

    def leave(self, *, served: bool) -> None:
        """A call has come back; `served`: well, and within its limit."""
        self.in_flight -= 1
        if served:
            # The late ones had a worker each, and this one had another.
            self._workers = max(self._workers, self.late + 1)
        self._freed.set()


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
        """Let go of a domain that has stopped."""
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
        """Its limit has passed."""
        self._late = True
        self._gate.late += 1

    def returned(self, *, failed: bool) -> None:
        """It has come back, in time or late."""
        self._timer.cancel()
        self._place.free()
        if self._late:
            self._gate.late -= 1
        self._gate.leave(served=not failed and not self._late)
