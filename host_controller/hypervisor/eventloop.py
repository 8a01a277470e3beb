"""libvirt's own event loop on a thread, and the way from its callbacks into asyncio.

libvirt's loop is used, not libvirtaio: calls made in threads touch the handles and timers of their
connection from those threads, which asyncio does not allow, and an event implementation is for the whole
life of a process while asyncio loops come and go.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import libvirt

from host_controller.errors import HypervisorUnreachable

CLEANUP_ROUNDS: Final = 3
"""Turns of the loop that a closed connection needs until its handles and timers are freed."""


class EventThread:
    """Runs libvirt's event loop for as long as somebody uses it; one for the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._thread: threading.Thread | None = None
        self._timer: int | None = None
        self._stopping = False

    def acquire(self) -> None:
        """Have the loop running; must precede the first connection."""
        with self._lock:
            self._users += 1
            if self._thread is not None:
                return
            if self._timer is None:
                libvirt.registerErrorHandler(_be_quiet, None)
                libvirt.virEventRegisterDefaultImpl()
                self._timer = libvirt.virEventAddTimeout(-1, self._woken, None)
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="libvirt-events", daemon=True)
            self._thread.start()

    def release(self) -> None:
        """Stop the loop with its last user. Blocks for some milliseconds; not for the event thread itself."""
        with self._lock:
            self._users -= 1
            if self._users or self._thread is None:
                return
            self._stopping = True
            libvirt.virEventUpdateTimeout(self._timer, 0)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._stopping:
            if libvirt.virEventRunDefaultImpl() < 0:
                raise HypervisorUnreachable("libvirt's event loop failed")
        for _ in range(CLEANUP_ROUNDS):
            libvirt.virEventUpdateTimeout(self._timer, 0)
            libvirt.virEventRunDefaultImpl()

    def _woken(self, timer: int, _opaque: object) -> None:
        libvirt.virEventUpdateTimeout(timer, -1)


def _be_quiet(_context: object, _error: object) -> None:
    """Every error reaches us as an exception; libvirt would print it to stderr as well."""


EVENT_THREAD: Final = EventThread()


class Mailbox:
    """Takes calls from any thread and makes them in the asyncio loop, in order, many in one wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._lock = threading.Lock()
        self._scheduled = False
        self._closed = False

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Call `function(*args)` in the loop soon; nothing after `close`."""
        with self._lock:
            if self._closed:
                return
            self._waiting.append((function, args))
            if self._scheduled:
                return
            self._scheduled = True
            with suppress(RuntimeError):  # a loop that was closed without us hears nothing more
                self._loop.call_soon_threadsafe(self._deliver)

    def close(self) -> None:
        """Drop what waits; later posts are ignored."""
        with self._lock:
            self._closed = True
            self._waiting.clear()

    def _deliver(self) -> None:
        with self._lock:
            # Only what is here now: whoever posts while these run waits for the next turn of the loop.
            batch = list(self._waiting)
            self._waiting.clear()
            self._scheduled = False
        for function, args in batch:
            if self._closed:
                return
            try:
                function(*args)
            except Exception as error:  # noqa: BLE001 # one bad event must not lose those behind it
                self._loop.call_exception_handler({"message": "event handler failed", "exception": error})
