"""HTTP with services that may be slow, hostile or broken: one limit of time, one of size, for a whole answer.

What is answered is bytes of anybody's: `read_object` is the one way to make something of them.
"""

import http.client
import io
import json
import socket
import time
from collections.abc import Mapping
from typing import Any, Final

CHUNK: Final = 1 << 16

UNHEARD: Final = (OSError, http.client.HTTPException, ValueError)
"""What `ask` raises. ValueError: the name can be no host's, or a field cannot be sent."""


class TooLarge(http.client.HTTPException):  # read as what happened
    """The answer goes on beyond its limit."""


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    *,
    seconds: float,
    largest: int,
    headers: Mapping[str, str],
    body: str | None = None,
) -> tuple[int, bytes]:
    """Status and body, of `largest` bytes at most, within so many seconds from now.

    The limit holds from the first byte of the head on: a peer that drips does not hold us.

    Raises:
        OSError, http.client.HTTPException, ValueError: those of `UNHEARD`; `TooLarge` is among them.
    """
    end = time.monotonic() + seconds
    if connection.sock is None:
        connection.connect()
    if not isinstance(connection.sock, _Timed):
        connection.sock = _Timed(connection.sock)
    connection.sock.end = end
    connection.request(method, path, body, dict(headers))
    response = connection.getresponse()
    found = b""
    while chunk := response.read1(CHUNK):
        found += chunk
        if len(found) > largest:
            raise TooLarge(f"its answer is larger than {largest} bytes")
    response.close()  # read1 of Python 3.11.2 leaves it open at its end, in the way of the next request
    return response.status, found


def read_object(untrusted: bytes) -> dict[str, Any]:
    """The JSON object that an answer is.

    Raises:
        ValueError: it is none, or nested beyond measure.
    """
    try:
        found = json.loads(untrusted)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return found


class _Timed:
    """A connection's socket, all of whose reads end at one moment: a timeout begins anew at each byte."""

    def __init__(self, one: socket.socket) -> None:
        self._socket = one
        self.end = 0.0

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(_left(self.end))
        self._socket.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        # The file keeps the socket open while http.client has closed it.
        return io.BufferedReader(_Reads(self, self._socket.makefile("rb", buffering=0)))

    def settimeout(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def close(self) -> None:
        self._socket.close()


class _Reads(io.RawIOBase):
    def __init__(self, timed: _Timed, inner: io.RawIOBase) -> None:
        self._timed, self._inner = timed, inner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._timed.settimeout(_left(self._timed.end))
        return self._inner.readinto(buffer)

    def close(self) -> None:
        self._inner.close()
        super().close()


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer within its time")
    return left
