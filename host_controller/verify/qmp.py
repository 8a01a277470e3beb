"""A QMP client of the lab's own monitor sockets.

Synchronous, with a non-blocking core for the observer, which samples other guests while one QEMU is stopped.
(The qemu.qmp package is asyncio only; one loop over sockets and /proc needs neither it nor its dependency.)
"""

import json
import select
import socket
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from host_controller.verify.errors import QmpError


@dataclass(frozen=True, slots=True)
class QmpEvent:
    """An event: `qemu_time` is QEMU's wall clock, `received` our CLOCK_MONOTONIC, both in seconds."""

    name: str
    data: dict[str, Any]
    qemu_time: float
    received: float


class Qmp:
    """A connection to a monitor socket. `submit` and `pump` never block; `execute` waits for the answer."""

    def __init__(self, path: Path) -> None:
        """Connect without waiting for the greeting: it is dealt with as it comes.

        Raises QmpError if nothing listens there.
        """
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise QmpError(f"No QEMU answers on {path}: {error}") from error
        self._socket.setblocking(False)
        self._inbox = b""
        self._last_id = 0
        self.events: deque[QmpEvent] = deque(maxlen=10_000)
        self.answers: dict[int, dict[str, Any]] = {}
        self.submit("qmp_capabilities")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket. QEMU takes the next client then."""
        self._socket.close()

    def fileno(self) -> int:
        """For select and poll."""
        return self._socket.fileno()

    def submit(self, command: str, **arguments: Any) -> int:
        """Send a command; its answer appears in `answers` under the returned id once `pump` has read it."""
        self._last_id += 1
        request = {"execute": command, "arguments": arguments, "id": self._last_id}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise QmpError(f"QEMU's monitor {self._path} is gone: {error}") from error
        return self._last_id

    def pump(self) -> None:
        """Read what has arrived, without waiting. Raises QmpError when QEMU has closed the socket."""
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return
            except OSError as error:
                raise QmpError(f"QEMU's monitor {self._path} is gone: {error}") from error
            if not data:
                raise QmpError(f"QEMU's monitor {self._path} was closed: QEMU has ended.")
            received = time.monotonic()
            *lines, self._inbox = (self._inbox + data).split(b"\n")
            for line in lines:
                self._take(json.loads(line), received)

    def _take(self, message: dict[str, Any], received: float) -> None:
        if "event" in message:
            stamp = message["timestamp"]
            qemu_time = stamp["seconds"] + stamp["microseconds"] / 1e6
            self.events.append(QmpEvent(message["event"], message.get("data", {}), qemu_time, received))
        elif "id" in message:
            self.answers[message["id"]] = message

    def execute(self, command: str, limit: float = 10.0, **arguments: Any) -> Any:
        """The result of a command. Raises QmpError on refusal, or after `limit` seconds without an answer."""
        number = self.submit(command, **arguments)
        deadline = time.monotonic() + limit
        while number not in self.answers:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise QmpError(f"QEMU did not answer {command} on {self._path} within {limit:g} s.")
            select.select([self], [], [], remaining)
            self.pump()
        answer = self.answers.pop(number)
        if "error" in answer:
            raise QmpError(f"QEMU refused {command} {arguments}: {answer['error'].get('desc')}")
        return answer["return"]

    def wait_event(self, name: str, limit: float, **data: Any) -> QmpEvent:
        """The next event of that name whose data contain `data`; earlier events are dropped.

        Raises QmpError after `limit` seconds, with the events that came instead.
        """
        deadline = time.monotonic() + limit
        seen: list[str] = []
        while True:
            while self.events:
                event = self.events.popleft()
                if event.name == name and data.items() <= event.data.items():
                    return event
                seen.append(event.name)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise QmpError(
                    f"No event {name} {data} within {limit:g} s. Seen instead: {seen or 'nothing'}."
                )
            select.select([self], [], [], remaining)
            self.pump()
