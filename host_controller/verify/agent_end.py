"""The host's end of an agent's port, for a guest that no controller manages."""

import socket
import time
from pathlib import Path
from typing import Final

from agent import codec, wire
from host_controller.verify.errors import WorkloadError

ANSWER_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.05


class AgentEnd:
    """Connects at once: the agent sees a host as soon as it starts. All waits have limits, in seconds."""

    def __init__(self, path: Path) -> None:
        """Raises WorkloadError where nobody listens at the socket."""
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            raise WorkloadError(f"the agent's port {path} cannot be opened: {error.strerror}") from None
        self._reader = codec.LineReader()
        self._number = 0

    def close(self) -> None:
        """Let go of the port."""
        self._socket.close()

    def forget(self) -> None:
        """Read away what an agent has said so far, such as one of a kernel that is about to end."""
        self._read(0.0)
        self._reader = codec.LineReader()

    def greets(self, limit: float) -> bool:
        """Whether an agent says hello and reports within the limit, and takes the zone of new memory."""
        until = time.monotonic() + limit
        hello = report = False
        while not (hello and report) and time.monotonic() < until:
            for message in self._read(LOOK_SECONDS):
                if isinstance(message, wire.Hello) and not hello:
                    hello = True
                    self._say(wire.Welcome("verify"))
                report = report or (hello and isinstance(message, wire.Report))
        return hello and report and self._done(wire.OnlineZone(self._next(), "movable"), until)

    def offline(self, start: int, size: int) -> bool:
        """Whether the agent takes that range offline; bytes of guest-physical addresses."""
        return self._done(wire.Offline(self._next(), start, size), time.monotonic() + ANSWER_SECONDS)

    def _done(self, message: wire.OnlineZone | wire.Offline, until: float) -> bool:
        self._say(message)
        while time.monotonic() < until:
            for answer in self._read(LOOK_SECONDS):
                if isinstance(answer, wire.Ack) and answer.request_id == message.request_id:
                    return answer.ok
        return False

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _say(self, message: wire.HostMessage) -> None:
        try:
            self._socket.sendall(codec.encode(message))
        except OSError as error:
            raise WorkloadError(f"the agent's port is lost: {error.strerror}") from None

    def _read(self, wait: float) -> list[wire.GuestMessage]:
        self._socket.settimeout(wait or 0.001)
        found: list[wire.GuestMessage] = []
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            return found
        except OSError as error:
            raise WorkloadError(f"the agent's port is lost: {error.strerror}") from None
        if not data:
            raise WorkloadError("the agent's port was closed: QEMU has ended")
        for line in self._reader.feed(data):
            if not isinstance(line, bytes):
                continue
            try:
                found.append(codec.decode_from_guest(line))
            except codec.WireError:
                continue  # the rest of a line of a kernel that was reset
        return found
