"""A port made of a pseudo terminal: closing the host's end looks to the agent as it does on virtio-serial.

The agent has the master, which says POLLHUP and EIO for as long as nobody has the other end open.
"""

import os
import select
import tty

from agent.codec import LineReader, LineTooLong, decode_from_guest, encode
from agent.wire import GuestMessage, HostMessage


class HostEnd:
    """`hold_master`: the other way round, for an agent that opens the terminal by its name."""

    def __init__(self, hold_master: bool = False) -> None:
        self.master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.name = os.ttyname(self._slave)
        os.set_blocking(self.master, False)
        self._fd: int | None = self.master if hold_master else self._slave
        self._reader = LineReader()
        self.raw = b""
        self.messages: list[GuestMessage] = []

    def opener(self) -> int:
        """For Port: a descriptor of its own, as opening the device gives one."""
        return os.dup(self.master)

    def leave(self) -> None:
        assert self._fd is not None
        os.close(self._fd)
        self._fd = None

    def come(self) -> None:
        self._fd = os.open(self.name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._fd)
        self._reader = LineReader()
        self.messages.clear()

    def say(self, *messages: HostMessage | bytes) -> None:
        assert self._fd is not None
        for message in messages:
            os.write(self._fd, message if isinstance(message, bytes) else encode(message))

    def hear(self) -> list[GuestMessage]:
        """Read what came; returns all messages so far."""
        assert self._fd is not None
        while select.select([self._fd], [], [], 0)[0]:
            data = os.read(self._fd, 65536)
            self.raw += data
            for line in self._reader.feed(data):
                assert not isinstance(line, LineTooLong)
                self.messages.append(decode_from_guest(line))
        return self.messages

    def close(self) -> None:
        for fd in {self.master, self._fd} - {None}:
            os.close(fd)
