"""A controller over simulated VMs with its API on a socket, and ways to ask it."""

import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from host_controller.api.client import Client
from host_controller.api.server import Api
from host_controller.control.controller import Controller
from tests.support.virtual import Host


@asynccontextmanager
async def served(
    host: Host,
    path: Path,
    reload: Callable[[], None] = lambda: None,
    *,
    history: Path | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Controller, Client]]:
    async with host.controller(**options) as controller:
        api = Api(controller, reload, history=history)
        await api.start(path / "control.sock")
        try:
            yield controller, Client(str(path / "control.sock"))
        finally:
            await api.stop()


def exchange(path: Path, request: bytes) -> bytes:
    """All that is answered to some bytes."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path / "control.sock"))
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(1 << 16):
            answer += chunk
    return answer


def raw(path: Path, request: bytes) -> tuple[int, dict[str, Any]]:
    """Status and body of an answer to bytes that no client of ours would send."""
    answer = exchange(path, request)
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def request(line: str, body: bytes = b"") -> bytes:
    head = f"{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def invoke(command: Any, path: Path, *arguments: str) -> Result:
    result = CliRunner().invoke(command, [*arguments, "--socket", str(path / "control.sock")])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
