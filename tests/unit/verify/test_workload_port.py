"""The host's end of the port to a guest's workload server, before a server that says what it is told to."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from host_controller.verify.errors import WorkloadError
from host_controller.verify.workload_port import WorkloadPort

PATIENCE = 30.0


@contextmanager
def served(tmp_path: Path, *answers: bytes) -> Iterator[WorkloadPort]:
    """A port whose server gives one answer to each command, and closes it after an empty one."""
    path = tmp_path / "lab.sock"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        left = list(answers)
        while left:
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as lines:
                for line in filter(bytes.strip, lines):
                    answer = left.pop(0)
                    if not answer:
                        break
                    connection.sendall(answer.replace(b"ID", str(json.loads(line)["id"]).encode()))
                    if not left:
                        break

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    port = WorkloadPort("web", path, lambda: "the console's end")
    try:
        yield port
    finally:
        port.close()
        thread.join(PATIENCE)
        server.close()


def ok(**result: Any) -> bytes:
    return b'{"id": ID, "ok": true, "result": ' + json.dumps(result).encode() + b"}\n"


def test_an_answer_is_found_among_what_is_no_answer(tmp_path: Path) -> None:
    event = b'{"event": "done", "name": "memory", "mono": 1.0, "real": 2.0, "mib": 64}\n'
    with served(tmp_path, b'half a line"}\n' + event + b'{"id": -1, "ok": true}\n' + ok(free=5)) as port:
        assert port.ask("meminfo", PATIENCE)["result"] == {"free": 5}
        (seen,) = port.events
    assert (seen.kind, seen.name, seen.mib, seen.status) == ("done", "memory", 64, None)


def test_a_refusal_says_what_was_refused_and_what_the_console_said(tmp_path: Path) -> None:
    with (
        served(tmp_path, b'{"id": ID, "ok": false, "error": "no such workload"}\n') as port,
        pytest.raises(WorkloadError, match=r"hold .*no such workload.*\nthe console's end"),
    ):
        port.ask("hold", PATIENCE, name="memory")


def test_a_port_that_closes_is_said_and_opened_anew_by_the_next_command(tmp_path: Path) -> None:
    with served(tmp_path, b"", ok()) as port:
        with pytest.raises(WorkloadError, match="QEMU has ended"):
            port.ask("ping", PATIENCE)
        assert port.ask("ping", PATIENCE)["ok"]


def test_where_nobody_listens_a_command_is_not_taken(tmp_path: Path) -> None:
    port = WorkloadPort("web", tmp_path / "nothing", lambda: "")
    with pytest.raises(WorkloadError, match="does not take 'ping'"):
        port.ask("ping", PATIENCE)
