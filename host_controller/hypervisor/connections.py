"""One connection to libvirt, with one call in flight at a time.

Libvirt's client (9.0, and all before 9.10) is not safe when several threads wait for answers on one
connection. A source of its event loop that was interrupted stays behind, points into the stack of a thread
that has left, and swallows the next answer. A healthy VM's answer lay unread for five seconds here, until a
keepalive came. So every connection has one thread, and a call that hangs keeps its connection until it comes
back.
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

from host_controller.errors import DynmemError, HypervisorUnreachable
from host_controller.hypervisor.eventloop import Mailbox

KEEPALIVE_SECONDS: Final = 5
KEEPALIVE_COUNT: Final = 3
OPEN_LIMIT_SECONDS: Final = 10.0

T = TypeVar("T")

_OPENING: Final = threading.Lock()


class Late(Exception):  # noqa: N818 # read as what happened
    """A call has passed its limit; `outcome` is how it ends one day."""

    def __init__(self, outcome: "asyncio.Future[Any]") -> None:
        super().__init__("no answer in time")
        self.outcome = outcome


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
        """Let go of the handle of a domain that has stopped."""
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
