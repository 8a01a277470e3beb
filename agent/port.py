"""The virtio-serial port: opens when it appears, outlives a host that is away, never blocks, never grows.

While no host has the other end open, the kernel reports POLLHUP from every poll() and takes no writes
[drivers/char/virtio_console.c, port_fops_poll()]. So a port without a host is left out of the poll set, and
looked at by the timer instead. What cannot be sent is dropped: the newest report replaces an older one, of
acknowledgements the last 16 are kept.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections import deque
from collections.abc import Callable

from agent.codec import LineReader, LineTooLong, encode
from agent.wire import PORT_NAME, Ack, Error, GuestMessage, Held, Hello, Report

MOST_ACKS = 16
MOST_READ_BYTES = 65536  # per turn, so that a flood from the host does not hold up the loop


def find_port(root: str = "/") -> str | None:
    """The device of our port: udev's name for it, or, where no udev runs, what sysfs says it is."""
    path = os.path.join(root, "dev/virtio-ports", PORT_NAME)
    if os.path.exists(path):
        return path
    ports = os.path.join(root, "sys/class/virtio-ports")
    try:
        names = os.listdir(ports)
    except OSError:
        return None
    for name in names:
        try:
            with open(os.path.join(ports, name, "name"), "rb", buffering=0) as file:
                found = (file.read(256) or b"").strip()
        except OSError:  # consoles have no name
            continue
        if found == PORT_NAME.encode():
            return os.path.join(root, "dev", name)
    return None


def open_port(root: str = "/", path: str | None = None) -> int:
    """Open the port. Raises OSError: ENOENT without one, EMFILE if another process has it.

    A file at its place, which somebody's redirection has left, is none: it would take all we say, for ever.
    """
    path = path or find_port(root)
    if path is None:
        raise FileNotFoundError(errno.ENOENT, "no virtio port", PORT_NAME)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ENOTTY, "what is there is a file, and no port", path)
    return fd


class Port:
    """`opener` gives a non-blocking descriptor or raises OSError."""

    def __init__(self, opener: Callable[[], int]) -> None:
        self._opener = opener
        self._fd: int | None = None
        self._present = False
        self._reader = LineReader()
        self._rest = b""  # the rest of a line that was sent in part
        self._hello: bytes | None = None
        self._report: bytes | None = None
        self._answers: deque[bytes] = deque(maxlen=MOST_ACKS)
        self.dropped = 0

    @property
    def connected(self) -> bool:
        """Whether a host has the other end open, as far as can be known."""
        return self._present

    def look(self) -> bool:
        """Open the port if it is closed, and see whether a host came. Returns whether one just did.

        Raises OSError if the port cannot be opened.
        """
        if self._fd is None:
            self._fd = self._opener()
        if self._present:
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        for _, events in poll.poll(0):
            if events & (select.POLLERR | select.POLLNVAL):
                self.close()  # the device went
                return False
            if events & select.POLLHUP:
                if self._unplugged():
                    self.close()
                return False
        self._present = True
        self._forget()
        # Ends the line that a former peer, or we before a restart, may have left cut in the middle.
        self._rest = b"\n"
        return True

    def poll_for(self) -> tuple[int, int] | None:
        """Descriptor and events for poll(); None while there is nobody to hear or be heard."""
        if self._fd is None or not self._present:
            return None
        return self._fd, select.POLLIN | (select.POLLOUT if self._next() else 0)

    def send(self, message: GuestMessage) -> None:
        """Queue a message, and send what goes. Raises WireError for one that cannot be encoded."""
        line = encode(message)
        if not self._present:
            self.dropped += 1
            return
        if isinstance(message, Report):
            self.dropped += self._report is not None
            self._report = line
        elif isinstance(message, Hello):
            self._hello = line
        else:
            assert isinstance(message, (Ack, Held, Error))  # Python 3.9 has no `|` of classes
            self.dropped += len(self._answers) == MOST_ACKS
            self._answers.append(line)
        self.flush()

    def flush(self) -> None:
        """Send what goes without waiting."""
        while self._present and self._fd is not None and (line := self._next()):
            try:
                sent = os.write(self._fd, line)
            except BlockingIOError:
                return  # the line stays in its slot, where a newer report may replace it
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    self._lost(error)
                    return
                # The kernel has no buffer for it: no reason to leave while memory is short. Kept, it would
                # have poll() wake us for ever; what it was cut from ends with the next line.
                self.dropped += 1
                self._take()
                return
            self._take()
            self._rest = line[sent:]

    def read(self) -> list[bytes | LineTooLong]:
        """The lines that came, at most 64 KiB of them. Notices a host that went."""
        lines: list[bytes | LineTooLong] = []
        seen = 0
        while self._present and self._fd is not None and seen < MOST_READ_BYTES:
            try:
                data = os.read(self._fd, 8192)
            except BlockingIOError:
                break
            except OSError as error:
                self._lost(error)
                break
            if not data:  # virtio_console's way to say that the host closed its end
                self._away()
                break
            seen += len(data)
            lines += self._reader.feed(data)
        return lines

    def hung_up(self) -> None:
        """poll() said POLLHUP: drop what is queued, until look() sees a host again."""
        self._away()

    def close(self) -> None:
        """Close the port; look() opens it again."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None
        self._away()

    def _unplugged(self) -> bool:
        """To poll() a port that was taken out looks like one whose host is away: a read of nothing tells."""
        assert self._fd is not None
        try:
            os.read(self._fd, 0)
        except OSError as error:
            return error.errno == errno.ENODEV
        return False

    def _next(self) -> bytes | None:
        """What goes next; Hello is first, the report last, so that answers do not wait."""
        return self._rest or self._hello or (self._answers[0] if self._answers else self._report)

    def _take(self) -> None:
        """Remove what _next() gave."""
        if self._rest:
            self._rest = b""
        elif self._hello:
            self._hello = None
        elif self._answers:
            self._answers.popleft()
        else:
            self._report = None

    def _lost(self, error: OSError) -> None:
        if error.errno in (errno.EIO, errno.EPIPE):
            self._away()
        else:
            self.close()  # ENODEV and the like: the device itself is gone

    def _away(self) -> None:
        self._present = False
        self._forget()

    def _forget(self) -> None:
        self._reader.reset()
        self._rest = b""
        self._hello = self._report = None
        self._answers.clear()
