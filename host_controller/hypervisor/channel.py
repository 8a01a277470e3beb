"""A guest's virtio-serial port as a libvirt stream: always drained, never blocking, reopened when it closes.

Streams of all VMs share one connection, so nothing may pile up on it in either direction. Reading: libvirt's
event thread reads until there is nothing left, and only what the link lets through reaches the loop.
Writing: libvirtd holds what QEMU does not take, and every held message takes one of the connection's five
places (fact: five-requests), so a guest that does not read would stop everybody's streams. Therefore at most
UNANSWERED messages are written to a guest that has said nothing since; more wait in a short queue that
drops its oldest.
"""

import asyncio
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import libvirt

from agent import codec, wire
from host_controller.core.interface import GuestNoise, GuestSpoke
from host_controller.hypervisor.connections import Connection
from host_controller.hypervisor.eventloop import Mailbox
from host_controller.hypervisor.link import NOISE_SECONDS, Link

READ_BYTES: Final = 1 << 16
TURN_BYTES: Final = 1 << 20
"""Read of one stream before libvirt's loop sees to the others."""
UNANSWERED: Final = 32
"""Far below what a unix socket's buffer holds, even counted as the kernel counts small messages."""
QUEUE: Final = 16
FIRST_RETRY_SECONDS: Final = 0.5
LAST_RETRY_SECONDS: Final = 30.0

ERROR_EVENTS: Final = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP

Deliver = Callable[[GuestSpoke | GuestNoise], None]


class Port:
    """A stream that was opened, and the connection that it belongs to.

    Libvirt (9.0: remoteStreamCallbackFree) never frees what was registered with a stream's callback, which
    holds the stream, which holds its connection. So the callback holds this object weakly, and `end` empties
    the stream: a shell of a few hundred bytes stays behind for each time a port was opened.
    """

    def __init__(self, connection: Connection, stream: Any, readable: Callable[["Port", int], None]) -> None:
        self.connection = connection
        self._stream = stream
        self._readable = readable
        self._lock = threading.Lock()
        """Held while the event thread reads: a stream must not be freed under it."""
        me = weakref.ref(self)

        def on_event(_stream: object, events: int, _opaque: object) -> None:
            port = me()
            if port is not None:
                with port._lock:  # noqa: SLF001 # it is our own
                    if port._stream is not None:  # noqa: SLF001
                        port._readable(port, events)  # noqa: SLF001

        stream.eventAddCallback(libvirt.VIR_STREAM_EVENT_READABLE | ERROR_EVENTS, on_event, None)

    def recv(self) -> bytes | None:
        """What has come, at most READ_BYTES; None when that is nothing, empty at the end."""
        data = self._stream.recv(READ_BYTES)
        return None if data == -2 else data

    def deafen(self) -> None:
        """The event thread calls no more: the stream is at its end, and would call for ever."""
        with suppress(libvirt.libvirtError):  # the connection may have gone, and the callback with it
            self._stream.eventRemoveCallback()

    def send(self, line: bytes) -> None:
        """Write, in the connection's thread: one thread at a time may wait on a connection.

        What goes wrong there is told to the event thread as well, which closes.
        """
        self.connection.start(partial(self._send, line)).add_done_callback(_look_at)

    def end(self) -> None:
        """Abort the stream and free it, in its connection's thread. Its errors are swallowed."""
        self.connection.start(self._end).add_done_callback(_look_at)

    def _send(self, line: bytes) -> None:
        if self._stream is not None:
            self._stream.send(line)

    def _end(self) -> None:
        with self._lock:
            stream, self._stream = self._stream, None
        if stream is None:
            return
        for step in (stream.eventRemoveCallback, stream.abort):
            with suppress(libvirt.libvirtError):  # it may have ended already, by QEMU or with its connection
                step()
        stream.__del__()
        stream._o = stream._conn = stream.cb = None  # noqa: SLF001 # libvirt-python has no way to say it


class Channel:
    """One VM's port. `open` blocks and runs in a connection's thread; all else is called in the loop."""

    def __init__(self, vm: str, mailbox: Mailbox, deliver: Deliver, closed: Callable[[], None]) -> None:
        self.link = Link(vm, time.monotonic())
        self.retry_seconds = FIRST_RETRY_SECONDS
        self.heard = False
        """The guest has said something since this was last set to false."""
        self.heard_at = -math.inf
        self.dropped = 0
        """Messages for the guest that were dropped from the queue."""
        self._vm = vm
        self._mailbox = mailbox
        self._deliver = deliver
        self._on_closed = closed
        self._port: Port | None = None
        self._ended: Port | None = None
        self._link_lock = threading.Lock()
        self._noise_timer: asyncio.TimerHandle | None = None
        self._unanswered = 0
        self._queue: deque[bytes] = deque(maxlen=QUEUE)

    @property
    def is_open(self) -> bool:
        """Whether libvirt holds the port open for us; says nothing about the guest's end."""
        return self._port is not None

    def open(self, connection: Connection, *, force: bool) -> Port:
        """Connect to the port. Returns what `opened` wants.

        force: push out whoever holds it; not while a stream to it may be ending (fact: forced-open-deadlock).
        """
        stream = connection.handle.newStream(libvirt.VIR_STREAM_NONBLOCK)
        flags = libvirt.VIR_DOMAIN_CHANNEL_FORCE if force else 0
        connection.domain(self._vm).openChannel(wire.PORT_NAME, stream, flags)
        with self._link_lock:
            self.link.reset()
        return Port(connection, stream, self._readable)

    def opened(self, port: Port) -> None:
        """Take what `open` returned; what waits is written now."""
        if port is self._ended:  # it ended before the loop heard that it had begun
            self._on_closed()
            return
        self._port = port
        self._unanswered = 0
        self._flush()

    def send(self, message: wire.HostMessage) -> None:
        """Write it soon. With QUEUE messages waiting the oldest is dropped, and counted."""
        if len(self._queue) == QUEUE:
            self.dropped += 1
        self._queue.append(codec.encode(message))
        self._flush()

    def guest_opened(self) -> None:
        """The guest has opened its end anew: nothing of ours waits there unread."""
        self._unanswered = 0
        self._flush()

    def close(self) -> None:
        """Let go of the port, without waiting for it."""
        self._queue.clear()
        if self._noise_timer is not None:
            self._noise_timer.cancel()
        self.hang_up()

    def hang_up(self) -> None:
        """As `close`, but what waits to be written is kept: it is opened again."""
        port, self._port = self._port, None
        if port is not None:
            port.end()

    def _flush(self) -> None:
        while self._port is not None and self._queue and self._unanswered < UNANSWERED:
            self._port.send(self._queue.popleft())
            self._unanswered += 1

    def _readable(self, port: Port, events: int) -> None:
        # In libvirt's event thread.
        now = time.monotonic()
        ended = False
        read = 0
        while read < TURN_BYTES:
            try:
                data = port.recv()
            except libvirt.libvirtError:
                ended = True
                break
            if data is None:
                break
            if not data:
                ended = True
                break
            read += len(data)
            with self._link_lock:
                found = self.link.feed(data, now)
            if found:
                self._mailbox.post(self._heard, found)
        if read and self.link.holds_noise and self._noise_timer is None:
            self._mailbox.post(self._tell_noise_later)
        if ended or (not read and events & ERROR_EVENTS):
            port.deafen()
            self._mailbox.post(self._closed, port)

    def _heard(self, events: list[GuestSpoke | GuestNoise]) -> None:
        if any(isinstance(one, GuestSpoke) for one in events):
            self._unanswered = 0
            self.heard = True
            self.heard_at = time.monotonic()
            self.retry_seconds = FIRST_RETRY_SECONDS
            self._flush()
        for one in events:
            self._deliver(one)

    def _tell_noise_later(self) -> None:
        if self._noise_timer is None:
            self._noise_timer = asyncio.get_running_loop().call_later(NOISE_SECONDS, self._tell_noise)

    def _tell_noise(self) -> None:
        self._noise_timer = None
        with self._link_lock:
            found = self.link.flush(time.monotonic())
        self._heard(found)

    def _closed(self, port: Port) -> None:
        self._ended = port
        if port is self._port:
            self._port = None
        port.end()
        self.retry_seconds = min(2 * self.retry_seconds, LAST_RETRY_SECONDS)
        self._on_closed()


def _look_at(future: "asyncio.Future[Any]") -> None:
    """Otherwise asyncio complains of an exception that nobody has seen."""
    if not future.cancelled():
        future.exception()
