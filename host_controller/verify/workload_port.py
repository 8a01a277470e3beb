"""The port of the workload server in a guest, from the host's side: commands out, answers and events in."""

import itertools
import json
import random
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host_controller.verify.errors import WorkloadError


@dataclass(frozen=True, slots=True)
class WorkloadEvent:
    """What a workload in the guest said by itself.

    `kind`: started, progress, done (an allocation is all touched), ended (process gone, memory free).
    `monotonic` and `realtime` are the guest's clocks, `received` is ours (CLOCK_MONOTONIC), all in seconds.
    `mib`: touched or read so far, in MiB. `status`: exit status, -9 for a kill (by `free` or the guest's OOM
    killer).
    """

    kind: str
    name: str
    monotonic: float
    realtime: float
    received: float
    mib: int | None = None
    status: int | None = None


class WorkloadPort:
    """Speaks with one guest's server, a JSON object a line. Connects when first used, and again after the
    guest has been reset.
    """

    def __init__(self, guest: str, path: Path, context: Callable[[], str]) -> None:
        """`context` tells what to add to an error message (the end of the guest's console)."""
        self._guest = guest
        self._path = path
        self._context = context
        self._socket: socket.socket | None = None
        self._inbox = b""
        self._ids = itertools.count(random.randrange(1 << 30))  # noqa: S311  no secret: it tells our answers from a former client's
        self._answers: dict[int, dict[str, Any]] = {}
        self.events: deque[WorkloadEvent] = deque(maxlen=10_000)

    def close(self) -> None:
        """Close the port's host end."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def error(self, what: str) -> WorkloadError:
        """About this guest, with the context's word."""
        return WorkloadError(f"Guest {self._guest}: {what}.\n{self._context()}")

    def tell(self, command: str, /, **parameters: Any) -> int:
        """Send a command; returns its number.

        Raises:
            WorkloadError: the port does not take it.
        """
        number = next(self._ids)
        line = json.dumps({"id": number, "do": command, **parameters}).encode() + b"\n"
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.connect(str(self._path))
                self._socket.setblocking(False)
                self._inbox = b""
                line = b"\n" + line  # ends what a former connection may have left cut off
            self._socket.sendall(line)
        except OSError as error:
            self.close()
            time.sleep(0.1)
            raise self.error(f"its port {self._path} does not take {command!r}: {error}") from error
        return number

    def ask(self, command: str, patience: float, /, **parameters: Any) -> dict[str, Any]:
        """The answer to a command, waited for `patience` seconds.

        Raises:
            WorkloadError: there is none, or the command was refused.
        """
        deadline = time.monotonic() + patience
        number = self.tell(command, **parameters)
        while number not in self._answers:
            if time.monotonic() > deadline:
                raise self.error(f"no answer to {command!r} within {patience:g} s")
            self.pump(deadline)
        answer = self._answers.pop(number)
        if not answer["ok"]:
            raise self.error(f"{command} {parameters} was refused: {answer['error']}")
        return answer

    def pump(self, deadline: float) -> None:
        """Read what comes before the deadline (CLOCK_MONOTONIC, seconds): once.

        Raises:
            WorkloadError: the port is closed, at one of its ends.
        """
        if self._socket is None:
            raise self.error("its port is closed")
        if not select.select([self._socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return
        try:
            data = self._socket.recv(65536)
        except OSError as error:
            data = b""
            what = f"its port was lost: {error}"
        else:
            what = "its port was closed: QEMU has ended"
        if not data:
            self.close()
            raise self.error(what)
        received = time.monotonic()
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                continue  # cut off by a reset or by a former connection
            self._take(message, received)

    def _take(self, message: dict[str, Any], received: float) -> None:
        if "event" in message:
            self.events.append(
                WorkloadEvent(
                    message["event"],
                    message["name"],
                    message["mono"],
                    message["real"],
                    received,
                    message.get("mib"),
                    message.get("status"),
                )
            )
        elif "id" in message:
            self._answers[message["id"]] = message
